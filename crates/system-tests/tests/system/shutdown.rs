//! Ending in order.

use std::time::Duration;

use system_tests::process;
use system_tests::system::{System, TOKEN};

#[test]
fn a_worker_that_is_asked_to_end_gives_its_job_back_without_a_strike() {
    let mut system = System::start();
    system.sample_cell("cell1", &["--documents", "60000"]);
    let mut leaving = system.worker();
    assert_eq!(system.post_export("cell1", "one").status, 202);
    system.eventually("it runs", || system.value("SELECT state FROM job") == "running");
    leaving.signal("TERM");
    assert_eq!(leaving.wait(Duration::from_secs(15)), Some(0));
    assert_eq!(system.value("SELECT state || ' ' || attempt || ' ' || strikes FROM job"), "queued 1 0");
    let _next = system.worker();
    system.wait_ready("cell1");
    assert_eq!(system.files("cell1"), ["one.zip"]);
    assert_eq!(system.value("SELECT strikes FROM job"), "0");
}

#[test]
fn a_worker_may_finish_what_it_can_while_it_drains() {
    let mut system = System::start();
    system.sample_cell("cell1", &["--documents", "20000"]);
    let mut leaving = system.worker_with(&[("DRAIN_SECS", "60")]);
    assert_eq!(system.post_export("cell1", "one").status, 202);
    system.eventually("it runs", || system.value("SELECT state FROM job") == "running");
    leaving.signal("TERM");
    assert_eq!(leaving.wait(Duration::from_secs(60)), Some(0));
    assert_eq!(system.value("SELECT state || ' ' || attempt FROM job"), "succeeded 1");
}

#[test]
fn settings_are_checked_and_secrets_never_printed() {
    let system = System::start();
    for (program, command) in [("api", "serve"), ("exporter-worker", "run")] {
        let output = process::run(program, &[command, "--check-config"], system.environment());
        assert!(output.status.success(), "{program}: {output:?}");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        let url = &system.environment().iter().find(|(n, _)| n == "AMQP_URL").unwrap().1;
        assert!(!printed.contains(TOKEN) && !printed.contains(url.as_str()), "{program}: {printed}");
        assert!(printed.contains("localhost"), "{program}: {printed}");
        let without: Vec<_> = system.environment().iter().filter(|(n, _)| n != "DATABASE_URL").cloned().collect();
        let output = process::run(program, &[command, "--check-config"], &without);
        assert_eq!(output.status.code(), Some(2), "{program}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("DATABASE_URL"), "{program}: {output:?}");
    }
    let health = process::run("api", &["health"], system.environment());
    assert!(health.status.success(), "{health:?}");
    let health = process::run("exporter-worker", &["health"], system.environment());
    assert!(health.status.success(), "{health:?}");
}
