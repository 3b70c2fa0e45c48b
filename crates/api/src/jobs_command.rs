//! `api jobs`: the jobs of all cells, for operators. It goes by the same statements as everything else that moves jobs.

use chrono::{DateTime, Utc};
use model::job::JobState;
use model::limits;
use model::store::job_resources::{self, JobResource};
use model::store::jobs::{self, Cancelling};
use model::store::{self, StoreError};
use secrecy::SecretString;
use sqlx::PgConnection;
use uuid::Uuid;

/// What went wrong. For operators.
#[derive(Debug, thiserror::Error)]
pub enum JobsError {
    /// There is no job of this id.
    #[error("there is no such job")]
    Unknown,
    /// It ended before.
    #[error("the job has ended: {}", .0.name())]
    Ended(JobState),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

async fn connect(database: &SecretString) -> Result<PgConnection, StoreError> {
    store::connect(database, "cell-export jobs").await
}

/// Lists the active jobs, one a line: those that run first, then in the order of their turns.
///
/// # Errors
/// When the database cannot be asked.
pub async fn list(database: &SecretString) -> Result<String, JobsError> {
    let mut connection = connect(database).await?;
    let active = job_resources::active(&mut connection, limits::JOBS_LISTED).await?;
    let head = row("ID", ["STATE", "KIND", "DONE", "TRY", "WAITING", "ALIVE"], "CELL", "NAME");
    Ok([head]
        .into_iter()
        .chain(active.iter().map(|(job, cell)| line(job, cell.as_deref())))
        .collect::<Vec<_>>()
        .join("\n"))
}

fn line(job: &JobResource, cell: Option<&str>) -> String {
    let ago = |time: Option<DateTime<Utc>>| match time {
        Some(time) => format!("{} s", (job.read_at - time).num_seconds().max(0)),
        None => "-".to_owned(),
    };
    // Of one that waits only how long it has, of one that runs only when its worker was last heard.
    let (waiting, alive) = match job.state {
        JobState::Queued => (ago(Some(job.accepted_at)), ago(None)),
        JobState::Running | JobState::Succeeded | JobState::Failed | JobState::Cancelled => {
            (ago(None), ago(job.heartbeat_at.or(job.attempt_at)))
        }
    };
    let state = if job.cancel_requested { "cancelling" } else { job.state.name() };
    let (done, attempt) = (format!("{} %", job.percent), job.attempt.to_string());
    let columns = [state, job.kind.name(), &done, &attempt, &waiting, &alive];
    row(&job.id.to_string(), columns, cell.unwrap_or("(deleted)"), job.name.as_str())
}

fn row(id: &str, [state, kind, done, attempt, waiting, alive]: [&str; 6], cell: &str, name: &str) -> String {
    format!("{id:<36}  {state:<10}  {kind:<7}  {done:>4}  {attempt:>3}  {waiting:>8}  {alive:>6}  {cell}  {name}")
}

/// Cancels a job, whosever cell it is of.
///
/// # Errors
/// When there is no such job, it has ended, or the database cannot be asked.
pub async fn cancel(database: &SecretString, id: Uuid) -> Result<String, JobsError> {
    let mut connection = connect(database).await?;
    let job = job_resources::many(&mut connection, &[id]).await?.pop().ok_or(JobsError::Unknown)?;
    match jobs::cancel(&mut connection, &job.cell, id).await? {
        Cancelling::Cancelled => Ok("cancelled".to_owned()),
        Cancelling::Requested => Ok("its worker was told; without one it ends when its lease does".to_owned()),
        Cancelling::AlreadyFinal(state) => Err(JobsError::Ended(state)),
        Cancelling::Unknown => Err(JobsError::Unknown),
    }
}
