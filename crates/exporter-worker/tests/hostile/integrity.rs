//! Snapshots whose record of themselves is another one's.

use model::layout::DocumentType;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::PgPool;

use crate::raw::Raw;
use crate::{CELL, INTEGRITY, Place, ROLE, find, sample};
use exporter_worker::import::Origin;

/// What an export would write about the sample.
pub(crate) fn record(raw: &Raw) -> Value {
    let mut zip = zip::ZipArchive::new(std::io::Cursor::new(raw.bytes())).unwrap();
    let (mut entries, mut files, mut bytes, mut documents) = (Vec::new(), 0, 0, json!({}));
    for index in 0..zip.len() {
        let mut entry = zip.by_index(index).unwrap();
        let name = String::from_utf8(entry.name_raw().to_vec()).unwrap();
        let mut contents = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut contents).unwrap();
        if let Some(of) = DocumentType::ALL.into_iter().find(|of| of.entry() == name) {
            documents[of.name()] = contents.iter().filter(|b| **b == b'\n').count().into();
        }
        if name.ends_with("/content") {
            files += 1;
            bytes += contents.len();
        }
        if !name.ends_with('/') && name != crate::MANIFEST {
            let sha256 = hex::encode(Sha256::digest(&contents));
            entries.push(json!({"name": name, "size": contents.len(), "sha256": sha256}));
        }
    }
    json!({"version": 1, "documents": documents, "files": files, "bytes": bytes, "entries": entries})
}

fn of<'v>(record: &'v mut Value, name: &str) -> &'v mut Value {
    record["entries"].as_array_mut().unwrap().iter_mut().find(|entry| entry["name"] == name).unwrap()
}

type Lie = fn(&mut Value);

const LIES: &[(&str, Lie, &str)] = &[
    (
        "another digest of documents",
        |record| of(record, ROLE)["sha256"] = "0".repeat(64).into(),
        "10_odata/20_role.pjson: is not what 99_integrity.json says",
    ),
    (
        "another digest of the cell document",
        |record| of(record, CELL)["sha256"] = "0".repeat(64).into(),
        "10_odata/00_cell.json: is not what 99_integrity.json says",
    ),
    (
        "another digest of a file",
        |record| {
            let name = find(&sample(), "海.jpg/content");
            of(record, &name)["sha256"] = "0".repeat(64).into();
        },
        "海.jpg/content: is not what 99_integrity.json says",
    ),
    (
        "another size",
        |record| of(record, ROLE)["size"] = 7.into(),
        "10_odata/20_role.pjson: is not what 99_integrity.json says",
    ),
    (
        "a record missing",
        |record| record["entries"].as_array_mut().unwrap().retain(|entry| entry["name"] != ROLE),
        "10_odata/20_role.pjson: 99_integrity.json has no record of it",
    ),
    (
        "a record of nothing",
        |record| {
            let mut more = of(record, ROLE).clone();
            more["name"] = "20_webdav/__/\ngone".into();
            record["entries"].as_array_mut().unwrap().push(more);
        },
        "99_integrity.json: 20_webdav/__/\\ngone: there is no such entry",
    ),
    (
        "two records of one entry",
        |record| {
            let more = of(record, ROLE).clone();
            record["entries"].as_array_mut().unwrap().push(more);
        },
        "99_integrity.json: 10_odata/20_role.pjson: has two records",
    ),
    (
        "another number of documents",
        |record| record["documents"]["Role"] = 3.into(),
        "99_integrity.json: 3 Role, but there are 2",
    ),
    ("another number of files", |record| record["files"] = 1.into(), "99_integrity.json: 1 files, but there are"),
    ("another number of bytes", |record| record["bytes"] = 1.into(), "99_integrity.json: 1 bytes of files, but"),
    ("another version", |record| record["version"] = 2.into(), "99_integrity.json: only version 1 can be verified"),
    ("no version", |record| drop(record.as_object_mut().unwrap().remove("version")), "99_integrity.json: only version"),
    ("no entries", |record| drop(record.as_object_mut().unwrap().remove("entries")), "99_integrity.json: entries is"),
    ("counts of the wrong kind", |record| record["files"] = "7".into(), "99_integrity.json: invalid type"),
    ("a negative count", |record| record["bytes"] = (-1).into(), "99_integrity.json: invalid value"),
    ("counts of no type", |record| record["documents"]["What"] = 3.into(), "99_integrity.json: What is no entity type"),
    ("records of the wrong kind", |record| record["entries"] = json!({}), "99_integrity.json: invalid type"),
    ("a record of the wrong kind", |record| record["entries"][0] = json!(7), "99_integrity.json: invalid type"),
    ("a record without a name", |record| record["entries"][0] = json!({}), "99_integrity.json: missing field"),
    ("a digest that is none", |record| of(record, ROLE)["sha256"] = "x".into(), "99_integrity.json: a sha256 that is"),
    ("a field nobody knows", |record| record["more"] = json!([[[1]]]), "99_integrity.json: more does not belong"),
    ("no object", |record| *record = json!([]), "99_integrity.json: invalid type"),
];

#[sqlx::test(migrator = "model::store::MIGRATOR")]
async fn a_record_that_lies(pool: PgPool) {
    let place = Place::new(pool);
    let sound = record(&sample());
    let with = |text: &str| {
        let mut raw = sample();
        raw.put(INTEGRITY, text);
        raw.bytes()
    };
    place.takes("the record of the sample", Origin::Anybody, &with(&sound.to_string())).await;
    for (case, lie, words) in LIES {
        let mut record = sound.clone();
        lie(&mut record);
        place.refuses(case, &with(&record.to_string()), words).await;
    }
    for (case, text) in [
        ("nothing", String::new()),
        ("no JSON", "what".to_owned()),
        ("a part of it", sound.to_string().replace("]}", "]")),
        ("twice", sound.to_string().repeat(2)),
        ("a field twice", sound.to_string().replacen('{', "{\"files\":1,", 1)),
        ("entries twice", sound.to_string().replacen('{', "{\"entries\":[],", 1)),
        ("a million levels", format!("{{\"version\":1,\"more\":{}", "[".repeat(1_000_000))),
        ("a million levels of records", format!("{{\"version\":1,\"entries\":{}", "[".repeat(1_000_000))),
        ("a number beyond every number", sound.to_string().replacen("\"size\":", "\"size\":1e999,\"x\":", 1)),
    ] {
        place.refuses(case, &with(&text), "99_integrity.json: ").await;
    }
    // An entry that was changed after its record was written.
    let mut changed = sample();
    changed.put(INTEGRITY, sound.to_string());
    crate::replace(&mut changed, ROLE, "admin", "nimda");
    place.refuses("a changed entry", &changed.bytes(), "20_role.pjson: is not what 99_integrity.json says").await;
}
