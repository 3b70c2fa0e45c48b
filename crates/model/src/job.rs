//! Jobs: states, progress, and the decisions about them that need no database.

use std::time::Duration;

use serde::Deserialize;

use crate::limits;

/// States of a job, as stored. The transitions are in ARCHITECTURE.md, "States of a job".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// Waits for a worker, also between two attempts.
    Queued,
    /// A worker holds the lease.
    Running,
    /// Final: `NAME.zip` is listed.
    Succeeded,
    /// Final: `NAME.error` is listed.
    Failed,
    /// Final on request: `NAME.error` is listed.
    Cancelled,
}

impl JobState {
    /// All states.
    pub const ALL: [Self; 5] = [Self::Queued, Self::Running, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// The state's name in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Returns the state of a name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }

    /// Tells whether no transition leads out of this state.
    pub fn is_final(self) -> bool {
        match self {
            Self::Queued | Self::Running => false,
            Self::Succeeded | Self::Failed | Self::Cancelled => true,
        }
    }
}

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobKind {
    /// Cell to snapshot.
    Export,
    /// Snapshot to cell.
    Import,
    /// What an import would do; changes nothing.
    DryRun,
}

impl JobKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Export, Self::Import, Self::DryRun];

    /// The kind's name in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Export => "export",
            Self::Import => "import",
            Self::DryRun => "dry-run",
        }
    }

    /// Returns the kind of a name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.name() == name)
    }

    /// What messages call it.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Export => "export",
            Self::Import => "import",
            Self::DryRun => "dry run",
        }
    }

    /// What Personium's messages call the work that keeps a cell busy.
    pub fn activity(self) -> &'static str {
        match self {
            Self::Export => "cell export",
            Self::Import | Self::DryRun => "cell import",
        }
    }
}

/// What an attempt has done, and what it will have done in the end.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Progress {
    /// Done so far.
    pub done: Amount,
    /// In the end; nothing before it has been counted. Bytes are an estimate.
    pub total: Option<Amount>,
    /// How much of the time that the attempt needs is behind it, 0 to 1.
    pub share: f64,
    /// How long it still takes, if that can be told.
    pub remaining: Option<Duration>,
}

/// An amount of work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Documents.
    pub documents: u64,
    /// File contents.
    pub files: u64,
    /// Uncompressed bytes.
    pub bytes: u64,
}

/// What an export costs, in nanoseconds of the machine on which `deploy/bench` measured it. Only what these say of each
/// other matters.
mod cost {
    pub(super) const DOCUMENT: f64 = 800.0;
    pub(super) const DOCUMENT_BYTE: f64 = 3.4;
    pub(super) const FILE: f64 = 66_000.0;
    pub(super) const FILE_BYTE: f64 = 1.8;
    /// Length of a document before there was one.
    pub(super) const USUAL_DOCUMENT: f64 = 600.0;
    /// The end, when all is written: the last file is read back, the directory is proved, all is made durable.
    pub(super) const END_FILE: f64 = 15_000.0;
    pub(super) const END_BYTE: f64 = 1.2;
    /// As a share of the rest.
    pub(super) const END: f64 = 0.04;
}

/// What an export has written, documents and contents apart: they do not cost the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Documents.
    pub documents: u64,
    /// Their bytes.
    pub document_bytes: u64,
    /// File contents.
    pub files: u64,
    /// Their bytes.
    pub file_bytes: u64,
}

impl Written {
    /// How far an export of a cell is that holds `total`: documents, and files with their bytes. How long documents are is
    /// only known of those that were written, and taken to be so for the rest.
    pub fn progress(&self, total: Option<Amount>) -> Progress {
        let done =
            Amount { documents: self.documents, files: self.files, bytes: self.document_bytes + self.file_bytes };
        let Some(total) = total else { return Progress { done, ..Progress::default() } };
        let length = match self.documents {
            0 => cost::USUAL_DOCUMENT,
            documents => self.document_bytes as f64 / documents as f64,
        };
        let cost = |documents: u64, files: u64, file_bytes: u64| {
            documents as f64 * (cost::DOCUMENT + cost::DOCUMENT_BYTE * length)
                + files as f64 * cost::FILE
                + file_bytes as f64 * cost::FILE_BYTE
        };
        let whole = cost(total.documents, total.files, total.bytes);
        let behind = cost(self.documents, self.files, self.file_bytes);
        let last = total.bytes as f64 / total.files.max(1) as f64;
        let end = whole * cost::END + total.files as f64 * cost::END_FILE + last * cost::END_BYTE;
        let share = if whole > 0.0 { behind.min(whole) / (whole + end) } else { 0.0 };
        let bytes = (total.documents as f64 * length) as u64 + total.bytes;
        Progress { done, total: Some(Amount { bytes: bytes.max(done.bytes), ..total }), share, remaining: None }
    }
}

impl Progress {
    /// The progress of an import: bytes of its snapshot, because nobody counted its documents beforehand.
    pub fn of_import(done: Amount, total: Option<Amount>) -> Self {
        let share = match total {
            Some(total) if total.bytes > 0 => (done.bytes as f64 / total.bytes as f64).clamp(0.0, 1.0),
            Some(_) | None => 0.0,
        };
        Self { done, total, share, remaining: None }
    }

