//! The metadata of a node at some path, in both versions, into the same cell and into another one.
#![no_main]

use exporter_worker::import::Identity;
use exporter_worker::import::pmeta::{self, Surroundings};
use libfuzzer_sys::fuzz_target;
use model::cell::CellId;
use model::layout::SnapshotVersion;
use serde_json::Value;

fn identity(old: &str, new: &str) -> Identity {
    Identity {
        old_id: old.to_owned(),
        id: CellId::parse(new).expect("an id"),
        name: String::new(),
        owner: None,
        document: String::new(),
    }
}

fuzz_target!(|input: (u8, &str)| {
    let (choice, text) = input;
    let path = ["", "box", "__", "box/a", "__/a/b"][usize::from(choice >> 4) % 5];
    let around = Surroundings { content: choice & 1 != 0, children: choice & 2 != 0 };
    let version = if choice & 4 == 0 { SnapshotVersion::Two } else { SnapshotVersion::One };
    let new = if choice & 8 == 0 { "c1" } else { "c2" };
    let Ok(value) = serde_json::from_str::<Value>(text) else { return };
    let Ok(length) = pmeta::check(&value, path, around) else { return };
    let changed = pmeta::changed(&value, path, version, &identity("c1", new));
    let stored = changed.unwrap_or(value);
    // What is stored is exported as it is, and can be imported again, into its cell, and comes out the same.
    assert_eq!(pmeta::check(&stored, path, around), Ok(length), "{stored}");
    assert_eq!(pmeta::changed(&stored, path, SnapshotVersion::Two, &identity(new, new)), None, "{stored}");
    let text = stored.to_string();
    assert!(!text.contains(['\n', '\r']));
    assert_eq!(serde_json::from_str::<Value>(&text).ok().as_ref(), Some(&stored), "{text}");
});
