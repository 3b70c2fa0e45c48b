//! Reads a snapshot back before anybody may see it.
//!
//! Three proofs make one. Every piece that was deflated was inflated again on the spot, by another library, and compared
//! (`deflate.rs`). A thread that follows the writer reads back what was written and compares it with what the writer meant
//! to write, byte for byte by CRC, taking the digest of the whole file as it goes, and of stored contents for what the
//! source says of them; so it is done soon after the writer. In the end the directory is read by a library that had no
//! part in writing it, and compared with the list of what was written and with the local headers: every name, size and
//! method, and that the entries fill the file without gap or overlap.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender};

use model::area::Part;
use model::snapshot_file::{ReadAt, SteadyReader, sought};
use model::{layout, limits};
use rustix::fs::{Advice, fadvise};
use zip::CompressionMethod;
use zip::read::Config;
use zip::unstable::format::flags::ZipFlags;
use zip::unstable::read::ZipIterable;

use super::digest::Sha256;
use super::output::{Finished, Flush, Long};
use super::writer::Written;
use crate::control::Control;
use crate::failure::Failure;

/// The bytes of the file, as they are there.
#[derive(Debug)]
pub(super) struct ReadBack {
    size: u64,
    sha256: [u8; 32],
}

/// Hands what the writer of `file` wrote to the disk, so that little is left for the end, until it says no more. Of what
/// `unneeded` names, which was read back, nothing stays in memory then.
///
/// # Errors
/// [`Failure`] when the disk refuses.
pub(super) fn flush(file: &File, told: &Receiver<Flush>, unneeded: &Receiver<Vec<Range<u64>>>) -> Result<(), Failure> {
    for Flush in told {
        // Read back means written: once this is done they are on the disk. What is not there yet would stay.
        let unneeded: Vec<_> = unneeded.try_iter().flatten().collect();
        file.sync_data().map_err(io)?;
        for Range { start, end } in unneeded {
            if let Err(error) = fadvise(file, start, NonZeroU64::new(end - start), Advice::DontNeed) {
                tracing::debug!(%error, "the kernel takes no advice");
            }
        }
    }
    Ok(())
}

/// Follows the writer of `file` until it says no more. Long data beyond the first `kept` bytes are said to be `unneeded`.
///
/// # Errors
/// [`Failure`] when the disk has other bytes than were written, or stored contents are not what the source says.
pub(super) fn follow(
    mut file: File,
    told: &Receiver<Finished>,
    kept: u64,
    unneeded: &SyncSender<Vec<Range<u64>>>,
    control: &Control,
) -> Result<ReadBack, Failure> {
    let (mut sha256, mut at) = (Sha256::new(), 0);
    let mut buffer = vec![0; limits::PIECE];
    for Finished { length, crc32, long } in told {
        let mut found = crc32fast::Hasher::new();
        let end = at + length;
        let mut read = |at: &mut u64, until: u64, mut of: Option<&mut Sha256>| {
            while *at < until {
                if let Some(reason) = control.stopped() {
                    return Err(Failure::stopped(reason));
                }
                let piece = &mut buffer[..(until - *at).min(limits::PIECE as u64) as usize];
                file.read_exact(piece).map_err(io)?;
                found.update(piece);
                match &mut of {
                    Some(of) => sha256.update_both(of, piece),
                    None => sha256.update(piece),
                }
                *at += piece.len() as u64;
                control.read_back(piece.len() as u64);
            }
            Ok(())
        };
        let (mut done_with, mut differs) = (Vec::new(), None);
        for Long { data, stored } in long {
            if let Some(stored) = stored {
                let mut of = Sha256::new();
                read(&mut at, data.start, None)?;
                read(&mut at, data.end, Some(&mut of))?;
                if of.finalize() != stored.sha256 {
                    differs = Some(stored.name);
                }
            }
            if data.start >= kept {
                done_with.push(data);
            }
        }
        read(&mut at, end, None)?;
        if found.finalize() != crc32 {
            return Err(Failure::unproved(format!("the {length} bytes before {at} changed on the disk")));
        }
        if let Some(name) = differs {
            return Err(Failure::content_differs(&name));
        }
        if !done_with.is_empty() {
            // Where nobody has time for it, it stays.
            let _ = unneeded.try_send(done_with);
        }
    }
    Ok(ReadBack { size: at, sha256: sha256.finalize() })
}

