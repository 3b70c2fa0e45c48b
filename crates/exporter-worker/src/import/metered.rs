//! Reading entries with an eye on what really comes out: a zip bomb lies about its sizes, and a snapshot that was
//! changed under way is not what its integrity entry says.

use std::io::{self, Read};

use model::job::Amount;
use model::limits;
use sha2::{Digest, Sha256};

use super::error::ImportError;
use super::integrity::Expected;
use crate::control::Control;

/// How much a snapshot may expand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expansion {
    /// Bytes of all entries together.
    total: u64,
    /// Uncompressed bytes per compressed byte of an entry.
    ratio: u64,
}

impl Expansion {
    /// A client's file of this size.
    pub(super) fn of_untrusted(size: u64) -> Self {
        let by_size = size.saturating_mul(limits::UNCOMPRESSED_FACTOR).saturating_add(limits::UNCOMPRESSED_SLACK);
        Self { total: limits::UNCOMPRESSED_TOTAL.min(by_size), ratio: limits::RATIO }
    }

    /// A file that an export wrote: however well it compressed, it was a cell.
    pub(super) fn unlimited() -> Self {
        // The store counts bytes in 64 bits with a sign.
        Self { total: i64::MAX as u64, ratio: u64::MAX }
    }

    /// Bytes of all entries together.
    pub(super) fn total(&self) -> u64 {
        self.total
    }
}

/// What all entries together may still produce.
#[derive(Debug)]
pub(super) struct Budget {
    left: u64,
    ratio: u64,
    control: Control,
}

impl Budget {
    pub(super) fn new(expansion: &Expansion, control: Control) -> Self {
        Self { left: expansion.total, ratio: expansion.ratio, control }
    }
}

/// An entry being read.
pub(super) struct Metered<'a, R> {
    entry: R,
    name: String,
    size: u64,
    compressed: u64,
    read: u64,
    /// Only where somebody wants to know.
    sha256: Option<Sha256>,
    digest: Option<[u8; 32]>,
    expected: Option<Expected>,
    budget: &'a mut Budget,
}

impl<'a, R: Read> Metered<'a, R> {
    pub(super) fn new(entry: R, name: String, size: u64, compressed: u64, budget: &'a mut Budget) -> Self {
        Self { entry, name, size, compressed, read: 0, sha256: None, digest: None, expected: None, budget }
    }

    /// Compares what is read with what the integrity entry says.
    pub(super) fn expecting(mut self, expected: Option<Expected>) -> Self {
        self.expected = expected;
        if self.expected.is_some() { self.with_digest() } else { self }
    }

    /// Works out the SHA-256 of what is read.
    pub(super) fn with_digest(mut self) -> Self {
        self.sha256.get_or_insert_default();
        self
    }

    /// Name of the entry.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Length according to the central directory.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Reads the next piece; 0 at the end, which is only reached when length, CRC and digest are right.
    pub(super) fn piece(&mut self, buffer: &mut [u8]) -> Result<usize, ImportError> {
        if self.budget.control.stopped().is_some() {
            return Err(ImportError::Interrupted);
        }
        let n = self.entry.read(buffer).map_err(|e| self.broken(e))?;
        self.read += n as u64;
        self.budget.control.wrote(Amount { bytes: n as u64, ..Amount::default() });
        if self.read > self.size {
            return Err(ImportError::entry(&self.name, "longer than the central directory says"));
        }
        if n == 0 && self.read < self.size {
            return Err(ImportError::entry(&self.name, "shorter than the central directory says"));
        }
        if self.read > limits::RATIO_FREE && self.read / self.budget.ratio > self.compressed {
            return Err(ImportError::entry(&self.name, format!("expands more than {} times", self.budget.ratio)));
        }
        self.budget.left = match self.budget.left.checked_sub(n as u64) {
            Some(left) => left,
            None => return Err(ImportError::entry(&self.name, "the snapshot expands too much")),
        };
        match (n, &mut self.sha256) {
            (0, _) => self.compare()?,
            (n, Some(sha256)) => sha256.update(&buffer[..n]),
            (_, None) => {}
        }
        Ok(n)
    }

    /// SHA-256 of an entry that was read to its end, [`with_digest`](Self::with_digest).
    pub(super) fn digest(&self) -> Result<[u8; 32], ImportError> {
        self.digest.ok_or_else(|| ImportError::entry(&self.name, "not read to its end"))
    }

    fn compare(&mut self) -> Result<(), ImportError> {
        if let Some(sha256) = self.sha256.take() {
            self.digest = Some(sha256.finalize().into());
        }
        match self.expected {
            Some(Expected { size, sha256 }) if self.digest != Some(sha256) || self.size != size => {
                Err(ImportError::entry(&self.name, format!("is not what {} says", model::layout::INTEGRITY)))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Reads a small entry whole.
    pub(super) fn read_all(&mut self, longest: u64) -> Result<Vec<u8>, ImportError> {
        if self.size > longest {
            return Err(ImportError::entry(&self.name, format!("longer than {longest} bytes")));
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

    fn broken(&self, error: io::Error) -> ImportError {
        // The zip library reports a wrong CRC or broken compression so; a disk that fails says something else.
        use io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
        if matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof | Other) {
            return ImportError::entry(&self.name, format!("cannot be read: {error}"));
        }
        ImportError::io("read the snapshot", error)
    }
}

/// For parsers that want a reader. A fault is kept for whoever asks.
pub(super) struct Reading<'m, 'a, R> {
    pub(super) entry: &'m mut Metered<'a, R>,
    pub(super) failed: Option<ImportError>,
}

impl<R: Read> Read for Reading<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.entry.piece(buffer).map_err(|error| {
            self.failed = Some(error);
            io::ErrorKind::Other.into()
        })
    }
}
