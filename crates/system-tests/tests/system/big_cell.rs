//! A cell of 200 000 documents and 2 000 files: equal, and in constant memory.

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
    std::fs::write(&snapshot, got.body).unwrap();
    let api = system.api().peak_memory();
    println!("peak resident memory of the api: {:.1} MiB", api as f64 / f64::from(1 << 20));
    assert!(api < 64 << 20, "{api}");
    match judge::compare(&original, &judge::without_integrity(&snapshot)) {
        Some(words) => assert!(words == "EQUAL" || words.contains("unit_url"), "{words}"),
        None => skipped("the independent checker is not here"),
    }
}
