//! Failures that cannot be mended end in `NAME.error`; the others are tried again first.

use system_tests::http::Answer;
use system_tests::system::System;

fn error_file(system: &System, name: &str) -> Answer {
    system.wait_ready("cell1");
    assert_eq!(system.files("cell1"), [format!("{name}.error")]);
    let answer = system.request("GET", &format!("/cell1/__snapshot/{name}.error"), &[], None);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let text = answer.text();
    assert!(!text.contains('\n') && !text.contains(system.directory().to_str().unwrap()), "{text}");
    answer
}

/// Lets the next attempt begin at once.
fn hurry(system: &System) {
    system.execute("UPDATE job SET available_at = clock_timestamp() WHERE state = 'queued'");
}

#[test]
fn missing_contents_are_tried_again_and_then_named() {
    let mut system = System::start();
    let _worker = system.worker();
    system.sample_cell("cell1", &[]);
    std::fs::remove_dir_all(system.blobs()).unwrap();
    assert_eq!(system.post_export("cell1", "one").status, 202);
    system.eventually("it is given up", || {
        hurry(&system);
        system.value("SELECT state FROM job") == "failed"
    });
    assert_eq!(system.value("SELECT attempt FROM job"), "4");
    let error = error_file(&system, "one");
    assert_eq!(error.code(), "PR500-CM-0002");
    let text = error.message();
    assert!(text.starts_with("Files I/O error caused [add webdav data to snapshot file: 20_webdav/"), "{text}");
}

#[test]
fn contents_that_changed_on_disk_are_not_exported() {
    let mut system = System::start();
    let _worker = system.worker();
    system.sample_cell("cell1", &[]);
    let victim = std::fs::read_dir(system.blobs()).unwrap().flatten().next().unwrap().path();
    let victim = std::fs::read_dir(victim).unwrap().flatten().next().unwrap().path();
    let mut bytes = std::fs::read(&victim).unwrap();
    bytes.push(b'!');
    std::fs::write(&victim, bytes).unwrap();
    assert_eq!(system.post_export("cell1", "one").status, 202);
    system.eventually("it is given up", || {
        hurry(&system);
        system.value("SELECT state FROM job") == "failed"
    });
    assert_eq!(error_file(&system, "one").code(), "PR500-DV-0001");
    assert_eq!(walk(&system.area()), 0, "no part file is left");
}

fn walk(directory: &std::path::Path) -> usize {
    let jobs = std::fs::read_dir(directory).unwrap().flatten();
    jobs.map(|job| std::fs::read_dir(job.path()).unwrap().count()).sum()
}

#[test]
fn a_cell_deleted_meanwhile_is_a_failure_at_once() {
    let mut system = System::start();
    system.sample_cell("cell1", &[]);
    assert_eq!(system.post_export("cell1", "one").status, 202);
    system.execute("UPDATE cell SET id = 'elsewhere'");
    let _worker = system.worker();
    system.eventually("it ends", || system.value("SELECT state FROM job") == "failed");
    assert_eq!(system.value("SELECT attempt FROM job"), "1");
    assert!(system.value("SELECT error FROM job").contains("PR404-DV-0003"));
}

#[test]
fn unreadable_metadata_is_a_failure_at_once() {
    let mut system = System::start();
    let _worker = system.worker();
    system.sample_cell("cell1", &[]);
    system.execute("UPDATE node SET pmeta = '{' WHERE path <> ''");
    assert_eq!(system.post_export("cell1", "one").status, 202);
    assert_eq!(error_file(&system, "one").code(), "PR500-DV-0002");
}

#[test]
fn a_refused_read_is_a_failure_at_once_and_leaks_nothing() {
    let mut system = System::start();
    let _worker = system.worker();
    system.sample_cell("cell1", &[]);
    // 22P02 while reading: data that the database cannot make sense of.
    system.execute("ALTER TABLE document RENAME TO document_rows");
    system.execute(
        "CREATE VIEW document AS SELECT generation, type, position, id, (1 / (position - position))::text AS body FROM document_rows",
    );
    assert_eq!(system.post_export("cell1", "one").status, 202);
    system.eventually("it ends", || system.value("SELECT state FROM job") == "failed");
    assert_eq!(system.value("SELECT attempt FROM job"), "1");
    system.execute("DROP VIEW document");
    system.execute("ALTER TABLE document_rows RENAME TO document");
    let error = error_file(&system, "one");
    assert_eq!((error.code().as_str(), error.message().as_str()), ("PR500-SV-0002", "Datastore unknown error."));
}

