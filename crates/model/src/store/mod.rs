//! The database: connections, migrations, and every statement both services must agree on.
//!
//! [`jobs`] moves jobs, [`job_resources`] shows them, [`snapshots`] holds what clients see, [`cells`] holds cells, [`generations`] their contents,
//! [`directory`] tells who may do what with them, [`hosts`] where services run.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Executor};

use crate::limits;

pub mod cells;
pub mod directory;
pub mod generations;
pub mod hosts;
pub mod job_resources;
pub mod jobs;
mod room;
pub mod snapshots;

/// The schema. Applied by `api migrate`, once per release, never by a starting service.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations");

/// A statement that failed, or a row that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database did not do what was asked.
    #[error("database: {doing}")]
    Database {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: sqlx::Error,
    },
    /// A row holds a value that this binary does not know.
    #[error("row {row} of table {table} has an unknown {column}")]
    Corrupt {
        /// Table.
        table: &'static str,
        /// Column.
        column: &'static str,
        /// Key of the row.
        row: String,
    },
}

/// How a database error is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultClass {
    /// Gone or overloaded: trying again can help. Also everything that is not known to be permanent.
    Transient,
    /// The database's own disk is full.
    DiskFull,
    /// Trying again cannot help.
    Permanent,
}

impl StoreError {
    /// Returns a function that names what was being done when an error came.
    pub fn doing(doing: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Database { doing, source }
    }

    /// Classifies the error by its SQLSTATE (PostgreSQL documentation, appendix A).
    pub fn class(&self) -> FaultClass {
        let source = match self {
            Self::Database { source, .. } => source,
            Self::Corrupt { .. } => return FaultClass::Permanent,
        };
        match source.as_database_error().and_then(|e| e.code()).as_deref() {
            Some("53100") => FaultClass::DiskFull,
            Some("42501") => FaultClass::Permanent,
            Some(code) if code.starts_with("22") => FaultClass::Permanent,
            _ => FaultClass::Transient,
        }
    }

    /// The name of the violated constraint, if the error is a violation.
    pub fn constraint(&self) -> Option<&str> {
        match self {
            Self::Database { source, .. } => source.as_database_error().and_then(|e| e.constraint()),
            Self::Corrupt { .. } => None,
        }
    }
}

/// Statements are planned once for a connection, often while nothing waits and tables are small. Reading a whole table, or
/// any index of active jobs and a sort, then looks as good as the index that is meant; once thousands of jobs wait every
/// statement would read them all. So the index that finds the rows, or has the order, is always used: there is one for
/// whatever is looked for among many rows. Where there is none the plan is as before, but of enormous cost.
const PLANS: &str = "SET enable_seqscan = off; SET enable_sort = off";

fn options(url: &SecretString, name: &str) -> Result<PgConnectOptions, sqlx::Error> {
    let options: PgConnectOptions = url.expose_secret().parse()?;
    // Statements and their parameters belong to nobody's log.
    Ok(options.application_name(name).disable_statement_logging())
}

fn session(statement: Duration, idle: Duration) -> String {
    format!(
        // A ROLLBACK outside a transaction is no news (see `pool`). Statements find a few rows or pass many on as they are:
        // to compile one, as PostgreSQL does when it takes it for expensive, costs more than it saves.
        "SET statement_timeout = {}; SET lock_timeout = {}; SET idle_in_transaction_session_timeout = {}; \
         SET client_min_messages = error; SET jit = off",
        statement.as_millis(),
        limits::LOCK_TIMEOUT.as_millis(),
        idle.as_millis()
    )
}

/// Opens a pool for short control statements. Connects when first used, so that a service starts without its database.
///
/// A connection that comes back in the middle of a transaction is rolled back before anybody else gets it: a cancelled
/// `begin()` of sqlx 0.9.0 would otherwise hand the open transaction on (launchbadge/sqlx#4393).
pub fn pool(url: &SecretString, name: &str, size: u32) -> Result<PgPool, StoreError> {
    let options = options(url, name).map_err(StoreError::doing("read the database URL"))?;
    Ok(short_statements(size)
        .after_release(|connection, _| Box::pin(async move { connection.execute("ROLLBACK").await.map(|_| true) }))
        .connect_lazy_with(options))
}

