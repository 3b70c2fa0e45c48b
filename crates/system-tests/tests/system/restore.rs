//! What an export wrote, an import restores: in the cell itself, in another cell, in another installation.
//!
//! `RESTORE_SEEDS=100` tries more random cells than usual, `RESTORE_SEEDS=17..18` those of one seed again.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;

use model::layout::{self, DocumentType};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use system_tests::judge::{self, skipped};
use system_tests::logical::{self, Logical, entries, undo};
use system_tests::random_cell::random_cell;
use system_tests::system::{System, eventually};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// Imports a snapshot that the cell has, and waits for the end; what the cell then says about its last import.
fn import(system: &System, cell: &str, name: &str) -> Value {
    done(system, &format!("/{cell}/__import"), name)
}

fn done(system: &System, target: &str, name: &str) -> Value {
    let posted = system.request("POST", target, &[], Some(format!(r#"{{"Name":"{name}"}}"#).as_bytes()));
    assert_eq!(posted.status, 202, "{}", posted.text());
    let mut report = Value::Null;
    eventually("the import ends", || {
        let answer = system.request("GET", target, &[], None);
        assert_eq!(answer.status, 200, "{}", answer.text());
        report = serde_json::from_slice(&answer.body).unwrap();
        !report["status"].as_str().unwrap().ends_with("in progress")
    });
    report
}

/// A dry run must find that an import would change nothing; what it found.
fn assert_up_to_date(system: &System, cell: &str, name: &str) -> Value {
    let report = done(system, &format!("/{cell}/__import/dry-run"), name);
    let found = &report["result"];
    assert_eq!((&report["status"], &found["importable"]), (&json!("dry run finished"), &json!(true)), "{report:#}");
    let documents = found["changes"]["documents"].as_object().unwrap().values();
    for changes in documents.chain([&found["changes"]["files"], &found["changes"]["collections"]]) {
        for what in ["added", "replaced", "removed"] {
            assert_eq!(changes[what], 0, "{cell}: {report:#}");
        }
    }
    found.clone()
}

/// Uploads and imports a snapshot.
fn restore(system: &System, cell: &str, name: &str, snapshot: &[u8]) {
    let put = system.put(cell, &format!("{name}.zip"), &[], snapshot);
    assert_eq!(put.status, 201, "{}", put.text());
    assert_eq!(import(system, cell, name), json!({"status": "ready"}), "{cell}");
}

fn exported(system: &System, cell: &str, name: &str) -> Vec<u8> {
    std::fs::read(system.export(cell, name)).unwrap()
}

fn seeds() -> Range<u64> {
    let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("RESTORE_SEEDS: {text:?} is no number"));
    match std::env::var("RESTORE_SEEDS") {
        Ok(text) => text.split_once("..").map_or_else(|| 0..number(&text), |(a, b)| number(a)..number(b)),
        Err(_) => 0..8,
    }
}

fn assert_same(one: &Logical, other: &Logical, what: &str) {
    let differences = one.differences(other);
    assert!(differences.is_empty(), "{what}:\n{}", differences.join("\n"));
}

fn assert_same_list<T: PartialEq + std::fmt::Debug>(one: &[T], other: &[T], what: &str) {
    let first = one.iter().zip(other).find(|(one, other)| one != other);
    assert_eq!((one.len(), first), (other.len(), None), "{what}");
}

/// Two exports of the same contents differ in their manifests only.
fn assert_same_bytes(one: &[u8], other: &[u8], what: &str) {
    let but_manifest = |snapshot: &[u8]| {
        entries(snapshot).into_iter().filter(|(name, _)| name != layout::MANIFEST).collect::<Vec<_>>()
    };
    let (one, other) = (but_manifest(one), but_manifest(other));
    let names = |of: &[(String, Vec<u8>)]| of.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&one), names(&other), "{what}");
    for ((name, one), (_, other)) in one.iter().zip(&other) {
        assert!(
            one == other,
            "{what}: {name}\n{}\n{}",
            String::from_utf8_lossy(one).chars().take(3000).collect::<String>(),
            String::from_utf8_lossy(other).chars().take(3000).collect::<String>()
        );
    }
}

