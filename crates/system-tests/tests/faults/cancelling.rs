//! Cancellation, whatever a job is doing: heard within two seconds, and told in its own words.

use std::process::Command;
use std::time::Duration;

use model::cell::CellId;
use model::store::jobs::{self, Cancelling};
use system_tests::oracle::Expected;
use uuid::Uuid;

use crate::bench::Bench;

/// Where the thread that writes the snapshot hangs for longer than anybody would wait.
const HANGING: &[&str] = &[
    // Documents are being read: the view is open.
    "export.part_made=sleep-6000",
    "export.piece_written:6=sleep-6000",
    // Contents.
    "export.piece_written:30=sleep-6000",
    // Proving.
    "export.zip_finished=sleep-6000",
    "export.proved=sleep-6000",
    // Making it durable.
    "area.before_fsync=sleep-6000",
    "area.before_rename=sleep-6000",
    "area.after_rename=sleep-6000",
    "export.durable=sleep-6000",
];
/// Where the task of the attempt itself is busy for a moment.
const BUSY: &[&str] =
    &["export.view_opened=sleep-700", "export.view_closed=sleep-700", "worker.before_settling=sleep-700"];

fn cancel(bench: &Bench, cell: &str, name: &str) -> Cancelling {
    let job: Uuid = bench.job(name, "id").parse().unwrap();
    bench.history.fault("cancel");
    bench.system.block_on(async {
        let mut connection = bench.system.pool().acquire().await.unwrap();
        let cell = CellId::parse(&format!("id-{cell}")).unwrap();
        jobs::cancel(&mut connection, &cell, job).await.unwrap()
    })
}

/// Cancels, and says how long it took in seconds of the database.
fn cancel_and_wait(bench: &Bench, cell: &str, name: &str) -> f64 {
    let now = bench.system.value("SELECT clock_timestamp()");
    let told = cancel(bench, cell, name);
    assert!(matches!(told, Cancelling::Cancelled | Cancelling::Requested), "{name}: {told:?}");
    bench.system.eventually("it is cancelled", || bench.job(name, "state") == "cancelled");
    let files = bench.system.files(cell);
    assert!(files.contains(&format!("{name}.error")), "{files:?}");
    let error = bench.system.request("GET", &format!("/{cell}/__snapshot/{name}.error"), &[], None);
    assert_eq!((error.code().as_str(), error.message().as_str()), ("PR409-EX-0001", "The export was cancelled."));
    bench.job(name, &format!("extract(epoch FROM finished_at - '{now}'::timestamptz)")).parse().unwrap()
}

/// The machine of a test may be busy: one of three times has to be as promised.
fn is_heard(what: &str, mut times: impl FnMut(usize) -> f64) {
    let mut all = Vec::new();
    for number in 0..3 {
        all.push(times(number));
        if all[number] < 2.0 {
            return;
        }
    }
    panic!("{what}: {all:?} seconds");
}

#[test]
fn a_cancellation_is_heard_in_every_state_of_an_export() {
    let bench = Bench::start("cancelling");
    bench.cells(2, &[]);
    is_heard("queued", |number| {
        let name = format!("queued{number}");
        bench.accepted("c0", &name);
        cancel_and_wait(&bench, "c0", &name)
    });
    for (round, point) in HANGING.iter().chain(BUSY).enumerate() {
        is_heard(point, |number| {
            let name = format!("r{round}-{number}");
            let worker = bench.worker(&[("FAILPOINT", point)]);
            bench.accepted("c0", &name);
            bench.system.eventually(point, || worker.log().contains("failpoint"));
            cancel_and_wait(&bench, "c0", &name)
        });
    }
    // Contents on a dead mount: the open does not return.
    is_heard("opening contents", |number| {
        let id = bench.system.value(
            "SELECT replace(blob_id::text, '-', '') FROM node JOIN cell USING (generation)
             WHERE cell.name = 'c1' AND path = '__/profile.txt'",
        );
        let dead = bench.system.blobs().join(&id[..2]).join(&id);
        std::fs::rename(&dead, dead.with_extension("alive")).unwrap();
        assert!(Command::new("mkfifo").arg(&dead).status().unwrap().success());
        let name = format!("contents{number}");
        let worker = bench.worker(&[]);
        bench.accepted("c1", &name);
        bench.system.eventually("it begins", || worker.log().contains("job begins"));
        std::thread::sleep(Duration::from_millis(800));
        let took = cancel_and_wait(&bench, "c1", &name);
        std::fs::rename(dead.with_extension("alive"), &dead).unwrap();
        took
    });
    // Between two attempts.
    is_heard("waiting for another attempt", |number| {
        let name = format!("again{number}");
        let blobs = bench.system.blobs();
        std::fs::rename(&blobs, blobs.with_extension("away")).unwrap();
        let worker = bench.worker(&[]);
        bench.accepted("c0", &name);
        bench.system.eventually("it is given back", || !bench.job(&name, "last_failure").is_empty());
        drop(worker);
        std::fs::remove_dir_all(&blobs).unwrap_or_default();
        std::fs::rename(blobs.with_extension("away"), &blobs).unwrap();
        // Its lease, if that worker had begun it again.
        bench.system.eventually("it is queued", || bench.job(&name, "state") == "queued");
        cancel_and_wait(&bench, "c0", &name)
    });
    let _worker = bench.worker(&[]);
    bench.accepted("c0", "after");
    let verdict = bench.judge(&Expected { errors: &["PR409-EX-0001"], ..Expected::default() });
    assert_eq!(verdict.zips, 1);
}

#[test]
fn a_cancelled_import_changes_nothing() {
    let bench = Bench::start("cancelling_imports");
    let mut ledgers = bench.cells(1, &[]);
    let worker = bench.worker(&[]);
    bench.exported("c0", "before");
    drop(worker);
    ledgers[0].change(&bench.system).unwrap();
    let count = system_tests::ledger::stored(&bench.system, "c0").unwrap();
    let points = ["import.begun=sleep-700", "import.batch_stored:2=sleep-700", "import.staged=sleep-700"];
    for point in points {
        is_heard(point, |_| {
            let worker = bench.worker(&[("FAILPOINT", point)]);
            bench.ordered(|| bench.client.import("c0", "before"));
            bench.system.eventually(point, || worker.log().contains("failpoint"));
            let now = bench.system.value("SELECT clock_timestamp()");
            assert_eq!(cancel(&bench, "c0", "before"), Cancelling::Requested);
            bench.system.eventually("it is cancelled", || bench.job("before", "state") == "cancelled");
            let status = bench.system.request("GET", "/c0/__import", &[], None).text();
            assert!(status.contains("PR409-EX-0001"), "{status}");
            assert_eq!(system_tests::ledger::stored(&bench.system, "c0").unwrap(), count);
            bench.job("before", &format!("extract(epoch FROM finished_at - '{now}'::timestamptz)")).parse().unwrap()
        });
    }
    let _worker = bench.worker(&[]);
    bench.judge(&Expected { patience: Duration::from_secs(30), ..Expected::default() });
}
