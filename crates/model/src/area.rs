//! The snapshot area and the blob store: where bytes lie, and under which keys.
//!
//! Both hold write-once objects that nobody can reach before a row names them. Keys come from the enums here and are
//! made of ids only; no text of a client ever becomes part of a path.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{GetOptions, GetRange, GetResultPayload, ObjectStore, ObjectStoreExt};
use uuid::Uuid;

use crate::failpoint;
use crate::limits;

/// Key of a snapshot file: unique to one attempt or one upload, so that nothing else can ever write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotKey {
    /// The job that wrote it, or the id of an upload.
    pub job: Uuid,
    /// Number of the attempt.
    pub attempt: i32,
    /// Token of the attempt.
    pub token: Uuid,
}

impl SnapshotKey {
    /// A key for an upload.
    pub fn for_upload() -> Self {
        Self { job: Uuid::new_v4(), attempt: 1, token: Uuid::new_v4() }
    }

    /// The key as it is stored: `snapshots/{job}/{attempt}-{token}.zip`.
    pub fn text(&self) -> String {
        format!("snapshots/{}/{}", self.job, self.file())
    }

    fn file(&self) -> String {
        format!("{}-{}.zip", self.attempt, self.token.simple())
    }

    /// Reads a key, or the name of its part file; nothing when the text is neither.
    pub fn parse(job_directory: &str, file: &str) -> Option<Self> {
        let file = file.strip_prefix('.').and_then(|f| f.strip_suffix(".part")).unwrap_or(file);
        let (attempt, token) = file.strip_suffix(".zip")?.split_once('-')?;
        Some(Self {
            job: Uuid::try_parse(job_directory).ok()?,
            attempt: attempt.parse().ok()?,
            token: Uuid::try_parse(token).ok()?,
        })
    }
}

/// Key of file contents: `blobs/{first two digits}/{id}`.
pub fn blob_key(id: Uuid) -> ObjectPath {
    let id = id.simple().to_string();
    ObjectPath::from(format!("blobs/{}/{id}", &id[..2]))
}

/// A stream of pieces.
pub type Pieces = BoxStream<'static, Result<Bytes, object_store::Error>>;

/// The snapshot area below one directory.
#[derive(Debug, Clone)]
pub struct SnapshotArea {
    root: PathBuf,
    reserve: u64,
    store: Arc<dyn ObjectStore>,
}

impl SnapshotArea {
    /// Opens the area, making its directory when it is not there. `reserve` is in bytes.
    pub fn open(root: &Path, reserve: u64) -> io::Result<Self> {
        make_directory(&root.join("snapshots"))?;
        let store = LocalFileSystem::new_with_prefix(root).map_err(io::Error::other)?;
        Ok(Self { root: root.to_owned(), reserve, store: Arc::new(store) })
    }

