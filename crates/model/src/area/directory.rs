//! A directory of this host, or one that is mounted: files in two levels, made with their owner's rights only.

use std::fs::{DirBuilder, File};
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use object_store::path::Path as ObjectPath;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::ReadWriteFlags;

use super::{Pieces, generic, opening, timed_out};
use crate::limits;

/// Makes a directory, and those above it, when they are not there.
pub(super) fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes the names in a directory durable.
pub(super) fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Free bytes on the volume of a path.
pub(super) fn free(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail * stat.f_frsize)
}

/// Opens a file of a directory, to read it or a range of it that it has, with a bounded wait.
pub(super) async fn open(
    root: &Path,
    key: &ObjectPath,
    range: Option<Range<u64>>,
) -> Result<(File, Range<u64>), object_store::Error> {
    let path = root.join(key.as_ref());
    if let Some(opened) = open_cached(&path) {
        return within(opened, range).map_err(|error| opening(key, error));
    }
    let reading = tokio::task::spawn_blocking(move || {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        within((file, length), range)
    });
    let opened = tokio::time::timeout(limits::BLOB_OPEN, reading).await.map_err(|_| timed_out())?;
    let opened = opened.map_err(|error| generic(io::Error::other(error)))?;
    opened.map_err(|error| opening(key, error))
}

/// Opens what can be opened without waiting for the disk, and says how long it is. Not every kernel knows how: nothing, then.
fn open_cached(path: &Path) -> Option<(File, u64)> {
    // A pipe, of all things, would be waited for.
    let read = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::openat2(CWD, path, read, Mode::empty(), ResolveFlags::CACHED).ok()?;
    let about = rustix::fs::statx(&file, "", AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, StatxFlags::SIZE).ok()?;
    Some((file.into(), about.stx_size))
}

fn within((file, length): (File, u64), range: Option<Range<u64>>) -> io::Result<(File, Range<u64>)> {
    match range {
        None => Ok((file, 0..length)),
        Some(range) if range.end <= length => Ok((file, range)),
        Some(_) => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Streams a file of a directory, or a range of it, with a bounded wait for the opening.
pub(super) async fn read(
    root: &Path,
    key: &ObjectPath,
    range: Option<Range<u64>>,
) -> Result<Pieces, object_store::Error> {
    let (file, range) = open(root, key, range).await?;
    Ok(pieces(file, range))
}

/// Streams a range of a file in pieces of [`limits::PIECE`]: the storage library's own stream has pieces of 8 KiB, each a
/// trip to another thread. What the kernel has in memory is taken at once, without such a trip.
fn pieces(file: File, range: Range<u64>) -> Pieces {
    let (end, file) = (range.end, Arc::new(file));
    let pieces = range.step_by(limits::PIECE).zip(std::iter::repeat(file));
    let reading = stream::iter(pieces).map(move |(begin, file)| async move {
        let mut bytes = vec![0; (end - begin).min(limits::PIECE as u64) as usize];
        let cached = read_cached(&file, begin, &mut bytes);
        if cached == bytes.len() {
            return Ok(bytes.into());
        }
        let reading = tokio::task::spawn_blocking(move || {
            file.read_exact_at(&mut bytes[cached..], begin + cached as u64)?;
            Ok(Bytes::from(bytes))
        });
        reading.await.map_err(|error| generic(io::Error::other(error)))?.map_err(generic)
    });
    reading.buffered(limits::PIECES_AHEAD).boxed()
}

/// Reads what can be had without waiting for the disk; how much that was. Not every file system knows how: nothing, then.
fn read_cached(file: &File, begin: u64, bytes: &mut [u8]) -> usize {
    rustix::io::preadv2(file, &mut [IoSliceMut::new(bytes)], begin, ReadWriteFlags::NOWAIT).unwrap_or_default()
}

/// What is in a directory; nothing when it is gone, or is none.
pub(super) fn children(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(directory) {
        Ok(entries) => entries.map(|e| e.map(|e| e.path())).collect(),
        // Another sweeper was faster, or it is no directory.
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// Tells whether something was not changed for so long. What cannot be looked at is not old.
pub(super) fn is_old(path: &Path, age: Duration) -> bool {
    let modified = std::fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|modified| modified + age < SystemTime::now())
}

/// The last name of a path.
pub(super) fn name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_no_file_holds_nobody_up() {
        let directory = tempfile::tempdir().expect("a directory");
        let pipe = directory.path().join("pipe");
        rustix::fs::mknodat(CWD, &pipe, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
        let key = "pipe".into();
        let opened = tokio::time::timeout(limits::BLOB_OPEN / 2, open(directory.path(), &key, Some(0..1)));
        assert!(opened.await.expect("at once").is_err());
        std::fs::write(directory.path().join("file"), b"12345").expect("written");
        let key = "file".into();
        for (range, length) in [(None, Some(5)), (Some(1..3), Some(2)), (Some(4..5), Some(1)), (Some(4..6), None)] {
            let opened = open(directory.path(), &key, range.clone()).await;
            assert_eq!(opened.ok().map(|(_, range)| range.end - range.start), length, "{range:?}");
        }
    }
}
