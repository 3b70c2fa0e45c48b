//! B7: files of all sorts, most of them packed already.

use std::cell::Cell;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;

use model::layout;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::bench::{Bench, Export, size};
use crate::files;
use crate::measure::{Side, in_turns, seconds};
use crate::report::{Line, Report, mb, s};
use crate::shell;

/// B7: are contents that do not shrink recognised, and what does that cost?
pub(crate) fn recognised(bench: &mut Bench, report: &mut Report) {
    let cell = "mix".to_owned();
    let count = bench.sizes.mix;
    bench.cell(&cell, &["--mix", &count.to_string()]);
    let sample = bench.export(&cell);
    let sorted = sort(&sample);
    report.add(Line {
        row: "B7",
        work: format!("{count} files like pictures, archives, films, texts: which are stored"),
        ours: format!("{} of {} that do not shrink by 1 %", sorted.idle_stored, sorted.idle),
        other: format!("{} of {} that shrink by 5 % or more", sorted.worth_stored, sorted.worth),
        ratio: "–".to_owned(),
        goal: "all, none",
        met: Some(sorted.idle_stored == sorted.idle && sorted.worth_stored == 0),
    });
    let (everything, tree) = (bench.directory().join("everything-deflated.zip"), files::tree_of(bench, &cell));
    let by_zip = bench.directory().join("bench.zip");
    bench.fresh(1);
    let (ours_size, rounds) = (Cell::new(0), bench.rounds);
    let sides: [Side<'_>; 3] = [
        (
            "export",
            Box::new(|| {
                let (seconds, size) = bench.timed_export(&cell);
                ours_size.set(size);
                seconds
            }),
        ),
        (
            "zip -1 -r",
            Box::new(|| {
                let _ = std::fs::remove_file(&by_zip);
                // Without its list of suffixes that are stored unseen.
                shell::run("zip -1 -q -n : -r ../bench.zip .", &[], &tree)
            }),
        ),
        ("all deflated", Box::new(|| seconds(|| deflate_all(&sample.file, &everything)))),
    ];
    let [ours, zip, all] = in_turns(rounds, sides).map(|t| t.median());
    for (name, other, file, goal) in [
        ("`zip -1 -r`, which tries to deflate everything", zip, &by_zip, Some(1.02)),
        ("everything deflated at level 6", all, &everything, None),
    ] {
        let ratio = ours_size.get() as f64 / size(file) as f64;
        report.add(Line {
            row: "B7",
            work: "size of that archive".to_owned(),
            ours: format!("{}, {}", mb(ours_size.get()), s(ours)),
            other: format!("{name}: {}, {}", mb(size(file)), s(other)),
            ratio: format!("{ratio:.3}"),
            goal: goal.map_or("–", |_| "≤ 1.02"),
            met: goal.map(|goal| ratio <= goal),
        });
        std::fs::remove_file(file).expect("the file was made");
    }
    std::fs::remove_dir_all(tree).expect("the tree was made");
    bench.remove(&cell, &sample);
}

/// How many contents do not shrink, how many are worth it, and how many of each are stored. What lies between may be
/// either.
#[derive(Debug, Default)]
struct Sorted {
    idle: u64,
    idle_stored: u64,
    worth: u64,
    worth_stored: u64,
}

/// Looks at every content: its method, and what it takes deflated.
fn sort(export: &Export) -> Sorted {
    let mut archive = ZipArchive::new(File::open(&export.file).expect("a snapshot")).expect("an archive");
    let mut sorted = Sorted::default();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).expect("an entry");
        if !entry.name().expect("a name").ends_with(&format!("/{}", layout::CONTENT)) {
            continue;
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("contents");
        let stored = u64::from(entry.compression() == CompressionMethod::Stored);
        let deflated = deflated_size(&bytes) as f64 / bytes.len() as f64;
        if deflated > 0.99 {
            sorted.idle += 1;
            sorted.idle_stored += stored;
        } else if deflated <= 0.95 {
            sorted.worth += 1;
            sorted.worth_stored += stored;
        }
    }
    sorted
}

fn options() -> SimpleFileOptions {
    SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .compression_level(Some(6))
        .large_file(true)
}

fn deflated_size(bytes: &[u8]) -> u64 {
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("x", options()).and_then(|()| Ok(zip.write_all(bytes)?)).expect("memory");
    let mut archive = zip.finish_into_readable().expect("an archive");
    archive.by_index(0).expect("an entry").compressed_size()
}

/// Writes all entries of an archive anew, each deflated.
fn deflate_all(from: &Path, to: &Path) {
    let mut archive = ZipArchive::new(File::open(from).expect("a snapshot")).expect("an archive");
    let mut zip = ZipWriter::new(File::create(to).expect("a file"));
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).expect("an entry");
        zip.start_file(entry.name().expect("a name"), options()).expect("a new entry");
        std::io::copy(&mut entry, &mut zip).expect("contents");
    }
    let mut file = zip.finish().expect("an archive");
    file.rewind().and_then(|()| file.sync_all()).expect("written");
}