/// The lines of all documents, as they stand there.
fn lines(snapshot: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    for (_, bytes) in entries(snapshot).iter().filter(|(name, _)| name.ends_with(".pjson")) {
        lines.extend(std::str::from_utf8(bytes).unwrap().lines().map(str::to_owned));
    }
    lines.sort();
    lines
}

/// What users wrote, in the very characters in which it stands there: escapes and notations of numbers included.
fn values(snapshot: &[u8]) -> Vec<(Option<String>, Option<String>)> {
    type Fields = BTreeMap<String, Box<RawValue>>;
    let values = |line: String| {
        let source = serde_json::from_str::<Fields>(&line).unwrap().remove("_source").unwrap();
        let mut source = serde_json::from_str::<Fields>(source.get()).unwrap();
        let mut field = |name: &str| source.remove(name).map(|value| value.get().to_owned());
        (field("s"), field("h"))
    };
    let mut values: Vec<_> = lines(snapshot).into_iter().map(values).collect();
    values.sort();
    values
}

/// An export of another cell must be the original under other ids, with the name, the owner and the id of that cell.
fn assert_moved(system: &System, cell: &str, new: &Logical, old: &Logical) {
    let id = system.value(&format!("SELECT id FROM cell WHERE name = '{cell}'"));
    assert_eq!(new.cell_id(), id);
    assert_ne!(new.cell_id(), old.cell_id());
    let source = &new.cell["_source"];
    assert_eq!((&source["s"]["Name"], &source["h"]["Owner"]), (&json!(cell), &Value::Null));
    assert_eq!(new.forward, [""; 0], "references point forward");
    let undone = undo(new, old).unwrap_or_else(|faults| panic!("{cell}:\n{faults}"));
    assert_same(&undone, old, cell);
}

/// The independent checker must find nothing that a cell may not have.
fn assert_sound(system: &System, snapshot: &[u8], what: &str) {
    assert_faults(system, snapshot, &BTreeMap::new(), what);
}

/// The independent checker must find these faults, by kind, and no others.
fn assert_faults(system: &System, snapshot: &[u8], expected: &BTreeMap<String, u64>, what: &str) {
    let file = system.directory().join(format!("{}.zip", uuid::Uuid::new_v4().simple()));
    std::fs::write(&file, snapshot).unwrap();
    let Some(report) = judge::check(&judge::without_integrity(&file)) else {
        return skipped("the independent checker is not here");
    };
    let faults = report["faults"].as_object().unwrap().iter();
    let found: BTreeMap<_, _> = faults.map(|(kind, fault)| (kind.clone(), fault["count"].as_u64().unwrap())).collect();
    assert_eq!(&found, expected, "{what}: {:#}", report["faults"]);
    assert_eq!(report["ok"], expected.is_empty());
    for warning in ["forward-ll", "link-id", "link-order"] {
        assert_eq!(report["warnings"].get(warning), None, "{what}: {:#}", report["warnings"]);
    }
}

/// Removes, changes and adds documents and nodes.
fn damage(system: &System, cell: &str) {
    let of_cell = format!("generation = (SELECT generation FROM cell WHERE name = '{cell}')");
    system.execute(&format!("DELETE FROM document WHERE {of_cell} AND hashtext(id) % 3 = 0"));
    system.execute(&format!(
        "UPDATE document SET body = regexp_replace(body, '\"u\": ?1', '\"u\":2')
         WHERE {of_cell} AND hashtext(id) % 2 = 0"
    ));
    for of in ["Role", "UserData", "link"] {
        system.execute(&format!(
            "INSERT INTO document (generation, type, id, body) SELECT generation, '{of}', 'a-stranger', '{{}}'
             FROM cell WHERE name = '{cell}'"
        ));
    }
    system.execute(&format!("DELETE FROM node WHERE {of_cell} AND hashtext(path) % 3 = 0"));
    system.execute(&format!("UPDATE node SET pmeta = '{{}}' WHERE {of_cell} AND hashtext(path) % 2 = 0"));
    system.execute(&format!(
        "UPDATE node SET blob_id = (SELECT id FROM blob WHERE {of_cell} ORDER BY id LIMIT 1)
         WHERE {of_cell} AND blob_id IS NOT NULL"
    ));
    system.execute(&format!(
        "INSERT INTO node (generation, path, pmeta) SELECT generation, 'a-stranger', '{{}}'
         FROM cell WHERE name = '{cell}'"
    ));
}

