//! Every statement that creates, moves or reads a job. Nothing else in the services changes a job.
//!
//! One function per transition. Each states its precondition in `WHERE` (state, attempt, owner), does its work in one
//! transaction, and counts what it changed; the guard trigger and the constraints of the migrations hold behind it.
//! Transactions are begun here because a transition *is* a transaction; none of them waits for anything but the
//! database. All times are the database's.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::StoreError;
use super::cells::{self, Cell};
use super::room::Room;
use crate::cell::{CellId, CellName};
use crate::error_code::{ErrorBody, ErrorCode};
use crate::failpoint;
use crate::job::{Amount, JobKind, JobState, Progress, Reaping};
use crate::limits;
use crate::message::Bell;
use crate::metrics;
use crate::snapshot_name::SnapshotName;
use crate::trace_context::TraceContext;

/// Why a request was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// Another job of the cell is active.
    #[error("the cell has an active job")]
    CellBusy,
    /// The cell was deleted in the meantime.
    #[error("the cell is gone")]
    CellGone,
    /// The snapshot to import was replaced or removed in the meantime.
    #[error("the snapshot is another one now")]
    SourceChanged,
    /// `NAME.zip` exists, or another job is making it.
    #[error("the snapshot name is taken")]
    NameTaken,
    /// A request with this key was accepted before: see [`super::job_resources::ordered_with`].
    #[error("the key was used before")]
    KeyUsed,
    /// The cell holds as many snapshots as it may.
    #[error("the cell has too many snapshots")]
    TooMany,
    /// As many jobs wait as may.
    #[error("the queue is full")]
    QueueFull,
    /// The cell's owner has as many active jobs as an owner may have.
    #[error("the owner has too many active jobs")]
    OwnerBusy,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An order: what is to be done with a cell, under which name, and for how long it may be tried.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Id of the job, new.
    pub id: Uuid,
    /// The cell.
    pub cell: CellId,
    /// The snapshot to make or to import.
    pub name: SnapshotName,
    /// See [`limits::DEADLINE`].
    pub deadline: Duration,
    /// Strikes at which it fails for good.
    pub max_strikes: i32,
    /// How many there may be.
    pub admission: Admission,
    /// What tells a repeated request from a new one.
    pub idempotency: Option<Idempotency>,
    /// The span that asks for it.
    pub trace: Option<TraceContext>,
}

/// The key of a request that may be sent again, and what it asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// The client's word.
    pub key: String,
    /// SHA-256 of the rest.
    pub body: [u8; 32],
}

/// How many jobs may be there for one more to be accepted. Requests at the same moment can exceed this by their number.
/// Cheap to clone: one for all requests of a process.
#[derive(Debug, Clone)]
pub struct Admission {
    /// See [`limits::JOBS_QUEUED`].
    pub queued: i64,
    /// See [`limits::JOBS_OF_OWNER`].
    pub of_owner: i64,
    room: Arc<Room>,
}

impl Admission {
    /// So many, of which nothing was counted yet.
    pub fn new(queued: i64, of_owner: i64) -> Self {
        Self { queued, of_owner, room: Arc::default() }
    }

    /// Tells whether one more may wait. Counts if nobody has done so lately, and no further than the limit.
    async fn has_room(&self, connection: &mut PgConnection) -> Result<bool, StoreError> {
        if self.room.take() {
            return Ok(true);
        }
        let waiting = sqlx::query_scalar!(
            r#"SELECT count(*) AS "count!" FROM (SELECT 1 FROM job WHERE state = 'queued' LIMIT $1) q"#,
            self.queued
        );
        let waiting = waiting.fetch_one(connection).await.map_err(StoreError::doing("count waiting jobs"))?;
        Ok(self.room.counted(self.queued - waiting))
    }
}

impl Default for Admission {
    fn default() -> Self {
        Self::new(limits::JOBS_QUEUED, limits::JOBS_OF_OWNER)
    }
}

/// What proves that an attempt still owns its job: the number and the random token of its claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// The job.
    pub job: Uuid,
    /// Number of the attempt.
    pub attempt: i32,
    /// Token of the claim.
    pub owner: String,
}

/// A job that was claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// What later statements must show.
    pub fence: Fence,
    /// What is to be done.
    pub work: Work,
    /// The cell to export or to import into.
    pub cell_id: CellId,
    /// The cell's name, while it exists.
    pub cell_name: Option<String>,
    /// Name of the snapshot.
    pub name: SnapshotName,
    /// Strikes so far.
    pub strikes: i32,
    /// How long after the request.
    pub waited: Duration,
    /// The span that asked for it.
    pub trace: Option<TraceContext>,
}

/// What a claimed job asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// Make a snapshot.
    Export,
    /// Make the cell what a snapshot says.
    Import(ImportSource),
    /// Find out what an import would do.
    DryRun(ImportSource),
}

/// The snapshot file of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportSource {
    /// Key in the snapshot area.
    pub key: String,
    /// An export of this installation wrote it, so that it may expand as much as it likes.
    pub ours: bool,
}

impl Work {
    /// The kind of job this is.
    pub fn kind(&self) -> JobKind {
        match self {
            Self::Export => JobKind::Export,
            Self::Import(_) => JobKind::Import,
            Self::DryRun(_) => JobKind::DryRun,
        }
    }
}

/// A cell's new contents, complete and durable, and not named by the cell yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewContents {
    /// The generation that holds them.
    pub generation: String,
    /// The cell document.
    pub document: String,
}

/// A finished snapshot file, complete and durable under a key no other attempt can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishedBlob {
    /// Key in the snapshot area.
    pub key: String,
    /// Length in bytes.
    pub size: u64,
    /// SHA-256.
    pub sha256: [u8; 32],
    /// What it holds: the job's progress in the end, however long ago its last heartbeat was.
    pub contents: Amount,
}

