//! Where a cell's data comes from. The seam behind which paging, cursors and storage stay.
//!
//! A source opens a *view*: the cell as it was at one instant. Documents are read from the open view; sealing it
//! lists the file tree of the same instant and lets go of the database, and only then are contents read. They can be,
//! because contents are write-once.

use std::future::Future;

use bytes::Bytes;
use model::area::Pieces;
use model::cell::CellId;
use model::job::Amount;
use model::layout::DocumentType;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::failure::Failure;

mod copy_rows;
pub mod postgres;

/// A place where cells live.
pub trait CellSource: Send + Sync + 'static {
    /// An open view of a cell.
    type View: CellView;

    /// Opens a view of a cell as it is now.
    ///
    /// # Errors
    /// A [`Failure`] that says whether trying again can help; a cell that does not exist is permanent.
    fn open(&self, cell: &CellId) -> impl Future<Output = Result<Self::View, Failure>> + Send;

    /// Reads small contents whole, in their order. Works without any view.
    fn small_contents(
        &self,
        contents: Vec<ContentRef>,
    ) -> impl Future<Output = Vec<Result<Bytes, object_store::Error>>> + Send;

    /// Opens the contents of a file. Works without any view.
    fn content(&self, id: Uuid) -> impl Future<Output = Result<Pieces, object_store::Error>> + Send;
}

/// A cell at one instant.
pub trait CellView: Send {
    /// What is known from the start.
    fn summary(&self) -> &Summary;

    /// Sends all documents in snapshot order, in batches of about [`model::limits::PIECE`] bytes.
    ///
    /// # Errors
    /// [`Failure`]. When the receiver is gone the view stops early and returns `Ok`: whoever closed it knows why.
    fn documents(&mut self, batches: mpsc::Sender<Batch>) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Lists the file tree, then lets go of everything the view holds.
    fn seal(self) -> impl Future<Output = Result<Tree, Failure>> + Send;
}

/// What a view knows before anything is read from it.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The cell document, verbatim.
    pub document: String,
    /// When the view was taken, epoch milliseconds by the source's clock.
    pub taken_at: i64,
    /// Documents of each type, in the order of [`DocumentType::ALL`].
    pub documents: [u64; DocumentType::ALL.len()],
    /// File contents.
    pub files: u64,
    /// Their bytes.
    pub file_bytes: u64,
}

impl Summary {
    /// The whole amount of work.
    pub fn total(&self) -> Amount {
        Amount { documents: self.documents.iter().sum(), files: self.files, bytes: self.file_bytes }
    }
}

/// Some documents of one type, as lines.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Their type.
    pub document_type: DocumentType,
    /// The lines, each with its end.
    pub lines: Bytes,
    /// How many.
    pub count: u64,
}

/// A node of the file tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Path below the cell, empty for the root.
    pub path: String,
    /// Metadata, verbatim; none for a plain file that was left in the tree.
    pub pmeta: Option<String>,
    /// Contents, for files.
    pub content: Option<ContentRef>,
}

/// Contents as the source describes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRef {
    /// Id of the blob.
    pub id: Uuid,
    /// Length in bytes.
    pub size: u64,
    /// SHA-256.
    pub sha256: [u8; 32],
}

/// The listed file tree: a parent before its children, read from a temporary file so that it may be of any size.
pub struct Tree(pub(crate) Box<dyn Iterator<Item = Result<Node, Failure>> + Send>);

impl Iterator for Tree {
    type Item = Result<Node, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}
