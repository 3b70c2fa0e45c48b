//! What entries are called, and what they are.

use exporter_worker::import::Origin;
use serde_json::Value;
use sqlx::PgPool;

use crate::raw::{Entry, Raw};
use crate::{Place, ROLE, find, sample, text};

const PATH: &str = "the name is not a plain relative path";
const LONG: &str = "the path is too deep or one of its names too long";

/// Names nobody may have, and what the refusal must say.
const BAD: &[(&str, &[u8], &str)] = &[
    ("up and out", b"20_webdav/../../etc/passwd", PATH),
    ("up within", b"20_webdav/__/x/../y/content", PATH),
    ("up at the end", b"20_webdav/__/..", PATH),
    ("up as a directory", b"20_webdav/__/../", PATH),
    ("up alone", b"..", PATH),
    ("here", b"20_webdav/./x/.pmeta", PATH),
    ("here alone", b".", PATH),
    ("absolute", b"/etc/passwd", PATH),
    ("of another host", b"//host/share", PATH),
    ("the root", b"/", PATH),
    ("a drive", b"C:/windows/x", PATH),
    ("a drive's own path", b"C:x", "not an entry of a snapshot"),
    ("backslashes", b"20_webdav\\__\\x", PATH),
    ("up with backslashes", b"20_webdav/..\\..\\x", PATH),
    ("a NUL", b"20_webdav/__/a\0b/content", PATH),
    ("a NUL behind a good name", b"10_odata/12_extcell.pjson\0", PATH),
    ("a line feed", b"20_webdav/__/a\nb", PATH),
    ("an escape", b"20_webdav/__/\x1b[2J", PATH),
    ("a control of two bytes", b"20_webdav/__/\xc2\x85", PATH),
    ("an empty name", b"", PATH),
    ("an empty segment", b"20_webdav//__/x", PATH),
    ("an empty last segment", b"20_webdav/__/x//", PATH),
    ("not UTF-8", b"20_webdav/__/\xff\xfe", "the name is not UTF-8"),
    ("overlong UTF-8", b"20_webdav/__/\xc0\xae\xc0\xae/x", "the name is not UTF-8"),
    ("half a surrogate pair", b"20_webdav/__/\xed\xa0\x80", "the name is not UTF-8"),
    ("no entry of a snapshot", b"readme.txt", "readme.txt: not an entry of a snapshot"),
    ("of no type", b"10_odata/99_more.pjson", "99_more.pjson: not an entry of a snapshot"),
    ("another case", b"10_ODATA/20_role.pjson", "10_ODATA/20_role.pjson: "),
    ("a lone file in the tree", b"20_webdav/__/stray.txt", "stray.txt: not an entry of a snapshot"),
    ("a cell's keys", b"20_webdav/.pkeys/key", "keys and login records do not belong"),
    ("the record of logins", b"20_webdav/.pauthhistory/x", "keys and login records do not belong"),
];

#[sqlx::test(migrator = "model::store::MIGRATOR")]
async fn names_that_lead_elsewhere(pool: PgPool) {
    let place = Place::new(pool);
    for (case, name, words) in BAD {
        let mut raw = sample();
        raw.entries.push(Entry::stored(name, ""));
        place.refuses(case, &raw.bytes(), words).await;
    }
    for (case, name, words) in [
        ("a long segment", format!("20_webdav/{}/.pmeta", "x".repeat(766)), LONG),
        ("65 segments", format!("20_webdav/{}.pmeta", "x/".repeat(63)), LONG),
        ("512 segments", format!("{}x", "x/".repeat(511)), LONG),
        ("a long name", format!("20_webdav/{}", "x".repeat(1100)), "the name is too long"),
        ("the longest name there is", format!("20_webdav/{}", "x".repeat(65_525)), "the name is too long"),
    ] {
        let mut raw = sample();
        raw.entries.push(Entry::stored(name, ""));
        place.refuses(case, &raw.bytes(), words).await;
    }
    // Names that only look bad: nothing unpacks them here, and a user may have them.
    let mut raw = sample();
    add_file(&mut raw, "a..b");
    add_file(&mut raw, "...");
    add_file(&mut raw, "trailing.");
    add_file(&mut raw, "C:");
    add_file(&mut raw, "CON");
    place.takes("odd names", Origin::Anybody, &raw.bytes()).await;
}

/// Adds a file in the main box, like one that is there.
fn add_file(raw: &mut Raw, name: &str) {
    let pmeta = text(raw, &find(raw, "empty.bin/.pmeta"));
    raw.entries.push(Entry::stored(format!("20_webdav/__/{name}/.pmeta"), pmeta));
    raw.entries.push(Entry::stored(format!("20_webdav/__/{name}/content"), ""));
}

