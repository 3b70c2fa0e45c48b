//! The same state gives the same bytes.

use std::io::Read;
use std::path::Path;

use system_tests::system::System;

fn entries(snapshot: &Path) -> Vec<(String, String, u32, Vec<u8>)> {
    let mut zip = zip::ZipArchive::new(std::fs::File::open(snapshot).unwrap()).unwrap();
    let count = zip.len();
    let read = |index| {
        let mut entry = zip.by_index(index).unwrap();
        let name = String::from_utf8(entry.name_raw().to_vec()).unwrap();
        let time = format!("{:?} {:?} {}", entry.last_modified(), entry.compression(), entry.header_start());
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (name, time, entry.crc32(), bytes)
    };
    (0..count).map(read).collect()
}

#[test]
fn two_exports_of_one_state_differ_in_the_manifest_only() {
    let mut system = System::start();
    let _worker = system.worker();
    system.sample_cell("cell1", &["--documents", "3000", "--files", "30"]);
    let one = entries(&system.export("cell1", "one"));
    // What the database does to the rows meanwhile is not the state of the cell.
    system.execute("UPDATE document SET body = body");
    system.execute("VACUUM FULL document");
    let two = entries(&system.export("cell1", "two"));
    assert_eq!(one.len(), two.len());
    let differing: Vec<_> = one.iter().zip(&two).filter(|(a, b)| a != b).map(|(a, _)| a.0.as_str()).collect();
    assert_eq!(differing, ["00_manifest.json"]);
}

#[test]
fn a_snapshot_says_what_it_holds() {
    let mut system = System::start();
    let _worker = system.worker();
    system.sample_cell("cell1", &[]);
    let snapshot = entries(&system.export("cell1", "one"));
    let (last, _, _, bytes) = snapshot.last().unwrap();
    assert_eq!(last, "99_integrity.json");
    let integrity: serde_json::Value = serde_json::from_slice(bytes).unwrap();
    let listed: Vec<_> = integrity["entries"].as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap()).collect();
    let there = snapshot.iter().map(|e| e.0.as_str());
    let expected: Vec<_> =
        there.filter(|n| !n.ends_with('/') && !["00_manifest.json", "99_integrity.json"].contains(n)).collect();
    assert_eq!(listed, expected);
    for (entry, said) in
        snapshot.iter().filter(|e| listed.contains(&e.0.as_str())).zip(integrity["entries"].as_array().unwrap())
    {
        assert_eq!(said["size"].as_u64().unwrap(), entry.3.len() as u64, "{}", entry.0);
    }
    let users = snapshot.iter().find(|e| e.0.ends_with("70_userdata.pjson")).unwrap();
    let lines = users.3.iter().filter(|b| **b == b'\n').count() as u64;
    assert_eq!(integrity["documents"]["UserData"].as_u64().unwrap(), lines);
    // Compressed contents are stored as they are, text is not.
    let stored = snapshot.iter().filter(|e| e.0.ends_with("/content") && e.1.contains("Stored")).count();
    let deflated = snapshot.iter().filter(|e| e.0.ends_with("/content") && e.1.contains("Deflated")).count();
    assert!(stored > 0 && deflated > 0, "{stored} {deflated}");
}