/// What a heartbeat learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    /// Somebody asked for the job to be cancelled.
    pub cancel: bool,
    /// The job's time is up.
    pub past_deadline: bool,
}

/// What became of an attempt that was given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requeued {
    /// It will be tried again.
    Queued,
    /// The budget is used up; the job must fail.
    OutOfStrikes,
    /// Somebody asked for it to be cancelled; the job must end so.
    Cancelled,
    /// The attempt no longer owned the job.
    Lost,
}

/// What became of a request to cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelling {
    /// It had not started and is cancelled.
    Cancelled,
    /// It runs; its worker will stop.
    Requested,
    /// It was final before.
    AlreadyFinal(JobState),
    /// There is no such job.
    Unknown,
}

/// A job as clients and doubting workers see it.
#[derive(Debug, Clone, PartialEq)]
pub struct JobView {
    /// The job.
    pub id: Uuid,
    /// What it does.
    pub kind: JobKind,
    /// Its state.
    pub state: JobState,
    /// Attempts so far.
    pub attempt: i32,
    /// Token of the attempt that runs.
    pub lease_owner: Option<String>,
    /// Name of the snapshot.
    pub name: SnapshotName,
    /// When it was accepted.
    pub accepted_at: DateTime<Utc>,
    /// How far the current attempt is.
    pub progress: Progress,
    /// How far any attempt was, in percent.
    pub percent: u8,
    /// Key of the finished zip.
    pub blob_key: Option<String>,
    /// When it became final.
    pub finished_at: Option<DateTime<Utc>>,
    /// Why it failed.
    pub error: Option<ErrorBody>,
    /// What an import did or a dry run found: a JSON object.
    pub result: Option<String>,
}

/// T1: accepts an export. Answer 202 only after this returned `Ok`.
///
/// The unique indexes decide: one active job per cell, one file per name. An old `NAME.error` gives way. One statement,
/// a transaction of its own.
///
/// # Errors
/// [`AcceptError`]; nothing is stored then.
pub async fn accept(connection: &mut PgConnection, job: &NewJob) -> Result<(), AcceptError> {
    failpoint::reached("job.before_accepting");
    insert(connection, job, &Work::Export).await
}

/// T1 for an import or a dry run of a visible snapshot. `key` is the file that was looked at: the same one is imported
/// whatever becomes of the name, and the name stays as it is while the job is active (see [`super::snapshots`]).
///
/// # Errors
/// [`AcceptError`]; nothing is stored then.
pub async fn accept_import(
    connection: &mut PgConnection,
    job: &NewJob,
    kind: JobKind,
    key: &str,
) -> Result<(), AcceptError> {
    let mut tx = connection.begin().await.map_err(StoreError::doing("begin to accept an import"))?;
    // The cell first, as whoever deletes it does: no two transactions wait for each other.
    hold_cell(&mut tx, &job.cell).await?;
    // Shared with other readers; whoever replaces or removes the snapshot waits, or was first.
    let entry = sqlx::query!(
        r#"
        SELECT job_id IS NOT NULL AS "ours!" FROM snapshot_entry
        WHERE cell_id = $1 AND base_name = $2 AND blob_key = $3
        FOR SHARE
        "#,
        job.cell.as_str(),
        job.name.as_str(),
        key
    )
    .fetch_optional(&mut *tx)
    .await
    .map_err(StoreError::doing("hold a snapshot"))?;
    let source = ImportSource { key: key.to_owned(), ours: entry.ok_or(AcceptError::SourceChanged)?.ours };
    let work = match kind {
        JobKind::DryRun => Work::DryRun(source),
        JobKind::Import | JobKind::Export => Work::Import(source),
    };
    insert(&mut tx, job, &work).await?;
    tx.commit().await.map_err(StoreError::doing("commit an accepted import"))?;
    Ok(())
}

/// Keeps a cell from being deleted until the transaction ends, and others from accepting jobs for it: they would wait for
/// each other's rows.
async fn hold_cell(tx: &mut PgConnection, cell: &CellId) -> Result<(), AcceptError> {
    let held = sqlx::query_scalar!("SELECT id FROM cell WHERE id = $1 FOR NO KEY UPDATE", cell.as_str())
        .fetch_optional(tx)
        .await
        .map_err(StoreError::doing("hold a cell"))?;
    held.map(drop).ok_or(AcceptError::CellGone)
}

