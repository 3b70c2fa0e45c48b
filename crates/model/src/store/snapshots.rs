//! What clients see of a cell's snapshot area, and what they do to it themselves. Exports make and change these rows
//! in [`super::jobs`].

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection};

use super::StoreError;
use super::cells::{self, Cell};
use crate::cell::{CellId, CellName};
use crate::job::JobKind;
use crate::limits;
use crate::snapshot_name::{FileKind, SnapshotFileName, SnapshotName};

/// A visible file of the area.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFile {
    /// Its name.
    pub name: SnapshotFileName,
    /// First half of its ETag.
    pub version: i32,
    /// When it appeared.
    pub created_at: DateTime<Utc>,
    /// When it was last saved.
    pub modified_at: DateTime<Utc>,
    /// Length in bytes.
    pub size: u64,
    /// SHA-256.
    pub sha256: Vec<u8>,
    /// Its media type; nothing when an upload came without one.
    pub content_type: Option<String>,
    /// Where its bytes are.
    pub content: Content,
}

/// Where the bytes of a file are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// In the snapshot area, under this key.
    Blob(String),
    /// Here: an error document.
    Inline(String),
}

impl SnapshotFile {
    /// The entity tag with its quotes: `"{version}-{milliseconds}"`.
    pub fn etag(&self) -> String {
        etag(self.version, self.modified_at)
    }
}

struct Row {
    base_name: String,
    version: i32,
    created_at: DateTime<Utc>,
    modified_at: DateTime<Utc>,
    size: Option<i64>,
    sha256: Vec<u8>,
    blob_key: Option<String>,
    body: Option<String>,
    made_here: bool,
    content_type: Option<String>,
}

impl Row {
    fn file(self) -> Result<SnapshotFile, StoreError> {
        let corrupt = |column| StoreError::Corrupt { table: "snapshot_entry", column, row: self.base_name.clone() };
        let base = SnapshotName::parse(&self.base_name).ok_or_else(|| corrupt("base_name"))?;
        let (kind, size, content) = match (self.blob_key, self.body, self.size) {
            (Some(key), None, Some(size)) => (FileKind::Zip, size as u64, Content::Blob(key)),
            (None, Some(body), _) => (FileKind::Error, body.len() as u64, Content::Inline(body)),
            _ => {
                return Err(StoreError::Corrupt { table: "snapshot_entry", column: "kind", row: self.base_name });
            }
        };
        Ok(SnapshotFile {
            name: SnapshotFileName { base, kind },
            content_type: if self.made_here { Some(kind.content_type().to_owned()) } else { self.content_type },
            version: self.version,
            created_at: self.created_at,
            modified_at: self.modified_at,
            size,
            sha256: self.sha256,
            content,
        })
    }
}

/// Lists the visible files of a cell, sorted by name. At most [`limits::SNAPSHOTS_PER_CELL`] exist.
pub async fn list(connection: &mut PgConnection, cell: &CellId) -> Result<Vec<SnapshotFile>, StoreError> {
    let rows = sqlx::query_as!(
        Row,
        r#"
        SELECT base_name, version, created_at, modified_at, size, blob_key, body, content_type,
               coalesce(sha256, sha256(convert_to(body, 'UTF8'))) AS "sha256!",
               job_id IS NOT NULL OR kind = 'error' AS "made_here!"
        FROM snapshot_entry
        WHERE cell_id = $1 AND kind <> 'pending'
        ORDER BY base_name COLLATE "C"
        "#,
        cell.as_str()
    )
    .fetch_all(connection)
    .await
    .map_err(StoreError::doing("list snapshots"))?;
    rows.into_iter().map(Row::file).collect()
}

/// Finds a visible file by its whole name.
pub async fn find(
    connection: &mut PgConnection,
    cell: &CellId,
    name: &SnapshotFileName,
) -> Result<Option<SnapshotFile>, StoreError> {
    let row = sqlx::query_as!(
        Row,
        r#"
        SELECT base_name, version, created_at, modified_at, size, blob_key, body, content_type,
               coalesce(sha256, sha256(convert_to(body, 'UTF8'))) AS "sha256!",
               job_id IS NOT NULL OR kind = 'error' AS "made_here!"
        FROM snapshot_entry
        WHERE cell_id = $1 AND base_name = $2 AND kind <> 'pending'
        "#,
        cell.as_str(),
        name.base.as_str()
    )
    .fetch_optional(connection)
    .await
    .map_err(StoreError::doing("find a snapshot"))?;
    let file = row.map(Row::file).transpose()?;
    Ok(file.filter(|f| f.name.kind == name.kind))
}

