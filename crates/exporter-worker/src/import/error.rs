//! What can go wrong while a snapshot is read into a cell.

use model::error_code::{ErrorBody, ErrorCode};
use model::limits;
use model::snapshot_file::Unfit;
use model::store::StoreError;

/// Why a snapshot was not stored.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The snapshot is not as it must be. Names the entry, and the line where there is one.
    #[error("{0}")]
    Faulty(String),
    /// It is no snapshot at all, or of a version that cannot be read: Personium has a code for it.
    #[error("{}", .0.message.value)]
    Refused(ErrorBody),
    /// Asked to stop.
    #[error("interrupted, nothing was stored")]
    Interrupted,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file or the blob store failed.
    #[error("cannot {doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl ImportError {
    /// A fault of the snapshot: `entry: what`.
    pub(super) fn entry(entry: &str, what: impl std::fmt::Display) -> Self {
        // A name may be longer than what is shown of a fault; its end tells most.
        let start = entry.char_indices().rev().nth(limits::FAULT_NAME).map_or(0, |(start, _)| start);
        let cut = if start > 0 { "…" } else { "" };
        Self::Faulty(format!("{cut}{}: {what}", entry[start..].escape_debug()))
    }

    /// A fault in a line of the snapshot: `entry:line: what`.
    pub(super) fn line(entry: &str, line: u64, what: impl std::fmt::Display) -> Self {
        Self::Faulty(format!("{entry}:{line}: {what}"))
    }

    pub(crate) fn io(doing: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Io { doing, source: source.into() }
    }

    /// A thread that panicked.
    pub(super) fn internal(error: tokio::task::JoinError) -> Self {
        Self::io("finish a thread of the import", error)
    }

    /// The error document of a snapshot that is at fault; nothing when something else failed.
    pub fn fault(&self) -> Option<ErrorBody> {
        match self {
            Self::Faulty(what) => {
                let shown: String = what.chars().take(limits::FAULT_TEXT).collect();
                Some(ErrorCode::SnapshotFaulty.with(&[&shown]))
            }
            Self::Refused(body) => Some(body.clone()),
            Self::Interrupted | Self::Store(_) | Self::Io { .. } => None,
        }
    }
}

impl From<Unfit> for ImportError {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Refused(_, body) => Self::Refused(body),
            Unfit::Io(error) => Self::io("read the snapshot", error),
        }
    }
}

/// The faults of a snapshot: an import ends with the first, a dry run goes on and lists them.
#[derive(Debug, Default)]
pub struct Faults {
    goes_on: bool,
    /// The first ones, in words.
    pub listed: Vec<String>,
    /// All of them.
    pub count: u64,
}

impl Faults {
    /// For an import.
    pub(super) fn ending_with_the_first() -> Self {
        Self::default()
    }

    /// For a dry run.
    pub(super) fn going_on() -> Self {
        Self { goes_on: true, ..Self::default() }
    }

    /// Takes note of a fault, and says whether to go on. Errors that are no faults of the snapshot end everything.
    pub(super) fn note(&mut self, error: ImportError) -> Result<(), ImportError> {
        let goes_on = self.goes_on && self.count < limits::FAULTS;
        if let (ImportError::Faulty(what), true) = (&error, goes_on) {
            self.add(what);
            return Ok(());
        }
        Err(error)
    }

    /// Passes a result on; a fault becomes nothing when it was taken note of.
    pub(super) fn or_note<T>(&mut self, result: Result<T, ImportError>) -> Result<Option<T>, ImportError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) => self.note(error).map(|()| None),
        }
    }

    /// Adds a fault that ended everything; other errors are no answer.
    pub(super) fn end_with(mut self, error: ImportError) -> Result<Self, ImportError> {
        match error.fault() {
            Some(_) => {
                self.add(&error.to_string());
                Ok(self)
            }
            None => Err(error),
        }
    }

    /// Adds one, in words.
    pub(super) fn add(&mut self, what: &str) {
        self.count += 1;
        if self.listed.len() < limits::FAULTS_LISTED {
            self.listed.push(what.chars().take(limits::FAULT_TEXT).collect());
        }
    }
}
