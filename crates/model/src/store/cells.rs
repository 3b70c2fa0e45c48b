//! The cell directory: what the api may know of a cell. Read-only and tiny.

use sqlx::PgConnection;

use super::StoreError;
use crate::cell::{CellId, CellName};

/// A cell that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// Internal id.
    pub id: CellId,
    /// Name in its URL.
    pub name: CellName,
    /// Owner URL as stored.
    pub owner: Option<String>,
}

/// A role of a cell, as far as an ACL names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// Id of the role document, the form in which ACLs name it.
    pub id: String,
    /// Name of the role.
    pub name: String,
    /// Name of the box the role belongs to; none for a role of the cell.
    pub box_name: Option<String>,
}

/// Finds a cell by its name.
pub async fn find(connection: &mut PgConnection, name: &CellName) -> Result<Option<Cell>, StoreError> {
    let row = sqlx::query!("SELECT id, owner FROM cell WHERE name = $1", name.as_str())
        .fetch_optional(connection)
        .await
        .map_err(StoreError::doing("find a cell"))?;
    row.map(|row| {
        let corrupt = || StoreError::Corrupt { table: "cell", column: "id", row: name.to_string() };
        let id = CellId::parse(&row.id).ok_or_else(corrupt)?;
        Ok(Cell { id, name: name.clone(), owner: row.owner })
    })
    .transpose()
}

/// Reads the `.pmeta` of the cell's root: its times, status, ACL and properties.
pub async fn root_pmeta(connection: &mut PgConnection, cell: &CellId) -> Result<Option<String>, StoreError> {
    sqlx::query_scalar!("SELECT pmeta FROM node WHERE cell_id = $1 AND path = ''", cell.as_str())
        .fetch_optional(connection)
        .await
        .map(Option::flatten)
        .map_err(StoreError::doing("read the root of a cell"))
}

/// Finds the roles with these ids. Roles that do not exist, and roles of a box that does not exist, are left out.
pub async fn roles(connection: &mut PgConnection, cell: &CellId, ids: &[String]) -> Result<Vec<Role>, StoreError> {
    let rows = sqlx::query!(
        r#"
        SELECT r.id,
               r.body::json #>> '{_source,s,Name}' AS name,
               r.body::json #>> '{_source,l,Box}' AS box_id,
               b.body::json #>> '{_source,s,Name}' AS box_name
        FROM document r
        LEFT JOIN document b
          ON b.cell_id = r.cell_id AND b.type = 'Box' AND b.id = r.body::json #>> '{_source,l,Box}'
        WHERE r.cell_id = $1 AND r.type = 'Role' AND r.id = ANY ($2)
        "#,
        cell.as_str(),
        ids
    )
    .fetch_all(connection)
    .await
    .map_err(StoreError::doing("find roles"))?;
    let role = |row: (String, Option<String>, Option<String>, Option<String>)| match row {
        (id, Some(name), None, _) => Some(Role { id, name, box_name: None }),
        (id, Some(name), Some(_), Some(box_name)) => Some(Role { id, name, box_name: Some(box_name) }),
        _ => None,
    };
    Ok(rows.into_iter().filter_map(|r| role((r.id, r.name, r.box_id, r.box_name))).collect())
}
