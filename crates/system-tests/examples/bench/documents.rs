//! B1 to B3: exports of documents.

use std::cell::RefCell;

use crate::bench::{Bench, size};
use crate::measure::{Side, in_turns, median};
use crate::report::{Line, Report, mb, s};
use crate::shell;

/// The order of an export is that of an index: the others may use it, too.
const SETTINGS: &str = "-c enable_sort=off";

/// The statement that reads a cell's documents in the order of an export.
fn statement(bench: &Bench, cell: &str, format: &str) -> String {
    let generation = bench.generation(cell);
    format!(
        "COPY (SELECT body FROM document WHERE generation = '{generation}' ORDER BY type, position) TO STDOUT {format}"
    )
}

fn raw_size(bench: &Bench, cell: &str) -> u64 {
    let generation = bench.generation(cell);
    let sum = format!("SELECT sum(octet_length(body) + 1) FROM document WHERE generation = '{generation}'");
    bench.system.value(&sum).parse().expect("a number")
}

/// B1: one export against `psql`, which only reads.
pub(crate) fn against_copy(bench: &mut Bench, report: &mut Report) {
    let count = bench.sizes.documents[2];
    let cell = bench.documents(count);
    let raw = raw_size(bench, &cell);
    let (directory, database) = (bench.directory().to_owned(), bench.database());
    let copy = statement(bench, &cell, "(FORMAT binary)");
    bench.fresh(1);
    let (rounds, mut archive) = (bench.rounds, 0);
    let ours: Side<'_> = (
        "export",
        Box::new(|| {
            let (seconds, size) = bench.timed_export(&cell);
            archive = size;
            seconds
        }),
    );
    let variables = [("URL", database.as_str()), ("COPY", &copy), ("PGOPTIONS", SETTINGS)];
    let psql: Side<'_> =
        ("psql", Box::new(|| shell::run(r#"psql -qX "$URL" -c "$COPY" >/dev/null"#, &variables, &directory)));
    let [ours, psql] = in_turns(rounds, [ours, psql]).map(|t| t.median());
    let rate = |seconds: f64| format!("{} ({:.0} MB/s)", s(seconds), raw as f64 / seconds / 1e6);
    report.add(Line {
        row: "B1",
        work: format!("export of {count} documents, {} of JSON, {} archive", mb(raw), mb(archive)),
        ours: rate(ours),
        other: format!("`psql` binary `COPY`: {}", rate(psql)),
        ratio: format!("{:.2}", ours / psql),
        goal: "≤ 1.25",
        met: Some(ours / psql <= 1.25),
    });
}

/// B2: one export against what else makes a compressed file of the same rows.
pub(crate) fn against_archives(bench: &mut Bench, report: &mut Report) {
    let count = bench.sizes.documents[2];
    let cell = bench.documents(count);
    let (directory, database) = (bench.directory().to_owned(), bench.database());
    let copy = statement(bench, &cell, "");
    let generation = bench.generation(&cell);
    bench.system.execute("CREATE SCHEMA bench_dump");
    bench.system.execute(&format!(
        "CREATE TABLE bench_dump.rows AS SELECT type, position, id, body FROM document \
         WHERE generation = '{generation}' ORDER BY type, position"
    ));
    bench.settle();
    bench.fresh(1);
    let variables = [("URL", database.as_str()), ("COPY", &copy), ("PGOPTIONS", SETTINGS)];
    let run = |script| shell::run(script, &variables, &directory);
    let rounds = bench.rounds;
    // The work reads the bench by turns; its own results are read afterwards.
    let archive = RefCell::new(0);
    let sides: [Side<'_>; 4] = [
        (
            "export",
            Box::new(|| {
                let (seconds, size) = bench.timed_export(&cell);
                *archive.borrow_mut() = size;
                seconds
            }),
        ),
        (
            "zip -1",
            Box::new(|| {
                let _ = std::fs::remove_file(directory.join("bench.zip"));
                run(r#"psql -qX "$URL" -c "$COPY" | zip -q -1 bench.zip -"#)
            }),
        ),
        ("pigz -1", Box::new(|| run(r#"psql -qX "$URL" -c "$COPY" | pigz -1 >bench.gz"#))),
        ("pg_dump -Z1", Box::new(|| run(r#"pg_dump -Fc -Z1 -t bench_dump.rows -f bench.dump "$URL""#))),
    ];
    let [ours, zip, pigz, dump] = in_turns(rounds, sides).map(|t| t.median());
    let archive = archive.into_inner();
    let sizes = ["bench.zip", "bench.gz", "bench.dump"].map(|name| size(&directory.join(name)));
    let names = ["`psql COPY \\| zip -1`", "`psql COPY \\| pigz -1`", "`pg_dump -Fc -Z1`"];
    for ((name, theirs), size) in names.into_iter().zip([zip, pigz, dump]).zip(sizes) {
        report.add(Line {
            row: "B2",
            work: format!("export of {count} documents"),
            ours: format!("{}, {}", s(ours), mb(archive)),
            other: format!("{name}: {}, {}", s(theirs), mb(size)),
            ratio: format!("{:.2}", ours / theirs),
            goal: "< 1",
            met: Some(ours < theirs),
        });
    }
    report.add(Line {
        row: "B2",
        work: "size of the archive".to_owned(),
        ours: mb(archive),
        other: format!("`zip -1`: {}", mb(sizes[0])),
        ratio: format!("{:.3}", archive as f64 / sizes[0] as f64),
        goal: "≤ 1",
        met: Some(archive <= sizes[0]),
    });
    for name in ["bench.zip", "bench.gz", "bench.dump"] {
        std::fs::remove_file(directory.join(name)).expect("the file was made");
    }
    bench.system.execute("DROP SCHEMA bench_dump CASCADE");
}

/// B3: does a document take longer when there are more of them?
pub(crate) fn linear(bench: &mut Bench, report: &mut Report) {
    let counts = bench.sizes.documents;
    let cells = counts.map(|count| bench.documents(count));
    bench.fresh(1);
    bench.timed_export(&cells[0]);
    let mut times = [const { Vec::new() }; 3];
    for round in 1..=bench.rounds {
        for ((cell, count), times) in cells.iter().zip(counts).zip(&mut times) {
            // Short ones are disturbed by little: several of them.
            let repeated = (counts[2] / count).clamp(1, 5);
            let mut taken: Vec<f64> = (0..repeated).map(|_| bench.timed_export(cell).0 / count as f64 * 1e6).collect();
            println!("round {round}: {count} documents, µs each: {taken:.2?}");
            times.append(&mut taken);
        }
    }
    let [small, middle, large] = times.map(|times| median(&times));
    for (count, each) in [(counts[0], small), (counts[1], middle)] {
        report.add(Line {
            row: "B3",
            work: format!("time per document, {} against {count} documents", counts[2]),
            ours: format!("{large:.2} µs"),
            other: format!("{each:.2} µs"),
            ratio: format!("{:.2}", large / each),
            goal: "≤ 1.1",
            met: Some(large / each <= 1.1),
        });
    }
}