#[test]
fn random_cells_are_restored() {
    let mut system = System::start();
    let mut fresh = System::start();
    let _workers = [system.worker(), fresh.worker()];
    for seed in seeds() {
        let began = Instant::now();
        round(&system, &fresh, seed);
        eprintln!("seed {seed}: {:?}", began.elapsed());
    }
}

fn round(system: &System, fresh: &System, seed: u64) {
    eprintln!("seed {seed}");
    let cell = format!("random-{seed}");
    let original = random_cell(seed);
    let file = system.directory().join(format!("{cell}.zip"));
    std::fs::write(&file, &original).unwrap();
    let loaded = system.load(&cell, &file, &[]);
    assert!(loaded.status.success(), "{loaded:?}");
    let first = exported(system, &cell, "first");
    let old = logical::read(&first);
    assert_same(&logical::read(&original), &old, "an export shows what was loaded");
    assert_same_list(&lines(&original), &lines(&first), "documents are lines that nobody writes anew");
    assert_eq!(old.forward, [""; 0], "references point forward");
    assert_sound(system, &first, "the first export");

    damage(system, &cell);
    assert_eq!(import(system, &cell, "first"), json!({"status": "ready"}));
    let again = exported(system, &cell, "again");
    assert_same(&old, &logical::read(&again), "the damaged cell");
    assert_same_bytes(&first, &again, "the damaged cell");

    let other = format!("other-{seed}");
    system.make_cell(&other);
    restore(system, &other, "first", &first);
    let moved = exported(system, &other, "moved");
    assert_moved(system, &other, &logical::read(&moved), &old);
    assert_same_list(&values(&first), &values(&moved), "only ids change");
    assert_sound(system, &moved, "the other cell");
    let unchanged = &assert_up_to_date(system, &other, "first")["changes"]["documents"]["UserData"]["unchanged"];
    assert_eq!(unchanged, old.documents[&DocumentType::UserData].len());
    damage(system, &other);
    assert_eq!(import(system, &other, "first"), json!({"status": "ready"}));
    assert_same_bytes(&moved, &exported(system, &other, "moved-again"), "the other cell, once more");
    assert_same_bytes(&first, &exported(system, &cell, "untouched"), "the first cell while the other one was made");

    // A snapshot of the copy is as good as one of the original.
    let snapshot = if seed.is_multiple_of(2) { &first } else { &moved };
    fresh.make_cell(&cell);
    restore(fresh, &cell, "first", snapshot);
    assert_moved(fresh, &cell, &logical::read(&exported(fresh, &cell, "moved")), &old);
}

// Links that an importer damaged.

/// Writes a snapshot anew with one entry edited.
fn edited(snapshot: &[u8], entry: &str, edit: impl Fn(&str) -> String) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries(snapshot).into_iter().filter(|(name, _)| name != layout::INTEGRITY) {
        if name.ends_with('/') {
            zip.add_directory(name, SimpleFileOptions::default()).unwrap();
            continue;
        }
        zip.start_file(&name, SimpleFileOptions::default()).unwrap();
        if name == entry {
            zip.write_all(edit(std::str::from_utf8(&bytes).unwrap()).as_bytes()).unwrap();
        } else {
            zip.write_all(&bytes).unwrap();
        }
    }
    zip.finish().unwrap().into_inner()
}

