//! Jobs as resources of their cell: reading them, page by page, by id, or by the key of the request that ordered them.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::StoreError;
use super::jobs::{kind, state};
use crate::cell::CellId;
use crate::error_code::ErrorBody;
use crate::job::{Amount, JobKind, JobState};
use crate::snapshot_name::{FileKind, SnapshotName};

/// Channel on which the database tells that a job changed; the payload is the job's id. See migration 8.
pub const CHANGED: &str = "cellexport_job";

/// Which jobs a resource has: those of `__export`, or those of `__import`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Exports.
    Exports,
    /// Imports and dry runs.
    Imports,
}

impl Family {
    /// The family of a kind.
    pub fn of(kind: JobKind) -> Self {
        match kind {
            JobKind::Export => Self::Exports,
            JobKind::Import | JobKind::DryRun => Self::Imports,
        }
    }
}

/// A job with everything that a client may know of it.
#[derive(Debug, Clone, PartialEq)]
pub struct JobResource {
    /// The job.
    pub id: Uuid,
    /// Its cell.
    pub cell: CellId,
    /// What it does.
    pub kind: JobKind,
    /// Its state.
    pub state: JobState,
    /// Grows whenever something changes that a client can see.
    pub revision: i64,
    /// Attempts so far.
    pub attempt: i32,
    /// Name of the snapshot.
    pub name: SnapshotName,
    /// Somebody asked for it to end.
    pub cancel_requested: bool,
    /// How many jobs are before it, and one; only of a queued one.
    pub queue_position: Option<i64>,
    /// How far any attempt was, in percent.
    pub percent: u8,
    /// Seconds that the current attempt still takes, as foretold at `progress_at`.
    pub remaining: Option<f64>,
    /// Done by the current attempt.
    pub done: Amount,
    /// In the end, once it was counted.
    pub total: Option<Amount>,
    /// When it was accepted.
    pub accepted_at: DateTime<Utc>,
    /// When the first attempt began.
    pub started_at: Option<DateTime<Utc>>,
    /// When the current attempt began.
    pub attempt_at: Option<DateTime<Utc>>,
    /// The last sign of life of the current attempt.
    pub heartbeat_at: Option<DateTime<Utc>>,
    /// When the progress was last more than before.
    pub progress_at: Option<DateTime<Utc>>,
    /// When it became final.
    pub finished_at: Option<DateTime<Utc>>,
    /// Why it failed.
    pub error: Option<ErrorBody>,
    /// What an import did or a dry run found: a JSON object.
    pub result: Option<String>,
    /// Length of the finished snapshot in bytes.
    pub size: Option<u64>,
    /// SHA-256 of the finished snapshot.
    pub sha256: Option<Vec<u8>>,
    /// The file that an export left, while it is there.
    pub file: Option<FileKind>,
    /// The database's clock when this was read.
    pub read_at: DateTime<Utc>,
}

/// Where a page of jobs begins: behind this job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behind {
    /// When it was accepted.
    pub accepted_at: DateTime<Utc>,
    /// Which it is.
    pub id: Uuid,
}

