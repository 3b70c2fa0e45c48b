//! Objects in a bucket. What is written goes through a temporary file of this host first, so that it is sent only when it is
//! complete and proved, and reading goes in ranges of bounded length, so that a slow client holds nothing but its
//! connection.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::Utc;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path as ObjectPath;
use object_store::{
    Error, GetOptions, GetRange, MultipartId, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::bucket::Bucket;
use super::{Pieces, directory, generic, timed_out};
use crate::settings::BucketSettings;
use crate::{error_chain, limits};

/// What a storage has to be able to do.
pub(super) trait Store: ObjectStore + MultipartStore {}
impl<S: ObjectStore + MultipartStore> Store for S {}

/// Called while a file is on its way, with the bytes that were moved since the last time; an error gives it up.
pub type Moved<'a> = &'a mut dyn FnMut(u64) -> io::Result<()>;

/// A bucket, and where temporary files lie. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Objects {
    store: Arc<dyn Store>,
    /// What is not part of every storage: signed links, and uploads that somebody left behind.
    bucket: Option<Bucket>,
    scratch: PathBuf,
    runtime: Handle,
    /// Files that are being sent: each has parts in memory.
    sending: Arc<Semaphore>,
    /// When the bucket answered last.
    answered: Arc<Mutex<Option<Instant>>>,
}

impl Objects {
    /// Prepares a client. The bucket is not asked for anything yet. Needs a runtime around it.
    ///
    /// # Errors
    /// When a setting makes no sense, or the scratch directory cannot be made.
    pub fn in_bucket(settings: &BucketSettings, scratch: &Path) -> io::Result<Self> {
        let bucket = Bucket::open(settings).map_err(io::Error::other)?;
        Ok(Self { bucket: Some(bucket.clone()), ..Self::over(bucket.store(), scratch)? })
    }

    /// Keeps everything in memory, and is gone with it: for tests.
    ///
    /// # Errors
    /// When the scratch directory cannot be made.
    pub fn in_memory(scratch: &Path) -> io::Result<Self> {
        Self::over(Arc::new(InMemory::new()), scratch)
    }

    fn over(store: Arc<dyn Store>, scratch: &Path) -> io::Result<Self> {
        directory::make(scratch)?;
        Ok(Self {
            store,
            bucket: None,
            scratch: scratch.to_owned(),
            runtime: Handle::current(),
            sending: Arc::new(Semaphore::new(limits::SENDING)),
            answered: Arc::default(),
        })
    }