fn is_user_link(link: &Value) -> bool {
    DocumentType::parse(link["_source"]["t1"].as_str().unwrap()).is_none()
}

/// A random cell in which what a test needs is there.
fn random_cell_with(wanted: impl Fn(&Logical) -> bool) -> (u64, Vec<u8>) {
    let cells = (1000..1200).map(|seed| (seed, random_cell(seed)));
    cells.into_iter().find(|(_, cell)| wanted(&logical::read(cell))).expect("one of so many")
}

/// Personium's importer gives links random ids and leaves their ends in the order of ids that are no more; then the
/// server makes the same link a second time.
#[test]
fn links_that_an_importer_damaged_are_repaired() {
    let (seed, original) = random_cell_with(|cell| {
        let links = &cell.documents[&DocumentType::Link];
        let users = links.values().filter(|l| is_user_link(l) && l["_source"]["t1"] != l["_source"]["t2"]).count();
        users > 2 && links.len() > users
    });
    let broken = edited(&original, DocumentType::Link.entry(), |text| {
        let mut lines: Vec<String> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            // Sound, with a damaged twin; damaged, with a twin; damaged.
            let kinds: &[&str] = [&["sound", "new id"][..], &["swapped", "new id"], &["swapped"]][number % 3];
            for kind in kinds {
                let mut link: Value = serde_json::from_str(line).unwrap();
                if *kind != "sound" {
                    link["_id"] = format!("{:0>22}", lines.len()).into();
                }
                if *kind == "swapped" && is_user_link(&link) {
                    for (one, other) in [("t1", "t2"), ("k1", "k2")] {
                        let (a, b) = (link["_source"][one].take(), link["_source"][other].take());
                        (link["_source"][one], link["_source"][other]) = (b, a);
                    }
                }
                lines.push(link.to_string());
            }
        }
        lines.join("\n")
    });
    let (old, read) = (logical::read(&original), logical::read(&broken));
    let (sound, all) = (&old.documents[&DocumentType::Link], &read.documents[&DocumentType::Link]);
    let damaged = all.keys().filter(|id| !sound.contains_key(*id)).count();
    let swapped = all.values().filter(|l| l["_source"]["t1"].as_str() > l["_source"]["t2"].as_str()).count();
    assert!(swapped > 0 && damaged < all.len() && all.len() > sound.len(), "{swapped} {damaged} {}", all.len());

    let mut system = System::start();
    let _worker = system.worker();
    let cell = format!("random-{seed}");
    let file = system.directory().join("original.zip");
    std::fs::write(&file, &original).unwrap();
    assert!(system.load(&cell, &file, &[]).status.success());
    restore(&system, &cell, "broken", &broken);
    let repaired = exported(&system, &cell, "repaired");
    assert_same(&old, &logical::read(&repaired), "the same cell");
    assert_sound(&system, &repaired, "the same cell");
    system.make_cell("other");
    restore(&system, "other", "broken", &broken);
    let repaired = exported(&system, "other", "repaired");
    assert_moved(&system, "other", &logical::read(&repaired), &old);
    assert_sound(&system, &repaired, "the other cell");
    for cell in [cell.as_str(), "other"] {
        let found = assert_up_to_date(&system, cell, "broken");
        assert_eq!(found["repaired_links"], damaged, "{found:#}");
    }
}

/// A unit may leave plain files in its tree. They go where the snapshot goes, and can go on from there.
fn leftover(place: impl Fn(&str) -> String) {
    let (_, original) = random_cell_with(|cell| cell.nodes.values().any(|node| node.content.is_some()));
    let read = logical::read(&original);
    let file = read.nodes.iter().find(|(_, node)| node.content.is_some()).unwrap().0;
    let mut zip = ZipWriter::new_append(Cursor::new(original)).unwrap();
    let entry = format!("{}{}", layout::WEBDAV_DIR, place(file));
    zip.start_file(entry, SimpleFileOptions::default()).unwrap();
    zip.write_all(b"half of a file").unwrap();
    let original = zip.finish().unwrap().into_inner();
    let old = logical::read(&original);
    let mut system = System::start();
    let _worker = system.worker();
    system.make_cell("other");
    restore(&system, "other", "original", &original);
    let moved = exported(&system, "other", "moved");
    system.make_cell("third");
    restore(&system, "third", "original", &moved);
    assert_moved(&system, "other", &logical::read(&moved), &old);
    assert_moved(&system, "third", &logical::read(&exported(&system, "third", "moved")), &old);
}

