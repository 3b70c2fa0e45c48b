//! Rows 1, 2, 13 to 17: processes that die or freeze between any two steps.

use std::time::Duration;

use system_tests::history::Told;
use system_tests::judge::skipped;
use system_tests::ledger;
use system_tests::oracle::Expected;
use system_tests::process::{self, Process};
use system_tests::system::within;

use crate::bench::{Bench, cell};
use crate::buckets::BUCKET;

/// Where a worker can die while it exports, in order.
pub(crate) const EXPORT: &[&str] = &[
    "worker.after_claim",
    "export.view_opened",
    "export.part_made",
    "export.piece_written:9",
    "export.view_closed",
    "export.piece_written:30",
    "export.zip_finished",
    "export.proved",
    "area.before_fsync",
    "area.before_rename",
    "area.after_rename",
    "export.durable",
    "worker.before_settling",
    "job.before_success",
    "job.after_success",
];
/// And while it imports.
pub(crate) const IMPORT: &[&str] = &[
    "import.begun",
    "import.batch_stored",
    "import.batch_stored:4",
    "import.staged",
    "job.before_import",
    "job.after_import",
    "discard.documents_gone",
];
/// And where it hears of a job.
const BELL: &[&str] = &["worker.after_delivery", "worker.after_claim", "worker.after_ack"];
/// Where the api can die while it takes an upload.
const UPLOAD: &[&str] = &["area.before_fsync", "area.before_rename", "area.after_rename"];
/// The rest, each with a test of its own below.
const OTHERS: &[&str] = &[
    "api.after_commit",
    "api.before_answer",
    "job.before_accepting",
    "doorbell.before_publish",
    "doorbell.after_publish",
    "job.before_failure",
    "job.after_failure",
    "job.after_requeue",
    "reaper.before_commit",
    "sweeper.unlinked",
];

#[test]
fn every_point_of_the_services_is_part_of_the_suite() {
    let known: Vec<&str> = [EXPORT, IMPORT, BELL, UPLOAD, BUCKET, OTHERS].concat();
    let known: Vec<&str> = known.into_iter().map(name_of).collect();
    let mut found = Vec::new();
    for service in ["model", "api", "exporter-worker"] {
        sources(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(service).join("src"), &mut |text| {
            let points = text.split("failpoint::reached(\"").skip(1).filter_map(|rest| rest.split('"').next());
            found.extend(points.map(str::to_owned));
        });
    }
    for point in &found {
        assert!(known.contains(&point.as_str()), "{point} is in no test");
    }
    for point in known {
        assert!(found.iter().any(|f| f == point), "{point} is in no service");
    }
}

fn sources(directory: &std::path::Path, read: &mut impl FnMut(&str)) {
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        match entry.path().is_dir() {
            true => sources(&entry.path(), read),
            false => read(&std::fs::read_to_string(entry.path()).unwrap()),
        }
    }
}

fn name_of(point: &str) -> &str {
    point.split(':').next().unwrap()
}

fn died_at(victim: &Process, point: &str) {
    let words = format!("failpoint {}", name_of(point));
    assert!(victim.log().contains(&words), "{point}: {}", victim.log());
}

#[test]
fn row_01_the_api_dies_after_the_commit() {
    let mut bench = Bench::start("row_01");
    bench.cells(1, &[]);
    drop(bench.system.take_api());
    // Found by polling; and, by a worker that hardly polls, through its own relay.
    for (poll, longest) in [("1", 3.0), ("600", 7.0)] {
        let worker = bench.worker(&[("JOB_POLL_SECS", poll)]);
        for point in ["job.before_accepting", "api.after_commit"] {
            let mut api = bench.api(&[("FAILPOINT", point)]);
            bench.history.fault(point);
            let name = format!("{}-{poll}", point.replace('.', "-"));
            assert_eq!(bench.client.export(&cell(0), &name), Told::Nothing);
            api.wait(Duration::from_secs(5));
            died_at(&api, point);
            let jobs = bench.system.value(&format!("SELECT count(*) FROM job WHERE name = '{name}'"));
            assert_eq!(jobs, if point == "api.after_commit" { "1" } else { "0" });
            if jobs == "1" {
                bench.system.eventually("it ends", || bench.job(&name, "state") == "succeeded");
                let waited: f64 = bench.job(&name, "extract(epoch FROM started_at - accepted_at)").parse().unwrap();
                assert!(waited < longest, "polling every {poll} s: {waited} s");
            }
        }
        drop(worker);
    }
    let _all = (bench.api(&[]), bench.worker(&[]));
    assert_eq!(bench.judge(&Expected::default()).zips, 2);
}

