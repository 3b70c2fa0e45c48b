//! `99_integrity.json`: size and SHA-256 of every entry but directories, the manifest (the only one that differs between
//! two exports of the same state) and itself, and counts per document type.
//!
//! The records, of all entries, are spooled to a temporary file while the snapshot is written: there may be any number.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use model::layout::{self, DocumentType};
use serde::{Deserialize, Serialize};

use super::Totals;

/// What was written under a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) sha256: String,
}

/// Records on their way to the disk.
#[derive(Debug)]
pub(super) struct Spool(BufWriter<File>);

impl Spool {
    pub(super) fn new(scratch: &Path) -> io::Result<Self> {
        tempfile::tempfile_in(scratch).map(|f| Self(BufWriter::new(f)))
    }

    pub(super) fn add(&mut self, record: &Record) -> io::Result<()> {
        serde_json::to_writer(&mut self.0, record)?;
        self.0.write_all(b"\n")
    }

    pub(super) fn finish(self) -> io::Result<Records> {
        let mut file = self.0.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        Ok(Records(BufReader::new(file)))
    }
}

/// Records coming back in the order they were written.
#[derive(Debug)]
pub(super) struct Records(BufReader<File>);

impl Records {
    pub(super) fn rewind(&mut self) -> io::Result<()> {
        self.0.seek(SeekFrom::Start(0)).map(|_| ())
    }

    pub(super) fn next(&mut self) -> io::Result<Option<Record>> {
        let mut line = String::new();
        match self.0.read_line(&mut line)? {
            0 => Ok(None),
            _ => Ok(Some(serde_json::from_str(&line)?)),
        }
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
    while let Some(record) = records.next()? {
        if record.name.ends_with('/') || record.name == layout::MANIFEST {
            continue;
        }
        writeln!(out, "{comma}")?;
        serde_json::to_writer(&mut *out, &record)?;
        comma = ",";
    }
    write!(out, "\n]}}")
}
