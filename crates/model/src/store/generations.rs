//! Generations: contents of a cell that are being written, or that nobody names any more.
//!
//! A generation is registered before its first row and struck off after its last. Garbage is a lasting property here
//! too: a generation is filled by one attempt, and attempts are never repeated.

use std::time::Duration;

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::StoreError;
use super::jobs::Fence;
use crate::failpoint;
use crate::limits;

/// Registers a new generation that an attempt, or a load when there is none, is about to fill.
pub async fn begin(connection: &mut PgConnection, filled_by: Option<&Fence>) -> Result<String, StoreError> {
    let id = Uuid::new_v4().simple().to_string();
    sqlx::query!(
        "INSERT INTO generation (id, job_id, attempt) VALUES ($1, $2, $3)",
        id,
        filled_by.map(|f| f.job),
        filled_by.map(|f| f.attempt)
    )
    .execute(connection)
    .await
    .map_err(StoreError::doing("begin a generation"))?;
    Ok(id)
}

/// Finds generations that no cell names and that nobody will ever make a cell name: retired ones, those of attempts
/// that are over, and those of loads that must have been killed.
pub async fn garbage(connection: &mut PgConnection, load_age: Duration) -> Result<Vec<String>, StoreError> {
    sqlx::query_scalar!(
        r#"
        SELECT g.id FROM generation g
        WHERE NOT EXISTS (SELECT 1 FROM cell WHERE cell.generation = g.id)
          AND (g.retired
               OR CASE WHEN g.job_id IS NULL
                       THEN g.created_at < clock_timestamp() - make_interval(secs => $1)
                       ELSE NOT EXISTS (SELECT 1 FROM job WHERE job.id = g.job_id AND job.state = 'running'
                                                            AND job.attempt = g.attempt)
                  END)
        ORDER BY g.created_at LIMIT 100
        "#,
        load_age.as_secs_f64()
    )
    .fetch_all(connection)
    .await
    .map_err(StoreError::doing("look for generations that nobody names"))
}

/// Holds a generation for as long as a transaction adds rows to it. `false`: it was given up, and nothing may be added
/// any more. An attempt that lost its job without knowing it stops here.
pub async fn hold(tx: &mut PgConnection, generation: &str) -> Result<bool, StoreError> {
    sqlx::query_scalar!("SELECT id FROM generation WHERE id = $1 AND NOT retired FOR SHARE", generation)
        .fetch_optional(tx)
        .await
        .map(|held| held.is_some())
        .map_err(StoreError::doing("hold a generation"))
}

/// Removes a generation's rows, step by step so that no step lasts long, and strikes it off. Gives the ids of its
/// blobs' files as they lose their rows, for the caller to remove.
///
/// The caller knows that it is garbage ([`garbage`]), or gave it up itself and never tried to make a cell name it.
pub async fn discard<R: Future<Output = ()>>(
    connection: &mut PgConnection,
    generation: &str,
    removed: impl Fn(Vec<Uuid>) -> R,
) -> Result<(), StoreError> {
    // Waits for rows that are being added ([`hold`]); none follow. Whoever was faster has struck it off, or made a cell
    // name it.
    let given_up = sqlx::query!("UPDATE generation SET retired = true WHERE id = $1", generation)
        .execute(&mut *connection)
        .await
        .map_err(StoreError::doing("give up a generation"))?;
    if given_up.rows_affected() == 0 {
        return Ok(());
    }
    remove_documents(connection, generation).await?;
    failpoint::reached("discard.documents_gone");
    remove_nodes(connection, generation).await?;
    let mut after = Uuid::nil();
    loop {
        let ids = remove_blobs(connection, generation, after).await?;
        let Some(last) = ids.iter().max() else { break };
        after = *last;
        removed(ids).await;
    }
    sqlx::query!("DELETE FROM generation WHERE id = $1", generation)
        .execute(connection)
        .await
        .map(|_| ())
        .map_err(StoreError::doing("strike off a generation"))
}

// Each step begins where the last one ended: looking for rows from the beginning would pass by all the removed ones again.

