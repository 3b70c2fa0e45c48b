//! One export: a view of a cell in, a finished snapshot file out. Knows neither broker nor job table.

use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use model::area::{Pieces, SnapshotArea, SnapshotKey, next_piece};
use model::cell::CellId;
use model::failpoint;
use model::job::Amount;
use model::layout::{self, DocumentType, Manifest};
use model::limits;
use model::store::jobs::FinishedBlob;
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::control::Control;
use crate::failure::Failure;
use crate::snapshot::{self, EntryHead, Piece, Totals};
use crate::source::{Batch, CellSource, CellView, ContentRef, Node, Summary, Tree};

/// What is exported, and to where.
#[derive(Debug, Clone)]
pub struct Order {
    /// The cell.
    pub cell: CellId,
    /// Key of the snapshot, unique to the attempt.
    pub key: SnapshotKey,
    /// URL of the unit, for the manifest.
    pub unit_url: String,
    /// Directory for temporary files.
    pub scratch: PathBuf,
}

/// Exports a cell. When this returns `Ok`, the file is complete, proved and durable; no row names it yet.
///
/// # Errors
/// [`Failure`], which says what is to be done; nothing visible was left behind.
pub async fn export<S: CellSource>(
    source: &S,
    area: &SnapshotArea,
    order: &Order,
    control: &Control,
) -> Result<FinishedBlob, Failure> {
    if area.free().map_err(|e| Failure::io("create snapshot file", e))? == 0 {
        return Err(Failure::disk_full());
    }
    let view = source.open(&order.cell).await?;
    failpoint::reached("export.view_opened");
    control.set_total(view.summary().total());
    let (pieces, finished) = snapshot::start(area.clone(), order.scratch.clone(), order.key.clone(), control.clone())?;
    let feeding = async {
        let feeder = Feeder { pieces: &pieces, control };
        feeder.feed(source, view, &order.unit_url).await
    };
    let fed = feeding.await;
    drop(pieces);
    let made = finished.await.unwrap_or_else(|_| Err(Failure::internal("the snapshot thread went away".to_owned())));
    match (fed, made) {
        (Ok(()), made) => made,
        // The writer refused first: its failure is the cause, the feeder only saw the closed channel.
        (Err(Fed::WriterGone), made) => made,
        (Err(Fed::Failed(failure)), _) => Err(failure),
    }
}

/// Why feeding ended early.
enum Fed {
    WriterGone,
    Failed(Failure),
}

impl From<Failure> for Fed {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

struct Feeder<'a> {
    pieces: &'a mpsc::Sender<Piece>,
    control: &'a Control,
}

