//! `99_integrity.json`: size and SHA-256 of every entry but directories, the manifest (the only one that differs between
//! two exports of the same state) and itself, and counts per document type.
//!
//! The records, of all entries, are spooled to a temporary file while the snapshot is written: there may be any number.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use model::layout::{self, DocumentType};
use serde::{Deserialize, Serialize};

use super::Totals;

/// What was written under a name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Record<'a> {
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    pub(super) size: u64,
}

/// The same with the digest, as the document has it.
#[derive(Debug, Serialize)]
struct Listed<'a> {
    name: &'a str,
    size: u64,
    sha256: &'a str,
}

/// Before the line of an entry that the document lists, and of one that it does not.
const LISTED: u8 = b'+';
const UNLISTED: u8 = b'-';

/// Records on their way to the disk.
#[derive(Debug)]
pub(super) struct Spool(BufWriter<File>);

impl Spool {
    pub(super) fn new(scratch: &Path) -> io::Result<Self> {
        tempfile::tempfile_in(scratch).map(|f| Self(BufWriter::new(f)))
    }

    pub(super) fn add(&mut self, name: &str, size: u64, sha256: &[u8; 32]) -> io::Result<()> {
        let mut text = [0; 64];
        hex::encode_to_slice(sha256, &mut text).map_err(io::Error::other)?;
        let sha256 = std::str::from_utf8(&text).map_err(io::Error::other)?;
        let listed = !name.ends_with('/') && name != layout::MANIFEST;
        self.0.write_all(&[if listed { LISTED } else { UNLISTED }])?;
        serde_json::to_writer(&mut self.0, &Listed { name, size, sha256 })?;
        self.0.write_all(b"\n")
    }

    pub(super) fn finish(self) -> io::Result<Records> {
        let mut file = self.0.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        Ok(Records { file: BufReader::new(file), line: Vec::new() })
    }
}

/// Records coming back in the order they were written.
#[derive(Debug)]
pub(super) struct Records {
    file: BufReader<File>,
    line: Vec<u8>,
}

impl Records {
    pub(super) fn rewind(&mut self) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0)).map(|_| ())
    }

    pub(super) fn next(&mut self) -> io::Result<Option<Record<'_>>> {
        match self.line()? {
            Some((_, record)) => Ok(Some(serde_json::from_slice(record)?)),
            None => Ok(None),
        }
    }

    /// The next record as the document has it, and whether that lists it.
    fn line(&mut self) -> io::Result<Option<(bool, &[u8])>> {
        self.line.clear();
        self.file.read_until(b'\n', &mut self.line)?;
        Ok(self.line.split_first().map(|(mark, record)| (*mark == LISTED, record.trim_ascii_end())))
    }
}

/// Writes the document. One record per line, so that people and line tools can read it.
pub(super) fn write(out: &mut impl Write, totals: &Totals, records: &mut Records) -> io::Result<()> {
    write!(out, "{{\"version\":1,\"documents\":{{")?;
    for document_type in DocumentType::ALL {
        let comma = if document_type.index() == 0 { "" } else { "," };
        write!(out, "{comma}\"{document_type}\":{}", totals.documents[document_type.index()])?;
    }
    write!(out, "}},\"files\":{},\"bytes\":{},\"entries\":[", totals.content.files, totals.content.bytes)?;
    let mut comma = "";
    while let Some((listed, record)) = records.line()? {
        if listed {
            writeln!(out, "{comma}")?;
            out.write_all(record)?;
            comma = ",";
        }
    }
    write!(out, "\n]}}")
}