#[sqlx::test(migrator = "model::store::MIGRATOR")]
async fn names_that_some_systems_take_for_one(pool: PgPool) {
    let place = Place::new(pool);
    for (case, one, other) in [
        ("case", "A.txt", "a.txt"),
        ("case beyond ASCII", "É", "é"),
        ("NFC and NFD", "\u{e9}", "e\u{301}"),
        ("Hangul and its parts", "\u{ac00}", "\u{1100}\u{1161}"),
        ("the sign of a unit", "\u{212b}", "\u{e5}"),
    ] {
        let mut raw = sample();
        add_file(&mut raw, one);
        add_file(&mut raw, other);
        let zip = raw.bytes();
        place.refuses(case, &zip, "differs from another entry in case or Unicode form only").await;
        // An export wrote both: a cell may well have them.
        let sound = place.takes(case, Origin::Anybody, &sample().bytes()).await;
        assert_eq!(place.takes(case, Origin::Ours, &zip).await.files, sound.files + 2, "{case}");
    }
    let mut raw = sample();
    raw.entries.push(Entry::stored("20_webdav/__", ""));
    place.refuses("a file and a directory", &raw.bytes(), "20_webdav/__").await;
    let mut raw = sample();
    raw.entries.push(Entry::stored("10_odata", ""));
    place.refuses("a file in place of a directory", &raw.bytes(), "10_odata: ").await;
}

#[sqlx::test(migrator = "model::store::MIGRATOR")]
async fn entries_that_are_no_files(pool: PgPool) {
    let place = Place::new(pool);
    for (case, mode) in [
        ("a symlink", 0o120_777),
        ("a character device", 0o020_666),
        ("a block device", 0o060_666),
        ("a fifo", 0o010_666),
        ("a socket", 0o140_777),
        ("no kind there is", 0o150_000),
    ] {
        let mut raw = sample();
        raw.entries.push(Entry::stored("20_webdav/tmp", "/etc/passwd").mode(mode));
        place.refuses(case, &raw.bytes(), "20_webdav/tmp: neither a file nor a directory").await;
        // In place of an entry that must be there, too.
        let mut raw = sample();
        raw.entry(ROLE).attributes = mode << 16;
        place.refuses(case, &raw.bytes(), "20_role.pjson: neither a file nor a directory").await;
    }
    let mut raw = sample();
    raw.entries.push(Entry::stored("20_webdav/link/", "/etc/passwd").mode(0o120_777));
    place.refuses("a symlink called a directory", &raw.bytes(), "neither a file nor a directory").await;
    let mut raw = sample();
    raw.entries.push(Entry::stored("20_webdav/__/x/", "bytes"));
    place.refuses("a directory with bytes", &raw.bytes(), "20_webdav/__/x/: a directory with bytes").await;
}

#[sqlx::test(migrator = "model::store::MIGRATOR")]
async fn methods_nobody_needs(pool: PgPool) {
    let place = Place::new(pool);
    for (case, method) in [
        ("shrink", 1),
        ("implode", 6),
        ("deflate64", 9),
        ("bzip2", 12),
        ("LZMA", 14),
        ("zstd", 93),
        ("xz", 95),
        ("AES", 99),
        ("no method", 4711),
    ] {
        let mut raw = sample();
        *raw.entry(ROLE) = raw.entry(ROLE).clone().both(|header| header.method = method);
        place.refuses(case, &raw.bytes(), "20_role.pjson: neither stored nor deflated").await;
    }
    for (case, flags) in [
        ("encrypted", 1),
        ("strongly encrypted", 0x41),
        ("strongly encrypted, but not", 0x40),
        ("a masked directory", 0x2000),
    ] {
        let mut raw = sample();
        *raw.entry(ROLE) = raw.entry(ROLE).clone().both(|header| header.flags |= flags);
        place.refuses(case, &raw.bytes(), "20_role.pjson: encrypted").await;
    }
    let mut raw = sample();
    *raw.entry(ROLE) = raw.entry(ROLE).clone().both(|header| header.flags |= 0x20);
    place.refuses("patched data", &raw.bytes(), "20_role.pjson: patched data").await;
    let mut raw = sample();
    let manifest = text(&raw, crate::MANIFEST);
    assert!(serde_json::from_str::<Value>(&manifest).is_ok());
    *raw.entry(crate::MANIFEST) = raw.entry(crate::MANIFEST).clone().both(|header| header.flags |= 1);
    place.refuses("an encrypted manifest", &raw.bytes(), "").await;
}
