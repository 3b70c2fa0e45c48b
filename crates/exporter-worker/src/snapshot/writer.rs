//! Turns packed pieces into zip entries, in order. Entry order, times and bytes are a pure function of the pieces.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use model::failpoint;
use model::job::Amount;
use model::layout;
use model::limits;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::container::{self, Data, EntryHead, Method};
use super::deflate;
use super::integrity::{self, Records, Spool};
use super::output::Output;
use super::pack::{Block, Packed, Packer, Pending, joined};
use super::{Of, Piece, Totals};
use crate::control::Control;
use crate::failure::Failure;
use crate::source::ContentRef;

/// What was written.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) records: Records,
    /// Where the central directory begins: every byte before it belongs to an entry.
    pub(super) directory: u64,
    pub(super) size: u64,
    /// When that was done.
    pub(super) at: Instant,
}

/// Writes everything.
///
/// # Errors
/// [`Failure`]; the file has no end then, and is no archive.
pub(super) fn write(
    output: Output,
    scratch: &Path,
    mut pieces: mpsc::Receiver<Piece>,
    packer: &Packer,
    runtime: &Handle,
    control: &Control,
) -> Result<Written, Failure> {
    let mut writer = Writer {
        output,
        records: Spool::new(scratch).map_err(io)?,
        directory: Directory::new(scratch).map_err(io)?,
        open: None,
        counts: Totals::default(),
        runtime,
        control,
    };
    loop {
        if let Some(reason) = control.stopped() {
            return Err(Failure::stopped(reason));
        }
        match pieces.blocking_recv() {
            None => return Err(Failure::internal("the cell's reader went away".to_owned())),
            Some(Piece::Small(pending)) => writer.small_ones(pending)?,
            Some(Piece::Begin(head, method, of)) => writer.begin(head, method, of)?,
            Some(Piece::Block(pending, documents)) => writer.block(pending, documents)?,
            Some(Piece::Bytes(bytes)) => writer.bytes(&bytes)?,
            Some(Piece::End(totals)) => return writer.finish(&totals, packer),
        }
        failpoint::reached("export.piece_written");
    }
}

struct Writer<'a> {
    output: Output,
    records: Spool,
    directory: Directory,
    open: Option<Open>,
    counts: Totals,
    runtime: &'a Handle,
    control: &'a Control,
}

/// The long entry that is being written.
struct Open {
    of: Of,
    deflated: bool,
    /// Of what was deflated, like the digest: that of stored contents is taken by whoever reads them back.
    crc32: crc32fast::Hasher,
    sha256: Sha256,
    size: u64,
    lines: u64,
}