#[test]
fn a_full_disk_waits_and_fails_at_the_deadline() {
    let mut system = System::start();
    system.sample_cell("cell1", &[]);
    assert_eq!(system.post_export("cell1", "one").status, 202);
    let everything = u64::MAX.to_string();
    let worker = system.worker_with(&[("DISK_RESERVE_BYTES", &everything)]);
    system.eventually("it waits", || system.value("SELECT last_failure FROM job").contains("PR503-SV-0005"));
    assert_eq!(system.value("SELECT state || ' ' || strikes FROM job"), "queued 0");
    assert_eq!(system.status("cell1")["status"], "exportation in progress");
    drop(worker);
    // Space is freed: the job goes on as if nothing had been.
    let _worker = system.worker();
    hurry(&system);
    system.wait_ready("cell1");
    assert_eq!(system.files("cell1"), ["one.zip"]);

    assert_eq!(system.post_export("cell1", "two").status, 202);
    drop(_worker);
    let _full = system.worker_with(&[("DISK_RESERVE_BYTES", &everything)]);
    system.execute("UPDATE job SET deadline_at = clock_timestamp() + interval '4 seconds' WHERE name = 'two'");
    system.eventually("its time is up", || {
        hurry(&system);
        system.value("SELECT state FROM job WHERE name = 'two'") == "failed"
    });
    assert_eq!(system.files("cell1"), ["one.zip", "two.error"]);
    let error = system.request("GET", "/cell1/__snapshot/two.error", &[], None);
    assert_eq!(error.code(), "PR503-SV-0005");
}

#[test]
fn a_new_export_replaces_an_old_error_and_a_new_error_too() {
    let mut system = System::start();
    let _worker = system.worker();
    system.sample_cell("cell1", &[]);
    let broken = "UPDATE node SET pmeta = '{' || pmeta";
    let mended = "UPDATE node SET pmeta = substr(pmeta, 2)";
    system.execute(broken);
    assert_eq!(system.post_export("cell1", "one").status, 202);
    let first = error_file(&system, "one");
    assert_eq!(system.post_export("cell1", "one").status, 202);
    let second = error_file(&system, "one");
    assert_ne!(first.header("etag"), second.header("etag"), "the newer one stands there");
    system.execute(mended);
    system.export("cell1", "one");
    assert_eq!(system.files("cell1"), ["one.zip"]);
    assert_eq!(system.request("GET", "/cell1/__snapshot/one.error", &[], None).status, 404);
}

#[test]
fn an_export_that_is_stopped_says_why() {
    let mut system = System::start();
    system.sample_cell("cell1", &["--documents", "60000"]);
    let _worker = system.worker_with(&[("JOB_HEARTBEAT_SECS", "0.05")]);
    for (stop, name, state, code, text) in [
        ("cancel_requested = true", "one", "cancelled", "PR409-EX-0001", "The export was cancelled."),
        ("deadline_at = clock_timestamp()", "two", "failed", "PR503-EX-0002", "The export did not finish in time."),
    ] {
        assert_eq!(system.post_export("cell1", name).status, 202);
        let of = format!("FROM job WHERE name = '{name}'");
        system.eventually("it runs", || system.value(&format!("SELECT state {of}")) == "running");
        system.execute(&format!("UPDATE job SET {stop} WHERE name = '{name}'"));
        let error = error_file(&system, name);
        assert_eq!((error.code().as_str(), error.message().as_str()), (code, text));
        assert_eq!(system.value(&format!("SELECT state {of}")), state);
        assert_eq!(walk(&system.area()), 0, "no part file is left");
        system.execute("DELETE FROM snapshot_entry");
    }
}
