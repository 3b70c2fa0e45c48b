//! The sweeper takes what no row names, and nothing else.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

use std::path::Path;
use std::time::Duration;

use exporter_worker::sweeper::sweep;
use model::area::{BlobStore, SnapshotArea, SnapshotKey, blob_key};
use model::cell::CellId;
use model::job::Amount;
use model::snapshot_name::SnapshotName;
use model::store::MIGRATOR;
use model::store::jobs::{self, Admission, FinishedBlob, NewJob};
use sqlx::PgPool;
use uuid::Uuid;

fn put(root: &Path, key: &str) {
    let path = root.join(key);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, "bytes").unwrap();
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn what_a_row_names_stays_and_the_rest_goes_when_it_is_old(pool: PgPool) {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let (area, blobs) = (SnapshotArea::open(root, 0).unwrap(), BlobStore::open(root).unwrap());
    let mut connection = pool.acquire().await.unwrap();
    let hour = Duration::from_secs(3600);
    let mut claimed = Vec::new();
    for cell in ["done", "running"] {
        let insert = "INSERT INTO cell (id, name, document) VALUES ($1, $1, '{}')";
        sqlx::query(insert).bind(cell).execute(&mut *connection).await.unwrap();
        let (cell, name) = (CellId::parse(cell).unwrap(), SnapshotName::parse("n").unwrap());
        let job = NewJob {
            id: Uuid::new_v4(),
            cell,
            name,
            deadline: hour,
            max_strikes: 4,
            admission: Admission::default(),
            idempotency: None,
            trace: None,
        };
        jobs::accept(&mut connection, &job).await.unwrap();
        claimed.push(jobs::claim(&mut connection, Some(job.id), "me", hour).await.unwrap().unwrap().fence);
    }
    let key = |job, attempt| SnapshotKey { job, attempt, token: Uuid::new_v4() };
    let (published, abandoned) = (key(claimed[0].job, 1), key(claimed[0].job, 1));
    let (working, unknown) = (key(claimed[1].job, 1), key(Uuid::new_v4(), 1));
    let blob = FinishedBlob { key: published.text(), size: 5, sha256: [0; 32], contents: Amount::default() };
    assert!(jobs::succeed(&mut connection, &claimed[0], &blob).await.unwrap());
    for key in [&published, &abandoned, &working, &unknown] {
        put(root, &key.text());
    }
    let part = format!("snapshots/{}/.1-{}.zip.part", claimed[0].job, Uuid::new_v4().simple());
    put(root, &part);
    put(root, "snapshots/lost+found/keep");
    let (named, orphan) = (Uuid::new_v4(), Uuid::new_v4());
    sqlx::query("INSERT INTO blob (id, generation, size, sha256) VALUES ($1, 'c', 5, decode(repeat('00', 32), 'hex'))")
        .bind(named)
        .execute(&pool)
        .await
        .unwrap();
    for id in [named, orphan] {
        put(root, blob_key(id).as_ref());
    }
    drop(connection);

    assert_eq!(sweep(&pool, &area, &blobs, hour, hour).await.unwrap(), 0, "everything is young");
    assert_eq!(sweep(&pool, &area, &blobs, Duration::ZERO, Duration::ZERO).await.unwrap(), 3);
    assert!(root.join(blob_key(orphan).as_ref()).exists(), "an export may still read what has lost its row just now");
    assert_eq!(sweep(&pool, &area, &blobs, Duration::ZERO, hour).await.unwrap(), 0, "it is young again");
    assert_eq!(sweep(&pool, &area, &blobs, Duration::ZERO, Duration::ZERO).await.unwrap(), 1);
    let there = |key: &str| root.join(key).exists();
    for (what, key, stays) in [
        ("published", published.text(), true),
        ("of a running attempt", working.text(), true),
        ("not ours", "snapshots/lost+found/keep".to_owned(), true),
        ("a blob with a row", blob_key(named).to_string(), true),
        ("of a finished job, not published", abandoned.text(), false),
        ("of an unknown job", unknown.text(), false),
        ("a part file", part, false),
        ("a blob without a row", blob_key(orphan).to_string(), false),
    ] {
        assert_eq!(there(&key), stays, "{what}");
    }
}
