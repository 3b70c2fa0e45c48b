//! Cells: finding them, and how they come and go.

use sqlx::{Connection, PgConnection};

use super::StoreError;
use super::jobs::NewContents;
use crate::cell::{CellId, CellName};
use crate::job::JobKind;

/// A cell that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// Internal id.
    pub id: CellId,
    /// Name in its URL.
    pub name: CellName,
    /// Owner URL as stored.
    pub owner: Option<String>,
    /// Name of the contents that it has now; an import changes it.
    pub generation: String,
}

/// Finds a cell by its name.
pub async fn find(connection: &mut PgConnection, name: &CellName) -> Result<Option<Cell>, StoreError> {
    let row = sqlx::query!("SELECT id, owner, generation FROM cell WHERE name = $1", name.as_str())
        .fetch_optional(connection)
        .await
        .map_err(StoreError::doing("find a cell"))?;
    row.map(|row| found(row.id, name, row.owner, row.generation)).transpose()
}

/// A cell that was found by its name.
pub(super) fn found(
    id: String,
    name: &CellName,
    owner: Option<String>,
    generation: String,
) -> Result<Cell, StoreError> {
    let corrupt = || StoreError::Corrupt { table: "cell", column: "id", row: name.to_string() };
    Ok(Cell { id: CellId::parse(&id).ok_or_else(corrupt)?, name: name.clone(), owner, generation })
}

/// A cell in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedCell {
    /// Name in its URL.
    pub name: String,
    /// Its cell document.
    pub document: String,
}

/// Who a cell is, for what is imported into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its id.
    pub id: CellId,
    /// Its name.
    pub name: String,
    /// URL of its owner.
    pub owner: Option<String>,
}

/// Finds the cell that something is imported into.
pub async fn target(connection: &mut PgConnection, cell: &CellId) -> Result<Option<Target>, StoreError> {
    let row = sqlx::query!("SELECT name, owner FROM cell WHERE id = $1", cell.as_str())
        .fetch_optional(connection)
        .await
        .map_err(StoreError::doing("read a cell"))?;
    Ok(row.map(|row| Target { id: cell.clone(), name: row.name, owner: row.owner }))
}

/// Lists cells sorted by name.
pub async fn list(connection: &mut PgConnection, skip: i64, top: i64) -> Result<Vec<ListedCell>, StoreError> {
    sqlx::query_as!(
        ListedCell,
        r#"SELECT name, document FROM cell ORDER BY name COLLATE "C" OFFSET $1 LIMIT $2"#,
        skip,
        top
    )
    .fetch_all(connection)
    .await
    .map_err(StoreError::doing("list cells"))
}

/// Counts all cells.
pub async fn count(connection: &mut PgConnection) -> Result<i64, StoreError> {
    sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM cell"#)
        .fetch_one(connection)
        .await
        .map_err(StoreError::doing("count cells"))
}

/// Reads one cell as a list shows it.
pub async fn describe(connection: &mut PgConnection, name: &CellName) -> Result<Option<ListedCell>, StoreError> {
    sqlx::query_as!(ListedCell, "SELECT name, document FROM cell WHERE name = $1", name.as_str())
        .fetch_optional(connection)
        .await
        .map_err(StoreError::doing("describe a cell"))
}

/// A cell that is to be made.
#[derive(Debug, Clone)]
pub struct NewCell {
    /// Its id, new.
    pub id: CellId,
    /// Its name.
    pub name: CellName,
    /// Its cell document.
    pub document: String,
    /// The metadata of its root.
    pub root_pmeta: String,
}

/// Makes an empty cell. `false`: the name is taken.
pub async fn create(connection: &mut PgConnection, cell: &NewCell) -> Result<bool, StoreError> {
    let mut tx = connection.begin().await.map_err(StoreError::doing("begin to make a cell"))?;
    let made = sqlx::query!(
        "INSERT INTO cell (id, name, document) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING",
        cell.id.as_str(),
        cell.name.as_str(),
        cell.document
    )
    .execute(&mut *tx)
    .await
    .map_err(StoreError::doing("make a cell"))?;
    if made.rows_affected() != 1 {
        return Ok(false);
    }
    sqlx::query!(
        "INSERT INTO node (generation, path, pmeta) SELECT generation, '', $2 FROM cell WHERE id = $1",
        cell.id.as_str(),
        cell.root_pmeta
    )
    .execute(&mut *tx)
    .await
    .map_err(StoreError::doing("make the root of a cell"))?;
    tx.commit().await.map_err(StoreError::doing("commit a new cell"))?;
    Ok(true)
}

/// What became of a request to delete a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleting {
    /// It is gone, with its snapshots.
    Deleted,
    /// There is no such cell.
    Unknown,
    /// It has an active job of this kind.
    Busy(JobKind),
}

