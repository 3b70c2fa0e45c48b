//! B5 to B7: exports of files.

use std::fs::File;
use std::path::{Path, PathBuf};

use zip::ZipArchive;

use crate::bench::{Bench, size};
use crate::measure::{Side, in_turns};
use crate::report::{Line, Report, mb, s};
use crate::shell;

/// The cell with many small files.
pub(crate) fn cell_of_files(bench: &mut Bench) -> String {
    let name = "files".to_owned();
    let count = bench.sizes.files.to_string();
    bench.cell(&name, &["--files", &count]);
    name
}

/// Unpacks a snapshot: a tree with exactly what the snapshot holds.
fn unpack(snapshot: &Path, tree: &Path) {
    let mut archive = ZipArchive::new(File::open(snapshot).expect("a snapshot")).expect("an archive");
    archive.extract(tree).expect("a tree");
}

/// Unpacks a new export of a cell.
pub(crate) fn tree_of(bench: &mut Bench, cell: &str) -> PathBuf {
    let tree = bench.directory().join(format!("tree-{cell}"));
    let export = bench.export(cell);
    unpack(&export.file, &tree);
    bench.remove(cell, &export);
    rustix::fs::sync();
    tree
}

/// B5: many small files.
pub(crate) fn small(bench: &mut Bench, report: &mut Report) {
    let cell = cell_of_files(bench);
    let tree = tree_of(bench, &cell);
    let archive = bench.directory().join("bench.zip");
    bench.fresh(1);
    let (rounds, mut ours_size, mut zip_size) = (bench.rounds, 0, 0);
    let ours: Side<'_> = (
        "export",
        Box::new(|| {
            let (seconds, size) = bench.timed_export(&cell);
            ours_size = size;
            seconds
        }),
    );
    let zip: Side<'_> = (
        "zip -1 -r",
        Box::new(|| {
            let _ = std::fs::remove_file(&archive);
            let seconds = shell::run("zip -1 -q -r ../bench.zip .", &[], &tree);
            zip_size = size(&archive);
            seconds
        }),
    );
    let [ours, zip] = in_turns(rounds, [ours, zip]).map(|t| t.median());
    report.add(Line {
        row: "B5",
        work: format!("export of {} files of 2 to 20 KB", bench.sizes.files),
        ours: format!("{}, {}", s(ours), mb(ours_size)),
        other: format!("`zip -1 -r`: {}, {}", s(zip), mb(zip_size)),
        ratio: format!("{:.2} × faster", zip / ours),
        goal: "≥ 3 × faster",
        met: Some(zip / ours >= 3.0),
    });
    std::fs::remove_file(&archive).expect("the file was made");
    std::fs::remove_dir_all(&tree).expect("the tree was made");
}

/// B6: a few large contents that cannot be compressed.
pub(crate) fn large(bench: &mut Bench, report: &mut Report) {
    let (count, length) = bench.sizes.large;
    let cell = bench.large();
    let generation = bench.generation(&cell);
    let blobs = bench.system.value(&format!(
        "SELECT string_agg(left(replace(id::text, '-', ''), 2) || '/' || replace(id::text, '-', ''), ' ') FROM blob \
         WHERE generation = '{generation}' AND size = {length}"
    ));
    assert_eq!(blobs.split(' ').count() as u64, count, "all contents are stored");
    let (source, target) = (bench.system.blobs(), bench.directory().join("copies"));
    bench.fresh(1);
    let rounds = bench.rounds;
    let ours: Side<'_> = ("export", Box::new(|| bench.timed_export(&cell).0));
    let variables = [("BLOBS", blobs.as_str()), ("TARGET", target.to_str().expect("a path in UTF-8"))];
    let copy: Side<'_> = (
        "cp + fsync",
        Box::new(|| {
            std::fs::create_dir(&target).expect("a new directory");
            let seconds = shell::run(r#"cp $BLOBS "$TARGET" && sync "$TARGET"/* "$TARGET""#, &variables, &source);
            std::fs::remove_dir_all(&target).expect("the directory was made");
            seconds
        }),
    );
    let [ours, copy] = in_turns(rounds, [ours, copy]).map(|t| t.median());
    let rate = |seconds: f64| format!("{} ({:.0} MB/s)", s(seconds), (count * length) as f64 / seconds / 1e6);
    report.add(Line {
        row: "B6",
        work: format!("export of {count} contents of {}, incompressible", mb(length)),
        ours: rate(ours),
        other: format!("`cp` + `fsync`: {}", rate(copy)),
        ratio: format!("{:.2}", ours / copy),
        goal: "≤ 1.3",
        met: Some(ours / copy <= 1.3),
    });
}
