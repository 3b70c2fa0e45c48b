//! The state machine of jobs against a real PostgreSQL: every transition, every guard, every counted row.
//!
//! Each test gets a database of its own. Bugs that these tests exist for: a worker that finishes a job it has lost
//! (guard without attempt or owner), a reaper that reads first and writes by id later, a final state that changes.

use std::time::Duration;

use model::cell::CellId;
use model::error_code::{ErrorBody, ErrorCode};
use model::job::{Amount, JobState, Progress, Reaping};
use model::message::Bell;
use model::snapshot_name::{SnapshotFileName, SnapshotName};
use model::store::jobs::{
    self, AcceptError, Admission, Beat, Cancelling, Claim, Fence, FinishedBlob, NewJob, Requeued,
};
use model::store::snapshots::{self, Content};
use model::store::{self, MIGRATOR, StoreError};
use model::trace_context::TraceContext;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

const HOUR: Duration = Duration::from_secs(3600);

fn cell() -> CellId {
    CellId::parse("cell-id").expect("a legal id")
}

fn name(text: &str) -> SnapshotName {
    SnapshotName::parse(text).expect("a legal name")
}

fn blob(fence: &Fence) -> FinishedBlob {
    FinishedBlob {
        key: format!("snapshots/{}/{}-x.zip", fence.job, fence.attempt),
        size: 9,
        sha256: [7; 32],
        contents: Amount { documents: 5, files: 2, bytes: 70 },
    }
}

fn error() -> ErrorBody {
    ErrorCode::DiskFull.body()
}

/// An order for a cell, which is made when it is not there.
async fn new_job(connection: &mut PgConnection, cell: CellId, text: &str) -> NewJob {
    sqlx::query("INSERT INTO cell (id, name, document) VALUES ($1, $1, '{}') ON CONFLICT DO NOTHING")
        .bind(cell.as_str())
        .execute(connection)
        .await
        .expect("a cell");
    NewJob {
        id: Uuid::new_v4(),
        cell,
        name: name(text),
        deadline: HOUR,
        max_strikes: 4,
        admission: Admission::default(),
        idempotency: None,
        trace: None,
    }
}

async fn accept(pool: &PgPool, text: &str) -> Result<Uuid, AcceptError> {
    let mut connection = pool.acquire().await.expect("a connection");
    let job = new_job(&mut connection, cell(), text).await;
    jobs::accept(&mut connection, &job).await.map(|()| job.id)
}

async fn claim(connection: &mut PgConnection, job: Uuid) -> Option<Claim> {
    let owner = Uuid::new_v4().to_string();
    jobs::claim(connection, Some(job), &owner, HOUR).await.expect("claiming works")
}

async fn running(pool: &PgPool, text: &str) -> Fence {
    let job = accept(pool, text).await.expect("accepted");
    claim(&mut pool.acquire().await.expect("a connection"), job).await.expect("claimable").fence
}

async fn state(pool: &PgPool, job: Uuid) -> JobState {
    let mut connection = pool.acquire().await.expect("a connection");
    jobs::find(&mut connection, job).await.expect("readable").expect("there").state
}

/// The row of a job and its entry as text: equal before and after means nothing changed.
async fn rows(pool: &PgPool, job: Uuid) -> String {
    sqlx::query_scalar(
        "SELECT job::text || e::text FROM job LEFT JOIN snapshot_entry e ON e.job_id = job.id WHERE id = $1",
    )
    .bind(job)
    .fetch_one(pool)
    .await
    .expect("a row")
}

async fn execute(pool: &PgPool, statement: &'static str, job: Uuid) -> Result<u64, sqlx::Error> {
    sqlx::query(statement).bind(job).execute(pool).await.map(|done| done.rows_affected())
}

async fn expire(pool: &PgPool, job: Uuid) {
    let statement = "UPDATE job SET lease_until = clock_timestamp() - interval '1 second' WHERE id = $1";
    assert_eq!(execute(pool, statement, job).await.expect("expired"), 1);
}

async fn visible(pool: &PgPool, file: &str) -> Option<Content> {
    let mut connection = pool.acquire().await.expect("a connection");
    let file = SnapshotFileName::parse(file).expect("a legal name");
    snapshots::find(&mut connection, &cell(), &file).await.expect("readable").map(|f| f.content)
}

