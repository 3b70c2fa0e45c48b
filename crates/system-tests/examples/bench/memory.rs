//! B4: peak resident memory.

use crate::bench::Bench;
use crate::files;
use crate::report::{Line, Report, mib};

const WORKER: u64 = 96 << 20;
const API: u64 = 64 << 20;

/// B4: many documents, many files, one huge content; each with services that were just started.
pub(crate) fn peaks(bench: &mut Bench, report: &mut Report) {
    let (documents, huge) = (bench.sizes.documents[2], bench.sizes.huge);
    let of_documents = bench.documents(documents);
    let of_files = files::cell_of_files(bench);
    let of_huge = "huge".to_owned();
    bench.cell(&of_huge, &["--large", "1", "--large-size", &huge.to_string()]);
    let works = [
        (of_documents, format!("{documents} documents")),
        (of_files, format!("{} files", bench.sizes.files)),
        (of_huge, format!("one content of {:.0} GB", huge as f64 / 1e9)),
    ];
    for (cell, work) in works {
        bench.fresh(1);
        bench.timed_export(&cell);
        let (worker, api) = bench.peaks();
        report.add(Line {
            row: "B4",
            work: format!("peak resident memory: {work}"),
            ours: format!("worker {}, api {}", mib(worker), mib(api)),
            other: "–".to_owned(),
            ratio: "–".to_owned(),
            goal: "≤ 96 MiB, ≤ 64 MiB",
            met: Some(worker <= WORKER && api <= API),
        });
    }
}
