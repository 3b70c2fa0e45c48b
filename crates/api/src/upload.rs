//! Receiving an upload: pieces from the connection go through a bounded channel to a thread that writes them.
//!
//! The threads that answer requests serve many connections each and must never wait for a disk. Whatever ends an upload
//! before its end, a client that is gone included, closes the channel, and the thread removes what it wrote.

use std::io::{self, Write};
use std::time::Duration;

use actix_web::web::{Bytes, Payload};
use futures_util::StreamExt;
use model::area::{SnapshotArea, SnapshotKey};
use model::limits;
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::config::UploadSettings;

/// What the thread is told.
enum Piece {
    Bytes(Bytes),
    /// All was sent. Without it the file is thrown away.
    End,
}

/// A file that is complete and durable, and that no row names yet.
#[derive(Debug)]
pub(crate) struct Received {
    /// Key in the snapshot area.
    pub(crate) key: String,
    /// Length in bytes.
    pub(crate) size: u64,
    /// SHA-256.
    pub(crate) sha256: [u8; 32],
}

/// Why an upload was given up. Nothing is left of it.
#[derive(Debug)]
pub(crate) enum UploadError {
    /// Longer than a snapshot may be.
    TooLong,
    /// Longer than what the cell's quota leaves.
    Quota,
    /// Nothing came for a while, or too little.
    TooSlow,
    /// The connection broke.
    Broken,
    /// The volume has come to its reserve.
    DiskFull,
    /// The file cannot be written.
    Io(io::Error),
}

impl From<io::Error> for UploadError {
    fn from(error: io::Error) -> Self {
        let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        if is_full { Self::DiskFull } else { Self::Io(error) }
    }
}

/// An upload on its way.
pub(crate) struct Upload {
    pieces: mpsc::Sender<Piece>,
    outcome: oneshot::Receiver<Result<Received, UploadError>>,
}

impl Upload {
    /// Starts the thread that writes.
    pub(crate) fn begin(area: &SnapshotArea) -> Result<Self, UploadError> {
        let (pieces, arriving) = mpsc::channel(limits::PIECES_WAITING);
        let (done, outcome) = oneshot::channel();
        let area = area.clone();
        std::thread::Builder::new().name("upload".to_owned()).spawn(move || {
            // Nothing: the upload was given up, and nobody waits.
            if let Some(result) = write(&area, arriving).transpose() {
                let _ = done.send(result);
            }
        })?;
        Ok(Self { pieces, outcome })
    }

    /// Takes the body to its end. `room` is what the cell's quota leaves.
    pub(crate) async fn receive(
        &mut self,
        payload: &mut Payload,
        settings: &UploadSettings,
        room: u64,
    ) -> Result<(), UploadError> {
        let until = Instant::now() + limits::UPLOAD_TOTAL;
        let mut pace = Pace::of(settings);
        let mut size = 0;
        loop {
            let begun = Instant::now();
            let next = timeout_at(until.min(begun + pace.patience()), payload.next()).await;
            let piece = match next {
                Ok(None) => return Ok(()),
                Ok(Some(Err(_))) => return Err(UploadError::Broken),
                Ok(Some(Ok(piece))) => piece,
                Err(_) => Bytes::new(),
            };
            if !pace.keeps(begun.elapsed(), piece.len() as u64) || Instant::now() >= until {
                return Err(UploadError::TooSlow);
            }
            if piece.is_empty() {
                continue;
            }
            size += piece.len() as u64;
            if size > settings.longest {
                return Err(UploadError::TooLong);
            }
            if size > room {
                return Err(UploadError::Quota);
            }
            match timeout_at(until, self.pieces.send(Piece::Bytes(piece))).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(self.ended().await),
                Err(_) => return Err(UploadError::TooSlow),
            }
        }
    }

    /// Makes what was received durable.
    pub(crate) async fn finish(mut self) -> Result<Received, UploadError> {
        if self.pieces.send(Piece::End).await.is_err() {
            return Err(self.ended().await);
        }
        (&mut self.outcome).await.unwrap_or_else(|_| Err(panicked()))
    }

    /// Why the thread ended before it was told to.
    async fn ended(&mut self) -> UploadError {
        match (&mut self.outcome).await {
            Ok(Err(error)) => error,
            Ok(Ok(_)) | Err(_) => panicked(),
        }
    }
}

