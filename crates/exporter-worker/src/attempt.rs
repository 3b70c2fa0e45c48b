//! One claimed job, from the claim to a row that says what became of it.

use std::path::PathBuf;
use std::time::Duration;

use model::area::{SnapshotArea, SnapshotKey};
use model::error_chain::Chain;
use model::error_code::{ErrorBody, ErrorCode};
use model::job::{JobState, backoff};
use model::limits;
use model::settings::JobSettings;
use model::store::jobs::{self, Claim, FinishedBlob, Requeued};
use model::store::{self, StoreError};
use secrecy::SecretString;
use sqlx::PgConnection;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use uuid::Uuid;

use crate::control::{Control, StopReason};
use crate::export::{self, Order};
use crate::failure::{Decision, Failure};
use crate::heartbeat;
use crate::snapshot::panic_text;
use crate::source::CellSource;

/// What every attempt of a process needs.
#[derive(Debug, Clone)]
pub struct Attempts<S> {
    /// Where cells live.
    pub source: S,
    /// Where snapshots go.
    pub area: SnapshotArea,
    /// URL of the unit, for manifests.
    pub unit_url: String,
    /// Directory for temporary files.
    pub scratch: PathBuf,
    /// The database, for heartbeats and for settling.
    pub database: SecretString,
    /// The protocol's times.
    pub jobs: JobSettings,
    /// How long an export may go on after the process was asked to end.
    pub drain: Duration,
}

impl<S: CellSource + Clone> Attempts<S> {
    /// Runs a claimed job. Returns when its row says what became of it, or when somebody else has to say.
    pub async fn run(&self, claim: Claim, token: Uuid, shutdown: CancellationToken) {
        let span = tracing::info_span!(
            "attempt",
            job.id = %claim.fence.job,
            cell.name = claim.cell_name.as_deref().unwrap_or("(deleted)"),
            snapshot.name = %claim.name,
            attempt = claim.fence.attempt,
        );
        self.run_in_span(claim, token, shutdown).instrument(span).await;
    }

    async fn run_in_span(&self, claim: Claim, token: Uuid, shutdown: CancellationToken) {
        let begun = Instant::now();
        tracing::info!("export begins");
        let control = Control::default();
        let beats = tokio::spawn(
            heartbeat::keep(self.database.clone(), self.jobs.clone(), claim.fence.clone(), control.clone())
                .in_current_span(),
        );
        let drain = tokio::spawn(drain(shutdown, self.drain, control.clone()));
        let outcome = self.export(&claim, token, &control).await;
        drain.abort();
        let settled = self.settle(&claim, &outcome).await;
        beats.abort();
        let seconds = begun.elapsed().as_secs_f64();
        match (&outcome, settled) {
            (_, Settled::Unknown) => tracing::warn!(seconds, "cannot reach the database, leaving the job to its lease"),
            (_, Settled::Lost) => tracing::warn!(seconds, "the job belongs to another attempt now, leaving it alone"),
            (Ok(blob), Settled::Done(state)) => {
                tracing::info!(seconds, bytes = blob.size, documents = blob.contents.documents, state, "export ends");
            }
            (Err(failure), Settled::Done(state)) => {
                tracing::warn!(seconds, state, decision = ?failure.decision, error = %Chain(failure), "attempt failed");
            }
        }
        if control.stopped() == Some(StopReason::Stalled) {
            // A thread hangs where nothing can reach it (a dead mount, say). Only a new process is free of it.
            tracing::error!("ending the process because of a hanging export");
            std::process::exit(70);
        }
    }

    /// The export, in a task of its own so that a panic ends the attempt and nothing else.
    async fn export(&self, claim: &Claim, token: Uuid, control: &Control) -> Result<FinishedBlob, Failure> {
        let key = SnapshotKey { job: claim.fence.job, attempt: claim.fence.attempt, token };
        let order =
            Order { cell: claim.cell_id.clone(), key, unit_url: self.unit_url.clone(), scratch: self.scratch.clone() };
        let (source, area, shared) = (self.source.clone(), self.area.clone(), control.clone());
        let task = async move { export::export(&source, &area, &order, &shared).await };
        let mut running: JoinHandle<_> = tokio::spawn(task.in_current_span());
        let joined = tokio::select! {
            joined = &mut running => joined,
            () = control.wait() => match timeout(limits::STOP_GRACE, &mut running).await {
                Ok(joined) => joined,
                Err(_) => {
                    running.abort();
                    return Err(Failure::stopped(control.stopped().unwrap_or(StopReason::Stalled)));
                }
            },
        };
        joined.unwrap_or_else(|error| match error.try_into_panic() {
            Ok(panic) => Err(Failure::internal(panic_text(panic.as_ref()))),
            Err(error) => Err(Failure::internal(error.to_string())),
        })
    }

    /// Writes what became of the attempt, for as long as the lease can last.
    async fn settle(&self, claim: &Claim, outcome: &Result<FinishedBlob, Failure>) -> Settled {
        let until = Instant::now() + self.jobs.lease;
        loop {
            match self.settle_once(claim, outcome).await {
                Ok(settled) => return settled,
                Err(error) if Instant::now() >= until => {
                    tracing::warn!(error = %Chain(&error), "cannot settle the job");
                    return Settled::Unknown;
                }
                Err(error) => {
                    tracing::debug!(error = %Chain(&error), "trying again to settle the job");
                    sleep(Duration::from_millis(500)).await;
                }
            }
        }
    }

