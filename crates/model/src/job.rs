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

impl Progress {
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
    fn percent_is_rounded_down_and_never_a_hundred() {
        for (share, percent) in [(0.0, 0), (0.999, 99), (1.0, 99), (0.509, 50)] {
            assert_eq!(Progress { share, ..Progress::default() }.percent(), percent);
        }
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
