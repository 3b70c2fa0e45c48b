//! What every worker does beside its jobs: removing what nobody names any more, and what is too old.
//!
//! Any number of processes may do this at once; see [`crate::sweeper`] for files without rows.

use std::time::Duration;

use model::area::BlobStore;
use model::error_chain::Chain;
use model::limits;
use model::store::snapshots::{self, Retention};
use model::store::{StoreError, generations};
use secrecy::SecretString;
use sqlx::PgPool;
use tokio::time::sleep;

use crate::import;

/// Discards generations that nobody names, every `period`. Never returns.
pub async fn discard_for_ever(pool: PgPool, database: SecretString, blobs: BlobStore, period: Duration) {
    let mut healthy = true;
    loop {
        sleep(period.mul_f64(0.8 + 0.4 * fastrand::f64())).await;
        match discard(&pool, &database, &blobs).await {
            Ok(discarded) => {
                healthy = true;
                if discarded > 0 {
                    tracing::info!(discarded, "removed contents that no cell names");
                }
            }
            Err(error) if std::mem::replace(&mut healthy, false) => {
                tracing::warn!(error = %Chain(&error), "cannot remove contents that no cell names");
            }
            Err(_) => {}
        }
    }
}

/// Discards once; returns how many generations went.
pub async fn discard(pool: &PgPool, database: &SecretString, blobs: &BlobStore) -> Result<usize, StoreError> {
    let garbage = {
        let mut connection = pool.acquire().await.map_err(StoreError::doing("connect"))?;
        generations::garbage(&mut connection, limits::SWEEP_BLOB_AGE).await?
    };
    if garbage.is_empty() {
        return Ok(0);
    }
    // Removing rows takes longer than a control statement may.
    let mut connection = generations::connect(database).await?;
    for generation in &garbage {
        generations::discard(&mut connection, generation, |ids| import::remove_blobs(blobs, ids)).await?;
    }
    generations::close(connection).await;
    Ok(garbage.len())
}

/// Removes snapshots that are too old or too many, every [`limits::EXPIRE`]; their bytes are left to the sweeper. Never
/// returns.
pub async fn expire_for_ever(pool: PgPool, keep: Retention) {
    if keep == Retention::default() {
        return std::future::pending().await;
    }
    loop {
        let expiring = async {
            let mut connection = pool.acquire().await.map_err(StoreError::doing("connect"))?;
            snapshots::expire(&mut connection, keep).await
        };
        match expiring.await {
            Ok(0) => {}
            Ok(expired) => tracing::info!(expired, "removed old snapshots"),
            Err(error) => tracing::warn!(error = %Chain(&error), "cannot remove old snapshots"),
        }
        sleep(limits::EXPIRE.mul_f64(0.8 + 0.4 * fastrand::f64())).await;
    }
}
