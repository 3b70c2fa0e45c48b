//! Workers that die or freeze in the middle of an export.

use std::time::{Duration, Instant};

use system_tests::judge::{self, skipped};
use system_tests::system::{System, eventually};

fn writing(system: &System) -> bool {
    system.stored_files().iter().filter_map(|f| f.metadata().ok()).any(|m| m.len() > 100_000)
}

/// A cell that takes a while.
fn slow_cell(system: &System) -> std::path::PathBuf {
    system.sample_cell("cell1", &["--documents", "60000", "--files", "20"])
}

#[test]
fn when_a_worker_is_killed_another_finishes_its_job() {
    let mut system = System::start();
    let original = slow_cell(&system);
    let mut victim = system.worker();
    assert_eq!(system.post_export("cell1", "one").status, 202);
    eventually("the victim writes", || writing(&system));
    victim.signal("KILL");
    victim.wait(Duration::from_secs(5));
    assert_eq!(system.stored().len(), 1, "a part file lies there");
    assert!(system.stored()[0].ends_with(".part"));

    let _heir = system.worker();
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        // Either the export is under way and nothing is listed, or it is ready and listed: never anything else. The
        // status is asked for last: what was not ready then was not there before.
        let files = system.files("cell1");
        let stranger = system.anonymous("GET", "/cell1/__snapshot/one.zip", &[], None).status;
        let got = system.request("GET", "/cell1/__snapshot/one.zip", &[], None).status;
        let status = system.status("cell1");
        assert_eq!(stranger, 401);
        if status["status"] == "ready" {
            break;
        }
        assert_eq!((files, got), (Vec::<String>::new(), 404));
        assert_ne!(status["progress"], "100%");
        assert!(Instant::now() < until, "{status}");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(system.files("cell1"), ["one.zip"]);
    assert_eq!(system.value("SELECT attempt || ' ' || strikes FROM job"), "2 1");
    let snapshot = judge::without_integrity(&system.download("cell1", "one.zip"));
    match judge::compare(&original, &snapshot) {
        Some(words) => assert!(words == "EQUAL" || only_unit_url_differs(&words), "{words}"),
        None => skipped("the independent checker is not here"),
    }
}

fn only_unit_url_differs(words: &str) -> bool {
    words.starts_with("DIFFERENT: 1 finding(s)") && words.contains("00_manifest.json: unit_url differs")
}

#[test]
fn a_frozen_worker_that_wakes_up_changes_nothing() {
    let mut system = System::start();
    slow_cell(&system);
    let zombie = system.worker();
    assert_eq!(system.post_export("cell1", "one").status, 202);
    eventually("the zombie writes", || writing(&system));
    zombie.signal("STOP");
    let _heir = system.worker();
    system.wait_ready("cell1");
    let first = system.request("GET", "/cell1/__snapshot/one.zip", &[], None);
    zombie.signal("CONT");
    eventually("the zombie gives up", || {
        zombie.log().contains("taken over") || zombie.log().contains("another attempt")
    });
    let later = system.request("GET", "/cell1/__snapshot/one.zip", &[], None);
    assert_eq!(first.header("etag"), later.header("etag"));
    assert!(first.body == later.body);
    assert_eq!(system.value("SELECT attempt || ' ' || state FROM job"), "2 succeeded");
    assert_eq!(system.files("cell1"), ["one.zip"]);
}

#[test]
fn a_job_that_kills_every_worker_is_given_up() {
    let mut system = System::start();
    slow_cell(&system);
    assert_eq!(system.post_export("cell1", "poison").status, 202);
    for attempt in 1..=4 {
        let mut victim = system.worker();
        eventually("it is claimed", || system.value("SELECT attempt FROM job") == attempt.to_string());
        victim.signal("KILL");
        victim.wait(Duration::from_secs(5));
        // The api reaps too: nobody else has to be alive.
        eventually("it is reaped", || system.value("SELECT state FROM job") != "running");
        system.execute("UPDATE job SET available_at = clock_timestamp() WHERE state = 'queued'");
    }
    assert_eq!(system.status("cell1")["status"], "ready");
    assert_eq!(system.files("cell1"), ["poison.error"]);
    let error = system.request("GET", "/cell1/__snapshot/poison.error", &[], None);
    assert_eq!(error.header("content-type"), Some("application/json"));
    assert_eq!(error.code(), "PR503-EX-0001");
    assert_eq!(error.message(), "The export was interrupted 4 times and given up.");
}
