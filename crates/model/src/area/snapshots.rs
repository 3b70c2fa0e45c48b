//! The snapshot area.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path as ObjectPath;

use super::key::SnapshotKey;
use super::objects::{Moved, Objects};
use super::part::Part;
use super::random_access::{Blocks, ObjectFile};
use super::{Pieces, directory, generic};
use crate::settings::{Place, StorageSettings};

/// Where snapshots lie: below a directory, or in a bucket. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SnapshotArea {
    lies: Lies,
    reserve: u64,
}

#[derive(Debug, Clone)]
enum Lies {
    Directory(Arc<Path>),
    Bucket(Objects),
}

/// A snapshot file that was not changed for a while, whole or in part.
#[derive(Debug)]
pub struct OldSnapshot {
    /// Its key.
    pub key: SnapshotKey,
    lies: OldPlace,
}

#[derive(Debug)]
enum OldPlace {
    Path(PathBuf),
    Object(ObjectPath),
}

const PREFIX: &str = "snapshots";

impl SnapshotArea {
    /// Opens the area that the settings name. Needs a runtime around it when that is in a bucket.
    ///
    /// # Errors
    /// When a directory cannot be made, or a setting of the bucket makes no sense.
    pub fn of(settings: &StorageSettings) -> io::Result<Self> {
        match &settings.place {
            Place::Directories { snapshots: Some(snapshots), .. } => Self::open(snapshots, settings.reserve),
            Place::Directories { snapshots: None, .. } => Err(io::Error::other("SNAPSHOT_DIR is not set")),
            Place::Bucket(bucket) => Ok(Self::over(Objects::in_bucket(bucket, &settings.scratch)?, settings.reserve)),
        }
    }

    /// Opens the area below a directory, making that when it is not there. `reserve` is in bytes.
    pub fn open(root: &Path, reserve: u64) -> io::Result<Self> {
        directory::make(&root.join(PREFIX))?;
        Ok(Self { lies: Lies::Directory(root.into()), reserve })
    }

    /// The area among objects; the reserve is that of the scratch directory.
    pub fn over(objects: Objects, reserve: u64) -> Self {
        Self { lies: Lies::Bucket(objects), reserve }
    }

    /// Free bytes above the reserve where new snapshots are written: in the area, or before they are sent there.
    pub fn free(&self) -> io::Result<u64> {
        let free = match &self.lies {
            Lies::Directory(root) => directory::free(root),
            Lies::Bucket(objects) => objects.free(),
        };
        Ok(free?.saturating_sub(self.reserve))
    }

    /// Tells whether it is in a bucket.
    pub fn is_bucket(&self) -> bool {
        matches!(self.lies, Lies::Bucket(_))
    }

    /// Tells whether the bucket answers. A directory is asked by [`SnapshotArea::free`].
    pub async fn answers(&self) -> bool {
        match &self.lies {
            Lies::Directory(_) => true,
            Lies::Bucket(objects) => objects.look().await,
        }
    }

    /// Creates the file of a key, for writing. Nothing of it is visible.
    pub fn create_part(&self, key: &SnapshotKey) -> io::Result<Part> {
        match &self.lies {
            Lies::Directory(root) => Part::in_directory(&root.join(PREFIX), key),
            Lies::Bucket(objects) => Part::for_bucket(objects, key),
        }
    }

    /// Opens a snapshot to look into it: little of it is read. Not to be called on a thread of the runtime.
    pub fn open_file(&self, key: &str) -> io::Result<ObjectFile> {
        let key = parse(key)?;
        Ok(match &self.lies {
            Lies::Directory(root) => ObjectFile::File(File::open(root.join(key.as_ref()))?),
            Lies::Bucket(objects) => ObjectFile::Blocks(Box::new(Blocks::open(objects, key)?)),
        })
    }

    /// Makes a snapshot a file of this host, to read all of it. Not to be called on a thread of the runtime. `moved` hears of
    /// bytes that were fetched, and may give it up.
    pub fn fetch(&self, key: &str, moved: Moved<'_>) -> io::Result<File> {
        let key = parse(key)?;
        match &self.lies {
            Lies::Directory(root) => File::open(root.join(key.as_ref())),
            Lies::Bucket(objects) => objects.fetch(&key, moved),
        }
    }

    /// Removes a snapshot that no row names any more. Absent is fine; what cannot be removed now is left to the sweeper.
    pub async fn remove(&self, key: &str) {
        if let Err(error) = self.try_to_remove(key).await {
            tracing::warn!(%error, "cannot remove a snapshot, leaving it to the sweeper");
        }
    }

