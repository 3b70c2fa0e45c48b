//! Waiting for jobs to change, without asking over and over: the database tells once, and everybody who waits for the
//! job hears of it.
//!
//! One task listens for the whole process. It reads a job that changed once, however many wait for it. What was told
//! while it could not listen is made up for by reading all jobs that are waited for, then and now and then.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use model::error_chain::Chain;
use model::limits;
use model::metrics;
use model::store::StoreError;
use model::store::job_resources::{self, JobResource};
use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Everybody who waits for a job. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Watch(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The newest state of each job that somebody waits for, once it has changed.
    jobs: Mutex<HashMap<Uuid, watch::Sender<Option<Arc<JobResource>>>>>,
    /// A permit for each client.
    clients: Arc<Semaphore>,
    draining: CancellationToken,
}

/// One client's wait for one job.
#[derive(Debug)]
pub(crate) struct Following {
    job: Uuid,
    watch: Watch,
    /// Nothing once it was dropped.
    changes: Option<watch::Receiver<Option<Arc<JobResource>>>>,
    _permit: OwnedSemaphorePermit,
}

impl Watch {
    /// Nobody waits yet. `draining` ends all waits.
    pub(crate) fn new(draining: CancellationToken) -> Self {
        let clients = Arc::new(Semaphore::new(limits::WAITING_CLIENTS));
        Self(Arc::new(Inner { jobs: Mutex::default(), clients, draining }))
    }

    /// Begins to wait for a job; nothing when too many wait already. Read the job after this: what changes from now on is
    /// heard.
    pub(crate) fn follow(&self, job: Uuid) -> Option<Following> {
        let permit = Arc::clone(&self.0.clients).try_acquire_owned().ok()?;
        let changes = self.jobs(|jobs| jobs.entry(job).or_insert_with(|| watch::Sender::new(None)).subscribe());
        metrics::waiting(1.0);
        Some(Following { job, watch: self.clone(), changes: Some(changes), _permit: permit })
    }

    /// Listens. Never returns.
    pub(crate) async fn listen(self, pool: PgPool) {
        let mut healthy = true;
        loop {
            let Err(error) = self.listen_once(&pool, &mut healthy).await;
            if std::mem::replace(&mut healthy, false) {
                tracing::warn!(error = %Chain(&error), "cannot hear of changed jobs");
            }
            sleep(limits::LISTEN_AGAIN).await;
        }
    }

    async fn listen_once(&self, pool: &PgPool, healthy: &mut bool) -> Result<std::convert::Infallible, StoreError> {
        let listening = async {
            let mut listener = PgListener::connect_with(pool).await?;
            listener.listen(job_resources::CHANGED).await?;
            Ok(listener)
        };
        let mut listener = timeout(limits::READ_CONNECT, listening)
            .await
            .unwrap_or(Err(sqlx::Error::PoolTimedOut))
            .map_err(StoreError::doing("listen for changed jobs"))?;
        if !std::mem::replace(healthy, true) {
            tracing::info!("hears of changed jobs again");
        }
        loop {
            // What was told before this point may have been missed.
            self.refresh(pool, self.jobs(|jobs| jobs.keys().copied().collect())).await?;
            let until = tokio::time::Instant::now() + limits::REFRESH;
            while let Ok(told) = tokio::time::timeout_at(until, listener.try_recv()).await {
                let told = told.map_err(StoreError::doing("hear of a changed job"))?;
                // The connection broke; the next call makes another one.
                let Some(told) = told else { break };
                let job = Uuid::parse_str(told.payload()).ok();
                let Some(job) = job.filter(|job| self.jobs(|jobs| jobs.contains_key(job))) else { continue };
                self.refresh(pool, vec![job]).await?;
            }
        }
    }

    /// Reads jobs and tells those who wait.
    async fn refresh(&self, pool: &PgPool, jobs: Vec<Uuid>) -> Result<(), StoreError> {
        for some in jobs.chunks(limits::JOBS_AT_ONCE) {
            let mut connection = pool.acquire().await.map_err(StoreError::doing("connect"))?;
            let found = job_resources::many(&mut connection, some).await?;
            drop(connection);
            self.jobs(|jobs| {
                for job in found {
                    let Some(sender) = jobs.get(&job.id) else { continue };
                    sender.send_if_modified(|current| {
                        let newer = current.as_ref().is_none_or(|current| current.revision < job.revision);
                        if newer {
                            *current = Some(Arc::new(job));
                        }
                        newer
                    });
                }
            });
        }
        Ok(())
    }

    fn jobs<T>(&self, work: impl FnOnce(&mut HashMap<Uuid, watch::Sender<Option<Arc<JobResource>>>>) -> T) -> T {
        work(&mut self.0.jobs.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Following {
    /// Completes with the job when it is newer than `revision`; nothing when the service ends. Cancel-safe.
    pub(crate) async fn newer(&mut self, revision: i64) -> Option<Arc<JobResource>> {
        let draining = self.watch.0.draining.clone();
        let changes = self.changes.as_mut()?;
        let newer = changes.wait_for(|job| job.as_ref().is_some_and(|job| job.revision > revision));
        tokio::select! {
            job = newer => job.ok()?.clone(),
            () = draining.cancelled() => None,
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.changes = None;
        metrics::waiting(-1.0);
        self.watch.jobs(|jobs| {
            if jobs.get(&self.job).is_some_and(|sender| sender.receiver_count() == 0) {
                jobs.remove(&self.job);
            }
        });
    }
}