#[test]
fn row_02_the_api_dies_before_it_answers() {
    let mut bench = Bench::start("row_02");
    bench.cells(1, &[]);
    drop(bench.system.take_api());
    for round in 0..3 {
        let mut api = bench.api(&[("FAILPOINT", "api.before_answer")]);
        bench.history.fault("api.before_answer");
        let name = format!("n{round}");
        assert_eq!(bench.client.export("c0", &name), Told::Nothing);
        api.wait(Duration::from_secs(5));
        let api = bench.api(&[]);
        // The client tries again: the first one was accepted, and runs or has run.
        assert!(matches!(bench.client.export("c0", &name), Told::Refused(409, _)));
        let worker = bench.worker(&[]);
        bench.system.wait_ready("c0");
        assert!(matches!(bench.client.export("c0", &name), Told::Refused(409, _)));
        assert_eq!(bench.system.value(&format!("SELECT count(*) FROM job WHERE name = '{name}'")), "1");
        drop((api, worker));
    }
    let _all = (bench.api(&[]), bench.worker(&[]));
    assert_eq!(bench.judge(&Expected::default()).zips, 3);
}

/// All points at once, each with its own victim, over and over: what one leaves behind another one finds.
#[test]
fn row_13_a_worker_dies_at_every_step_of_an_export() {
    let bench = Bench::start("row_13_export");
    let mut ledgers = bench.cells(EXPORT.len(), &[]);
    bench.while_changing(&mut ledgers, || {
        for round in 0..3 {
            for number in 0..EXPORT.len() {
                bench.accepted(&cell(number), &format!("r{round}"));
            }
            let mut victims: Vec<_> = EXPORT.iter().map(|point| (point, bench.worker_failing(point, &[]))).collect();
            for (point, victim) in &mut victims {
                bench.hurry_until(point, || victim.has_ended());
                died_at(victim, point);
            }
            let _heir = bench.worker(&[]);
            bench.hurry_until("all are final", || bench.active() == 0);
        }
    });
    let _worker = bench.worker(&[]);
    let verdict = bench.judge(&Expected::default());
    assert_eq!((verdict.exports, verdict.zips), (3 * EXPORT.len(), 3 * EXPORT.len()));
    // A job whose worker died after T5 is done.
    assert!(verdict.retried >= 2 * EXPORT.len(), "{verdict:?}");
}

#[test]
fn row_13_a_worker_dies_around_its_doorbell() {
    let mut bench = Bench::start("row_13_bell");
    bench.cells(1, &[]);
    let broker = bench.system.broker();
    let mut done = [0; BELL.len()];
    for (round, point) in BELL.iter().cycle().take(20 * BELL.len()).enumerate() {
        if done[round % BELL.len()] == 3 {
            continue;
        }
        let mut victim = bench.worker_failing(point, &[("JOB_POLL_SECS", "600")]);
        // Now and then a victim dies of a doorbell that an earlier one left behind.
        bench.system.eventually("it listens", || bench.system.block_on(broker.waiting()).1 == 1 || victim.has_ended());
        if victim.has_ended() {
            continue;
        }
        bench.accepted("c0", &format!("n{round}"));
        bench.hurry_until(point, || victim.has_ended());
        died_at(&victim, point);
        let _heir = bench.worker(&[]);
        bench.hurry_until("it is final", || bench.active() == 0);
        let attempts: usize = bench.job(&format!("n{round}"), "attempt").parse().unwrap();
        done[round % BELL.len()] += usize::from(*point == "worker.after_delivery" || attempts > 1);
    }
    assert_eq!(done, [3; BELL.len()]);
    // And the one that rings.
    drop(bench.system.take_api());
    for (round, point) in ["doorbell.before_publish", "doorbell.after_publish"].iter().cycle().take(6).enumerate() {
        let mut api = bench.api(&[("FAILPOINT", point)]);
        bench.history.fault(point);
        // It was accepted; whether the client hears of it is a matter of luck.
        let _ = bench.client.export("c0", &format!("ring{round}"));
        api.wait(Duration::from_secs(10));
        died_at(&api, point);
        let _heir = bench.worker(&[]);
        bench.hurry_until("it is final", || bench.active() == 0);
    }
    let _all = (bench.api(&[]), bench.worker(&[]));
    let verdict = bench.judge(&Expected::default());
    assert_eq!(verdict.zips, verdict.exports);
}

