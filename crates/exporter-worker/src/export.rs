//! One export: a view of a cell in, a finished snapshot file out. Knows neither broker nor job table.

use std::sync::Arc;

use bytes::Bytes;
use model::cell::CellId;
use model::failpoint;
use model::job::Amount;
use model::layout::{self, DocumentType, Manifest};
use model::limits;
use model::store::jobs::FinishedBlob;
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::control::{Control, Whole};
use crate::failure::Failure;
use crate::snapshot::{self, EntryHead, Fed, Feed, Place, Totals};
use crate::source::{Batch, CellSource, CellView, Node, Summary};

/// What is exported, and to where.
#[derive(Debug, Clone)]
pub struct Order {
    /// The cell.
    pub cell: CellId,
    /// URL of the unit, for the manifest.
    pub unit_url: String,
    /// Where the snapshot goes; its key is unique to the attempt.
    pub place: Place,
}

/// Exports a cell. When this returns `Ok`, the file is complete, proved and durable; no row names it yet.
///
/// # Errors
/// [`Failure`], which says what is to be done; nothing visible was left behind.
pub async fn export<S: CellSource>(source: Arc<S>, order: Order, control: &Control) -> Result<FinishedBlob, Failure> {
    if order.place.area.free().map_err(|e| Failure::io("create snapshot file", e))? == 0 {
        return Err(Failure::disk_full());
    }
    let view = control.phase("open view", source.open(&order.cell)).await?;
    failpoint::reached("export.view_opened");
    control.set_whole(Whole::Cell(view.summary().total()));
    let (feed, finished) = snapshot::start(order.place, source, control)?;
    let fed = Feeder { feed, control }.feed(view, &order.unit_url).await;
    // What was fed is written, proved and made durable by now, but for the last pieces.
    let made = control.phase("finish snapshot", async {
        finished.await.unwrap_or_else(|_| Err(Failure::internal("the snapshot thread went away".to_owned())))
    });
    match (fed, made.await) {
        (Ok(()), made) => made,
        // The writer refused first: its failure is the cause, the feeder only saw the closed channel.
        (Err(Fed::WriterGone), made) => made,
        (Err(Fed::Failed(failure)), _) => Err(failure),
    }
}

struct Feeder<'a, S> {
    feed: Feed<S>,
    control: &'a Control,
}

impl<S: CellSource> Feeder<'_, S> {
    /// Sends everything in the order of the entries.
    async fn feed(mut self, mut view: S::View, unit_url: &str) -> Result<(), Fed> {
        let summary = view.summary().clone();
        let modified = updated(&summary.document).unwrap_or_default();
        let control = self.control;
        self.head(&summary, unit_url, modified).await?;
        control.phase("read documents", self.documents(&mut view, &summary, modified)).await?;
        control.documents_read();
        // From here on nothing holds the database: contents are write-once.
        let tree = view.seal().await?;
        failpoint::reached("export.view_closed");
        control.contents_begin();
        control.phase("read contents", self.contents(tree)).await?;
        let content = Amount { documents: 0, files: summary.files, bytes: summary.file_bytes };
        self.feed.end(Totals { documents: summary.documents, content }).await
    }

    async fn contents(&mut self, tree: impl IntoIterator<Item = Result<Node, Failure>>) -> Result<(), Fed> {
        for node in tree {
            self.node(node?).await?;
        }
        Ok(())
    }

    async fn head(&mut self, summary: &Summary, unit_url: &str, modified: i64) -> Result<(), Fed> {
        let small = |name: &str| EntryHead { name: name.to_owned(), modified, large: false };
        self.feed.whole(small(layout::ODATA_DIR), Bytes::new()).await?;
        self.feed.whole(small(layout::WEBDAV_DIR), Bytes::new()).await?;
        let manifest = Manifest {
            export_version: layout::EXPORT_VERSION,
            unit_url: unit_url.to_owned(),
            create_date: summary.taken_at,
        };
        let manifest = serde_json::to_vec(&manifest).map_err(|e| Failure::internal(e.to_string()))?;
        self.feed.whole(small(layout::MANIFEST), manifest.into()).await?;
        self.feed.whole(small(layout::CELL), summary.document.clone().into()).await
    }

    /// All sixteen entries, the empty ones too.
    async fn documents(&mut self, view: &mut S::View, summary: &Summary, modified: i64) -> Result<(), Fed> {
        let (sender, batches) = mpsc::channel(2);
        let control = self.control;
        let reading = async {
            tokio::select! {
                // Dropping the read in the middle is fine: the view and its connection are given up with it.
                read = view.documents(sender) => read,
                () = control.wait() => Err(stop(control)),
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
                self.feed.lines(batch.lines, batch.count).await?;
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

    async fn begin(&mut self, document_type: DocumentType, summary: &Summary, modified: i64) -> Result<(), Fed> {
        let most = summary.documents[document_type.index()].saturating_mul(limits::DOCUMENT as u64 + 1);
        let head = EntryHead { name: document_type.entry().to_owned(), modified, large: is_large(most) };
        self.feed.documents(document_type, head).await
    }

    async fn node(&mut self, node: Node) -> Result<(), Fed> {
        let below = |name: &str| match (node.path.as_str(), name) {
            ("", name) => format!("{}{name}", layout::WEBDAV_DIR),
            (path, "") => format!("{}{path}", layout::WEBDAV_DIR),
            (path, name) => format!("{}{path}/{name}", layout::WEBDAV_DIR),
        };
        let head = |name, modified, large| EntryHead { name, modified, large };
        let Some(pmeta) = &node.pmeta else {
            // A plain file that a unit left behind: no directory, no metadata.
            return match node.content {
                Some(content) => self.feed.content(head(below(""), 0, is_large(content.size)), content).await,
                None => Ok(()),
            };
        };
        let modified = node_updated(pmeta).map_err(|e| Failure::pmeta(&node.path, e))?;
        if !node.path.is_empty() {
            self.feed.whole(head(format!("{}/", below("")), modified, false), Bytes::new()).await?;
        }
        let metadata = Bytes::copy_from_slice(pmeta.as_bytes());
        self.feed.whole(head(below(layout::PMETA), modified, false), metadata).await?;
        match node.content {
            None => Ok(()),
            Some(content) => {
                let head = head(below(layout::CONTENT), modified, is_large(content.size));
                self.feed.content(head, content).await
            }
        }
    }
}

fn stop(control: &Control) -> Failure {
    match control.stopped() {
        Some(reason) => Failure::stopped(reason),
        None => Failure::internal("asked to stop without a reason".to_owned()),
    }
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
