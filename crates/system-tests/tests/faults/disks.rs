//! Rows 20, 25 to 28, 38 to 40: disks that are full, broken, slow, or do not answer; views and contents meanwhile.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use system_tests::disks::Disk;
use system_tests::oracle::Expected;
use system_tests::strace::{self, Tampering};

use crate::bench::{Bench, cell};

/// The part files in the snapshot area.
fn parts(bench: &Bench) -> Vec<PathBuf> {
    let files = bench.system.stored_files().into_iter();
    files.filter(|path| path.extension().is_some_and(|e| e == "part")).collect()
}

/// The stored contents of a file of a cell.
fn contents(bench: &Bench, cell: &str, path: &str) -> PathBuf {
    let id = bench.system.value(&format!(
        "SELECT replace(blob_id::text, '-', '') FROM node JOIN cell USING (generation)
         WHERE cell.name = '{cell}' AND path LIKE '{path}'"
    ));
    bench.system.blobs().join(&id[..2]).join(&id)
}

fn big_cell(bench: &Bench, cell: &str, bytes: u64) {
    let file = bench.system.sample(&["--big", &bytes.to_string()]);
    let loaded = bench.system.load(cell, &file, &["--cell-id", cell, "--trusted"]);
    assert!(loaded.status.success(), "{loaded:?}");
    // Nothing of it can be compressed away.
    let contents = contents(bench, cell, "%/big.bin");
    let mut noise = vec![0; bytes as usize];
    fastrand::fill(&mut noise);
    std::fs::write(&contents, &noise).unwrap();
    let digest = hex::encode(<[u8; 32]>::from(<sha2::Sha256 as sha2::Digest>::digest(&noise)));
    let id = contents.file_name().unwrap().to_string_lossy().into_owned();
    bench.system.execute(&format!("UPDATE blob SET sha256 = decode('{digest}', 'hex') WHERE id = '{id}'"));
}

#[test]
fn row_20_slow_contents_take_their_time() {
    if !strace::works() {
        return;
    }
    let bench = Bench::start("row_20");
    big_cell(&bench, "slow", 6 << 20);
    let worker = bench.worker(&[]);
    // Half a mebibyte every 400 ms, by a lease of 3 s.
    let slow = contents(&bench, "slow", "%/big.bin");
    let _tampering = Tampering::with(&worker, &["preadv2:error=EAGAIN", "pread64:delay_enter=400000"], &[&slow]);
    bench.history.fault("slow reads");
    let begun = Instant::now();
    bench.accepted("slow", "one");
    bench.hurry_until("it is final", || bench.active() == 0);
    assert!(begun.elapsed() > Duration::from_secs(4), "it was not slow: {:?}", begun.elapsed());
    let verdict = bench.judge(&Expected::default());
    assert_eq!((verdict.zips, verdict.retried), (1, 0));
}

#[test]
fn row_25_a_full_disk_waits_for_space_and_lets_small_ones_pass() {
    let bench = Bench::start("row_25");
    let Some(disk) = Disk::mount(bench.system.area().parent().unwrap(), 8) else { return };
    bench.cells(2, &[]);
    big_cell(&bench, "big", 6 << 20);
    let _workers = [bench.worker(&[]), bench.worker(&[])];
    let filler = disk.fill(4 << 20);
    bench.history.fault("full");
    bench.accepted("big", "one");
    let full = || bench.job("one", "last_failure").contains("PR503-SV-0005");
    bench.system.eventually("there is no space for the big one", full);
    bench.accepted("c0", "small");
    bench.system.eventually("the small one ends", || bench.job("small", "state") == "succeeded");
    assert_eq!(bench.job("one", "strikes || ' ' || (state IN ('queued', 'running'))"), "0 true");
    // No room at all: what waits goes on waiting, and what is asked for now is refused.
    let rest = disk.fill(0);
    bench.system.eventually("it is tried again", || {
        bench.hurry();
        bench.job("one", "attempt").parse::<u32>().unwrap() > 2
    });
    bench
        .system
        .eventually("no part file is left", || bench.job("one", "state") == "queued" && parts(&bench).is_empty());
    let refused = bench.client.export("c1", "refused");
    assert_eq!(refused, system_tests::history::Told::Refused(503, "PR503-SV-0005".to_owned()));
    for file in [filler, rest] {
        std::fs::remove_file(file).unwrap();
    }
    let verdict = bench.judge(&Expected::default());
    assert_eq!((verdict.zips, verdict.retried), (2, 1));
    assert_eq!(bench.job("one", "strikes"), "0");
}

