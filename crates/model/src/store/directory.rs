//! The directory of a cell: what decides who may do everything with it. Accounts, their roles, and the metadata of the
//! cell's root with its access control list; read-only, and found by index.
//!
//! The statements are functions of the database (`migrations/0006_roles.sql`): the api may call them, and may read
//! nothing else of what cells hold.

use secrecy::SecretString;
use sqlx::PgConnection;

use super::StoreError;
use crate::cell::CellId;
use crate::limits;

/// An account of a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// `active`, `deactivated` or `passwordChangeRequired`; none in documents of old, which means active.
    pub status: Option<String>,
    /// Ids of the roles that it is linked to, at most [`limits::ROLES`].
    pub roles: Vec<String>,
}

/// The password of an account, as its document keeps it.
#[derive(Debug, Clone)]
pub struct Password {
    /// See [`Account::status`].
    pub status: Option<String>,
    /// `scrypt` or `sha-256`; none in documents of old, which means the latter.
    pub algorithm: Option<String>,
    /// The hash, in the form of its algorithm; none for an account without password.
    pub hash: Option<SecretString>,
}

/// A role of a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// Id of the role document, the form in which ACLs and links name it.
    pub id: String,
    /// Name of the role.
    pub name: String,
    /// Name of the box the role belongs to; none for a role of the cell.
    pub box_name: Option<String>,
}

/// Reads the `.pmeta` of the cell's root: its times, status, ACL and properties.
pub async fn root_pmeta(connection: &mut PgConnection, cell: &CellId) -> Result<Option<String>, StoreError> {
    sqlx::query_scalar!("SELECT directory_root($1)", cell.as_str())
        .fetch_optional(connection)
        .await
        .map(Option::flatten)
        .map_err(StoreError::doing("read the root of a cell"))
}

/// Finds the roles with these ids. Roles that do not exist, and roles of a box that does not exist, are left out.
pub async fn roles(connection: &mut PgConnection, cell: &CellId, ids: &[String]) -> Result<Vec<Role>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows =
        sqlx::query!(r#"SELECT id AS "id!", name, box_id, box_name FROM directory_roles($1, $2)"#, cell.as_str(), ids)
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

/// Finds an account by its name.
pub async fn account(connection: &mut PgConnection, cell: &CellId, name: &str) -> Result<Option<Account>, StoreError> {
    sqlx::query_as!(
        Account,
        r#"SELECT status, roles AS "roles!" FROM directory_account($1, $2, $3)"#,
        cell.as_str(),
        name,
        limits::ROLES
    )
    .fetch_optional(connection)
    .await
    .map_err(StoreError::doing("find an account"))
}

/// Finds the password of an account by the account's name.
pub async fn password(
    connection: &mut PgConnection,
    cell: &CellId,
    name: &str,
) -> Result<Option<Password>, StoreError> {
    let row = sqlx::query!("SELECT status, algorithm, hash FROM directory_password($1, $2)", cell.as_str(), name)
        .fetch_optional(connection)
        .await
        .map_err(StoreError::doing("find a password"))?;
    Ok(row.map(|row| Password { status: row.status, algorithm: row.algorithm, hash: row.hash.map(Into::into) }))
}
