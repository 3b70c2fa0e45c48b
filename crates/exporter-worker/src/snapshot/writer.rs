//! Turns pieces into zip entries. Entry order, times and bytes are a pure function of the pieces.

use std::io::{BufWriter, Write};
use std::path::Path;

use chrono::{DateTime, Datelike, Timelike};
use model::area::{Part, SnapshotArea};
use model::failpoint;
use model::job::Amount;
use model::layout;
use model::limits;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::guarded::{Abandon, Guarded};
use super::integrity::{self, Record, Records, Spool};
use super::trial::Trial;
use super::{EntryHead, Piece, Totals};
use crate::control::Control;
use crate::failure::Failure;
use crate::source::ContentRef;

/// The knee of the curve: from 2 on, each level costs much time and saves little space.
const LEVEL: i64 = 2;

/// What was written.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) records: Records,
    pub(super) totals: Totals,
}

/// Writes everything up to the central directory.
///
/// # Errors
/// [`Failure`]; the part file then holds nothing that could be taken for an archive.
pub(super) fn write(
    area: &SnapshotArea,
    scratch: &Path,
    part: &Part,
    mut pieces: mpsc::Receiver<Piece>,
    control: &Control,
) -> Result<Written, Failure> {
    let abandon = Abandon::default();
    let io = |e| Failure::io("create snapshot file", e);
    let file = Guarded::new(part.writer().map_err(io)?, area.clone(), abandon.clone());
    let mut writer = Writer {
        zip: ZipWriter::new(BufWriter::with_capacity(limits::PIECE, file)),
        spool: Spool::new(scratch).map_err(io)?,
        open: None,
        trial: Trial::new(),
    };
    let result = loop {
        if let Some(reason) = control.stopped() {
            break Err(Failure::stopped(reason));
        }
        match pieces.blocking_recv() {
            None => break Err(Failure::internal("the cell's reader went away".to_owned())),
            Some(Piece::End(totals)) => {
                break writer.close().map(|ended| {
                    control.wrote(ended);
                    totals
                });
            }
            Some(piece) => match writer.piece(piece) {
                Ok(amount) => {
                    control.wrote(amount);
                    failpoint::reached("export.piece_written");
                }
                Err(failure) => break Err(failure),
            },
        }
    };
    match result {
        Ok(totals) => writer.finish(totals, &abandon),
        Err(failure) => {
            // Before the writer is dropped: its drop finalises the archive.
            abandon.now();
            Err(failure)
        }
    }
}

type Zip = ZipWriter<BufWriter<Guarded>>;

struct Writer {
    zip: Zip,
    spool: Spool,
    open: Option<Open>,
    trial: Trial,
}

/// The entry that is being written.
struct Open {
    head: EntryHead,
    /// Set for contents until the first piece has decided how they are stored.
    undecided: bool,
    content: Option<ContentRef>,
    size: u64,
    sha256: Sha256,
}

impl Open {
    fn new(head: EntryHead, content: Option<ContentRef>) -> Self {
        Self { head, undecided: content.is_some(), content, size: 0, sha256: Sha256::new() }
    }
}

impl Writer {
    fn piece(&mut self, piece: Piece) -> Result<Amount, Failure> {
        let none = Amount::default();
        match piece {
            Piece::Directory(head) => {
                let ended = self.close()?;
                let options = options(&head, CompressionMethod::Stored, 0o755);
                self.zip.add_directory(head.name, options).map_err(webdav)?;
                Ok(ended)
            }
            Piece::Whole(head, bytes) => {
                let ended = self.close()?;
                // The manifest differs between two exports; stored, it always takes the same space, so that nothing
                // behind it moves.
                let method = match head.name.as_str() {
                    layout::MANIFEST => CompressionMethod::Stored,
                    _ => CompressionMethod::Deflated,
                };
                self.begin(Open::new(head, None), method)?;
                self.bytes(&bytes)?;
                Ok(ended)
            }
            Piece::Documents(_, head) => {
                let ended = self.close()?;
                self.begin(Open::new(head, None), CompressionMethod::Deflated)?;
                Ok(ended)
            }
            Piece::Lines(lines, documents) => {
                self.bytes(&lines)?;
                Ok(Amount { documents, bytes: lines.len() as u64, ..none })
            }
            Piece::Content(head, content) => {
                let ended = self.close()?;
                self.open = Some(Open::new(head, Some(content)));
                Ok(ended)
            }
            Piece::Bytes(bytes) => {
                self.decide(&bytes)?;
                self.bytes(&bytes)?;
                Ok(Amount { bytes: bytes.len() as u64, ..none })
            }
            Piece::End(_) => self.close(),
        }
    }

