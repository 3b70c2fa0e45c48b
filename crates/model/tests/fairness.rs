//! Who gets a worker next, and who is told to come later, against a real PostgreSQL.

use std::time::Duration;

use model::cell::CellId;
use model::snapshot_name::SnapshotName;
use model::store::jobs::{self, AcceptError, Admission, NewJob};
use model::store::{self, MIGRATOR};
use sqlx::{ConnectOptions, PgConnection, PgPool};
use uuid::Uuid;

/// Jobs of the rush below, an owner each.
const RUSH: i64 = 400;
const HOUR: Duration = Duration::from_secs(3600);

async fn make_cell(connection: &mut PgConnection, id: &str, owner: Option<&str>) {
    sqlx::query("INSERT INTO cell (id, name, document, owner) VALUES ($1, $1, '{}', $2)")
        .bind(id)
        .bind(owner)
        .execute(connection)
        .await
        .expect("a cell");
}

async fn accept(connection: &mut PgConnection, cell: &str, admission: Admission) -> Result<Uuid, AcceptError> {
    let job = NewJob {
        id: Uuid::new_v4(),
        cell: CellId::parse(cell).expect("an id"),
        name: SnapshotName::parse("n").expect("a name"),
        deadline: HOUR,
        max_strikes: 4,
        admission,
        idempotency: None,
        trace: None,
    };
    jobs::accept(connection, &job).await.map(|()| job.id)
}

async fn claim(connection: &mut PgConnection) -> Option<String> {
    let owner = Uuid::new_v4().to_string();
    let claim = jobs::claim(connection, None, &owner, HOUR).await.expect("claiming works");
    claim.map(|claim| claim.cell_id.to_string())
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn owners_take_turns(pool: PgPool) {
    let mut connection = pool.acquire().await.expect("a connection");
    let c = &mut *connection;
    for n in 0..50 {
        make_cell(c, &format!("many-{n}"), Some("https://u/#many")).await;
        accept(c, &format!("many-{n}"), Admission::default()).await.expect("accepted");
    }
    // Some of the queue is gone by when others come.
    for n in 0..10 {
        assert_eq!(claim(c).await, Some(format!("many-{n}")), "one owner's jobs in the order of their coming");
    }
    for n in 0..3 {
        make_cell(c, &format!("few-{n}"), Some("https://u/#few")).await;
        accept(c, &format!("few-{n}"), Admission::default()).await.expect("accepted");
    }
    make_cell(c, "nobody", None).await;
    accept(c, "nobody", Admission::default()).await.expect("accepted");
    let mut next = Vec::new();
    for _ in 0..9 {
        next.push(claim(c).await.expect("there are many"));
    }
    let place = |cell: &str| next.iter().position(|claimed| claimed == cell);
    for (cell, latest) in [("few-0", 3), ("nobody", 3), ("few-1", 5), ("few-2", 7)] {
        assert!(place(cell).is_some_and(|place| place <= latest), "{cell} in {next:?}");
    }
    // Whoever comes when nobody waits has no debts.
    while claim(c).await.is_some() {}
    make_cell(c, "late", Some("https://u/#late")).await;
    accept(c, "late", Admission::default()).await.expect("accepted");
    assert_eq!(claim(c).await.as_deref(), Some("late"));
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn limits_count_what_they_are_about(pool: PgPool) {
    let mut connection = pool.acquire().await.expect("a connection");
    let c = &mut *connection;
    for (cell, owner) in
        [("a", Some("x")), ("b", Some("x")), ("c", Some("x")), ("d", Some("y")), ("e", None), ("f", None)]
    {
        make_cell(c, cell, owner).await;
    }
    let two = || Admission::new(100, 2);
    accept(c, "a", two()).await.expect("the first");
    accept(c, "b", two()).await.expect("the second");
    // Running jobs count for their owner.
    claim(c).await.expect("a job");
    assert!(matches!(accept(c, "c", two()).await, Err(AcceptError::OwnerBusy)));
    accept(c, "d", two()).await.expect("another owner");
    let one = || Admission::new(100, 1);
    accept(c, "e", one()).await.expect("a cell without owner stands for itself");
    accept(c, "f", one()).await.expect("a cell without owner stands for itself");
    // Four wait: b, d, e and f.
    make_cell(c, "g", None).await;
    assert!(matches!(accept(c, "g", Admission::new(4, 2)).await, Err(AcceptError::QueueFull)));
    accept(c, "g", Admission::new(5, 2)).await.expect("one more may wait");
    let refused: i64 = sqlx::query_scalar("SELECT count(*) FROM snapshot_entry WHERE cell_id = 'c'")
        .fetch_one(c)
        .await
        .expect("a count");
    assert_eq!(refused, 0, "what is refused leaves nothing");
}

/// Rows of the table of jobs, and entries of its indexes, that were read so far.
async fn read(connection: &mut PgConnection) -> i64 {
    sqlx::query("SELECT pg_stat_force_next_flush()").execute(&mut *connection).await.expect("counters are told");
    let read = "SELECT (seq_tup_read + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes i
                                        WHERE i.relid = t.relid))::bigint
                FROM pg_stat_user_tables t WHERE relname = 'job'";
    sqlx::query_scalar(read).fetch_one(connection).await.expect("counters")
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_rush_after_a_quiet_time_reads_nobody_elses_jobs(pool: PgPool) {
    let url = pool.connect_options().to_url_lossy().to_string();
    let services = store::pool(&url.into(), "cell-export test", 1).expect("a pool");
    let mut connection = services.acquire().await.expect("a connection");
    let c = &mut *connection;
    let make = "INSERT INTO cell (id, name, document, owner)
                SELECT 'c' || n, 'c' || n, '{}', 'o' || n FROM generate_series(1, $1) n";
    sqlx::query(make).bind(RUSH).execute(&mut *c).await.expect("cells");
    let admission = Admission::default();
    // A few have ended and nothing waits when the statistics are made: the planner expects no queue.
    for n in 1..=60 {
        accept(c, &format!("c{n}"), admission.clone()).await.expect("accepted");
    }
    sqlx::query("UPDATE job SET state = 'failed', finished_at = clock_timestamp(), error = '{}'")
        .execute(&mut *c)
        .await
        .expect("ended");
    sqlx::query("DELETE FROM snapshot_entry").execute(&mut *c).await.expect("no names are taken");
    sqlx::query("VACUUM (ANALYZE) job").execute(&mut *c).await.expect("statistics");
    let before = read(c).await;
    for n in 1..=RUSH {
        accept(c, &format!("c{n}"), admission.clone()).await.expect("accepted");
    }
    let accepted = read(c).await;
    for _ in 0..RUSH {
        claim(c).await.expect("a job");
    }
    let claimed = read(c).await;
    let (accepting, claiming) = (accepted - before, claimed - accepted);
    assert!(accepting < 10 * RUSH, "{accepting} rows and entries were read to accept {RUSH} jobs");
    assert!(claiming < 10 * RUSH, "{claiming} rows and entries were read to claim {RUSH} jobs");
}
