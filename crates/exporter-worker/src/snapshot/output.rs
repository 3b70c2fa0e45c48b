//! The part file on its way to the disk: keeps an eye on free space, and tells whoever follows what lies where.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::SyncSender;

use crc32fast::Hasher;
use model::area::SnapshotArea;
use model::limits;

use super::container::{self, Data, EntryHead, Method};

/// So many more bytes are finished, and this is what they are.
#[derive(Debug, Clone)]
pub(super) struct Finished {
    pub(super) length: u64,
    pub(super) crc32: u32,
    /// The long entries among them.
    pub(super) long: Vec<Long>,
}

/// A long entry.
#[derive(Debug, Clone)]
pub(super) struct Long {
    /// Where in the file its data are: once read back nobody needs them before a client does.
    pub(super) data: Range<u64>,
    /// What they must be, when these are contents as they are.
    pub(super) stored: Option<Stored>,
}

/// Contents that were not deflated.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    /// Name of the entry.
    pub(super) name: String,
    /// What the source says.
    pub(super) sha256: [u8; 32],
}

/// Much was written since the last time: it should be handed to the disk.
#[derive(Debug)]
pub(super) struct Flush;

/// Who is told what the writer did.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) finished: SyncSender<Finished>,
    pub(super) flush: SyncSender<Flush>,
}

/// The file. Bytes are only ever appended, but for the header of a long entry, which is written again when its end is
/// reached.
pub(super) struct Output {
    file: File,
    area: SnapshotArea,
    /// What is not in the file yet.
    buffer: Vec<u8>,
    /// Length of the file with the buffer.
    length: u64,
    /// What is finished but was not told yet.
    finished: Stretch,
    since_look: u64,
    told: Told,
    open: Option<Open>,
}

#[derive(Default)]
struct Stretch {
    length: u64,
    crc32: Hasher,
    long: Vec<Long>,
}

struct Open {
    head: EntryHead,
    method: Method,
    offset: u64,
    data: Hasher,
    length: u64,
}

impl Output {
    pub(super) fn new(file: File, area: SnapshotArea, told: Told) -> Self {
        let buffer = Vec::with_capacity(2 * limits::PIECE);
        Self { file, area, buffer, length: 0, finished: Stretch::default(), since_look: 0, told, open: None }
    }

    /// Length of the file, which is where the next byte goes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Appends finished bytes.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.finished.crc32.update(bytes);
        self.finished.length += bytes.len() as u64;
        self.put(bytes)?;
        self.tell_finished(false)
    }

    /// Begins an entry of unknown length.
    pub(super) fn begin(&mut self, head: EntryHead, method: Method) -> io::Result<()> {
        let offset = self.length;
        self.put(&container::local_header(&head, &Data::unknown(method)))?;
        self.open = Some(Open { head, method, offset, data: Hasher::new(), length: 0 });
        Ok(())
    }

    /// Appends data of the entry that began last.
    pub(super) fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        let open = self.open.as_mut().ok_or_else(|| io::Error::other("data outside an entry"))?;
        open.data.update(bytes);
        open.length += bytes.len() as u64;
        self.put(bytes)
    }

    /// Ends the entry: now its header can be written. `crc32` is that of the contents, unless the data are these; `stored` is
    /// what they must be then. Returns where it begins and what it holds.
    pub(super) fn end(
        &mut self,
        crc32: Option<u32>,
        size: u64,
        stored: Option<[u8; 32]>,
    ) -> io::Result<(EntryHead, Data, u64)> {
        let open = self.open.take().ok_or_else(|| io::Error::other("no entry is open"))?;
        let crc32 = crc32.unwrap_or_else(|| open.data.clone().finalize());
        let data = Data { method: open.method, crc32, compressed: open.length, size };
        if !open.head.large && (data.compressed.max(size) >= u64::from(u32::MAX)) {
            return Err(io::Error::other("an entry is longer than it was said to be"));
        }
        let header = container::local_header(&open.head, &data);
        let begun = self.length - self.buffer.len() as u64;
        match open.offset.checked_sub(begun) {
            Some(at) => self.buffer[at as usize..][..header.len()].copy_from_slice(&header),
            None => {
                self.write_out()?;
                self.file.write_all_at(&header, open.offset)?;
            }
        }
        self.finished.length += header.len() as u64 + open.length;
        self.finished.crc32.update(&header);
        self.finished.crc32.combine(&open.data);
        let stored = stored.map(|sha256| Stored { name: open.head.name.clone(), sha256 });
        if stored.is_some() || open.length > limits::PIECE as u64 {
            self.finished.long.push(Long { data: self.length - open.length..self.length, stored });
        }
        self.tell_finished(false)?;
        Ok((open.head, data, open.offset))
    }

    /// Hands everything over.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        self.tell_finished(true)?;
        Ok(self.length)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.length += bytes.len() as u64;
        if self.buffer.len() + bytes.len() < limits::PIECE {
            self.buffer.extend_from_slice(bytes);
            return Ok(());
        }
        self.write_out()?;
        if bytes.len() < limits::PIECE {
            self.buffer.extend_from_slice(bytes);
            return Ok(());
        }
        self.write(bytes)
    }

    fn write_out(&mut self) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let written = self.write(&buffer);
        buffer.clear();
        self.buffer = buffer;
        written
    }

    /// Looks at the free space now and then, so that a full disk shows early.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.since_look += bytes.len() as u64;
        if self.since_look < limits::FLUSH_BYTES {
            return Ok(());
        }
        self.since_look = 0;
        if self.area.free()? == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.told.flush.send(Flush).map_err(|_| gone())
    }

    /// Says what is finished, when it is much. What is said has to be in the file.
    fn tell_finished(&mut self, all: bool) -> io::Result<()> {
        if !all && self.finished.length < limits::STRETCH {
            return Ok(());
        }
        self.write_out()?;
        let Stretch { length, crc32, long } = std::mem::take(&mut self.finished);
        self.told.finished.send(Finished { length, crc32: crc32.finalize(), long }).map_err(|_| gone())
    }
}

fn gone() -> io::Error {
    io::Error::other("nobody follows any more")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[test]
    fn a_full_disk_is_told_apart() {
        let directory = tempfile::tempdir().expect("a directory");
        let area = SnapshotArea::open(directory.path(), u64::MAX).expect("an area");
        assert_eq!(area.free().expect("an answer"), 0);
        let (finished, _finished) = sync_channel(100);
        let (flush, _flushes) = sync_channel(100);
        let mut output = Output::new(tempfile::tempfile().expect("a file"), area, Told { finished, flush });
        let piece = vec![0; 8 << 20];
        let failed = (0..20).find_map(|_| output.append(&piece).err()).expect("it looks at the disk");
        assert_eq!(failed.kind(), io::ErrorKind::StorageFull);
    }
}
