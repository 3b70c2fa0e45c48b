//! Looks at the database server, and at what this service is to it.

use std::time::Duration;

use chrono::Utc;
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgListener};
use sqlx::{Connection, PgConnection};
use tokio::time::timeout;
use uuid::Uuid;

use super::rights::{self, Service};
use super::{Doctor, Finding, queue, schema};
use crate::store::{self, StoreError};
use crate::{error_chain::Chain, limits};

/// What a service asks of the database.
#[derive(Debug, Clone)]
pub struct Demand<'a> {
    /// Where it is.
    pub url: &'a SecretString,
    /// Which service asks.
    pub service: Service,
    /// Connections that one process of it may have open.
    pub connections: u32,
}

/// A connection that looks share; nothing once it is of no use.
#[derive(Debug)]
pub struct Asked(Option<PgConnection>);

impl Asked {
    /// Looks by asking the database. What hangs or breaks off makes an end of the connection.
    pub async fn look(
        &mut self,
        doctor: &mut Doctor,
        name: &'static str,
        asking: impl AsyncFnOnce(&mut PgConnection) -> Result<Finding, sqlx::Error>,
    ) -> bool {
        let Some(mut connection) = self.0.take() else {
            return doctor.note(name, Finding::skipped("the database cannot be asked"));
        };
        let mut back = None;
        let looking = async {
            match asking(&mut connection).await {
                Ok(finding) => {
                    back = Some(connection);
                    finding
                }
                Err(error) => {
                    let usable = error.as_database_error().is_some();
                    let finding = refused(&error);
                    back = usable.then_some(connection);
                    finding
                }
            }
        };
        let useful = doctor.look(name, looking).await;
        self.0 = back;
        useful
    }
}

fn refused(error: &sqlx::Error) -> Finding {
    let advice = match error.as_database_error().and_then(|e| e.code()).as_deref() {
        Some("42501") => "grant what is missing: the look \"database rights\" says what",
        Some("42P01" | "42703" | "42704" | "42883") => "the schema is not the one of this program: run `api migrate`",
        Some("26000" | "42P05") => POOLED,
        Some("57014") => "the database is overloaded, or somebody holds a lock: look at pg_stat_activity",
        _ => "look at the log of the database",
    };
    Finding::fault(Chain(error).to_string(), advice)
}

/// Looks at the database as a service finds it. Returns the connection for further looks; of no use when the schema is
/// not the right one.
pub async fn examine(doctor: &mut Doctor, demand: &Demand<'_>) -> Asked {
    let mut connection = None;
    let reached = doctor.look("database", async {
        match store::connect(demand.url, "cell-export doctor").await {
            Ok(open) => {
                connection = Some(open);
                Finding::ok(place(demand.url))
            }
            Err(error) => unreachable(&error),
        }
    });
    reached.await;
    let mut asked = Asked(connection);
    asked.look(doctor, "database version", version).await;
    let fitting = asked.look(doctor, "schema", schema::version).await;
    if fitting {
        let service = demand.service;
        asked.look(doctor, "database role", async |c| rights::role(c, service).await).await;
        asked.look(doctor, "database rights", async |c| rights::rights(c, service).await).await;
        asked.look(doctor, "row level security", rights::row_level_security).await;
        if service == Service::Worker {
            asked.look(doctor, "reading a cell", rights::reading).await;
        }
        asked.look(doctor, "triggers", rights::triggers).await;
    } else {
        let because =
            if asked.0.is_some() { "the schema is not the right one" } else { "the database cannot be asked" };
        let mut names = vec!["database role", "database rights", "row level security"];
        names.extend((demand.service == Service::Worker).then_some("reading a cell"));
        names.push("triggers");
        doctor.skip(&names, because);
    }
    asked.look(doctor, "durability", durability).await;
    let connections = demand.connections;
    asked.look(doctor, "connections", async |c| self::connections(c, connections).await).await;
    asked.look(doctor, "old transactions", old_transactions).await;
    asked.look(doctor, "clock", clock).await;
    asked.look(doctor, "database session", async |c| session(c, demand.url).await).await;
    asked.look(doctor, "notifications", async |c| notifications(c, demand.url).await).await;
    queue::examine(doctor, &mut asked, fitting).await;
    asked
}

/// Host, port, database and user: never the password.
fn place(url: &SecretString) -> String {
    match url.expose_secret().parse::<PgConnectOptions>() {
        Ok(options) => format!(
            "{}:{}, database {}, as {}",
            options.get_host(),
            options.get_port(),
            options.get_database().unwrap_or("of the user's name"),
            options.get_username()
        ),
        Err(_) => "DATABASE_URL cannot be read".to_owned(),
    }
}