fn panicked() -> UploadError {
    UploadError::Io(io::Error::other("the writing thread ended"))
}

/// Writes what arrives; nothing when the channel was closed before the end.
fn write(area: &SnapshotArea, mut arriving: mpsc::Receiver<Piece>) -> Result<Option<Received>, UploadError> {
    let key = SnapshotKey::for_upload();
    let part = area.create_part(&key)?;
    let mut file = part.writer()?;
    let (mut hash, mut size, mut unflushed) = (Sha256::new(), 0, 0);
    loop {
        match arriving.blocking_recv() {
            None => return Ok(None),
            Some(Piece::End) => break,
            Some(Piece::Bytes(bytes)) => {
                file.write_all(&bytes)?;
                hash.update(&bytes);
                size += bytes.len() as u64;
                unflushed += bytes.len() as u64;
            }
        }
        if unflushed >= limits::FLUSH_BYTES {
            unflushed = 0;
            file.sync_data()?;
            if area.free()? == 0 {
                return Err(UploadError::DiskFull);
            }
        }
    }
    drop(file);
    part.publish(&mut |_| Ok(()))?;
    Ok(Some(Received { key: key.text(), size, sha256: hash.finalize().into() }))
}

/// Whether a client is fast enough. Only the time that is spent waiting for the client counts: it is not to blame for
/// a slow disk.
#[derive(Debug)]
struct Pace {
    idle: Duration,
    window: Duration,
    /// Bytes that must come in each window.
    least: u64,
    /// Waited since the last piece.
    silent: Duration,
    /// Waited in this window.
    waited: Duration,
    /// Came in this window.
    bytes: u64,
}

impl Pace {
    fn of(settings: &UploadSettings) -> Self {
        let share = settings.window.as_secs_f64() / limits::UPLOAD_WINDOW.as_secs_f64();
        Self {
            idle: settings.idle,
            window: settings.window,
            least: (limits::UPLOAD_WINDOW_BYTES as f64 * share) as u64,
            silent: Duration::ZERO,
            waited: Duration::ZERO,
            bytes: 0,
        }
    }

    /// How long to wait for the next piece before judging anew.
    fn patience(&self) -> Duration {
        self.idle.saturating_sub(self.silent).min(self.window.saturating_sub(self.waited))
    }

    /// Takes note of a wait and of what it brought; `false` when that is too little.
    fn keeps(&mut self, waited: Duration, bytes: u64) -> bool {
        self.silent = if bytes > 0 { Duration::ZERO } else { self.silent + waited };
        self.waited += waited;
        self.bytes += bytes;
        if self.silent >= self.idle {
            return false;
        }
        if self.waited < self.window {
            return true;
        }
        let enough = self.bytes >= self.least;
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(idle: u64, window: u64) -> Pace {
        let (idle, window) = (Duration::from_secs(idle), Duration::from_secs(window));
        Pace::of(&UploadSettings { longest: 0, cell_quota: 0, idle, window })
    }

    #[test]
    fn silence_ends_an_upload() {
        let mut pace = pace(15, 30);
        let second = Duration::from_secs(1);
        assert!(pace.keeps(14 * second, 1 << 30));
        assert_eq!(pace.patience(), 15 * second, "a piece ends the silence");
        assert!(pace.keeps(10 * second, 0));
        assert_eq!(pace.patience(), 5 * second);
        assert!(!pace.keeps(5 * second, 0));
    }

    #[test]
    fn the_end_of_a_window_is_no_end_of_a_silence() {
        let mut pace = pace(15, 30);
        let second = Duration::from_secs(1);
        assert!(pace.keeps(14 * second, 1 << 30));
        assert!(pace.keeps(10 * second, 1));
        assert_eq!(pace.patience(), 6 * second, "to the end of the window");
        assert!(pace.keeps(6 * second, 0), "enough came");
        assert_eq!(pace.patience(), 9 * second);
        assert!(!pace.keeps(9 * second, 0));
    }

    #[test]
    fn a_trickle_ends_an_upload() {
        let mut pace = pace(15, 30);
        for second in 1..=30 {
            let kept = pace.keeps(Duration::from_secs(1), 65_535);
            assert_eq!(kept, second < 30, "{second}");
        }
        let mut fast = self::pace(15, 30);
        assert!((1..=3000).all(|_| fast.keeps(Duration::from_secs(1), 65_536)));
    }
}