    /// Free bytes above the reserve on the area's volume.
    pub fn free(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.root)?;
        Ok((stat.f_bavail * stat.f_frsize).saturating_sub(self.reserve))
    }

    /// Creates the part file of a key: beside its final place, for its owner only, and never over something else.
    pub fn create_part(&self, key: &SnapshotKey) -> io::Result<Part> {
        let directory = self.root.join("snapshots").join(key.job.to_string());
        make_directory(&directory)?;
        let part = directory.join(format!(".{}.part", key.file()));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
            .open(&part)?;
        Ok(Part { part, finished: directory.join(key.file()), file: Some(file) })
    }

    /// Opens a snapshot for reading back and forth.
    pub fn open_file(&self, key: &str) -> io::Result<File> {
        match ObjectPath::parse(key) {
            Ok(key) if key.as_ref().starts_with("snapshots/") => File::open(self.root.join(key.as_ref())),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Removes a snapshot that no row names any more. Absent is fine; what cannot be removed now is left to the sweeper.
    pub async fn remove(&self, key: &str) {
        match self.store.delete(&ObjectPath::from(key)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => tracing::warn!(%error, "cannot remove a snapshot, leaving it to the sweeper"),
        }
    }

    /// Streams the bytes of a snapshot, or a range of them, with a bounded wait for the opening.
    pub async fn read(&self, key: &str, range: Option<std::ops::Range<u64>>) -> Result<Pieces, object_store::Error> {
        read(&self.store, &ObjectPath::from(key), range).await
    }

    /// Directory of all job directories, for the sweeper.
    pub fn snapshots_directory(&self) -> PathBuf {
        self.root.join("snapshots")
    }
}

/// A snapshot file that is being written. Dropped before [`Part::publish`], it is removed.
#[derive(Debug)]
pub struct Part {
    part: PathBuf,
    finished: PathBuf,
    file: Option<File>,
}

impl Part {
    /// Returns a handle for writing.
    pub fn writer(&self) -> io::Result<File> {
        self.file.as_ref().ok_or_else(|| io::Error::other("the part file is closed"))?.try_clone()
    }

    /// Opens the file anew, for reading back what is really there.
    pub fn reopen(&self) -> io::Result<File> {
        File::open(&self.part)
    }

    /// Makes the bytes durable, gives the file its final name and makes the name durable.
    ///
    /// # Errors
    /// Any error means that this attempt has failed. A failed `fsync` is never repeated: the second one may report
    /// success for pages that the kernel has dropped.
    pub fn publish(mut self) -> io::Result<()> {
        let file = self.file.take().ok_or_else(|| io::Error::other("the part file is closed"))?;
        failpoint::reached("area.before_fsync");
        if let Err(error) = file.sync_all() {
            let _ = std::fs::remove_file(&self.part);
            return Err(error);
        }
        drop(file);
        failpoint::reached("area.before_rename");
        if let Err(error) = std::fs::rename(&self.part, &self.finished) {
            let _ = std::fs::remove_file(&self.part);
            return Err(error);
        }
        failpoint::reached("area.after_rename");
        let directory = self.finished.parent().ok_or_else(|| io::Error::other("a key without directory"))?;
        sync_directory(directory)?;
        // The job's directory may be new: its own name must last as well.
        directory.parent().map_or(Ok(()), sync_directory)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.file.take().is_some()
            && let Err(error) = std::fs::remove_file(&self.part)
        {
            tracing::warn!(%error, "cannot remove a part file, leaving it to the sweeper");
        }
    }
}

/// The blob store below one directory.
#[derive(Debug, Clone)]
pub struct BlobStore {
    root: PathBuf,
    store: Arc<dyn ObjectStore>,
}

impl BlobStore {
    /// Opens the store, making its directory when it is not there.
    pub fn open(root: &Path) -> io::Result<Self> {
        make_directory(&root.join("blobs"))?;
        let store = LocalFileSystem::new_with_prefix(root).map_err(io::Error::other)?.with_fsync(true);
        Ok(Self { root: root.to_owned(), store: Arc::new(store) })
    }

    /// Streams the bytes of a blob, with a bounded wait for the opening.
    pub async fn read(&self, id: Uuid) -> Result<Pieces, object_store::Error> {
        read(&self.store, &blob_key(id), None).await
    }

    /// Reads small blobs whole, in their order: their ids and lengths. One trip to another thread for all of them.
    pub async fn read_small(&self, blobs: Vec<(Uuid, u64)>) -> Vec<Result<Bytes, object_store::Error>> {
        let count = blobs.len();
        let files: Vec<_> = blobs.into_iter().map(|(id, length)| (self.file(id), length)).collect();
        let reading = tokio::task::spawn_blocking(move || {
            // One byte more, to see whether there is more than there should be.
            let read = |(path, length)| {
                let mut bytes = Vec::with_capacity(length as usize + 1);
                File::open(path)?.take(length + 1).read_to_end(&mut bytes)?;
                Ok(Bytes::from(bytes))
            };
            files.into_iter().map(|file| read(file).map_err(generic)).collect()
        });
        match tokio::time::timeout(limits::READ_STALL, reading).await {
            Ok(Ok(contents)) => contents,
            Ok(Err(error)) => vec![Err(generic(io::Error::other(error)))],
            Err(_) => (0..count).map(|_| Err(timed_out())).collect(),
        }
    }

    /// Free bytes on the store's volume.
    pub fn free(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.root)?;
        Ok(stat.f_bavail * stat.f_frsize)
    }

    /// The store itself, for writing under [`blob_key`].
    pub fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.store)
    }

    /// Removes a blob that no row names. Absent is fine.
    pub async fn remove(&self, id: Uuid) -> Result<(), object_store::Error> {
        match self.store.delete(&blob_key(id)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Where a blob lies, for the sweeper.
    pub fn file(&self, id: Uuid) -> PathBuf {
        self.root.join(blob_key(id).as_ref())
    }

    /// Directory of all blobs, for the sweeper.
    pub fn blobs_directory(&self) -> PathBuf {
        self.root.join("blobs")
    }
}

async fn read(
    store: &Arc<dyn ObjectStore>,
    key: &ObjectPath,
    range: Option<std::ops::Range<u64>>,
) -> Result<Pieces, object_store::Error> {
    let options = GetOptions { range: range.map(GetRange::Bounded), ..Default::default() };
    let opening = tokio::time::timeout(limits::BLOB_OPEN, store.get_opts(key, options));
    let result = opening.await.map_err(|_| timed_out())??;
    let range = result.range.clone();
    let end = range.end;
    match result.payload {
        // The library's own stream reads files in pieces of 8 KiB, each a trip to another thread.
        GetResultPayload::File(file, _) => {
            let file = Arc::new(file);
            let pieces = range.step_by(limits::PIECE).zip(std::iter::repeat(file));
            let reading = stream::iter(pieces).map(move |(begin, file)| async move {
                let length = (end - begin).min(limits::PIECE as u64) as usize;
                let reading = tokio::task::spawn_blocking(move || read_at(&file, begin, length));
                reading.await.map_err(|error| generic(io::Error::other(error)))?.map_err(generic)
            });
            Ok(reading.buffered(limits::PIECES_AHEAD).boxed())
        }
        GetResultPayload::Stream(stream) => Ok(stream),
    }
}

/// Reads so many bytes, not fewer.
fn read_at(file: &File, begin: u64, length: usize) -> io::Result<Bytes> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, begin)?;
    Ok(bytes.into())
}

