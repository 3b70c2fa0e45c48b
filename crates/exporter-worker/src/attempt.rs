//! One claimed job, from the claim to a row that says what became of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::area::{SnapshotArea, SnapshotKey};
use model::error_chain::Chain;
use model::error_code::{ErrorBody, ErrorCode};
use model::failpoint;
use model::job::{Amount, JobKind, JobState, backoff};
use model::limits;
use model::metrics;
use model::settings::JobSettings;
use model::store::jobs::{self, Claim, FinishedBlob, ImportSource, NewContents, Requeued, Work};
use model::store::{self, StoreError, cells, generations};
use model::telemetry::TraceSpan;
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
use crate::import::{self, Import, NewCell, Origin, Owner, Places};
use crate::snapshot::{Packer, Place};
use crate::source::CellSource;

/// What every attempt of a process needs.
#[derive(Debug, Clone)]
pub struct Attempts<S> {
    /// Where cells live.
    pub source: Arc<S>,
    /// Where snapshots go.
    pub area: SnapshotArea,
    /// Who compresses them.
    pub packer: Packer,
    /// Where imports store cells.
    pub places: Places,
    /// URL of the unit, for manifests.
    pub unit_url: String,
    /// Directory for temporary files.
    pub scratch: PathBuf,
    /// The database, for heartbeats and for settling.
    pub database: SecretString,
    /// The protocol's times.
    pub jobs: JobSettings,
    /// How long a job may go on after the process was asked to end.
    pub drain: Duration,
}

impl<S: CellSource + Clone> Attempts<S> {
    /// Runs a claimed job. Returns when its row says what became of it, or when somebody else has to say.
    pub async fn run(&self, claim: Claim, token: Uuid, shutdown: CancellationToken) {
        let trace = self::trace(&claim);
        let span = tracing::info_span!(
            "attempt",
            job.id = %claim.fence.job,
            cell.name = claim.cell_name.as_deref().unwrap_or("(deleted)"),
            snapshot.name = %claim.name,
            attempt = claim.fence.attempt,
            trace.id = trace.trace_id(),
        );
        self.run_in_span(claim, token, Control::traced(trace), shutdown).instrument(span).await;
    }

    async fn run_in_span(&self, claim: Claim, token: Uuid, control: Control, shutdown: CancellationToken) {
        let begun = Instant::now();
        let kind = claim.work.kind();
        if claim.fence.attempt == 1 {
            metrics::waited(kind, claim.waited);
            tracing::info!(kind = kind.name(), "job begins");
        } else {
            // The end of the last attempt said that there would be another one.
            tracing::debug!(kind = kind.name(), "job begins again");
        }
        let beats = tokio::spawn(
            heartbeat::keep(self.database.clone(), self.jobs.clone(), claim.fence.clone(), control.clone())
                .in_current_span(),
        );
        let drain = tokio::spawn(drain(shutdown, self.drain, control.clone()));
        let outcome = self.work(&claim, token, &control).await;
        failpoint::reached("worker.before_settling");
        drain.abort();
        let settled = self.settle(&claim, &outcome, &control).await;
        beats.abort();
        let seconds = begun.elapsed().as_secs_f64();
        if let Settled::Done(state) = settled {
            measure(kind, &outcome, state, seconds);
        }
        report(kind, &outcome, settled, seconds, &control);
        if control.stopped() == Some(StopReason::Stalled) {
            // A thread hangs where nothing can reach it (a dead mount, say). Only a new process is free of it.
            tracing::info!("worker ends, a thread of it hangs");
            std::process::exit(70);
        }
    }

    /// The work, in a task of its own so that a panic ends the attempt and nothing else.
    async fn work(&self, claim: &Claim, token: Uuid, control: &Control) -> Result<Done, Failure> {
        let (attempts, claim, shared) = (self.clone(), claim.clone(), control.clone());
        let task = async move { attempts.do_work(&claim, token, &shared).await };
        let mut running: JoinHandle<_> = tokio::spawn(task.in_current_span());
        let joined = tokio::select! {
            joined = &mut running => joined,
            () = control.wait() => match timeout(grace(control), &mut running).await {
                Ok(joined) => joined,
                Err(_) => {
                    running.abort();
                    return Err(Failure::stopped(control.stopped().unwrap_or(StopReason::Stalled)));
                }
            },
        };
        joined.unwrap_or_else(|error| Err(Failure::task(error)))
    }

