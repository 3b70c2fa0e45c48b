//! Imports as jobs, uploads, generations and cells, against a real PostgreSQL.
//!
//! Bugs that these tests exist for: a cell that shows half of two states, a snapshot that changes while it is imported,
//! rows that are removed although somebody names them.

use std::time::Duration;

use model::cell::{CellId, CellName};
use model::error_code::ErrorCode;
use model::job::{Amount, JobKind, JobState};
use model::snapshot_name::{SnapshotFileName, SnapshotName};
use model::store::cells::{self, Deleting, NewCell};
use model::store::jobs::{self, AcceptError, Admission, Cancelling, Fence, NewContents, NewJob, Work};
use model::store::snapshots::{self, ChangeError, Conditions, Retention, Uploaded};
use model::store::{MIGRATOR, generations};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

const HOUR: Duration = Duration::from_secs(3600);
const QUOTA: u64 = 1000;

fn cell() -> CellId {
    CellId::parse("cell-id").expect("a legal id")
}

fn name(text: &str) -> SnapshotName {
    SnapshotName::parse(text).expect("a legal name")
}

fn zip(text: &str) -> SnapshotFileName {
    SnapshotFileName::parse(text).expect("a legal name")
}

fn order(text: &str) -> NewJob {
    NewJob {
        id: Uuid::new_v4(),
        cell: cell(),
        name: name(text),
        deadline: HOUR,
        max_strikes: 4,
        admission: Admission::default(),
        idempotency: None,
        trace: None,
    }
}

fn uploaded(key: &str, size: u64) -> Uploaded {
    Uploaded { key: key.to_owned(), size, sha256: [1; 32], content_type: None }
}

/// A cell with one document and an uploaded snapshot `up.zip` under the key `key`.
async fn prepared(connection: &mut PgConnection) {
    let new = NewCell {
        id: cell(),
        name: CellName::parse_new("cell1").expect("a legal name"),
        document: "{}".to_owned(),
        root_pmeta: "{}".to_owned(),
    };
    assert!(cells::create(connection, &new).await.expect("works"));
    assert!(!cells::create(connection, &new).await.expect("works"), "the name is taken");
    document(connection, "cell-id", "old").await;
    put(connection, "up", "key").await.expect("put");
}

async fn put(connection: &mut PgConnection, base: &str, key: &str) -> Result<snapshots::Changed, ChangeError> {
    snapshots::put(connection, &cell(), &name(base), &Conditions::default(), &uploaded(key, 10), QUOTA).await
}

async fn document(connection: &mut PgConnection, generation: &str, id: &str) {
    sqlx::query("INSERT INTO document (generation, type, id, body) VALUES ($1, 'Role', $2, '{}')")
        .bind(generation)
        .bind(id)
        .execute(connection)
        .await
        .expect("written");
}

/// The documents that the cell names now.
async fn documents(connection: &mut PgConnection) -> Vec<String> {
    sqlx::query_scalar("SELECT d.id FROM document d JOIN cell USING (generation) ORDER BY d.id")
        .fetch_all(connection)
        .await
        .expect("read")
}

async fn running(connection: &mut PgConnection, kind: JobKind) -> Fence {
    let job = order("up");
    jobs::accept_import(connection, &job, kind, "key").await.expect("accepted");
    let claim = jobs::claim(connection, Some(job.id), "me", HOUR).await.expect("works").expect("claimable");
    assert_eq!(claim.work.kind(), kind);
    claim.fence
}

