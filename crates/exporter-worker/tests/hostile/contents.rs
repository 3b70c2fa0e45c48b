//! Sound archives of what is no cell. Documents and `.pmeta` have their own tests; these go the whole way.

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::raw::{Entry, Raw};
use crate::{CELL, MANIFEST, Place, ROLE, USERDATA, find, replace, sample, text};

/// A value of each kind, and what it is.
fn values() -> [(&'static str, Value); 7] {
    [
        ("null", Value::Null),
        ("a boolean", json!(true)),
        ("an integer", json!(1_640_995_200_000i64)),
        ("a fraction", json!(1.5)),
        ("a string", json!("/")),
        ("an array", json!([1])),
        ("an object", json!({"x": 1})),
    ]
}

/// The fields of the cell document: where, whether they must be there, and the kinds that are right.
const CELL_FIELDS: &[(&str, bool, &[&str])] = &[
    ("/_index", true, &[]),
    ("/_type", true, &[]),
    ("/_id", true, &[]),
    ("/_source", true, &[]),
    ("/_source/type", true, &[]),
    ("/_source/p", true, &["an integer"]),
    ("/_source/u", true, &["an integer"]),
    ("/_source/s", true, &[]),
    ("/_source/s/Name", true, &["a string"]),
    ("/_source/h", true, &["an object"]),
    ("/_source/h/Owner", false, &["a string", "null"]),
];

const MANIFEST_FIELDS: &[(&str, bool, &[&str])] =
    &[("/export_version", true, &[]), ("/unit_url", true, &["a string"]), ("/create_date", true, &["an integer"])];

#[sqlx::test(migrator = "model::store::MIGRATOR")]
async fn a_wrong_kind_in_every_field(pool: PgPool) {
    let place = Place::new(pool);
    for (entry, fields) in [(CELL, CELL_FIELDS), (MANIFEST, MANIFEST_FIELDS)] {
        let sound: Value = serde_json::from_str(&text(&sample(), entry)).unwrap();
        for (field, required, right) in fields {
            for (kind, value) in values() {
                if right.contains(&kind) {
                    continue;
                }
                let mut wrong = sound.clone();
                *wrong.pointer_mut(field).unwrap() = value;
                refuses_json(&place, &format!("{entry}{field} is {kind}"), entry, &wrong.to_string()).await;
            }
            if *required {
                let mut wrong = sound.clone();
                let (parent, name) = field.rsplit_once('/').unwrap();
                wrong.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name);
                refuses_json(&place, &format!("{entry}{field} is missing"), entry, &wrong.to_string()).await;
            }
        }
    }
    let sound: Value = serde_json::from_str(&text(&sample(), CELL)).unwrap();
    for (field, wrong) in [
        ("/_id", "a/b"),
        ("/_id", "not base64url"),
        ("/_id", ""),
        ("/_type", "Role"),
        ("/_source/type", "Role"),
        ("/_index", "u0_ad.role"),
    ] {
        let mut cell = sound.clone();
        *cell.pointer_mut(field).unwrap() = wrong.into();
        refuses_json(&place, &format!("{CELL}{field} is {wrong:?}"), CELL, &cell.to_string()).await;
    }
    let mut cell = sound.clone();
    cell["_id"] = "x".repeat(65).into();
    refuses_json(&place, "an id too long", CELL, &cell.to_string()).await;
    let mut cell = sound.clone();
    cell["_source"]["c"] = "another".into();
    refuses_json(&place, "a cell of another cell", CELL, &cell.to_string()).await;
    let mut cell = sound;
    cell["more"] = "x".into();
    refuses_json(&place, "more than a cell", CELL, &cell.to_string()).await;
}

/// The words name the entry, or are Personium's for a manifest it cannot read.
async fn refuses_json(place: &Place, case: &str, entry: &str, json: &str) {
    let mut raw = sample();
    raw.put(entry, json);
    let words = if entry == MANIFEST { "" } else { "10_odata/00_cell.json: " };
    place.refuses(case, &raw.bytes(), words).await;
}