fn unreachable(error: &StoreError) -> Finding {
    let StoreError::Database { source, .. } = error else {
        return Finding::fault(Chain(error).to_string(), "look at the log of the database");
    };
    let advice = match source.as_database_error().and_then(|e| e.code()).as_deref() {
        Some("28P01") => {
            "the password in DATABASE_URL is not the user's: ALTER ROLE … PASSWORD …, or set the right one"
        }
        Some("28000") => "let the user in: pg_hba.conf, and CREATE ROLE … LOGIN as deploy/postgres/users.sh does",
        Some("3D000") => "make the database, owned by the user that migrates, and run `api migrate`",
        Some("53300") => "every connection is taken: look who has them, lower API_POOL, or raise max_connections",
        Some("57P03") => "the database starts, or ends: wait",
        Some(_) => "look at the log of the database",
        None if matches!(source, sqlx::Error::Configuration(_)) => {
            "DATABASE_URL is postgres://USER:PASSWORD@HOST:PORT/DATABASE"
        }
        None => "start it, or correct host and port in DATABASE_URL; a firewall makes it hang, too",
    };
    // Not where it was tried: what is no right URL may have a password anywhere.
    let seen = if matches!(source, sqlx::Error::Configuration(_)) {
        "DATABASE_URL cannot be read".to_owned()
    } else {
        Chain(source).to_string()
    };
    Finding::fault(seen, advice)
}

/// Versions of the server that this program is tested with.
const TESTED: std::ops::RangeInclusive<i32> = 15..=15;