#[test]
fn a_leftover_beside_a_files_contents_stays_one() {
    leftover(|file| format!("{file}/tmp"));
}

#[test]
fn a_leftover_at_the_root_stays_one() {
    leftover(|_| "tmp".to_owned());
}

// Snapshots that others wrote.

fn fixture(name: &str) -> Option<PathBuf> {
    let found = judge::shared(&format!("fixtures/{name}"));
    if found.is_none() {
        skipped(&format!("fixture {name} is not here"));
    }
    found
}

/// Imports a snapshot into a new cell; what an export of that cell says.
fn into_a_new_cell(system: &System, file: &Path) -> Vec<u8> {
    system.make_cell("other");
    restore(system, "other", "original", &std::fs::read(file).unwrap());
    exported(system, "other", "moved")
}

fn version_two(name: &str) {
    let Some(file) = fixture(name) else { return };
    let mut system = System::start();
    let _worker = system.worker();
    let moved = into_a_new_cell(&system, &file);
    assert_sound(&system, &moved, "the other cell");
    assert_moved(&system, "other", &logical::read(&moved), &logical::read(&std::fs::read(&file).unwrap()));
}

#[test]
fn a_real_cell_of_version_2() {
    version_two("unit-manager-v2.zip");
}

#[test]
fn a_generated_cell_with_everything() {
    version_two("small-generated.zip");
}

#[test]
fn a_cell_whose_references_point_forward() {
    version_two("small-by-reference.zip");
}

#[test]
fn a_real_cell_of_version_1() {
    let Some(file) = fixture("unit-manager-v1.zip") else { return };
    let mut system = System::start();
    let _worker = system.worker();
    let original = entries(&std::fs::read(&file).unwrap());
    let moved = into_a_new_cell(&system, &file);
    let new = logical::read(&moved);
    assert_eq!(new.version, 2);
    let lines = original.iter().find(|(name, _)| name == layout::DOCUMENTS_V1).map(|(_, bytes)| bytes).unwrap();
    let documents: Vec<Value> =
        std::str::from_utf8(lines).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let declared = |document: &Value| (document["_type"].to_string(), document["_source"]["s"].to_string());
    let mut expected: Vec<_> = documents.iter().map(declared).collect();
    let mut found: Vec<_> = new.documents.values().flat_map(BTreeMap::values).map(declared).collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    // This cell had links between objects that are no more. They dangle as they did.
    let is_there = |end: &Value| documents.iter().any(|document| document["_id"] == *end);
    let ends = documents.iter().flat_map(|document| ["k1", "k2"].map(|name| &document["_source"][name]));
    let dangling = ends.filter(|end| end.is_string() && !is_there(end)).count() as u64;
    let faults = [("reference".to_owned(), dangling)].into_iter().filter(|(_, count)| *count > 0);
    assert_faults(&system, &moved, &faults.collect(), "the other cell");
    // A checker that takes the cell's own faults for what they are accepts it.
    let snapshot = system.directory().join("version2.zip");
    std::fs::write(&snapshot, &moved).unwrap();
    assert_ne!(judge::accepts_leniently(&judge::without_integrity(&snapshot)), Some(false));
    // Boxes have other names now; the files in them have the same, and the same bytes.
    let below = |path: &str| path.split_once('/').map(|(_, rest)| rest.to_owned()).unwrap_or_default();
    let mut expected: Vec<_> = original
        .iter()
        .filter_map(|(name, bytes)| {
            let path = name.strip_prefix(layout::WEBDAV_DIR)?.strip_suffix("/content")?;
            Some((below(path), hex::encode(Sha256::digest(bytes))))
        })
        .collect();
    let files = new.nodes.iter().filter_map(|(path, node)| Some((below(path), node.content.clone()?.1)));
    let mut found: Vec<_> = files.collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
}

