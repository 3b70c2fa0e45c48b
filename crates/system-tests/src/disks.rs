//! Small file systems, and files that fill them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::judge::skipped;

/// A small file system of its own, taken away with this.
#[derive(Debug)]
pub struct Disk(PathBuf);

impl Disk {
    /// Mounts one over a directory; `None`, and a word about it, where this is not allowed.
    pub fn mount(directory: &Path, mebibytes: u64) -> Option<Self> {
        std::fs::create_dir_all(directory).expect("a directory");
        let size = format!("size={mebibytes}m,mode=0755");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(directory).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(directory.to_owned())),
            _ => {
                skipped("no file system may be mounted here");
                None
            }
        }
    }

    /// Fills it but for so many bytes; the file that does it.
    pub fn fill(&self, left: u64) -> PathBuf {
        let stat = rustix::fs::statvfs(&self.0).expect("a file system");
        let bytes = (stat.f_bavail * stat.f_frsize).saturating_sub(left);
        let filler = self.0.join(format!("filler-{}", uuid::Uuid::new_v4()));
        match std::fs::write(&filler, vec![0; bytes as usize]) {
            // Somebody else was faster: it is as full as it was to be.
            Err(error) if left == 0 && error.kind() == std::io::ErrorKind::StorageFull => {}
            written => written.expect("space for the filler"),
        }
        filler
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process that is still at work there keeps it until it ends.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
