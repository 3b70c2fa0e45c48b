//! A snapshot is read to its end and goes nowhere: whoever has no database learns what an import would say of it.

use std::collections::HashSet;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::Read;

use model::layout::DocumentType;
use model::limits;
use uuid::Uuid;

use super::document::Checked;
use super::error::{Faults, ImportError};
use super::metered::Metered;
use super::reading::Summary;
use super::sink::{Content, Sink};
use super::{FaultList, Import, NewCell, Origin, open, reading};
use crate::control::Control;

/// Documents whose ids are compared with each other; at 17 bytes each, and twice that while the list grows.
const IDS: usize = 8_000_000;

/// What was found.
#[derive(Debug, Clone)]
pub struct Verified {
    /// What the snapshot holds, if it could be opened.
    pub contents: Option<VerifiedContents>,
    /// What is wrong with it.
    pub faults: FaultList,
}

/// What a snapshot holds.
#[derive(Debug, Clone)]
pub struct VerifiedContents {
    /// Its version.
    pub version: i64,
    /// Name of the cell.
    pub name: String,
    /// It says what each of its entries must be, and each was compared with that.
    pub has_integrity: bool,
    /// How much there is.
    pub summary: Summary,
}

/// Reads a snapshot as an import into its own cell does, and lists every fault. Blocks.
///
/// # Errors
/// [`ImportError`] when the file cannot be read; faults of the snapshot are part of the answer.
pub fn verify(file: File, origin: Origin, control: &Control) -> Result<Verified, ImportError> {
    let mut faults = Faults::going_on();
    let import = Import { file, origin, cell: NewCell::default() };
    let (archive, identity) = match open(import, control, &mut faults) {
        Ok(opened) => opened,
        Err(error) => return faults.end_with(error).map(|faults| verified(None, faults)),
    };
    let (version, has_integrity) = (archive.version().number(), archive.counts.is_some());
    let mut sink = Ids::default();
    let summary = match reading::read(archive, &identity, control, &mut faults, &mut sink) {
        Ok(summary) => summary,
        Err(error) => return faults.end_with(error).map(|faults| verified(None, faults)),
    };
    sink.twice.iter().for_each(|fault| faults.add(fault));
    faults.count += sink.unlisted;
    Ok(verified(Some(VerifiedContents { version, name: identity.name, has_integrity, summary }), faults))
}

fn verified(contents: Option<VerifiedContents>, faults: Faults) -> Verified {
    Verified { contents, faults: FaultList { count: faults.count, listed: faults.listed } }
}

/// Remembers ids only, by their digests under keys of this moment: nobody can make two of them collide.
#[derive(Default)]
struct Ids {
    keys: [RandomState; 2],
    seen: HashSet<u128>,
    twice: Vec<String>,
    /// Further ids that stand twice.
    unlisted: u64,
}

impl Ids {
    fn digest(&self, of: DocumentType, id: &str) -> u128 {
        let [high, low] = [0, 1].map(|key| u128::from(self.keys[key].hash_one((of.index(), id))));
        high << 64 | low
    }
}

impl Sink for Ids {
    fn content(&mut self, entry: &mut Metered<'_, impl Read>) -> Result<Content, ImportError> {
        let mut piece = vec![0; limits::PIECE];
        while entry.piece(&mut piece)? > 0 {}
        Ok(Content { id: Uuid::nil(), size: entry.size(), sha256: entry.digest()? })
    }

    fn node(&mut self, _: &str, _: Option<&str>, _: Option<&Content>) -> Result<(), ImportError> {
        Ok(())
    }

    fn document(&mut self, document: &Checked<'_>) -> Result<(), ImportError> {
        // A link that is repaired may stand twice: an import keeps one.
        if document.repaired || self.seen.len() >= IDS {
            return Ok(());
        }
        let of = document.document_type;
        if !self.seen.insert(self.digest(of, &document.id)) {
            if self.twice.len() < limits::FAULTS_LISTED {
                self.twice.push(format!("{}: the _id {} occurs twice", of.entry(), document.id));
            } else {
                self.unlisted += 1;
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), ImportError> {
        Ok(())
    }
}