/// Inserts a job, unless there are too many, and reserves the name of an export; without the one nothing becomes of the
/// other. Whoever deletes the cell waits and then sees the job, or was first and leaves none to insert for.
///
/// What is asked for of active jobs comes in the order of the one index that is meant (see `super::PLANS`).
async fn insert(connection: &mut PgConnection, job: &NewJob, work: &Work) -> Result<(), AcceptError> {
    if !job.admission.has_room(connection).await? {
        // Whoever is refused locks nothing.
        let cell = cells::target(connection, &job.cell).await?;
        return Err(cell.map_or(AcceptError::CellGone, |_| AcceptError::QueueFull));
    }
    let source = match work {
        Work::Export => None,
        Work::Import(source) | Work::DryRun(source) => Some(source),
    };
    let inserted = sqlx::query!(
        r#"
        WITH held AS (
          SELECT id, coalesce(owner, id) AS owner FROM cell WHERE id = $2 FOR NO KEY UPDATE
        ), admitted AS (
          SELECT id, owner FROM held
          WHERE (SELECT count(*) FROM (
                   SELECT FROM job WHERE owner = held.owner AND state IN ('queued', 'running')
                   ORDER BY turn LIMIT $9) o) < $9
        ), reserved AS (
          INSERT INTO snapshot_entry (cell_id, base_name, kind, job_id)
          SELECT id, $3, 'pending', $1 FROM admitted
          WHERE $6 = 'export'
            AND (SELECT count(*) FROM snapshot_entry WHERE cell_id = $2 AND base_name <> $3) < $14
          ON CONFLICT (cell_id, base_name) DO UPDATE
            SET kind = 'pending', job_id = excluded.job_id, body = NULL, content_type = NULL, version = 1,
                created_at = clock_timestamp(), modified_at = clock_timestamp()
            WHERE snapshot_entry.kind = 'error'
          RETURNING base_name
        )
        INSERT INTO job (id, cell_id, name, deadline_at, max_strikes, kind, source_key, source_ours,
                         idempotency_key, idempotency_body, traceparent, tracestate, owner, turn)
        SELECT $1, id, $3, clock_timestamp() + make_interval(secs => $4), $5, $6, $7, $8, $10, $11, $12, $13, owner,
               1 + greatest(
                 (SELECT turn FROM job WHERE owner = admitted.owner AND state IN ('queued', 'running')
                  ORDER BY turn DESC LIMIT 1),
                 (SELECT turn FROM job WHERE state = 'queued' ORDER BY turn, accepted_at LIMIT 1),
                 0)
        FROM admitted
        WHERE $6 <> 'export' OR EXISTS (SELECT FROM reserved)
        "#,
        job.id,
        job.cell.as_str(),
        job.name.as_str(),
        job.deadline.as_secs_f64(),
        job.max_strikes,
        work.kind().name(),
        source.map(|s| s.key.as_str()),
        source.is_some_and(|s| s.ours),
        job.admission.of_owner,
        job.idempotency.as_ref().map(|i| i.key.as_str()),
        job.idempotency.as_ref().map(|i| &i.body[..]),
        job.trace.as_ref().map(TraceContext::parent),
        job.trace.as_ref().and_then(TraceContext::state),
        limits::SNAPSHOTS_PER_CELL
    )
    .execute(&mut *connection)
    .await
    .map_err(StoreError::doing("insert a job"));
    match inserted {
        Ok(done) if done.rows_affected() == 1 => Ok(()),
        Ok(_) => Err(refusal(connection, job, work.kind()).await?),
        Err(error) => Err(match error.constraint() {
            Some("job_one_active_per_cell") => AcceptError::CellBusy,
            Some("job_idempotency") => AcceptError::KeyUsed,
            _ => AcceptError::Store(error),
        }),
    }
}

/// Says why no job was inserted. What stood in its way may be gone since; then it is said to be busy still.
async fn refusal(connection: &mut PgConnection, job: &NewJob, kind: JobKind) -> Result<AcceptError, StoreError> {
    let found = sqlx::query!(
        r#"
        SELECT EXISTS (SELECT FROM job WHERE cell_id = c.id AND state IN ('queued', 'running')) AS "busy!",
               (SELECT count(*) FROM (
                  SELECT FROM job WHERE owner = coalesce(c.owner, c.id) AND state IN ('queued', 'running')
                  ORDER BY turn LIMIT $3) o) AS "of_owner!",
               EXISTS (SELECT FROM snapshot_entry
                       WHERE cell_id = c.id AND base_name = $2 AND kind <> 'error') AS "taken!",
               (SELECT count(*) FROM snapshot_entry WHERE cell_id = c.id AND base_name <> $2) AS "others!"
        FROM cell c WHERE id = $1
        "#,
        job.cell.as_str(),
        job.name.as_str(),
        job.admission.of_owner
    )
    .fetch_optional(connection)
    .await
    .map_err(StoreError::doing("look why no job was inserted"))?;
    Ok(match found {
        None => AcceptError::CellGone,
        Some(found) if found.of_owner >= job.admission.of_owner => AcceptError::OwnerBusy,
        Some(found) if found.busy || kind != JobKind::Export => AcceptError::CellBusy,
        Some(found) if found.taken => AcceptError::NameTaken,
        Some(found) if found.others >= limits::SNAPSHOTS_PER_CELL => AcceptError::TooMany,
        Some(_) => AcceptError::CellBusy,
    })
}

/// T2: takes queued jobs whose doorbell is due and sets the next due time, *then* the caller rings.
/// A ring that gets lost is repeated: 15 s, doubled each time, at most 10 min.
pub async fn due(connection: &mut PgConnection, limit: i64) -> Result<Vec<Bell>, StoreError> {
    let due = sqlx::query!(
        r#"
        UPDATE job j
        SET dispatch_at = clock_timestamp()
              + least(interval '15 seconds' * power(2, least(j.dispatches, 6)), interval '10 minutes'),
            dispatches = j.dispatches + 1
        FROM (
          SELECT id FROM job
          WHERE state = 'queued' AND dispatch_at <= clock_timestamp() AND available_at <= clock_timestamp()
          ORDER BY dispatch_at
          LIMIT $1
          FOR UPDATE SKIP LOCKED
        ) d
        WHERE j.id = d.id
        RETURNING j.id, j.traceparent, j.tracestate
        "#,
        limit
    )
    .fetch_all(connection)
    .await
    .map_err(StoreError::doing("take due doorbells"))?;
    let bell = |job, parent, state| Bell { job, trace: trace(parent, state) };
    Ok(due.into_iter().map(|row| bell(row.id, row.traceparent, row.tracestate)).collect())
}

/// Reads what a row keeps of a trace. What cannot be read is no reason to stop.
fn trace(parent: Option<String>, state: Option<String>) -> Option<TraceContext> {
    TraceContext::read(&parent?, state.as_deref())
}