/// Reads jobs by their ids, in no order. Ids of no job are left out.
pub async fn many(connection: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<JobResource>, StoreError> {
    let rows = sqlx::query!(
        r#"
        SELECT j.id AS "id!", j.cell_id AS "cell_id!", j.kind AS "kind!", j.state::text AS "state!",
               j.revision AS "revision!", j.attempt AS "attempt!", j.name AS "name!",
               j.cancel_requested AS "cancel_requested!", j.percent AS "percent!", j.remaining,
               j.done_documents AS "done_documents!", j.done_files AS "done_files!", j.done_bytes AS "done_bytes!",
               j.total_documents, j.total_files, j.total_bytes, j.accepted_at AS "accepted_at!", j.started_at,
               j.attempt_at, j.heartbeat_at, j.progress_at, j.finished_at, j.error, j.result, j.blob_size, j.blob_sha256,
               e.kind AS "file?", clock_timestamp() AS "read_at!",
               CASE WHEN j.state = 'queued' THEN 1 + (
                 SELECT count(*) FROM job q
                 WHERE q.state = 'queued' AND (q.turn, q.accepted_at) < (j.turn, j.accepted_at))
               END AS queue_position
        FROM job j LEFT JOIN snapshot_entry e ON e.job_id = j.id AND e.kind <> 'pending'
        WHERE j.id = ANY($1)
        "#,
        ids
    )
    .fetch_all(connection)
    .await
    .map_err(StoreError::doing("read jobs"))?;
    let amount = |documents: i64, files: i64, bytes: i64| Amount {
        documents: documents as u64,
        files: files as u64,
        bytes: bytes as u64,
    };
    rows.into_iter()
        .map(|row| {
            let corrupt = |column| StoreError::Corrupt { table: "job", column, row: row.id.to_string() };
            let total = match (row.total_documents, row.total_files, row.total_bytes) {
                (Some(documents), Some(files), Some(bytes)) => Some(amount(documents, files, bytes)),
                _ => None,
            };
            Ok(JobResource {
                id: row.id,
                cell: CellId::parse(&row.cell_id).ok_or_else(|| corrupt("cell_id"))?,
                kind: kind(&row.kind, row.id)?,
                state: state(&row.state, row.id)?,
                revision: row.revision,
                attempt: row.attempt,
                name: SnapshotName::parse(&row.name).ok_or_else(|| corrupt("name"))?,
                cancel_requested: row.cancel_requested,
                queue_position: row.queue_position,
                percent: row.percent as u8,
                remaining: row.remaining,
                done: amount(row.done_documents, row.done_files, row.done_bytes),
                total,
                accepted_at: row.accepted_at,
                started_at: row.started_at,
                attempt_at: row.attempt_at,
                heartbeat_at: row.heartbeat_at,
                progress_at: row.progress_at,
                finished_at: row.finished_at,
                error: row.error.as_deref().and_then(ErrorBody::from_json),
                result: row.result,
                size: row.blob_size.map(|size| size as u64),
                sha256: row.blob_sha256,
                file: match row.file.as_deref() {
                    Some("zip") => Some(FileKind::Zip),
                    Some(_) => Some(FileKind::Error),
                    None => None,
                },
                read_at: row.read_at,
            })
        })
        .collect()
}

/// Reads one job of a cell and a family; nothing when it is another's.
pub async fn one(
    connection: &mut PgConnection,
    cell: &CellId,
    family: Family,
    id: Uuid,
) -> Result<Option<JobResource>, StoreError> {
    let found = many(connection, &[id]).await?.pop();
    Ok(found.filter(|job| job.cell == *cell && Family::of(job.kind) == family))
}

/// Reads the jobs of a cell, newest first: at most `limit`, behind the last one of the page before.
pub async fn page(
    connection: &mut PgConnection,
    cell: &CellId,
    family: Family,
    behind: Option<Behind>,
    limit: i64,
) -> Result<Vec<JobResource>, StoreError> {
    let ids = sqlx::query_scalar!(
        r#"
        SELECT id FROM job
        WHERE cell_id = $1 AND (kind = 'export') = $2
          AND ($3::timestamptz IS NULL OR (accepted_at, id) < ($3, $4))
        ORDER BY accepted_at DESC, id DESC
        LIMIT $5
        "#,
        cell.as_str(),
        family == Family::Exports,
        behind.map(|b| b.accepted_at),
        behind.map(|b| b.id).unwrap_or_default(),
        limit
    )
    .fetch_all(&mut *connection)
    .await
    .map_err(StoreError::doing("list the jobs of a cell"))?;
    let mut jobs = many(connection, &ids).await?;
    jobs.sort_by_key(|job| std::cmp::Reverse((job.accepted_at, job.id)));
    Ok(jobs)
}

/// Reads active jobs of all cells, those that run first and then in the order of their turns: at most `limit`. With each
/// the name of its cell, while that exists.
pub async fn active(
    connection: &mut PgConnection,
    limit: i64,
) -> Result<Vec<(JobResource, Option<String>)>, StoreError> {
    let rows = sqlx::query!(
        r#"
        SELECT j.id, c.name AS "cell?" FROM job j LEFT JOIN cell c ON c.id = j.cell_id
        WHERE j.state IN ('queued', 'running')
        ORDER BY j.state DESC, j.turn, j.accepted_at
        LIMIT $1
        "#,
        limit
    )
    .fetch_all(&mut *connection)
    .await
    .map_err(StoreError::doing("list active jobs"))?;
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let mut jobs = many(connection, &ids).await?;
    // What ended between the two statements is active no more.
    jobs.retain(|job| !job.state.is_final());
    let place = |id: Uuid| ids.iter().position(|other| *other == id);
    jobs.sort_by_key(|job| place(job.id));
    let name = |id: Uuid| rows.iter().find(|row| row.id == id).and_then(|row| row.cell.clone());
    Ok(jobs
        .into_iter()
        .map(|job| {
            let cell = name(job.id);
            (job, cell)
        })
        .collect())
}

/// The job that a request with this key ordered, and the digest of what it asked for.
pub async fn ordered_with(
    connection: &mut PgConnection,
    cell: &CellId,
    key: &str,
) -> Result<Option<(Uuid, Vec<u8>)>, StoreError> {
    let row = sqlx::query!(
        r#"
        SELECT id, idempotency_body AS "body!" FROM job WHERE cell_id = $1 AND idempotency_key = $2
        "#,
        cell.as_str(),
        key
    )
    .fetch_optional(connection)
    .await
    .map_err(StoreError::doing("find the job of a key"))?;
    Ok(row.map(|row| (row.id, row.body)))
}