/// Finds a cell by its name, and a visible file of it by its whole name, in one trip.
pub async fn find_by_cell_name(
    connection: &mut PgConnection,
    cell: &CellName,
    name: &SnapshotFileName,
) -> Result<Option<(Cell, Option<SnapshotFile>)>, StoreError> {
    let row = sqlx::query!(
        r#"
        SELECT c.id, c.owner, c.generation,
               s.base_name AS "base_name?", s.version AS "version?", s.created_at AS "created_at?",
               s.modified_at AS "modified_at?", s.size, s.blob_key, s.body, s.content_type,
               coalesce(s.sha256, sha256(convert_to(s.body, 'UTF8'))) AS "sha256?",
               s.job_id IS NOT NULL OR s.kind = 'error' AS "made_here?"
        FROM cell c LEFT JOIN snapshot_entry s ON s.cell_id = c.id AND s.base_name = $2 AND s.kind <> 'pending'
        WHERE c.name = $1
        "#,
        cell.as_str(),
        name.base.as_str()
    )
    .fetch_optional(connection)
    .await
    .map_err(StoreError::doing("find a cell and a snapshot"))?;
    let Some(row) = row else { return Ok(None) };
    let file = match (row.base_name, row.version, row.created_at, row.modified_at, row.sha256, row.made_here) {
        (Some(base_name), Some(version), Some(created_at), Some(modified_at), Some(sha256), Some(made_here)) => {
            let (size, blob_key, body, content_type) = (row.size, row.blob_key, row.body, row.content_type);
            let row = Row {
                base_name,
                version,
                created_at,
                modified_at,
                size,
                sha256,
                blob_key,
                body,
                made_here,
                content_type,
            };
            Some(row.file()?)
        }
        _ => None,
    };
    let cell = cells::found(row.id, cell, row.owner, row.generation)?;
    Ok(Some((cell, file.filter(|f| f.name.kind == name.kind))))
}

/// Counts the names of a cell, those that are being made included.
pub(super) async fn count(connection: &mut PgConnection, cell: &CellId) -> Result<i64, StoreError> {
    sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM snapshot_entry WHERE cell_id = $1"#, cell.as_str())
        .fetch_one(connection)
        .await
        .map_err(StoreError::doing("count snapshots"))
}

/// What a client says about the file it is about to change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conditions {
    /// `If-Match`.
    pub if_match: Option<String>,
    /// `If-None-Match: *`: only if there is no such file.
    pub must_be_new: bool,
}

impl Conditions {
    /// Tells whether a file that exists may be changed: `If-Match` names its tag, weakly or strongly, or any.
    pub fn allow(&self, existing: &SnapshotFile) -> bool {
        let etag = existing.etag();
        let matches = |wanted: &str| wanted == "*" || wanted == etag || wanted.strip_prefix("W/") == Some(&etag);
        !self.must_be_new && self.if_match.as_deref().is_none_or(matches)
    }
}

/// Why a file of the area was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// No such file.
    #[error("there is no such file")]
    NotFound,
    /// The conditions do not hold.
    #[error("the file is another one")]
    Conditions,
    /// A job of this kind is at work under this name.
    #[error("a job uses the name")]
    Busy(JobKind),
    /// The cell holds as many snapshots as it may.
    #[error("the cell has too many snapshots")]
    TooMany,
    /// The cell's snapshots would be larger than its quota.
    #[error("the quota is exceeded")]
    Quota,
    /// The cell was deleted in the meantime.
    #[error("the cell is gone")]
    CellGone,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A snapshot that a client sent: complete and durable under a key that nothing else has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// Key in the snapshot area.
    pub key: String,
    /// Length in bytes.
    pub size: u64,
    /// SHA-256.
    pub sha256: [u8; 32],
    /// Media type the client gave: up to 255 printable ASCII characters.
    pub content_type: Option<String>,
}

/// A change that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Entity tag of the new file.
    pub etag: String,
    /// There was no such file before.
    pub created: bool,
    /// Key of the bytes that nothing names any more.
    pub replaced: Option<String>,
}

/// Bytes that the cell's other snapshots take.
pub async fn bytes_beside(
    connection: &mut PgConnection,
    cell: &CellId,
    name: &SnapshotName,
) -> Result<u64, StoreError> {
    sqlx::query_scalar!(
        r#"SELECT coalesce(sum(size), 0)::bigint AS "bytes!" FROM snapshot_entry WHERE cell_id = $1 AND base_name <> $2"#,
        cell.as_str(),
        name.as_str()
    )
    .fetch_one(connection)
    .await
    .map(|bytes| bytes as u64)
    .map_err(StoreError::doing("add up snapshots"))
}