    async fn do_work(&self, claim: &Claim, token: Uuid, control: &Control) -> Result<Done, Failure> {
        match &claim.work {
            Work::Export => {
                let key = SnapshotKey { job: claim.fence.job, attempt: claim.fence.attempt, token };
                let (area, scratch, packer) = (self.area.clone(), self.scratch.clone(), self.packer.clone());
                let place = Place { area, key, scratch, packer, kept_in_cache: limits::KEPT_IN_CACHE };
                let order = Order { cell: claim.cell_id.clone(), unit_url: self.unit_url.clone(), place };
                export::export(Arc::clone(&self.source), order, control).await.map(Done::Exported)
            }
            Work::Import(source) => self.import(claim, source, control).await,
            Work::DryRun(source) => self.examine(claim, source, control).await,
        }
    }

    async fn import(&self, claim: &Claim, source: &ImportSource, control: &Control) -> Result<Done, Failure> {
        let import = control.phase("open snapshot", self.prepare(claim, source, control)).await?;
        let generation = {
            let mut connection = store::connect(&self.database, "cell-export import").await.map_err(Failure::store)?;
            generations::begin(&mut connection, Some(&claim.fence)).await.map_err(Failure::store)?
        };
        failpoint::reached("import.begun");
        // Whatever goes wrong from here on, the generation is garbage as soon as the attempt is over.
        let filled = import::fill(&self.places, import, &generation, control).await;
        let filled = filled.map_err(|error| Failure::import(error, control))?;
        failpoint::reached("import.staged");
        let result = serde_json::to_string(&import::Report::of(&filled));
        let result = result.map_err(|error| Failure::internal(error.to_string()))?;
        Ok(Done::Imported { contents: filled.contents, result, amount: filled.summary.amount() })
    }

    async fn examine(&self, claim: &Claim, source: &ImportSource, control: &Control) -> Result<Done, Failure> {
        let import = control.phase("open snapshot", self.prepare(claim, source, control)).await?;
        let examined = import::examine(&self.places, import, &claim.cell_id, control).await;
        let examined = examined.map_err(|error| Failure::import(error, control))?;
        let result = serde_json::to_string(&examined).map_err(|error| Failure::internal(error.to_string()))?;
        Ok(Done::Examined { result, amount: examined.amount })
    }

    /// Opens the snapshot, and finds out what it becomes: name, owner and id are the target's.
    async fn prepare(&self, claim: &Claim, source: &ImportSource, control: &Control) -> Result<Import, Failure> {
        let target = {
            let mut connection = store::connect(&self.database, "cell-export import").await.map_err(Failure::store)?;
            cells::target(&mut connection, &claim.cell_id).await.map_err(Failure::store)?
        };
        let target = target.ok_or_else(Failure::cell_gone)?;
        let (area, key, shared) = (self.area.clone(), source.key.clone(), control.clone());
        let opening = tokio::task::spawn_blocking(move || area.fetch(&key, &mut |bytes| shared.go_on(bytes)));
        let file = opening.await.map_err(|error| Failure::internal(error.to_string()))?;
        Ok(Import {
            file: file.map_err(|error| Failure::moving("read snapshot file", error, control))?,
            origin: if source.ours { Origin::Ours } else { Origin::Anybody },
            cell: NewCell { id: Some(target.id), name: Some(target.name), owner: Owner::Is(target.owner) },
        })
    }

    /// Writes what became of the attempt, for as long as the lease can last.
    async fn settle(&self, claim: &Claim, outcome: &Result<Done, Failure>, control: &Control) -> Settled {
        let span = control.trace().phase(match outcome {
            Ok(Done::Imported { .. }) => "swap contents",
            Ok(Done::Exported(_) | Done::Examined { .. }) => "publish",
            Err(_) => "settle",
        });
        let until = Instant::now() + self.jobs.lease;
        loop {
            match self.settle_once(claim, outcome).await {
                Ok(settled) => return settled,
                Err(error) if Instant::now() >= until => {
                    span.fail(Chain(&error).to_string());
                    return Settled::Unknown(error);
                }
                Err(error) => {
                    tracing::debug!(error = %Chain(&error), "trying again to settle the job");
                    sleep(Duration::from_millis(500)).await;
                }
            }
        }
    }