impl Feeder<'_> {
    /// Sends everything in the order of the entries.
    async fn feed<S: CellSource>(&self, source: &S, mut view: S::View, unit_url: &str) -> Result<(), Fed> {
        let summary = view.summary().clone();
        let modified = updated(&summary.document).unwrap_or_default();
        self.head(&summary, unit_url, modified).await?;
        self.documents(&mut view, &summary, modified).await?;
        // From here on nothing holds the database: contents are write-once.
        let tree = view.seal().await?;
        failpoint::reached("export.view_closed");
        self.tree(source, tree).await?;
        let content = Amount { documents: 0, files: summary.files, bytes: summary.file_bytes };
        self.send(Piece::End(Totals { documents: summary.documents, content })).await
    }

    async fn head(&self, summary: &Summary, unit_url: &str, modified: i64) -> Result<(), Fed> {
        let small = |name: &str| EntryHead { name: name.to_owned(), modified, large: false };
        self.send(Piece::Directory(small(layout::ODATA_DIR))).await?;
        self.send(Piece::Directory(small(layout::WEBDAV_DIR))).await?;
        let manifest = Manifest {
            export_version: layout::EXPORT_VERSION,
            unit_url: unit_url.to_owned(),
            create_date: summary.taken_at,
        };
        let manifest = serde_json::to_vec(&manifest).map_err(|e| Failure::internal(e.to_string()))?;
        self.send(Piece::Whole(small(layout::MANIFEST), manifest.into())).await?;
        self.send(Piece::Whole(small(layout::CELL), summary.document.clone().into())).await
    }

    /// All sixteen entries, the empty ones too.
    async fn documents<V: CellView>(&self, view: &mut V, summary: &Summary, modified: i64) -> Result<(), Fed> {
        let (sender, batches) = mpsc::channel(2);
        let reading = async {
            tokio::select! {
                // Dropping the read in the middle is fine: the view and its connection are given up with it.
                read = view.documents(sender) => read,
                () = self.control.wait() => Err(self.stop()),
            }
        };
        // Owns the receiver: when a batch cannot be written, dropping it ends the reading.
        let writing = async move {
            let mut batches: mpsc::Receiver<Batch> = batches;
            let mut next = DocumentType::ALL.into_iter();
            let mut open = None;
            while let Some(batch) = batches.recv().await {
                while open != Some(batch.document_type) {
                    let Some(begin) = next.next() else {
                        return Err(Failure::internal("documents out of order".to_owned()).into());
                    };
                    self.begin(begin, summary, modified).await?;
                    open = Some(begin);
                }
                self.send(Piece::Lines(batch.lines, batch.count)).await?;
            }
            for begin in next {
                self.begin(begin, summary, modified).await?;
            }
            Ok::<(), Fed>(())
        };
        let (read, written) = tokio::join!(reading, writing);
        written?;
        Ok(read?)
    }

    async fn begin(&self, document_type: DocumentType, summary: &Summary, modified: i64) -> Result<(), Fed> {
        let most = summary.documents[document_type.index()].saturating_mul(limits::DOCUMENT as u64 + 1);
        let head = EntryHead { name: document_type.entry().to_owned(), modified, large: is_large(most) };
        self.send(Piece::Documents(document_type, head)).await
    }

    async fn tree<S: CellSource>(&self, source: &S, tree: Tree) -> Result<(), Fed> {
        for node in tree {
            self.node(source, node?).await?;
        }
        Ok(())
    }

    async fn node<S: CellSource>(&self, source: &S, node: Node) -> Result<(), Fed> {
        let below = |name: &str| match (node.path.as_str(), name) {
            ("", name) => format!("{}{name}", layout::WEBDAV_DIR),
            (path, "") => format!("{}{path}", layout::WEBDAV_DIR),
            (path, name) => format!("{}{path}/{name}", layout::WEBDAV_DIR),
        };
        let head = |name, modified, large| EntryHead { name, modified, large };
        let Some(pmeta) = &node.pmeta else {
            // A plain file that a unit left behind: no directory, no metadata.
            return match node.content {
                Some(content) => self.content(source, head(below(""), 0, is_large(content.size)), content).await,
                None => Ok(()),
            };
        };
        let modified = node_updated(pmeta).map_err(|e| Failure::pmeta(&node.path, e))?;
        if !node.path.is_empty() {
            self.send(Piece::Directory(head(format!("{}/", below("")), modified, false))).await?;
        }
        let metadata = Bytes::copy_from_slice(pmeta.as_bytes());
        self.send(Piece::Whole(head(below(layout::PMETA), modified, false), metadata)).await?;
        match node.content {
            None => Ok(()),
            Some(content) => {
                let head = head(below(layout::CONTENT), modified, is_large(content.size));
                self.content(source, head, content).await
            }
        }
    }

    async fn content<S: CellSource>(&self, source: &S, head: EntryHead, content: ContentRef) -> Result<(), Fed> {
        let path = head.name.clone();
        let broken = |e| Fed::Failed(Failure::content(&path, e));
        self.send(Piece::Content(head, content)).await?;
        let mut pieces = source.content(content.id).await.map_err(broken)?;
        let beginning = beginning(&mut pieces).await.map_err(broken)?;
        self.send(Piece::Bytes(beginning)).await?;
        while let Some(piece) = next_piece(&mut pieces).await.map_err(broken)? {
            self.send(Piece::Bytes(piece)).await?;
        }
        Ok(())
    }

    async fn send(&self, piece: Piece) -> Result<(), Fed> {
        if self.control.stopped().is_some() {
            return Err(self.stop().into());
        }
        self.pieces.send(piece).await.map_err(|_| Fed::WriterGone)
    }

    fn stop(&self) -> Failure {
        match self.control.stopped() {
            Some(reason) => Failure::stopped(reason),
            None => Failure::internal("asked to stop without a reason".to_owned()),
        }
    }
}

/// Gathers the first [`limits::SAMPLE`] bytes, or everything if there is less.
async fn beginning(pieces: &mut Pieces) -> Result<Bytes, object_store::Error> {
    let Some(first) = next_piece(pieces).await? else { return Ok(Bytes::new()) };
    if first.len() >= limits::SAMPLE {
        return Ok(first);
    }
    let mut gathered = BytesMut::from(first);
    while gathered.len() < limits::SAMPLE {
        match next_piece(pieces).await? {
            Some(piece) => gathered.extend_from_slice(&piece),
            None => break,
        }
    }
    Ok(gathered.freeze())
}

/// A zip must know beforehand which entries may pass 4 GiB. Incompressible bytes grow a little when deflated.
fn is_large(most: u64) -> bool {
    most >= u64::from(u32::MAX) - (16 << 20)
}

/// When the cell was last changed, epoch milliseconds.
fn updated(document: &str) -> Option<i64> {
    #[derive(Deserialize)]
    struct Document {
        #[serde(rename = "_source")]
        source: Updated,
    }
    serde_json::from_str::<Document>(document).ok()?.source.u
}

fn node_updated(pmeta: &str) -> Result<i64, serde_json::Error> {
    serde_json::from_str::<Updated>(pmeta).map(|m| m.u.unwrap_or_default())
}

#[derive(Deserialize)]
struct Updated {
    u: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_may_pass_four_gigabytes_are_announced() {
        assert!(!is_large(1 << 31));
        assert!(is_large((1 << 32) - 1));
        assert!(is_large(300 * (limits::DOCUMENT as u64 + 1)));
    }

    #[test]
    fn times_come_from_the_documents() {
        assert_eq!(updated(r#"{"_source":{"p":1,"u":2}}"#), Some(2));
        assert_eq!(updated("x"), None);
        assert_eq!(node_updated(r#"{"u":7}"#).expect("JSON"), 7);
        assert!(node_updated("{").is_err());
    }
}
