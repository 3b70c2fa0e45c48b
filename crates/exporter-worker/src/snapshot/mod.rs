//! Making a snapshot file: pieces in, one complete, proved and durable file out.
//!
//! The work is synchronous and runs on a thread of its own, fed through a bounded channel: compressing must not hold
//! up the runtime, and a blocked disk must not hold up a heartbeat.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use model::area::{Part, SnapshotArea, SnapshotKey};
use model::job::Amount;
use model::layout::DocumentType;
use model::limits;
use model::store::jobs::FinishedBlob;
use tokio::sync::{mpsc, oneshot};

use crate::control::Control;
use crate::failure::Failure;
use crate::source::ContentRef;

mod guarded;
mod integrity;
mod prove;
mod trial;
mod utf8_flag;
mod writer;

/// What the writer is told, in the order of the entries.
#[derive(Debug)]
pub enum Piece {
    /// A directory; the name ends with `/`.
    Directory(EntryHead),
    /// A small entry, whole.
    Whole(EntryHead, Bytes),
    /// The entry of a document type begins. It ends where another entry begins.
    Documents(DocumentType, EntryHead),
    /// Lines of the type that began last.
    Lines(Bytes, u64),
    /// The contents of a file begin; the entry is checked against what the source says of it.
    Content(EntryHead, ContentRef),
    /// Bytes of the contents that began last. The first piece decides whether they are compressed: it holds
    /// [`limits::SAMPLE`] bytes or everything.
    Bytes(Bytes),
    /// All was sent. Without it the file is thrown away.
    End(Totals),
}

/// Name and time of an entry.
#[derive(Debug, Clone)]
pub struct EntryHead {
    /// Whole name within the zip.
    pub name: String,
    /// Time of the entry, epoch milliseconds.
    pub modified: i64,
    /// Whether the entry may grow beyond 4 GiB, which a zip must know beforehand.
    pub large: bool,
}

/// What the source says the snapshot must hold.
#[derive(Debug, Clone, Copy)]
pub struct Totals {
    /// Documents of each type.
    pub documents: [u64; DocumentType::ALL.len()],
    /// Files and their bytes.
    pub content: Amount,
}

/// Where the finished file, or why there is none, is heard of.
pub type Finished = oneshot::Receiver<Result<FinishedBlob, Failure>>;

/// Starts the thread. The snapshot's key and digest come back once the file is durable under its final name.
///
/// # Errors
/// When the part file or the thread cannot be made.
pub fn start(
    area: SnapshotArea,
    scratch: PathBuf,
    key: SnapshotKey,
    control: Control,
) -> Result<(mpsc::Sender<Piece>, Finished), Failure> {
    let doing = "create snapshot file";
    let part = area.create_part(&key).map_err(|e| Failure::io(doing, e))?;
    let (pieces, receiver) = mpsc::channel(limits::PIECES_WAITING);
    let (done, result) = oneshot::channel();
    let span = tracing::Span::current();
    std::thread::Builder::new()
        .name("snapshot".into())
        .spawn(move || {
            let _span = span.entered();
            let made = catch_unwind(AssertUnwindSafe(|| make(&area, &scratch, part, &key, receiver, &control)));
            let made = made.unwrap_or_else(|panic| Err(Failure::internal(panic_text(panic.as_ref()))));
            let _ = done.send(made);
        })
        .map_err(|e| Failure::io(doing, e))?;
    Ok((pieces, result))
}

/// Writes, proves and publishes. On any error the part file is removed and nothing was visible.
fn make(
    area: &SnapshotArea,
    scratch: &Path,
    part: Part,
    key: &SnapshotKey,
    pieces: mpsc::Receiver<Piece>,
    control: &Control,
) -> Result<FinishedBlob, Failure> {
    let written = writer::write(area, scratch, &part, pieces, control)?;
    utf8_flag::set(&part)?;
    let proved = prove::prove(&part, written, control)?;
    part.publish().map_err(|e| Failure::io("sync failed", e))?;
    Ok(FinishedBlob { key: key.text(), size: proved.size, sha256: proved.sha256 })
}

/// The text of a panic, for the log.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panic: {}", text.unwrap_or("no text"))
}