    /// The same, so long after the work began: what is left takes as long for its share as what is behind.
    pub fn after(self, elapsed: Duration) -> Self {
        let left = elapsed.as_secs_f64() * (1.0 - self.share) / self.share;
        // Nothing is known of what has hardly begun, and nobody waits for so long.
        let remaining = Duration::try_from_secs_f64(left).ok().filter(|left| *left <= limits::DEADLINE);
        Self { remaining, ..self }
    }

    /// The share in percent, rounded down and never 100: only what is visible is finished.
    pub fn percent(&self) -> u8 {
        ((self.share * 100.0) as u8).min(99)
    }
}

/// What the reaper does with a job whose lease or deadline has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaping {
    /// Somebody asked for it: final, cancelled.
    Cancel,
    /// Its time is up: final, failed.
    PastDeadline,
    /// It was interrupted too often: final, failed.
    OutOfStrikes,
    /// Back to the queue with one strike more, after a pause.
    Requeue(Duration),
}

impl Reaping {
    /// Decides. `past_deadline` is the database's word; `strikes` are those before this one.
    pub fn decide(cancel_requested: bool, past_deadline: bool, strikes: i32, max_strikes: i32) -> Self {
        if cancel_requested {
            Self::Cancel
        } else if past_deadline {
            Self::PastDeadline
        } else if strikes + 1 >= max_strikes {
            Self::OutOfStrikes
        } else {
            Self::Requeue(Duration::from_secs(1 << strikes.clamp(0, 6)))
        }
    }
}

/// Pause after the `strikes`-th failure: [`limits::BACKOFF`] doubled each time, full jitter, bounded.
pub fn backoff(strikes: i32) -> Duration {
    let longest = limits::BACKOFF.saturating_mul(1 << strikes.clamp(0, 16)).min(limits::BACKOFF_MAX);
    longest.mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_grows_with_what_is_written_and_never_reaches_a_hundred() {
        let total = Amount { documents: 100_000, files: 10, bytes: 100_000_000 };
        let mut written = Written::default();
        assert_eq!(written.progress(None).percent(), 0);
        assert_eq!(written.progress(Some(Amount::default())).percent(), 0);
        let mut last = 0;
        for step in 1..=20u64 {
            match step {
                1..=10 => (written.documents, written.document_bytes) = (step * 10_000, step * 6_000_000),
                _ => (written.files, written.file_bytes) = (step - 10, (step - 10) * 10_000_000),
            }
            let progress = written.progress(Some(total));
            assert!(progress.percent() > last, "step {step}: {progress:?}");
            last = progress.percent();
        }
        assert!((90..100).contains(&last), "{last}");
        let more = Written { documents: 500_000, ..written };
        assert!((90..100).contains(&more.progress(Some(total)).percent()), "more than was counted");
    }

    #[test]
    fn the_total_of_bytes_follows_from_the_documents_so_far() {
        let total = Some(Amount { documents: 100, files: 1, bytes: 1_000 });
        let written = Written { documents: 10, document_bytes: 7_000, ..Written::default() };
        let progress = written.progress(total);
        assert_eq!((progress.done.bytes, progress.total.map(|t| t.bytes)), (7_000, Some(71_000)));
    }

    #[test]
    fn the_rest_takes_as_long_as_what_was() {
        let seconds = Duration::from_secs_f64;
        for (share, elapsed, expected) in
            [(0.25, 10.0, Some(30.0)), (1.0, 10.0, Some(0.0)), (0.0, 10.0, None), (0.0, 0.0, None), (1e-9, 10.0, None)]
        {
            let progress = Progress { share, ..Progress::default() };
            assert_eq!(progress.after(seconds(elapsed)).remaining, expected.map(seconds), "{share} after {elapsed} s");
        }
    }

    #[test]
    fn an_import_is_as_far_as_the_bytes_of_its_snapshot() {
        let bytes = |bytes| Amount { documents: 7, files: 7, bytes };
        assert_eq!(Progress::of_import(bytes(50), Some(bytes(100))).percent(), 50);
        assert_eq!(Progress::of_import(bytes(100), Some(bytes(100))).percent(), 99);
        assert_eq!(Progress::of_import(bytes(9), Some(bytes(0))).percent(), 0);
        assert_eq!(Progress::of_import(bytes(9), None).percent(), 0);
    }

    #[test]
    fn reaping_prefers_the_users_wish_then_the_clock_then_the_budget() {
        assert_eq!(Reaping::decide(true, true, 9, 4), Reaping::Cancel);
        assert_eq!(Reaping::decide(false, true, 0, 4), Reaping::PastDeadline);
        assert_eq!(Reaping::decide(false, false, 3, 4), Reaping::OutOfStrikes);
        assert_eq!(Reaping::decide(false, false, 2, 4), Reaping::Requeue(Duration::from_secs(4)));
        assert_eq!(Reaping::decide(false, false, 0, 1), Reaping::OutOfStrikes);
    }

    #[test]
    fn backoff_is_bounded() {
        for strikes in [0, 3, 30, i32::MAX] {
            assert!(backoff(strikes) <= limits::BACKOFF_MAX);
        }
    }

    #[test]
    fn states_have_names_and_three_are_final() {
        for state in JobState::ALL {
            assert_eq!(JobState::parse(state.name()), Some(state));
        }
        for kind in JobKind::ALL {
            assert_eq!(JobKind::parse(kind.name()), Some(kind));
        }
        assert_eq!(JobState::ALL.iter().filter(|s| s.is_final()).count(), 3);
    }
}