#[test]
fn row_13_a_worker_dies_at_every_step_of_an_import() {
    let bench = Bench::start("row_13_import");
    let mut ledgers = bench.cells(IMPORT.len(), &[]);
    let worker = bench.worker(&[]);
    for number in 0..IMPORT.len() {
        bench.accepted(&cell(number), "before");
    }
    bench.hurry_until("all are exported", || bench.active() == 0);
    drop(worker);
    let snapshots: Vec<_> =
        (0..IMPORT.len()).map(|number| bench.system.download(&cell(number), "before.zip")).collect();
    let kept: Vec<i64> = snapshots.iter().map(|file| ledger::read(file).unwrap().unwrap()).collect();
    for round in 0..3 {
        for (number, ledger) in ledgers.iter_mut().enumerate() {
            ledger.change(&bench.system).unwrap();
            assert!(ledger::stored(&bench.system, &cell(number)).unwrap() > kept[number]);
            bench.ordered(|| bench.client.import(&cell(number), "before"));
        }
        let mut victims: Vec<_> = IMPORT.iter().map(|point| (point, bench.worker_failing(point, &[]))).collect();
        let (rest, discarding) = victims.split_at_mut(IMPORT.len() - 1);
        for (point, victim) in rest {
            bench.hurry_until(point, || victim.has_ended());
            died_at(victim, point);
        }
        // Whatever died where: what the cells name is one thing, the old or the new.
        for number in 0..IMPORT.len() {
            ledger::stored(&bench.system, &cell(number)).unwrap();
        }
        let _heir = bench.worker(&[]);
        let (point, victim) = &mut discarding[0];
        bench.hurry_until(point, || victim.has_ended());
        died_at(victim, point);
        bench.hurry_until("all are final", || bench.active() == 0);
        for (number, kept) in kept.iter().enumerate() {
            assert_eq!(ledger::stored(&bench.system, &cell(number)).unwrap(), *kept, "round {round}, {}", cell(number));
        }
    }
    assert_eq!(bench.system.value("SELECT count(*) FROM job WHERE kind = 'import' AND state <> 'succeeded'"), "0");
    let _worker = bench.worker(&[]);
    bench.judge(&Expected::default());
}

#[test]
fn row_13_a_worker_dies_while_it_says_that_it_failed() {
    let bench = Bench::start("row_13_failure");
    bench.cells(1, &[]);
    let broken = "UPDATE node SET pmeta = '{' || pmeta WHERE path = ''";
    let mended = "UPDATE node SET pmeta = substr(pmeta, 2) WHERE path = ''";
    for round in 0..3 {
        bench.system.execute(broken);
        for point in ["job.before_failure", "job.after_failure"] {
            let name = format!("{}-{round}", point.replace('.', "-"));
            let mut victim = bench.worker_failing(point, &[]);
            bench.accepted("c0", &name);
            bench.hurry_until(point, || victim.has_ended());
            died_at(&victim, point);
            let _heir = bench.worker(&[]);
            bench.hurry_until("it is final", || bench.active() == 0);
            assert_eq!(
                bench.job(&name, "state::text || attempt"),
                if point == "job.before_failure" { "failed2" } else { "failed1" }
            );
        }
        bench.system.execute(mended);
        // Contents that cannot be had: the attempt gives the job back, and dies.
        let blobs = bench.system.blobs();
        std::fs::rename(&blobs, blobs.with_extension("away")).unwrap();
        let mut victim = bench.worker_failing("job.after_requeue", &[]);
        bench.accepted("c0", &format!("requeued-{round}"));
        bench.hurry_until("job.after_requeue", || victim.has_ended());
        died_at(&victim, "job.after_requeue");
        std::fs::remove_dir_all(&blobs).unwrap_or_default();
        std::fs::rename(blobs.with_extension("away"), &blobs).unwrap();
        let _heir = bench.worker(&[]);
        bench.hurry_until("it is final", || bench.active() == 0);
        assert_eq!(bench.job(&format!("requeued-{round}"), "state::text || strikes"), "succeeded1");
    }
    let _worker = bench.worker(&[]);
    let verdict = bench.judge(&Expected { errors: &["PR500-DV-0002"], ..Expected::default() });
    assert_eq!((verdict.exports, verdict.zips), (9, 3));
}

