//! Judges of snapshots that are not ours: the independent checker, and other zip readers.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use zip::{ZipArchive, ZipWriter};

/// Says that a part of a test is skipped and why, past the capture of output: nothing is skipped silently.
pub fn skipped(what: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {what}");
}

/// A file that comes with the reference material, when it is there.
pub fn shared(path: &str) -> Option<PathBuf> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared").join(path);
    file.exists().then_some(file)
}

/// A copy without `99_integrity.json`, the one entry that the independent checker does not know; every other entry is
/// copied as it is, compressed bytes and headers included.
pub fn without_integrity(snapshot: &Path) -> PathBuf {
    let copy = snapshot.with_extension("plain.zip");
    let mut from = ZipArchive::new(File::open(snapshot).expect("the snapshot")).expect("a zip");
    let mut to = ZipWriter::new(File::create(&copy).expect("a copy"));
    for index in 0..from.len() {
        let entry = from.by_index_raw(index).expect("an entry");
        if entry.name_raw() != model::layout::INTEGRITY.as_bytes() {
            to.raw_copy_file(entry).expect("copied");
        }
    }
    to.finish().expect("a zip");
    copy
}

/// Asks the checker about a snapshot; its faults and its digest.
pub fn check(snapshot: &Path) -> Option<serde_json::Value> {
    let checker = shared("tools/check_snapshot.py")?;
    let output = Command::new("python3").arg(checker).arg("--json").arg(snapshot).output().ok()?;
    Some(serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("checker: {output:?}")))
}

/// Asks the checker whether a snapshot is a faithful one of a cell that may itself have faults; whether it accepts it.
pub fn accepts_leniently(snapshot: &Path) -> Option<bool> {
    let checker = shared("tools/check_snapshot.py")?;
    let output = Command::new("python3").arg(checker).arg("--lenient").arg(snapshot).output().ok()?;
    Some(output.status.success())
}

/// Asks the checker whether two snapshots are logically equal; its words.
pub fn compare(one: &Path, other: &Path) -> Option<String> {
    let checker = shared("tools/check_snapshot.py")?;
    let output = Command::new("python3").arg(checker).arg("--compare").arg(one).arg(other).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs a program; `None` when it is not installed, otherwise whether it succeeded, and its output.
pub fn program(name: &str, arguments: &[&str]) -> Option<(bool, String)> {
    let output = Command::new(name).args(arguments).env("LC_ALL", "C.UTF-8").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Some((output.status.success(), text))
}
