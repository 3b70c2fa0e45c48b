//! What every process does besides its own work: relaying doorbells that are due, reaping jobs that were lost.
//!
//! There is no leader. The statements lock rows and skip locked ones, so any number of processes can do this at once.

use std::time::Duration;

use sqlx::PgPool;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::error_chain::Chain;
use crate::limits;
use crate::message::Bell;
use crate::metrics;
use crate::settings::JobSettings;
use crate::store::{StoreError, jobs};

/// Rings every [`limits::RELAY`] for queued jobs whose doorbell is due. Never returns.
pub async fn relay(pool: PgPool, ring: impl Fn(Bell)) {
    let mut tick = ticker(limits::RELAY);
    let mut healthy = true;
    loop {
        tick.tick().await;
        let due = async {
            let mut connection = pool.acquire().await.map_err(StoreError::doing("connect"))?;
            jobs::due(&mut connection, limits::BATCH).await
        };
        match due.await {
            Ok(due) => {
                healthy = true;
                due.into_iter().for_each(&ring);
            }
            Err(error) => complain(&mut healthy, "relay", &error),
        }
    }
}

/// Reaps every `settings.reap`, with jitter. Never returns.
///
/// After an outage of the database all leases look expired although their workers live: this process reaps only after
/// it has itself had uninterrupted contact for one whole lease, so that workers can beat first.
pub async fn reap(pool: PgPool, settings: JobSettings, ring: impl Fn(Bell)) {
    let mut contact_since: Option<Instant> = None;
    let mut healthy = true;
    loop {
        // Probing more often than reaping: contact means contact throughout.
        tokio::time::sleep(settings.reap.mul_f64(0.8 + 0.4 * fastrand::f64())).await;
        let may_reap = contact_since.is_some_and(|since| since.elapsed() >= settings.lease);
        let reaping = async {
            let mut connection = pool.acquire().await.map_err(StoreError::doing("connect"))?;
            if may_reap {
                jobs::reap(&mut connection, limits::BATCH).await
            } else {
                crate::store::ping(&mut connection).await.map(|()| Vec::new())
            }
        };
        match reaping.await {
            Ok(reaped) => {
                healthy = true;
                contact_since.get_or_insert_with(Instant::now);
                for (job, what) in reaped {
                    tracing::warn!(job.id = %job, reaping = ?what, "dealt with a lost job");
                    ring(Bell { job, trace: None });
                }
            }
            Err(error) => {
                contact_since = None;
                complain(&mut healthy, "reaper", &error);
            }
        }
    }
}

/// Counts active jobs every [`limits::MEASURE`], for whoever measures. Never returns.
pub async fn measure(pool: PgPool) {
    let mut tick = ticker(limits::MEASURE);
    let mut healthy = true;
    loop {
        tick.tick().await;
        let counting = async {
            let mut connection = pool.acquire().await.map_err(StoreError::doing("connect"))?;
            jobs::count_active(&mut connection).await
        };
        match counting.await {
            Ok(active) => {
                healthy = true;
                active.iter().for_each(|a| metrics::active(a.kind, a.queued, a.running, a.oldest));
            }
            // What is shown is old; that the database is away is shown, too.
            Err(error) => complain(&mut healthy, "measuring", &error),
        }
    }
}

/// Says once that the database is away, not at every tick.
fn complain(healthy: &mut bool, who: &str, error: &StoreError) {
    if std::mem::replace(healthy, false) {
        tracing::warn!(error = %Chain(error), "{who} cannot reach the database");
    }
}

fn ticker(period: Duration) -> tokio::time::Interval {
    let mut tick = interval(period);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick
}