async fn count(connection: &mut PgConnection, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(connection).await.expect("counted")
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_finished_import_makes_the_cell_name_its_new_contents(pool: PgPool) {
    let c = &mut *pool.acquire().await.expect("a connection");
    prepared(c).await;
    let fence = running(c, JobKind::Import).await;
    let generation = generations::begin(c, Some(&fence)).await.expect("begun");
    document(c, &generation, "new").await;
    assert_eq!(documents(c).await, ["old"], "until the end");
    assert_eq!(generations::garbage(c, HOUR).await.expect("works"), Vec::<String>::new());
    let contents = NewContents { generation: generation.clone(), document: r#"{"new":1}"#.to_owned() };
    let stranger = Fence { owner: "somebody".to_owned(), ..fence.clone() };
    let done = Amount { documents: 1, files: 0, bytes: 7 };
    assert!(!jobs::succeed_import(c, &stranger, &cell(), &contents, "{}", done).await.expect("works"));
    assert_eq!(documents(c).await, ["old"], "a stranger changes nothing");
    assert!(jobs::succeed_import(c, &fence, &cell(), &contents, r#"{"r":1}"#, done).await.expect("works"));
    assert_eq!(documents(c).await, ["new"]);
    assert!(cells::names(c, &cell(), &generation).await.expect("works"));
    let view = jobs::latest(c, &cell(), JobKind::Import).await.expect("works").expect("there");
    assert_eq!((view.state, view.result.as_deref(), view.blob_key), (JobState::Succeeded, Some(r#"{"r":1}"#), None));
    assert!(!jobs::succeed_import(c, &fence, &cell(), &contents, "{}", done).await.expect("works"), "once only");

    assert_eq!(generations::garbage(c, HOUR).await.expect("works"), ["cell-id"], "what it named before");
    generations::discard(c, "cell-id", async |_: Vec<Uuid>| ()).await.expect("discarded");
    assert_eq!(generations::garbage(c, HOUR).await.expect("works"), Vec::<String>::new());
    assert_eq!(documents(c).await, ["new"]);
    assert_eq!(count(c, "SELECT count(*) FROM document").await, 1);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn an_import_that_ends_otherwise_leaves_the_old_contents(pool: PgPool) {
    let c = &mut *pool.acquire().await.expect("a connection");
    prepared(c).await;
    // Failed, cancelled, given back: each leaves a generation that nobody will name.
    for end in ["fail", "cancel", "requeue"] {
        let fence = running(c, JobKind::Import).await;
        let generation = generations::begin(c, Some(&fence)).await.expect("begun");
        document(c, &generation, "new").await;
        let contents = NewContents { generation: generation.clone(), document: "{}".to_owned() };
        match end {
            "fail" => assert!(
                jobs::fail(c, &fence, JobState::Failed, &ErrorCode::SnapshotNotZip.body()).await.expect("works")
            ),
            "cancel" => {
                assert_eq!(jobs::cancel(c, &cell(), fence.job).await.expect("works"), Cancelling::Requested);
                let done = Amount::default();
                let succeeded = jobs::succeed_import(c, &fence, &cell(), &contents, "{}", done).await;
                assert!(!succeeded.expect("works"), "a cancelled job never succeeds");
                assert!(jobs::fail(c, &fence, JobState::Cancelled, &ErrorCode::Cancelled.body()).await.expect("works"));
            }
            _ => {
                jobs::requeue(c, &fence, Duration::ZERO, true, None).await.expect("works");
                let again = jobs::claim(c, None, "next", HOUR).await.expect("works").expect("claimable").fence;
                assert_eq!(again.attempt, fence.attempt + 1);
            }
        }
        assert_eq!(documents(c).await, ["old"], "{end}");
        assert_eq!(generations::garbage(c, HOUR).await.expect("works"), std::slice::from_ref(&generation), "{end}");
        generations::discard(c, &generation, async |_: Vec<Uuid>| ()).await.expect("discarded");
    }
    // Nothing of it is a file: imports reserve no name.
    let files = snapshots::list(c, &cell()).await.expect("works");
    assert_eq!(files.iter().map(|f| f.name.to_string()).collect::<Vec<_>>(), ["up.zip"]);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn one_job_per_cell_whatever_its_kind(pool: PgPool) {
    let c = &mut *pool.acquire().await.expect("a connection");
    prepared(c).await;
    let kinds = [JobKind::Export, JobKind::Import, JobKind::DryRun];
    for first in kinds {
        let job = order(if first == JobKind::Export { "made" } else { "up" });
        match first {
            JobKind::Export => jobs::accept(c, &job).await.expect("accepted"),
            kind @ (JobKind::Import | JobKind::DryRun) => {
                jobs::accept_import(c, &job, kind, "key").await.expect("accepted")
            }
        }
        for second in kinds {
            let refused = match second {
                JobKind::Export => jobs::accept(c, &order("other")).await,
                kind @ (JobKind::Import | JobKind::DryRun) => jobs::accept_import(c, &order("up"), kind, "key").await,
            };
            assert!(matches!(refused, Err(AcceptError::CellBusy)), "{second:?} during {first:?}: {refused:?}");
        }
        assert_eq!(jobs::cancel(c, &cell(), job.id).await.expect("works"), Cancelling::Cancelled);
    }
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn the_snapshot_of_an_import_stays_what_it_was(pool: PgPool) {
    let c = &mut *pool.acquire().await.expect("a connection");
    prepared(c).await;
    let none = Conditions::default();
    let other = jobs::accept_import(c, &order("up"), JobKind::Import, "other-key").await;
    assert!(matches!(other, Err(AcceptError::SourceChanged)), "{other:?}");
    let fence = running(c, JobKind::Import).await;
    let busy = put(c, "up", "key2").await;
    assert!(matches!(busy, Err(ChangeError::Busy(JobKind::Import))), "{busy:?}");
    let busy = snapshots::check_put(c, &cell(), &name("up"), &none).await;
    assert!(matches!(busy, Err(ChangeError::Busy(JobKind::Import))), "{busy:?}");
    let busy = snapshots::delete(c, &cell(), &zip("up.zip"), &none).await;
    assert!(matches!(busy, Err(ChangeError::Busy(JobKind::Import))), "{busy:?}");
    let keep_none = Retention { days: None, count: Some(0) };
    assert_eq!(snapshots::expire(c, keep_none).await.expect("works"), 0);
    put(c, "another", "key3").await.expect("another name is free");
    assert!(!jobs::blob_is_garbage(c, Uuid::new_v4(), 1, "key").await.expect("works"));
    let cell1 = CellName::parse("cell1").expect("legal");
    assert_eq!(cells::delete(c, &cell1).await.expect("works"), Deleting::Busy(JobKind::Import));
    assert!(jobs::fail(c, &fence, JobState::Failed, &ErrorCode::SnapshotNotZip.body()).await.expect("works"));
    assert_eq!(put(c, "up", "key2").await.expect("free again").replaced.as_deref(), Some("key"));
    assert!(jobs::blob_is_garbage(c, Uuid::new_v4(), 1, "key").await.expect("works"));
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn the_snapshot_remembers_who_made_it(pool: PgPool) {
    let c = &mut *pool.acquire().await.expect("a connection");
    prepared(c).await;
    let claimed = |work: Work| match work {
        Work::Import(source) | Work::DryRun(source) => source.ours,
        Work::Export => unreachable!("an import was asked for"),
    };
    let job = order("up");
    jobs::accept_import(c, &job, JobKind::DryRun, "key").await.expect("accepted");
    let claim = jobs::claim(c, Some(job.id), "me", HOUR).await.expect("works").expect("claimable");
    assert!(!claimed(claim.work), "a client's file is not trusted");
    assert!(jobs::succeed_dry_run(c, &claim.fence, "{}", Amount::default()).await.expect("works"));
    let export = order("made");
    jobs::accept(c, &export).await.expect("accepted");
    let fence = jobs::claim(c, Some(export.id), "me", HOUR).await.expect("works").expect("claimable").fence;
    let blob = jobs::FinishedBlob { key: "k".to_owned(), size: 1, sha256: [0; 32], contents: Amount::default() };
    assert!(jobs::succeed(c, &fence, &blob).await.expect("works"));
    let job = order("made");
    jobs::accept_import(c, &job, JobKind::Import, "k").await.expect("accepted");
    let claim = jobs::claim(c, Some(job.id), "me", HOUR).await.expect("works").expect("claimable");
    assert!(claimed(claim.work), "a file of our own");
    assert!(jobs::fail(c, &claim.fence, JobState::Failed, &ErrorCode::Unknown.body()).await.expect("works"));
    // A client's upload over it is a client's file.
    put(c, "made", "k2").await.expect("put");
    let job = order("made");
    jobs::accept_import(c, &job, JobKind::Import, "k2").await.expect("accepted");
    let claim = jobs::claim(c, Some(job.id), "me", HOUR).await.expect("works").expect("claimable");
    assert!(!claimed(claim.work));
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn uploads_follow_conditions_quota_and_count(pool: PgPool) {
    let c = &mut *pool.acquire().await.expect("a connection");
    prepared(c).await;
    let first = snapshots::find(c, &cell(), &zip("up.zip")).await.expect("works").expect("there");
    assert_eq!((first.version, first.content_type.as_deref()), (1, None));
    let with = |if_match: Option<String>, must_be_new| Conditions { if_match, must_be_new };
    for refused in [with(Some("\"9-9\"".to_owned()), false), with(None, true)] {
        let put = snapshots::put(c, &cell(), &name("up"), &refused, &uploaded("k", 1), QUOTA).await;
        assert!(matches!(put, Err(ChangeError::Conditions)), "{refused:?}: {put:?}");
        let deleted = snapshots::delete(c, &cell(), &zip("up.zip"), &refused).await;
        assert!(matches!(deleted, Err(ChangeError::Conditions)), "{refused:?}: {deleted:?}");
    }
    let mut etag = first.etag();
    for (n, form) in ["E", "W/E", "*"].into_iter().enumerate() {
        let wanted = with(Some(form.replace('E', &etag)), false);
        let typed = Uploaded { content_type: Some("application/zip".to_owned()), ..uploaded("k", 1) };
        let changed = snapshots::put(c, &cell(), &name("up"), &wanted, &typed, QUOTA).await.expect("put");
        assert!(!changed.created && changed.etag.starts_with(&format!("\"{}-", n + 2)), "{changed:?}");
        etag = changed.etag;
    }
    let new = with(None, true);
    assert!(snapshots::put(c, &cell(), &name("n"), &new, &uploaded("k", 1), QUOTA).await.expect("put").created);
    // A new name looks at no If-Match, as on a unit.
    let odd = with(Some("\"9-9\"".to_owned()), false);
    assert!(snapshots::put(c, &cell(), &name("o"), &odd, &uploaded("k", 1), QUOTA).await.expect("put").created);
    let over = snapshots::put(c, &cell(), &name("p"), &new, &uploaded("k", QUOTA - 2), QUOTA).await;
    assert!(matches!(over, Err(ChangeError::Quota)), "{over:?}");
    let gone = CellId::parse("no-such-cell").expect("legal");
    let put = snapshots::put(c, &gone, &name("p"), &new, &uploaded("k", 1), QUOTA).await;
    assert!(matches!(put, Err(ChangeError::CellGone)), "{put:?}");
    sqlx::query(
        "INSERT INTO snapshot_entry (cell_id, base_name, kind, body)
         SELECT 'cell-id', 's' || g, 'error', '{}' FROM generate_series(1, 1021) g",
    )
    .execute(&mut *c)
    .await
    .expect("filled");
    let many = snapshots::put(c, &cell(), &name("q"), &new, &uploaded("k", 1), QUOTA).await;
    assert!(matches!(many, Err(ChangeError::TooMany)), "{many:?}");
    // An error file gives way to an upload of its name, and counts as none before.
    let over_error = snapshots::put(c, &cell(), &name("s1"), &new, &uploaded("k", 1), QUOTA).await.expect("put");
    assert!(over_error.created);
    assert_eq!(snapshots::find(c, &cell(), &zip("s1.error")).await.expect("works"), None);
    // Error files can be deleted; under the other extension there is nothing.
    assert!(matches!(
        snapshots::delete(c, &cell(), &zip("s2.zip"), &Conditions::default()).await,
        Err(ChangeError::NotFound)
    ));
    assert_eq!(snapshots::delete(c, &cell(), &zip("s2.error"), &Conditions::default()).await.expect("gone"), None);
    let key = snapshots::delete(c, &cell(), &zip("up.zip"), &with(Some(etag), false)).await.expect("gone");
    assert_eq!(key.as_deref(), Some("k"));
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_name_that_is_being_exported_takes_no_upload(pool: PgPool) {
    let c = &mut *pool.acquire().await.expect("a connection");
    prepared(c).await;
    jobs::accept(c, &order("made")).await.expect("accepted");
    let busy = put(c, "made", "k").await;
    assert!(matches!(busy, Err(ChangeError::Busy(JobKind::Export))), "{busy:?}");
    put(c, "other", "k").await.expect("another name is free");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_deleted_cell_takes_everything_with_it(pool: PgPool) {
    let c = &mut *pool.acquire().await.expect("a connection");
    prepared(c).await;
    let export = order("made");
    jobs::accept(c, &export).await.expect("accepted");
    let cell1 = CellName::parse("cell1").expect("legal");
    assert_eq!(cells::delete(c, &cell1).await.expect("works"), Deleting::Busy(JobKind::Export));
    jobs::cancel(c, &cell(), export.id).await.expect("works");
    assert_eq!(cells::list(c, 0, 10).await.expect("works").len(), 1);
    assert_eq!(cells::delete(c, &cell1).await.expect("works"), Deleting::Deleted);
    assert_eq!(cells::delete(c, &cell1).await.expect("works"), Deleting::Unknown);
    assert_eq!(count(c, "SELECT count(*) FROM snapshot_entry").await, 0);
    assert!(matches!(jobs::accept(c, &order("n")).await, Err(AcceptError::CellGone)));
    assert!(matches!(jobs::accept_import(c, &order("n"), JobKind::Import, "key").await, Err(AcceptError::CellGone)));
    let blob = "INSERT INTO blob (id, generation, size, sha256)
                VALUES (gen_random_uuid(), 'cell-id', 1, decode(repeat('00', 32), 'hex'))";
    sqlx::query(blob).execute(&mut *c).await.expect("written");
    assert_eq!(generations::garbage(c, HOUR).await.expect("works"), ["cell-id"]);
    let files = std::sync::Mutex::new(Vec::new());
    let removed = async |ids: Vec<Uuid>| files.lock().expect("not poisoned").extend(ids);
    generations::discard(c, "cell-id", removed).await.expect("discarded");
    assert_eq!(files.lock().expect("not poisoned").len(), 1, "whoever discards learns whose bytes can go");
    let left = "SELECT (SELECT count(*) FROM document) + (SELECT count(*) FROM node) + (SELECT count(*) FROM blob)
                     + (SELECT count(*) FROM generation)";
    assert_eq!(count(c, left).await, 0);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_load_that_was_killed_is_given_up_after_a_while(pool: PgPool) {
    let c = &mut *pool.acquire().await.expect("a connection");
    let generation = generations::begin(c, None).await.expect("begun");
    assert_eq!(generations::garbage(c, HOUR).await.expect("works"), Vec::<String>::new());
    assert_eq!(generations::garbage(c, Duration::ZERO).await.expect("works"), std::slice::from_ref(&generation));
    let contents = NewContents { generation: generation.clone(), document: "{}".to_owned() };
    cells::adopt(c, &cell(), "cell1", None, &contents).await.expect("adopted");
    assert_eq!(generations::garbage(c, Duration::ZERO).await.expect("works"), Vec::<String>::new());
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn old_and_surplus_snapshots_expire(pool: PgPool) {
    let c = &mut *pool.acquire().await.expect("a connection");
    prepared(c).await;
    for (days, base) in [(40, "oldest"), (20, "older"), (1, "newer")] {
        put(c, base, base).await.expect("put");
        sqlx::query("UPDATE snapshot_entry SET modified_at = now() - make_interval(days => $1) WHERE base_name = $2")
            .bind(days)
            .bind(base)
            .execute(&mut *c)
            .await
            .expect("aged");
    }
    let left = async |c: &mut PgConnection| {
        let files = snapshots::list(c, &cell()).await.expect("works");
        files.into_iter().map(|f| f.name.base.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(snapshots::expire(c, Retention::default()).await.expect("works"), 0, "off by default");
    assert_eq!(snapshots::expire(c, Retention { days: Some(30), count: None }).await.expect("works"), 1);
    assert_eq!(left(c).await, ["newer", "older", "up"]);
    assert_eq!(snapshots::expire(c, Retention { days: None, count: Some(2) }).await.expect("works"), 1);
    assert_eq!(left(c).await, ["newer", "up"]);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_large_generation_is_removed_step_by_step(pool: PgPool) {
    let c = &mut *pool.acquire().await.expect("a connection");
    prepared(c).await;
    let generation = generations::begin(c, None).await.expect("begun");
    // More than two steps of each, types in no order.
    for fill in [
        "INSERT INTO document (generation, type, id, body)
         SELECT $1, (ARRAY['link', 'Box', 'UserData'])[g % 3 + 1]::document_type, 'd' || g, '{}' FROM generate_series(1, 41000) g",
        "INSERT INTO blob (id, generation, size, sha256)
         SELECT gen_random_uuid(), $1, 1, decode(repeat('00', 32), 'hex') FROM generate_series(1, 41000)",
        "INSERT INTO node (generation, path, blob_id) SELECT $1, '__/' || id, id FROM blob WHERE generation = $1",
    ] {
        sqlx::query(fill).bind(&generation).execute(&mut *c).await.expect("filled");
    }
    let files = std::sync::atomic::AtomicUsize::new(0);
    let removed = async |ids: Vec<Uuid>| {
        files.fetch_add(ids.len(), std::sync::atomic::Ordering::SeqCst);
    };
    generations::discard(c, &generation, removed).await.expect("discarded");
    assert_eq!(files.into_inner(), 41_000);
    let left = "SELECT (SELECT count(*) FROM document) + (SELECT count(*) FROM node) + (SELECT count(*) FROM blob)
                     + (SELECT count(*) FROM generation)";
    assert_eq!(count(c, left).await, 2, "the document and the root of the cell");
    assert_eq!(documents(c).await, ["old"]);
}