/// Brings a new job into a state; the fence is that of its (last) attempt.
async fn in_state(pool: &PgPool, wanted: JobState) -> Fence {
    let text = Uuid::new_v4().to_string();
    let mut connection = pool.acquire().await.expect("a connection");
    let connection = &mut *connection;
    if wanted == JobState::Queued {
        let job = accept(pool, &text).await.expect("accepted");
        return Fence { job, attempt: 0, owner: String::new() };
    }
    let fence = running(pool, &text).await;
    match wanted {
        JobState::Queued | JobState::Running => {}
        JobState::Succeeded => assert!(jobs::succeed(connection, &fence, &blob(&fence)).await.expect("works")),
        JobState::Failed | JobState::Cancelled => {
            assert!(jobs::fail(connection, &fence, wanted, &error()).await.expect("works"));
        }
    }
    fence
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn only_the_owner_of_a_running_attempt_can_move_it(pool: PgPool) {
    for at in JobState::ALL {
        let owner = in_state(&pool, at).await;
        let strangers = [
            ("an older attempt", Fence { attempt: owner.attempt - 1, ..owner.clone() }),
            ("a later attempt", Fence { attempt: owner.attempt + 1, ..owner.clone() }),
            ("another owner", Fence { owner: "somebody".to_owned(), ..owner.clone() }),
        ];
        let right = (at != JobState::Running).then(|| ("the right fence in the wrong state", owner.clone()));
        for (who, fence) in strangers.into_iter().chain(right) {
            let before = rows(&pool, owner.job).await;
            let mut connection = pool.acquire().await.expect("a connection");
            let c = &mut *connection;
            let case = format!("{who}, {at:?}");
            assert_eq!(jobs::beat(c, &fence, HOUR, &Progress::default()).await.expect("works"), None, "{case}");
            assert!(!jobs::succeed(c, &fence, &blob(&fence)).await.expect("works"), "{case}");
            assert!(!jobs::fail(c, &fence, JobState::Failed, &error()).await.expect("works"), "{case}");
            assert!(!jobs::fail(c, &fence, JobState::Cancelled, &error()).await.expect("works"), "{case}");
            for strike in [true, false] {
                let requeued = jobs::requeue(c, &fence, HOUR, strike, None).await.expect("works");
                assert_eq!(requeued, Requeued::Lost, "{case}");
            }
            assert_eq!(rows(&pool, owner.job).await, before, "{case}");
        }
        // Out of the way of the next state: one active job per cell.
        let end = "UPDATE job SET state = 'failed', error = '{}', finished_at = now(), lease_owner = NULL, \
                   lease_until = NULL WHERE id = $1 AND state IN ('queued', 'running')";
        execute(&pool, end, owner.job).await.expect("ended");
    }
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_worker_that_lost_its_job_cannot_finish_the_next_attempt(pool: PgPool) {
    let zombie = running(&pool, "one").await;
    expire(&pool, zombie.job).await;
    let mut connection = pool.acquire().await.expect("a connection");
    let reaped = jobs::reap(&mut connection, 10).await.expect("reaping works");
    assert_eq!(reaped, [(zombie.job, Reaping::Requeue(Duration::from_secs(1)))]);
    execute(&pool, "UPDATE job SET available_at = now() WHERE id = $1", zombie.job).await.expect("available");
    let heir = claim(&mut connection, zombie.job).await.expect("claimable").fence;
    assert_eq!(heir.attempt, zombie.attempt + 1);

    assert!(!jobs::succeed(&mut connection, &zombie, &blob(&zombie)).await.expect("works"));
    assert!(!jobs::fail(&mut connection, &zombie, JobState::Failed, &error()).await.expect("works"));
    assert_eq!(visible(&pool, "one.zip").await, None);

    assert!(jobs::succeed(&mut connection, &heir, &blob(&heir)).await.expect("works"));
    let view = jobs::find(&mut connection, heir.job).await.expect("works").expect("there");
    assert_eq!(view.progress.done, blob(&heir).contents, "however long ago the last heartbeat was");
    assert_eq!(visible(&pool, "one.zip").await, Some(Content::Blob(blob(&heir).key)));
    assert!(!jobs::succeed(&mut connection, &zombie, &blob(&zombie)).await.expect("works"));
    assert_eq!(visible(&pool, "one.zip").await, Some(Content::Blob(blob(&heir).key)));
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_lease_that_ran_out_unnoticed_can_be_renewed(pool: PgPool) {
    let fence = running(&pool, "one").await;
    expire(&pool, fence.job).await;
    let mut connection = pool.acquire().await.expect("a connection");
    let beat = jobs::beat(&mut connection, &fence, HOUR, &Progress::default()).await.expect("works");
    assert_eq!(beat, Some(Beat { cancel: false, past_deadline: false }));
    assert_eq!(jobs::reap(&mut connection, 10).await.expect("works"), []);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn progress_only_grows_within_an_attempt_and_starts_anew_with_the_next(pool: PgPool) {
    let fence = running(&pool, "one").await;
    let mut connection = pool.acquire().await.expect("a connection");
    let amount = |n| Amount { documents: n, files: n, bytes: n };
    for (reported, expected) in [(5, 5), (3, 5), (9, 9)] {
        let progress = Progress {
            done: amount(reported),
            total: Some(amount(10)),
            share: reported as f64 / 10.0,
            remaining: None,
        };
        jobs::beat(&mut connection, &fence, HOUR, &progress).await.expect("works").expect("owned");
        let view = jobs::active(&mut connection, &cell()).await.expect("works").expect("active");
        let share = expected as f64 / 10.0;
        assert_eq!(view.progress, Progress { done: amount(expected), total: Some(amount(10)), share, remaining: None });
        assert_eq!(u64::from(view.percent), expected * 10);
    }
    jobs::requeue(&mut connection, &fence, Duration::ZERO, false, None).await.expect("works");
    let next = claim(&mut connection, fence.job).await.expect("claimable");
    assert_eq!(next.strikes, 0);
    let view = jobs::active(&mut connection, &cell()).await.expect("works").expect("active");
    assert_eq!(view.progress.done, amount(0));
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn of_many_requests_for_a_cell_one_is_accepted(pool: PgPool) {
    let requests = (0..50).map(|i| {
        let pool = pool.clone();
        tokio::spawn(async move { accept(&pool, &format!("n{i}")).await })
    });
    let mut accepted = 0;
    for request in requests.collect::<Vec<_>>() {
        match request.await.expect("no panic") {
            Ok(_) => accepted += 1,
            Err(AcceptError::CellBusy) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(accepted, 1);
    let entries: i64 = sqlx::query_scalar("SELECT count(*) FROM snapshot_entry").fetch_one(&pool).await.expect("count");
    assert_eq!(entries, 1, "a refused request leaves no entry behind");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_zip_keeps_its_name_and_an_error_gives_way(pool: PgPool) {
    let mut connection = pool.acquire().await.expect("a connection");
    let fence = running(&pool, "zip").await;
    jobs::succeed(&mut connection, &fence, &blob(&fence)).await.expect("works");
    assert!(matches!(accept(&pool, "zip").await, Err(AcceptError::NameTaken)));
    assert_eq!(jobs::active(&mut connection, &cell()).await.expect("works"), None, "nothing half accepted");

    let fence = running(&pool, "bad").await;
    jobs::fail(&mut connection, &fence, JobState::Failed, &error()).await.expect("works");
    assert_eq!(visible(&pool, "bad.error").await, Some(Content::Inline(error().to_json())));
    assert_eq!(visible(&pool, "bad.zip").await, None);

    let fence = running(&pool, "bad").await;
    assert_eq!(visible(&pool, "bad.error").await, None, "given way");
    jobs::succeed(&mut connection, &fence, &blob(&fence)).await.expect("works");
    let files = snapshots::list(&mut connection, &cell()).await.expect("works");
    let names: Vec<_> = files.iter().map(|f| f.name.to_string()).collect();
    assert_eq!(names, ["bad.zip", "zip.zip"], "never both files");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn one_job_is_claimed_once(pool: PgPool) {
    let job = accept(&pool, "one").await.expect("accepted");
    let claims = (0..20).map(|i| {
        let pool = pool.clone();
        tokio::spawn(async move {
            let mut connection = pool.acquire().await.expect("a connection");
            let id = (i % 2 == 0).then_some(job);
            jobs::claim(&mut connection, id, &format!("worker {i}"), HOUR).await.expect("works")
        })
    });
    let mut won = Vec::new();
    for claim in claims.collect::<Vec<_>>() {
        won.extend(claim.await.expect("no panic"));
    }
    assert_eq!(won.len(), 1);
    assert_eq!(won[0].fence.attempt, 1);
    assert_eq!((&won[0].cell_id, &won[0].name, won[0].cell_name.as_deref()), (&cell(), &name("one"), Some("cell-id")));
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn what_is_not_due_is_not_claimed(pool: PgPool) {
    let mut connection = pool.acquire().await.expect("a connection");
    for make_unfit in [
        "UPDATE job SET available_at = clock_timestamp() + interval '1 hour' WHERE id = $1",
        "UPDATE job SET deadline_at = clock_timestamp() - interval '1 second' WHERE id = $1",
        "UPDATE job SET cancel_requested = true WHERE id = $1",
    ] {
        let job = accept(&pool, &Uuid::new_v4().to_string()).await.expect("accepted");
        execute(&pool, make_unfit, job).await.expect("changed");
        assert_eq!(claim(&mut connection, job).await, None, "{make_unfit}");
        assert_eq!(jobs::claim(&mut connection, None, "x", HOUR).await.expect("works"), None, "{make_unfit}");
        assert_eq!(jobs::cancel(&mut connection, &cell(), job).await.expect("works"), Cancelling::Cancelled);
    }
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn strikes_are_counted_and_used_up(pool: PgPool) {
    let mut connection = pool.acquire().await.expect("a connection");
    let c = &mut *connection;
    let mut fence = running(&pool, "one").await;
    for _ in 0..3 {
        assert_eq!(
            jobs::requeue(c, &fence, Duration::ZERO, true, Some(&error())).await.expect("works"),
            Requeued::Queued
        );
        fence = claim(c, fence.job).await.expect("claimable").fence;
    }
    assert_eq!(jobs::requeue(c, &fence, Duration::ZERO, true, None).await.expect("works"), Requeued::OutOfStrikes);
    assert_eq!(state(&pool, fence.job).await, JobState::Running, "still ours to fail");
    // A shutdown is nobody's fault, however many failures there were.
    assert_eq!(jobs::requeue(c, &fence, Duration::ZERO, false, None).await.expect("works"), Requeued::Queued);
    fence = claim(c, fence.job).await.expect("claimable").fence;
    assert_eq!(fence.attempt, 5);
    expire(&pool, fence.job).await;
    assert_eq!(jobs::reap(c, 10).await.expect("works"), [(fence.job, Reaping::OutOfStrikes)]);
    assert_eq!(state(&pool, fence.job).await, JobState::Failed);
    let expected = ErrorCode::Interrupted.with(&["export", "4"]).to_json();
    assert_eq!(visible(&pool, "one.error").await, Some(Content::Inline(expected)));
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_job_past_its_deadline_fails_with_what_kept_it(pool: PgPool) {
    let mut connection = pool.acquire().await.expect("a connection");
    let c = &mut *connection;
    for (queued, failure, expected) in [
        (true, None, ErrorCode::Deadline.with(&["export"])),
        (true, Some(error()), error()),
        (false, None, ErrorCode::Deadline.with(&["export"])),
    ] {
        let text = Uuid::new_v4().to_string();
        let fence = running(&pool, &text).await;
        if queued {
            jobs::requeue(c, &fence, Duration::ZERO, false, failure.as_ref()).await.expect("works");
        } else {
            expire(&pool, fence.job).await;
        }
        assert!(!state(&pool, fence.job).await.is_final());
        let late = "UPDATE job SET deadline_at = clock_timestamp() - interval '1 second' WHERE id = $1";
        execute(&pool, late, fence.job).await.expect("late");
        assert_eq!(jobs::reap(c, 10).await.expect("works"), [(fence.job, Reaping::PastDeadline)]);
        assert_eq!(visible(&pool, &format!("{text}.error")).await, Some(Content::Inline(expected.to_json())));
    }
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn cancelling_depends_on_the_state_and_always_wins(pool: PgPool) {
    let mut connection = pool.acquire().await.expect("a connection");
    let c = &mut *connection;
    let other = CellId::parse("other").expect("legal");

    let job = accept(&pool, "queued").await.expect("accepted");
    assert_eq!(jobs::cancel(c, &other, job).await.expect("works"), Cancelling::Unknown, "not another cell's job");
    assert_eq!(jobs::cancel(c, &cell(), job).await.expect("works"), Cancelling::Cancelled);
    let expected = Some(Content::Inline(ErrorCode::Cancelled.with(&["export"]).to_json()));
    assert_eq!(visible(&pool, "queued.error").await, expected);
    assert_eq!(jobs::cancel(c, &cell(), job).await.expect("works"), Cancelling::AlreadyFinal(JobState::Cancelled));

    let fence = running(&pool, "running").await;
    assert_eq!(jobs::cancel(c, &cell(), fence.job).await.expect("works"), Cancelling::Requested);
    assert!(!jobs::succeed(c, &fence, &blob(&fence)).await.expect("works"), "the request came first");
    let beat = jobs::beat(c, &fence, HOUR, &Progress::default()).await.expect("works").expect("owned");
    assert!(beat.cancel);
    assert!(jobs::fail(c, &fence, JobState::Cancelled, &ErrorCode::Cancelled.with(&["export"])).await.expect("works"));
    assert_eq!(visible(&pool, "running.error").await, expected);

    // The worker died with the request unanswered: the reaper answers.
    let fence = running(&pool, "dead").await;
    assert_eq!(jobs::cancel(c, &cell(), fence.job).await.expect("works"), Cancelling::Requested);
    expire(&pool, fence.job).await;
    assert_eq!(jobs::reap(c, 10).await.expect("works"), [(fence.job, Reaping::Cancel)]);
    assert_eq!(state(&pool, fence.job).await, JobState::Cancelled);

    let fence = in_state(&pool, JobState::Succeeded).await;
    assert_eq!(
        jobs::cancel(c, &cell(), fence.job).await.expect("works"),
        Cancelling::AlreadyFinal(JobState::Succeeded)
    );
    assert_eq!(jobs::cancel(c, &cell(), Uuid::new_v4()).await.expect("works"), Cancelling::Unknown);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn the_reaper_leaves_alone_what_somebody_is_changing(pool: PgPool) {
    let fence = running(&pool, "one").await;
    expire(&pool, fence.job).await;
    // The worker's success is on its way: its transaction holds the row.
    let mut tx = pool.begin().await.expect("a transaction");
    sqlx::query("SELECT 1 FROM job WHERE id = $1 FOR UPDATE").bind(fence.job).execute(&mut *tx).await.expect("locked");
    let mut connection = pool.acquire().await.expect("a connection");
    let reaping = tokio::time::timeout(Duration::from_secs(10), jobs::reap(&mut connection, 10));
    assert_eq!(reaping.await.expect("does not wait for the row").expect("works"), []);
    assert!(jobs::succeed(&mut tx, &fence, &blob(&fence)).await.expect("works"));
    tx.commit().await.expect("committed");
    assert_eq!(jobs::reap(&mut connection, 10).await.expect("works"), []);
    assert_eq!(state(&pool, fence.job).await, JobState::Succeeded);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn many_reapers_reap_each_job_once(pool: PgPool) {
    let mut lost = Vec::new();
    for i in 0..10 {
        let cell = CellId::parse(&format!("cell{i}")).expect("legal");
        let mut connection = pool.acquire().await.expect("a connection");
        let job = new_job(&mut connection, cell, "n").await;
        let id = job.id;
        jobs::accept(&mut connection, &job).await.expect("accepted");
        claim(&mut connection, id).await.expect("claimable");
        expire(&pool, id).await;
        lost.push(id);
    }
    let reapers = (0..6).map(|_| {
        let pool = pool.clone();
        tokio::spawn(async move {
            let mut connection = pool.acquire().await.expect("a connection");
            jobs::reap(&mut connection, 100).await.expect("works")
        })
    });
    let mut reaped = Vec::new();
    for reaper in reapers.collect::<Vec<_>>() {
        reaped.extend(reaper.await.expect("no panic").into_iter().map(|(id, _)| id));
    }
    reaped.sort();
    lost.sort();
    assert_eq!(reaped, lost);
    let strikes: Vec<i32> =
        sqlx::query_scalar("SELECT DISTINCT strikes FROM job").fetch_all(&pool).await.expect("rows");
    assert_eq!(strikes, [1]);
}

/// Also through the relay, which knows only the row, and by every attempt.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_job_keeps_the_trace_of_its_request(pool: PgPool) {
    let mut connection = pool.acquire().await.expect("a connection");
    let c = &mut *connection;
    let longest = format!("a={}", "x".repeat(510));
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let trace = TraceContext::read(parent, Some(&longest));
    let job = NewJob { trace: trace.clone(), ..new_job(c, cell(), "one").await };
    jobs::accept(c, &job).await.expect("accepted");
    execute(&pool, "UPDATE job SET dispatch_at = now() WHERE id = $1", job.id).await.expect("due");
    assert_eq!(jobs::due(c, 10).await.expect("works"), [Bell { job: job.id, trace: trace.clone() }]);
    for attempt in 1..=2 {
        let claim = claim(c, job.id).await.expect("claimable");
        assert_eq!((claim.fence.attempt, &claim.trace), (attempt, &trace));
        jobs::requeue(c, &claim.fence, Duration::ZERO, true, None).await.expect("given back");
    }
    // As whoever does not know the columns leaves them, and as nobody here writes them.
    execute(&pool, "UPDATE job SET traceparent = NULL, tracestate = NULL WHERE id = $1", job.id).await.expect("done");
    let claim = claim(c, job.id).await.expect("claimable");
    assert_eq!(claim.trace, None);
    let short = execute(&pool, "UPDATE job SET traceparent = '00-' WHERE id = $1", job.id).await;
    short.expect_err("the column has a length");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn doorbells_are_due_once_and_again_later(pool: PgPool) {
    let job = accept(&pool, "one").await.expect("accepted");
    let mut connection = pool.acquire().await.expect("a connection");
    let c = &mut *connection;
    assert_eq!(jobs::due(c, 10).await.expect("works"), [], "the api rings first");
    execute(&pool, "UPDATE job SET dispatch_at = now() WHERE id = $1", job).await.expect("due");
    assert_eq!(jobs::due(c, 10).await.expect("works"), [Bell { job, trace: None }]);
    assert_eq!(jobs::due(c, 10).await.expect("works"), [], "not twice");
    let wait: f64 = sqlx::query_scalar("SELECT extract(epoch FROM dispatch_at - clock_timestamp())::float8 FROM job")
        .fetch_one(&pool)
        .await
        .expect("a row");
    assert!((10.0..=15.0).contains(&wait), "again after 15 s: {wait}");
    claim(c, job).await.expect("claimable");
    execute(&pool, "UPDATE job SET dispatch_at = now() WHERE id = $1", job).await.expect("due");
    assert_eq!(jobs::due(c, 10).await.expect("works"), [], "not for a running job");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_success_without_its_entry_is_no_success(pool: PgPool) {
    let fence = running(&pool, "one").await;
    execute(&pool, "DELETE FROM snapshot_entry WHERE job_id = $1", fence.job).await.expect("deleted");
    let mut connection = pool.acquire().await.expect("a connection");
    let finished = jobs::succeed(&mut connection, &fence, &blob(&fence)).await;
    assert!(matches!(finished, Err(StoreError::Corrupt { table: "snapshot_entry", .. })), "{finished:?}");
    drop(connection);
    assert_eq!(state(&pool, fence.job).await, JobState::Running, "rolled back");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn the_database_refuses_what_a_faulty_binary_might_try(pool: PgPool) {
    let done = in_state(&pool, JobState::Succeeded).await;
    let failed = in_state(&pool, JobState::Failed).await;
    let running = in_state(&pool, JobState::Running).await;
    let reopen = "UPDATE job SET state = 'queued', finished_at = NULL, blob_key = NULL, blob_size = NULL, \
                  blob_sha256 = NULL, error = NULL WHERE id = $1";
    let finish = "UPDATE job SET state = 'succeeded', blob_key = 'k', blob_size = 1, blob_sha256 = \
                  decode(repeat('00', 32), 'hex'), finished_at = now(), lease_owner = NULL, lease_until = NULL, \
                  error = NULL WHERE id = $1";
    let cases = [
        (done.job, reopen, "job_final_is_final"),
        (failed.job, reopen, "job_final_is_final"),
        (failed.job, finish, "job_final_is_final"),
        (done.job, "UPDATE job SET blob_key = 'other' WHERE id = $1", "job_final_is_final"),
        (failed.job, "UPDATE job SET error = '{\"a\":1}' WHERE id = $1", "job_final_is_final"),
        (running.job, "UPDATE job SET attempt = attempt - 1 WHERE id = $1", "job_attempt_only_grows"),
        (running.job, "UPDATE job SET attempt = attempt + 2 WHERE id = $1", "job_attempt_only_grows"),
        (running.job, "UPDATE job SET lease_until = NULL WHERE id = $1", "job_lease_while_running"),
        (
            running.job,
            "UPDATE job SET state = 'failed', lease_owner = NULL, lease_until = NULL, finished_at = now() WHERE id = $1",
            "job_error_when_failed",
        ),
        (running.job, "UPDATE job SET name = 'another' WHERE id = $1", "job_order_is_fixed"),
        (running.job, "UPDATE job SET kind = 'import', source_key = 'k' WHERE id = $1", "job_order_is_fixed"),
        (running.job, "UPDATE snapshot_entry SET kind = 'zip' WHERE job_id = $1", "snapshot_entry_zip_has_blob"),
        (running.job, "UPDATE snapshot_entry SET body = '{}' WHERE job_id = $1", "snapshot_entry_error_has_body"),
    ];
    for (job, statement, constraint) in cases {
        let refused = execute(&pool, statement, job).await.expect_err(statement);
        let violated = refused.as_database_error().and_then(|e| e.constraint().map(str::to_owned));
        assert_eq!(violated.as_deref(), Some(constraint), "{statement}");
    }
    // Claimed without a new attempt, finished without having run, finished after a cancel request.
    execute(&pool, "UPDATE job SET cancel_requested = true WHERE id = $1", running.job).await.expect("allowed");
    let refused = execute(&pool, finish, running.job).await.expect_err("cancelled");
    assert_eq!(refused.as_database_error().and_then(|e| e.constraint()), Some("job_cancel_wins"));
    let mut connection = pool.acquire().await.expect("a connection");
    jobs::fail(&mut connection, &running, JobState::Cancelled, &error()).await.expect("works");
    let queued = in_state(&pool, JobState::Queued).await;
    let refused = execute(&pool, finish, queued.job).await.expect_err("never ran");
    assert_eq!(refused.as_database_error().and_then(|e| e.constraint()), Some("job_success_needs_a_run"));
    let claim = "UPDATE job SET state = 'running', lease_owner = 'x', lease_until = now() WHERE id = $1";
    let refused = execute(&pool, claim, queued.job).await.expect_err("no attempt");
    assert_eq!(refused.as_database_error().and_then(|e| e.constraint()), Some("job_claim_is_an_attempt"));
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_blob_is_garbage_only_when_nothing_can_need_it(pool: PgPool) {
    let mut connection = pool.acquire().await.expect("a connection");
    let c = &mut *connection;
    let done = in_state(&pool, JobState::Succeeded).await;
    let running = running(&pool, "r").await;
    let mut cases = vec![
        ("published", done.job, 1, blob(&done).key, false),
        ("another blob of a finished job", done.job, 1, "other".to_owned(), true),
        ("being written", running.job, 1, blob(&running).key, false),
        ("of an attempt before the running one", running.job, 0, "old".to_owned(), true),
        ("of no job", Uuid::new_v4(), 1, "k".to_owned(), true),
    ];
    for (what, job, attempt, key, garbage) in cases.drain(..) {
        assert_eq!(jobs::blob_is_garbage(c, job, attempt, &key).await.expect("works"), garbage, "{what}");
    }
    jobs::requeue(c, &running, HOUR, true, None).await.expect("works");
    let key = blob(&running).key;
    assert!(jobs::blob_is_garbage(c, running.job, 1, &key).await.expect("works"), "of an attempt that was given up");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_cell_holds_a_bounded_number_of_snapshots(pool: PgPool) {
    let fill = "INSERT INTO snapshot_entry (cell_id, base_name, kind, body) \
                SELECT 'cell-id', 's' || g, 'error', '{}' FROM generate_series(1, 1024) g WHERE $1 IS NOT NULL";
    execute(&pool, fill, Uuid::nil()).await.expect("filled");
    assert!(matches!(accept(&pool, "one-more").await, Err(AcceptError::TooMany)));
    accept(&pool, "s7").await.expect("an old error gives way, the count stays");
}

#[tokio::test]
async fn no_session_has_its_statements_compiled() {
    let url = std::env::var("DATABASE_URL").expect("the tests' database").into();
    let pool = store::pool(&url, "test", 1).expect("a pool");
    let mut sessions = [
        store::connect(&url, "test").await.expect("a connection"),
        store::connect_for_copy(&url, "test").await.expect("a connection"),
        pool.acquire().await.expect("a connection").leak(),
    ];
    for session in &mut sessions {
        let compiled: String = sqlx::query_scalar("SHOW jit").fetch_one(session).await.expect("a setting");
        assert_eq!(compiled, "off");
    }
}