/// The same for whoever never lets work be cancelled, and closes a connection whose work did not end: it spares the
/// server a statement for every piece of work.
pub fn pool_of_whole_work(url: &SecretString, name: &str, size: u32) -> Result<PgPool, StoreError> {
    let options = options(url, name).map_err(StoreError::doing("read the database URL"))?;
    // Many requests at once would all open connections at once, and each take too long.
    Ok(short_statements(size).min_connections(limits::DATABASE_WARM.min(size)).connect_lazy_with(options))
}

fn short_statements(size: u32) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(limits::DATABASE_CONNECT)
        // A connection that was used a moment ago is there still, as a rule; what is not costs one answer 503.
        .test_before_acquire(false)
        .before_acquire(|connection, about| {
            Box::pin(async move {
                if about.idle_for < limits::CONNECTION_TRUSTED {
                    return Ok(true);
                }
                connection.ping().await.map(|()| true)
            })
        })
        .after_connect(|connection, _| {
            Box::pin(async move {
                let setup = session(limits::STATEMENT_TIMEOUT, limits::IDLE_IN_TRANSACTION_TIMEOUT);
                connection.execute(sqlx::AssertSqlSafe(format!("{setup}; {PLANS}"))).await.map(|_| ())
            })
        })
}

/// Opens one connection of its own for control statements.
pub async fn connect(url: &SecretString, name: &str) -> Result<PgConnection, StoreError> {
    dedicated(url, name, session(limits::STATEMENT_TIMEOUT, limits::IDLE_IN_TRANSACTION_TIMEOUT)).await
}

/// Opens one connection of its own for reading a cell or loading one: long statements, `COPY`.
///
/// Never from a pool: an abandoned `COPY` leaves a connection of sqlx 0.9.0 out of step, and later statements on it
/// report nothing done although they were (see ARCHITECTURE.md).
pub async fn connect_for_copy(url: &SecretString, name: &str) -> Result<PgConnection, StoreError> {
    dedicated(url, name, session(limits::READ_STATEMENT_TIMEOUT, limits::READ_STALL)).await
}

async fn dedicated(url: &SecretString, name: &str, session: String) -> Result<PgConnection, StoreError> {
    let opening = async {
        let mut connection = PgConnection::connect_with(&options(url, name)?).await?;
        connection.execute(sqlx::AssertSqlSafe(session)).await?;
        Ok(connection)
    };
    match tokio::time::timeout(limits::READ_CONNECT, opening).await {
        Ok(result) => result.map_err(StoreError::doing("connect")),
        Err(_) => Err(StoreError::Database { doing: "connect", source: sqlx::Error::PoolTimedOut }),
    }
}

/// Applies the migrations that are missing. Those that a newer version has applied are left alone: going back to this one
/// needs no other schema (docs/operations.md, "Upgrading").
///
/// # Errors
/// When the database cannot be reached, is locked by another migration for more than 30 s, or refuses.
pub async fn migrate(url: &SecretString) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut connection = PgConnection::connect_with(&options(url, "migrate")?).await?;
    connection.execute("SET lock_timeout = '30s'").await?;
    let mut migrator = sqlx::migrate::Migrator::with_migrations(MIGRATOR.iter().cloned().collect());
    migrator.set_ignore_missing(true).run(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

/// Looks whether the database answers through a pool, for [`crate::internal`].
#[cfg(feature = "internal")]
pub async fn look(pool: PgPool) -> crate::internal::State {
    use crate::internal::State;
    let Ok(mut connection) = pool.acquire().await else { return State::Away };
    if ping(&mut connection).await.is_ok() { State::Fine } else { State::Away }
}

/// Asks the database for a sign of life.
pub async fn ping(connection: &mut PgConnection) -> Result<(), StoreError> {
    connection.execute("SELECT 1").await.map(|_| ()).map_err(StoreError::doing("ping"))
}
