//! Rows 35 to 38: users and caretakers that get in each other's way.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use model::cell::CellId;
use model::job::JobState;
use model::store::jobs::{self, Cancelling};
use system_tests::history::Told;
use system_tests::ledger;
use system_tests::oracle::Expected;
use system_tests::process;
use system_tests::stop::Stop;
use uuid::Uuid;

use crate::bench::{Bench, cell, in_full};

#[test]
fn row_35_of_many_requests_at_once_one_is_accepted() {
    let bench = Bench::start("row_35");
    bench.cells(1, &[]);
    let _worker = bench.worker(&[]);
    let (wanted, mut contested, begun) = (if in_full() { 100 } else { 8 }, 0, Instant::now());
    for round in 0.. {
        if contested == wanted {
            break;
        }
        // On a machine that is busy with something else, all 50 may be told that the database does not answer in time.
        assert!(begun.elapsed() < Duration::from_secs(600), "in {contested} of {round} rounds one was accepted");
        let barrier = Barrier::new(50);
        let told: Vec<Told> = std::thread::scope(|scope| {
            let asking = (0..50).map(|client| {
                let (bench, barrier) = (&bench, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    // Half of them want the same name.
                    let name = if client % 2 == 0 { format!("r{round}") } else { format!("r{round}-{client}") };
                    bench.client.export("c0", &name)
                })
            });
            asking.collect::<Vec<_>>().into_iter().map(|asked| asked.join().unwrap()).collect()
        });
        let jobs =
            bench.system.value(&format!("SELECT count(*) FROM job WHERE name = 'r{round}' OR name LIKE 'r{round}-%'"));
        let done = told.iter().filter(|told| told.is_done()).count();
        // The export may be over before the last of them has been heard: then another one is accepted, of another name.
        assert!(jobs.parse::<usize>().unwrap() >= done, "{told:?}");
        contested += usize::from(done > 0);
        let same = bench.system.value(&format!("SELECT count(*) FROM job WHERE name = 'r{round}'"));
        assert!(matches!(same.as_str(), "0" | "1"), "{same} jobs of one name");
        for told in &told {
            let busy = matches!(told, Told::Refused(409, _) | Told::Done(202));
            assert!(busy || *told == Told::Refused(503, "PR503-SV-0006".to_owned()), "{told:?}");
        }
        bench.hurry_until("all are final", || bench.active() == 0);
    }
    // With nobody to end it, exactly one.
    drop(_worker);
    bench.hurry_until("one is accepted", || {
        let barrier = Barrier::new(50);
        std::thread::scope(|scope| {
            for client in 0..50 {
                let (bench, barrier) = (&bench, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    bench.client.export("c0", &format!("last{}", client % 7))
                });
            }
        });
        bench.active() > 0
    });
    assert_eq!(bench.system.value("SELECT count(*) FROM job WHERE name LIKE 'last%'"), "1");
    let _worker = bench.worker(&[]);
    bench.judge(&Expected::default());
}

#[test]
fn row_36_a_cancellation_races_with_the_end() {
    let bench = Bench::start("row_36");
    bench.cells(8, &[]);
    let _workers = [bench.worker(&[("WORKER_SLOTS", "4")]), bench.worker(&[("WORKER_SLOTS", "4")])];
    let rounds = if in_full() { 125 } else { 12 };
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let outcomes: Vec<(usize, usize)> = std::thread::scope(|scope| {
        let racing = (0..8).map(|number| {
            let bench = &bench;
            scope.spawn(move || race(bench, &cell(number), rounds, seed + number as u64))
        });
        racing.collect::<Vec<_>>().into_iter().map(|racer| racer.join().unwrap()).collect()
    });
    let (cancelled, finished) = outcomes.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    println!("{cancelled} were cancelled, {finished} were faster");
    assert!(cancelled > 0 && finished > 0, "no race: {cancelled} {finished}");
    let verdict = bench.judge(&Expected { errors: &["PR409-EX-0001"], ..Expected::default() });
    assert_eq!(verdict.exports - verdict.zips, cancelled);
}