/// Compares the directory with what was written. Returns size and SHA-256 of the whole file.
///
/// # Errors
/// [`Failure`] naming the first thing that is not as it should be.
pub(super) fn directory(
    part: &Part,
    mut written: Written,
    read: ReadBack,
    control: &Control,
) -> Result<(u64, [u8; 32]), Failure> {
    // Reads one central header after the other, each with its local header: constant memory. That no entry stands twice
    // follows from the records, which must come in the order in which they were written.
    let headers = Headers::open(part, written.directory).map_err(io)?;
    let mut archive =
        ZipIterable::try_new(headers, Config::default()).map_err(unreadable)?.enforce_header_consistency(true);
    written.records.rewind().map_err(io)?;
    let mut next = 0;
    let mut complete = false;
    let entries = archive.files().map_err(unreadable)?;
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(unreadable)?;
        if let Some(reason) = control.stopped() {
            return Err(Failure::stopped(reason));
        }
        let record = written.records.next().map_err(io)?;
        let (name, size) = match &record {
            Some(record) => (record.name.as_bytes(), Some(record.size)),
            None if !complete => {
                complete = true;
                (layout::INTEGRITY.as_bytes(), None)
            }
            None => return Err(Failure::unproved("an entry too many".to_owned())),
        };
        let sized = entry.compression() == CompressionMethod::Deflated
            || entry.compression() == CompressionMethod::Stored && entry.compressed_size() == entry.size();
        let same = entry.name_raw() == name
            && size.is_none_or(|size| size == entry.size())
            && entry.flags().matching(ZipFlags::LanguageEncoding)
            && sized
            && entry.header_start() == next;
        if !same {
            let name = String::from_utf8_lossy(name);
            return Err(Failure::unproved(format!("{name} is not in the directory as it was written")));
        }
        next = data_start(entries.reader_mut(), next, name.len()).map_err(io)? + entry.compressed_size();
        control.moved(1);
    }
    if !complete || next != written.directory || read.size != written.size {
        return Err(Failure::unproved(format!("{next} of {} bytes are accounted for", written.directory)));
    }
    Ok((read.size, read.sha256))
}

/// Where the data of the entry begin whose local header is here (APPNOTE 4.3.7). The library tells only by opening the
/// entry, and would read all of an open one when it is dropped.
fn data_start(file: &mut Headers, header: u64, name: usize) -> io::Result<u64> {
    const EXTRA_LENGTH: u64 = 28;
    const FIXED: u64 = 30;
    let mut extra = [0; 2];
    file.seek(SeekFrom::Start(header + EXTRA_LENGTH))?;
    file.read_exact(&mut extra)?;
    Ok(header + FIXED + name as u64 + u64::from(u16::from_le_bytes(extra)))
}

/// A reader that has a buffer for the directory and one for what is before it: the library goes from each central header to
/// its local one and back.
struct Headers {
    local: SteadyReader<File>,
    central: SteadyReader<File>,
    /// Where the directory begins.
    border: u64,
    length: u64,
    position: u64,
}

impl Headers {
    fn open(part: &Part, border: u64) -> io::Result<Self> {
        let (local, central) = (part.reopen()?, part.reopen()?);
        let length = local.length()?;
        Ok(Self { local: SteadyReader::new(local), central: SteadyReader::new(central), border, length, position: 0 })
    }
}

impl Read for Headers {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let place = if self.position < self.border { &mut self.local } else { &mut self.central };
        place.seek(SeekFrom::Start(self.position))?;
        let n = place.read(buffer)?;
        self.position += n as u64;
        Ok(n)
    }
}

impl Seek for Headers {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = sought(to, self.position, self.length)?;
        Ok(self.position)
    }
}

fn io(error: io::Error) -> Failure {
    Failure::io("verify snapshot file", error)
}

fn unreadable(error: zip::result::ZipError) -> Failure {
    if let zip::result::ZipError::Io(error) = error {
        return io(error);
    }
    Failure::unproved(error.to_string())
}
