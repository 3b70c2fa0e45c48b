//! One line of documents: any bytes, of any type, in both versions, into the same cell and into another one.
#![no_main]

use exporter_worker::import::{Identity, document};
use libfuzzer_sys::fuzz_target;
use model::cell::{CellId, is_id};
use model::layout::{DocumentType, SnapshotVersion};

fn identity(old: &str, new: &str) -> Identity {
    Identity {
        old_id: old.to_owned(),
        id: CellId::parse(new).expect("an id"),
        name: String::new(),
        owner: None,
        document: String::new(),
    }
}

fuzz_target!(|input: (u8, &[u8])| {
    let (choice, line) = input;
    if line.iter().any(|b| matches!(b, b'\n' | b'\r')) {
        return;
    }
    let (version, expected) = match usize::from(choice >> 1) % 17 {
        16 => (SnapshotVersion::One, None),
        index => (SnapshotVersion::Two, Some(DocumentType::ALL[index])),
    };
    let new = if choice & 1 == 0 { "c1" } else { "c2" };
    let Ok(checked) = document::check(line, version, expected, &identity("c1", new)) else { return };
    assert!(expected.is_none_or(|of| of == checked.document_type));
    assert!(is_id(&checked.id), "{:?}", checked.id);
    assert!(checked.targets.iter().all(|id| is_id(id)), "{:?}", checked.targets);
    assert!(!checked.body.contains(['\n', '\r']), "{}", checked.body);
    // What is stored is exported as it is, and can be imported again, into its cell, and comes out the same.
    let two = SnapshotVersion::Two;
    let again = document::check(checked.body.as_bytes(), two, Some(checked.document_type), &identity(new, new));
    let again = again.unwrap_or_else(|what| panic!("{what}: {}", checked.body));
    assert_eq!((&again.id, &again.body, &again.targets), (&checked.id, &checked.body, &checked.targets));
    assert!(!again.repaired, "repaired twice: {}", checked.body);
});