/// Cancels each export after a while; how many were cancelled, and how many succeeded.
fn race(bench: &Bench, cell: &str, rounds: usize, seed: u64) -> (usize, usize) {
    let mut random = fastrand::Rng::with_seed(seed);
    let id = CellId::parse(&format!("id-{cell}")).unwrap();
    let (mut cancelled, mut finished) = (0, 0);
    bench.accepted(cell, "first");
    let begun = Instant::now();
    let first = format!("SELECT state FROM job WHERE cell_id = 'id-{cell}' AND name = 'first'");
    bench.hurry_until("it is exported", || bench.system.value(&first) == "succeeded");
    let usual = begun.elapsed().as_millis() as u64;
    for round in 0..rounds {
        let name = format!("r{round}");
        bench.accepted(cell, &name);
        let of = format!("FROM job WHERE cell_id = 'id-{cell}' AND name = '{name}'");
        let job: Uuid = bench.system.value(&format!("SELECT id {of}")).parse().unwrap();
        std::thread::sleep(Duration::from_millis(random.u64(..2 * usual)));
        bench.history.fault("cancel");
        let told = bench.system.block_on(async {
            let mut connection = bench.system.pool().acquire().await.unwrap();
            jobs::cancel(&mut connection, &id, job).await.unwrap()
        });
        let state = || bench.system.value(&format!("SELECT state {of}"));
        bench.hurry_until("it is final", || matches!(state().as_str(), "succeeded" | "failed" | "cancelled"));
        let files = bench.system.files(cell);
        match (state().as_str(), told) {
            ("succeeded", Cancelling::AlreadyFinal(JobState::Succeeded)) => {
                assert!(files.contains(&format!("{name}.zip")), "{files:?}");
                finished += 1;
            }
            ("cancelled", Cancelling::Cancelled | Cancelling::Requested) => {
                assert!(files.contains(&format!("{name}.error")), "{files:?}");
                cancelled += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    (cancelled, finished)
}

#[test]
fn row_37_names_are_kept_while_they_are_used_and_old_files_never_come_back() {
    let bench = Bench::start("row_37");
    let mut ledgers = bench.cells(1, &[]);
    let upload = std::fs::read(bench.system.sample(&[])).unwrap();
    let slow = [("FAILPOINT", "export.zip_finished:1+=sleep-300")];
    let worker = bench.worker(&slow);
    let mut last = 0;
    for round in 0..8 {
        ledgers[0].change(&bench.system).unwrap();
        bench.accepted("c0", "same");
        bench.system.eventually("it runs", || bench.job("same", "state") != "queued");
        let job = bench.job("same", "id");
        let told = [bench.client.delete("c0", "same"), bench.client.put("c0", "same", &upload)];
        if bench.job("same", "state") == "running" {
            // There is nothing to delete yet, and the name is taken.
            assert_eq!(
                told,
                [Told::Refused(404, "PR404-DV-0001".to_owned()), Told::Refused(409, "PR409-CM-0002".to_owned())]
            );
        }
        bench.hurry_until("it is final", || bench.active() == 0);
        assert_eq!(bench.job("same", "id"), job);
        // Each export under this name shows the cell as it is now, never what lay there before.
        if bench.system.files("c0").contains(&"same.zip".to_owned()) {
            let count = ledger::read(&bench.system.download("c0", "same.zip")).unwrap().unwrap();
            assert!(count > last, "round {round}: {count} after {last}");
            last = count;
            assert_eq!(bench.client.delete("c0", "same"), Told::Done(204));
        }
        assert_eq!(bench.system.files("c0"), Vec::<String>::new());
    }
    drop(worker);
    let _worker = bench.worker(&[]);
    bench.accepted("c0", "same");
    bench.judge(&Expected::default());
}

#[test]
fn row_38_contents_are_removed_while_they_are_read() {
    let bench = Bench::start("row_38");
    let mut ledgers = bench.cells(4, &[]);
    let _workers = [bench.worker(&[("WORKER_SLOTS", "2")]), bench.worker(&[("WORKER_SLOTS", "2")])];
    let stop = Stop::default();
    std::thread::scope(|scope| {
        let ending = stop.later();
        let changing = scope.spawn(|| {
            while !stop.is_said() {
                for ledger in ledgers.iter_mut() {
                    ledger.change(&bench.system).unwrap();
                    // As an application does it: the row goes with the transaction, the file is the sweeper's. It is an
                    // old file: what protects it is not its age.
                    for blob in ledger.take_replaced() {
                        bench.system.age(blob, Duration::from_secs(48 * 3600));
                        bench.system.execute(&format!("DELETE FROM blob WHERE id = '{blob}'"));
                    }
                }
            }
        });
        let sweeping = scope.spawn(|| {
            let environment = bench.system.service_environment("WORKER_");
            while !stop.is_said() {
                bench.history.fault("sweep");
                // The ages that a worker takes.
                let swept = process::run("examples/sweep", &["3600", "86400"], &environment);
                assert!(swept.status.success(), "{swept:?}");
            }
        });
        for round in 0..10 {
            for number in 0..4 {
                bench.accepted(&cell(number), &format!("r{round}"));
            }
            bench.hurry_until("all are final", || bench.active() == 0);
        }
        drop(ending);
        changing.join().unwrap();
        sweeping.join().unwrap();
    });
    let verdict = bench.judge(&Expected::default());
    assert_eq!((verdict.zips, verdict.retried), (40, 0));
}