/// T3: claims one queued job: the one a doorbell named, or the one whose turn it is. `owner` must be new for every call.
pub async fn claim(
    connection: &mut PgConnection,
    id: Option<Uuid>,
    owner: &str,
    lease: Duration,
) -> Result<Option<Claim>, StoreError> {
    let row = sqlx::query!(
        r#"
        UPDATE job j
        SET state = 'running', attempt = j.attempt + 1, lease_owner = $2,
            lease_until = clock_timestamp() + make_interval(secs => $3),
            started_at = coalesce(j.started_at, clock_timestamp()), attempt_at = clock_timestamp(),
            heartbeat_at = clock_timestamp(), progress_at = clock_timestamp(), share = 0, remaining = NULL,
            done_documents = 0, done_files = 0, done_bytes = 0,
            total_documents = NULL, total_files = NULL, total_bytes = NULL
        FROM (
          SELECT id FROM job
          WHERE state = 'queued' AND ($1::uuid IS NULL OR id = $1)
            AND available_at <= clock_timestamp() AND deadline_at > clock_timestamp() AND NOT cancel_requested
          ORDER BY turn, accepted_at
          LIMIT 1
          FOR UPDATE SKIP LOCKED
        ) c
        WHERE j.id = c.id
        RETURNING j.id, j.attempt, j.cell_id, j.name, j.strikes, j.kind, j.source_key, j.source_ours,
                  j.traceparent, j.tracestate,
                  greatest(extract(epoch FROM clock_timestamp() - j.accepted_at), 0)::float8 AS "waited!",
                  (SELECT cell.name FROM cell WHERE cell.id = j.cell_id) AS cell_name
        "#,
        id,
        owner,
        lease.as_secs_f64()
    )
    .fetch_optional(connection)
    .await
    .map_err(StoreError::doing("claim a job"))?;
    row.map(|row| {
        let corrupt = |column| StoreError::Corrupt { table: "job", column, row: row.id.to_string() };
        Ok(Claim {
            cell_id: CellId::parse(&row.cell_id).ok_or_else(|| corrupt("cell_id"))?,
            name: SnapshotName::parse(&row.name).ok_or_else(|| corrupt("name"))?,
            fence: Fence { job: row.id, attempt: row.attempt, owner: owner.to_owned() },
            work: match (kind(&row.kind, row.id)?, row.source_key) {
                (JobKind::Export, _) => Work::Export,
                (JobKind::Import, Some(key)) => Work::Import(ImportSource { key, ours: row.source_ours }),
                (JobKind::DryRun, Some(key)) => Work::DryRun(ImportSource { key, ours: row.source_ours }),
                (JobKind::Import | JobKind::DryRun, None) => return Err(corrupt("source_key")),
            },
            cell_name: row.cell_name,
            strikes: row.strikes,
            waited: Duration::from_secs_f64(row.waited),
            trace: trace(row.traceparent, row.tracestate),
        })
    })
    .transpose()
}

/// T4: renews the lease, reports progress, reads the cancel flag. Nothing means: the job is lost, stop at once.
///
/// A lease that ran out but was not reaped is renewed too.
pub async fn beat(
    connection: &mut PgConnection,
    fence: &Fence,
    lease: Duration,
    progress: &Progress,
) -> Result<Option<Beat>, StoreError> {
    let row = sqlx::query!(
        r#"
        UPDATE job
        SET lease_until = clock_timestamp() + make_interval(secs => $4),
            heartbeat_at = clock_timestamp(),
            progress_at = CASE WHEN ($5, $6, $7) IS DISTINCT FROM (done_documents, done_files, done_bytes)
                               THEN clock_timestamp() ELSE progress_at END,
            done_documents = greatest(done_documents, $5),
            done_files = greatest(done_files, $6),
            done_bytes = greatest(done_bytes, $7),
            total_documents = coalesce($8, total_documents), total_files = coalesce($9, total_files),
            total_bytes = coalesce($10, total_bytes),
            share = greatest(share, $11), percent = greatest(percent, $12), remaining = $13
        WHERE id = $1 AND state = 'running' AND attempt = $2 AND lease_owner = $3
        RETURNING cancel_requested, clock_timestamp() > deadline_at AS "past_deadline!"
        "#,
        fence.job,
        fence.attempt,
        fence.owner,
        lease.as_secs_f64(),
        progress.done.documents as i64,
        progress.done.files as i64,
        progress.done.bytes as i64,
        progress.total.map(|t| t.documents as i64),
        progress.total.map(|t| t.files as i64),
        progress.total.map(|t| t.bytes as i64),
        progress.share,
        i16::from(progress.percent()),
        progress.remaining.map(|remaining| remaining.as_secs_f64())
    )
    .fetch_optional(connection)
    .await
    .map_err(StoreError::doing("renew a lease"))?;
    Ok(row.map(|row| Beat { cancel: row.cancel_requested, past_deadline: row.past_deadline }))
}

/// Tells whether somebody asked to cancel a job that the attempt still owns. A look that costs no write, so that it can
/// be had more often than a heartbeat.
pub async fn cancel_requested(connection: &mut PgConnection, fence: &Fence) -> Result<bool, StoreError> {
    Ok(owned(connection, fence).await?.unwrap_or(false))
}

/// Reads the cancel flag of a job that the attempt still owns; nothing when it does not.
async fn owned(connection: &mut PgConnection, fence: &Fence) -> Result<Option<bool>, StoreError> {
    sqlx::query_scalar!(
        r#"
        SELECT cancel_requested FROM job
        WHERE id = $1 AND state = 'running' AND attempt = $2 AND lease_owner = $3
        "#,
        fence.job,
        fence.attempt,
        fence.owner
    )
    .fetch_optional(connection)
    .await
    .map_err(StoreError::doing("look at a job"))
}

