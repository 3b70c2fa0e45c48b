//! One slot: takes one job after the other, for ever.
//!
//! It polls first and after every job; doorbells only shorten the wait. So a broker that is away costs a few seconds
//! of latency and nothing else.

use model::error_chain::Chain;
use model::failpoint;
use model::store::{StoreError, jobs};
use sqlx::PgPool;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::attempt::Attempts;
use crate::listener::Listener;
use crate::source::CellSource;

/// A slot of the worker.
#[derive(Debug)]
pub struct Slot<S> {
    /// Runs what is claimed.
    pub attempts: Attempts<S>,
    /// For claiming.
    pub pool: PgPool,
    /// Doorbells.
    pub listener: Listener,
}

impl<S: CellSource + Clone> Slot<S> {
    /// Works until shutdown.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut healthy = true;
        while !shutdown.is_cancelled() {
            if self.claim_and_run(None, &mut healthy, &shutdown).await {
                continue;
            }
            self.listener.set_idle(true);
            let pause = self.attempts.jobs.poll.mul_f64(0.8 + 0.4 * fastrand::f64());
            let ring = tokio::select! {
                // All branches are cancel-safe.
                ring = self.listener.ring() => Some(ring),
                () = sleep(pause) => None,
                () = shutdown.cancelled() => None,
            };
            self.listener.set_idle(false);
            if let Some(ring) = ring.filter(|ring| !ring.is_stale()) {
                let claim = self.claim(Some(ring.job), &mut healthy).await;
                // Acknowledged even when the database is away: the job is still queued there, to be polled.
                ring.looked();
                if let Some((claim, token)) = claim {
                    self.attempts.run(claim, token, shutdown.clone()).await;
                }
            }
        }
    }

    async fn claim_and_run(&self, job: Option<Uuid>, healthy: &mut bool, shutdown: &CancellationToken) -> bool {
        match self.claim(job, healthy).await {
            Some((claim, token)) => {
                self.attempts.run(claim, token, shutdown.clone()).await;
                true
            }
            None => false,
        }
    }

    /// Claims a job under a token that was never used before.
    async fn claim(&self, job: Option<Uuid>, healthy: &mut bool) -> Option<(jobs::Claim, Uuid)> {
        let token = Uuid::new_v4();
        let claiming = async {
            let mut connection = self.pool.acquire().await.map_err(StoreError::doing("connect"))?;
            jobs::claim(&mut connection, job, &token.simple().to_string(), self.attempts.jobs.lease).await
        };
        match claiming.await {
            Ok(claim) => {
                *healthy = true;
                if claim.is_some() {
                    failpoint::reached("worker.after_claim");
                }
                claim.map(|claim| (claim, token))
            }
            Err(error) => {
                if std::mem::replace(healthy, false) {
                    tracing::warn!(error = %Chain(&error), "cannot look for jobs");
                }
                None
            }
        }
    }
}