    /// Starts the entry of contents, stored or deflated as their beginning suggests.
    fn decide(&mut self, beginning: &[u8]) -> Result<(), Failure> {
        match self.open.take() {
            Some(mut open) if open.undecided => {
                open.undecided = false;
                let method = self.trial.method(beginning);
                self.begin(open, method)
            }
            other => {
                self.open = other;
                Ok(())
            }
        }
    }

    fn begin(&mut self, open: Open, method: CompressionMethod) -> Result<(), Failure> {
        self.zip.start_file(&open.head.name, options(&open.head, method, 0o644)).map_err(webdav)?;
        self.open = Some(open);
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let Some(open) = &mut self.open else { return Err(Failure::internal("bytes outside an entry".to_owned())) };
        open.size += bytes.len() as u64;
        open.sha256.update(bytes);
        self.zip.write_all(bytes).map_err(|e| Failure::io("add webdav data to snapshot file", e))
    }

    /// Ends the open entry: checks contents against the source's word, remembers what was written.
    fn close(&mut self) -> Result<Amount, Failure> {
        self.decide(&[])?;
        let Some(open) = self.open.take() else { return Ok(Amount::default()) };
        let sha256: [u8; 32] = open.sha256.finalize().into();
        let mut ended = Amount::default();
        if let Some(content) = open.content {
            if (content.size, content.sha256) != (open.size, sha256) {
                return Err(Failure::content_differs(&open.head.name));
            }
            ended.files = 1;
        }
        if open.head.name != layout::MANIFEST {
            let record = Record { name: open.head.name, size: open.size, sha256: hex::encode(sha256) };
            self.spool.add(&record).map_err(|e| Failure::io("create snapshot file", e))?;
        }
        Ok(ended)
    }

    fn finish(self, totals: Totals, abandon: &Abandon) -> Result<Written, Failure> {
        let io = |e| Failure::io("create snapshot file", e);
        let Self { mut zip, spool, .. } = self;
        let integrity = || {
            let mut records = spool.finish().map_err(io)?;
            let head = EntryHead { name: layout::INTEGRITY.to_owned(), modified: 0, large: true };
            let options = options(&head, CompressionMethod::Deflated, 0o644);
            zip.start_file(head.name, options).map_err(webdav)?;
            integrity::write(&mut zip, &totals, &mut records).map_err(io)?;
            Ok(records)
        };
        // Thrown here because dropping the zip writer finalises the archive.
        let records = integrity().inspect_err(|_: &Failure| abandon.now())?;
        zip.finish().map_err(webdav)?.flush().map_err(io)?;
        Ok(Written { records, totals })
    }
}

fn webdav(error: zip::result::ZipError) -> Failure {
    Failure::zip("add webdav data to snapshot file", error)
}

fn options(head: &EntryHead, method: CompressionMethod, mode: u32) -> SimpleFileOptions {
    let level = (method == CompressionMethod::Deflated).then_some(LEVEL);
    SimpleFileOptions::default()
        .compression_method(method)
        .compression_level(level)
        .last_modified_time(zip_time(head.modified))
        .unix_permissions(mode)
        .large_file(head.large)
}

/// The time of an entry, in UTC; a zip knows the years 1980 to 2107.
fn zip_time(millis: i64) -> zip::DateTime {
    DateTime::from_timestamp_millis(millis)
        .and_then(|t| {
            let year = u16::try_from(t.year()).ok()?;
            let (month, day) = (t.month() as u8, t.day() as u8);
            let (hour, minute, second) = (t.hour() as u8, t.minute() as u8, t.second() as u8);
            zip::DateTime::from_date_and_time(year, month, day, hour, minute, second).ok()
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_times_are_clamped_to_what_a_zip_can_say() {
        assert_eq!(zip_time(0), zip::DateTime::default());
        assert_eq!(zip_time(i64::MAX), zip::DateTime::default());
        let time = zip_time(1_640_995_200_000);
        assert_eq!((time.year(), time.month(), time.day(), time.hour()), (2022, 1, 1, 0));
    }
}
