//! Removes files that no row names: of attempts that were lost, and of loads that were killed.
//!
//! Any number of processes may sweep at once. "Garbage" is a lasting property: attempts and blob ids are never used
//! twice, so what may be removed once may always be removed.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use model::area::{BlobStore, SnapshotArea, SnapshotKey};
use model::error_chain::Chain;
use model::failpoint;
use model::limits;
use model::store::{StoreError, jobs};
use sqlx::PgPool;
use tokio::time::sleep;
use uuid::Uuid;

use crate::source::postgres::unnamed_blobs;

/// Sweeps every [`limits::SWEEP`], the first time soon after the start. Never returns.
pub async fn sweep_for_ever(pool: PgPool, area: SnapshotArea, blobs: BlobStore) {
    loop {
        sleep(limits::SWEEP.mul_f64(0.1 + 0.9 * fastrand::f64())).await;
        match sweep(&pool, &area, &blobs, limits::SWEEP_AGE, limits::SWEEP_BLOB_AGE).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "swept files that no row names"),
            Err(error) => tracing::warn!(error = %Chain(error.as_ref()), "sweeping stopped early"),
        }
    }
}

/// Sweeps once; returns how many files went. Files younger than the given ages stay.
pub async fn sweep(
    pool: &PgPool,
    area: &SnapshotArea,
    blobs: &BlobStore,
    age: Duration,
    blob_age: Duration,
) -> Result<usize, Box<dyn std::error::Error + Send + Sync>> {
    let mut removed = 0;
    let old = |path: &Path, age| Ok::<_, io::Error>(modified(path)? + age < SystemTime::now());
    for directory in children(&area.snapshots_directory())? {
        for file in children(&directory)? {
            let (Some(job), Some(name)) = (file_name(&directory), file_name(&file)) else { continue };
            let Some(key) = SnapshotKey::parse(job, name) else { continue };
            let mut connection = pool.acquire().await.map_err(StoreError::doing("connect"))?;
            if old(&file, age).unwrap_or(false)
                && jobs::blob_is_garbage(&mut connection, key.job, key.attempt, &key.text()).await?
            {
                std::fs::remove_file(&file)?;
                failpoint::reached("sweeper.unlinked");
                removed += 1;
            }
        }
        // Only an empty directory goes; a worker that is about to use it makes it again.
        if old(&directory, age).unwrap_or(false) {
            let _ = std::fs::remove_dir(&directory);
        }
    }
    for directory in children(&blobs.blobs_directory())? {
        let aged = children(&directory)?.into_iter().filter(|f| old(f, blob_age).unwrap_or(false));
        // The storage library's own staging files carry '#' in their names.
        let (staged, files): (Vec<_>, Vec<_>) = aged.partition(|f| file_name(f).is_some_and(|n| n.contains('#')));
        let ids: Vec<Uuid> = files.iter().filter_map(|f| Uuid::try_parse(file_name(f)?).ok()).collect();
        for id in unnamed_blobs(pool, &ids).await? {
            if is_condemned(&blobs.file(id))? {
                blobs.remove(id).await?;
                removed += 1;
            }
        }
        for file in staged {
            std::fs::remove_file(file)?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Tells whether contents without a row were found so once before. An old file may have lost its row just now, and an
/// export that began before reads it: the first time it is marked, by its mode, and becomes young again.
fn is_condemned(file: &Path) -> io::Result<bool> {
    let open = match File::open(file) {
        // Another sweeper was faster.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        open => open?,
    };
    let mut permissions = open.metadata()?.permissions();
    if permissions.readonly() {
        return Ok(true);
    }
    open.set_modified(SystemTime::now())?;
    permissions.set_readonly(true);
    open.set_permissions(permissions)?;
    Ok(false)
}

// What an export reads is there for as long as it may last.
const _: () = assert!(limits::SWEEP_BLOB_AGE.as_secs() >= limits::DEADLINE.as_secs());

fn children(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(directory) {
        Ok(entries) => entries.map(|e| e.map(|e| e.path())).collect(),
        // Another sweeper was faster, or it is no directory.
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

fn modified(path: &Path) -> io::Result<SystemTime> {
    std::fs::symlink_metadata(path)?.modified()
}

fn file_name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}