/// T5: makes the finished zip visible. `false`: the attempt no longer owns the job, or the job was cancelled;
/// read the row ([`find`]) before deciding anything.
pub async fn succeed(connection: &mut PgConnection, fence: &Fence, blob: &FinishedBlob) -> Result<bool, StoreError> {
    let mut tx = connection.begin().await.map_err(StoreError::doing("begin to finish a job"))?;
    let finished = sqlx::query!(
        r#"
        UPDATE job
        SET state = 'succeeded', blob_key = $4, blob_size = $5, blob_sha256 = $6, finished_at = clock_timestamp(),
            lease_owner = NULL, lease_until = NULL,
            done_documents = $7, total_documents = $7, done_files = $8, total_files = $8,
            done_bytes = $9, total_bytes = $9
        WHERE id = $1 AND state = 'running' AND attempt = $2 AND lease_owner = $3 AND NOT cancel_requested
        "#,
        fence.job,
        fence.attempt,
        fence.owner,
        blob.key,
        blob.size as i64,
        &blob.sha256[..],
        blob.contents.documents as i64,
        blob.contents.files as i64,
        blob.contents.bytes as i64
    )
    .execute(&mut *tx)
    .await
    .map_err(StoreError::doing("finish a job"))?;
    if finished.rows_affected() != 1 {
        return Ok(false);
    }
    let shown = sqlx::query!(
        r#"
        UPDATE snapshot_entry
        SET kind = 'zip', blob_key = $2, size = $3, sha256 = $4, version = 1,
            created_at = clock_timestamp(), modified_at = clock_timestamp()
        WHERE job_id = $1 AND kind = 'pending'
        "#,
        fence.job,
        blob.key,
        blob.size as i64,
        &blob.sha256[..]
    )
    .execute(&mut *tx)
    .await
    .map_err(StoreError::doing("show a snapshot"))?;
    if shown.rows_affected() != 1 {
        // Dropping the transaction rolls the job back too.
        return Err(StoreError::Corrupt { table: "snapshot_entry", column: "job_id", row: fence.job.to_string() });
    }
    failpoint::reached("job.before_success");
    tx.commit().await.map_err(StoreError::doing("commit a finished job"))?;
    metrics::ended(JobKind::Export, JobState::Succeeded);
    failpoint::reached("job.after_success");
    Ok(true)
}

/// T5 of an import: the cell names its new contents, in the transaction that ends the job. The old contents are
/// retired with it. `false` as in [`succeed`].
pub async fn succeed_import(
    connection: &mut PgConnection,
    fence: &Fence,
    cell: &CellId,
    contents: &NewContents,
    result: &str,
    done: Amount,
) -> Result<bool, StoreError> {
    let mut tx = connection.begin().await.map_err(StoreError::doing("begin to finish an import"))?;
    super::cells::take(&mut tx, cell).await?;
    if !succeed_with_result(&mut tx, fence, result, done).await? {
        return Ok(false);
    }
    if !super::cells::replace_contents(&mut tx, cell, contents).await? {
        // Dropping the transaction rolls the job back too. A cell with an active job is not deleted.
        return Err(StoreError::Corrupt { table: "cell", column: "generation", row: cell.to_string() });
    }
    failpoint::reached("job.before_import");
    tx.commit().await.map_err(StoreError::doing("commit a finished import"))?;
    metrics::ended(JobKind::Import, JobState::Succeeded);
    failpoint::reached("job.after_import");
    Ok(true)
}

/// T5 of a dry run. `false` as in [`succeed`].
pub async fn succeed_dry_run(
    connection: &mut PgConnection,
    fence: &Fence,
    result: &str,
    done: Amount,
) -> Result<bool, StoreError> {
    let succeeded = succeed_with_result(connection, fence, result, done).await?;
    if succeeded {
        metrics::ended(JobKind::DryRun, JobState::Succeeded);
    }
    Ok(succeeded)
}

async fn succeed_with_result(
    connection: &mut PgConnection,
    fence: &Fence,
    result: &str,
    done: Amount,
) -> Result<bool, StoreError> {
    let finished = sqlx::query!(
        r#"
        UPDATE job
        SET state = 'succeeded', result = $4, finished_at = clock_timestamp(), lease_owner = NULL, lease_until = NULL,
            done_documents = $5, total_documents = $5, done_files = $6, total_files = $6,
            done_bytes = $7, total_bytes = $7
        WHERE id = $1 AND state = 'running' AND attempt = $2 AND lease_owner = $3 AND NOT cancel_requested
          AND kind <> 'export'
        "#,
        fence.job,
        fence.attempt,
        fence.owner,
        result,
        done.documents as i64,
        done.files as i64,
        done.bytes as i64
    )
    .execute(connection)
    .await
    .map_err(StoreError::doing("finish a job"))?;
    Ok(finished.rows_affected() == 1)
}

/// T6: ends a running job for good. `state` is failed or cancelled. `false`: the attempt no longer owns the job.
pub async fn fail(
    connection: &mut PgConnection,
    fence: &Fence,
    state: JobState,
    error: &ErrorBody,
) -> Result<bool, StoreError> {
    let mut tx = connection.begin().await.map_err(StoreError::doing("begin to fail a job"))?;
    let error = error.clone().for_file().to_json();
    let failed = sqlx::query_scalar!(
        r#"
        UPDATE job
        SET state = ($4::text)::job_state, error = $5, finished_at = clock_timestamp(),
            lease_owner = NULL, lease_until = NULL
        WHERE id = $1 AND state = 'running' AND attempt = $2 AND lease_owner = $3
        RETURNING kind
        "#,
        fence.job,
        fence.attempt,
        fence.owner,
        state.name(),
        error
    )
    .fetch_optional(&mut *tx)
    .await
    .map_err(StoreError::doing("fail a job"))?;
    let Some(name) = failed else { return Ok(false) };
    let kind = kind(&name, fence.job)?;
    if kind == JobKind::Export {
        show_error(&mut tx, fence.job, &error).await?;
    }
    failpoint::reached("job.before_failure");
    tx.commit().await.map_err(StoreError::doing("commit a failed job"))?;
    metrics::ended(kind, state);
    failpoint::reached("job.after_failure");
    Ok(true)
}

