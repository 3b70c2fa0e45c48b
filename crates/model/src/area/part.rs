//! A snapshot file that is being written.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use object_store::path::Path as ObjectPath;

use super::directory;
use super::key::SnapshotKey;
use super::objects::{Moved, Objects};
use crate::failpoint;

/// The file. Dropped before [`Part::publish`], it is removed.
#[derive(Debug)]
pub struct Part {
    file: Option<File>,
    goes: Goes,
}

/// Where a finished file goes.
#[derive(Debug)]
enum Goes {
    /// It lies beside its final place already.
    Beside { part: PathBuf, finished: PathBuf },
    /// It is sent from a temporary file without a name.
    Away { objects: Objects, key: ObjectPath },
}

impl Part {
    /// Creates the part file of a key: beside its final place, for its owner only, and never over something else.
    pub(super) fn in_directory(snapshots: &Path, key: &SnapshotKey) -> io::Result<Self> {
        let directory = snapshots.join(key.job.to_string());
        directory::make(&directory)?;
        let part = directory.join(format!(".{}.part", key.file()));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
            .open(&part)?;
        Ok(Self { file: Some(file), goes: Goes::Beside { part, finished: directory.join(key.file()) } })
    }

    /// Creates a temporary file for a key of a bucket.
    pub(super) fn for_bucket(objects: &Objects, key: &SnapshotKey) -> io::Result<Self> {
        let file = objects.temporary()?;
        Ok(Self { file: Some(file), goes: Goes::Away { objects: objects.clone(), key: key.text().into() } })
    }

    /// Returns a handle for writing.
    pub fn writer(&self) -> io::Result<File> {
        self.file()?.try_clone()
    }

    /// Opens the file anew, for reading back what is really there.
    pub fn reopen(&self) -> io::Result<File> {
        match &self.goes {
            Goes::Beside { part, .. } => File::open(part),
            // A file without a name is opened by way of an open one (proc(5)).
            Goes::Away { .. } => File::open(format!("/proc/self/fd/{}", self.file()?.as_raw_fd())),
        }
    }

    fn file(&self) -> io::Result<&File> {
        self.file.as_ref().ok_or_else(|| io::Error::other("the part file is closed"))
    }

    /// Tells whether publishing reads the file once more, to send it elsewhere.
    pub fn is_sent(&self) -> bool {
        matches!(self.goes, Goes::Away { .. })
    }

    /// Makes the bytes durable, gives the file its final name and makes the name durable; or sends it where it goes. Not to
    /// be called on a thread of the runtime. `moved` hears of bytes that were sent, and may give it up.
    ///
    /// # Errors
    /// Any error means that this attempt has failed. A failed `fsync` is never repeated: the second one may report
    /// success for pages that the kernel has dropped.
    pub fn publish(mut self, moved: Moved<'_>) -> io::Result<()> {
        let file = self.file.take().ok_or_else(|| io::Error::other("the part file is closed"))?;
        match &self.goes {
            Goes::Beside { part, finished } => rename(file, part, finished),
            Goes::Away { objects, key } => {
                failpoint::reached("area.before_sending");
                objects.send(key, &file, moved)?;
                failpoint::reached("area.sent");
                Ok(())
            }
        }
    }
}

fn rename(file: File, part: &Path, finished: &Path) -> io::Result<()> {
    failpoint::reached("area.before_fsync");
    if let Err(error) = file.sync_all() {
        let _ = std::fs::remove_file(part);
        return Err(error);
    }
    drop(file);
    failpoint::reached("area.before_rename");
    if let Err(error) = std::fs::rename(part, finished) {
        let _ = std::fs::remove_file(part);
        return Err(error);
    }
    failpoint::reached("area.after_rename");
    let directory = finished.parent().ok_or_else(|| io::Error::other("a key without directory"))?;
    directory::sync(directory)?;
    // The job's directory may be new: its own name must last as well.
    directory.parent().map_or(Ok(()), directory::sync)
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.file.take().is_some()
            && let Goes::Beside { part, .. } = &self.goes
            && let Err(error) = std::fs::remove_file(part)
        {
            tracing::warn!(%error, "cannot remove a part file, leaving it to the sweeper");
        }
    }
}
