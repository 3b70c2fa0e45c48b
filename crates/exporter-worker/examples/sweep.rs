//! Sweeps once, whatever the hour: `sweep AGE BLOB_AGE`, both in seconds. For the fault suite, which cannot wait.
//!
//! `DATABASE_URL`, `SNAPSHOT_DIR` and `BLOB_DIR` as for a worker. Files younger than the ages stay.

use std::time::Duration;

use clap::Parser;
use exporter_worker::sweeper;
use model::area::{BlobStore, SnapshotArea};
use model::settings::{DatabaseSettings, StorageSettings, Variables};
use model::store;

/// Removes files that no row names.
#[derive(Debug, Parser)]
struct Arguments {
    /// Snapshot files younger than this stay.
    age: f64,
    /// Contents younger than this stay.
    blob_age: f64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let arguments = Arguments::parse();
    let variables = Variables::environment();
    let storage = StorageSettings::read_for_both(&variables)?;
    let (area, blobs) = (SnapshotArea::of(&storage)?, BlobStore::of(&storage)?);
    let pool = store::pool(&DatabaseSettings::read(&variables)?.url, "sweep", 1)?;
    let seconds = Duration::from_secs_f64;
    let removed = sweeper::sweep(&pool, &area, &blobs, seconds(arguments.age), seconds(arguments.blob_age)).await?;
    println!("{removed}");
    Ok(())
}