/// Deletes a cell with its snapshots and its finished jobs. What it held is removed later, by generation and by sweeper.
pub async fn delete(connection: &mut PgConnection, name: &CellName) -> Result<Deleting, StoreError> {
    let mut tx = connection.begin().await.map_err(StoreError::doing("begin to delete a cell"))?;
    // Whoever accepts a job holds the cell: after this lock there is one, or there will be none.
    let cell = sqlx::query!("SELECT id, generation FROM cell WHERE name = $1 FOR UPDATE", name.as_str())
        .fetch_optional(&mut *tx)
        .await
        .map_err(StoreError::doing("lock a cell"))?;
    let Some(cell) = cell else { return Ok(Deleting::Unknown) };
    let id = CellId::parse(&cell.id).ok_or_else(|| StoreError::Corrupt {
        table: "cell",
        column: "id",
        row: name.to_string(),
    })?;
    if let Some(job) = super::jobs::active(&mut tx, &id).await? {
        return Ok(Deleting::Busy(job.kind));
    }
    let doing = || StoreError::doing("delete a cell");
    sqlx::query!("DELETE FROM snapshot_entry WHERE cell_id = $1", cell.id).execute(&mut *tx).await.map_err(doing())?;
    sqlx::query!("DELETE FROM job WHERE cell_id = $1", cell.id).execute(&mut *tx).await.map_err(doing())?;
    sqlx::query!("DELETE FROM cell WHERE id = $1", cell.id).execute(&mut *tx).await.map_err(doing())?;
    super::generations::retire(&mut tx, &cell.generation).await?;
    tx.commit().await.map_err(StoreError::doing("commit a deleted cell"))?;
    Ok(Deleting::Deleted)
}

/// Takes a cell before its contents are replaced. Whoever accepts a job takes the cell first, too: no two of them wait for
/// each other, and none waits behind a row of the other.
pub(super) async fn take(tx: &mut PgConnection, cell: &CellId) -> Result<(), StoreError> {
    sqlx::query!("SELECT id FROM cell WHERE id = $1 FOR UPDATE", cell.as_str())
        .fetch_optional(tx)
        .await
        .map(drop)
        .map_err(StoreError::doing("take a cell"))
}

/// Makes a cell name other contents, and retires those it named. `false`: there is no such cell, or the contents were
/// given up.
pub(super) async fn replace_contents(
    tx: &mut PgConnection,
    cell: &CellId,
    contents: &NewContents,
) -> Result<bool, StoreError> {
    let doing = || StoreError::doing("replace the contents of a cell");
    let old = sqlx::query_scalar!("SELECT generation FROM cell WHERE id = $1 FOR NO KEY UPDATE", cell.as_str())
        .fetch_optional(&mut *tx)
        .await
        .map_err(doing())?;
    let Some(old) = old else { return Ok(false) };
    sqlx::query!(
        "UPDATE cell SET generation = $2, document = $3 WHERE id = $1",
        cell.as_str(),
        contents.generation,
        contents.document
    )
    .execute(&mut *tx)
    .await
    .map_err(doing())?;
    super::generations::retire(tx, &old).await?;
    super::generations::named(tx, &contents.generation).await
}

/// Makes a cell from contents that were stored before.
///
/// # Errors
/// The constraints `cell_name_key` and `cell_pkey` when the name or the id is taken.
pub async fn adopt(
    connection: &mut PgConnection,
    id: &CellId,
    name: &str,
    owner: Option<&str>,
    contents: &NewContents,
) -> Result<(), StoreError> {
    let mut tx = connection.begin().await.map_err(StoreError::doing("begin to store a cell"))?;
    sqlx::query!(
        "INSERT INTO cell (id, name, owner, document, generation) VALUES ($1, $2, $3, $4, $5)",
        id.as_str(),
        name,
        owner,
        contents.document,
        contents.generation
    )
    .execute(&mut *tx)
    .await
    .map_err(StoreError::doing("store the cell"))?;
    if !super::generations::named(&mut tx, &contents.generation).await? {
        let row = contents.generation.clone();
        return Err(StoreError::Corrupt { table: "generation", column: "retired", row });
    }
    tx.commit().await.map_err(StoreError::doing("commit the cell"))
}

/// Tells whether a cell names a generation: after a lost answer to a commit, the row has the last word.
pub async fn names(connection: &mut PgConnection, cell: &CellId, generation: &str) -> Result<bool, StoreError> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT 1 FROM cell WHERE id = $1 AND generation = $2) AS "named!""#,
        cell.as_str(),
        generation
    )
    .fetch_one(connection)
    .await
    .map_err(StoreError::doing("look at a cell"))
}