/// T7: gives a running job back, unless it is to be cancelled: nobody would claim it again. `strike` says whether the attempt counts against the budget: a failure does, a
/// shutdown or a full disk does not. `failure` is what the job fails with when nothing better comes.
pub async fn requeue(
    connection: &mut PgConnection,
    fence: &Fence,
    delay: Duration,
    strike: bool,
    failure: Option<&ErrorBody>,
) -> Result<Requeued, StoreError> {
    let failure = failure.map(|f| f.clone().for_file().to_json());
    let queued = sqlx::query!(
        r#"
        UPDATE job
        SET state = 'queued', lease_owner = NULL, lease_until = NULL, strikes = strikes + $4,
            available_at = clock_timestamp() + make_interval(secs => $5),
            dispatch_at = clock_timestamp() + make_interval(secs => $5), dispatches = 0,
            last_failure = coalesce($6, last_failure)
        WHERE id = $1 AND state = 'running' AND attempt = $2 AND lease_owner = $3
          AND ($4 = 0 OR strikes + $4 < max_strikes) AND NOT cancel_requested
        "#,
        fence.job,
        fence.attempt,
        fence.owner,
        i32::from(strike),
        delay.as_secs_f64(),
        failure
    )
    .execute(&mut *connection)
    .await
    .map_err(StoreError::doing("requeue a job"))?;
    failpoint::reached("job.after_requeue");
    if queued.rows_affected() == 1 {
        return Ok(Requeued::Queued);
    }
    Ok(match owned(connection, fence).await? {
        None => Requeued::Lost,
        Some(true) => Requeued::Cancelled,
        Some(false) => Requeued::OutOfStrikes,
    })
}

/// T8: cancels a job of a cell. A queued one at once, a running one through its worker.
pub async fn cancel(connection: &mut PgConnection, cell: &CellId, id: Uuid) -> Result<Cancelling, StoreError> {
    let mut tx = connection.begin().await.map_err(StoreError::doing("begin to cancel a job"))?;
    let row = sqlx::query!(
        r#"SELECT state::text AS "state!", kind FROM job WHERE id = $1 AND cell_id = $2 FOR UPDATE"#,
        id,
        cell.as_str()
    )
    .fetch_optional(&mut *tx)
    .await
    .map_err(StoreError::doing("lock a job"))?;
    let Some(row) = row else { return Ok(Cancelling::Unknown) };
    let kind = kind(&row.kind, id)?;
    let outcome = match state(&row.state, id)? {
        JobState::Queued => {
            let locked = Locked { id, from: JobState::Queued, kind };
            let error = ErrorCode::Cancelled.with(&[locked.kind.noun()]);
            locked.end(&mut tx, JobState::Cancelled, &error).await?;
            Cancelling::Cancelled
        }
        JobState::Running => {
            sqlx::query!("UPDATE job SET cancel_requested = true WHERE id = $1 AND state = 'running'", id)
                .execute(&mut *tx)
                .await
                .map_err(StoreError::doing("request a cancellation"))?;
            Cancelling::Requested
        }
        ended @ (JobState::Succeeded | JobState::Failed | JobState::Cancelled) => Cancelling::AlreadyFinal(ended),
    };
    tx.commit().await.map_err(StoreError::doing("commit a cancellation"))?;
    if outcome == Cancelling::Cancelled {
        metrics::ended(kind, JobState::Cancelled);
    }
    Ok(outcome)
}

/// T9: deals with jobs whose lease or deadline has passed. Selects, locks and decides in one transaction; any process
/// may call it, any number of them at once. Returns each job and what was done with it.
pub async fn reap(connection: &mut PgConnection, limit: i64) -> Result<Vec<(Uuid, Reaping)>, StoreError> {
    let mut tx = connection.begin().await.map_err(StoreError::doing("begin to reap"))?;
    let rows = sqlx::query!(
        r#"
        SELECT id, state::text AS "state!", kind, attempt, strikes, max_strikes, cancel_requested, last_failure,
               deadline_at < clock_timestamp() AS "past_deadline!"
        FROM job
        WHERE (state = 'running' AND lease_until < clock_timestamp())
           OR (state = 'queued' AND deadline_at < clock_timestamp())
        LIMIT $1
        FOR UPDATE SKIP LOCKED
        "#,
        limit
    )
    .fetch_all(&mut *tx)
    .await
    .map_err(StoreError::doing("find lost jobs"))?;
    let mut reaped = Vec::with_capacity(rows.len());
    let (mut ended, mut expired) = (Vec::new(), 0);
    for row in rows {
        let locked = Locked { id: row.id, from: state(&row.state, row.id)?, kind: kind(&row.kind, row.id)? };
        let noun = locked.kind.noun();
        let what = Reaping::decide(row.cancel_requested, row.past_deadline, row.strikes, row.max_strikes);
        expired += u64::from(locked.from == JobState::Running);
        match what {
            Reaping::Cancel => ended.push((locked.kind, JobState::Cancelled)),
            Reaping::PastDeadline | Reaping::OutOfStrikes => ended.push((locked.kind, JobState::Failed)),
            Reaping::Requeue(_) => {}
        }
        match what {
            Reaping::Cancel => {
                locked.end(&mut tx, JobState::Cancelled, &ErrorCode::Cancelled.with(&[noun])).await?;
            }
            Reaping::PastDeadline => {
                // What kept it from finishing says more than that it did not.
                let known = row.last_failure.as_deref().and_then(ErrorBody::from_json);
                let error = known.unwrap_or_else(|| ErrorCode::Deadline.with(&[noun]));
                locked.end(&mut tx, JobState::Failed, &error).await?;
            }
            Reaping::OutOfStrikes => {
                let times = (row.strikes + 1).to_string();
                let error = ErrorCode::Interrupted.with(&[noun, &times]);
                locked.end(&mut tx, JobState::Failed, &error).await?;
            }
            Reaping::Requeue(delay) => {
                sqlx::query!(
                    r#"
                    UPDATE job
                    SET state = 'queued', lease_owner = NULL, lease_until = NULL, strikes = strikes + 1,
                        available_at = clock_timestamp() + make_interval(secs => $3),
                        dispatch_at = clock_timestamp() + make_interval(secs => $3), dispatches = 0
                    WHERE id = $1 AND state = 'running' AND attempt = $2
                    "#,
                    row.id,
                    row.attempt,
                    delay.as_secs_f64()
                )
                .execute(&mut *tx)
                .await
                .map_err(StoreError::doing("requeue a lost job"))
                .and_then(|done| one_row(done.rows_affected(), row.id))?;
            }
        }
        reaped.push((row.id, what));
    }
    if !reaped.is_empty() {
        failpoint::reached("reaper.before_commit");
    }
    tx.commit().await.map_err(StoreError::doing("commit a reaping"))?;
    metrics::expired(expired);
    ended.into_iter().for_each(|(kind, state)| metrics::ended(kind, state));
    Ok(reaped)
}

