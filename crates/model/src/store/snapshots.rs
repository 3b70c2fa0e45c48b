//! What clients see of a cell's snapshot area. Reading only: jobs make and change these rows.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::StoreError;
use crate::cell::CellId;
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
        format!("\"{}-{}\"", self.version, self.modified_at.timestamp_millis())
    }
}

struct Row {
    base_name: String,
    version: i32,
    created_at: DateTime<Utc>,
    modified_at: DateTime<Utc>,
    size: Option<i64>,
    blob_key: Option<String>,
    body: Option<String>,
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
            version: self.version,
            created_at: self.created_at,
            modified_at: self.modified_at,
            size,
            content,
        })
    }
}

/// Lists the visible files of a cell, sorted by name. At most [`crate::limits::SNAPSHOTS_PER_CELL`] exist.
pub async fn list(connection: &mut PgConnection, cell: &CellId) -> Result<Vec<SnapshotFile>, StoreError> {
    let rows = sqlx::query_as!(
        Row,
        r#"
        SELECT base_name, version, created_at, modified_at, size, blob_key, body
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
        SELECT base_name, version, created_at, modified_at, size, blob_key, body
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