async fn version(connection: &mut PgConnection) -> Result<Finding, sqlx::Error> {
    let number = sqlx::query_scalar!(r#"SELECT current_setting('server_version_num')::int AS "number!""#)
        .fetch_one(connection)
        .await?;
    let (major, seen) = (number / 10_000, format!("PostgreSQL {}.{}", number / 10_000, number % 10_000));
    Ok(match major {
        major if TESTED.contains(&major) => Finding::ok(seen),
        major if major < *TESTED.start() => {
            Finding::fault(seen, format!("upgrade the server to version {}", TESTED.start()))
        }
        _ => Finding::warning(
            format!("{seen}: newer than what this program is tested with"),
            format!("try it with a copy first; tested is version {}", TESTED.end()),
        ),
    })
}

/// A 202 is a promise: it must be on disk before it is given.
async fn durability(connection: &mut PgConnection) -> Result<Finding, sqlx::Error> {
    let found = sqlx::query!(
        r#"SELECT current_setting('synchronous_commit') AS "commit!", current_setting('fsync') AS "fsync!",
                  current_setting('full_page_writes') AS "pages!""#
    )
    .fetch_one(connection)
    .await?;
    let off = [("synchronous_commit", &found.commit), ("fsync", &found.fsync), ("full_page_writes", &found.pages)];
    Ok(match off.iter().find(|(_, value)| *value == "off") {
        Some((name, _)) => Finding::fault(
            format!("{name} is off: a job that was accepted can be lost with the power"),
            format!("set it to on: deploy/postgres/postgresql.conf; also ALTER ROLE and ALTER DATABASE can set {name}"),
        ),
        None => Finding::ok(format!("synchronous_commit is {}, fsync and full_page_writes are on", found.commit)),
    })
}

/// Whether there is room for all connections of this process.
async fn connections(connection: &mut PgConnection, wanted: u32) -> Result<Finding, sqlx::Error> {
    let found = sqlx::query!(
        r#"
        SELECT current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint
                 AS "most!",
               (SELECT count(*) FROM pg_stat_activity
                WHERE backend_type = 'client backend' AND usename IS DISTINCT FROM current_user) AS "others!",
               (SELECT count(*) FROM pg_stat_activity WHERE usename = current_user) AS "own!",
               (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user) AS "of_user!",
               (SELECT datconnlimit FROM pg_database WHERE datname = current_database()) AS "of_database!"
        "#
    )
    .fetch_one(connection)
    .await?;
    let wanted = i64::from(wanted);
    let limits = [("user", found.of_user), ("database", found.of_database)];
    if let Some((what, limit)) = limits.iter().find(|(_, limit)| (0..wanted).contains(&i64::from(*limit))) {
        return Ok(Finding::fault(
            format!("the {what} may have {limit} connections, one process of this service wants up to {wanted}"),
            format!(
                "as a superuser: ALTER {} … CONNECTION LIMIT -1",
                if *what == "user" { "ROLE" } else { "DATABASE" }
            ),
        ));
    }
    let seen = format!(
        "{} of {} in use, {} of them by this user; one process of this service wants up to {wanted}",
        found.others + found.own,
        found.most,
        found.own
    );
    Ok(match found.others + found.own.max(wanted) > found.most {
        true => Finding::warning(
            seen,
            "raise max_connections, or lower API_POOL or WORKER_SLOTS; docs/operations.md counts",
        ),
        false => Finding::ok(seen),
    })
}

/// What keeps the database from removing dead rows, so that it grows and slows.
async fn old_transactions(connection: &mut PgConnection) -> Result<Finding, sqlx::Error> {
    let found = sqlx::query!(
        r#"
        SELECT greatest(
                 (SELECT max(age(backend_xmin)) FROM pg_stat_activity WHERE pid <> pg_backend_pid()),
                 (SELECT max(age(xmin)) FROM pg_replication_slots),
                 (SELECT max(age(transaction)) FROM pg_prepared_xacts), 0) AS "age!",
               (SELECT count(*) FROM pg_stat_activity
                WHERE state LIKE 'idle in transaction%' AND state_change < clock_timestamp() - interval '5 minutes')
                 AS "idle!",
               (SELECT count(*) FROM pg_prepared_xacts) AS "prepared!"
        "#
    )
    .fetch_one(connection)
    .await?;
    let advice = "SELECT pid, usename, state, xact_start, age(backend_xmin) FROM pg_stat_activity ORDER BY 5 DESC NULLS \
                  LAST, and pg_terminate_backend for whom it should not be; look at pg_replication_slots and pg_prepared_xacts, too";
    Ok(if found.age > limits::OLD_TRANSACTIONS {
        Finding::warning(format!("something holds the rows of {} transactions", found.age), advice)
    } else if found.idle > 0 {
        Finding::warning(format!("{} sessions do nothing in the middle of a transaction", found.idle), advice)
    } else if found.prepared > 0 {
        Finding::warning(format!("{} prepared transactions wait; this service makes none", found.prepared), advice)
    } else {
        Finding::ok(format!("the oldest is {} transactions old", found.age))
    })
}

/// Compares the clocks, as well as the way there and back lets it.
async fn clock(connection: &mut PgConnection) -> Result<Finding, sqlx::Error> {
    // The first question pays for the plan.
    let mut read = (Utc::now(), Utc::now(), Utc::now());
    for _ in 0..2 {
        let asked = Utc::now();
        let there = sqlx::query_scalar!(r#"SELECT clock_timestamp() AS "now!""#).fetch_one(&mut *connection).await?;
        read = (asked, there, Utc::now());
    }
    let (asked, there, answered) = read;
    let way = answered - asked;
    let off = (there - (asked + way / 2)).abs() - (way / 2).abs();
    let seconds = off.num_milliseconds().max(0) as f64 / 1000.0;
    Ok(match seconds > limits::CLOCK_DIFFERENCE.as_secs_f64() {
        true => Finding::warning(
            format!("this host and the database differ by {seconds:.1} s"),
            "let both follow a time server; jobs go by the database's clock alone, but ages of files, lives of tokens \
             and logs by the host's",
        ),
        false => Finding::ok(format!(
            "this host and the database agree within {:.3} s",
            seconds + way.num_milliseconds() as f64 / 1000.0
        )),
    })
}

const POOLED: &str = "something between lends sessions for one transaction each: connect past it, or let it lend whole ones \
                      (pgbouncer: pool_mode = session)";

/// Looks whether sessions are what they seem: a pool between that lends connections for one transaction each gives
/// settings, prepared statements and notifications of one client to another.
async fn session(connection: &mut PgConnection, url: &SecretString) -> Result<Finding, sqlx::Error> {
    let shared = || Finding::fault("statements of one connection reach several sessions", POOLED);
    let own = backend(connection).await?;
    let Ok(mut other) = store::connect(url, "cell-export doctor").await else {
        return Ok(Finding::fault(
            "there is no second connection",
            "the looks \"database\" and \"connections\" say why",
        ));
    };
    // In a transaction it keeps what it got; if that was ours, we have another by now.
    let mut tx = other.begin().await?;
    let others = backend(&mut tx).await?;
    let again = backend(connection).await?;
    let timeout = sqlx::query_scalar!(
        r#"SELECT current_setting('statement_timeout')::interval = $1::float8 * interval '1 second' AS "kept!""#,
        limits::STATEMENT_TIMEOUT.as_secs_f64()
    )
    .fetch_one(&mut *connection)
    .await?;
    tx.rollback().await?;
    let _ = other.close().await;
    if own != again || own == others {
        return Ok(shared());
    }
    Ok(match timeout {
        true => Finding::ok("it keeps its settings"),
        false => shared(),
    })
}

async fn backend(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT pg_backend_pid() AS "pid!""#).fetch_one(connection).await
}

/// Tells and hears.
async fn notifications(connection: &mut PgConnection, url: &SecretString) -> Result<Finding, sqlx::Error> {
    const CHANNEL: &str = "cellexport_doctor";
    let silent = |seen: &str| {
        Finding::fault(
            seen,
            "clients that wait see changes late: connect past what lends connections for one transaction each",
        )
    };
    let Ok(pool) = store::pool(url, "cell-export doctor", 1) else {
        return Ok(silent("there is no second connection"));
    };
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen(CHANNEL).await?;
    let word = Uuid::new_v4().to_string();
    sqlx::query!("SELECT pg_notify($1, $2)", CHANNEL, word).execute(connection).await?;
    let hearing = async {
        // Another doctor may be at work.
        while listener.recv().await?.payload() != word {}
        Ok::<_, sqlx::Error>(())
    };
    let heard = timeout(NOTIFIED, hearing).await;
    drop(listener);
    pool.close().await;
    match heard {
        Ok(heard) => heard.map(|()| Finding::ok("told and heard")),
        Err(_) => Ok(silent("what was told was not heard")),
    }
}

/// A notification comes at once or not at all.
const NOTIFIED: Duration = Duration::from_secs(3);
