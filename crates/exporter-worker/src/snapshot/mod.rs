//! Making a snapshot file: pieces in, one complete, proved and durable file out.
//!
//! `feed.rs` takes entries, `pack.rs` compresses them on all cores, `writer.rs` puts them into the file in their order, on a
//! thread of its own, and `prove.rs` reads them back on another. Between them are bounded channels: compressing must not
//! hold up the runtime, and a blocked disk must not hold up a heartbeat.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use bytes::Bytes;
use model::area::{Part, SnapshotArea, SnapshotKey};
use model::failpoint;
use model::job::Amount;
use model::layout::DocumentType;
use model::limits;
use model::store::jobs::FinishedBlob;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

pub use self::container::EntryHead;
use self::container::Method;
pub use self::deflate::Effort;
pub use self::feed::{Fed, Feed};
use self::output::{Output, Told};
pub use self::pack::Packer;
use self::pack::{Block, Packed, Pending};
use crate::control::Control;
use crate::failure::Failure;
use crate::source::{CellSource, ContentRef};

mod container;
mod deflate;
mod digest;
mod feed;
mod integrity;
#[expect(unsafe_code, reason = "the compressor is written in C")]
mod isal;
mod output;
mod pack;
mod prove;
#[cfg(target_arch = "x86_64")]
mod sha_ni;
mod writer;

/// What the writer is told, in the order of the entries.
#[derive(Debug)]
enum Piece {
    /// Small entries, whole.
    Small(Pending<Vec<Packed>>),
    /// A long entry begins. It ends where another entry begins.
    Begin(EntryHead, Method, Of),
    /// Deflated data of the entry that began last, and how many documents they are.
    Block(Pending<Block>, u64),
    /// Stored data of the entry that began last.
    Bytes(Bytes),
    /// All was sent.
    End(Totals),
}

/// What a long entry holds.
#[derive(Debug)]
enum Of {
    Documents(DocumentType),
    /// Contents, and what the source says of them.
    Content(ContentRef),
}

/// What the source says the snapshot must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Documents of each type.
    pub documents: [u64; DocumentType::ALL.len()],
    /// Files and their bytes.
    pub content: Amount,
}

impl Totals {
    fn file(&mut self, size: u64) {
        self.content.files += 1;
        self.content.bytes += size;
    }
}

/// Where the finished file, or why there is none, is heard of.
pub type Finished = oneshot::Receiver<Result<FinishedBlob, Failure>>;

/// Where a snapshot goes, and how.
#[derive(Debug, Clone)]
pub struct Place {
    /// The area.
    pub area: SnapshotArea,
    /// Its key there.
    pub key: SnapshotKey,
    /// Directory for temporary files.
    pub scratch: PathBuf,
    /// Who compresses.
    pub packer: Packer,
    /// How much of the file may stay in the memory that the kernel lends to files.
    pub kept_in_cache: u64,
}

/// Starts the threads. The snapshot's key and digest come back once the file is durable under its final name.
///
/// # Errors
/// When the part file or the thread cannot be made.
pub fn start<S: CellSource>(place: Place, source: Arc<S>, control: &Control) -> Result<(Feed<S>, Finished), Failure> {
    let doing = "create snapshot file";
    let part = place.area.create_part(&place.key).map_err(|e| Failure::io(doing, e))?;
    let (pieces, receiver) = mpsc::channel(limits::PIECES_WAITING);
    let feed = Feed::new(source, pieces, place.packer.clone(), control.clone());
    let (done, result) = oneshot::channel();
    let (span, runtime, control) = (tracing::Span::current(), Handle::current(), control.clone());
    std::thread::Builder::new()
        .name("snapshot".into())
        .spawn(move || {
            let _span = span.entered();
            let made = catch_unwind(AssertUnwindSafe(|| make(&place, part, receiver, &runtime, &control)));
            let made = made.unwrap_or_else(|panic| Err(Failure::panicked(panic.as_ref())));
            let _ = done.send(made);
        })
        .map_err(|e| Failure::io(doing, e))?;
    Ok((feed, result))
}

