//! Removes files that no row names: of attempts that were lost, and of loads that were killed.
//!
//! Any number of processes may sweep at once. "Garbage" is a lasting property: attempts and blob ids are never used
//! twice, so what may be removed once may always be removed.

use std::time::Duration;

use futures_util::TryStreamExt;
use model::area::{BlobStore, SnapshotArea};
use model::error_chain::Chain;
use model::failpoint;
use model::limits;
use model::store::{StoreError, jobs};
use sqlx::PgPool;
use tokio::time::sleep;

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
    let mut files = area.old(age);
    while let Some(file) = files.try_next().await? {
        let key = &file.key;
        let garbage = {
            let mut connection = pool.acquire().await.map_err(StoreError::doing("connect"))?;
            jobs::blob_is_garbage(&mut connection, key.job, key.attempt, &key.text()).await?
        };
        if garbage {
            area.remove_old(&file).await?;
            failpoint::reached("sweeper.unlinked");
            removed += 1;
        }
    }
    removed += area.tidy(age, blob_age).await?;
    let mut contents = blobs.old(blob_age);
    while let Some(ids) = contents.try_next().await? {
        for id in unnamed_blobs(pool, &ids).await? {
            if blobs.is_condemned(id, blob_age).await? {
                blobs.remove_condemned(id).await?;
                removed += 1;
            }
        }
    }
    Ok(removed + blobs.tidy(blob_age).await?)
}

// What an export reads is there for as long as it may last.
const _: () = assert!(limits::SWEEP_BLOB_AGE.as_secs() >= limits::DEADLINE.as_secs());
