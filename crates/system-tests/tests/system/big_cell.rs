//! A cell of 200 000 documents and 2 000 files, and one with a file of more than 4 GiB: equal, and in constant memory.

use std::process::Command;

use system_tests::judge::{self, skipped};
use system_tests::system::{Options, System};

const CEILING: u64 = 96 << 20;

#[test]
fn a_large_cell_is_exported_whole_within_the_memory_ceiling() {
    let generator = judge::shared("tools/gen_cell.py");
    let settings = vec![
        ("UNIT_SCHEME", "https".to_owned()),
        ("UNIT_FQDN", "unit.example".to_owned()),
        ("UNIT_PORT", String::new()),
    ];
    let mut system = System::start_with(Options { settings, ..Options::default() });
    let original = match generator {
        Some(generator) => {
            let file = system.directory().join("large.zip");
            let sizes = ["--seed", "7", "--userdata", "199000", "--files", "2000", "--file-bytes", "8000", "-q"];
            let owner = ["--owner", "https://admin.unit.example/#staff", "--cell", "large", "--level", "1"];
            let made = Command::new("python3").arg(generator).arg(&file).args(sizes).args(owner).status().unwrap();
            assert!(made.success());
            file
        }
        None => {
            skipped("the independent generator is not here, using the project's own");
            system.sample(&["--name", "large", "--documents", "200000", "--files", "2000"])
        }
    };
    let loaded = system.load("large", &original, &[]);
    assert!(loaded.status.success(), "{loaded:?}");
    let worker = system.worker();
    let host = [("Host", "unit.example")];
    let posted = system.request("POST", "/large/__export", &host, Some(br#"{"Name":"large"}"#));
    assert_eq!(posted.status, 202, "{}", posted.text());
    let mut last = 0;
    system.eventually("the export ends", || {
        let status = system.request("GET", "/large/__export", &host, None);
        let status: serde_json::Value = serde_json::from_slice(&status.body).unwrap();
        if let Some(percent) = status["progress"].as_str().and_then(|p| p.strip_suffix('%')) {
            let percent: u32 = percent.parse().unwrap();
            assert!((last..100).contains(&percent), "{percent} after {last}");
            last = percent;
        }
        status["status"] == "ready"
    });
    let peak = worker.peak_memory();
    println!("peak resident memory of the worker: {:.1} MiB", peak as f64 / f64::from(1 << 20));
    assert!(peak < CEILING, "{peak}");
    let got = system.request("GET", "/large/__snapshot/large.zip", &host, None);
    assert_eq!(got.status, 200, "{}", got.text());
    let snapshot = system.directory().join("snapshot.zip");
    std::fs::write(&snapshot, &got.body).unwrap();
    let api = system.api().peak_memory();
    println!("peak resident memory of the api: {:.1} MiB", api as f64 / f64::from(1 << 20));
    assert!(api < 64 << 20, "{api}");
    // The other way round, into another cell: every id of every document becomes a new one.
    let named = system.request("POST", "/__ctl/Cell", &host, Some(br#"{"Name":"copy"}"#));
    assert_eq!(named.status, 201, "{}", named.text());
    let put = system.request("PUT", "/copy/__snapshot/large.zip", &host, Some(&got.body));
    assert_eq!(put.status, 201, "{}", put.text());
    let posted = system.request("POST", "/copy/__import", &host, Some(br#"{"Name":"large"}"#));
    assert_eq!(posted.status, 202, "{}", posted.text());
    let mut report = String::new();
    system.eventually("the import ends", || {
        report = system.request("GET", "/copy/__import", &host, None).text();
        !report.contains("in progress")
    });
    assert_eq!(report, r#"{"status":"ready"}"#);
    let count = |cell: &str| {
        let of = format!("generation = (SELECT generation FROM cell WHERE name = '{cell}')");
        let counted = "(SELECT count(*) || ' ' || count(DISTINCT id) FROM document WHERE OF) || ' ' ||
                       (SELECT count(*) || ' ' || count(blob_id) FROM node WHERE OF)";
        system.value(&format!("SELECT {}", counted.replace("OF", &of)))
    };
    assert_eq!(count("copy"), count("large"));
    let peak = worker.peak_memory();
    println!("peak resident memory of the worker after an import: {:.1} MiB", peak as f64 / f64::from(1 << 20));
    assert!(peak < CEILING, "{peak}");
    match judge::compare(&original, &judge::without_integrity(&snapshot)) {
        Some(words) => assert!(words == "EQUAL" || words.contains("unit_url"), "{words}"),
        None => skipped("the independent checker is not here"),
    }
}

/// Beyond what a zip of old can say, on both ways. The file is mostly zeros, which no client's upload could be: snapshots
/// of our own have no limit of expansion.
#[test]
fn a_file_of_more_than_four_gigabytes_goes_out_and_in() {
    let mut system = System::start();
    let length = (4u64 << 30) + (100 << 20);
    let original = system.sample(&["--name", "cell1", "--big", &length.to_string()]);
    let refused = system.load("cell1", &original, &[]);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && words.contains("the snapshot expands too much"), "{words}");
    let loaded = system.load("cell1", &original, &["--trusted"]);
    assert!(loaded.status.success(), "{loaded:?}");
    let big = |system: &System| {
        system.value(
            "SELECT b.size || ' ' || encode(b.sha256, 'hex') FROM cell JOIN node n USING (generation)
             JOIN blob b ON b.id = n.blob_id WHERE n.path LIKE '%/big.bin'",
        )
    };
    let expected = big(&system);
    assert!(expected.starts_with(&format!("{length} ")), "{expected}");
    let worker = system.worker();
    assert_eq!(system.post_export("cell1", "one").status, 202);
    system.wait_ready("cell1");
    assert_eq!(system.files("cell1"), ["one.zip"]);
    system.execute("UPDATE node SET pmeta = replace(pmeta, '\"v\":1', '\"v\":2') WHERE path LIKE '%/big.bin'");
    let accepted = system.request("POST", "/cell1/__import", &[], Some(br#"{"Name":"one"}"#));
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let mut report = String::new();
    system.eventually("the import ends", || {
        report = system.request("GET", "/cell1/__import", &[], None).text();
        !report.contains("in progress")
    });
    assert_eq!(report, r#"{"status":"ready"}"#);
    assert_eq!(big(&system), expected);
    assert_eq!(
        system.value("SELECT count(*) FROM node JOIN cell USING (generation) WHERE pmeta LIKE '%\"v\":2%'"),
        "0"
    );
    let peak = worker.peak_memory();
    println!("peak resident memory of the worker with a 4 GiB file: {:.1} MiB", peak as f64 / f64::from(1 << 20));
    assert!(peak < CEILING, "{peak}");
}