/// Writes, proves and publishes. On any error the part file is removed and nothing was visible.
fn make(
    place: &Place,
    part: Part,
    pieces: mpsc::Receiver<Piece>,
    runtime: &Handle,
    control: &Control,
) -> Result<FinishedBlob, Failure> {
    failpoint::reached("export.part_made");
    let (written, read) = write(place, &part, pieces, runtime, control)?;
    failpoint::reached("export.zip_finished");
    let last_byte = written.at;
    let (size, sha256) = prove::directory(&part, written, read, control)?;
    tracing::info!(seconds = last_byte.elapsed().as_secs_f64(), "proved after the last byte was written");
    failpoint::reached("export.proved");
    let published = part.publish(&mut |bytes| control.go_on(bytes));
    published.map_err(|error| Failure::moving("sync failed", error, control))?;
    failpoint::reached("export.durable");
    let contents = control.done();
    Ok(FinishedBlob { key: place.key.text(), size, sha256, contents })
}

/// Writes the file, while one thread hands it to the disk and another one reads it back.
fn write(
    place: &Place,
    part: &Part,
    pieces: mpsc::Receiver<Piece>,
    runtime: &Handle,
    control: &Control,
) -> Result<(writer::Written, prove::ReadBack), Failure> {
    let io = |e| Failure::io("create snapshot file", e);
    let (finished, to_read) = sync_channel(limits::STRETCHES_WAITING);
    let (flush, to_flush) = sync_channel(1);
    let (proved, unneeded) = sync_channel(limits::STRETCHES_UNNEEDED);
    // What goes elsewhere is read once more.
    let kept = if part.is_sent() { u64::MAX } else { place.kept_in_cache };
    let output = Output::new(part.writer().map_err(io)?, place.area.clone(), Told { finished, flush });
    let (flushed, read) = (part.reopen().map_err(io)?, part.reopen().map_err(io)?);
    let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
    std::thread::scope(|scope| {
        let flushing =
            thread("flush").spawn_scoped(scope, move || prove::flush(&flushed, &to_flush, &unneeded)).map_err(io)?;
        let reading = thread("read back")
            .spawn_scoped(scope, move || prove::follow(read, &to_read, kept, &proved, control))
            .map_err(io)?;
        let written = writer::write(output, &place.scratch, pieces, &place.packer, runtime, control);
        // Where one of these gave up first, the writer only saw that nobody listened.
        flushing.join().unwrap_or_else(|panic| Err(Failure::panicked(panic.as_ref())))?;
        let read = reading.join().unwrap_or_else(|panic| Err(Failure::panicked(panic.as_ref())))?;
        Ok((written?, read))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::os::unix::fs::FileExt;
    use std::path::Path;

    use futures_util::{FutureExt, StreamExt};
    use model::area::Pieces;
    use model::cell::CellId;
    use sha2::{Digest, Sha256};
    use uuid::Uuid;

    use super::output::Finished;
    use super::prove::{directory, follow};
    use super::writer::Written;
    use super::*;
    use crate::source::postgres::PostgresView;

    /// Contents by their id; no documents.
    #[derive(Default)]
    struct Contents(HashMap<Uuid, Bytes>);

    impl CellSource for Contents {
        type View = PostgresView;

        async fn open(&self, _: &CellId) -> Result<PostgresView, Failure> {
            Err(Failure::cell_gone())
        }

        async fn small_contents(&self, contents: Vec<ContentRef>) -> Vec<Result<Bytes, object_store::Error>> {
            contents.iter().map(|content| Ok(self.0[&content.id].clone())).collect()
        }

        /// In pieces of any length.
        async fn content(&self, id: Uuid) -> Result<Pieces, object_store::Error> {
            let pieces: Vec<_> = self.0[&id].chunks(100_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
            Ok(futures_util::stream::iter(pieces).boxed())
        }
    }

    impl Contents {
        fn add(&mut self, bytes: Vec<u8>) -> ContentRef {
            let id = Uuid::from_u128(self.0.len() as u128);
            let content = ContentRef { id, size: bytes.len() as u64, sha256: Sha256::digest(&bytes).into() };
            self.0.insert(id, bytes.into());
            content
        }
    }

    fn head(name: &str) -> EntryHead {
        EntryHead { name: name.to_owned(), modified: 0, large: false }
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut noise = vec![0; length];
        fastrand::Rng::with_seed(3).fill(&mut noise);
        noise
    }

    /// What the tests put into a snapshot, and what they say there is.
    struct Cell {
        contents: Contents,
        files: Vec<(&'static str, ContentRef)>,
        lines: &'static [u8],
        totals: Totals,
        end: bool,
    }

    impl Cell {
        /// A role or two, a small file, a long one that shrinks and a long one that does not.
        fn new() -> Self {
            let mut contents = Contents::default();
            let files = vec![
                ("20_webdav/__/a/content", contents.add(b"hello ".repeat(9))),
                ("20_webdav/__/写真/content", contents.add(noise(600_000))),
                ("20_webdav/__/z/content", contents.add(b"long ago ".repeat(80_000))),
            ];
            let mut totals = Totals::default();
            totals.documents[DocumentType::Role.index()] = 2;
            files.iter().for_each(|(_, content)| totals.file(content.size));
            Self { contents, files, lines: b"{}\n{}\n", totals, end: true }
        }

        async fn feed(self, mut feed: Feed<Contents>) -> Result<(), Fed> {
            feed.whole(head("10_odata/"), Bytes::new()).await?;
            feed.whole(head("00_manifest.json"), Bytes::from_static(b"{}")).await?;
            feed.documents(DocumentType::Role, head(DocumentType::Role.entry())).await?;
            feed.lines(Bytes::from_static(self.lines), 2).await?;
            feed.documents(DocumentType::Link, head(DocumentType::Link.entry())).await?;
            for (name, content) in self.files {
                feed.content(head(name), content).await?;
            }
            if self.end { feed.end(self.totals).await } else { Ok(()) }
        }
    }

    fn place(directory: &Path) -> Place {
        let area = SnapshotArea::open(directory, 0).expect("an area");
        let key = SnapshotKey { job: Uuid::from_u128(1), attempt: 1, token: Uuid::new_v4() };
        Place { area, key, scratch: directory.to_owned(), packer: Packer::new(Effort::default(), 2), kept_in_cache: 0 }
    }

    fn files(directory: &Path) -> Vec<PathBuf> {
        let jobs = std::fs::read_dir(directory.join("snapshots")).expect("the area").flatten();
        jobs.flat_map(|job| std::fs::read_dir(job.path()).expect("a job").flatten().map(|f| f.path())).collect()
    }

    async fn made(mut cell: Cell, control: &Control) -> (Result<FinishedBlob, Failure>, Vec<PathBuf>) {
        let directory = tempfile::tempdir().expect("a directory");
        let source = Arc::new(std::mem::take(&mut cell.contents));
        let (feed, finished) = start(place(directory.path()), source, control).expect("started");
        let fed = cell.feed(feed).await;
        let made = finished.await.expect("an answer");
        if let (Err(Fed::Failed(failure)), Ok(made)) = (fed, &made) {
            panic!("{failure:?} {made:?}");
        }
        (made, files(directory.path()))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_whole_snapshot_is_published_under_its_key() {
        let control = Control::default();
        let (made, files) = made(Cell::new(), &control).await;
        let made = made.expect("published");
        assert_eq!(files.len(), 1);
        assert!(files[0].ends_with(&made.key), "{files:?} {}", made.key);
        let done = control.done();
        assert_eq!((done.documents, done.files), (2, 3));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn whatever_is_wrong_with_the_pieces_nothing_is_left() {
        let without_end = Cell { end: false, ..Cell::new() };
        let differing = |file: usize| {
            let mut cell = Cell::new();
            cell.files[file].1.sha256[0] ^= 1;
            cell
        };
        let lost_document = Cell { lines: b"{}\n", ..Cell::new() };
        let mut lost_file = Cell::new();
        lost_file.files.pop();
        for (what, cell) in [
            ("the reader went away", without_end),
            ("other contents than announced", differing(0)),
            ("other long contents", differing(1)),
            ("other long contents, deflated", differing(2)),
            ("a document less than the source has", lost_document),
            ("a file less than the source has", lost_file),
        ] {
            let (made, files) = made(cell, &Control::default()).await;
            assert!(made.is_err(), "{what}");
            assert_eq!(files, Vec::<PathBuf>::new(), "{what}");
        }
        let stopped = Control::default();
        stopped.stop(crate::control::StopReason::Cancelled);
        let (made, files) = made(Cell::new(), &stopped).await;
        assert!(made.is_err());
        assert_eq!(files, Vec::<PathBuf>::new());
    }

    /// What the writer left, and what it said is finished.
    async fn written(place: &Place, mut cell: Cell) -> (Part, Written, Vec<Finished>) {
        let part = place.area.create_part(&place.key).expect("a part file");
        let (finished, stretches) = sync_channel(1000);
        let (flush, _flushes) = sync_channel(1000);
        let told = Told { finished, flush };
        let output = Output::new(part.writer().expect("a handle"), place.area.clone(), told);
        let (pieces, receiver) = mpsc::channel(limits::PIECES_WAITING);
        let control = Control::default();
        let source = Arc::new(std::mem::take(&mut cell.contents));
        let feed = Feed::new(source, pieces, place.packer.clone(), control.clone());
        let (scratch, packer, runtime) = (place.scratch.clone(), place.packer.clone(), Handle::current());
        let writing =
            tokio::task::spawn_blocking(move || writer::write(output, &scratch, receiver, &packer, &runtime, &control));
        cell.feed(feed).await.expect("fed");
        let written = writing.await.expect("no panic").expect("written");
        (part, written, stretches.into_iter().collect())
    }

    fn read_back(part: &Part, told: &[Finished]) -> Result<prove::ReadBack, Failure> {
        let (teller, receiver) = sync_channel(told.len());
        told.iter().for_each(|finished| teller.send(finished.clone()).expect("room"));
        drop(teller);
        let (unneeded, _unneeded) = sync_channel(told.len());
        follow(part.reopen().expect("a file"), &receiver, 0, &unneeded, &Control::default())
    }

    /// Every byte matters: whichever is changed after writing, the proof fails.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_file_that_changed_under_way_is_not_proved() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut cell = Cell::new();
        cell.files.truncate(1);
        cell.totals.content = Amount::default();
        cell.totals.file(cell.files[0].1.size);
        let place = place(directory.path());
        let (part, written, told) = written(&place, cell).await;
        let file = part.writer().expect("a handle");
        for at in 0..written.size {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).expect("a byte");
            file.write_all_at(&[byte[0] ^ 0x10], at).expect("changed");
            assert!(read_back(&part, &told).is_err(), "byte {at}");
            file.write_all_at(&byte, at).expect("changed back");
        }
        let read = read_back(&part, &told).expect("as it was");
        self::directory(&part, written, read, &Control::default()).expect("as it was");
    }

    /// Sound in itself, but not what was written: only the list tells.
    #[tokio::test(flavor = "multi_thread")]
    async fn another_snapshot_is_not_proved() {
        let directory = tempfile::tempdir().expect("a directory");
        let renamed = |name| {
            let mut cell = Cell::new();
            cell.files[2].0 = name;
            cell
        };
        let cut = {
            let mut cell = Cell::new();
            cell.lines = b"{}\n[]\n\n\n\n";
            cell.totals.documents[DocumentType::Role.index()] = 5;
            cell
        };
        for (what, other) in [("another name", renamed("20_webdav/__/y/content")), ("another length", cut)] {
            let (place, other_place) = (place(directory.path()), place(directory.path()));
            let (_part, list, _) = written(&place, Cell::new()).await;
            let (part, own_list, told) = written(&other_place, other).await;
            let read = || read_back(&part, &told).expect("read back");
            let confused =
                Written { records: list.records, directory: own_list.directory, size: own_list.size, at: own_list.at };
            assert!(self::directory(&part, confused, read(), &Control::default()).is_err(), "{what}");
            self::directory(&part, own_list, read(), &Control::default()).expect("sound in itself");
        }
    }

    /// What this thread has read so far, from caches too (proc(5)).
    fn bytes_read() -> u64 {
        let io = std::fs::read_to_string("/proc/thread-self/io").expect("counters of this thread");
        let read = io.lines().find_map(|line| line.strip_prefix("rchar: ")).expect("a line");
        read.parse().expect("a number")
    }

    /// The contents were read back already: the directory is proved without them, however long they are.
    #[tokio::test(flavor = "multi_thread")]
    async fn proving_the_directory_reads_no_contents() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut cell = Cell::new();
        let content = cell.contents.add(noise(20_000_000));
        cell.totals.file(content.size);
        cell.files.push(("20_webdav/__/zz/content", content));
        let place = place(directory.path());
        let (part, written, told) = written(&place, cell).await;
        let read = read_back(&part, &told).expect("read back");
        let before = bytes_read();
        self::directory(&part, written, read, &Control::default()).expect("sound");
        let read = bytes_read() - before;
        assert!(read < 1_000_000, "{read} bytes were read");
    }

    /// Who downloads other things, and the database, keeps what the kernel has read for them.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_large_snapshot_does_not_fill_the_cache() {
        const LENGTH: usize = 8_000_000;
        const FILES: u64 = 24;
        let mut cell = Cell::new();
        let content = cell.contents.add(noise(LENGTH));
        let names: Vec<&'static str> = (0..FILES).map(|n| &*format!("20_webdav/__/zz/{n:02}/content").leak()).collect();
        for name in names {
            cell.totals.file(content.size);
            cell.files.push((name, content));
        }
        // On a disk: files that are in memory anyway stay there.
        let directory = tempfile::tempdir_in("/var/tmp").expect("a directory");
        let source = Arc::new(std::mem::take(&mut cell.contents));
        let (feed, finished) = start(place(directory.path()), source, &Control::default()).expect("started");
        cell.feed(feed).await.expect("fed");
        finished.await.expect("an answer").expect("published");
        let file = files(directory.path()).remove(0);
        let Ok(resident) = std::process::Command::new("fincore").args(["-bnro", "RES"]).arg(file).output() else {
            println!("skipped: fincore is not installed");
            return;
        };
        let resident = String::from_utf8(resident.stdout).expect("text");
        let resident: u64 = resident.trim().parse().expect("a number");
        // Those read back last may be there still, and the last ones are not handed over before the end.
        let waiting = 2 * limits::STRETCHES_WAITING as u64 + 2 + limits::FLUSH_BYTES.div_ceil(LENGTH as u64);
        assert!(resident < waiting * LENGTH as u64, "{resident} bytes are in memory");
    }

    /// Bytes depend on the cell alone, however many cores there are and however contents arrive.
    #[tokio::test(flavor = "multi_thread")]
    async fn the_same_cell_gives_the_same_bytes() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut seen = Vec::new();
        for cores in [1, 2, 5] {
            let place = Place { packer: Packer::new(Effort::default(), cores), ..place(directory.path()) };
            let (part, _, _) = written(&place, Cell::new()).await;
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut part.reopen().expect("a file"), &mut bytes).expect("read");
            seen.push(bytes);
        }
        assert!(seen.windows(2).all(|two| two[0] == two[1]));
    }

    /// An attempt that was given up drops everything: nothing runs on.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_feed_that_is_dropped_ends_the_writer() {
        let directory = tempfile::tempdir().expect("a directory");
        let (feed, finished) =
            start(place(directory.path()), Arc::new(Contents::default()), &Control::default()).expect("started");
        drop(feed);
        assert!(finished.map(|made| made.expect("an answer")).await.is_err());
        assert_eq!(files(directory.path()), Vec::<PathBuf>::new());
    }
}