impl Writer<'_> {
    fn small_ones(&mut self, pending: Pending<Vec<Packed>>) -> Result<(), Failure> {
        self.close()?;
        for packed in joined(self.runtime.block_on(pending))? {
            self.small(packed)?;
        }
        Ok(())
    }

    fn begin(&mut self, head: EntryHead, method: Method, of: Of) -> Result<(), Failure> {
        self.close()?;
        self.output.begin(head, method).map_err(io)?;
        let deflated = method == Method::Deflated;
        let (crc32, sha256) = (crc32fast::Hasher::new(), Sha256::new());
        self.open = Some(Open { of, deflated, crc32, sha256, size: 0, lines: 0 });
        Ok(())
    }

    fn block(&mut self, pending: Pending<Block>, documents: u64) -> Result<(), Failure> {
        let block = joined(self.runtime.block_on(pending))?;
        let open = self.open.as_mut().ok_or_else(outside)?;
        open.crc32.combine(&block.crc32());
        open.lines += block.lines;
        self.data(&block.input, &block.deflated, documents)
    }

    fn bytes(&mut self, bytes: &Bytes) -> Result<(), Failure> {
        self.data(bytes, bytes, 0)
    }

    fn data(&mut self, input: &Bytes, data: &[u8], documents: u64) -> Result<(), Failure> {
        let open = self.open.as_mut().ok_or_else(outside)?;
        open.size += input.len() as u64;
        if open.deflated {
            open.sha256.update(input);
        }
        self.output.data(data).map_err(io)?;
        self.control.packed(data.len() as u64);
        self.control.wrote(Amount { documents, files: 0, bytes: input.len() as u64 });
        Ok(())
    }

    fn small(&mut self, packed: Packed) -> Result<(), Failure> {
        let Packed { head, data, bytes, sha256, content } = packed;
        let offset = self.output.length();
        self.output.append(&container::local_header(&head, &data)).map_err(io)?;
        self.output.append(&bytes).map_err(io)?;
        self.control.packed(bytes.len() as u64);
        if content {
            self.counts.file(data.size);
            self.control.wrote(Amount { documents: 0, files: 1, bytes: data.size });
        } else {
            self.control.moved(data.size);
        }
        self.entry(&head, &data, offset, sha256)
    }

    /// Ends the open entry: checks what was counted against the source's word.
    fn close(&mut self) -> Result<(), Failure> {
        let Some(open) = self.open.take() else { return Ok(()) };
        if open.deflated {
            self.output.data(&deflate::END).map_err(io)?;
        }
        let crc32 = open.deflated.then(|| open.crc32.finalize());
        let stored = match &open.of {
            Of::Content(content) if !open.deflated => Some(content.sha256),
            Of::Content(_) | Of::Documents(_) => None,
        };
        let (head, data, offset) = self.output.end(crc32, open.size, stored).map_err(io)?;
        let sha256 = stored.unwrap_or_else(|| open.sha256.finalize().into());
        match open.of {
            Of::Documents(document_type) => self.counts.documents[document_type.index()] = open.lines,
            Of::Content(ContentRef { size, sha256: expected, .. }) => {
                if (size, expected) != (data.size, sha256) {
                    return Err(Failure::content_differs(&head.name));
                }
                self.counts.file(size);
                self.control.wrote(Amount { documents: 0, files: 1, bytes: 0 });
            }
        }
        self.entry(&head, &data, offset, sha256)
    }

    /// Remembers an entry, outside memory: there may be any number.
    fn entry(&mut self, head: &EntryHead, data: &Data, offset: u64, sha256: [u8; 32]) -> Result<(), Failure> {
        self.directory.add(head, data, offset).map_err(io)?;
        self.records.add(&head.name, data.size, &sha256).map_err(io)
    }

    fn finish(mut self, totals: &Totals, packer: &Packer) -> Result<Written, Failure> {
        self.close()?;
        if self.counts != *totals {
            let (counts, content) = (self.counts.documents, self.counts.content);
            return Err(Failure::unproved(format!(
                "the source has {:?} documents and {:?} of files, the snapshot {counts:?} and {content:?}",
                totals.documents, totals.content
            )));
        }
        let Self { mut output, records, mut directory, runtime, .. } = self;
        let mut records = records.finish().map_err(io)?;
        let head = EntryHead { name: layout::INTEGRITY.to_owned(), modified: 0, large: true };
        output.begin(head, Method::Deflated).map_err(io)?;
        let crc32 = crc32fast::Hasher::new();
        let mut entry =
            Deflating { output: &mut output, packer, runtime, waiting: Vec::new(), packing: None, crc32, size: 0 };
        integrity::write(&mut entry, totals, &mut records).and_then(|()| entry.end()).map_err(io)?;
        let (crc32, size) = (entry.crc32.finalize(), entry.size);
        let (head, data, offset) = output.end(Some(crc32), size, None).map_err(io)?;
        directory.add(&head, &data, offset).map_err(io)?;
        let begin = output.length();
        directory.write(&mut output).map_err(io)?;
        let size = output.finish().map_err(io)?;
        Ok(Written { records, directory: begin, size, at: Instant::now() })
    }
}

/// The central directory, in a file of its own until all entries are known.
struct Directory {
    file: BufWriter<File>,
    entries: u64,
    size: u64,
}

impl Directory {
    fn new(scratch: &Path) -> io::Result<Self> {
        Ok(Self { file: BufWriter::new(tempfile::tempfile_in(scratch)?), entries: 0, size: 0 })
    }

    fn add(&mut self, head: &EntryHead, data: &Data, offset: u64) -> io::Result<()> {
        let record = container::central_record(head, data, offset);
        self.entries += 1;
        self.size += record.len() as u64;
        self.file.write_all(&record)
    }

    fn write(self, output: &mut Output) -> io::Result<()> {
        let begin = output.length();
        let mut file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        let mut buffer = vec![0; limits::PIECE];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                n => output.append(&buffer[..n])?,
            }
        }
        output.append(&container::end(self.entries, begin, self.size))
    }
}

/// An entry that is made here, deflated piece by piece: one is packed while the next is gathered.
struct Deflating<'a> {
    output: &'a mut Output,
    packer: &'a Packer,
    runtime: &'a Handle,
    waiting: Vec<u8>,
    packing: Option<Pending<Block>>,
    crc32: crc32fast::Hasher,
    size: u64,
}

impl Deflating<'_> {
    fn end(&mut self) -> io::Result<()> {
        self.block()?;
        self.packed()?;
        self.output.data(&deflate::END)
    }

    fn block(&mut self) -> io::Result<()> {
        let input = Bytes::from(std::mem::take(&mut self.waiting));
        if input.is_empty() {
            return Ok(());
        }
        let next = {
            // Packing starts a task.
            let _here = self.runtime.enter();
            self.packer.block(input)
        };
        self.packed()?;
        self.packing = Some(next);
        Ok(())
    }

    /// Writes what is being packed.
    fn packed(&mut self) -> io::Result<()> {
        let Some(packing) = self.packing.take() else { return Ok(()) };
        let block = joined(self.runtime.block_on(packing)).map_err(io::Error::other)?;
        self.crc32.combine(&block.crc32());
        self.size += block.input.len() as u64;
        self.output.data(&block.deflated)
    }
}

impl Write for Deflating<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= limits::PIECE {
            self.block()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn io(error: io::Error) -> Failure {
    Failure::io("create snapshot file", error)
}

fn outside() -> Failure {
    Failure::internal("data outside an entry".to_owned())
}
