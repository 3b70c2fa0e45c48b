//! The composition root: opens what the service needs and starts the server.

use std::net::TcpListener;
use std::sync::Arc;

use actix_web::dev::Server;
use actix_web::web;
use anyhow::Context;
use model::area::SnapshotArea;
use model::internal::{self, Readiness};
use model::store::jobs::Admission;
use model::{doorbell, hosts, housekeeping, limits, store};
use sqlx::PgPool;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::auth::Auth;
use crate::config::ApiSettings;
use crate::database::Database;
use crate::open_files;
use crate::server;
use crate::state::State;
use crate::watch::Watch;

/// Connections for the relay, the reaper, looks at the database, hearing of changed jobs and reading them.
pub(crate) const CHORES: u32 = 5;

/// The service, ready to run.
pub struct Application {
    server: Server,
    port: u16,
    readiness: Readiness,
    /// Ends what waits.
    draining: CancellationToken,
}

impl Application {
    /// Opens the listener and prepares connections. Neither database nor broker needs to be there yet.
    ///
    /// # Errors
    /// When the address is taken, the snapshot area cannot be used, the database URL cannot be read, or services run on
    /// another host and the storage is this one's own.
    pub async fn build(settings: ApiSettings) -> anyhow::Result<Self> {
        open_files::allow();
        let listener = TcpListener::bind(settings.http.listen).context("API_LISTEN")?;
        let port = listener.local_addr()?.port();
        let pool = store::pool(&settings.database.url, "cell-export api", CHORES)?;
        hosts::admit(&pool, &settings.storage).await?;
        let requests = store::pool_of_whole_work(&settings.database.url, "cell-export api", settings.http.pool)?;
        let area = SnapshotArea::of(&settings.storage).context("snapshot area")?;
        let (ringer, _) = doorbell::start(settings.broker, "api");
        let ring = |ringer: doorbell::Ringer| move |bell| ringer.ring(bell);
        tokio::spawn(housekeeping::relay(pool.clone(), ring(ringer.clone())));
        tokio::spawn(housekeeping::reap(pool.clone(), settings.jobs.clone(), ring(ringer.clone())));
        let readiness = Readiness::default();
        if let Some(listen) = settings.internal.listen {
            let recorded = internal::record("api")?;
            watch(&readiness, &pool, &area, &ringer);
            tokio::spawn(housekeeping::measure(pool.clone()));
            let port = internal::serve(listen, readiness.clone(), recorded).context("INTERNAL_LISTEN")?;
            tracing::info!(port, "the internal port is open");
        }
        let draining = CancellationToken::new();
        let watch = Watch::new(draining.clone());
        tokio::spawn(watch.clone().listen(pool.clone()));
        let database = Database::new(requests);
        let auth = Auth::new(settings.auth, &database);
        let state = web::Data::new(State {
            database,
            ringer,
            watch,
            area,
            redirect: settings.storage.redirects(),
            unit: settings.unit,
            admission: Admission::new(settings.jobs.max_queued, settings.jobs.max_per_owner),
            jobs: settings.jobs,
            auth,
            uploads: settings.http.uploads,
            download_window: settings.http.download_window,
            uploading: Arc::new(Semaphore::new(limits::UPLOADS)),
            inspecting: Arc::new(Semaphore::new(limits::INSPECTIONS)),
            now: chrono::Utc::now,
        });
        let server = server::listen(listener, state)?;
        Ok(Self { server, port, readiness, draining })
    }

    /// The port that was opened.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Serves until the process is asked to end (SIGTERM, SIGINT): then what was begun is finished, for a while. A second
    /// signal ends it at once.
    ///
    /// # Errors
    /// When the server fails, or signals cannot be listened for.
    pub async fn run_until_stopped(self) -> std::io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (handle, readiness, draining) = (self.server.handle(), self.readiness, self.draining);
        let ending = actix_web::rt::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            readiness.drain();
            draining.cancel();
            tracing::info!("api ends, no new requests");
            tokio::select! {
                () = handle.stop(true) => {}
                _ = terminate.recv() => std::process::exit(1),
                _ = interrupt.recv() => std::process::exit(1),
            }
        });
        let served = self.server.await;
        ending.abort();
        served
    }
}

/// What the service depends on. Exports are accepted without the broker: workers poll.
fn watch(readiness: &Readiness, pool: &PgPool, area: &SnapshotArea, ringer: &doorbell::Ringer) {
    let (pool, area, ringer) = (pool.clone(), area.clone(), ringer.clone());
    if area.is_bucket() {
        let area = area.clone();
        readiness.watch("bucket", true, move || internal::bucket(area.clone()));
    }
    readiness.watch("database", true, move || store::look(pool.clone()));
    readiness.watch("snapshots", true, internal::space("snapshots", move || area.free().map(Some)));
    readiness.watch("broker", false, move || internal::connection(ringer.is_connected()));
}