#[test]
fn row_13_a_reaper_and_a_sweeper_die_at_work() {
    let mut bench = Bench::start("row_13_reaper");
    bench.cells(1, &[]);
    drop(bench.system.take_api());
    for round in 0..3 {
        let mut api = bench.api(&[("FAILPOINT", "reaper.before_commit")]);
        bench.accepted("c0", &format!("n{round}"));
        // With a part file, so that the sweeper has something to do.
        let mut victim = bench.worker_failing("export.zip_finished", &[]);
        bench.hurry_until("the worker dies", || victim.has_ended());
        bench.history.fault("reaper.before_commit");
        bench.system.eventually("the reaper dies", || api.has_ended());
        died_at(&api, "reaper.before_commit");
        assert_eq!(bench.job(&format!("n{round}"), "state::text || attempt"), "running1", "nothing was done");
        let _heir = bench.worker(&[]);
        bench.hurry_until("it is final", || bench.active() == 0);
    }
    let _all = (bench.api(&[]), bench.worker(&[]));
    let mut environment = bench.system.service_environment("WORKER_");
    environment.push(("FAILPOINT".to_owned(), "sweeper.unlinked".to_owned()));
    for left in [2, 1, 0] {
        bench.history.fault("sweeper.unlinked");
        let swept = process::run("examples/sweep", &["0", "86400"], &environment);
        assert_eq!(swept.status.code(), None, "it was killed: {swept:?}");
        assert_eq!(bench.system.stored().iter().filter(|name| name.ends_with(".part")).count(), left);
    }
    assert_eq!(bench.judge(&Expected::default()).zips, 3);
}

#[test]
fn row_13_the_api_dies_while_it_takes_an_upload() {
    let mut bench = Bench::start("row_13_upload");
    bench.cells(1, &[]);
    let worker = bench.worker(&[]);
    let snapshot = std::fs::read(bench.exported("c0", "original")).unwrap();
    drop(bench.system.take_api());
    for (round, point) in UPLOAD.iter().cycle().take(3 * UPLOAD.len()).enumerate() {
        let name = format!("put{round}");
        let mut api = bench.api(&[("FAILPOINT", point)]);
        bench.history.fault(point);
        assert_eq!(bench.client.put("c0", &name, &snapshot), Told::Nothing);
        api.wait(Duration::from_secs(5));
        died_at(&api, point);
        let _api = bench.api(&[]);
        assert!(!bench.system.files("c0").contains(&format!("{name}.zip")), "{point}");
        assert_eq!(bench.client.put("c0", &name, &snapshot), Told::Done(201), "the client tries again");
    }
    let _all = (bench.api(&[]), worker);
    assert_eq!(bench.judge(&Expected::default()).zips, 10);
}

#[test]
fn row_14_a_job_that_kills_every_worker_is_given_up() {
    let bench = Bench::start("row_14");
    bench.cells(2, &[]);
    bench.accepted("c0", "poison");
    for attempt in 1..=4 {
        let mut victim = bench.worker_failing("export.piece_written:5", &[]);
        bench.hurry_until("it dies", || victim.has_ended());
        assert_eq!(bench.job("poison", "attempt"), attempt.to_string());
        bench.system.eventually("it is reaped", || bench.job("poison", "state") != "running");
    }
    assert_eq!(bench.job("poison", "state"), "failed");
    let _worker = bench.worker(&[]);
    bench.accepted("c1", "fine");
    bench.accepted("c0", "again");
    let verdict = bench.judge(&Expected { errors: &["PR503-EX-0001"], ..Expected::default() });
    assert_eq!((verdict.exports, verdict.zips), (3, 2));
}

#[test]
fn row_15_a_worker_that_runs_out_of_memory_takes_no_other_cell_with_it() {
    let prlimit = "/usr/bin/prlimit";
    if !std::path::Path::new(prlimit).exists() {
        return skipped("prlimit is not here");
    }
    let bench = Bench::start("row_15");
    bench.cells(4, &[]);
    let file = bench.system.sample(&["--big", "268435456"]);
    assert!(bench.system.load("greedy", &file, &["--cell-id", "greedy", "--trusted"]).status.success());
    bench.accepted("greedy", "poison");
    for number in 0..4 {
        bench.accepted(&cell(number), "one");
    }
    // Many more pieces than all the other cells have together: only the greedy one comes so far.
    let settings = [("FAILPOINT", "export.piece_written:600=allocate")];
    let under = [prlimit, "--as=1500000000"];
    let mut rounds = 0;
    while bench.active() > 0 {
        rounds += 1;
        assert!(rounds <= 6, "it is not given up");
        bench.history.fault("allocate");
        let mut victim = bench.system.service("exporter-worker", &settings, &under);
        bench.hurry_until("it dies", || victim.has_ended() || bench.active() == 0);
        if bench.active() > 0 {
            assert!(victim.log().contains("memory allocation of"), "{}", victim.log());
        }
        bench.system.eventually("it is reaped", || {
            bench.system.value("SELECT count(*) FROM job WHERE state = 'running'") == "0"
        });
    }
    let _worker = bench.worker(&[]);
    let verdict = bench.judge(&Expected { errors: &["PR503-EX-0001"], ..Expected::default() });
    assert_eq!((verdict.exports, verdict.zips, verdict.retried), (5, 4, 1));
}

