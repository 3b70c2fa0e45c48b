//! Rows 21, 22, 29 and 32: a database that restarts, is away, is full, or has another idea of the time.

use std::time::{Duration, Instant};

use system_tests::disks::Disk;
use system_tests::history::Told;
use system_tests::oracle::Expected;
use system_tests::servers::Servers;
use system_tests::stop::Stop;
use system_tests::system::Options;

use crate::bench::{Bench, cell, database, in_full, on};

/// A restart takes some seconds, of which the real lease has sixty.
const LEASE: &[(&str, &str)] = &[("JOB_LEASE_SECS", "15"), ("JOB_HEARTBEAT_SECS", "1")];

fn with_a_longer_lease(options: Options) -> Options {
    let settings = LEASE.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    Options { settings, ..options }
}

#[test]
fn row_21_the_database_restarts_over_and_over() {
    let servers = database();
    let bench = Bench::start_with("row_21", with_a_longer_lease(on(&servers)));
    bench.cells(8, &["--documents", "2000"]);
    let _workers = [bench.worker(&[("WORKER_SLOTS", "2")]), bench.worker(&[("WORKER_SLOTS", "2")])];
    let stop = Stop::default();
    std::thread::scope(|scope| {
        let _ending = stop.later();
        for client in 0..8 {
            let (bench, stop) = (&bench, &stop);
            scope.spawn(move || {
                let mut round = 0;
                while !stop.is_said() {
                    // Busy, or away, or accepted: the history knows.
                    if bench.client.export(&cell(client), &format!("r{round}")).is_done() {
                        round += 1;
                    }
                    std::thread::sleep(Duration::from_millis(100));
                }
            });
        }
        for round in 0..if in_full() { 20 } else { 4 } {
            std::thread::sleep(Duration::from_millis(1500 + 300 * (round % 4)));
            let signal = if round % 2 == 0 { "INT" } else { "QUIT" };
            bench.history.fault(signal);
            servers.stop_database(signal);
            servers.run();
        }
        std::thread::sleep(Duration::from_secs(2));
    });
    let verdict = bench.judge(&Expected::default());
    assert!(verdict.zips > 20, "{verdict:?}");
    // Nobody was taken for dead: the workers were there all the time.
    let reaped: usize = bench.logs().map(|log| log.matches("dealt with a lost job").count()).sum();
    assert_eq!(reaped, 0);
}

#[test]
fn row_22_the_database_is_away_for_long() {
    let servers = database();
    let bench = Bench::start_with("row_22", on(&servers));
    bench.cells(4, &[]);
    let _workers = [bench.worker(&[("FAILPOINT", "export.zip_finished:1+=sleep-2000")]), bench.worker(&[])];
    for number in 0..4 {
        bench.accepted(&cell(number), "one");
    }
    bench
        .system
        .eventually("some run", || bench.system.value("SELECT count(*) FROM job WHERE state = 'running'") != "0");
    bench.history.fault("stopped");
    servers.stop_database("INT");
    let away = Instant::now();
    while away.elapsed() < Duration::from_secs(if in_full() { 300 } else { 12 }) {
        for (method, target) in [("POST", "/c0/__export"), ("GET", "/c1/__export"), ("GET", "/c2/__snapshot/one.zip")] {
            let asked = Instant::now();
            let answer = bench.system.request(method, target, &[], None);
            assert_eq!((answer.status, answer.code().as_str()), (503, "PR503-SV-0006"), "{method} {target}");
            assert!(asked.elapsed() < Duration::from_secs(3), "{method} {target}: {:?}", asked.elapsed());
        }
    }
    servers.run();
    let verdict = bench.judge(&Expected::default());
    assert_eq!(verdict.zips, 4);
}

#[test]
fn row_29_the_volume_of_the_database_is_full() {
    let directory = tempfile::tempdir().unwrap();
    // The database runs as another user.
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let Some(disk) = Disk::mount(directory.path(), 500) else { return };
    let servers = Servers::database_below(directory.path());
    {
        let bench = Bench::start_with("row_29", on(&servers));
        let mut ledgers = bench.cells(4, &[]);
        let worker = bench.worker(&[]);
        bench.accepted("c0", "before");
        bench.hurry_until("it ends", || bench.active() == 0);
        drop(worker);
        let filler = disk.fill(0);
        bench.history.fault("full");
        // Tables grow as they like until they need another page; then nothing can be stored, and everybody is told so.
        let mut refused = 0;
        for round in 0..400 {
            for number in 1..4 {
                match bench.client.export(&cell(number), &format!("r{round}")) {
                    Told::Refused(503, _) => refused += 1,
                    Told::Refused(409, _) | Told::Done(_) => {}
                    told @ (Told::Refused(..) | Told::Nothing) => panic!("{told:?}"),
                }
            }
            // Makes the database need space.
            let _ = ledgers[0].change(&bench.system);
            if refused > 10 {
                break;
            }
        }
        assert!(refused > 10, "the volume was not full");
        let worker = bench.worker(&[]);
        std::thread::sleep(Duration::from_secs(3));
        std::fs::remove_file(filler).unwrap();
        // Without space for its log the server ends itself.
        servers.run();
        drop(worker);
        let _worker = bench.worker(&[]);
        bench.system.eventually("the database stores again", || ledgers[0].change(&bench.system).is_ok());
        bench.accepted("c0", "after");
        bench.judge(&Expected::default());
    }
    drop(servers);
}
