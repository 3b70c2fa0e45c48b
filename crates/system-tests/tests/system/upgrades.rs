//! Versions side by side: the services of the version before work beside the present ones, on the present schema; and the
//! present ones on a schema that is newer than they are.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use sha2::{Digest, Sha256};
use system_tests::judge::skipped;
use system_tests::process::{self, Process};
use system_tests::system::{System, eventually};

/// The binaries of the version before: where `PREVIOUS_BIN_DIR` says, or built from the newest tag of another version.
fn previous() -> Option<PathBuf> {
    if let Some(directory) = std::env::var_os("PREVIOUS_BIN_DIR") {
        return Some(directory.into());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let tags = ["tag", "--list", "v*", "--merged", "HEAD", "--sort=-version:refname"];
    let tags = Command::new("git").current_dir(&root).args(tags).output().ok()?;
    let tags = String::from_utf8_lossy(&tags.stdout).into_owned();
    let own = concat!("v", env!("CARGO_PKG_VERSION"));
    let Some(tag) = tags.lines().find(|tag| *tag != own) else {
        skipped("there is no version before this one; PREVIOUS_BIN_DIR names one (deploy/previous)");
        return None;
    };
    let directory = root.join("target/previous").join(tag);
    let built = Command::new(root.join("deploy/previous")).arg(tag).arg(&directory).status();
    assert!(built.unwrap().success(), "deploy/previous {tag}");
    Some(directory)
}

fn json(system: &System, target: &str) -> Value {
    let answer = system.request("GET", target, &[], None);
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

/// Exports, imports, looks on, lists and cancels, with whatever runs.
fn work(system: &System, workers: &[&Process], cell: &str, name: &str) {
    let zip = system.export(cell, name);
    let digest = hex::encode(Sha256::digest(std::fs::read(&zip).unwrap()));
    let recorded = format!("SELECT encode(sha256, 'hex') FROM snapshot_entry WHERE base_name = '{name}'");
    assert_eq!(system.value(&recorded), digest);
    assert!(system.files(cell).contains(&format!("{name}.zip")));
    for (target, done) in [("dry-run", "dry run finished"), ("", "ready")] {
        let target = format!("/{cell}/__import/{target}");
        let target = target.trim_end_matches('/');
        let order = format!(r#"{{"Name":"{name}"}}"#);
        let answer = system.request("POST", target, &[], Some(order.as_bytes()));
        assert_eq!(answer.status, 202, "{}", answer.text());
        eventually("it is imported", || json(system, target)["status"] == done);
    }
    let jobs = json(system, &format!("/{cell}/__export/jobs"));
    assert_eq!(jobs["jobs"][0]["state"], "succeeded", "{jobs}");

    // One that waits, since nobody can take it.
    for worker in workers {
        worker.signal("STOP");
    }
    let cancelled = format!("{name}-cancelled");
    assert_eq!(system.post_export(cell, &cancelled).status, 202);
    assert_eq!(system.status(cell)["status"], "exportation in progress");
    let id = system.value(&format!("SELECT id FROM job WHERE name = '{cancelled}'"));
    let answer = system.request("DELETE", &format!("/{cell}/__export/jobs/{id}"), &[], None);
    assert!((200..300).contains(&answer.status), "{} {}", answer.status, answer.text());
    for worker in workers {
        worker.signal("CONT");
    }
    let state = || system.value(&format!("SELECT state FROM job WHERE id = '{id}'"));
    eventually("it is cancelled", || state() == "cancelled");
    system.wait_ready(cell);
    assert!(system.files(cell).contains(&format!("{cancelled}.error")));
}

#[test]
fn services_of_the_version_before_work_beside_the_present_ones() {
    let Some(previous) = previous() else { return };
    let of = |name: &str| previous.join(name).display().to_string();
    let mut system = System::start();
    system.sample_cell("cell1", &[]);

    newer(&system);
    // Migrated, and nothing else yet.
    let api = system.take_api();
    drop(api);
    let old_api = system.service(&of("api"), &[], &[]);
    let answers = |system: &System| {
        eventually("the api answers", || {
            system_tests::http::request(system.address, "OPTIONS", "/", &[], None).is_ok()
        });
    };
    answers(&system);
    let old_worker = system.service(&of("exporter-worker"), &[], &[]);
    work(&system, &[&old_worker], "cell1", "both-old");

    // Then the api, with workers of both.
    drop(old_api);
    let api = system.service("api", &[], &[]);
    answers(&system);
    work(&system, &[&old_worker], "cell1", "new-api");
    let worker = system.worker();
    work(&system, &[&old_worker, &worker], "cell1", "workers-of-both");

    // Back again, with the workers first.
    drop(api);
    drop(old_worker);
    let _old_api = system.service(&of("api"), &[], &[]);
    answers(&system);
    work(&system, &[&worker], "cell1", "new-worker");
    // What one version has written the other reads.
    let copy = system.download("cell1", "both-old.zip");
    assert!(system.load("copy", &copy, &["--cell-id", "copy"]).status.success());
    work(&system, &[&worker], "copy", "copied");
    assert_eq!(system.value("SELECT count(*) FROM job WHERE state = 'failed' OR strikes > 0"), "0");
}

/// What the next version might add.
const NEXT: &str = "
    ALTER TABLE job ADD COLUMN of_the_future text, ADD COLUMN counted bigint NOT NULL DEFAULT 0;
    CREATE TABLE of_the_future (id uuid PRIMARY KEY);
    CREATE INDEX job_of_the_future ON job (of_the_future)";

/// Migrates as the next version might.
fn newer(system: &System) {
    for statement in NEXT.split(';') {
        system.execute(statement);
    }
    system.execute(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'of the future', true, 'x', 0)",
    );
}

#[test]
fn the_present_services_work_on_a_newer_schema() {
    let mut system = System::start();
    system.sample_cell("cell1", &[]);
    newer(&system);
    // Whoever goes back runs this, too.
    let migrated = process::run("api", &["migrate"], system.environment());
    assert!(migrated.status.success(), "{migrated:?}");
    // As after a new start.
    drop(system.take_api());
    let _api = system.service("api", &[], &[]);
    eventually("the api answers", || system_tests::http::request(system.address, "OPTIONS", "/", &[], None).is_ok());
    let worker = system.worker();
    work(&system, &[&worker], "cell1", "one");
}
