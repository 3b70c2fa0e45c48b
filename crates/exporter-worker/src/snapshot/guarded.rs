//! The file under the zip writer: keeps an eye on the disk, and turns to dust when the attempt is given up.
//!
//! `ZipWriter` finalises its archive when it is dropped, so an error path that just returns would leave a file that
//! looks complete. Once [`Guarded`] has failed or was abandoned it swallows everything instead.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use model::area::SnapshotArea;
use model::limits;

/// Switch that abandons a [`Guarded`] file which the zip writer owns.
#[derive(Debug, Clone, Default)]
pub(super) struct Abandon(Arc<AtomicBool>);

impl Abandon {
    pub(super) fn now(&self) {
        self.0.store(true, Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Relaxed)
    }
}

#[derive(Debug)]
pub(super) struct Guarded {
    file: File,
    area: SnapshotArea,
    abandon: Abandon,
    since_look: u64,
}

impl Guarded {
    pub(super) fn new(file: File, area: SnapshotArea, abandon: Abandon) -> Self {
        Self { file, area, abandon, since_look: 0 }
    }

    /// Looks at the free space and hands what was written to the disk, so that a full or failing disk shows early and
    /// the last flush is short.
    fn look(&mut self, written: usize) -> io::Result<()> {
        self.since_look += written as u64;
        if self.since_look < limits::FLUSH_BYTES {
            return Ok(());
        }
        self.since_look = 0;
        if self.area.free()? == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.sync_data()
    }
}

impl Write for Guarded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.abandon.is_set() {
            return Ok(bytes.len());
        }
        let result = self.file.write(bytes).and_then(|n| self.look(n).map(|()| n));
        if result.is_err() {
            self.abandon.now();
        }
        result
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.abandon.is_set() { Ok(()) } else { self.file.flush() }
    }
}

impl Seek for Guarded {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}