#[test]
fn row_26_a_disk_that_stays_full_ends_in_an_error_file() {
    let bench = Bench::start("row_26");
    let Some(disk) = Disk::mount(bench.system.area().parent().unwrap(), 8) else { return };
    big_cell(&bench, "big", 6 << 20);
    let _worker = bench.worker(&[]);
    let _filler = disk.fill(4 << 20);
    bench.history.fault("full");
    bench.accepted("big", "one");
    let full = || bench.job("one", "last_failure").contains("PR503-SV-0005");
    bench.system.eventually("there is no space", full);
    let _rest = disk.fill(0);
    bench.system.execute("UPDATE job SET deadline_at = clock_timestamp() + interval '4 seconds'");
    bench.hurry_until("its time is up", || bench.job("one", "state") == "failed");
    let verdict = bench.judge(&Expected { errors: &["PR503-SV-0005"], ..Expected::default() });
    assert_eq!((verdict.exports, verdict.zips), (1, 0));
}

/// A call that fails, how, and whether the attempt counts against the job: a full disk does not.
const CALLS: &[(&str, i64)] = &[
    ("mkdir:error=ENOSPC:when=1", 0),
    ("mkdir:error=EIO:when=1", 1),
    ("fsync:error=EIO:when=1", 1),
    ("fsync:error=ENOSPC:when=1", 0),
    ("fsync:error=EDQUOT:when=1", 0),
    // The directory, and the one above it.
    ("fsync:error=EIO:when=2", 1),
    ("fsync:error=EIO:when=3", 1),
    ("rename:error=EIO:when=1", 1),
    ("rename:error=ENOSPC:when=1", 0),
    ("statfs:error=EIO:when=1", 1),
];
/// The same, with the part file only.
const PART_CALLS: &[(&str, i64)] = &[
    ("write:error=ENOSPC:when=1", 0),
    ("write:error=EIO:when=1", 1),
    ("pwrite64:error=EIO:when=1", 1),
    ("lseek:error=EIO:when=1", 1),
    ("read:error=EIO:when=1", 1),
    ("read:error=EIO:when=3", 1),
];

#[test]
fn row_27_a_call_of_the_system_fails() {
    if !strace::works() {
        return;
    }
    let bench = Bench::start("row_27");
    // Something in it is long enough for its header to be written twice.
    let file = bench.system.sample(&["--big", "33554432"]);
    assert!(bench.system.load("c0", &file, &["--cell-id", "c0", "--trusted"]).status.success());
    let kill_at = ["rename:signal=KILL:when=1", "fsync:signal=KILL:when=2"];
    let killing = kill_at.iter().map(|call| (*call, 1));
    let calls = CALLS.iter().copied().chain(killing).map(|(call, strikes)| (call, strikes, false));
    let part_calls = PART_CALLS.iter().map(|(call, strikes)| (*call, *strikes, true));
    for (round, (call, strikes, of_part)) in calls.chain(part_calls).enumerate() {
        let name = format!("n{round}");
        let pause = if of_part { "export.part_made=stop" } else { "" };
        let mut victim = bench.worker(&[("FAILPOINT", pause), ("JOB_HEARTBEAT_SECS", "0.1")]);
        bench.system.eventually("it runs", || victim.log().contains("worker runs"));
        let tampering = if of_part {
            // It has made its part file, and waits for us.
            bench.accepted("c0", &name);
            bench.system.eventually("there is a part file", || victim.log().contains("failpoint"));
            // Earlier victims have left theirs.
            let job = bench.job(&name, "id");
            let part = parts(&bench).into_iter().find(|part| part.to_string_lossy().contains(&job)).unwrap();
            let tampering = Tampering::with(&victim, &[call], &[&part]);
            victim.signal("CONT");
            tampering
        } else {
            let tampering = Tampering::with(&victim, &[call], &[]);
            bench.accepted("c0", &name);
            tampering
        };
        bench.history.fault(call);
        let failed = || {
            bench.job(&name, "attempt > 1 OR last_failure IS NOT NULL OR state = 'queued' AND attempt = 1") == "true"
        };
        bench.system.eventually(call, || failed() || victim.has_ended());
        drop(tampering);
        assert!(!bench.system.files("c0").contains(&format!("{name}.zip")), "{call}");
        drop(victim);
        let _heir = bench.worker(&[]);
        bench.hurry_until("it is final", || bench.active() == 0);
        assert_eq!(
            bench.job(&name, "state::text || strikes"),
            format!("succeeded{strikes}"),
            "{call}: {}",
            bench.course(&name)
        );
    }
    let _worker = bench.worker(&[]);
    let verdict = bench.judge(&Expected::default());
    assert_eq!(verdict.zips, CALLS.len() + PART_CALLS.len() + kill_at.len());
}

