//! What the parts of one attempt share: how far it is, and whether it must stop.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use model::job::{Amount, Progress};
use model::limits;
use tokio_util::sync::CancellationToken;

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

/// Shared state of one attempt. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Control(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    stop: CancellationToken,
    reason: OnceLock<StopReason>,
    total: OnceLock<Amount>,
    documents: AtomicU64,
    files: AtomicU64,
    bytes: AtomicU64,
    moved: AtomicU64,
}

impl Control {
    /// Asks all parts to stop. The first reason counts.
    pub fn stop(&self, reason: StopReason) {
        if self.0.reason.set(reason).is_ok() {
            self.0.stop.cancel();
        }
    }

    /// Returns why to stop, if so.
    pub fn stopped(&self) -> Option<StopReason> {
        self.0.reason.get().copied()
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

    /// Says what the cell holds, once it is known.
    pub fn set_total(&self, total: Amount) {
        let _ = self.0.total.set(total);
    }

    /// Counts what was written.
    pub fn wrote(&self, amount: Amount) {
        self.0.documents.fetch_add(amount.documents, Relaxed);
        self.0.files.fetch_add(amount.files, Relaxed);
        self.0.bytes.fetch_add(amount.bytes, Relaxed);
        self.moved(amount.bytes);
    }

    /// Counts bytes that passed by, written or only looked at: a sign of life for the watchdog.
    pub fn moved(&self, bytes: u64) {
        self.0.moved.fetch_add(bytes.max(1), Relaxed);
    }

    /// Returns the count of [`Self::moved`].
    pub fn movement(&self) -> u64 {
        self.0.moved.load(Relaxed)
    }

    /// Returns how far the attempt is.
    pub fn progress(&self) -> Progress {
        let done = Amount {
            documents: self.0.documents.load(Relaxed),
            files: self.0.files.load(Relaxed),
            bytes: self.0.bytes.load(Relaxed),
        };
        Progress { done, total: self.0.total.get().copied() }
    }
}
