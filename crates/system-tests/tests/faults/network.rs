//! Rows 3, 18, 24, 41 and 42: connections that break, hang or lose their answers.

use std::time::{Duration, Instant};

use model::limits;
use model::store;
use secrecy::SecretString;
use sqlx::postgres::PgPoolCopyExt;
use sqlx::{Connection, Row};
use system_tests::history::Told;
use system_tests::oracle::Expected;
use system_tests::proxy::Proxy;
use system_tests::stop::Stop;
use system_tests::system::{Options, System, within};

use crate::bench::{Bench, cell};

fn idle_in_transaction(bench: &Bench) -> String {
    bench.system.value(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'",
    )
}

#[test]
fn row_03_clients_reset_their_connections() {
    let bench = Bench::start("row_03");
    bench.cells(10, &[]);
    let _workers = [bench.worker(&[("WORKER_SLOTS", "2")]), bench.worker(&[("WORKER_SLOTS", "2")])];
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    std::thread::scope(|scope| {
        for client in 0..10 {
            let bench = &bench;
            let mut random = fastrand::Rng::with_seed(seed + client);
            scope.spawn(move || {
                for round in 0..20 {
                    let pause = Duration::from_micros(random.u64(..20_000));
                    bench.history.fault("reset");
                    bench.client.export_and_reset(&cell(client as usize), &format!("r{round}"), pause);
                }
            });
        }
    });
    let status = || bench.system.request("GET", "/c0/__export", &[], None).status;
    bench.system.eventually("the pool has caught up", || status() == 200);
    for request in 0..100 {
        let answer = bench.system.request("GET", &format!("/{}/__export", cell(request % 10)), &[], None);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    bench.system.eventually("no transaction is left open", || idle_in_transaction(&bench) == "0");
    bench.hurry_until("what was stored ends", || bench.active() == 0);
    for number in 0..10 {
        bench.accepted(&cell(number), "after");
    }
    let verdict = bench.judge(&Expected::default());
    assert!(verdict.exports > 10, "no request came so far: {verdict:?}");
    assert_eq!(verdict.zips, verdict.exports);
}

#[test]
fn row_18_a_worker_without_its_database_fences_itself() {
    let bench = Bench::start("row_18");
    bench.cells(2, &[]);
    for (fault, make) in [("freeze", Proxy::freeze as fn(&Proxy)), ("down", Proxy::down)] {
        let proxy = System::proxy_before(&bench.system.url("WORKER_", "DATABASE_URL"));
        let url = bench.system.url_through(&proxy, "WORKER_", "DATABASE_URL");
        let zombie = bench.worker(&[("DATABASE_URL", &url), ("FAILPOINT", "export.zip_finished=sleep-9000")]);
        for number in 0..2 {
            bench.accepted(&cell(number), fault);
        }
        bench.system.eventually("the zombie is at work", || zombie.log().contains("failpoint"));
        bench.history.fault(fault);
        make(&proxy);
        let cut = Instant::now();
        let _heir = bench.worker(&[]);
        bench.hurry_until("the other takes over", || bench.active() == 0);
        // Three quarters of the lease, and at most one heartbeat more that waits for its answer.
        let longest = Duration::from_secs(3) + limits::STATEMENT_TIMEOUT + Duration::from_secs(7);
        let fenced = || zombie.log().contains("no heartbeat got through for too long");
        assert!(within(longest.saturating_sub(cut.elapsed()), fenced), "{fault}: {}", zombie.log());
        proxy.up();
        let gave_up = || zombie.log().contains("leaving it alone") || zombie.log().contains("to its lease");
        assert!(within(Duration::from_secs(20), gave_up), "{fault}: {}", zombie.log());
        assert!(!zombie.log().contains("job ends"), "{fault}: {}", zombie.log());
    }
    let _worker = bench.worker(&[]);
    let verdict = bench.judge(&Expected::default());
    assert_eq!((verdict.zips, verdict.retried), (4, 2));
}

#[test]
fn row_24_sessions_are_ended_by_the_server() {
    let bench = Bench::start("row_24_sessions");
    let mut ledgers = bench.cells(6, &["--documents", "3000"]);
    let _workers = [bench.worker(&[("WORKER_SLOTS", "2")]), bench.worker(&[("WORKER_SLOTS", "2")])];
    let stop = Stop::default();
    let ended = std::thread::scope(|scope| {
        let ending = stop.later();
        let killing = scope.spawn(|| {
            let mut ended = 0;
            while !stop.is_said() {
                bench.history.fault("pg_terminate_backend");
                let one = "SELECT count(pg_terminate_backend(pid)) FROM (
                             SELECT pid FROM pg_stat_activity
                             WHERE datname = current_database() AND application_name LIKE 'cell-export%'
                             ORDER BY random() LIMIT 1) s";
                ended += bench.system.value(one).parse::<usize>().unwrap();
                std::thread::sleep(Duration::from_millis(60));
            }
            ended
        });
        bench.while_changing(&mut ledgers, || {
            for round in 0..4 {
                for number in 0..6 {
                    bench.accepted(&cell(number), &format!("r{round}"));
                }
                bench.hurry_until("all are final", || bench.active() == 0);
            }
        });
        drop(ending);
        killing.join().unwrap()
    });
    // Those that were ended while nobody used them are noticed by whoever does: the pool goes through all of them in turn.
    let reads = || bench.system.request("GET", "/c0/__export", &[], None).status == 200;
    bench.system.eventually("all sessions answer", || (0..50).all(|_| reads()));
    println!("{ended} sessions were ended");
    assert!(ended > 50);
    // An attempt that loses its session is tried again, four times at most.
    let verdict = bench.judge(&Expected { errors: &["PR500-SV-0001", "PR503-EX-0001"], ..Expected::default() });
    assert!(verdict.zips >= 20, "{verdict:?}");
}

