//! Why an attempt failed, and what is to be done about it. Decided where the meaning is known, never guessed later.

use std::any::Any;
use std::io;

use model::error_code::{ErrorBody, ErrorCode};
use model::store::{FaultClass, StoreError};
use tokio::task::JoinError;

use crate::control::{Control, StopReason};
use crate::import::ImportError;

/// What is to be done after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Try again after a pause; it counts against the budget.
    Retry,
    /// Try again when there is space; it does not count.
    Wait,
    /// Trying again cannot help: the job ends.
    Fail,
    /// The attempt was told to stop.
    Stop(StopReason),
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A failed attempt: what to do, what to tell the user, and the cause for the log.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Failure {
    /// What is to be done.
    pub decision: Decision,
    /// What the user reads in `NAME.error` if the job ends with this.
    pub error: ErrorBody,
    #[source]
    cause: Option<Cause>,
}

impl Failure {
    fn new(decision: Decision, error: ErrorBody, cause: Option<Cause>) -> Self {
        Self { decision, error, cause }
    }

    /// The attempt was told to stop. What the user reads then depends on the kind of job, and is said where it is known.
    pub fn stopped(reason: StopReason) -> Self {
        Self::new(Decision::Stop(reason), ErrorCode::Unknown.body(), None)
    }

    /// An import failed.
    pub fn import(error: ImportError, control: &Control) -> Self {
        if let Some(fault) = error.fault() {
            return Self::new(Decision::Fail, fault, Some(Box::new(error)));
        }
        if is_full(&error) {
            return Self::disk_full();
        }
        match error {
            // Without a reason to stop, the generation was given up: another attempt owns the job.
            ImportError::Interrupted => Self::stopped(control.stopped().unwrap_or(StopReason::Lost)),
            ImportError::Store(error) => Self::store(error),
            other @ (ImportError::Io { .. } | ImportError::Faulty(_) | ImportError::Refused(_)) => {
                Self::new(Decision::Retry, ErrorCode::FilesIo.with(&["import snapshot file"]), Some(other.into()))
            }
        }
    }

    /// The cell was deleted after the request was accepted.
    pub fn cell_gone() -> Self {
        Self::new(Decision::Fail, ErrorCode::CellNotFound.body(), None)
    }

    /// The database failed.
    pub fn store(error: StoreError) -> Self {
        let (decision, code) = match error.class() {
            FaultClass::Transient => (Decision::Retry, ErrorCode::DatastoreConnection),
            FaultClass::DiskFull => (Decision::Wait, ErrorCode::DiskFull),
            FaultClass::Permanent => (Decision::Fail, ErrorCode::DatastoreUnknown),
        };
        Self::new(decision, code.body(), Some(Box::new(error)))
    }

    /// Reading or writing a file of ours failed. `doing` goes into the message.
    pub fn io(doing: &str, error: io::Error) -> Self {
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return Self::new(Decision::Wait, ErrorCode::DiskFull.body(), Some(Box::new(error)));
        }
        Self::new(Decision::Retry, ErrorCode::FilesIo.with(&[doing]), Some(Box::new(error)))
    }

    /// Moving bytes here or there failed, perhaps because the attempt was told to stop.
    pub fn moving(doing: &str, error: io::Error, control: &Control) -> Self {
        match control.stopped() {
            Some(reason) => Self::stopped(reason),
            None => Self::io(doing, error),
        }
    }

    /// The area has no space for another snapshot.
    pub fn disk_full() -> Self {
        Self::io("create snapshot file", io::ErrorKind::StorageFull.into())
    }

    /// The contents of a file of the cell cannot be had. Tried again a few times: a mount may be away.
    pub fn content(path: &str, error: impl Into<Cause>) -> Self {
        let doing = format!("add webdav data to snapshot file: {path}");
        Self::new(Decision::Retry, ErrorCode::FilesIo.with(&[&doing]), Some(error.into()))
    }

    /// The contents of a file of the cell are not what the cell says they are.
    pub fn content_differs(path: &str) -> Self {
        let cause = format!("{path}: length or SHA-256 differs from what was stored");
        Self::new(Decision::Retry, ErrorCode::FileSystemInconsistent.body(), Some(cause.into()))
    }

    /// A node's metadata is not JSON.
    pub fn pmeta(path: &str, error: serde_json::Error) -> Self {
        let cause = Unreadable { path: path.to_owned(), source: error };
        Self::new(Decision::Fail, ErrorCode::DavInconsistent.body(), Some(Box::new(cause)))
    }

    /// The snapshot was written but does not read back as it should.
    pub fn unproved(what: String) -> Self {
        Self::new(Decision::Retry, ErrorCode::FilesIo.with(&["verify snapshot file"]), Some(what.into()))
    }

    /// The zip library refused.
    pub fn zip(doing: &str, error: zip::result::ZipError) -> Self {
        if let zip::result::ZipError::Io(error) = error {
            return Self::io(doing, error);
        }
        Self::new(Decision::Retry, ErrorCode::FilesIo.with(&[doing]), Some(Box::new(error)))
    }

    /// A fault of this program.
    pub fn internal(what: String) -> Self {
        Self::new(Decision::Retry, ErrorCode::Unknown.body(), Some(what.into()))
    }

    /// A thread panicked. Its text is for the log.
    pub fn panicked(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Self::internal(format!("panic: {}", text.unwrap_or("no text")))
    }

    /// A task panicked, or was given up.
    pub fn task(error: JoinError) -> Self {
        match error.try_into_panic() {
            Ok(panic) => Self::panicked(panic.as_ref()),
            Err(error) => Self::internal(error.to_string()),
        }
    }
}

/// A node whose metadata cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{path}: unreadable .pmeta")]
struct Unreadable {
    path: String,
    source: serde_json::Error,
}

/// Tells whether a full disk is among the causes.
fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let kinds = causes.filter_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    kinds.into_iter().any(|kind| matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_waits_and_other_faults_strike() {
        assert_eq!(Failure::disk_full().decision, Decision::Wait);
        assert_eq!(Failure::disk_full().error.code, "PR503-SV-0005");
        let io = Failure::io("create snapshot file", io::ErrorKind::PermissionDenied.into());
        assert_eq!((io.decision, io.error.code.as_str()), (Decision::Retry, "PR500-CM-0002"));
        assert_eq!(Failure::cell_gone().decision, Decision::Fail);
    }

    #[test]
    fn the_cause_never_reaches_the_user() {
        let failure = Failure::content("__/a.txt", "/var/secret/place: no such file");
        assert!(!failure.error.to_json().contains("secret"));
        assert!(failure.error.message.value.contains("__/a.txt"));
    }
}