/// Bounds the wait for the next piece of a stream.
pub async fn next_piece(pieces: &mut Pieces) -> Result<Option<Bytes>, object_store::Error> {
    tokio::time::timeout(limits::READ_STALL, pieces.try_next()).await.map_err(|_| timed_out())?
}

fn timed_out() -> object_store::Error {
    generic(io::ErrorKind::TimedOut.into())
}

fn generic(error: io::Error) -> object_store::Error {
    object_store::Error::Generic { store: "area", source: Box::new(error) }
}

fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_can_be_read_back_and_nothing_else_can() {
        let key = SnapshotKey { job: Uuid::from_u128(1), attempt: 3, token: Uuid::from_u128(2) };
        let text = key.text();
        let (directory, file) = text.strip_prefix("snapshots/").and_then(|t| t.split_once('/')).expect("two names");
        assert_eq!(SnapshotKey::parse(directory, file), Some(key.clone()));
        assert_eq!(SnapshotKey::parse(directory, &format!(".{file}.part")), Some(key));
        for bad in ["", "a.zip", "1.zip", "1-x.zip", "x"] {
            assert_eq!(SnapshotKey::parse(directory, bad), None, "{bad}");
        }
        assert_eq!(SnapshotKey::parse("lost+found", file), None);
    }
}