/// Texts that are no JSON of a snapshot, wherever they stand, made from a sound object.
fn no_json(sound: &str) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let with = |field: &str| sound.replacen('{', &format!("{{{field},"), 1).into_bytes();
    let nested = |depth: usize| with(&format!("\"x\":{}{}", "[".repeat(depth), "]".repeat(depth)));
    let long = "9".repeat(10_000);
    vec![
        ("nothing", Vec::new(), ""),
        ("a part of it", sound.as_bytes()[..sound.len() - 1].to_vec(), ""),
        ("twice", [sound, sound].concat().into_bytes(), ""),
        ("a string", br#""x""#.to_vec(), ""),
        ("an array", b"[]".to_vec(), ""),
        ("null", b"null".to_vec(), ""),
        ("a mark of byte order", ["\u{feff}", sound].concat().into_bytes(), ""),
        ("UTF-16", sound.encode_utf16().flat_map(u16::to_le_bytes).collect(), ""),
        ("no UTF-8", [&with("\"x\":\"y\"")[..], b"\xff"].concat(), ""),
        ("no UTF-8 in a string", replaced(with("\"x\":\"?\""), b'?', 0xff), ""),
        ("a control in a string", with("\"x\":\"\0\""), ""),
        ("a lone high surrogate", with(r#""x":"\ud83d""#), ""),
        ("a lone low surrogate", with(r#""x":"\ude00""#), ""),
        ("surrogates the wrong way round", with(r#""x":"\ude00\ud83d""#), ""),
        ("a lone surrogate in a key", with(r#""\ud83d":1"#), ""),
        ("half an escape", with(r#""x":"\u00""#), ""),
        ("a key twice", with(r#""x":1,"x":2"#), "an object has a key twice"),
        ("a key twice, written differently", with(r#""x":1,"\u0078":2"#), "an object has a key twice"),
        ("a key twice, deeper", with(r#""x":[{"y":1,"y":2}]"#), "an object has a key twice"),
        ("depth 33", nested(32), "nested deeper than 32"),
        ("depth 60,000", nested(30_000), "nested deeper than 32"),
        ("an integer of 64 bits and one more", with("\"x\":9223372036854775808"), "does not fit 64 bits"),
        ("a small integer of 64 bits and one more", with("\"x\":-9223372036854775809"), "does not fit 64 bits"),
        ("an integer of 10,000 digits", with(&format!("\"x\":{long}")), ""),
        ("a fraction beyond every number", with("\"x\":1e999"), ""),
        ("no number", with("\"x\":NaN"), ""),
        ("a number with a zero before it", with("\"x\":012"), ""),
        ("a comment", with("/* */\"x\":1"), ""),
        ("single quotes", with("'x':1"), ""),
    ]
}

fn replaced(mut bytes: Vec<u8>, from: u8, to: u8) -> Vec<u8> {
    bytes.iter_mut().filter(|b| **b == from).for_each(|b| *b = to);
    bytes
}

#[sqlx::test(migrator = "model::store::MIGRATOR")]
async fn texts_that_are_no_json(pool: PgPool) {
    let place = Place::new(pool);
    let pmeta = find(&sample(), "海.jpg/.pmeta");
    for (entry, shown) in [(ROLE, "20_role.pjson:1: "), (CELL, "00_cell.json: "), (&pmeta, ".pmeta: ")] {
        let whole = text(&sample(), entry);
        let sound = whole.lines().next().unwrap();
        for (case, bytes, words) in no_json(sound) {
            let mut raw = sample();
            // A document is a line; no line is no fault.
            let line = if entry == ROLE { [&bytes[..], b"\n"].concat() } else { bytes };
            raw.put(entry, &line);
            let case = format!("{entry}: {case}");
            place.refuses(&case, &raw.bytes(), shown).await;
            if !words.is_empty() {
                place.refuses(&case, &raw.bytes(), words).await;
            }
        }
    }
    // Of a manifest Personium's code says no more than that it is none.
    for (case, bytes, _) in no_json(&text(&sample(), MANIFEST)) {
        let mut raw = sample();
        raw.put(MANIFEST, &bytes);
        place.refuses(&format!("{MANIFEST}: {case}"), &raw.bytes(), "").await;
    }
}

#[sqlx::test(migrator = "model::store::MIGRATOR")]
async fn deep_json_of_a_million_levels(pool: PgPool) {
    let place = Place::new(pool);
    for opening in ["[", "{\"x\":"] {
        let mut raw = sample();
        raw.put(ROLE, opening.repeat(1_000_000));
        place.refuses("a document", &raw.bytes(), "20_role.pjson:1: nested deeper than 32").await;
    }
}

type Change = fn(&mut Raw);

/// One fault of each kind, through the whole of an import.
const CONTENTS: &[(&str, Change, &str)] = &[
    ("a blank line", |raw| replace(raw, ROLE, "\n", "\n\n"), "20_role.pjson:2: a blank line"),
    (
        "a field of the wrong kind",
        |raw| replace(raw, ROLE, "\"Name\":\"admin\"", "\"Name\":7"),
        "20_role.pjson:1: _source.s.Name is not a string",
    ),
    ("a document of another cell", |raw| replace(raw, ROLE, "\"c\":\"", "\"c\":\"x"), "20_role.pjson:1: c is \"x"),
    ("an id with a slash", |raw| replace(raw, ROLE, "\"_id\":\"", "\"_id\":\"../"), "20_role.pjson:1: _id is not"),
    ("an id twice", |raw| twice(raw, ROLE), "20_role.pjson: the _id"),
    (
        "a reference of the wrong kind",
        |raw| replace(raw, USERDATA, "\"ll\":[", "\"ll\":[7,"),
        "70_userdata.pjson:1: ll entry 7",
    ),
    ("a time in seconds", |raw| replace(raw, ROLE, "\"u\":1640995200000", "\"u\":-1"), "_source.u=-1 is not epoch"),
    ("a length of the wrong kind", |raw| replace(raw, &jpg(raw), "\"cl\":20000", "\"cl\":\"20000\""), "cl is not an"),
    ("another length", |raw| replace(raw, &jpg(raw), "\"cl\":20000", "\"cl\":19999"), ".pmeta says 19999"),
    ("a negative length", |raw| replace(raw, &jpg(raw), "\"cl\":20000", "\"cl\":-1"), "cl is not an integer"),
    ("an encrypted file", |raw| replace(raw, &jpg(raw), "\"NONE\"", "\"AES\""), "are never encrypted"),
    ("a node of no type", |raw| replace(raw, &jpg(raw), "dav.file", "dav.link"), "unknown node type \"dav.link\""),
    ("rights of the wrong kind", |raw| replace(raw, &jpg(raw), "\"a\":{}", "\"a\":{\"D.ace\":1}"), "a.D.ace is not"),
    (
        "a .pmeta of a mebibyte and more",
        |raw| {
            let name = jpg(raw);
            replace(raw, &name, "\"d\":{}", &format!("\"d\":{{\"x@y\":\"{}\"}}", "x".repeat(1 << 20)));
        },
        "longer than 1048576 bytes",
    ),
    ("a cell document of 64 KiB and more", |raw| pad(raw, CELL), "00_cell.json: longer than 65536 bytes"),
    ("a manifest of 64 KiB and more", |raw| pad(raw, MANIFEST), "the manifest is too long"),
    (
        "a file without contents",
        |raw| {
            let name = jpg(raw).replace(".pmeta", "content");
            raw.entries.retain(|entry| entry.central.name != name.as_bytes());
        },
        "a file without content",
    ),
    (
        "contents without a file",
        |raw| raw.entries.push(Entry::stored("20_webdav/__/stray/content", "x")),
        "20_webdav/__/stray: a directory without .pmeta",
    ),
    (
        "a file in a file",
        |raw| {
            let pmeta = text(raw, &jpg(raw));
            let name = jpg(raw).replace(".pmeta", "x/.pmeta");
            raw.put(&name, pmeta);
        },
        "海.jpg/.pmeta: a file with children",
    ),
    (
        "a cell without its own .pmeta",
        |raw| raw.entries.retain(|entry| entry.central.name != b"20_webdav/.pmeta"),
        "20_webdav/: a directory without .pmeta",
    ),
];

fn jpg(raw: &Raw) -> String {
    find(raw, "海.jpg/.pmeta")
}

fn twice(raw: &mut Raw, name: &str) {
    let text = text(raw, name);
    raw.put(name, text.repeat(2));
}

fn pad(raw: &mut Raw, name: &str) {
    let text = text(raw, name);
    raw.put(name, format!("{text}{}", " ".repeat(1 << 16)));
}

#[sqlx::test(migrator = "model::store::MIGRATOR")]
async fn what_is_no_cell(pool: PgPool) {
    let place = Place::new(pool);
    for (case, change, words) in CONTENTS {
        let mut raw = sample();
        change(&mut raw);
        place.refuses(case, &raw.bytes(), words).await;
    }
}
