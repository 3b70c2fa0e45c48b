//! Rows on their way to the database, in batches: the thread that reads the snapshot fills them, a task writes them.

use tokio::sync::mpsc;

use super::copy_out::CopyBuffer;
use super::error::ImportError;
use model::limits;

/// Rows of one table as a whole COPY stream.
pub(super) struct Batch {
    pub(super) copy: &'static str,
    pub(super) stream: Vec<u8>,
}

/// The rows of one table that wait for each other.
pub(super) struct Rows {
    copy: &'static str,
    buffer: CopyBuffer,
    empty: bool,
}

impl Rows {
    /// `copy` is the statement that takes them: `COPY … FROM STDIN (FORMAT binary)`.
    pub(super) fn of(copy: &'static str) -> Self {
        Self { copy, buffer: CopyBuffer::new(), empty: true }
    }

    /// Adds a row; `None` is NULL.
    pub(super) fn add(&mut self, fields: &[Option<&[u8]>]) {
        self.buffer.row(fields);
        self.empty = false;
    }

    /// Tells whether it is time to send them.
    pub(super) fn are_many(&self) -> bool {
        self.buffer.len() >= limits::COPY_BATCH
    }

    /// Sends what waits when it is time.
    pub(super) fn send_when_many(&mut self, to: &mpsc::Sender<Batch>) -> Result<(), ImportError> {
        if self.are_many() { self.send(to) } else { Ok(()) }
    }

    /// Sends what waits.
    pub(super) fn send(&mut self, to: &mpsc::Sender<Batch>) -> Result<(), ImportError> {
        if self.empty {
            return Ok(());
        }
        self.empty = true;
        let stream = std::mem::replace(&mut self.buffer, CopyBuffer::new()).end();
        // Who does not take them any more has failed, and its error is the one that counts.
        to.blocking_send(Batch { copy: self.copy, stream }).map_err(|_| ImportError::Interrupted)
    }
}