    /// Each try on a fresh connection: after a lost answer nothing that the old one says can be trusted.
    async fn settle_once(&self, claim: &Claim, outcome: &Result<FinishedBlob, Failure>) -> Result<Settled, StoreError> {
        let mut connection = store::connect(&self.database, "cell-export settle").await?;
        let connection = &mut connection;
        let failure = match outcome {
            Ok(blob) => return succeed(connection, claim, blob, &self.jobs).await,
            Err(failure) => failure,
        };
        match failure.decision {
            Decision::Stop(StopReason::Lost | StopReason::Stalled) => Ok(Settled::Lost),
            Decision::Stop(StopReason::Cancelled) => end(connection, claim, JobState::Cancelled, &failure.error).await,
            Decision::Stop(StopReason::Deadline) | Decision::Fail => {
                end(connection, claim, JobState::Failed, &failure.error).await
            }
            Decision::Stop(StopReason::Shutdown) => give_back(connection, claim, Duration::ZERO, false, None).await,
            Decision::Wait => {
                let pause = limits::DISK_FULL_PAUSE.min(self.jobs.lease);
                give_back(connection, claim, pause, false, Some(&failure.error)).await
            }
            Decision::Retry => give_back(connection, claim, backoff(claim.strikes), true, Some(&failure.error)).await,
        }
    }
}

/// What the row says in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settled {
    /// The row was moved to this state, by this attempt.
    Done(&'static str),
    /// The attempt no longer owns the job.
    Lost,
    /// The database could not be asked. The lease will run out.
    Unknown,
}

async fn succeed(
    connection: &mut PgConnection,
    claim: &Claim,
    blob: &FinishedBlob,
    settings: &JobSettings,
) -> Result<Settled, StoreError> {
    if jobs::succeed(connection, &claim.fence, blob).await? {
        return Ok(Settled::Done(JobState::Succeeded.name()));
    }
    // Nothing changed. Either an earlier try did it and its answer got lost, or the job was cancelled, or it is lost.
    let view = jobs::find(connection, claim.fence.job).await?;
    if view.is_some_and(|v| v.blob_key.as_deref() == Some(blob.key.as_str())) {
        return Ok(Settled::Done(JobState::Succeeded.name()));
    }
    let progress = model::job::Progress::default();
    match jobs::beat(connection, &claim.fence, settings.lease, &progress).await? {
        Some(beat) if beat.cancel => end(connection, claim, JobState::Cancelled, &ErrorCode::Cancelled.body()).await,
        Some(_) => Err(StoreError::Corrupt { table: "job", column: "state", row: claim.fence.job.to_string() }),
        None => Ok(Settled::Lost),
    }
}

async fn end(
    connection: &mut PgConnection,
    claim: &Claim,
    state: JobState,
    error: &ErrorBody,
) -> Result<Settled, StoreError> {
    if jobs::fail(connection, &claim.fence, state, error).await? {
        return Ok(Settled::Done(state.name()));
    }
    let view = jobs::find(connection, claim.fence.job).await?;
    let mine = view.is_some_and(|v| v.state == state && v.attempt == claim.fence.attempt);
    Ok(if mine { Settled::Done(state.name()) } else { Settled::Lost })
}

async fn give_back(
    connection: &mut PgConnection,
    claim: &Claim,
    delay: Duration,
    strike: bool,
    error: Option<&ErrorBody>,
) -> Result<Settled, StoreError> {
    match jobs::requeue(connection, &claim.fence, delay, strike, error).await? {
        Requeued::Queued => Ok(Settled::Done(JobState::Queued.name())),
        Requeued::OutOfStrikes => {
            let unknown = ErrorCode::Unknown.body();
            end(connection, claim, JobState::Failed, error.unwrap_or(&unknown)).await
        }
        Requeued::Lost => Ok(Settled::Lost),
    }
}

/// After the process was asked to end: lets the export go on for a while, then stops it.
async fn drain(shutdown: CancellationToken, patience: Duration, control: Control) {
    shutdown.cancelled().await;
    sleep(patience).await;
    control.stop(StopReason::Shutdown);
}

#[cfg(test)]
mod tests {
    use model::area::Pieces;
    use model::cell::CellId;
    use model::settings::Variables;
    use model::snapshot_name::SnapshotName;
    use model::store::jobs::Fence;

    use super::*;
    use crate::source::postgres::PostgresView;

    /// A source with a fault of its own.
    #[derive(Debug, Clone)]
    struct Faulty;

    impl CellSource for Faulty {
        type View = PostgresView;

        async fn open(&self, cell: &CellId) -> Result<PostgresView, Failure> {
            panic!("no view of {cell}")
        }

        async fn content(&self, _: Uuid) -> Result<Pieces, object_store::Error> {
            panic!("no contents")
        }
    }

    #[tokio::test]
    async fn a_panic_ends_the_attempt_and_nothing_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let attempts = Attempts {
            source: Faulty,
            area: SnapshotArea::open(directory.path(), 0).expect("an area"),
            unit_url: "http://localhost/".to_owned(),
            scratch: directory.path().to_owned(),
            database: String::new().into(),
            jobs: JobSettings::read(&Variables::table(&[])).expect("defaults"),
            drain: Duration::ZERO,
        };
        let claim = Claim {
            fence: Fence { job: Uuid::nil(), attempt: 1, owner: String::new() },
            cell_id: CellId::parse("c").expect("an id"),
            cell_name: None,
            name: SnapshotName::parse("n").expect("a name"),
            strikes: 0,
        };
        let failure = attempts.export(&claim, Uuid::nil(), &Control::default()).await.expect_err("it panics");
        assert_eq!(failure.decision, Decision::Retry);
        assert_eq!(failure.error, ErrorCode::Unknown.body(), "nothing of it reaches the user");
        assert!(Chain(&failure).to_string().contains("panic: no view of c"), "the log has it");
    }
}
