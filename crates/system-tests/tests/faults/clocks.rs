//! Rows 31 and 32: clocks that are wrong, and jump.

use std::path::Path;
use std::time::Duration;

use system_tests::judge::skipped;
use system_tests::oracle::Expected;

use crate::bench::{Bench, cell, database, on};

const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// Settings that make a process go by the clock in a file. Intervals stay what they are: a clock that is set jumps, and
/// does not run faster.
fn clock(file: &Path) -> Option<[(&'static str, String); 5]> {
    if !Path::new(LIBRARY).exists() {
        skipped("libfaketime is not here");
        return None;
    }
    Some([
        ("LD_PRELOAD", LIBRARY.to_owned()),
        ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("FAKETIME_SKIP_CMDS", "bash".to_owned()),
    ])
}

#[test]
fn row_31_the_clock_of_a_worker_is_wrong_and_jumps() {
    let bench = Bench::start("row_31");
    let file = bench.system.directory().join("clock");
    std::fs::write(&file, "+0\n").unwrap();
    let Some(settings) = clock(&file) else { return };
    bench.cells(4, &[]);
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let wrong = bench.worker(&[&settings[..], &[("WORKER_SLOTS", "4")]].concat());
    for (round, step) in ["+1h", "-1h", "+3h", "-1d", "+0"].iter().enumerate() {
        bench.history.fault(step);
        for number in 0..4 {
            bench.accepted(&cell(number), &format!("r{round}"));
        }
        // In the middle of it.
        std::fs::write(&file, format!("{step}\n")).unwrap();
        bench.hurry_until("all are final", || bench.active() == 0);
    }
    let begun = wrong.log();
    let times: std::collections::BTreeSet<&str> =
        begun.split(r#""timestamp":""#).skip(1).filter_map(|rest| rest.get(..13)).collect();
    assert!(times.len() >= 4, "its clock was right all the time: {times:?}");
    let verdict = bench.judge(&Expected::default());
    assert_eq!((verdict.zips, verdict.retried), (20, 0));
    assert_eq!(
        bench
            .system
            .value("SELECT count(*) FROM job WHERE finished_at NOT BETWEEN now() - interval '10 minutes' AND now()"),
        "0"
    );
}

#[test]
fn row_32_the_clock_of_the_database_jumps() {
    let servers = database();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("clock");
    // The database runs as another user.
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(&file, "+0\n").unwrap();
    let Some(settings) = clock(&file) else { return };
    servers.stop_database("INT");
    servers.run_with(&settings);
    {
        let bench = Bench::start_with("row_32", on(&servers));
        bench.cells(4, &[]);
        let slow = [("FAILPOINT", "export.zip_finished:1+=sleep-500"), ("WORKER_SLOTS", "2")];
        let _workers = [bench.worker(&slow), bench.worker(&slow)];
        let before: f64 = bench.system.value("SELECT extract(epoch FROM clock_timestamp())").parse().unwrap();
        for (round, step) in ["+120", "+0", "-120", "+0"].iter().enumerate() {
            bench.history.fault(step);
            for number in 0..4 {
                bench.accepted(&cell(number), &format!("r{round}"));
            }
            std::thread::sleep(Duration::from_millis(200));
            std::fs::write(&file, format!("{step}\n")).unwrap();
            let now: f64 = bench.system.value("SELECT extract(epoch FROM clock_timestamp())").parse().unwrap();
            let expected = step.parse::<f64>().unwrap();
            assert!((now - before - expected).abs() < 60.0, "the clock of the database did not jump: {step}");
            bench.hurry_until("all are final", || bench.active() == 0);
        }
        let verdict = bench.judge(&Expected::default());
        assert_eq!(verdict.zips, 16);
        println!("{} exports took a spare attempt", verdict.retried);
    }
    servers.stop_database("INT");
    servers.run();
}