/// Looks whether a file could be put now; the decision is [`put`]'s. Spares a client the upload.
pub async fn check_put(
    connection: &mut PgConnection,
    cell: &CellId,
    name: &SnapshotName,
    conditions: &Conditions,
) -> Result<(), ChangeError> {
    let old = locked(connection, cell, name).await?;
    in_use(connection, cell, name).await?;
    match old {
        Some(old) if !conditions.allow(&old) => Err(ChangeError::Conditions),
        _ => Ok(()),
    }
}

/// Shows an uploaded snapshot under its name. An old `NAME.error` gives way.
///
/// # Errors
/// [`ChangeError`]; nothing is changed then.
pub async fn put(
    connection: &mut PgConnection,
    cell: &CellId,
    name: &SnapshotName,
    conditions: &Conditions,
    uploaded: &Uploaded,
    quota: u64,
) -> Result<Changed, ChangeError> {
    let mut tx = connection.begin().await.map_err(StoreError::doing("begin to put a snapshot"))?;
    // One put of a cell at a time: its count and its sum are those of this moment. A deletion of the cell waits.
    let held = sqlx::query_scalar!("SELECT id FROM cell WHERE id = $1 FOR NO KEY UPDATE", cell.as_str())
        .fetch_optional(&mut *tx)
        .await
        .map_err(StoreError::doing("hold a cell"))?;
    if held.is_none() {
        return Err(ChangeError::CellGone);
    }
    let old = locked(&mut tx, cell, name).await?;
    in_use(&mut tx, cell, name).await?;
    if old.as_ref().is_some_and(|old| !conditions.allow(old)) {
        return Err(ChangeError::Conditions);
    }
    if bytes_beside(&mut tx, cell, name).await? + uploaded.size > quota {
        return Err(ChangeError::Quota);
    }
    // A file that was another kind, or none, begins anew; an uploaded one was made by no job.
    let row = sqlx::query!(
        r#"
        INSERT INTO snapshot_entry (cell_id, base_name, kind, blob_key, size, sha256, content_type)
        VALUES ($1, $2, 'zip', $3, $4, $5, $6)
        ON CONFLICT (cell_id, base_name) DO UPDATE
          SET kind = 'zip', job_id = NULL, body = NULL, blob_key = excluded.blob_key, size = excluded.size,
              sha256 = excluded.sha256, content_type = excluded.content_type, modified_at = clock_timestamp(),
              version = CASE WHEN snapshot_entry.kind = 'zip' THEN snapshot_entry.version + 1 ELSE 1 END,
              created_at = CASE WHEN snapshot_entry.kind = 'zip' THEN snapshot_entry.created_at
                                ELSE clock_timestamp() END
          WHERE snapshot_entry.kind <> 'pending'
        RETURNING version, modified_at
        "#,
        cell.as_str(),
        name.as_str(),
        uploaded.key,
        uploaded.size as i64,
        &uploaded.sha256[..],
        uploaded.content_type
    )
    .fetch_optional(&mut *tx)
    .await
    .map_err(StoreError::doing("put a snapshot"))?
    .ok_or(ChangeError::Busy(JobKind::Export))?;
    if count(&mut tx, cell).await? > limits::SNAPSHOTS_PER_CELL {
        return Err(ChangeError::TooMany);
    }
    tx.commit().await.map_err(StoreError::doing("commit a snapshot"))?;
    let replaced = old.and_then(|old| match old.content {
        Content::Blob(key) => Some(key),
        Content::Inline(_) => None,
    });
    let created = replaced.is_none();
    Ok(Changed { etag: etag(row.version, row.modified_at), created, replaced })
}

/// Removes a visible file. Returns the key of bytes that nothing names any more.
///
/// # Errors
/// [`ChangeError`]; nothing is changed then.
pub async fn delete(
    connection: &mut PgConnection,
    cell: &CellId,
    name: &SnapshotFileName,
    conditions: &Conditions,
) -> Result<Option<String>, ChangeError> {
    let mut tx = connection.begin().await.map_err(StoreError::doing("begin to delete a snapshot"))?;
    let old = find_locked(&mut tx, cell, &name.base).await?.filter(|f| f.name.kind == name.kind);
    let old = old.ok_or(ChangeError::NotFound)?;
    if !conditions.allow(&old) {
        return Err(ChangeError::Conditions);
    }
    in_use(&mut tx, cell, &name.base).await?;
    let base = name.base.as_str();
    sqlx::query!("DELETE FROM snapshot_entry WHERE cell_id = $1 AND base_name = $2", cell.as_str(), base)
        .execute(&mut *tx)
        .await
        .map_err(StoreError::doing("delete a snapshot"))?;
    tx.commit().await.map_err(StoreError::doing("commit a deleted snapshot"))?;
    Ok(match old.content {
        Content::Blob(key) => Some(key),
        Content::Inline(_) => None,
    })
}

