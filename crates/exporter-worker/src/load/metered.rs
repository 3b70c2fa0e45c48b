//! Reading entries with an eye on what really comes out: a zip bomb lies about its sizes.

use std::io::{self, Read};

use indicatif::ProgressBar;
use model::limits;
use tokio_util::sync::CancellationToken;

use super::error::LoadError;

/// What all entries together may still produce.
#[derive(Debug)]
pub(super) struct Budget {
    left: u64,
    bar: ProgressBar,
    stop: CancellationToken,
}

impl Budget {
    pub(super) fn new(left: u64, bar: ProgressBar, stop: CancellationToken) -> Self {
        Self { left, bar, stop }
    }
}

/// An entry being read.
pub(super) struct Metered<'a, R> {
    entry: R,
    name: String,
    size: u64,
    compressed: u64,
    read: u64,
    budget: &'a mut Budget,
}

impl<'a, R: Read> Metered<'a, R> {
    pub(super) fn new(entry: R, name: String, size: u64, compressed: u64, budget: &'a mut Budget) -> Self {
        Self { entry, name, size, compressed, read: 0, budget }
    }

    /// Name of the entry.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Length according to the central directory.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Reads the next piece; 0 at the end, which is only reached when length and CRC are right.
    pub(super) fn piece(&mut self, buffer: &mut [u8]) -> Result<usize, LoadError> {
        if self.budget.stop.is_cancelled() {
            return Err(LoadError::Interrupted);
        }
        let n = self.entry.read(buffer).map_err(|e| self.broken(e))?;
        self.read += n as u64;
        self.budget.bar.inc(n as u64);
        if self.read > self.size {
            return Err(LoadError::entry(&self.name, "longer than the central directory says"));
        }
        if n == 0 && self.read < self.size {
            return Err(LoadError::entry(&self.name, "shorter than the central directory says"));
        }
        if self.read > limits::RATIO_FREE && self.read / limits::RATIO > self.compressed {
            return Err(LoadError::entry(&self.name, format!("expands more than {} times", limits::RATIO)));
        }
        self.budget.left = match self.budget.left.checked_sub(n as u64) {
            Some(left) => left,
            None => return Err(LoadError::entry(&self.name, "the snapshot expands too much")),
        };
        Ok(n)
    }

    /// Reads a small entry whole.
    pub(super) fn read_all(&mut self, longest: u64) -> Result<Vec<u8>, LoadError> {
        if self.size > longest {
            return Err(LoadError::entry(&self.name, format!("longer than {longest} bytes")));
        }
        let mut bytes = vec![0; self.size as usize + 1];
        let mut end = 0;
        loop {
            match self.piece(&mut bytes[end..])? {
                0 => break,
                n => end += n,
            }
        }
        bytes.truncate(end);
        Ok(bytes)
    }

    fn broken(&self, error: io::Error) -> LoadError {
        LoadError::entry(&self.name, format!("cannot be read: {error}"))
    }
}
