//! The worker process: opens what it needs, runs its slots, ends in order.

use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use model::area::{BlobStore, SnapshotArea};
use model::doorbell::{self, Ringer};
use model::internal::{self, Readiness};
use model::store;
use model::{hosts, housekeeping, limits};
use secrecy::SecretString;
use sqlx::PgPool;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::attempt::Attempts;
use crate::chores;
use crate::config::WorkerSettings;
use crate::import::Places;
use crate::listener::Listener;
use crate::slot::Slot;
use crate::snapshot::Packer;
use crate::source::postgres::PostgresSource;
use crate::sweeper;

/// Connections for housekeeping, chores and looks.
pub(crate) const CHORES: u32 = 3;

/// A worker that is ready to run.
#[derive(Debug)]
pub struct Worker {
    settings: WorkerSettings,
    pool: PgPool,
    ringer: Ringer,
    attempts: Attempts<PostgresSource>,
    blobs: BlobStore,
    readiness: Readiness,
}

impl Worker {
    /// Opens directories and prepares connections. Neither database nor broker needs to be there yet.
    ///
    /// # Errors
    /// When a directory cannot be used, the database URL cannot be read, or services run on another host and the storage
    /// is this one's own.
    pub async fn build(settings: WorkerSettings) -> anyhow::Result<Self> {
        use anyhow::Context;
        let area = SnapshotArea::of(&settings.storage).context("snapshot area")?;
        let blobs = BlobStore::of(&settings.storage).context("blob store")?;
        let scratch = &settings.storage.scratch;
        std::fs::create_dir_all(scratch).with_context(|| format!("SCRATCH_DIR {}", scratch.display()))?;
        let database: SecretString = settings.database.url.clone();
        // One connection per slot for claiming.
        let pool = store::pool(&database, "cell-export worker", settings.work.slots as u32 + CHORES)?;
        hosts::admit(&pool, &settings.storage).await?;
        let (ringer, _) = doorbell::start(settings.broker.clone(), "exporter-worker");
        let attempts = Attempts {
            source: Arc::new(PostgresSource::new(database.clone(), blobs.clone(), scratch.clone())),
            area,
            packer: Packer::new(settings.work.effort, available_parallelism().map_or(1, NonZero::get)),
            places: Places { database: database.clone(), blobs: blobs.clone(), reserve: settings.storage.reserve },
            unit_url: settings.unit.url(),
            scratch: scratch.clone(),
            database,
            jobs: settings.jobs.clone(),
            drain: settings.work.drain,
        };
        let worker = Self { settings, pool, ringer, attempts, blobs, readiness: Readiness::default() };
        if let Some(listen) = worker.settings.internal.listen {
            let recorded = internal::record("exporter-worker")?;
            worker.watch();
            let port = internal::serve(listen, worker.readiness.clone(), recorded).context("INTERNAL_LISTEN")?;
            tracing::info!(port, "the internal port is open");
        }
        Ok(worker)
    }

    /// What the worker depends on. It polls when there is no broker.
    fn watch(&self) {
        let (pool, area, blobs, ringer) =
            (self.pool.clone(), self.attempts.area.clone(), self.blobs.clone(), self.ringer.clone());
        self.readiness.watch("database", true, move || store::look(pool.clone()));
        if area.is_bucket() {
            let area = area.clone();
            self.readiness.watch("bucket", true, move || internal::bucket(area.clone()));
        }
        self.readiness.watch("snapshots", true, internal::space("snapshots", move || area.free().map(Some)));
        self.readiness.watch("blobs", true, internal::space("blobs", move || blobs.free()));
        self.readiness.watch("broker", false, move || internal::connection(ringer.is_connected()));
    }

    /// Works until `shutdown`; then finishes or gives back what is running.
    pub async fn run_until_stopped(self, shutdown: CancellationToken) {
        let ring = |ringer: Ringer| move |bell| ringer.ring(bell);
        let mut chores_running = JoinSet::new();
        chores_running.spawn(housekeeping::relay(self.pool.clone(), ring(self.ringer.clone())));
        chores_running.spawn(housekeeping::reap(
            self.pool.clone(),
            self.settings.jobs.clone(),
            ring(self.ringer.clone()),
        ));
        chores_running.spawn(chores::discard_for_ever(
            self.pool.clone(),
            self.settings.database.url.clone(),
            self.blobs.clone(),
            self.settings.jobs.reap * limits::REAPINGS_PER_DISCARD,
        ));
        chores_running.spawn(chores::expire_for_ever(self.pool.clone(), self.settings.work.retention));
        chores_running.spawn(sweeper::sweep_for_ever(
            self.pool.clone(),
            self.attempts.area.clone(),
            self.blobs.clone(),
        ));
        let mut slots = JoinSet::new();
        for number in 0..self.settings.work.slots {
            let listener = Listener::start(self.settings.broker.clone(), number);
            let slot = Slot { attempts: self.attempts.clone(), pool: self.pool.clone(), listener };
            slots.spawn(slot.run(shutdown.clone()));
        }
        tracing::info!(slots = self.settings.work.slots, "worker runs");
        shutdown.cancelled().await;
        self.readiness.drain();
        tracing::info!("worker ends, no new jobs");
        chores_running.shutdown().await;
        while slots.join_next().await.is_some() {}
        let _ = tokio::time::timeout(Duration::from_secs(2), self.pool.close()).await;
        tracing::info!("worker ended");
    }
}
