//! Where a snapshot goes: the counterpart of [`crate::source`]. Two exist, [`super::staging`] stores a cell,
//! [`super::comparison`] only compares.

use std::io::Read;

use uuid::Uuid;

use super::document::Checked;
use super::error::ImportError;
use super::metered::Metered;

/// Takes a cell, piece by piece: contents before the node that has them, documents in the order of the snapshot.
pub(super) trait Sink {
    /// Takes the contents of a file.
    fn content(&mut self, entry: &mut Metered<'_, impl Read>) -> Result<Content, ImportError>;

    /// Takes a node. `pmeta` is none for a plain file that a unit left in the tree.
    fn node(&mut self, path: &str, pmeta: Option<&str>, content: Option<&Content>) -> Result<(), ImportError>;

    /// Takes a document.
    fn document(&mut self, document: &Checked<'_>) -> Result<(), ImportError>;

    /// Ends: everything that was taken must be on its way.
    fn end(&mut self) -> Result<(), ImportError>;
}

/// Contents that were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Content {
    /// Under which id, where they were stored.
    pub(super) id: Uuid,
    pub(super) size: u64,
    pub(super) sha256: [u8; 32],
}