#[test]
fn row_24_answers_of_the_database_get_lost() {
    let options = Options { database_proxy: true, ..Options::default() };
    let bench = Bench::start_with("row_24_answers", options);
    bench.cells(4, &[]);
    let proxy = bench.system.database_proxy.as_ref().unwrap();
    let lose = |application: &str, tag: &str| {
        bench.history.fault(&format!("lost: {tag} of {application}"));
        proxy.lose_answers(application, tag, 1);
    };
    let lost = || bench.system.eventually("the answer is lost", || proxy.answers_to_lose() == 0);
    for round in 0..3 {
        let name = |what: &str| format!("{what}{round}");
        // T5: the worker does not know that it is done, looks, and knows.
        let worker = bench.worker(&[]);
        lose("cell-export settle", "COMMIT");
        bench.accepted("c0", &name("success"));
        lost();
        bench.hurry_until("it is final", || bench.active() == 0);
        assert_eq!(bench.job(&name("success"), "state::text || attempt"), "succeeded1");
        bench.system.eventually("the worker knows", || worker.log().contains(r#""state":"succeeded""#));
        // T1: nobody can say whether it was accepted. It was.
        let accepted = (0..20).map(|number| name(&format!("accept{number}-"))).find(|name| {
            lose("cell-export api", "INSERT 0 1");
            let told = bench.client.export("c1", name);
            lost();
            bench.hurry_until("it is final", || bench.active() == 0);
            // Now and then it is the reaper whose answer gets lost, and the request meets the other connections' end.
            let rows = bench.system.value(&format!("SELECT count(*) FROM job WHERE name = '{name}'"));
            told != Told::Done(202) && rows == "1"
        });
        assert_eq!(bench.job(&accepted.unwrap(), "state"), "succeeded");
        // T6.
        bench.system.execute("UPDATE node SET pmeta = '{' || pmeta WHERE path = ''");
        lose("cell-export settle", "COMMIT");
        bench.accepted("c2", &name("failure"));
        lost();
        bench.hurry_until("it is final", || bench.active() == 0);
        bench.system.execute("UPDATE node SET pmeta = substr(pmeta, 2) WHERE path = ''");
        assert_eq!(bench.job(&name("failure"), "state::text || attempt"), "failed1");
        // T3: somebody owns the job who does not know of it.
        lose("cell-export worker", "UPDATE 1");
        bench.accepted("c3", &name("claim"));
        lost();
        bench.hurry_until("it is final", || bench.active() == 0);
        assert_eq!(bench.job(&name("claim"), "state::text || attempt || strikes"), "succeeded21");
    }
    let _worker = bench.worker(&[]);
    let verdict = bench.judge(&Expected { errors: &["PR500-DV-0002"], ..Expected::default() });
    assert_eq!((verdict.exports - verdict.zips, verdict.retried), (3, 3));
}

#[test]
fn row_41_slow_statements_of_the_api_hold_nobody_else_up() {
    let bench = Bench::start("row_41");
    bench.cells(3, &[]);
    let _worker = bench.worker(&[]);
    // Whoever exports this cell waits for the lock, with a connection of the api's pool in hand.
    let held = bench.system.block_on(async {
        let mut tx = bench.system.pool().begin().await.unwrap();
        sqlx::query("SELECT id FROM cell WHERE name = 'c0' FOR UPDATE").execute(&mut *tx).await.unwrap();
        tx
    });
    bench.history.fault("lock");
    bench.accepted("c1", "before");
    std::thread::scope(|scope| {
        for client in 0..60 {
            let bench = &bench;
            scope.spawn(move || {
                let asked = Instant::now();
                let told = bench.client.export("c0", &format!("n{client}"));
                // Two seconds, and some for sixty clients on the machine at once.
                assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
                assert_eq!(told, Told::Refused(503, "PR503-SV-0006".to_owned()));
            });
        }
        // The workers have their own connections.
        assert!(within(Duration::from_secs(10), || bench.job("before", "state") == "succeeded"));
    });
    bench.system.block_on(held.rollback()).unwrap();
    // Some of the sixty were accepted after all, when the lock was gone, and run.
    for cell in ["c2", "c0"] {
        bench.system.eventually("the api is back", || bench.client.export(cell, "after").is_done());
    }
    bench.judge(&Expected::default());
}

/// What sqlx 0.9.0 does with connections of a pool, and how the services are out of its way (ARCHITECTURE.md).
#[test]
fn row_42_an_abandoned_copy_or_a_cancelled_begin_spoils_no_later_statement() {
    let options = Options { database_proxy: true, ..Options::default() };
    let bench = Bench::start_with("row_42", options);
    bench.system.execute("CREATE TABLE number (id int PRIMARY KEY, state text)");
    bench.system.execute("INSERT INTO number SELECT g, 'queued' FROM generate_series(1, 10) g");
    bench.system.execute("GRANT SELECT, UPDATE ON number TO PUBLIC");
    let url: SecretString = bench.system.url("WORKER_", "DATABASE_URL").into();
    let proxy = bench.system.database_proxy.as_ref().unwrap();
    let update = "UPDATE number SET state = 'running' WHERE id = $1 AND state = 'queued'";
    bench.system.block_on(async {
        let done = async |pool: &sqlx::PgPool, id: i32| {
            sqlx::query(update).bind(id).execute(pool).await.unwrap().rows_affected()
        };
        let truth = async |id: i32| -> String {
            let row = sqlx::query("SELECT state FROM number WHERE id = $1").bind(id);
            row.fetch_one(bench.system.pool()).await.unwrap().get(0)
        };
        // As the services do it: the copy on a connection of its own, given up in the middle.
        let pool = store::pool(&url, "row 42", 1).unwrap();
        assert_eq!(done(&pool, 99).await, 0, "from now on the statement is cached");
        for id in 1..4 {
            let mut connection = store::connect_for_copy(&url, "row 42 copy").await.unwrap();
            let copy = "COPY (SELECT generate_series(1, 200000)) TO STDOUT";
            let mut stream = connection.copy_out_raw(copy).await.unwrap();
            assert!(futures_util::TryStreamExt::try_next(&mut stream).await.unwrap().is_some());
            drop(stream);
            drop(connection);
            assert_eq!(done(&pool, id).await, 1);
            assert_eq!(truth(id).await, "running");
        }
        // A begin that is given up while its answer is on the way: the next statement must be on its own.
        for id in 4..7 {
            let mut connection = pool.acquire().await.unwrap();
            proxy.freeze();
            let given_up = tokio::time::timeout(Duration::from_millis(100), connection.begin()).await.is_err();
            assert!(given_up, "the answer cannot have come");
            proxy.up();
            drop(connection);
            assert_eq!(done(&pool, id).await, 1);
            assert_eq!(truth(id).await, "running", "it was done in a transaction that nobody ends");
        }
        // And as they must not: whether sqlx still does this is of interest when it changes.
        let spoiled = sqlx::postgres::PgPoolOptions::new().max_connections(1);
        let spoiled = spoiled.connect(secrecy::ExposeSecret::expose_secret(&url)).await.unwrap();
        done(&spoiled, 99).await;
        let mut stream = spoiled.copy_out_raw("COPY (SELECT generate_series(1, 200000)) TO STDOUT").await.unwrap();
        let _ = futures_util::TryStreamExt::try_next(&mut stream).await.unwrap();
        drop(stream);
        tokio::time::sleep(Duration::from_millis(500)).await;
        let told = done(&spoiled, 7).await;
        println!("a pooled connection after an abandoned copy says {told} rows, and the row is {}", truth(7).await);
    });
    // Whoever copies in the services does so on a session of its own.
    bench.cells(1, &["--documents", "20000"]);
    let _worker = bench.worker(&[]);
    let stop = Stop::default();
    let copying = std::thread::scope(|scope| {
        let ending = stop.later();
        let looking = scope.spawn(|| {
            let mut seen = std::collections::BTreeSet::new();
            while !stop.is_said() {
                let who = "SELECT string_agg(application_name, ',') FROM pg_stat_activity
                           WHERE datname = current_database() AND query ~ '^\\s*COPY'";
                let who = bench.system.value(who);
                seen.extend(who.split(',').filter(|name| !name.is_empty()).map(str::to_owned));
            }
            seen
        });
        bench.accepted("c0", "one");
        bench.hurry_until("it is exported", || bench.active() == 0);
        bench.ordered(|| bench.client.import("c0", "one"));
        bench.hurry_until("it is imported", || bench.active() == 0);
        drop(ending);
        looking.join().unwrap()
    });
    assert_eq!(copying.into_iter().collect::<Vec<_>>(), ["cell-export import", "cell-export reader"]);
    bench.judge(&Expected::default());
}
