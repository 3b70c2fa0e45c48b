//! Reads a finished snapshot back before anybody may see it: every entry, CRC, count and digest, against what the
//! source said and what was meant to be written.

use std::io::{BufReader, Read, Seek, SeekFrom};

use model::area::Part;
use model::layout::{self, DocumentType};
use model::limits;
use sha2::{Digest, Sha256};
use zip::CompressionMethod;
use zip::ZipReadOptions;
use zip::read::Config;
use zip::unstable::format::flags::ZipFlags;
use zip::unstable::read::ZipIterable;

use super::integrity::Records;
use super::writer::Written;
use crate::control::Control;
use crate::failure::Failure;

/// The whole file, proved.
#[derive(Debug)]
pub(super) struct Proved {
    pub(super) size: u64,
    pub(super) sha256: [u8; 32],
}

/// Proves the file.
///
/// # Errors
/// [`Failure`] naming the first thing that is not as it should be.
pub(super) fn prove(part: &Part, mut written: Written, control: &Control) -> Result<Proved, Failure> {
    let io = |e| Failure::io("verify snapshot file", e);
    let file = part.reopen().map_err(io)?;
    // Reads one central header after the other, each with its local header and its bytes: constant memory. That no
    // entry stands twice follows from the records, which must come in the order in which they were written.
    let reader = |file| BufReader::with_capacity(limits::SAMPLE, file);
    let headers = reader(part.reopen().map_err(io)?);
    let bodies = reader(part.reopen().map_err(io)?);
    let mut archive =
        ZipIterable::try_new(headers, Config::default()).map_err(unreadable)?.enforce_header_consistency(true);
    written.records.rewind().map_err(io)?;
    let mut proof = Proof { control, records: &mut written.records, lines: [0; 16], files: 0, file_bytes: 0 };
    let mut entries = archive.files_with_reader(bodies, ZipReadOptions::new()).map_err(unreadable)?;
    while let Some(entry) = entries.next() {
        proof.entry(entry.map_err(unreadable)?)?;
    }
    if let Some(record) = proof.records.next().map_err(io)? {
        return Err(Failure::unproved(format!("{} was written but is not there", record.name)));
    }
    let content = (proof.files, proof.file_bytes);
    if proof.lines != written.totals.documents
        || content != (written.totals.content.files, written.totals.content.bytes)
    {
        return Err(Failure::unproved(format!(
            "the source has {:?} documents and {:?} of files, the snapshot {:?} and {content:?}",
            written.totals.documents, written.totals.content, proof.lines
        )));
    }
    digest(file, control)
}

struct Proof<'a> {
    control: &'a Control,
    records: &'a mut Records,
    lines: [u64; DocumentType::ALL.len()],
    files: u64,
    file_bytes: u64,
}

impl Proof<'_> {
    fn entry(&mut self, mut entry: zip::read::ZipFile<'_, impl Read>) -> Result<(), Failure> {
        let name = String::from_utf8(entry.name_raw().to_vec())
            .map_err(|_| Failure::unproved("an entry name is not UTF-8".to_owned()))?;
        if !entry.flags().matching(ZipFlags::LanguageEncoding) {
            return Err(Failure::unproved(format!("{name} is not marked as UTF-8")));
        }
        if !matches!(entry.compression(), CompressionMethod::Stored | CompressionMethod::Deflated) {
            return Err(Failure::unproved(format!("{name} is neither stored nor deflated")));
        }
        if entry.is_dir() {
            return Ok(());
        }
        let mut sha256 = Sha256::new();
        let (mut size, mut lines) = (0, 0);
        let mut buffer = vec![0; limits::SAMPLE];
        loop {
            if let Some(reason) = self.control.stopped() {
                return Err(Failure::stopped(reason));
            }
            // Reading to the end checks the CRC.
            let n = entry.read(&mut buffer).map_err(|e| Failure::unproved(format!("{name}: {e}")))?;
            if n == 0 {
                break;
            }
            sha256.update(&buffer[..n]);
            size += n as u64;
            lines += buffer[..n].iter().filter(|b| **b == b'\n').count() as u64;
            self.control.moved(n as u64);
        }
        if let Some(document_type) = DocumentType::ALL.into_iter().find(|t| t.entry() == name) {
            self.lines[document_type.index()] = lines;
        }
        if name == layout::MANIFEST || name == layout::INTEGRITY {
            return Ok(());
        }
        let record = self.records.next().map_err(|e| Failure::io("verify snapshot file", e))?;
        let same = record.is_some_and(|r| {
            r.name == name && r.size == size && r.sha256 == hex::encode(<[u8; 32]>::from(sha256.finalize()))
        });
        if !same {
            return Err(Failure::unproved(format!("{name} does not read back as it was written")));
        }
        if is_content(&name) {
            self.files += 1;
            self.file_bytes += size;
        }
        Ok(())
    }
}

/// Everything below the file tree that is not metadata is the contents of a file.
fn is_content(name: &str) -> bool {
    name.starts_with(layout::WEBDAV_DIR) && name.rsplit('/').next() != Some(layout::PMETA)
}

fn digest(mut file: std::fs::File, control: &Control) -> Result<Proved, Failure> {
    let io = |e| Failure::io("verify snapshot file", e);
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    let (mut sha256, mut size) = (Sha256::new(), 0);
    let mut buffer = vec![0; limits::PIECE];
    loop {
        if let Some(reason) = control.stopped() {
            return Err(Failure::stopped(reason));
        }
        let n = file.read(&mut buffer).map_err(io)?;
        if n == 0 {
            return Ok(Proved { size, sha256: sha256.finalize().into() });
        }
        sha256.update(&buffer[..n]);
        size += n as u64;
        control.moved(n as u64);
    }
}

fn unreadable(error: zip::result::ZipError) -> Failure {
    if let zip::result::ZipError::Io(error) = error {
        return Failure::io("verify snapshot file", error);
    }
    Failure::unproved(error.to_string())
}
