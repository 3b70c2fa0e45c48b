//! The snapshot area and the blob store: where bytes lie, and under which keys.
//!
//! Both hold write-once objects that nobody can reach before a row names them. Keys come from the enums here and are
//! made of ids only; no text of a client ever becomes part of a path. Which storage it is, a directory or a bucket, is a
//! setting: `tests/storage.rs` shows that nobody can tell the difference.

use std::io;

use bytes::Bytes;
use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use object_store::path::Path as ObjectPath;

mod blobs;
mod bucket;
mod directory;
mod key;
mod objects;
mod part;
mod random_access;
mod snapshots;

pub use blobs::BlobStore;
pub use key::{SnapshotKey, blob_key};
pub use objects::{Moved, Objects};
pub use part::Part;
pub use random_access::ObjectFile;
pub use snapshots::{OldSnapshot, SnapshotArea};

use crate::limits;

/// A stream of pieces.
pub type Pieces = BoxStream<'static, Result<Bytes, object_store::Error>>;

/// Bounds the wait for the next piece of a stream.
pub async fn next_piece(pieces: &mut Pieces) -> Result<Option<Bytes>, object_store::Error> {
    tokio::time::timeout(limits::READ_STALL, pieces.try_next()).await.map_err(|_| timed_out())?
}

fn timed_out() -> object_store::Error {
    generic(io::ErrorKind::TimedOut.into())
}

/// A file that is not there is told like an object that is not there.
fn opening(key: &ObjectPath, error: io::Error) -> object_store::Error {
    if error.kind() == io::ErrorKind::NotFound {
        return object_store::Error::NotFound { path: key.to_string(), source: Box::new(error) };
    }
    generic(error)
}

fn generic(error: io::Error) -> object_store::Error {
    object_store::Error::Generic { store: "area", source: Box::new(error) }
}