#[test]
fn row_16_a_frozen_worker_that_wakes_up_changes_nothing() {
    // The last one freezes within a transaction that holds the job's row: until the server ends its session, after 15
    // seconds, nobody can take the job.
    const POINTS: &[&str] = &[
        "worker.after_claim",
        "export.view_opened",
        "export.piece_written:9",
        "export.view_closed",
        "area.before_fsync",
        "area.before_rename",
        "area.after_rename",
        "worker.before_settling",
        "job.before_success",
    ];
    let bench = Bench::start("row_16");
    bench.cells(POINTS.len(), &[]);
    let zombies: Vec<_> = POINTS
        .iter()
        .map(|point| {
            let zombie = bench.worker_failing(&format!("{point}=stop"), &[]);
            (point, zombie)
        })
        .collect();
    for number in 0..POINTS.len() {
        bench.accepted(&cell(number), "one");
    }
    for (point, zombie) in &zombies {
        bench.hurry_until(point, || zombie.log().contains("failpoint"));
    }
    let _heir = bench.worker(&[]);
    bench.hurry_until("the heir has done them all", || bench.active() == 0);
    assert_eq!(
        bench.system.value("SELECT count(*) FROM job WHERE attempt = 2 AND state = 'succeeded'"),
        POINTS.len().to_string()
    );
    let digests = || {
        let entries = "SELECT string_agg(base_name || blob_key || encode(sha256, 'hex') || modified_at, ' ' ORDER BY cell_id) FROM snapshot_entry";
        bench.system.value(entries)
    };
    let before = digests();
    for (_, zombie) in &zombies {
        zombie.signal("CONT");
    }
    for (point, zombie) in &zombies {
        // The last one has lost its connection with its transaction, and its lease with the time.
        let words = ["taken over", "another attempt", "leaving the job to its lease"];
        let gave_up = || words.iter().any(|words| zombie.log().contains(words));
        assert!(within(Duration::from_secs(20), gave_up), "{point}: {}", zombie.log());
        assert!(!zombie.log().contains("job ends"), "{point}: {}", zombie.log());
    }
    assert!(!within(Duration::from_secs(3), || digests() != before), "a zombie changed something");
    let verdict = bench.judge(&Expected::default());
    assert_eq!(verdict.retried, POINTS.len());
}

#[test]
fn row_17_of_two_workers_at_one_job_one_wins() {
    let bench = Bench::start("row_17");
    bench.cells(4, &[]);
    for round in 0..3 {
        let slow = bench.worker_failing("export.zip_finished:1+=sleep-1500", &[("WORKER_SLOTS", "4")]);
        for number in 0..4 {
            bench.accepted(&cell(number), &format!("r{round}"));
        }
        let finished = || slow.log().matches("failpoint export.zip_finished").count() == 4;
        bench.system.eventually("all four run", finished);
        let _other = bench.worker(&[("WORKER_SLOTS", "4")]);
        bench.history.fault("lease_until");
        // Renewed by every heartbeat, until a reaper comes between.
        bench.hurry_until("all have been taken over", || {
            bench.system.execute("UPDATE job SET lease_until = clock_timestamp() - interval '1 second' WHERE state = 'running' AND attempt = 1");
            bench.system.value("SELECT count(*) FROM job WHERE state IN ('queued', 'running') AND attempt < 2") == "0"
        });
        bench.hurry_until("all are final", || bench.active() == 0);
    }
    let _worker = bench.worker(&[]);
    let verdict = bench.judge(&Expected::default());
    assert_eq!((verdict.exports, verdict.zips), (12, 12));
    assert!(verdict.retried > 0, "nobody was forced");
}