// The comparisons themselves.

/// A random cell with all that the following tests break.
fn rich() -> (Vec<u8>, Logical) {
    let (_, snapshot) = random_cell_with(|cell| {
        let links = &cell.documents[&DocumentType::Link];
        !find(cell, DocumentType::UserData, "/_source/ll/0").is_empty()
            && !find(cell, DocumentType::Role, "/_source/l/Box").is_empty()
            && links.values().any(|l| is_user_link(l) && l["_source"]["t1"] != l["_source"]["t2"])
            && cell.nodes.values().any(|node| href(node).is_some())
            && cell.nodes.keys().any(|path| path.contains('/') && !path.starts_with(layout::MAIN_BOX))
            && cell.nodes.values().any(|node| node.content.is_some())
    });
    let read = logical::read(&snapshot);
    (snapshot, read)
}

/// Ids of the documents that have something.
fn find(cell: &Logical, of: DocumentType, pointer: &str) -> Vec<String> {
    let documents = cell.documents[&of].iter();
    documents.filter(|(_, document)| document.pointer(pointer).is_some()).map(|(id, _)| id.clone()).collect()
}

fn href(node: &system_tests::logical::Node) -> Option<&Value> {
    node.pmeta.as_ref()?.pointer("/a/D.ace/0/D.principal/D.href")
}

/// Another id for every id, in another order.
fn other_id(id: &str) -> String {
    hex::encode(&Sha256::digest(id)[..11])
}

#[test]
fn a_random_cell_is_the_same_every_time_and_never_the_same_for_two_seeds() {
    assert!(random_cell(5) == random_cell(5));
    assert!(random_cell(5) != random_cell(6));
    let all: Vec<_> = (0..100).map(|seed| logical::read(&random_cell(seed))).collect();
    for of in DocumentType::ALL {
        assert!(all.iter().any(|cell| !cell.documents[&of].is_empty()), "no {of} in any cell");
    }
    assert!(all.iter().any(|cell| !cell.forward.is_empty()), "no reference points forward");
    assert!(all.iter().all(|cell| cell.nodes.values().filter(|node| node.content.is_some()).count() < 45));
}

#[test]
fn what_means_the_same_is_the_same() {
    let (snapshot, old) = rich();
    let turned = edited(&snapshot, DocumentType::UserData.entry(), |text| {
        let lines = text.lines().rev().map(|line| {
            let mut document: Value = serde_json::from_str(line).unwrap();
            document["_source"]["s"]["_null"] = Value::Null;
            let mut fields: Vec<_> = document.as_object_mut().unwrap().clone().into_iter().collect();
            fields.reverse();
            Value::Object(fields.into_iter().collect()).to_string()
        });
        lines.collect::<Vec<_>>().join("\n")
    });
    assert_same(&old, &logical::read(&turned), "lines and keys in another order, and nulls");
}