    /// Each try on a fresh connection: after a lost answer nothing that the old one says can be trusted.
    async fn settle_once(&self, claim: &Claim, outcome: &Result<Done, Failure>) -> Result<Settled, StoreError> {
        let lost = |decision| matches!(decision, Decision::Stop(StopReason::Lost | StopReason::Stalled));
        if outcome.as_ref().is_err_and(|failure| lost(failure.decision)) {
            // There is nothing to write, and the database may be what is away.
            return Ok(Settled::Lost);
        }
        let mut connection = store::connect(&self.database, "cell-export settle").await?;
        let connection = &mut connection;
        let failure = match outcome {
            Ok(done) => return succeed(connection, claim, done, &self.jobs).await,
            Err(failure) => failure,
        };
        match failure.decision {
            Decision::Stop(StopReason::Lost | StopReason::Stalled) => Ok(Settled::Lost),
            Decision::Stop(StopReason::Cancelled) => {
                end(connection, claim, JobState::Cancelled, &cancelled(claim)).await
            }
            Decision::Stop(StopReason::Deadline) => {
                let error = ErrorCode::Deadline.with(&[claim.work.kind().noun()]);
                end(connection, claim, JobState::Failed, &error).await
            }
            Decision::Fail => end(connection, claim, JobState::Failed, &failure.error).await,
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
#[derive(Debug)]
enum Settled {
    /// The row was moved to this state, by this attempt.
    Done(&'static str),
    /// The attempt no longer owns the job.
    Lost,
    /// The database could not be asked. The lease will run out.
    Unknown(StoreError),
}

/// Work that is done; no row says so yet.
#[derive(Debug)]
enum Done {
    /// The snapshot is complete.
    Exported(FinishedBlob),
    /// The new contents of the cell are stored.
    Imported { contents: NewContents, result: String, amount: Amount },
    /// It is known what an import would do.
    Examined { result: String, amount: Amount },
}

impl Done {
    fn amount(&self) -> Amount {
        match self {
            Self::Exported(blob) => blob.contents,
            Self::Imported { amount, .. } | Self::Examined { amount, .. } => *amount,
        }
    }
}

/// The span of an attempt, below the request that asked for the job.
fn trace(claim: &Claim) -> TraceSpan {
    let span = TraceSpan::attempt(claim.work.kind().name(), claim.trace.as_ref());
    span.set("job.id", claim.fence.job.to_string());
    span.set("cell.name", claim.cell_name.clone().unwrap_or_default());
    span.set("snapshot.name", claim.name.to_string());
    span.set("attempt", i64::from(claim.fence.attempt));
    span
}

/// Counts an attempt whose row says what became of it.
fn measure(kind: JobKind, outcome: &Result<Done, Failure>, state: &str, seconds: f64) {
    let queued = state == JobState::Queued.name();
    match outcome {
        Ok(done) => {
            metrics::done(kind, done.amount());
            metrics::took(kind, seconds);
        }
        Err(failure) => match failure.decision {
            Decision::Retry if queued => metrics::retried("retry"),
            Decision::Wait if queued => metrics::retried("wait"),
            Decision::Stop(StopReason::Shutdown) => {}
            Decision::Retry | Decision::Wait | Decision::Fail | Decision::Stop(_) => metrics::took(kind, seconds),
        },
    }
}

/// Says how an attempt ended: in one line of the log, and to the trace. Why it was told to stop counts only now: the
/// heartbeat takes a job that has just been settled for one that was lost.
fn report(kind: JobKind, outcome: &Result<Done, Failure>, settled: Settled, seconds: f64, control: &Control) {
    let stopped = control.cause();
    // What says no more than that it was told to stop is left out.
    let failure = outcome.as_ref().err().filter(|failure| !matches!(failure.decision, Decision::Stop(_)));
    let failure = failure.map(|failure| Chain(failure).to_string());
    let trace = control.trace();
    match (outcome, settled) {
        (Ok(done), Settled::Done(state)) => {
            let Amount { documents, files, bytes } = done.amount();
            tracing::info!(kind = kind.name(), seconds, bytes, documents, files, state, "job ends");
            trace.set("job.state", state);
        }
        (Err(cause), Settled::Done(state)) => {
            tracing::warn!(seconds, state, decision = ?cause.decision, error = %Chain(cause), "attempt failed");
            trace.set("job.state", state);
            if !matches!(cause.decision, Decision::Stop(StopReason::Cancelled | StopReason::Shutdown)) {
                trace.fail(Chain(cause).to_string());
            }
        }
        (_, Settled::Unknown(error)) => {
            let error = Chain(&error).to_string();
            let words = "cannot reach the database, leaving the job to its lease";
            tracing::warn!(seconds, error, attempt.error = failure, stopped, "{words}");
            trace.fail(error);
        }
        (_, Settled::Lost) if control.stopped() == Some(StopReason::Stalled) => {
            tracing::error!(seconds, error = failure, stopped, "the job hangs, leaving it to its lease");
            trace.fail("the job hangs");
        }
        (_, Settled::Lost) => {
            let words = "the job may belong to another attempt now, leaving it alone";
            tracing::warn!(seconds, error = failure, stopped, "{words}");
            trace.fail("the job was lost");
        }
    }
    // Whoever hangs may hold it for ever.
    trace.end();
}

async fn succeed(
    connection: &mut PgConnection,
    claim: &Claim,
    done: &Done,
    settings: &JobSettings,
) -> Result<Settled, StoreError> {
    let fence = &claim.fence;
    let succeeded = match done {
        Done::Exported(blob) => jobs::succeed(connection, fence, blob).await?,
        Done::Imported { contents, result, amount } => {
            jobs::succeed_import(connection, fence, &claim.cell_id, contents, result, *amount).await?
        }
        Done::Examined { result, amount } => jobs::succeed_dry_run(connection, fence, result, *amount).await?,
    };
    if succeeded {
        return Ok(Settled::Done(JobState::Succeeded.name()));
    }
    // Nothing changed. Either an earlier try did it and its answer got lost, or the job was cancelled, or it is lost.
    // A job succeeds by its last attempt, and no attempt follows this one while it is the last.
    let view = jobs::find(connection, fence.job).await?;
    if view.is_some_and(|view| view.state == JobState::Succeeded && view.attempt == fence.attempt) {
        return Ok(Settled::Done(JobState::Succeeded.name()));
    }
    let progress = model::job::Progress::default();
    match jobs::beat(connection, fence, settings.lease, &progress).await? {
        Some(beat) if beat.cancel => end(connection, claim, JobState::Cancelled, &cancelled(claim)).await,
        Some(_) => Err(StoreError::Corrupt { table: "job", column: "state", row: fence.job.to_string() }),
        None => Ok(Settled::Lost),
    }
}

fn cancelled(claim: &Claim) -> ErrorBody {
    ErrorCode::Cancelled.with(&[claim.work.kind().noun()])
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
        Requeued::Cancelled => end(connection, claim, JobState::Cancelled, &cancelled(claim)).await,
        Requeued::Lost => Ok(Settled::Lost),
    }
}

/// How long an attempt that must stop may take for it.
fn grace(control: &Control) -> Duration {
    match control.stopped() {
        Some(StopReason::Cancelled) => limits::CANCEL_GRACE,
        Some(StopReason::Lost | StopReason::Deadline | StopReason::Stalled | StopReason::Shutdown) | None => {
            limits::STOP_GRACE
        }
    }
}

/// After the process was asked to end: lets the job go on for a while, then stops it.
async fn drain(shutdown: CancellationToken, patience: Duration, control: Control) {
    shutdown.cancelled().await;
    sleep(patience).await;
    control.stop(StopReason::Shutdown);
}

#[cfg(test)]
mod tests {
    use model::area::{BlobStore, Pieces};
    use model::cell::CellId;
    use model::settings::Variables;
    use model::snapshot_name::SnapshotName;
    use model::store::jobs::Fence;

    use bytes::Bytes;

    use super::*;
    use crate::snapshot::Effort;
    use crate::source::ContentRef;
    use crate::source::postgres::PostgresView;

    /// A source with a fault of its own.
    #[derive(Debug, Clone)]
    struct Faulty;

    impl CellSource for Faulty {
        type View = PostgresView;

        async fn open(&self, cell: &CellId) -> Result<PostgresView, Failure> {
            panic!("no view of {cell}")
        }

        async fn small_contents(&self, _: Vec<ContentRef>) -> Vec<Result<Bytes, object_store::Error>> {
            panic!("no contents")
        }

        async fn content(&self, _: Uuid) -> Result<Pieces, object_store::Error> {
            panic!("no contents")
        }
    }

    #[tokio::test]
    async fn a_panic_ends_the_attempt_and_nothing_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let attempts = Attempts {
            source: Arc::new(Faulty),
            area: SnapshotArea::open(directory.path(), 0).expect("an area"),
            packer: Packer::new(Effort::default(), 1),
            unit_url: "http://localhost/".to_owned(),
            places: Places {
                database: String::new().into(),
                blobs: BlobStore::open(directory.path()).expect("a store"),
                reserve: 0,
            },
            scratch: directory.path().to_owned(),
            database: String::new().into(),
            jobs: JobSettings::read(&Variables::table(&[])).expect("defaults"),
            drain: Duration::ZERO,
        };
        let claim = Claim {
            fence: Fence { job: Uuid::nil(), attempt: 1, owner: String::new() },
            work: Work::Export,
            cell_id: CellId::parse("c").expect("an id"),
            cell_name: None,
            name: SnapshotName::parse("n").expect("a name"),
            strikes: 0,
            waited: Duration::ZERO,
            trace: None,
        };
        let failure = attempts.work(&claim, Uuid::nil(), &Control::default()).await.expect_err("it panics");
        assert_eq!(failure.decision, Decision::Retry);
        assert_eq!(failure.error, ErrorCode::Unknown.body(), "nothing of it reaches the user");
        assert!(Chain(&failure).to_string().contains("panic: no view of c"), "the log has it");
    }
}
