//! A dry run lists everything that is wrong with a snapshot, stores nothing, and ends.

use exporter_worker::import::Examined;
use sqlx::PgPool;

use crate::raw::{End, Entry};
use crate::{CELL, INTEGRITY, MANIFEST, Place, ROLE, USERDATA, find, integrity, replace, sample, text};

fn says(examined: &Examined, words: &str) {
    assert!(!examined.importable);
    let listed = &examined.faults.listed;
    assert!(listed.iter().any(|fault| fault.contains(words)), "{words:?} is not in {listed:#?}");
}

#[sqlx::test(migrator = "model::store::MIGRATOR")]
async fn everything_that_is_wrong_is_listed(pool: PgPool) {
    let place = Place::new(pool);
    let sound = place.examines("the sample", &sample().bytes()).await;
    assert!(sound.importable && sound.faults.count == 0, "{sound:?}");
    let mut raw = sample();
    replace(&mut raw, ROLE, "\"_type\":\"Role\"", "\"_type\":\"Box\"");
    let users = text(&raw, USERDATA);
    raw.put(USERDATA, format!("{users}\n[]\n"));
    let pmeta = find(&raw, "写真/.pmeta");
    raw.put(&pmeta, "{");
    let content = find(&raw, "empty.bin/content");
    raw.entries.retain(|entry| entry.central.name != content.as_bytes());
    raw.entries.push(Entry::stored("readme.txt", ""));
    raw.entries.push(Entry::stored("20_webdav/../x", ""));
    raw.entries.push(Entry::stored("20_webdav/tmp", "x").mode(0o120_777));
    let examined = place.examines("eight faults", &raw.bytes()).await;
    for words in [
        "20_role.pjson:1: _type is",
        "70_userdata.pjson:13: a blank line",
        "70_userdata.pjson:14: not a JSON object",
        "写真/.pmeta: EOF",
        "empty.bin/.pmeta: a file without content",
        "readme.txt: not an entry of a snapshot",
        "20_webdav/../x: the name is not",
        "20_webdav/tmp: neither a file",
    ] {
        says(&examined, words);
    }
    assert_eq!(examined.faults.count, 8, "{:#?}", examined.faults);
    let mut record = integrity::record(&raw);
    for entry in record["entries"].as_array_mut().unwrap() {
        if entry["name"] == ROLE {
            entry["sha256"] = "0".repeat(64).into();
        }
    }
    record["files"] = 99.into();
    raw.put(INTEGRITY, record.to_string());
    let examined = place.examines("faults of the record too", &raw.bytes()).await;
    says(&examined, "20_role.pjson: is not what 99_integrity.json says");
    says(&examined, "99_integrity.json: 99 files");
    says(&examined, "20_role.pjson:1: _type is");
    // Without the cell document nothing more can be said.
    raw.put(CELL, "{}");
    let examined = place.examines("no cell", &raw.bytes()).await;
    says(&examined, "00_cell.json: ");
    says(&examined, "readme.txt: not an entry of a snapshot");
}

#[sqlx::test(migrator = "model::store::MIGRATOR")]
async fn many_faults_are_counted_and_few_are_listed(pool: PgPool) {
    let place = Place::new(pool);
    let mut raw = sample();
    raw.put(ROLE, "x\n".repeat(200_000));
    let examined = place.examines("garbage", &raw.bytes()).await;
    assert_eq!((examined.faults.count, examined.faults.listed.len()), (200_000, 200));
    assert!(examined.faults.listed.iter().all(|fault| fault.chars().count() <= 300));
}

#[sqlx::test(migrator = "model::store::MIGRATOR")]
async fn what_ends_everything_ends_a_dry_run(pool: PgPool) {
    let place = Place::new(pool);
    let sound = sample().bytes();
    for (case, zip) in [
        ("nothing", Vec::new()),
        ("half", sound[..sound.len() / 2].to_vec()),
        ("only an end", End::default().bytes(0)),
        ("ten million entries", sample().bytes_with(Vec::new(), |end| end.in_64().entries = 10_000_000)),
        ("another local name", {
            let mut raw = sample();
            raw.entry(ROLE).local.name[0] ^= 1;
            raw.bytes()
        }),
    ] {
        let examined = place.examines(case, &zip).await;
        assert_eq!((examined.importable, examined.faults.count), (false, 1), "{case}: {examined:?}");
        assert!(!examined.faults.listed[0].is_empty(), "{case}");
    }
    // Entries without which nothing can be said, present but unfit.
    for name in [MANIFEST, CELL] {
        let mut raw = sample();
        raw.entry(name).attributes = 0o120_777 << 16;
        says(&place.examines(name, &raw.bytes()).await, "neither a file nor a directory");
        let mut raw = sample();
        raw.put(name, "{");
        says(&place.examines(name, &raw.bytes()).await, "");
        let mut raw = sample();
        *raw.entry(name) = raw.entry(name).clone().both(|header| header.crc ^= 1);
        says(&place.examines(name, &raw.bytes()).await, "");
    }
    // Sizes that lie.
    for size in [u64::MAX, 1 << 60, 1 << 40] {
        let mut raw = sample();
        let name = find(&raw, "empty.bin/content");
        *raw.entry(&name) = raw.entry(&name).clone().both(|header| {
            header.extra = crate::raw::zip64(&[size, 0]);
            (header.size, header.compressed) = (u32::MAX, u32::MAX);
        });
        let examined = place.examines("a huge size", &raw.bytes()).await;
        says(&examined, "");
        let mut raw = sample();
        *raw.entry(&name) = Entry::deflated(&name, "").both(|header| {
            header.extra = crate::raw::zip64(&[size, 2]);
            (header.size, header.compressed) = (u32::MAX, u32::MAX);
        });
        replace(&mut raw, &name.replace("content", ".pmeta"), "\"cl\":0", &format!("\"cl\":{size}"));
        let examined = place.examines("a huge size, deflated", &raw.bytes()).await;
        says(&examined, "");
    }
}