#[test]
fn every_difference_is_seen() {
    let (_, old) = rich();
    let sees = |what: &str, change: &dyn Fn(&mut Logical)| {
        let mut new = old.clone();
        change(&mut new);
        assert_eq!(old.differences(&new).len(), 1, "{what}: {:?}", old.differences(&new));
        assert_eq!(new.differences(&old).len(), 1, "{what}: {:?}", new.differences(&old));
    };
    let user = &find(&old, DocumentType::UserData, "/_source/ll/0")[0];
    let users = |cell: &mut Logical| cell.documents[&DocumentType::UserData][user].clone();
    let put = |cell: &mut Logical, document: Value| {
        cell.documents.get_mut(&DocumentType::UserData).unwrap().insert(user.clone(), document);
    };
    sees("a document is gone", &|cell| {
        cell.documents.get_mut(&DocumentType::UserData).unwrap().remove(user);
    });
    for (pointer, value) in [
        ("/_source/ll/0", json!("a:b")),
        ("/_source/ll", json!([])),
        ("/_source/s/__id", json!("another")),
        ("/_source/u", json!(1)),
        ("/_source/u", json!(1_640_995_200_000.5)),
        ("/_index", json!("another.userdata")),
    ] {
        sees(pointer, &|cell| {
            let mut document = users(cell);
            *document.pointer_mut(pointer).unwrap() = value.clone();
            put(cell, document);
        });
    }
    sees("a zero with another sign", &|cell| cell.cell["_source"]["p"] = json!(-0.0));
    sees("the cell's name", &|cell| cell.cell["_source"]["s"]["Name"] = json!("another"));
    sees("contents", &|cell| {
        cell.nodes.values_mut().find_map(|node| node.content.as_mut()).unwrap().0 += 1;
    });
    sees("an ACL", &|cell| {
        let node = cell.nodes.values_mut().find(|node| href(node).is_some()).unwrap();
        node.pmeta.as_mut().unwrap()["a"]["D.ace"][0]["D.principal"]["D.href"] = json!("another");
    });
    sees("a node is gone", &|cell| drop(cell.nodes.pop_last()));
}