/// T10: tells whether a blob in the snapshot area can never be needed again. The answer, once `true`, stays true:
/// attempts are never repeated, so no later event can make the blob needed.
pub async fn blob_is_garbage(
    connection: &mut PgConnection,
    job: Uuid,
    attempt: i32,
    key: &str,
) -> Result<bool, StoreError> {
    sqlx::query_scalar!(
        r#"
        SELECT NOT EXISTS (SELECT 1 FROM snapshot_entry WHERE blob_key = $3)
           AND NOT EXISTS (SELECT 1 FROM job WHERE source_key = $3 AND state IN ('queued', 'running'))
           AND coalesce((SELECT state <> 'running' OR attempt > $2 FROM job WHERE id = $1), true) AS "garbage!"
        "#,
        job,
        attempt,
        key
    )
    .fetch_one(connection)
    .await
    .map_err(StoreError::doing("ask for a blob"))
}

/// Reads one job.
pub async fn find(connection: &mut PgConnection, id: Uuid) -> Result<Option<JobView>, StoreError> {
    let row = sqlx::query_as!(
        Row,
        r#"
        SELECT id, kind, state::text AS "state!", attempt, lease_owner, name, accepted_at, done_documents, done_files,
               done_bytes, total_documents, total_files, total_bytes, share, percent, blob_key, finished_at, error, result
        FROM job WHERE id = $1
        "#,
        id
    )
    .fetch_optional(connection)
    .await
    .map_err(StoreError::doing("read a job"))?;
    row.map(Row::view).transpose()
}

/// Reads the active job of a cell.
pub async fn active(connection: &mut PgConnection, cell: &CellId) -> Result<Option<JobView>, StoreError> {
    let row = sqlx::query_as!(
        Row,
        r#"
        SELECT id, kind, state::text AS "state!", attempt, lease_owner, name, accepted_at, done_documents, done_files,
               done_bytes, total_documents, total_files, total_bytes, share, percent, blob_key, finished_at, error, result
        FROM job WHERE cell_id = $1 AND state IN ('queued', 'running')
        "#,
        cell.as_str()
    )
    .fetch_optional(connection)
    .await
    .map_err(StoreError::doing("read the active job of a cell"))?;
    row.map(Row::view).transpose()
}

/// Finds a cell by its name, and its active job: what a client asks for over and over, in one trip.
pub async fn active_by_name(
    connection: &mut PgConnection,
    name: &CellName,
) -> Result<Option<(Cell, Option<JobView>)>, StoreError> {
    let row = sqlx::query!(
        r#"
        SELECT c.id AS cell_id, c.owner, c.generation,
               j.id AS "id?", j.kind AS "kind?", j.state::text AS "state?", j.attempt AS "attempt?",
               j.lease_owner AS "lease_owner?", j.name AS "name?", j.accepted_at AS "accepted_at?",
               j.done_documents AS "done_documents?", j.done_files AS "done_files?", j.done_bytes AS "done_bytes?",
               j.total_documents AS "total_documents?", j.total_files AS "total_files?", j.total_bytes AS "total_bytes?",
               j.share AS "share?", j.percent AS "percent?"
        FROM cell c LEFT JOIN job j ON j.cell_id = c.id AND j.state IN ('queued', 'running')
        WHERE c.name = $1
        "#,
        name.as_str()
    )
    .fetch_optional(connection)
    .await
    .map_err(StoreError::doing("find a cell and its active job"))?;
    let Some(row) = row else { return Ok(None) };
    let job = match (row.id, row.kind, row.state, row.attempt, row.name, row.accepted_at) {
        (Some(id), Some(kind), Some(state), Some(attempt), Some(name), Some(accepted_at)) => Some(Row {
            id,
            kind,
            state,
            attempt,
            lease_owner: row.lease_owner,
            name,
            accepted_at,
            done_documents: row.done_documents.unwrap_or_default(),
            done_files: row.done_files.unwrap_or_default(),
            done_bytes: row.done_bytes.unwrap_or_default(),
            total_documents: row.total_documents,
            total_files: row.total_files,
            total_bytes: row.total_bytes,
            share: row.share.unwrap_or_default(),
            percent: row.percent.unwrap_or_default(),
            // An active job has none of these.
            blob_key: None,
            finished_at: None,
            error: None,
            result: None,
        }),
        _ => None,
    };
    let cell = cells::found(row.cell_id, name, row.owner, row.generation)?;
    Ok(Some((cell, job.map(Row::view).transpose()?)))
}

/// The active jobs of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Active {
    /// What they do.
    pub kind: JobKind,
    /// How many wait.
    pub queued: u64,
    /// How many a worker has.
    pub running: u64,
    /// How long the oldest that waits has been waiting; zero when none does.
    pub oldest: Duration,
}

