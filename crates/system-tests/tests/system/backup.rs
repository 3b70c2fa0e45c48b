//! `deploy/backup` and `deploy/restore`: with everything lost, what a backup of a busy installation holds is whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use sha2::{Digest, Sha256};
use system_tests::judge::skipped;
use system_tests::process;
use system_tests::stop::Stop;
use system_tests::system::System;

const CELLS: [&str; 4] = ["cell0", "cell1", "cell2", "cell3"];

fn deploy(system: &System, program: &str, directory: &Path) -> Output {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(program);
    let settings = ["DATABASE_URL", "SNAPSHOT_DIR", "BLOB_DIR"];
    let settings = system.environment().iter().filter(|(name, _)| settings.contains(&name.as_str()));
    let programs = format!("{}:{}", slow_dump(system).display(), std::env::var("PATH").unwrap());
    Command::new(path).arg(directory).envs(settings.cloned()).env("PATH", programs).output().unwrap()
}

/// A directory with a `pg_dump` that takes a second more, as those of large databases do, and says when it has seen all
/// that it will see.
fn slow_dump(system: &System) -> PathBuf {
    let programs = system.directory().join("programs");
    std::fs::create_dir_all(&programs).unwrap();
    let program = programs.join("pg_dump");
    let script =
        format!("#!/bin/sh\nPATH=${{PATH#*:}} pg_dump \"$@\" && touch {} && sleep 1\n", dumped(system).display());
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    programs
}

fn dumped(system: &System) -> PathBuf {
    system.directory().join("dumped")
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{output:?}");
}

/// Digests of all snapshots that clients see, by cell and name, as the rows have them.
fn listed(system: &System) -> BTreeMap<(String, String), String> {
    let rows = system.value(
        "SELECT coalesce(json_agg(json_build_array(c.name, e.base_name, encode(e.sha256, 'hex'))), '[]')
         FROM snapshot_entry e JOIN cell c ON c.id = e.cell_id WHERE e.kind = 'zip'",
    );
    let rows: Vec<(String, String, String)> = serde_json::from_str(&rows).unwrap();
    rows.into_iter().map(|(cell, name, digest)| ((cell, name), digest)).collect()
}

#[test]
fn a_backup_of_a_busy_installation_can_be_restored() {
    for program in ["pg_dump", "pg_restore", "psql"] {
        if Command::new(program).arg("--version").output().is_err() {
            return skipped("the programs of PostgreSQL are not here");
        }
    }
    let mut system = System::start();
    for cell in CELLS {
        let sample = system.sample(&["--name", cell]);
        succeeded(&system.load(cell, &sample, &["--cell-id", cell]));
    }
    let backup = system.directory().join("backup");
    let workers = [system.worker(), system.worker()];
    for cell in CELLS {
        system.export(cell, "before");
    }
    let ended = Stop::default();
    std::thread::scope(|scope| {
        let ending = ended.later();
        for cell in CELLS {
            let (system, ended, dump) = (&system, &ended, dumped(&system));
            scope.spawn(move || {
                for number in 0.. {
                    if ended.is_said() {
                        return;
                    }
                    system.post_export(cell, &format!("n{number}"));
                    std::thread::sleep(Duration::from_millis(150));
                }
            });
            // What clients remove between the dump and the copying of files is what a backup loses most easily.
            scope.spawn(move || {
                while !dump.exists() {
                    assert!(!ended.is_said(), "there was no dump");
                    std::thread::sleep(Duration::from_millis(1));
                }
                let removed = system.request("DELETE", &format!("/{cell}/__snapshot/before.zip"), &[], None);
                assert_eq!(removed.status, 204, "{}", removed.text());
            });
        }
        std::thread::sleep(Duration::from_secs(1));
        let output = deploy(&system, "backup", &backup);
        drop(ending);
        succeeded(&output);
    });
    let kept = system.directory().join("area");
    let hidden = std::fs::read_dir(&kept).unwrap().flatten().filter(|e| e.file_name().as_encoded_bytes()[0] == b'.');
    assert_eq!(hidden.count(), 0, "no links are left");
    drop(workers);
    drop(system.take_api());

    // Nothing is overwritten.
    let refused = deploy(&system, "restore", &backup);
    assert!(!refused.status.success());
    system.lose_everything();
    succeeded(&deploy(&system, "restore", &backup));
    let listed = listed(&system);
    let active = system.value("SELECT count(*) FROM job WHERE state IN ('queued', 'running')");
    println!("{} snapshots are listed, {active} jobs were under way", listed.len());
    for cell in CELLS {
        assert!(listed.contains_key(&(cell.to_owned(), "before".to_owned())), "removed after the dump");
    }
    succeeded(&process::run("api", &["migrate"], system.environment()));
    for (service, prefix) in [("api", "API_"), ("exporter-worker", "WORKER_")] {
        let report = process::run(service, &["doctor"], &system.service_environment(prefix));
        assert!(report.status.success(), "{}", String::from_utf8_lossy(&report.stdout));
    }

    let _api = system.service("api", &[], &[]);
    system.eventually("the api answers", || {
        system_tests::http::request(system.address, "OPTIONS", "/", &[], None).is_ok()
    });
    for ((cell, name), digest) in &listed {
        let file = system.download(cell, &format!("{name}.zip"));
        assert_eq!(hex::encode(Sha256::digest(std::fs::read(file).unwrap())), *digest, "{cell} {name}");
    }
    // Jobs that ran when the database was dumped are taken over, or end.
    let _worker = system.worker();
    let states = "SELECT count(*) FROM job WHERE state IN ('queued', 'running')";
    system.eventually("all jobs end", || system.value(states) == "0");
    assert_eq!(system.value("SELECT count(*) FROM job WHERE state = 'failed'"), "0");
    for cell in CELLS {
        system.export(cell, "after");
    }
}
