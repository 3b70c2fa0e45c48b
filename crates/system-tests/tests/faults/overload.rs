//! More than can be done: limits of the queue and of owners, fairness, thousands of jobs, and restarts meanwhile (row 33).

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use model::cell::CellId;
use model::limits;
use model::snapshot_name::SnapshotName;
use model::store::jobs::{self, AcceptError, Admission, NewJob};
use serde_json::json;
use system_tests::disks::Disk;
use system_tests::history::Told;
use system_tests::oracle::Expected;
use system_tests::system::Options;
use uuid::Uuid;

use crate::bench::{Bench, cell, in_full};

/// So many cells with nothing but a root, of one owner: `t0`, `t1` and so on.
fn tiny_cells(bench: &Bench, owner: &str, from: usize, number: usize) {
    if bench.system.value("SELECT count(*) FROM cell WHERE name = 'model'") == "0" {
        bench.system.make_cell("model");
    }
    bench.system.execute(&format!(
        "INSERT INTO cell (id, name, owner, document)
         SELECT 'id-t' || n, 't' || n, '{owner}', document
         FROM cell, generate_series({from}, {}) n WHERE name = 'model'",
        from + number - 1
    ));
    bench.system.execute(&format!(
        "INSERT INTO node (generation, path, pmeta)
         SELECT c.generation, '', n.pmeta FROM cell c, node n
         WHERE c.owner = '{owner}' AND n.path = '' AND n.generation = (SELECT generation FROM cell WHERE name = 'model')"
    ));
}

/// Accepts an export as the api does, without HTTP. `false`: the cell is busy.
async fn accept(bench: &Bench, cell: &str, name: &str) -> bool {
    let job = NewJob {
        id: Uuid::new_v4(),
        cell: CellId::parse(&format!("id-{cell}")).unwrap(),
        name: SnapshotName::parse(name).unwrap(),
        deadline: limits::DEADLINE,
        max_strikes: 4,
        admission: Admission::new(100_000, 100_000),
        idempotency: None,
        trace: None,
    };
    let mut connection = bench.system.pool().acquire().await.unwrap();
    match jobs::accept(&mut connection, &job).await {
        Ok(()) => {
            bench.history.note("accepted", json!({"kind": "export", "cell": cell, "name": name}));
            true
        }
        Err(AcceptError::CellBusy) => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn what_is_too_much_is_refused_with_a_time_to_come_back() {
    for (setting, waits) in [("JOBS_QUEUED_MAX", "60"), ("JOBS_PER_OWNER_MAX", "30")] {
        let settings = vec![(setting, "3".to_owned())];
        let bench = Bench::start_with(setting, Options { settings, ..Options::default() });
        bench.cells(5, &[]);
        for number in 0..3 {
            bench.accepted(&cell(number), "one");
        }
        let answer = bench.system.post_export("c3", "one");
        assert_eq!((answer.status, answer.code().as_str()), (503, "PR503-SV-0001"), "{setting}");
        assert_eq!(answer.header("retry-after"), Some(waits), "{setting}");
        // Another owner's cells have their own limit; the queue is everybody's.
        bench.system.execute("UPDATE cell SET owner = 'https://other.example/#me' WHERE name = 'c4'");
        let told = bench.client.export("c4", "one");
        assert_eq!(told.is_done(), setting == "JOBS_PER_OWNER_MAX", "{setting}: {told:?}");
        let _worker = bench.worker(&[]);
        bench.hurry_until("there is room again", || bench.active() == 0);
        bench.accepted("c3", "one");
        bench.judge(&Expected::default());
    }
}

#[test]
fn without_space_nothing_is_accepted_and_what_was_accepted_waits() {
    let bench = Bench::start("no_space");
    let Some(disk) = Disk::mount(bench.system.area().parent().unwrap(), 4) else { return };
    bench.cells(2, &[]);
    bench.accepted("c0", "before");
    let filler = disk.fill(0);
    bench.history.fault("full");
    let answer = bench.system.post_export("c1", "during");
    assert_eq!((answer.status, answer.code().as_str()), (503, "PR503-SV-0005"));
    assert_eq!(answer.header("retry-after"), Some("60"));
    let _worker = bench.worker(&[]);
    bench.system.eventually("it is looked at", || bench.job("before", "last_failure").contains("PR503-SV-0005"));
    std::fs::remove_file(filler).unwrap();
    bench.hurry_until("it ends", || bench.active() == 0);
    bench.accepted("c1", "after");
    bench.judge(&Expected::default());
}

#[test]
fn an_owner_with_hundreds_of_jobs_keeps_nobody_waiting() {
    let bench = Bench::start("fairness");
    let many = if in_full() { 1000 } else { 120 };
    tiny_cells(&bench, "https://many.example/#me", 0, many);
    tiny_cells(&bench, "https://one.example/#me", many, 1);
    for number in 0..many {
        assert!(bench.system.block_on(accept(&bench, &format!("t{number}"), "one")));
    }
    let _workers: Vec<_> = (0..4).map(|_| bench.worker(&[])).collect();
    bench.system.eventually("they are at it", || {
        bench.system.value("SELECT count(*) FROM job WHERE state = 'succeeded'").parse::<usize>().unwrap() > 10
    });
    assert!(bench.system.block_on(accept(&bench, &format!("t{many}"), "single")));
    bench.hurry_until("the single one ends", || bench.job("single", "state") == "succeeded");
    let before = bench.system.value(
        "SELECT count(*) FROM job, (SELECT accepted_at, started_at FROM job WHERE name = 'single') s
         WHERE job.started_at BETWEEN s.accepted_at AND s.started_at",
    );
    println!("{before} jobs of the other owner began before the single one");
    assert!(before.parse::<usize>().unwrap() <= 12, "{before}");
    let left = bench.active();
    assert!(left > many / 4, "there was no queue any more: {left}");
    bench.judge(&Expected { every: 20, patience: Duration::from_secs(300), ..Expected::default() });
}

#[test]
fn thousands_of_jobs_drain_and_none_is_lost_or_done_twice() {
    let bench = Bench::start("drain");
    let (cells, total) = if in_full() { (500, 10_000) } else { (50, 300) };
    tiny_cells(&bench, "https://many.example/#me", 0, cells);
    let _workers: Vec<_> = (0..4).map(|_| bench.worker(&[])).collect();
    let begun = Instant::now();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, SeqCst);
                    if number >= total {
                        return;
                    }
                    let (cell, name) = (format!("t{}", number % cells), format!("n{}", number / cells));
                    while !bench.system.block_on(accept(&bench, &cell, &name)) {
                        std::thread::sleep(Duration::from_millis(20));
                    }
                }
            });
        }
    });
    let patience = Duration::from_secs(600);
    while bench.active() > 0 {
        assert!(begun.elapsed() < 4 * patience, "{} are left", bench.active());
        std::thread::sleep(Duration::from_millis(100));
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{total} jobs on {cells} cells by 4 workers in {seconds:.0} s, {:.0} a second", total as f64 / seconds);
    let verdict = bench.judge(&Expected { every: 10, ..Expected::default() });
    assert_eq!((verdict.exports, verdict.unheard), (total, 0));
    let once = "SELECT count(*) FROM job WHERE state = 'succeeded' AND attempt = 1 AND strikes = 0";
    assert_eq!(bench.system.value(once), total.to_string());
}