/// Counts active jobs, of every kind.
pub async fn count_active(connection: &mut PgConnection) -> Result<Vec<Active>, StoreError> {
    let rows = sqlx::query!(
        r#"
        SELECT kind, count(*) FILTER (WHERE state = 'queued') AS "queued!",
               count(*) FILTER (WHERE state = 'running') AS "running!",
               greatest(extract(epoch FROM clock_timestamp() - min(accepted_at) FILTER (WHERE state = 'queued')), 0)::float8
                 AS "oldest!"
        FROM job WHERE state IN ('queued', 'running')
        GROUP BY kind
        "#
    )
    .fetch_all(connection)
    .await
    .map_err(StoreError::doing("count active jobs"))?;
    let of = |kind: JobKind| {
        let row = rows.iter().find(|row| row.kind == kind.name());
        Active {
            kind,
            queued: row.map_or(0, |row| row.queued as u64),
            running: row.map_or(0, |row| row.running as u64),
            oldest: Duration::from_secs_f64(row.map_or(0.0, |row| row.oldest)),
        }
    };
    Ok(JobKind::ALL.into_iter().map(of).collect())
}

/// Reads the last job of a kind that a cell had, whatever became of it.
pub async fn latest(
    connection: &mut PgConnection,
    cell: &CellId,
    kind: JobKind,
) -> Result<Option<JobView>, StoreError> {
    let row = sqlx::query_as!(
        Row,
        r#"
        SELECT id, kind, state::text AS "state!", attempt, lease_owner, name, accepted_at, done_documents, done_files,
               done_bytes, total_documents, total_files, total_bytes, share, percent, blob_key, finished_at, error, result
        FROM job WHERE cell_id = $1 AND kind = $2 AND kind <> 'export'
        ORDER BY accepted_at DESC LIMIT 1
        "#,
        cell.as_str(),
        kind.name()
    )
    .fetch_optional(connection)
    .await
    .map_err(StoreError::doing("read the last job of a cell"))?;
    row.map(Row::view).transpose()
}

struct Row {
    id: Uuid,
    kind: String,
    state: String,
    attempt: i32,
    lease_owner: Option<String>,
    name: String,
    accepted_at: DateTime<Utc>,
    done_documents: i64,
    done_files: i64,
    done_bytes: i64,
    total_documents: Option<i64>,
    total_files: Option<i64>,
    total_bytes: Option<i64>,
    share: f64,
    percent: i16,
    blob_key: Option<String>,
    finished_at: Option<DateTime<Utc>>,
    error: Option<String>,
    result: Option<String>,
}

impl Row {
    fn view(self) -> Result<JobView, StoreError> {
        let amount = |documents: i64, files: i64, bytes: i64| Amount {
            documents: documents as u64,
            files: files as u64,
            bytes: bytes as u64,
        };
        let total = match (self.total_documents, self.total_files, self.total_bytes) {
            (Some(documents), Some(files), Some(bytes)) => Some(amount(documents, files, bytes)),
            _ => None,
        };
        let corrupt = || StoreError::Corrupt { table: "job", column: "name", row: self.id.to_string() };
        Ok(JobView {
            id: self.id,
            kind: kind(&self.kind, self.id)?,
            state: state(&self.state, self.id)?,
            attempt: self.attempt,
            name: SnapshotName::parse(&self.name).ok_or_else(corrupt)?,
            lease_owner: self.lease_owner,
            accepted_at: self.accepted_at,
            progress: Progress {
                done: amount(self.done_documents, self.done_files, self.done_bytes),
                total,
                share: self.share,
                remaining: None,
            },
            percent: self.percent as u8,
            blob_key: self.blob_key,
            finished_at: self.finished_at,
            error: self.error.as_deref().and_then(ErrorBody::from_json),
            result: self.result,
        })
    }
}

pub(super) fn state(name: &str, id: Uuid) -> Result<JobState, StoreError> {
    JobState::parse(name).ok_or_else(|| StoreError::Corrupt { table: "job", column: "state", row: id.to_string() })
}

pub(super) fn kind(name: &str, id: Uuid) -> Result<JobKind, StoreError> {
    JobKind::parse(name).ok_or_else(|| StoreError::Corrupt { table: "job", column: "kind", row: id.to_string() })
}

fn one_row(changed: u64, id: Uuid) -> Result<(), StoreError> {
    if changed == 1 { Ok(()) } else { Err(StoreError::Corrupt { table: "job", column: "state", row: id.to_string() }) }
}

/// A job whose row the caller has locked.
struct Locked {
    id: Uuid,
    from: JobState,
    kind: JobKind,
}

impl Locked {
    async fn end(&self, tx: &mut PgConnection, to: JobState, error: &ErrorBody) -> Result<(), StoreError> {
        let error = error.clone().for_file().to_json();
        sqlx::query!(
            r#"
            UPDATE job
            SET state = ($3::text)::job_state, error = $4, finished_at = clock_timestamp(),
                lease_owner = NULL, lease_until = NULL
            WHERE id = $1 AND state = ($2::text)::job_state
            "#,
            self.id,
            self.from.name(),
            to.name(),
            error
        )
        .execute(&mut *tx)
        .await
        .map_err(StoreError::doing("end a job"))
        .and_then(|done| one_row(done.rows_affected(), self.id))?;
        match self.kind {
            JobKind::Export => show_error(tx, self.id, &error).await,
            // Imports reserve no name.
            JobKind::Import | JobKind::DryRun => Ok(()),
        }
    }
}

/// Turns the reserved name of a job into `NAME.error`.
async fn show_error(tx: &mut PgConnection, id: Uuid, error: &str) -> Result<(), StoreError> {
    sqlx::query!(
        r#"
        UPDATE snapshot_entry
        SET kind = 'error', body = $2, version = 1, created_at = clock_timestamp(), modified_at = clock_timestamp()
        WHERE job_id = $1 AND kind = 'pending'
        "#,
        id,
        error
    )
    .execute(tx)
    .await
    .map_err(StoreError::doing("show an error file"))
    .and_then(|done| one_row(done.rows_affected(), id))
}
