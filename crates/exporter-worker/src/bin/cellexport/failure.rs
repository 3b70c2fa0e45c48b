//! Why a command did not do what it was asked, and the exit code that tells programs.

use std::fmt;
use std::process::ExitCode;

use crate::terminal::shown;

/// The exit codes; `docs/cellexport.md` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Anything else.
    Other = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// The job failed, or was cancelled.
    JobFailed = 3,
    /// There is no such cell, snapshot, job, file or entry.
    NotFound = 4,
    /// The token is missing, wrong or not enough.
    NotAllowed = 5,
    /// Something is in the way: another job, a file of that name, a file that was replaced.
    Conflict = 6,
    /// The server or the network cannot be reached, after several tries.
    Unavailable = 7,
    /// The file is damaged, or no snapshot.
    Faulty = 8,
    /// Interrupted by a signal.
    Interrupted = 130,
}

impl Exit {
    /// What an answer with an error status comes to.
    pub(crate) fn of_status(status: u16) -> Self {
        match status {
            404 | 410 => Self::NotFound,
            401 | 403 => Self::NotAllowed,
            409 | 412 | 422 => Self::Conflict,
            429 | 502..=504 => Self::Unavailable,
            _ => Self::Other,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why, in one line.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    text: String,
    next: Option<String>,
}

impl Failure {
    /// A failure in words.
    pub(crate) fn new(exit: Exit, text: impl fmt::Display) -> Self {
        Self { exit, text: text.to_string(), next: None }
    }

    /// Something that cannot be done on this machine: `cannot write FILE: no space left`.
    pub(crate) fn cannot(what: impl fmt::Display, error: impl fmt::Display) -> Self {
        Self::new(Exit::Other, format!("cannot {what}: {error}"))
    }

    /// Says what to do next.
    pub(crate) fn next(mut self, what: impl fmt::Display) -> Self {
        self.next = Some(what.to_string());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.text))?;
        match &self.next {
            Some(next) => write!(f, "; {}", shown(next)),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}