#[test]
fn ids_are_undone_and_every_wrong_one_is_seen() {
    let (_, old) = rich();
    let new = old.with_ids(other_id);
    assert!(!new.differences(&old).is_empty());
    assert_same(&undo(&new, &old).unwrap(), &old, "all ids are others");
    assert_same(&undo(&old, &old).unwrap(), &old, "all ids are the same");
    let sees = |what: &str, words: &str, change: &dyn Fn(&mut Logical)| {
        let mut broken = new.clone();
        change(&mut broken);
        match undo(&broken, &old) {
            Ok(undone) => panic!("{what}: not seen; {:?}", undone.differences(&old)),
            Err(faults) => assert!(faults.contains(words), "{what}: {faults}"),
        }
    };
    let documents = |cell: &mut Logical, of: DocumentType, change: &dyn Fn(&mut Value) -> bool| {
        let documents = cell.documents.get_mut(&of).unwrap();
        let changed = documents.clone().into_iter().any(|(id, mut document)| {
            let changed = change(&mut document);
            if changed {
                documents.remove(&id);
                documents.insert(document["_id"].as_str().unwrap().to_owned(), document);
            }
            changed
        });
        assert!(changed, "nothing to break");
    };
    let set = |document: &mut Value, pointer: &str, value: &str| {
        document.pointer_mut(pointer).map(|place| *place = value.into()).is_some()
    };
    let a_role = other_id(old.documents[&DocumentType::Role].keys().next().unwrap());
    let first = find(&old, DocumentType::UserData, "/_source/ll/0")[0].clone();
    let old_entry = old.documents[&DocumentType::UserData][&first]["_source"]["ll"][0].as_str().unwrap().to_owned();
    let (old_type, old_target) = old_entry.split_once(':').unwrap();
    for (entry, words) in [
        (old_entry.clone(), "still has the old id"),
        (format!("{}:{old_target}", other_id(old_type)), "still has the old id"),
        (format!("{old_type}:{}", other_id(old_target)), "still has the old id"),
        (format!("{}:{a_role}", other_id(old_type)), "elsewhere"),
    ] {
        sees("a reference of user data", words, &|cell| {
            documents(cell, DocumentType::UserData, &|d| {
                d["_id"] == other_id(&first) && set(d, "/_source/ll/0", &entry)
            });
        });
    }
    let box_reference = |d: &mut Value| set(d, "/_source/l/Box", &a_role);
    sees("the box of a role", "elsewhere", &|cell| documents(cell, DocumentType::Role, &box_reference));
    for name in ["c", "b", "n", "t"] {
        sees(name, "elsewhere", &|cell| {
            documents(cell, DocumentType::UserData, &|d| set(d, &format!("/_source/{name}"), "another"));
        });
    }
    sees("a document with its old id", "still has the old id", &|cell| {
        documents(cell, DocumentType::Account, &|d| {
            let id = old.documents[&DocumentType::Account].keys().next().unwrap();
            d["_id"] == other_id(id) && set(d, "/_id", id)
        });
    });
    sees("a document in which a text changed", "s.Name", &|cell| {
        documents(cell, DocumentType::Account, &|d| set(d, "/_source/s/Name", "another"));
    });
    sees("a document too many", "is nobody's", &|cell| {
        documents(cell, DocumentType::Account, &|d| set(d, "/_id", "another") && set(d, "/_source/s/Name", "another"));
        let more = new.documents[&DocumentType::Account].clone();
        cell.documents.get_mut(&DocumentType::Account).unwrap().extend(more);
    });
    let swap = |d: &mut Value, names: &[(&str, &str)], id: bool| {
        if !is_user_link(d) || d["_source"]["t1"] == d["_source"]["t2"] {
            return false;
        }
        for (one, other) in names {
            let (a, b) = (d["_source"][one].take(), d["_source"][other].take());
            (d["_source"][*one], d["_source"][*other]) = (b, a);
        }
        if id {
            d["_id"] =
                format!("{}-{}", d["_source"]["k1"].as_str().unwrap(), d["_source"]["k2"].as_str().unwrap()).into();
        }
        true
    };
    let both = &[("t1", "t2"), ("k1", "k2")];
    sees("the ends of a link, swapped", "does not follow from its ends", &|cell| {
        documents(cell, DocumentType::Link, &|d| swap(d, both, true));
    });
    sees("the ends of a link, swapped under the old id", "does not follow from its ends", &|cell| {
        documents(cell, DocumentType::Link, &|d| swap(d, both, false));
    });
    sees("the keys of a link, swapped", "is nobody's", &|cell| {
        documents(cell, DocumentType::Link, &|d| swap(d, &both[1..], true));
    });
    sees("the _id of a link", "does not follow from its ends", &|cell| {
        documents(cell, DocumentType::Link, &|d| set(d, "/_id", "another"));
    });
    let node = |cell: &mut Logical, pointer: &str, value: &str| {
        let mut places = cell.nodes.values_mut().filter_map(|node| node.pmeta.as_mut()?.pointer_mut(pointer));
        *places.next().unwrap() = value.into();
    };
    let principal = "/a/D.ace/0/D.principal/D.href";
    let old_role = old.nodes.values().find_map(href).unwrap().as_str().unwrap();
    sees("an ACL", "elsewhere", &|cell| node(cell, principal, &other_id(&first)));
    sees("an ACL with the old role", "still has the old id", &|cell| node(cell, principal, old_role));
    let collections = old.nodes.values().filter_map(|node| node.pmeta.as_ref());
    let collection = collections.into_iter().find(|pmeta| pmeta["t"] == "col.odata").unwrap()["i"].as_str().unwrap();
    sees("the id of a collection", "still has the old id", &|cell| {
        let mut places = cell.nodes.values_mut().filter_map(|node| node.pmeta.as_mut());
        places.find(|pmeta| pmeta["i"] == other_id(collection)).unwrap()["i"] = collection.into();
    });
    sees("a box under its old id", "still has the old id", &|cell| {
        let boxes = old.documents[&DocumentType::Box].keys();
        let moved = boxes.filter_map(|id| Some((id, cell.nodes.remove(&other_id(id))?))).next();
        let (id, node) = moved.unwrap();
        cell.nodes.insert(id.clone(), node);
    });
    sees("an old id in a field of whatever name", "still has the old id", &|cell| {
        documents(cell, DocumentType::Account, &|d| {
            d["_source"]["x"] = json!({"y": [format!("{first}:z")]});
            true
        });
    });
}
