//! Making a snapshot file: pieces in, one complete, proved and durable file out.
//!
//! The work is synchronous and runs on a thread of its own, fed through a bounded channel: compressing must not hold
//! up the runtime, and a blocked disk must not hold up a heartbeat.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use model::area::{Part, SnapshotArea, SnapshotKey};
use model::failpoint;
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
    failpoint::reached("export.part_made");
    let written = writer::write(area, scratch, &part, pieces, control)?;
    failpoint::reached("export.zip_finished");
    utf8_flag::set(&part)?;
    let proved = prove::prove(&part, written, control)?;
    failpoint::reached("export.proved");
    part.publish().map_err(|e| Failure::io("sync failed", e))?;
    failpoint::reached("export.durable");
    let contents = control.progress().done;
    Ok(FinishedBlob { key: key.text(), size: proved.size, sha256: proved.sha256, contents })
}

/// The text of a panic, for the log.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panic: {}", text.unwrap_or("no text"))
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom, Write};

    use sha2::{Digest, Sha256};
    use uuid::Uuid;

    use super::*;

    const CONTENT: &[u8] = b"hello hello hello hello hello hello";

    fn head(name: &str) -> EntryHead {
        EntryHead { name: name.to_owned(), modified: 0, large: false }
    }

    fn totals() -> Totals {
        let mut documents = [0; DocumentType::ALL.len()];
        documents[DocumentType::Role.index()] = 2;
        Totals { documents, content: Amount { documents: 0, files: 1, bytes: CONTENT.len() as u64 } }
    }

    fn pieces() -> Vec<Piece> {
        let sha256 = Sha256::digest(CONTENT).into();
        let content = ContentRef { id: Uuid::nil(), size: CONTENT.len() as u64, sha256 };
        vec![
            Piece::Directory(head("10_odata/")),
            Piece::Whole(head("00_manifest.json"), Bytes::from_static(b"{}")),
            Piece::Documents(DocumentType::Role, head(DocumentType::Role.entry())),
            Piece::Lines(Bytes::from_static(b"{}\n{}\n"), 2),
            Piece::Content(head("20_webdav/__/a/content"), content),
            Piece::Bytes(Bytes::from_static(CONTENT)),
            Piece::End(totals()),
        ]
    }

    fn place() -> (tempfile::TempDir, SnapshotArea, SnapshotKey) {
        let directory = tempfile::tempdir().expect("a directory");
        let area = SnapshotArea::open(directory.path(), 0).expect("an area");
        let key = SnapshotKey { job: Uuid::from_u128(1), attempt: 1, token: Uuid::from_u128(2) };
        (directory, area, key)
    }

    fn send(pieces: Vec<Piece>) -> mpsc::Receiver<Piece> {
        let (sender, receiver) = mpsc::channel(pieces.len().max(1));
        pieces.into_iter().for_each(|p| sender.try_send(p).expect("room for all"));
        receiver
    }

    fn files(directory: &Path) -> Vec<PathBuf> {
        let jobs = std::fs::read_dir(directory.join("snapshots")).expect("the area").flatten();
        jobs.flat_map(|job| std::fs::read_dir(job.path()).expect("a job").flatten().map(|f| f.path())).collect()
    }

    fn made(pieces: Vec<Piece>, control: &Control) -> (Result<FinishedBlob, Failure>, Vec<PathBuf>) {
        let (directory, area, key) = place();
        let part = area.create_part(&key).expect("a part file");
        let made = make(&area, directory.path(), part, &key, send(pieces), control);
        (made, files(directory.path()))
    }

    #[test]
    fn a_whole_snapshot_is_published_under_its_key() {
        let control = Control::default();
        let (made, files) = made(pieces(), &control);
        let made = made.expect("published");
        assert_eq!(files.len(), 1);
        assert!(files[0].ends_with(&made.key), "{files:?} {}", made.key);
        let done = control.progress().done;
        assert_eq!((done.documents, done.files), (2, 1));
    }

    #[test]
    fn whatever_is_wrong_with_the_pieces_nothing_is_left() {
        let without_end = || pieces().into_iter().take(6).collect::<Vec<_>>();
        let mut other_bytes = pieces();
        other_bytes[5] = Piece::Bytes(Bytes::from(vec![b'x'; CONTENT.len()]));
        let mut lost_document = pieces();
        lost_document[3] = Piece::Lines(Bytes::from_static(b"{}\n"), 1);
        let mut lost_file = pieces();
        lost_file.drain(4..6);
        let mut same_name_twice = pieces();
        same_name_twice.insert(2, Piece::Whole(head("00_manifest.json"), Bytes::new()));
        for (what, pieces) in [
            ("the reader went away", without_end()),
            ("other contents than announced", other_bytes),
            ("a document less than the source has", lost_document),
            ("a file less than the source has", lost_file),
            ("one name twice", same_name_twice),
        ] {
            let (made, files) = made(pieces, &Control::default());
            assert!(made.is_err(), "{what}");
            assert_eq!(files, Vec::<PathBuf>::new(), "{what}");
        }
        let stopped = Control::default();
        stopped.stop(crate::control::StopReason::Cancelled);
        let (made, files) = made(pieces(), &stopped);
        assert!(made.is_err());
        assert_eq!(files, Vec::<PathBuf>::new());
    }

    /// Every byte matters: whichever is changed after writing, the proof fails.
    #[test]
    fn a_file_that_changed_under_way_is_not_proved() {
        let (directory, area, key) = place();
        let control = Control::default();
        let size = {
            let part = area.create_part(&key).expect("a part file");
            writer::write(&area, directory.path(), &part, send(pieces()), &control).expect("written");
            part.reopen().and_then(|f| f.metadata()).expect("its size").len()
        };
        let mut proved = 0;
        for at in 0..size {
            let part = area.create_part(&key).expect("a part file");
            let written = writer::write(&area, directory.path(), &part, send(pieces()), &control).expect("written");
            utf8_flag::set(&part).expect("marked");
            let mut file = part.writer().expect("a handle");
            let mut byte = [0];
            std::os::unix::fs::FileExt::read_exact_at(&file, &mut byte, at).expect("a byte");
            file.seek(SeekFrom::Start(at)).expect("there");
            file.write_all(&[byte[0] ^ 0x10]).expect("changed");
            if prove::prove(&part, written, &control).is_ok() {
                proved += 1;
            }
        }
        // Times, versions and attributes in headers, and the two entries that are not proved by digest but by CRC, leave
        // some bytes that no reader of contents depends on.
        assert!(proved < size / 4, "{proved} of {size} changes went unnoticed");
    }

    /// Sound in itself, with the right counts, but not what was written: only the digests tell.
    #[test]
    fn another_snapshot_is_not_proved() {
        let (directory, area, key) = place();
        let control = Control::default();
        let write = |pieces| {
            let part = area.create_part(&key).expect("a part file");
            let written = writer::write(&area, directory.path(), &part, send(pieces), &control).expect("written");
            utf8_flag::set(&part).expect("marked");
            (part, written)
        };
        let mut others = pieces();
        others[3] = Piece::Lines(Bytes::from_static(b"{}\n[]\n"), 2);
        let (part, other_written) = write(others);
        let moved = directory.path().join("other.zip");
        std::io::copy(&mut part.reopen().expect("open"), &mut std::fs::File::create(&moved).expect("a file"))
            .expect("copied");
        prove::prove(&part, other_written, &control).expect("sound in itself");
        drop(part);
        let (part, written) = write(pieces());
        let mut file = part.writer().expect("a handle");
        let other = std::fs::read(&moved).expect("the other one");
        file.set_len(other.len() as u64).and_then(|()| file.seek(SeekFrom::Start(0))).expect("emptied");
        file.write_all(&other).expect("replaced");
        assert!(prove::prove(&part, written, &control).is_err());
    }

    #[test]
    fn a_full_disk_is_told_apart() {
        let directory = tempfile::tempdir().expect("a directory");
        let area = SnapshotArea::open(directory.path(), u64::MAX).expect("an area");
        assert_eq!(area.free().expect("an answer"), 0);
        let mut file = guarded::Guarded::new(tempfile::tempfile().expect("a file"), area, guarded::Abandon::default());
        let piece = vec![0; 8 << 20];
        let failed = (0..20).find_map(|_| file.write_all(&piece).err()).expect("it looks at the disk");
        assert_eq!(failed.kind(), std::io::ErrorKind::StorageFull);
        assert!(file.write_all(&piece).is_ok(), "from then on everything is swallowed");
    }
}
