//! The blob store: contents of files, each under an id of its own.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use uuid::Uuid;

use super::key::blob_key;
use super::objects::{Objects, part_length};
use super::{Pieces, directory, generic, opening, timed_out};
use crate::limits;
use crate::settings::{Place, StorageSettings};

/// Where contents lie: below a directory, or in a bucket. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BlobStore {
    lies: Lies,
    store: Arc<dyn ObjectStore>,
}

#[derive(Debug, Clone)]
enum Lies {
    Directory(Arc<Path>),
    Bucket(Objects),
}

const PREFIX: &str = "blobs";
/// Marks of blobs that were found without a row. Not below the blobs: those are listed.
const MARKS: &str = "marks";

impl BlobStore {
    /// Opens the store that the settings name. Needs a runtime around it when that is in a bucket.
    ///
    /// # Errors
    /// When a directory cannot be made or is not named, or a setting of the bucket makes no sense.
    pub fn of(settings: &StorageSettings) -> io::Result<Self> {
        match &settings.place {
            Place::Directories { blobs: Some(blobs), .. } => Self::open(blobs),
            Place::Directories { blobs: None, .. } => Err(io::Error::other("BLOB_DIR is not set")),
            Place::Bucket(bucket) => Ok(Self::over(Objects::in_bucket(bucket, &settings.scratch)?)),
        }
    }

    /// Opens the store below a directory, making that when it is not there.
    pub fn open(root: &Path) -> io::Result<Self> {
        directory::make(&root.join(PREFIX))?;
        let store = LocalFileSystem::new_with_prefix(root).map_err(io::Error::other)?.with_fsync(true);
        Ok(Self { lies: Lies::Directory(root.into()), store: Arc::new(store) })
    }

    /// The store among objects.
    pub fn over(objects: Objects) -> Self {
        Self { store: objects.store(), lies: Lies::Bucket(objects) }
    }

    /// Streams the bytes of a blob, with a bounded wait for the opening.
    pub async fn read(&self, id: Uuid) -> Result<Pieces, object_store::Error> {
        match &self.lies {
            Lies::Directory(root) => directory::read(root, &blob_key(id), None).await,
            Lies::Bucket(objects) => objects.read(&blob_key(id), None).await,
        }
    }

    /// Reads small blobs whole, in their order: their ids and lengths. One that is longer than it should be is cut off one
    /// byte later, or refused.
    pub async fn read_small(&self, blobs: Vec<(Uuid, u64)>) -> Vec<Result<Bytes, object_store::Error>> {
        let root = match &self.lies {
            Lies::Directory(root) => Arc::clone(root),
            Lies::Bucket(objects) => {
                return objects
                    .read_small(blobs.into_iter().map(|(id, length)| (blob_key(id), length)).collect())
                    .await;
            }
        };
        let count = blobs.len();
        // One trip to another thread for all of them.
        let reading = tokio::task::spawn_blocking(move || {
            // One byte more, to see whether there is more than there should be.
            let read = |key: &ObjectPath, length| {
                let mut bytes = Vec::with_capacity(length as usize + 1);
                File::open(root.join(key.as_ref()))?.take(length + 1).read_to_end(&mut bytes)?;
                Ok(Bytes::from(bytes))
            };
            let blobs = blobs.into_iter().map(|(id, length)| (blob_key(id), length));
            blobs.map(|(key, length)| read(&key, length).map_err(|error| opening(&key, error))).collect()
        });
        match tokio::time::timeout(limits::READ_STALL, reading).await {
            Ok(Ok(contents)) => contents,
            Ok(Err(error)) => vec![Err(generic(io::Error::other(error)))],
            Err(_) => (0..count).map(|_| Err(timed_out())).collect(),
        }
    }

    /// Free bytes on the store's volume; nothing where nobody can tell.
    pub fn free(&self) -> io::Result<Option<u64>> {
        match &self.lies {
            Lies::Directory(root) => directory::free(root).map(Some),
            Lies::Bucket(_) => Ok(None),
        }
    }

    /// Stores small contents.
    pub async fn put(&self, id: Uuid, bytes: Bytes) -> Result<(), object_store::Error> {
        match &self.lies {
            Lies::Bucket(objects) => objects.create(&blob_key(id), bytes.into()).await,
            Lies::Directory(_) => {
                let options = PutOptions { mode: PutMode::Create, ..Default::default() };
                self.store.put_opts(&blob_key(id), bytes.into(), options).await.map(|_| ())
            }
        }
    }

