//! B12: imports.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::bench::Bench;
use crate::measure::{Side, in_turns};
use crate::report::{Line, Report, mib, s};
use crate::shell;

/// The generation of rows that are copied.
const COPIED: &str = "copied";

/// B12: import of a snapshot into a new cell, against `COPY FROM` of the same rows.
pub(crate) fn against_copy(bench: &mut Bench, report: &mut Report) {
    let count = bench.sizes.imported;
    let cell = bench.documents(count);
    let export = bench.export(&cell);
    let (directory, database) = (bench.directory().to_owned(), bench.database());
    let rows = directory.join("rows.copy");
    let generation = bench.generation(&cell);
    // Both tables hold the same rows before and get the same ones, so that their indexes are equally large.
    bench.system.execute("CREATE SCHEMA bench_import");
    bench.system.execute("CREATE TABLE bench_import.document (LIKE document INCLUDING ALL)");
    bench.system.execute("INSERT INTO bench_import.document SELECT * FROM document");
    let columns = "generation, type, position, id, body";
    let out = format!(
        "\\copy (SELECT '{COPIED}' AS generation, type, position, id, body FROM document \
         WHERE generation = '{generation}' ORDER BY type, position) TO 'rows.copy' (FORMAT binary)"
    );
    let into = format!("\\copy bench_import.document ({columns}) FROM 'rows.copy' (FORMAT binary)");
    let psql =
        |copy: &str| shell::run(r#"psql -qX "$URL" -c "$COPY""#, &[("URL", &database), ("COPY", copy)], &directory);
    psql(&out);
    bench.fresh(1);
    let rounds = bench.rounds;
    let (reader, mut imported) = (&*bench, 0);
    let sides: [Side<'_>; 2] = [
        (
            "import",
            Box::new(|| {
                imported += 1;
                let cell = format!("imported-{imported}");
                let seconds = import(reader, &cell, &export.file);
                remove(reader, &cell);
                seconds
            }),
        ),
        (
            "COPY FROM",
            Box::new(|| {
                reader.settle();
                let seconds = psql(&into);
                reader.system.execute(&format!("DELETE FROM bench_import.document WHERE generation = '{COPIED}'"));
                seconds
            }),
        ),
    ];
    let [ours, copy] = in_turns(rounds, sides).map(|t| t.median());
    report.add(Line {
        row: "B12",
        work: format!("import of {count} documents into a new cell"),
        ours: format!("{}, worker {}", s(ours), mib(bench.peaks().0)),
        other: format!("`COPY FROM`: {}", s(copy)),
        ratio: format!("{:.2}", ours / copy),
        goal: "≤ 2",
        met: Some(ours / copy <= 2.0),
    });
    bench.remove(&cell, &export);
    std::fs::remove_file(rows).expect("the file was made");
    bench.system.execute("DROP SCHEMA bench_import CASCADE");
}

/// Removes an imported cell, and waits until nothing of it is left.
fn remove(bench: &Bench, cell: &str) {
    let generation = bench.generation(cell);
    let path = format!("/__ctl/Cell('{cell}')");
    assert_eq!(bench.system.request("DELETE", &path, &[("If-Match", "*")], None).status, 204);
    let left = format!("SELECT count(*) FROM document WHERE generation = '{generation}'");
    let begun = Instant::now();
    while bench.system.value(&left) != "0" {
        assert!(begun.elapsed() < Duration::from_secs(3600), "removing a cell takes longer than an hour");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Imports a snapshot into a new cell, from the request until the status says that it is there.
fn import(bench: &Bench, cell: &str, snapshot: &Path) -> f64 {
    let system = &bench.system;
    system.make_cell(cell);
    let put = format!(
        "curl --silent --show-error --fail --noproxy '*' --upload-file \"$SNAPSHOT\" \
         -H \"Authorization: Bearer $TOKEN\" -H 'Host: {}' http://{}/{cell}/__snapshot/s.zip",
        bench.unit(),
        system.address
    );
    let path = snapshot.to_str().expect("a path in UTF-8");
    shell::run(&put, &[("SNAPSHOT", path), ("TOKEN", system_tests::system::TOKEN)], system.directory());
    bench.settle();
    let import = format!("/{cell}/__import");
    let begun = Instant::now();
    let answer = system.request("POST", &import, &[], Some(br#"{"Name":"s"}"#));
    assert_eq!(answer.status, 202, "{}", answer.text());
    let status = loop {
        let answer = system.request("GET", &import, &[], None).text();
        if !answer.contains("in progress") {
            break answer;
        }
        assert!(begun.elapsed() < Duration::from_secs(3600), "an import takes longer than an hour");
        std::thread::sleep(Duration::from_millis(10));
    };
    let seconds = begun.elapsed().as_secs_f64();
    assert_eq!(status, r#"{"status":"ready"}"#);
    seconds
}
