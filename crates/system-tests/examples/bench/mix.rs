//! B7: files of all sorts, most of them packed already.

use std::cell::Cell;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;

use model::layout;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::bench::{Bench, Export, size};
use crate::measure::{Side, in_turns, seconds};
use crate::report::{Line, Report, mb, s};

/// B7: are contents that do not shrink recognised, and what does that cost?
pub(crate) fn recognised(bench: &mut Bench, report: &mut Report) {
    let cell = "mix".to_owned();
    let count = bench.sizes.mix;
    bench.cell(&cell, &["--mix", &count.to_string()]);
    let sample = bench.export(&cell);
    let Sorted { stored, deflated, wrong } = sort(&sample);
    report.add(Line {
        row: "B7",
        work: format!("{count} files like pictures, archives, films, texts: which are stored"),
        ours: format!("{stored} stored, {deflated} deflated"),
        other: format!("{wrong} of them would be 2 % larger or smaller the other way"),
        ratio: "–".to_owned(),
        goal: "all recognised",
        met: Some(wrong == 0),
    });
    let everything = bench.directory().join("everything-deflated.zip");
    bench.fresh(1);
    let (ours_size, rounds) = (Cell::new(0), bench.rounds);
    let sides: [Side<'_>; 2] = [
        (
            "export",
            Box::new(|| {
                let (seconds, size) = bench.timed_export(&cell);
                ours_size.set(size);
                seconds
            }),
        ),
        ("all deflated", Box::new(|| seconds(|| deflate_all(&sample.file, &everything)))),
    ];
    let [ours, all] = in_turns(rounds, sides).map(|t| t.median());
    let (ours_size, all_size) = (ours_size.get(), size(&everything));
    let ratio = ours_size as f64 / all_size as f64;
    report.add(Line {
        row: "B7",
        work: "size of that archive".to_owned(),
        ours: format!("{}, {}", mb(ours_size), s(ours)),
        other: format!("everything deflated at level 6: {}, {}", mb(all_size), s(all)),
        ratio: format!("{ratio:.3}"),
        goal: "≤ 1.02",
        met: Some(ratio <= 1.02),
    });
    std::fs::remove_file(everything).expect("the file was made");
    bench.remove(&cell, &sample);
}

struct Sorted {
    stored: u64,
    deflated: u64,
    wrong: u64,
}

/// Looks at every content: its method, and what it would take the other way.
fn sort(export: &Export) -> Sorted {
    let mut archive = ZipArchive::new(File::open(&export.file).expect("a snapshot")).expect("an archive");
    let mut sorted = Sorted { stored: 0, deflated: 0, wrong: 0 };
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).expect("an entry");
        if !entry.name().expect("a name").ends_with(&format!("/{}", layout::CONTENT)) {
            continue;
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("contents");
        let deflated = deflated_size(&bytes) as f64 / bytes.len() as f64;
        if entry.compression() == CompressionMethod::Stored {
            sorted.stored += 1;
            sorted.wrong += u64::from(deflated < 0.98);
        } else {
            sorted.deflated += 1;
            sorted.wrong += u64::from(deflated > 1.02 || entry.compressed_size() as f64 > 1.02 * bytes.len() as f64);
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