    async fn try_to_remove(&self, key: &str) -> Result<(), object_store::Error> {
        let key = parse(key).map_err(generic)?;
        match &self.lies {
            Lies::Bucket(objects) => objects.remove(&key).await,
            Lies::Directory(root) => match tokio::fs::remove_file(root.join(key.as_ref())).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(generic(error)),
                Ok(()) | Err(_) => Ok(()),
            },
        }
    }

    /// Streams the bytes of a snapshot, or a range of them, with a bounded wait for the opening.
    pub async fn read(&self, key: &str, range: Option<Range<u64>>) -> Result<Pieces, object_store::Error> {
        let key = parse(key).map_err(generic)?;
        match &self.lies {
            Lies::Bucket(objects) => objects.read(&key, range).await,
            Lies::Directory(root) => directory::read(root, &key, range).await,
        }
    }

    /// Opens a snapshot that is a file of this host, with a bounded wait, when it has this range; nothing in a bucket.
    pub async fn open_here(&self, key: &str, range: &Range<u64>) -> Result<Option<File>, object_store::Error> {
        match &self.lies {
            Lies::Bucket(_) => Ok(None),
            Lies::Directory(root) => {
                let key = parse(key).map_err(generic)?;
                directory::open(root, &key, Some(range.clone())).await.map(|(file, _)| Some(file))
            }
        }
    }

    /// A link that gets whoever has it a snapshot for a while, straight from the bucket; nothing where there is no bucket.
    pub async fn link(&self, key: &str, name: &str, content_type: &str) -> Result<Option<String>, object_store::Error> {
        match &self.lies {
            Lies::Directory(_) => Ok(None),
            Lies::Bucket(objects) => objects.link(&parse(key).map_err(generic)?, name, content_type).await,
        }
    }

    /// Lists what was not changed for so long, parts of files included.
    pub fn old(&self, age: Duration) -> BoxStream<'static, Result<OldSnapshot, object_store::Error>> {
        match &self.lies {
            Lies::Bucket(objects) => objects
                .old(PREFIX, age)
                .try_filter_map(async |object| {
                    let names: Vec<&str> = object.location.as_ref().split('/').collect();
                    let [_, job, file] = names[..] else { return Ok(None) };
                    let key = SnapshotKey::parse(job, file);
                    Ok(key.map(|key| OldSnapshot { key, lies: OldPlace::Object(object.location.clone()) }))
                })
                .boxed(),
            Lies::Directory(root) => {
                let directories = match directory::children(&root.join(PREFIX)) {
                    Ok(directories) => directories,
                    Err(error) => return stream::iter([Err(generic(error))]).boxed(),
                };
                let old = directories.into_iter().flat_map(move |job| match directory::children(&job) {
                    Err(error) => vec![Err(generic(error))],
                    Ok(files) => files.into_iter().filter_map(|file| old_file(&job, file, age)).map(Ok).collect(),
                });
                stream::iter(old).boxed()
            }
        }
    }

    /// Removes an old file that no row names.
    pub async fn remove_old(&self, old: &OldSnapshot) -> Result<(), object_store::Error> {
        match (&self.lies, &old.lies) {
            (_, OldPlace::Path(path)) => std::fs::remove_file(path).map_err(generic),
            (Lies::Bucket(objects), OldPlace::Object(key)) => objects.remove(key).await,
            (Lies::Directory(_), OldPlace::Object(_)) => Err(generic(io::ErrorKind::InvalidInput.into())),
        }
    }

    /// Removes what is left when files are gone: directories of jobs that were not changed for `age`, and uploads that
    /// were begun `upload_age` ago and never completed. Returns how many uploads.
    pub async fn tidy(&self, age: Duration, upload_age: Duration) -> Result<usize, object_store::Error> {
        match &self.lies {
            Lies::Bucket(objects) => objects.abort_abandoned(PREFIX, upload_age).await,
            Lies::Directory(root) => {
                for job in directory::children(&root.join(PREFIX)).map_err(generic)? {
                    // Only an empty directory goes; a worker that is about to use it makes it again.
                    if directory::is_old(&job, age) {
                        let _ = std::fs::remove_dir(&job);
                    }
                }
                Ok(0)
            }
        }
    }
}

fn old_file(job: &Path, file: PathBuf, age: Duration) -> Option<OldSnapshot> {
    let key = SnapshotKey::parse(directory::name(job)?, directory::name(&file)?)?;
    directory::is_old(&file, age).then_some(OldSnapshot { key, lies: OldPlace::Path(file) })
}

fn parse(key: &str) -> io::Result<ObjectPath> {
    match ObjectPath::parse(key) {
        Ok(parsed) if parsed.as_ref().starts_with("snapshots/") => Ok(parsed),
        Ok(_) | Err(_) => Err(io::ErrorKind::InvalidInput.into()),
    }
}
