//! The side of a snapshot that is fed: gathers small entries, hands long ones on piece by piece, all in their order.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use model::area::{Pieces, next_piece};
use model::layout::DocumentType;
use model::limits;
use tokio::sync::mpsc;

use super::container::{EntryHead, Method};
use super::pack::{Packer, Small};
use super::{Of, Piece, Totals};
use crate::control::Control;
use crate::failure::Failure;
use crate::source::{CellSource, ContentRef};

/// Why feeding ended early.
#[derive(Debug, thiserror::Error)]
pub enum Fed {
    /// The writer gave up; it knows why.
    #[error("the writer gave up")]
    WriterGone,
    /// Something else happened.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Where entries go, in their order.
#[derive(Debug)]
pub struct Feed<S> {
    source: Arc<S>,
    pieces: mpsc::Sender<Piece>,
    packer: Packer,
    control: Control,
    small: Vec<(EntryHead, Whole)>,
    small_bytes: u64,
}

/// What a small entry holds.
#[derive(Debug)]
enum Whole {
    Here(Bytes),
    Source(ContentRef),
}

impl<S: CellSource> Feed<S> {
    pub(super) fn new(source: Arc<S>, pieces: mpsc::Sender<Piece>, packer: Packer, control: Control) -> Self {
        Self { source, pieces, packer, control, small: Vec::new(), small_bytes: 0 }
    }

    /// A small entry. A directory's name ends with `/`, and there is nothing in it.
    pub async fn whole(&mut self, head: EntryHead, bytes: Bytes) -> Result<(), Fed> {
        self.gather(head, bytes.len() as u64, Whole::Here(bytes)).await
    }

    /// The contents of a file.
    pub async fn content(&mut self, head: EntryHead, content: ContentRef) -> Result<(), Fed> {
        if content.size <= limits::PIECE as u64 {
            return self.gather(head, content.size, Whole::Source(content)).await;
        }
        let path = head.name.clone();
        let broken = |error| Fed::Failed(Failure::content(&path, error));
        let pieces = self.source.content(content.id).await.map_err(broken)?;
        let mut cut = Cut { pieces, left: BytesMut::new() };
        let first = cut.next().await.map_err(broken)?.unwrap_or_default();
        let shrinks = self.packer.shrinks(first.clone()).await?;
        let method = if shrinks { Method::Deflated } else { Method::Stored };
        self.begin(head, method, Of::Content(content)).await?;
        let mut next = Some(first);
        while let Some(bytes) = next {
            let piece = if shrinks { Piece::Block(self.packer.block(bytes), 0) } else { Piece::Bytes(bytes) };
            self.send(piece).await?;
            next = cut.next().await.map_err(broken)?;
        }
        Ok(())
    }

    /// The entry of a document type begins. It ends where another entry begins.
    pub async fn documents(&mut self, document_type: DocumentType, head: EntryHead) -> Result<(), Fed> {
        self.begin(head, Method::Deflated, Of::Documents(document_type)).await
    }

    /// Lines of the type that began last.
    pub async fn lines(&self, lines: Bytes, documents: u64) -> Result<(), Fed> {
        self.send(Piece::Block(self.packer.block(lines), documents)).await
    }

    /// All was sent. Without it the file is thrown away.
    pub async fn end(mut self, totals: Totals) -> Result<(), Fed> {
        self.send_small().await?;
        self.send(Piece::End(totals)).await
    }

    async fn begin(&mut self, head: EntryHead, method: Method, of: Of) -> Result<(), Fed> {
        self.send_small().await?;
        self.send(Piece::Begin(head, method, of)).await
    }

    async fn gather(&mut self, head: EntryHead, length: u64, whole: Whole) -> Result<(), Fed> {
        self.small.push((head, whole));
        self.small_bytes += length;
        if self.small_bytes >= limits::PIECE as u64 || self.small.len() >= limits::SMALL_ENTRIES {
            self.send_small().await?;
        }
        Ok(())
    }

    /// What was gathered is read and packed from now on, while others are.
    async fn send_small(&mut self) -> Result<(), Fed> {
        if self.small.is_empty() {
            return Ok(());
        }
        self.small_bytes = 0;
        let read = read(Arc::clone(&self.source), std::mem::take(&mut self.small));
        self.send(Piece::Small(self.packer.small(read))).await
    }

    async fn send(&self, piece: Piece) -> Result<(), Fed> {
        if let Some(reason) = self.control.stopped() {
            return Err(Failure::stopped(reason).into());
        }
        self.pieces.send(piece).await.map_err(|_| Fed::WriterGone)
    }
}

/// Reads the contents among small entries.
async fn read<S: CellSource>(source: Arc<S>, entries: Vec<(EntryHead, Whole)>) -> Result<Vec<Small>, Failure> {
    let wanted = entries.iter().filter_map(|(_, whole)| match whole {
        Whole::Here(_) => None,
        Whole::Source(content) => Some(*content),
    });
    let mut contents = source.small_contents(wanted.collect()).await.into_iter();
    let mut small = Vec::with_capacity(entries.len());
    for (head, whole) in entries {
        small.push(match whole {
            Whole::Here(bytes) => Small { head, bytes, content: None },
            Whole::Source(content) => {
                let read = contents.next().ok_or_else(|| Failure::internal("contents were not read".to_owned()))?;
                let bytes = read.map_err(|error| Failure::content(&head.name, error))?;
                Small { head, bytes, content: Some(content) }
            }
        });
    }
    Ok(small)
}

/// Contents in pieces of [`limits::PIECE`] bytes, the last one aside: where they are cut decides how they are compressed, and
/// that must not depend on how they arrive.
struct Cut {
    pieces: Pieces,
    left: BytesMut,
}

impl Cut {
    async fn next(&mut self) -> Result<Option<Bytes>, object_store::Error> {
        while self.left.len() < limits::PIECE {
            match next_piece(&mut self.pieces).await? {
                // As files come: nothing has to be moved.
                Some(piece) if self.left.is_empty() && piece.len() == limits::PIECE => return Ok(Some(piece)),
                Some(piece) => self.left.extend_from_slice(&piece),
                None if self.left.is_empty() => return Ok(None),
                None => return Ok(Some(self.left.split().freeze())),
            }
        }
        Ok(Some(self.left.split_to(limits::PIECE).freeze()))
    }
}