async fn remove_documents(connection: &mut PgConnection, generation: &str) -> Result<(), StoreError> {
    let mut after = ("Box".to_owned(), i64::MIN);
    loop {
        let last = sqlx::query!(
            r#"
            WITH step AS (
              SELECT ctid, type, position FROM document
              WHERE generation = $1 AND (type, position) > (($2::text)::document_type, $3)
              ORDER BY type, position LIMIT $4),
            gone AS (DELETE FROM document USING step WHERE document.ctid = step.ctid)
            SELECT type::text AS "type!", position AS "position!" FROM step ORDER BY step.type DESC, step.position DESC LIMIT 1
            "#,
            generation,
            after.0,
            after.1,
            limits::DISCARD_ROWS
        )
        .fetch_optional(&mut *connection)
        .await
        .map_err(StoreError::doing("remove documents"))?;
        match last {
            Some(last) => after = (last.r#type, last.position),
            None => return Ok(()),
        }
    }
}

async fn remove_nodes(connection: &mut PgConnection, generation: &str) -> Result<(), StoreError> {
    let mut after: Option<String> = None;
    loop {
        let last = sqlx::query_scalar!(
            r#"
            WITH step AS (
              SELECT ctid, path FROM node
              WHERE generation = $1 AND ($2::text IS NULL OR path > $2)
              ORDER BY path LIMIT $3),
            gone AS (DELETE FROM node USING step WHERE node.ctid = step.ctid)
            SELECT max(path) FROM step
            "#,
            generation,
            after,
            limits::DISCARD_ROWS
        )
        .fetch_one(&mut *connection)
        .await
        .map_err(StoreError::doing("remove nodes"))?;
        match last {
            Some(last) => after = Some(last),
            None => return Ok(()),
        }
    }
}

async fn remove_blobs(connection: &mut PgConnection, generation: &str, after: Uuid) -> Result<Vec<Uuid>, StoreError> {
    sqlx::query_scalar!(
        r#"
        DELETE FROM blob
        WHERE id IN (SELECT id FROM blob WHERE generation = $1 AND id > $2 ORDER BY id LIMIT $3)
        RETURNING id
        "#,
        generation,
        after,
        limits::DISCARD_ROWS
    )
    .fetch_all(connection)
    .await
    .map_err(StoreError::doing("remove blobs"))
}

/// Strikes off a generation that a cell names from now on, in the transaction that says so. `false`: it was given up.
pub(super) async fn named(tx: &mut PgConnection, generation: &str) -> Result<bool, StoreError> {
    sqlx::query!("DELETE FROM generation WHERE id = $1 AND NOT retired", generation)
        .execute(tx)
        .await
        .map(|done| done.rows_affected() == 1)
        .map_err(StoreError::doing("name a generation"))
}

/// Retires a generation that a cell named until now, in the transaction that ends this.
pub(super) async fn retire(tx: &mut PgConnection, generation: &str) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO generation (id, retired) VALUES ($1, true) ON CONFLICT (id) DO UPDATE SET retired = true",
        generation
    )
    .execute(tx)
    .await
    .map(|_| ())
    .map_err(StoreError::doing("retire a generation"))
}

/// Opens a connection of its own for [`discard`]: its statements may last longer than control statements.
pub async fn connect(url: &secrecy::SecretString) -> Result<PgConnection, StoreError> {
    let mut connection = super::connect(url, "cell-export discard").await?;
    // The order is that of an index; sorting all that is left in each step would take the longer the more there is.
    let patience = format!(
        "SET statement_timeout = {}; SET enable_sort = off; SET enable_bitmapscan = off",
        limits::DISCARD_STATEMENT_TIMEOUT.as_millis()
    );
    sqlx::Executor::execute(&mut connection, sqlx::AssertSqlSafe(patience))
        .await
        .map_err(StoreError::doing("prepare to remove rows"))?;
    Ok(connection)
}

/// Ends such a connection in order.
pub async fn close(connection: PgConnection) {
    let _ = connection.close().await;
}
