//! A cell goes in, a snapshot comes out, and an independent judge finds them equal.

use std::path::Path;

use system_tests::judge::{self, skipped};
use system_tests::system::{Options, System};

/// load → POST → poll → PROPFIND → GET, then the judge. `unit` is the host of the unit that wrote the original.
fn round_trip(original: &Path, scheme: &str, unit: &str, port: &str) {
    let settings =
        vec![("UNIT_SCHEME", scheme.to_owned()), ("UNIT_FQDN", unit.to_owned()), ("UNIT_PORT", port.to_owned())];
    let mut system = System::start_with(Options { settings, ..Options::default() });
    let authority = if port.is_empty() { unit.to_owned() } else { format!("{unit}:{port}") };
    let host = [("Host", authority.as_str())];
    let _worker = system.worker();
    let loaded = system.load(&cell_name(original), original, &[]);
    assert!(loaded.status.success(), "{loaded:?}");
    let cell = cell_name(original);

    let posted = system.request("POST", &format!("/{cell}/__export"), &host, Some(br#"{"Name":"round-trip"}"#));
    assert_eq!((posted.status, posted.body.len()), (202, 0), "{}", posted.text());
    let location = format!("{scheme}://{authority}/{cell}/__export");
    assert_eq!(posted.header("location"), Some(location.as_str()));
    system.eventually("the export ends", || {
        let status = system.request("GET", &format!("/{cell}/__export"), &host, None);
        status.text() == r#"{"status":"ready"}"#
    });
    let headers = [host.as_slice(), &[("Depth", "1")]].concat();
    let listed = system.request("PROPFIND", &format!("/{cell}/__snapshot"), &headers, None).text();
    assert!(
        listed.contains(&format!("<href>{scheme}://{authority}/{cell}/__snapshot/round-trip.zip</href>")),
        "{listed}"
    );
    let got = system.request("GET", &format!("/{cell}/__snapshot/round-trip.zip"), &host, None);
    assert_eq!((got.status, got.header("content-type")), (200, Some("application/zip")));
    assert!(listed.contains(&format!("<getcontentlength>{}</getcontentlength>", got.body.len())), "{listed}");
    let snapshot = system.directory().join("round-trip.zip");
    std::fs::write(&snapshot, &got.body).unwrap();

    let Some(report) = judge::check(&snapshot) else {
        return skipped("the independent checker is not here");
    };
    let faults = report["faults"].as_object().unwrap();
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert_eq!(report["faults"]["unknown-entry"]["first"], serde_json::json!(["99_integrity.json"]), "{faults:?}");
    assert_eq!(report["warnings"].get("forward-ll"), None, "targets stand before users");
    let plain = judge::without_integrity(&snapshot);
    assert_eq!(judge::check(&plain).unwrap()["ok"], true);
    assert_eq!(judge::compare(original, &plain).unwrap(), "EQUAL");
}

fn cell_name(original: &Path) -> String {
    let file = std::fs::File::open(original).unwrap();
    let mut zip = zip::ZipArchive::new(file).unwrap();
    let document: serde_json::Value = serde_json::from_reader(zip.by_name("10_odata/00_cell.json").unwrap()).unwrap();
    document["_source"]["s"]["Name"].as_str().unwrap().to_owned()
}

#[test]
fn the_projects_own_sample_cell() {
    let system = System::start();
    let sample = system.sample(&[]);
    round_trip(&sample, "http", "localhost", "");
}

#[test]
fn a_real_cell_of_a_real_unit() {
    match judge::shared("fixtures/unit-manager-v2.zip") {
        Some(original) => round_trip(&original, "https", "dev1.personium.io", ""),
        None => skipped("fixture unit-manager-v2.zip is not here"),
    }
}

#[test]
fn a_generated_cell_with_everything() {
    match judge::shared("fixtures/small-generated.zip") {
        Some(original) => round_trip(&original, "https", "unit.example", ""),
        None => skipped("fixture small-generated.zip is not here"),
    }
}

/// Its writer left 25 references pointing forward; ours must not.
#[test]
fn a_cell_whose_references_point_forward() {
    match judge::shared("fixtures/small-by-reference.zip") {
        Some(original) => round_trip(&original, "https", "unit.example", ""),
        None => skipped("fixture small-by-reference.zip is not here"),
    }
}