#[test]
fn row_28_a_slow_disk_is_no_dead_worker() {
    if !strace::works() {
        return;
    }
    let bench = Bench::start("row_28");
    bench.cells(1, &[]);
    let worker = bench.worker(&[]);
    // Each of the three takes longer than the lease.
    let _tampering = Tampering::with(&worker, &["fsync:delay_enter=4000000"], &[]);
    bench.history.fault("slow fsync");
    bench.accepted("c0", "one");
    bench.hurry_until("it is final", || bench.active() == 0);
    let seconds = bench.job("one", "extract(epoch FROM finished_at - started_at)");
    assert!(seconds.parse::<f64>().unwrap() > 8.0, "it was not slow: {seconds}");
    let verdict = bench.judge(&Expected::default());
    assert_eq!((verdict.zips, verdict.retried), (1, 0));
}

#[test]
fn row_39_nothing_holds_the_database_while_contents_are_read() {
    if !strace::works() {
        return;
    }
    let bench = Bench::start("row_39");
    let file = bench.system.sample(&["--documents", "30000", "--big", "8388608"]);
    assert!(bench.system.load("c0", &file, &["--cell-id", "c0", "--trusted"]).status.success());
    let worker = bench.worker(&[]);
    let slow = contents(&bench, "c0", "%/big.bin");
    let _tampering = Tampering::with(&worker, &["preadv2:error=EAGAIN", "pread64:delay_enter=300000"], &[&slow]);
    bench.history.fault("slow reads");
    bench.accepted("c0", "one");
    let view = "SELECT coalesce(max(age(backend_xmin)), -1) FROM pg_stat_activity
                WHERE datname = current_database() AND application_name = 'cell-export reader'";
    let (mut held, mut free) = (Duration::ZERO, Duration::ZERO);
    bench.system.eventually("it is final", || {
        let looked = Instant::now();
        let is_held = bench.system.value(view) != "-1";
        std::thread::sleep(Duration::from_millis(10));
        *(if is_held { &mut held } else { &mut free }) += looked.elapsed();
        bench.active() == 0
    });
    println!("the view was held for {held:?}, and the export went on without it for {free:?}");
    assert!(free > Duration::from_secs(1) && free > held, "{held:?} {free:?}");
    assert!(worker.peak_memory() < 96 << 20, "{}", worker.peak_memory());
    let verdict = bench.judge(&Expected::default());
    assert_eq!((verdict.zips, verdict.retried), (1, 0));
}

#[test]
fn row_40_an_export_that_hangs_is_given_up_and_its_process_with_it() {
    let bench = Bench::start("row_40");
    bench.cells(2, &[]);
    let mut worker = bench.worker(&[("JOB_STALL_SECS", "2")]);
    // Contents on a mount that is dead: whoever opens them waits for ever.
    let dead = contents(&bench, "c1", "%/profile.txt");
    let alive = dead.with_extension("alive");
    std::fs::rename(&dead, &alive).unwrap();
    assert!(Command::new("mkfifo").arg(&dead).status().unwrap().success());
    bench.history.fault("an open that does not return");
    bench.accepted("c1", "one");
    let begun = Instant::now();
    assert_eq!(worker.wait(Duration::from_secs(30)), Some(70), "{}", worker.log());
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    std::fs::rename(&alive, &dead).unwrap();
    let _heir = bench.worker(&[]);
    bench.accepted(&cell(0), "other");
    let verdict = bench.judge(&Expected::default());
    assert_eq!((verdict.zips, verdict.retried), (2, 1));
}
