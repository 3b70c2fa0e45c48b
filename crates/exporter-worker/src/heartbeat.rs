//! Keeps the lease of one attempt, reports its progress, and carries bad news back.
//!
//! It has a database connection of its own, so that nothing the export does can hold it up. It proves progress, not
//! breathing: an attempt in which nothing moves any more loses its lease.

use std::time::Duration;

use model::error_chain::Chain;
use model::job::Progress;
use model::limits;
use model::settings::JobSettings;
use model::store::jobs::{self, Beat, Fence};
use model::store::{self, StoreError};
use secrecy::SecretString;
use sqlx::PgConnection;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::control::{Control, StopReason};

/// Beats until the attempt is stopped; runs until it is aborted.
pub async fn keep(url: SecretString, settings: JobSettings, fence: Fence, control: Control) {
    let mut connection = None;
    let mut heard = Instant::now();
    let mut movement = (control.movement(), Instant::now());
    let mut reported = (control.progress(), Instant::now());
    let mut tick = interval(settings.heartbeat);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look = interval(limits::CANCEL_LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // A beat that is due goes first.
            biased;
            _ = tick.tick() => {}
            _ = look.tick() => {
                // A beat looks, too.
                let due = reported.1.elapsed() + limits::CANCEL_LOOK / 2 >= limits::PROGRESS;
                let news = due && control.done() != reported.0.done;
                if !news {
                    look_for_cancellation(&mut connection, &fence, &control).await;
                    continue;
                }
            }
        }
        if control.movement() != movement.0 {
            movement = (control.movement(), Instant::now());
        }
        if movement.1.elapsed() >= settings.stall {
            return control.stop_because(StopReason::Stalled, format!("nothing moved for {:?}", settings.stall));
        }
        reported = (control.progress(), Instant::now());
        match beat(&url, &mut connection, &settings, &fence, &reported.0).await {
            // Or the attempt has just settled it, which is no news to whoever did.
            Ok(None) => return control.stop_because(StopReason::Lost, "the job was taken over".to_owned()),
            Ok(Some(Beat { cancel: true, .. })) => control.stop(StopReason::Cancelled),
            Ok(Some(Beat { past_deadline: true, .. })) => control.stop(StopReason::Deadline),
            Ok(Some(_)) => {}
            Err(error) => {
                connection = None;
                // Saves work only; what makes it safe is the fence.
                if heard.elapsed() >= settings.lease.mul_f64(0.75) {
                    let cause = format!("no heartbeat got through for too long: {}", Chain(&error));
                    return control.stop_because(StopReason::Lost, cause);
                }
                tracing::debug!(error = %Chain(&error), "a heartbeat did not get through");
                continue;
            }
        }
        heard = Instant::now();
    }
}

/// Looks on the connection of the last beat. What goes wrong is left to the next beat to find.
async fn look_for_cancellation(connection: &mut Option<PgConnection>, fence: &Fence, control: &Control) {
    let Some(looking) = connection.as_mut() else { return };
    match timeout(limits::STATEMENT_TIMEOUT, jobs::cancel_requested(looking, fence)).await {
        Ok(Ok(true)) => control.stop(StopReason::Cancelled),
        Ok(Ok(false)) => {}
        Ok(Err(_)) | Err(_) => *connection = None,
    }
}

async fn beat(
    url: &SecretString,
    connection: &mut Option<PgConnection>,
    settings: &JobSettings,
    fence: &Fence,
    progress: &Progress,
) -> Result<Option<Beat>, StoreError> {
    let beating = async {
        if connection.is_none() {
            *connection = Some(store::connect(url, "cell-export heartbeat").await?);
        }
        match connection {
            Some(connection) => jobs::beat(connection, fence, settings.lease, progress).await,
            None => Ok(None),
        }
    };
    // A connection that was cut off in the middle is dropped by the caller, never used again.
    let longest: Duration = limits::STATEMENT_TIMEOUT + Duration::from_secs(1);
    timeout(longest, beating)
        .await
        .unwrap_or(Err(StoreError::Database { doing: "renew a lease", source: sqlx::Error::PoolTimedOut }))
}