/// How long snapshots are kept; `None` for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Days after which a file goes.
    pub days: Option<u32>,
    /// Files of a cell beyond which the oldest go.
    pub count: Option<u32>,
}

/// Removes the rows of files that are too old or too many, except those an active job works with. Returns how many.
pub async fn expire(connection: &mut PgConnection, keep: Retention) -> Result<u64, StoreError> {
    let mut tx = connection.begin().await.map_err(StoreError::doing("begin to remove old snapshots"))?;
    // Locked first: an import that is being accepted holds its entry, and is seen by the next statement only if that one
    // begins after it. Whoever is at an entry now keeps it until the next time.
    let old = sqlx::query!(
        r#"
        WITH ranked AS (
          SELECT cell_id, base_name, modified_at,
                 row_number() OVER (PARTITION BY cell_id ORDER BY modified_at DESC, base_name) AS place
          FROM snapshot_entry WHERE kind <> 'pending')
        SELECT e.cell_id, e.base_name
        FROM snapshot_entry e JOIN ranked r ON e.cell_id = r.cell_id AND e.base_name = r.base_name
        WHERE e.modified_at = r.modified_at AND e.kind <> 'pending'
          AND (r.modified_at < clock_timestamp() - make_interval(days => $1) OR r.place > $2)
        FOR UPDATE OF e SKIP LOCKED
        "#,
        keep.days.map(|d| d as i32),
        keep.count.map(i64::from)
    )
    .fetch_all(&mut *tx)
    .await
    .map_err(StoreError::doing("find old snapshots"))?;
    let (cells, names): (Vec<String>, Vec<String>) = old.into_iter().map(|e| (e.cell_id, e.base_name)).unzip();
    let done = sqlx::query!(
        r#"
        DELETE FROM snapshot_entry e
        USING unnest($1::text[], $2::text[]) AS old (cell_id, base_name)
        WHERE e.cell_id = old.cell_id AND e.base_name = old.base_name
          AND NOT EXISTS (SELECT 1 FROM job WHERE job.cell_id = e.cell_id AND job.name = e.base_name
                                              AND job.state IN ('queued', 'running'))
        "#,
        &cells,
        &names
    )
    .execute(&mut *tx)
    .await
    .map_err(StoreError::doing("remove old snapshots"))?;
    tx.commit().await.map_err(StoreError::doing("commit the removal of old snapshots"))?;
    Ok(done.rows_affected())
}

/// The visible file of a name as a zip, locked; an error file counts as none here, because a put makes it give way.
async fn locked(
    connection: &mut PgConnection,
    cell: &CellId,
    name: &SnapshotName,
) -> Result<Option<SnapshotFile>, StoreError> {
    Ok(find_locked(connection, cell, name).await?.filter(|f| f.name.kind == FileKind::Zip))
}

async fn find_locked(
    connection: &mut PgConnection,
    cell: &CellId,
    name: &SnapshotName,
) -> Result<Option<SnapshotFile>, StoreError> {
    sqlx::query_as!(
        Row,
        r#"
        SELECT base_name, version, created_at, modified_at, size, blob_key, body, content_type,
               coalesce(sha256, sha256(convert_to(body, 'UTF8'))) AS "sha256!",
               job_id IS NOT NULL OR kind = 'error' AS "made_here!"
        FROM snapshot_entry
        WHERE cell_id = $1 AND base_name = $2 AND kind <> 'pending'
        FOR UPDATE
        "#,
        cell.as_str(),
        name.as_str()
    )
    .fetch_optional(connection)
    .await
    .map_err(StoreError::doing("lock a snapshot"))?
    .map(Row::file)
    .transpose()
}

/// Refuses while a job uses the name. An import is accepted under a lock of the entry ([`super::jobs::accept_import`]),
/// which the caller holds now.
async fn in_use(connection: &mut PgConnection, cell: &CellId, name: &SnapshotName) -> Result<(), ChangeError> {
    match super::jobs::active(connection, cell).await? {
        Some(job) if job.name == *name => Err(ChangeError::Busy(job.kind)),
        _ => Ok(()),
    }
}

fn etag(version: i32, modified_at: DateTime<Utc>) -> String {
    format!("\"{version}-{}\"", modified_at.timestamp_millis())
}
