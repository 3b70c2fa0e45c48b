//! What can go wrong with a load, and what a script learns from it.

use model::store::StoreError;

/// Why nothing was loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The snapshot is not as it must be. Names the entry, and the line where there is one.
    #[error("{0}")]
    BadInput(String),
    /// The name or the id is taken.
    #[error("{0}")]
    Exists(String),
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

impl LoadError {
    /// A fault of the snapshot: `entry: what`.
    pub(super) fn entry(entry: &str, what: impl std::fmt::Display) -> Self {
        Self::BadInput(format!("{}: {what}", entry.escape_debug()))
    }

    /// A fault in a line of the snapshot: `entry:line: what`.
    pub(super) fn line(entry: &str, line: u64, what: impl std::fmt::Display) -> Self {
        Self::BadInput(format!("{entry}:{line}: {what}"))
    }

    pub(super) fn io(doing: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Io { doing, source: source.into() }
    }

    pub(super) fn internal(error: tokio::task::JoinError) -> Self {
        Self::io("finish a thread of the load", error)
    }

    /// The process's exit code: 2 for bad input, 3 for a cell that exists, 130 when interrupted, otherwise 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::BadInput(_) => 2,
            Self::Exists(_) => 3,
            Self::Interrupted => 130,
            Self::Store(_) | Self::Io { .. } => 1,
        }
    }
}
