//! Hosts that run services.

use std::time::Duration;

use sqlx::{Connection, Executor, PgConnection};

use super::StoreError;

/// Finds another host that reported within `gone`, and reports this one unless there is one and it must not be: `alone`.
/// One process at a time, so that of two hosts that begin at once one finds the other.
pub async fn report(
    connection: &mut PgConnection,
    id: &str,
    name: &str,
    alone: bool,
    gone: Duration,
) -> Result<Option<String>, StoreError> {
    let doing = || StoreError::doing("report a host");
    let mut tx = connection.begin().await.map_err(doing())?;
    tx.execute("LOCK TABLE host IN SHARE ROW EXCLUSIVE MODE").await.map_err(doing())?;
    let other = sqlx::query_scalar!(
        "SELECT name FROM host WHERE id <> $1 AND seen_at > clock_timestamp() - make_interval(secs => $2)
         ORDER BY seen_at DESC LIMIT 1",
        id,
        gone.as_secs_f64()
    )
    .fetch_optional(&mut *tx)
    .await
    .map_err(doing())?;
    if other.is_none() || !alone {
        sqlx::query!(
            "INSERT INTO host (id, name) VALUES ($1, $2)
             ON CONFLICT (id) DO UPDATE SET name = excluded.name, seen_at = clock_timestamp()",
            id,
            name
        )
        .execute(&mut *tx)
        .await
        .map_err(doing())?;
        sqlx::query!("DELETE FROM host WHERE seen_at < clock_timestamp() - interval '1 day'")
            .execute(&mut *tx)
            .await
            .map_err(doing())?;
    }
    tx.commit().await.map_err(doing())?;
    Ok(other)
}
