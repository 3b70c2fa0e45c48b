//! Getting a cell in: reads a version-2 snapshot, checks it strictly, and stores it, all or nothing.
//!
//! First everything that needs no transaction: the archive's structure, the cell document, the file tree, and the
//! contents, which become blobs that no row names yet. Then one transaction for all rows. A load that fails removes
//! its blobs; one that is killed leaves them to the sweeper.

mod archive;
mod copy_out;
mod document;
mod error;
mod identity;
mod json_rules;
mod lines;
mod metered;
mod rows;
mod tree;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use indicatif::{ProgressBar, ProgressStyle};
use model::area::BlobStore;
use model::cell::{CellId, CellName};
use model::error_chain::Chain;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use error::LoadError;

use archive::Archive;
use identity::Identity;

/// What to load, and as what.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Name of the new cell.
    pub cell: CellName,
    /// Id of the new cell; the snapshot's own when absent.
    pub cell_id: Option<CellId>,
    /// Owner of the new cell; the snapshot's own when absent.
    pub owner: Option<String>,
    /// The snapshot.
    pub file: PathBuf,
    /// Directory of the blob store.
    pub blob_dir: PathBuf,
    /// Directory for temporary files.
    pub scratch_dir: PathBuf,
    /// The database.
    pub database: SecretString,
}

/// What was loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Documents.
    pub documents: u64,
    /// File contents.
    pub files: u64,
    /// Uncompressed bytes of both.
    pub bytes: u64,
}

/// What the parts of one load share.
#[derive(Debug, Clone)]
struct Shared {
    blobs: BlobStore,
    scratch: PathBuf,
    /// Blobs written so far, to be removed when the load fails.
    written: Arc<Mutex<Vec<Uuid>>>,
    stop: CancellationToken,
    bar: ProgressBar,
}

/// Loads a snapshot as a new cell.
///
/// # Errors
/// [`LoadError`]; nothing is stored then.
pub async fn load(options: LoadOptions, stop: CancellationToken) -> Result<Loaded, LoadError> {
    let blobs = BlobStore::open(&options.blob_dir).map_err(|e| LoadError::io("open the blob store", e))?;
    std::fs::create_dir_all(&options.scratch_dir).map_err(|e| LoadError::io("open the scratch directory", e))?;
    let shared = Shared {
        blobs: blobs.clone(),
        scratch: options.scratch_dir.clone(),
        written: Arc::default(),
        stop,
        bar: progress_bar(),
    };
    let written = Arc::clone(&shared.written);
    let bar = shared.bar.clone();
    let outcome = load_parts(options, shared).await;
    bar.finish_and_clear();
    if outcome.is_err() {
        let ids = std::mem::take(&mut *written.lock().unwrap_or_else(|e| e.into_inner()));
        for id in ids {
            if let Err(error) = blobs.remove(id).await {
                tracing::warn!(error = %Chain(&error), "cannot remove a blob, leaving it to the sweeper");
            }
        }
    }
    outcome
}

async fn load_parts(options: LoadOptions, shared: Shared) -> Result<Loaded, LoadError> {
    rows::check_free(&options.database, &options.cell, options.cell_id.as_ref()).await?;
    // Reading a zip blocks; the runtime is only needed for the blobs in between.
    let runtime = tokio::runtime::Handle::current();
    let preparing = {
        let (options, shared) = (options.clone(), shared.clone());
        move || {
            let mut archive = Archive::open(&options.file, shared.bar.clone(), shared.stop.clone())?;
            let cell = archive.cell_document()?;
            let identity = Identity::new(&cell, &options)?;
            let spool = tree::store(&mut archive, &shared, &identity, &runtime)?;
            Ok::<_, LoadError>((archive, identity, spool))
        }
    };
    let prepared = tokio::task::spawn_blocking(preparing).await.map_err(LoadError::internal)?;
    let (archive, identity, spool) = prepared?;
    rows::store(&options.database, archive, identity, spool, &shared).await
}

/// Shown on a terminal only.
fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
