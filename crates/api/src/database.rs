//! How requests use the database: in a task of their own, for a bounded time.

use std::future::poll_fn;
use std::pin::pin;

use model::limits;
use model::store::StoreError;
use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, PgPool, Postgres};
use tokio::runtime::Handle;

/// A connection whose work did not end, because of a panic, say, is of no use to anybody else.
struct Held {
    connection: PoolConnection<Postgres>,
    ended: bool,
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.ended {
            self.connection.close_on_drop();
        }
    }
}

/// The connections of all requests. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    pool: PgPool,
    /// The runtime that lasts as long as the process.
    runtime: Handle,
}

impl Database {
    /// Connections that live in the current runtime.
    pub(crate) fn new(pool: PgPool) -> Self {
        Self { pool, runtime: Handle::current() }
    }

    /// Runs one unit of database work.
    ///
    /// It runs in a task of its own because a client that resets its connection drops the handler in the middle, and a
    /// cancelled `begin()` of sqlx 0.9.0 would hand an open transaction to the next request. When the answer takes too
    /// long the task goes on and finishes its work; only the client stops waiting.
    pub(crate) async fn ask<T, E, W>(&self, work: W) -> Result<T, E>
    where
        T: 'static,
        E: From<StoreError> + 'static,
        W: AsyncFnOnce(&mut PgConnection) -> Result<T, E> + 'static,
    {
        let Self { pool, runtime } = self.clone();
        let task = actix_web::rt::spawn(async move {
            let mut acquiring = pin!(pool.acquire());
            // A connection belongs to the runtime in which it was opened. Each thread of the server has one of its own,
            // which goes with it when the service drains, while other threads still answer with that connection.
            let acquired = poll_fn(|context| {
                let _here = runtime.enter();
                acquiring.as_mut().poll(context)
            });
            let connection = acquired.await.map_err(StoreError::doing("get a connection"))?;
            let mut held = Held { connection, ended: false };
            let done = work(&mut held.connection).await;
            held.ended = true;
            done
        });
        let late = || E::from(StoreError::Database { doing: "answer in time", source: sqlx::Error::PoolTimedOut });
        match tokio::time::timeout(limits::DATABASE_ANSWER, task).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(late()),
        }
    }
}
