//! What the parts of one attempt share: how far it is, and whether it must stop.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use model::error_chain::Chain;
use model::job::{Amount, Progress};
use model::limits;
use model::telemetry::TraceSpan;
use tokio_util::sync::CancellationToken;

use crate::forecast::{self, Clock, Lately, Written};

/// Why an attempt must stop before it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// Somebody asked for it.
    Cancelled,
    /// Another attempt may own the job by now. Nothing more may be written to the database.
    Lost,
    /// The job's time is up.
    Deadline,
    /// Nothing moved for too long: a thread hangs where it cannot be reached.
    Stalled,
    /// The process is asked to end.
    Shutdown,
}

/// What an attempt has to get through.
#[derive(Debug, Clone, Copy)]
pub enum Whole {
    /// A cell: its documents, its files and their bytes.
    Cell(Amount),
    /// A snapshot: bytes.
    Snapshot(u64),
}

/// Shared state of one attempt. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Control(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    stop: CancellationToken,
    /// Why it has to stop, and what led to that.
    reason: OnceLock<(StopReason, Option<String>)>,
    /// What the attempt's phases belong to.
    trace: TraceSpan,
    /// And when it was known.
    whole: OnceLock<(Whole, Instant)>,
    /// When all documents of an export were read.
    documents_read: OnceLock<Instant>,
    /// When its first content could be read.
    contents_begun: OnceLock<Instant>,
    lately: Mutex<Lately>,
    documents: AtomicU64,
    files: AtomicU64,
    bytes: AtomicU64,
    document_bytes: AtomicU64,
    /// Bytes of the snapshot itself.
    packed: AtomicU64,
    read_back: AtomicU64,
    moved: AtomicU64,
}

impl Control {
    /// The control of an attempt that has a span.
    pub fn traced(trace: TraceSpan) -> Self {
        Self(Arc::new(Inner { trace, ..Inner::default() }))
    }

    /// The attempt's span; nothing for work that is none of a job.
    pub fn trace(&self) -> &TraceSpan {
        &self.0.trace
    }

    /// Does a phase of the work: a span of its own, that says whether it failed.
    pub async fn phase<T, E: std::error::Error>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let span = self.0.trace.phase(name);
        let done = work.await;
        if let Err(error) = &done {
            span.fail(Chain(error).to_string());
        }
        done
    }

    /// Asks all parts to stop. The first reason counts.
    pub fn stop(&self, reason: StopReason) {
        self.stop_with(reason, None);
    }

    /// The same, with what led to it, for the log: whoever ends the attempt says it, once, when it is known what became
    /// of the job.
    pub fn stop_because(&self, reason: StopReason, cause: String) {
        self.stop_with(reason, Some(cause));
    }

    fn stop_with(&self, reason: StopReason, cause: Option<String>) {
        if self.0.reason.set((reason, cause)).is_ok() {
            self.0.stop.cancel();
        }
    }

    /// Returns why to stop, if so.
    pub fn stopped(&self) -> Option<StopReason> {
        self.0.reason.get().map(|(reason, _)| *reason)
    }

    /// Returns what led to that, if there is more to say.
    pub fn cause(&self) -> Option<&str> {
        self.0.reason.get().and_then(|(_, cause)| cause.as_deref())
    }

    /// Completes when the attempt must stop. Cancel-safe.
    pub async fn wait(&self) {
        self.0.stop.cancelled().await;
    }

    /// Waits for work elsewhere that has a limit of its own, and counts that as movement.
    pub async fn waiting_for<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            match tokio::time::timeout(limits::HEARTBEAT, &mut work).await {
                Ok(done) => return done,
                Err(_) => self.moved(1),
            }
        }
    }

    /// Says what there is to do, once it is known.
    pub fn set_whole(&self, whole: Whole) {
        let _ = self.0.whole.set((whole, Instant::now()));
    }

    /// All documents of an export were read.
    pub fn documents_read(&self) {
        let _ = self.0.documents_read.set(Instant::now());
    }

    /// An export begins to read contents.
    pub fn contents_begin(&self) {
        let _ = self.0.contents_begun.set(Instant::now());
    }

    /// Counts what was written: documents with their bytes, or contents with theirs.
    pub fn wrote(&self, amount: Amount) {
        self.0.documents.fetch_add(amount.documents, Relaxed);
        self.0.files.fetch_add(amount.files, Relaxed);
        self.0.bytes.fetch_add(amount.bytes, Relaxed);
        if amount.documents > 0 {
            self.0.document_bytes.fetch_add(amount.bytes, Relaxed);
        }
        self.moved(amount.bytes);
    }

    /// Counts bytes of the snapshot that were written.
    pub fn packed(&self, bytes: u64) {
        self.0.packed.fetch_add(bytes, Relaxed);
    }

    /// Counts bytes of the snapshot that were read back.
    pub fn read_back(&self, bytes: u64) {
        self.0.read_back.fetch_add(bytes, Relaxed);
        self.moved(bytes);
    }

    /// Counts bytes that passed by, written or only looked at: a sign of life for the watchdog.
    pub fn moved(&self, bytes: u64) {
        self.0.moved.fetch_add(bytes.max(1), Relaxed);
    }

    /// Counts bytes that are on their way.
    ///
    /// # Errors
    /// When the attempt must stop.
    pub fn go_on(&self, bytes: u64) -> io::Result<()> {
        self.moved(bytes);
        match self.stopped() {
            Some(_) => Err(io::Error::other("told to stop")),
            None => Ok(()),
        }
    }

    /// Returns the count of [`Self::moved`].
    pub fn movement(&self) -> u64 {
        self.0.moved.load(Relaxed)
    }

    /// Returns what was written.
    pub fn done(&self) -> Amount {
        Amount {
            documents: self.0.documents.load(Relaxed),
            files: self.0.files.load(Relaxed),
            bytes: self.0.bytes.load(Relaxed),
        }
    }

    /// Returns how far the attempt is, for a report: how fast it gets on is learned from one to the next.
    pub fn progress(&self) -> Progress {
        let done = self.done();
        let Some((whole, since)) = self.0.whole.get() else { return Progress { done, ..Progress::default() } };
        match whole {
            Whole::Snapshot(bytes) => forecast::of_import(done, *bytes, since.elapsed()),
            Whole::Cell(total) => {
                let document_bytes = self.0.document_bytes.load(Relaxed).min(done.bytes);
                let written = Written {
                    documents: done.documents,
                    document_bytes,
                    files: done.files,
                    file_bytes: done.bytes - document_bytes,
                    unread: self.0.packed.load(Relaxed).saturating_sub(self.0.read_back.load(Relaxed)),
                };
                let now = Instant::now();
                let documents = self.0.documents_read.get().unwrap_or(&now).saturating_duration_since(*since);
                let contents = self.0.contents_begun.get().map(Instant::elapsed);
                let mut lately = self.0.lately.lock().unwrap_or_else(PoisonError::into_inner);
                forecast::of_export(written, *total, Clock { documents, contents }, &mut lately)
            }
        }
    }
}
