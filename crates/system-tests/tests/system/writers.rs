//! An export shows one instant of its cell, and nobody who writes to the cell is held up.

use std::io::{BufRead, BufReader};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection};
use system_tests::stop::Stop;
use system_tests::system::{System, eventually};

const ACCOUNTS: u64 = 400;
const EACH: i64 = 1000;
const WRITERS: usize = 3;

/// Money moves between documents while the cell is exported, and a version is counted in a document and in the file tree
/// at once. In the snapshot the sum must be right, and the two versions must agree.
#[test]
fn writers_are_never_refused_and_an_invariant_across_documents_holds() {
    let mut system = System::start();
    system.sample_cell("cell1", &["--documents", "100000"]);
    // The accounts stand at the beginning and at the end of what the export reads.
    for (from, to, position) in [(1, 200, "nextval('document_front')"), (201, 400, "nextval('document_position')")] {
        system.execute(&format!(
            "INSERT INTO document (generation, type, id, position, body)
             SELECT cell.generation, 'UserData', 'account-' || g, {position},
                    '{{\"_index\":\"u0_anon.userdata\",\"_type\":\"UserData\",\"_source\":{{\"c\":\"' || cell.id
                    || '\",\"amount\":{EACH}}},\"_id\":\"account-' || g || '\"}}'
             FROM cell, generate_series({from}, {to}) g"
        ));
    }
    let _worker = system.worker();
    let (done, moved) = (Stop::default(), AtomicU64::new(0));
    let during = std::thread::scope(|scope| {
        let _ending = done.later();
        for _ in 0..WRITERS {
            scope.spawn(|| {
                let mut connection = system.block_on(system.pool().acquire()).unwrap().detach();
                // Thousands of commits in a few seconds, on any disk.
                let hurry = sqlx::query("SET synchronous_commit = off").execute(&mut connection);
                system.block_on(hurry).unwrap();
                while !done.is_said() {
                    let began = Instant::now();
                    system.block_on(transfer(&mut connection));
                    assert!(began.elapsed() < Duration::from_secs(2), "a write was held up: {:?}", began.elapsed());
                    moved.fetch_add(1, SeqCst);
                }
            });
        }
        scope.spawn(|| {
            let mut connection = system.block_on(system.pool().acquire()).unwrap().detach();
            for version in 1.. {
                if done.is_said() {
                    break;
                }
                system.block_on(count(&mut connection, version));
            }
        });
        eventually("writers are at work", || moved.load(SeqCst) > 50);
        let before = moved.load(SeqCst);
        assert_eq!(system.post_export("cell1", "one").status, 202);
        system.wait_ready("cell1");
        moved.load(SeqCst) - before
    });
    println!("{during} transfers during the export");
    assert!(during > 1000, "writes went on during the export: {during}");
    let snapshot = std::fs::File::open(system.download("cell1", "one.zip")).unwrap();
    let mut zip = zip::ZipArchive::new(snapshot).unwrap();
    let lines = BufReader::new(zip.by_name("10_odata/70_userdata.pjson").unwrap()).lines();
    let documents: Vec<serde_json::Value> = lines.map(|l| serde_json::from_str(&l.unwrap()).unwrap()).collect();
    let amounts: Vec<i64> = documents.iter().filter_map(|d| d["_source"]["amount"].as_i64()).collect();
    let counted = documents.iter().find_map(|d| d["_source"]["version"].as_i64()).unwrap();
    let root: serde_json::Value = serde_json::from_reader(zip.by_name("20_webdav/.pmeta").unwrap()).unwrap();
    assert!(counted > 0);
    assert_eq!(root["v"].as_i64(), Some(counted), "documents and file tree of one instant");
    assert_eq!(amounts.len() as u64, ACCOUNTS);
    assert_eq!(amounts.iter().sum::<i64>(), ACCOUNTS as i64 * EACH);
    assert!(amounts.iter().any(|a| *a != EACH), "money did move");
}

/// Writes a version into a document and into the metadata of the cell's root, in one transaction.
async fn count(connection: &mut PgConnection, version: i64) {
    let mut tx = connection.begin().await.unwrap();
    for statement in [
        "INSERT INTO document (generation, type, id, body)
         SELECT generation, 'UserData', 'version', '{\"_source\":{\"version\":' || $1 || '},\"_id\":\"version\"}' FROM cell
         ON CONFLICT (generation, type, id) DO UPDATE SET body = excluded.body",
        "UPDATE node SET pmeta = jsonb_set(pmeta::jsonb, '{v}', to_jsonb($1))::text WHERE path = ''",
    ] {
        sqlx::query(statement).bind(version).execute(&mut *tx).await.expect("no write is refused");
    }
    tx.commit().await.unwrap();
}

/// Takes from one account and gives to another, in one transaction.
async fn transfer(connection: &mut PgConnection) {
    let pick = |n: u128| format!("account-{}", n % u128::from(ACCOUNTS) + 1);
    let random = uuid::Uuid::new_v4().as_u128();
    let (from, to) = (pick(random), pick(random >> 64));
    if from == to {
        return;
    }
    // Locked in a fixed order, so that two transfers never wait for each other in a circle.
    let moved = sqlx::query(
        "WITH both_ends AS (
           SELECT id, body::jsonb AS body FROM document
           WHERE generation = (SELECT generation FROM cell) AND type = 'UserData' AND id IN ($1, $2)
           ORDER BY id FOR UPDATE
         )
         UPDATE document d
         SET body = jsonb_set(b.body, '{_source,amount}', to_jsonb(
               (b.body #>> '{_source,amount}')::bigint + CASE WHEN b.id = $1 THEN -1 ELSE 1 END))::text
         FROM both_ends b
         WHERE d.generation = (SELECT generation FROM cell) AND d.type = 'UserData' AND d.id = b.id",
    )
    .bind(&from)
    .bind(&to)
    .execute(connection)
    .await
    .expect("no write is refused");
    assert_eq!(moved.rows_affected(), 2);
}