    /// The storage itself.
    pub(super) fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.store) as Arc<dyn ObjectStore>
    }

    /// Free bytes for temporary files.
    pub(super) fn free(&self) -> io::Result<u64> {
        directory::free(&self.scratch)
    }

    /// A temporary file, without a name: whatever ends this process, its bytes go with it.
    pub(super) fn temporary(&self) -> io::Result<File> {
        tempfile::tempfile_in(&self.scratch)
    }

    /// Tells whether the bucket answers, or did so within [`limits::STORAGE_LOOK`].
    pub(super) async fn look(&self) -> bool {
        let last = || self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        if last().is_some_and(|answered| answered.elapsed() < limits::STORAGE_LOOK) {
            return true;
        }
        // A key that nobody has: "not found" is an answer, "forbidden" is none.
        let nobodys = ObjectPath::from("snapshots/look");
        let looking = timeout(limits::LOOK_TIMEOUT, self.store.head(&nobodys));
        let answers = matches!(looking.await, Ok(Ok(_) | Err(Error::NotFound { .. })));
        *last() = answers.then(Instant::now);
        answers
    }

    /// Sends a file, from outside the runtime. When this returns `Ok`, the object is there, whole.
    ///
    /// # Errors
    /// Any error means that nothing can be said of the object; nobody may name it.
    pub(super) fn send(&self, key: &ObjectPath, file: &File, moved: Moved<'_>) -> io::Result<()> {
        let size = file.metadata()?.len();
        let sent = self.runtime.block_on(async {
            let _permit = self.sending.acquire().await.map_err(io::Error::other)?;
            if size <= limits::PART {
                let bytes = read_part(file, 0..size).await?;
                self.create(key, bytes.into()).await.map_err(io::Error::other)?;
                return moved(size);
            }
            self.send_parts(key, file, size, moved).await
        });
        sent?;
        match self.length_now(key)? {
            found if found == size => Ok(()),
            found => Err(io::Error::other(format!("{found} of {size} bytes arrived"))),
        }
    }

    /// Puts a small object. Its key was made for it: where something is there already, it is this very object, and the
    /// answer to the first try was lost. Where the storage knows no conditions, there are none.
    pub(super) async fn create(&self, key: &ObjectPath, payload: PutPayload) -> Result<(), Error> {
        let options = PutOptions { mode: PutMode::Create, ..Default::default() };
        match self.store.put_opts(key, payload.clone(), options).await {
            Ok(_) | Err(Error::AlreadyExists { .. }) => Ok(()),
            Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) => {
                self.store.put(key, payload).await.map(|_| ())
            }
            Err(error) => Err(error),
        }
    }

    async fn send_parts(&self, key: &ObjectPath, file: &File, size: u64, moved: Moved<'_>) -> io::Result<()> {
        let id = self.store.create_multipart(key).await.map_err(io::Error::other)?;
        let sent = async {
            let parts = self.put_parts(key, &id, file, size, moved).await?;
            match self.store.complete_multipart(key, &id, parts).await {
                Ok(_) => Ok(()),
                // The answer may have got lost; whoever called looks at the object.
                Err(Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(io::Error::other(error)),
            }
        };
        let sent = sent.await;
        if sent.is_err() {
            // What cannot be given up now is left to the sweeper.
            let _ = timeout(limits::BLOB_OPEN, self.store.abort_multipart(key, &id)).await;
        }
        sent
    }

    async fn put_parts(
        &self,
        key: &ObjectPath,
        id: &MultipartId,
        file: &File,
        size: u64,
        moved: Moved<'_>,
    ) -> io::Result<Vec<PartId>> {
        let length = part_length(size);
        let at_once = (limits::PARTS_AT_ONCE / length).max(1) as usize;
        let sending = stream::iter((0..size).step_by(length as usize).enumerate()).map(|(index, begin)| async move {
            let range = begin..size.min(begin + length);
            let bytes = read_part(file, range.clone()).await?;
            let id = self.store.put_part(key, id, index, bytes.into()).await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((id, range.end - range.start))
        });
        let mut sending = std::pin::pin!(sending.buffered(at_once));
        let mut parts = Vec::new();
        while let Some((part, length)) = sending.try_next().await? {
            crate::failpoint::reached("area.part_sent");
            parts.push(part);
            moved(length)?;
        }
        Ok(parts)
    }

    /// Fetches an object into a temporary file, from outside the runtime.
    pub(super) fn fetch(&self, key: &ObjectPath, moved: Moved<'_>) -> io::Result<File> {
        let mut file = self.temporary()?;
        let mut pieces = self.runtime.block_on(self.read(key, None)).map_err(io::Error::other)?;
        while let Some(piece) = self.runtime.block_on(super::next_piece(&mut pieces)).map_err(io::Error::other)? {
            file.write_all(&piece)?;
            moved(piece.len() as u64)?;
        }
        Ok(file)
    }

    /// Reads a range that is short enough to be in memory, from outside the runtime.
    pub(super) fn read_now(&self, key: &ObjectPath, range: Range<u64>) -> io::Result<Bytes> {
        self.runtime.block_on(read_range(Arc::clone(&self.store), key.clone(), range)).map_err(io::Error::other)
    }

    /// Length of an object, from outside the runtime.
    pub(super) fn length_now(&self, key: &ObjectPath) -> io::Result<u64> {
        self.runtime.block_on(self.length(key)).map_err(io::Error::other)
    }

    async fn length(&self, key: &ObjectPath) -> Result<u64, Error> {
        Ok(timeout(limits::BLOB_OPEN, self.store.head(key)).await.map_err(|_| timed_out())??.size)
    }

    /// Streams an object or a range of it. The first bytes are there when this returns.
    pub(super) async fn read(&self, key: &ObjectPath, range: Option<Range<u64>>) -> Result<Pieces, Error> {
        let range = match range {
            Some(range) => range,
            None => 0..self.length(key).await?,
        };
        let (store, key, end) = (Arc::clone(&self.store), key.clone(), range.end);
        let mut pieces = stream::iter(range.step_by(limits::OBJECT_RANGE as usize))
            .map(move |begin| read_range(Arc::clone(&store), key.clone(), begin..end.min(begin + limits::OBJECT_RANGE)))
            .buffered(limits::PIECES_AHEAD)
            .boxed();
        let first = pieces.try_next().await?;
        Ok(stream::iter(first.map(Ok)).chain(pieces).boxed())
    }

    /// Reads small objects whole, in their order, some at once.
    pub(super) async fn read_small(&self, objects: Vec<(ObjectPath, u64)>) -> Vec<Result<Bytes, Error>> {
        let reading = stream::iter(objects).map(|(key, length)| async move {
            let get = async {
                let found = self.store.get_opts(&key, GetOptions::default()).await?;
                match found.meta.size {
                    size if size > length => Err(generic(io::Error::other("it is longer than it should be"))),
                    _ => found.bytes().await,
                }
            };
            timeout(limits::READ_STALL, get).await.map_err(|_| timed_out())?
        });
        reading.buffered(limits::SMALL_OBJECTS_AT_ONCE).collect().await
    }

    /// Removes an object. Absent is fine.
    pub(super) async fn remove(&self, key: &ObjectPath) -> Result<(), Error> {
        match timeout(limits::BLOB_OPEN, self.store.delete(key)).await.map_err(|_| timed_out())? {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Lists objects that are older than this.
    pub(super) fn old(&self, prefix: &str, age: Duration) -> BoxStream<'static, Result<ObjectMeta, Error>> {
        let listed = self.store.list(Some(&ObjectPath::from(prefix)));
        listed.try_filter(move |object| std::future::ready(is_old(object, age))).boxed()
    }

    /// Marks an object, the first time; tells whether it was marked so long ago.
    pub(super) async fn mark(&self, mark: &ObjectPath, age: Duration) -> Result<bool, Error> {
        match timeout(limits::BLOB_OPEN, self.store.head(mark)).await.map_err(|_| timed_out())? {
            Ok(found) => Ok(is_old(&found, age)),
            Err(Error::NotFound { .. }) => self.create(mark, PutPayload::new()).await.map(|()| false),
            Err(error) => Err(error),
        }
    }

    /// Gives up uploads that were begun so long ago and never completed: their parts are kept, and paid for, until then.
    /// Returns how many.
    pub(super) async fn abort_abandoned(&self, prefix: &str, age: Duration) -> Result<usize, Error> {
        let Some(bucket) = &self.bucket else { return Ok(0) };
        let mut aborted = 0;
        let abandoned = match bucket.uploads_older_than(prefix, age).await {
            Ok(abandoned) => abandoned,
            // Not every service can tell. All else can be swept.
            Err(error) => {
                let error = error_chain::Chain(&error);
                tracing::warn!(%error, "uploads that were never completed cannot be listed, leaving them to the bucket's rules");
                return Ok(0);
            }
        };
        for (key, id) in abandoned {
            match self.store.abort_multipart(&key, &id).await {
                Ok(()) => aborted += 1,
                // Another sweeper was faster.
                Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(aborted)
    }

    /// A link that lets whoever has it get an object for a while, and says what a client should be told of it.
    pub(super) async fn link(&self, key: &ObjectPath, name: &str, content_type: &str) -> Result<Option<String>, Error> {
        match &self.bucket {
            None => Ok(None),
            Some(bucket) => bucket.link(key, name, content_type).await.map(Some),
        }
    }
}

/// Length of the parts of a file: as short as may be, in whole mebibytes.
pub(super) fn part_length(size: u64) -> u64 {
    size.div_ceil(limits::PARTS).next_multiple_of(1 << 20).max(limits::PART)
}

fn is_old(object: &ObjectMeta, age: Duration) -> bool {
    Utc::now().signed_duration_since(object.last_modified).to_std().is_ok_and(|found| found >= age)
}

/// Reads a part of a file on a thread that may wait for the disk.
async fn read_part(file: &File, range: Range<u64>) -> io::Result<Bytes> {
    let file = file.try_clone()?;
    let reading = tokio::task::spawn_blocking(move || {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        file.read_exact_at(&mut bytes, range.start)?;
        Ok(bytes.into())
    });
    reading.await.map_err(io::Error::other)?
}

/// Reads a range, all of it.
async fn read_range(store: Arc<dyn Store>, key: ObjectPath, range: Range<u64>) -> Result<Bytes, Error> {
    let wanted = range.end - range.start;
    let get = async {
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..Default::default() };
        store.get_opts(&key, options).await?.bytes().await
    };
    let bytes = timeout(limits::READ_STALL, get).await.map_err(|_| timed_out())??;
    match bytes.len() as u64 {
        found if found == wanted => Ok(bytes),
        _ => Err(generic(io::ErrorKind::UnexpectedEof.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_few_enough_and_no_longer_than_needed() {
        assert_eq!(part_length(1), limits::PART);
        assert_eq!(part_length(limits::PARTS * limits::PART), limits::PART);
        for size in [limits::PARTS * limits::PART + 1, 1 << 40, (5 << 40) - 1] {
            let length = part_length(size);
            assert!(size.div_ceil(length) <= limits::PARTS, "{size}");
            assert!(length - (1 << 20) < size.div_ceil(limits::PARTS), "{size}");
        }
    }
}