    /// How long the parts of contents have to be.
    pub fn part_length(size: u64) -> usize {
        part_length(size) as usize
    }

    /// Begins to store contents in parts, all of [`BlobStore::part_length`] but the last.
    pub async fn put_in_parts(&self, id: Uuid) -> Result<Box<dyn MultipartUpload>, object_store::Error> {
        self.store.put_multipart(&blob_key(id)).await
    }

    /// Removes blobs that no row names. Absent ones are fine.
    ///
    /// # Errors
    /// The last of them; what could be removed is.
    pub async fn remove(&self, ids: Vec<Uuid>) -> Result<(), object_store::Error> {
        let keys = stream::iter(ids.into_iter().map(|id| Ok(blob_key(id)))).boxed();
        let mut removing = self.store.delete_stream(keys);
        let mut outcome = Ok(());
        while let Some(removed) = removing.next().await {
            match removed {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }

    /// Lists blobs that were not changed for so long, some at once.
    pub fn old(&self, age: Duration) -> BoxStream<'static, Result<Vec<Uuid>, object_store::Error>> {
        match &self.lies {
            Lies::Bucket(objects) => objects
                .old(PREFIX, age)
                .try_chunks(limits::BLOBS_AT_ONCE)
                .map(|chunk| match chunk {
                    Ok(objects) => Ok(objects.iter().filter_map(|object| id(object.location.filename()?)).collect()),
                    Err(error) => Err(error.1),
                })
                .boxed(),
            Lies::Directory(root) => match directory::children(&root.join(PREFIX)) {
                Err(error) => stream::iter([Err(generic(error))]).boxed(),
                Ok(directories) => stream::iter(directories.into_iter().map(move |directory| {
                    let files = directory::children(&directory).map_err(generic)?;
                    let old = files.iter().filter(|file| directory::is_old(file, age));
                    Ok(old.filter_map(|file| id(directory::name(file)?)).collect())
                }))
                .boxed(),
            },
        }
    }

    /// Tells whether contents without a row were found so once before, and `age` ago. An old blob may have lost its row just
    /// now, and an export that began before reads it: the first time it is marked.
    pub async fn is_condemned(&self, id: Uuid, age: Duration) -> Result<bool, object_store::Error> {
        match &self.lies {
            Lies::Directory(root) => is_file_condemned(&root.join(blob_key(id).as_ref())).map_err(generic),
            Lies::Bucket(objects) => objects.mark(&mark_key(id), age).await,
        }
    }

    /// Removes a blob that was condemned.
    pub async fn remove_condemned(&self, id: Uuid) -> Result<(), object_store::Error> {
        self.remove(vec![id]).await?;
        match &self.lies {
            Lies::Directory(_) => Ok(()),
            Lies::Bucket(objects) => objects.remove(&mark_key(id)).await,
        }
    }

    /// Removes what was begun to be stored so long ago and never completed. Returns how much.
    pub async fn tidy(&self, age: Duration) -> Result<usize, object_store::Error> {
        let root = match &self.lies {
            Lies::Directory(root) => root,
            Lies::Bucket(objects) => return objects.abort_abandoned(PREFIX, age).await,
        };
        let mut removed = 0;
        for directory in directory::children(&root.join(PREFIX)).map_err(generic)? {
            for file in directory::children(&directory).map_err(generic)? {
                // The storage library's own staging files carry '#' in their names.
                if directory::name(&file).is_some_and(|name| name.contains('#')) && directory::is_old(&file, age) {
                    std::fs::remove_file(file).map_err(generic)?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }
}

fn id(name: &str) -> Option<Uuid> {
    Uuid::try_parse(name).ok()
}

fn mark_key(id: Uuid) -> ObjectPath {
    ObjectPath::from(format!("{MARKS}/{}", id.simple()))
}

/// A file is marked by its mode, and becomes young again.
fn is_file_condemned(file: &PathBuf) -> io::Result<bool> {
    let open = match File::open(file) {
        // Another sweeper was faster.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        open => open?,
    };
    let mut permissions = open.metadata()?.permissions();
    if permissions.readonly() {
        return Ok(true);
    }
    open.set_modified(SystemTime::now())?;
    permissions.set_readonly(true);
    open.set_permissions(permissions)?;
    Ok(false)
}
