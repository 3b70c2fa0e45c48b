//! B10: exports that are accepted per second.

use std::cell::Cell;
use std::time::Instant;

use sqlx::postgres::PgPoolOptions;
use sqlx::{Acquire, PgPool};
use system_tests::system::TOKEN;

use crate::bench::Bench;
use crate::load;
use crate::measure::{Side, in_turns};
use crate::report::{Line, Report};

const CLIENTS: usize = 16;

/// B10: accepted exports against bare inserts of the rows that an accepted export leaves.
pub(crate) fn accepted(bench: &mut Bench, report: &mut Report) {
    // Nobody works on them.
    bench.fresh(0);
    let each = bench.sizes.accepted;
    let cells = 2 * each * (bench.rounds + 1);
    // A cell may have one job at a time: as many cells as jobs, each with an owner of its own.
    bench.system.execute(&format!(
        "INSERT INTO cell (id, name, owner, document) SELECT 'accept-' || n, 'accept-' || n, 'owner-' || n, '{{}}' \
         FROM generate_series(0, {}) n",
        cells - 1
    ));
    bench.settle();
    let (api, url) = (bench.system.address, bench.database());
    let pool = bench.system.block_on(async {
        let pool = PgPoolOptions::new().min_connections(CLIENTS as u32).max_connections(CLIENTS as u32);
        pool.connect(&url).await.expect("a database")
    });
    let unit = bench.unit();
    let next = Cell::new(0);
    // Limits are looked at by counting what waits: every measurement begins with nothing.
    let some = || {
        bench.system.execute("TRUNCATE job, snapshot_entry");
        let first = next.get();
        next.set(first + each);
        first..first + each
    };
    let post = || {
        let requests = some().map(|cell| {
            let body = r#"{"Name":"accepted"}"#;
            let head = format!(
                "POST /accept-{cell}/__export HTTP/1.1\r\nHost: {unit}\r\nAuthorization: Bearer {TOKEN}\r\n\
                 Content-Length: {}\r\n\r\n",
                body.len()
            );
            [head.as_bytes(), body.as_bytes()].concat()
        });
        load::once(api, requests.collect(), CLIENTS, 202).rate
    };
    let insert = || bench.system.block_on(inserts(&pool, some().collect()));
    post();
    insert();
    let sides: [Side<'_>; 2] = [("accepted/s", Box::new(post)), ("inserted/s", Box::new(insert))];
    let [ours, theirs] = in_turns(bench.rounds, sides).map(|t| t.median());
    report.add(Line {
        row: "B10",
        work: format!("exports accepted, {CLIENTS} clients"),
        ours: format!("{ours:.0}/s"),
        other: format!("`INSERT` of the same rows and `COMMIT`: {theirs:.0}/s"),
        ratio: format!("{:.2}", ours / theirs),
        goal: "≥ 0.5",
        met: Some(ours / theirs >= 0.5),
    });
    bench.system.block_on(pool.close());
    // A worker of a later row would try them all.
    bench.system.execute("TRUNCATE job, snapshot_entry");
    bench.system.execute("DELETE FROM cell WHERE id LIKE 'accept-%'");
}

/// Inserts the rows of accepted exports, each export's in a transaction; how many per second.
async fn inserts(pool: &PgPool, cells: Vec<usize>) -> f64 {
    let (begun, count) = (Instant::now(), cells.len());
    let clients = (0..CLIENTS).map(|client| {
        let mine: Vec<_> = cells.iter().copied().skip(client).step_by(CLIENTS).collect();
        let pool = pool.clone();
        tokio::spawn(async move {
            let mut connection = pool.acquire().await.expect("a connection");
            for cell in mine {
                let (id, cell) = (uuid::Uuid::now_v7(), format!("accept-{cell}"));
                let mut transaction = connection.begin().await.expect("a transaction");
                // Nobody rings for these.
                let job = "INSERT INTO job (id, cell_id, name, owner, turn, dispatch_at) \
                           VALUES ($1, $2, 'accepted', $2, 1, clock_timestamp() + interval '1 day')";
                sqlx::query(job).bind(id).bind(&cell).execute(&mut *transaction).await.expect("a job");
                let entry = "INSERT INTO snapshot_entry (cell_id, base_name, kind, job_id) \
                             VALUES ($1, 'accepted', 'pending', $2)";
                sqlx::query(entry).bind(&cell).bind(id).execute(&mut *transaction).await.expect("an entry");
                transaction.commit().await.expect("committed");
            }
        })
    });
    for client in futures_util::future::join_all(clients).await {
        client.expect("all are inserted");
    }
    count as f64 / begun.elapsed().as_secs_f64()
}
