//! How requests use the database: in a task of their own, for a bounded time.

use model::limits;
use model::store::StoreError;
use sqlx::{PgConnection, PgPool};

/// Runs one unit of database work.
///
/// It runs in a task of its own because a client that resets its connection drops the handler in the middle, and a
/// cancelled `begin()` of sqlx 0.9.0 would hand an open transaction to the next request. When the answer takes too
/// long the task goes on and finishes its work; only the client stops waiting.
pub(crate) async fn ask<T, E, W>(pool: &PgPool, work: W) -> Result<T, E>
where
    T: 'static,
    E: From<StoreError> + 'static,
    W: AsyncFnOnce(&mut PgConnection) -> Result<T, E> + 'static,
{
    let pool = pool.clone();
    let task = actix_web::rt::spawn(async move {
        let mut connection = pool.acquire().await.map_err(StoreError::doing("get a connection"))?;
        work(&mut connection).await
    });
    let late = || E::from(StoreError::Database { doing: "answer in time", source: sqlx::Error::PoolTimedOut });
    match tokio::time::timeout(limits::DATABASE_ANSWER, task).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) | Err(_) => Err(late()),
    }
}