#[test]
fn row_33_everything_is_restarted_in_turn_during_two_hundred_exports() {
    const CELLS: usize = 20;
    const EACH: usize = 10;
    const RESTARTS: usize = 20;
    let mut bench = Bench::start("row_33");
    let mut ledgers = bench.cells(CELLS, &[]);
    drop(bench.system.take_api());
    let mut api = bench.api(&[]);
    // Those with no time to drain give their jobs back; the others finish them.
    let settings = |number: usize| {
        let drain = if number.is_multiple_of(2) { "0" } else { "20" };
        [("DRAIN_SECS", drain), ("WORKER_SLOTS", "2"), ("FAILPOINT", "export.zip_finished:1+=sleep-150")]
    };
    let mut workers: Vec<_> = (0..3).map(|number| bench.worker(&settings(number))).collect();
    let ended = "SELECT count(*) FROM job WHERE state NOT IN ('queued', 'running')";
    let ended = |bench: &Bench| bench.system.value(ended).parse::<usize>().unwrap();
    bench.while_changing(&mut ledgers, || {
        std::thread::scope(|scope| {
            for client in 0..CELLS {
                let bench = &bench;
                scope.spawn(move || {
                    for round in 0..EACH {
                        let name = format!("r{round}");
                        // Until it is accepted, or was accepted by an api that ended before it said so.
                        bench.system.eventually("it is accepted", || match bench.client.export(&cell(client), &name) {
                            Told::Done(_) => true,
                            Told::Refused(409, code) => code == "PR409-DV-0002",
                            Told::Refused(..) | Told::Nothing => {
                                std::thread::sleep(Duration::from_millis(400));
                                false
                            }
                        });
                    }
                });
            }
            for restart in 0..RESTARTS {
                // As often on a slow machine as on a fast one, and never so often that nothing gets done.
                let enough = restart * CELLS * EACH / RESTARTS;
                bench.system.eventually("more of them end", || ended(&bench) >= enough);
                std::thread::sleep(Duration::from_millis(fastrand::u64(..300)));
                bench.history.fault("SIGTERM");
                let which = restart % 4;
                if which == 3 {
                    api.signal("TERM");
                    assert_eq!(api.wait(Duration::from_secs(60)), Some(0), "{}", api.log());
                    api = bench.api(&[]);
                } else {
                    // Before it listens for signals they end it like any process.
                    bench.system.eventually("it runs", || workers[which].log().contains("worker runs"));
                    workers[which].signal("TERM");
                    assert_eq!(workers[which].wait(Duration::from_secs(60)), Some(0), "{}", workers[which].log());
                    workers[which] = bench.worker(&settings(restart + 1));
                }
            }
        });
        bench.system.eventually("all are final", || bench.active() == 0);
    });
    let verdict = bench.judge(&Expected::default());
    assert_eq!((verdict.exports, verdict.zips), (200, 200));
    assert_eq!(bench.system.value("SELECT max(strikes) FROM job"), "0");
}
