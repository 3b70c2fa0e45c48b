//! Archives whose parts contradict each other.

use sqlx::PgPool;

use crate::raw::{End, Entry, Raw, STORED, zip64};
use crate::{MANIFEST, Place, ROLE, find, sample};

type Change = fn(&mut Raw);

/// What is done to the entries of a sound archive, and what the refusal must say.
const ENTRIES: &[(&str, Change, &str)] = &[
    ("local and central name differ", |raw| raw.entry(ROLE).local.name[12] ^= 1, "filename mismatch"),
    ("the local name is longer", |raw| raw.entry(ROLE).local.name.push(b'x'), "filename mismatch"),
    ("the local size differs", |raw| raw.entry(ROLE).local.size += 1, "uncompressed size mismatch"),
    ("the local compressed size differs", |raw| raw.entry(ROLE).local.compressed -= 1, "compressed size mismatch"),
    ("the local checksum differs", |raw| raw.entry(ROLE).local.crc ^= 1, "CRC32 checksum mismatch"),
    ("the local method differs", |raw| raw.entry(ROLE).local.method = STORED, "header inconsistency detected"),
    ("the local flags differ", |raw| raw.entry(ROLE).local.flags |= 1, "header inconsistency detected"),
    (
        "a descriptor in the central header only",
        |raw| raw.entry(ROLE).central.flags |= 8,
        "header inconsistency detected",
    ),
    (
        "a data descriptor whose sizes are not the central ones",
        |raw| {
            let role = raw.entry(ROLE);
            *role = role.clone().both(|header| header.flags |= 8);
            role.local.size = 7;
        },
        "uncompressed size mismatch",
    ),
    (
        "both headers say less than there is",
        |raw| both(raw, |header| header.size -= 1),
        "20_role.pjson: cannot be read",
    ),
    ("both headers say more than there is", |raw| both(raw, |header| header.size += 1), "20_role.pjson: "),
    ("both headers have another checksum", |raw| both(raw, |header| header.crc ^= 1), "Invalid checksum"),
    ("changed data", |raw| change_content(raw, |data| data[100] ^= 1), "海.jpg/content: cannot be read"),
    ("broken compression", |raw| raw.entry(ROLE).data[0] = 0xff, "20_role.pjson: cannot be read"),
    ("the same name twice", |raw| raw.entries.push(Entry::stored(ROLE, "{}")), "an entry name occurs twice"),
    (
        "the same name twice, the manifest",
        |raw| raw.entries.insert(0, Entry::stored(MANIFEST, r#"{"export_version":2}"#)),
        "an entry name occurs twice",
    ),
    (
        "an entry that is not listed",
        |raw| raw.entries.insert(5, Entry::stored("20_webdav/hidden", "x").with(|e| e.no_central = true)),
        "local file header missing from central directory",
    ),
    (
        "a second version of an entry that is not listed",
        |raw| raw.entries.insert(5, Entry::stored(ROLE, "x").with(|e| e.no_central = true)),
        "local file header missing from central directory",
    ),
    (
        "an entry that is only listed",
        |raw| raw.entries.push(Entry::stored("20_webdav/tmp", "x").with(|e| e.no_local = true)),
        "not a readable zip",
    ),
    (
        "two entries with one local header",
        |raw| {
            let twin = Entry::stored("20_webdav/tmp", "").with(|e| (e.no_local, e.offset) = (true, Some(0)));
            raw.entries.push(twin);
        },
        "entries overlap",
    ),
    ("a local header beyond the file", |raw| raw.entry(ROLE).offset = Some(0x7fff_ffff), "not a readable zip"),
    ("a local header in the middle of data", |raw| raw.entry(ROLE).offset = Some(1), "not a readable zip"),
    ("an entry of another disk", |raw| raw.entry(ROLE).disk = 7, "another part of the archive"),
    ("data that goes on behind the file", |raw| both(raw, |header| header.compressed = 0x7fff_ffff), "entries overlap"),
    ("a comment of an entry", |raw| raw.entry(ROLE).comment = b"PK\x05\x06".to_vec(), "an entry has a comment"),
    (
        "zip64: a huge size with little data",
        |raw| lie64(raw, |_| vec![1 << 60, 99], |header| header.size = u32::MAX),
        "",
    ),
    ("zip64: the largest size there is", |raw| lie64(raw, |_| vec![u64::MAX, 99], |header| header.size = u32::MAX), ""),
    (
        "zip64: compressed data longer than the file",
        |raw| lie64(raw, |size| vec![size, 1 << 60], |header| header.compressed = u32::MAX),
        "entries overlap",
    ),
    (
        "zip64: compressed data beyond every number",
        |raw| lie64(raw, |size| vec![size, u64::MAX], |header| header.compressed = u32::MAX),
        "not a readable zip",
    ),
    (
        "zip64: a local header beyond the file",
        |raw| {
            let role = raw.entry(ROLE);
            (role.offset, role.central.extra) = (Some(u32::MAX), zip64(&[1 << 60]));
        },
        "not a readable zip",
    ),
    (
        "zip64: a local header beyond every number",
        |raw| {
            let role = raw.entry(ROLE);
            (role.offset, role.central.extra) = (Some(u32::MAX), zip64(&[u64::MAX - 3]));
        },
        "",
    ),
    (
        "zip64: values that are not there",
        |raw| {
            let role = raw.entry(ROLE);
            (role.offset, role.central.extra) = (Some(u32::MAX), zip64(&[]));
        },
        "",
    ),
    ("an extra field longer than itself", |raw| raw.entry(ROLE).central.extra = vec![1, 0, 99, 0, 1], ""),
    (
        "another name in an extra field",
        |raw| {
            let role = raw.entry(ROLE);
            let (mut field, name) = (vec![0x75, 0x70, 0, 0, 1], b"10_odata/21_rule.pjsox");
            field.extend(crate::raw::crc(&role.central.name).to_le_bytes());
            field.extend(name);
            field[2] = (field.len() - 4) as u8;
            *role = role.clone().both(|header| header.extra.clone_from(&field));
        },
        "",
    ),
];

fn both(raw: &mut Raw, change: impl Fn(&mut crate::raw::Header)) {
    let role = raw.entry(ROLE);
    *role = role.clone().both(change);
}

/// Puts 64-bit values into both headers: size and compressed size.
fn lie64(raw: &mut Raw, values: impl Fn(u64) -> Vec<u64>, change: impl Fn(&mut crate::raw::Header)) {
    both(raw, |header| {
        let values = values(header.size.into());
        header.extra = zip64(&values);
        (header.size, header.compressed) = (u32::MAX, u32::MAX);
        change(header);
    });
}

fn change_content(raw: &mut Raw, change: impl FnOnce(&mut Vec<u8>)) {
    let name = find(raw, "海.jpg/content");
    change(&mut raw.entry(&name).data);
}

#[sqlx::test(migrator = "model::store::MIGRATOR")]
async fn headers_that_lie(pool: PgPool) {
    let place = Place::new(pool);
    for (case, change, words) in ENTRIES {
        let mut raw = sample();
        change(&mut raw);
        place.refuses(case, &raw.bytes(), words).await;
    }
}

type Lie = fn(&mut End);

const NO_ZIP: &str = "not zip file";
const PARTS: &str = "the archive has several parts";
const DIRECTORY: &str = "the central directory ";

/// What the end of an archive says.
const ENDS: &[(&str, Lie, &str)] = &[
    ("fewer entries than there are", |end| (end.entries, end.entries_here) = (5, 5), DIRECTORY),
    ("more entries than there are", |end| (end.entries, end.entries_here) = (end.entries + 1, end.entries + 1), ""),
    ("no entries", |end| (end.entries, end.entries_here) = (0, 0), DIRECTORY),
    ("no entries, and no directory", |end| (end.entries, end.entries_here, end.size) = (0, 0, 0), DIRECTORY),
    ("as many entries as a number can say", |end| (end.entries, end.entries_here) = (65_534, 65_534), ""),
    ("the directory is elsewhere", |end| end.offset -= 1, DIRECTORY),
    ("the directory is behind the end", |end| end.offset = u32::MAX - 1, DIRECTORY),
    ("the directory is shorter", |end| end.size -= 1, DIRECTORY),
    ("the directory is longer", |end| end.size += 1, DIRECTORY),
    ("the directory is longer than the file", |end| end.size = u32::MAX - 1, DIRECTORY),
    ("this is disk 1", |end| end.this_disk = 1, PARTS),
    ("the directory is on disk 1", |end| end.directory_disk = 1, PARTS),
    ("this and the directory are on disk 1", |end| (end.this_disk, end.directory_disk) = (1, 1), PARTS),
    ("some entries are on another disk", |end| end.entries_here -= 1, PARTS),
    ("a comment", |end| end.comment = b"hello".to_vec(), "after its end"),
    ("a comment longer than the file", |end| end.comment_length = Some(9), NO_ZIP),
    ("zip64: fewer entries than there are", |end| claim(end, 5), DIRECTORY),
    ("zip64: ten million entries", |end| claim(end, 10_000_000), "more entries than allowed"),
    ("zip64: as many entries as there are numbers", |end| claim(end, u64::MAX), "more entries than allowed"),
    ("zip64: ten million entries and a directory that could hold them", claim_room, "more entries than allowed"),
    ("zip64: the directory is elsewhere", |end| end.in_64().offset -= 1, DIRECTORY),
    ("zip64: the directory is behind the file", |end| end.in_64().offset = 1 << 60, DIRECTORY),
    ("zip64: the directory is beyond every number", |end| end.in_64().offset = u64::MAX - 9, DIRECTORY),
    ("zip64: the directory is beyond every number's end", |end| end.in_64().size = u64::MAX - 9, DIRECTORY),
    ("zip64: the record is longer than it is", |end| end.in_64().record_size = 1 << 60, NO_ZIP),
    ("zip64: the record is beyond every number", |end| end.in_64().record_size = u64::MAX, NO_ZIP),
    ("zip64: the record is shorter than itself", |end| end.in_64().record_size = 3, NO_ZIP),
    ("zip64: the record is elsewhere", |end| end.in_64().at = Some(7), NO_ZIP),
    ("zip64: the record is behind the file", |end| end.in_64().at = Some(1 << 60), NO_ZIP),
    ("zip64: two disks", |end| end.in_64().disks = 2, NO_ZIP),
    ("zip64: this is disk 1", |end| end.in_64().this_disk = 1, PARTS),
    ("zip64: the directory is on disk 1", |end| end.in_64().directory_disk = 1, PARTS),
    ("zip64: promised, but absent", |end| end.offset = u32::MAX, DIRECTORY),
    (
        "zip64: a record nobody asks for",
        |end| {
            let before = end.clone();
            end.in_64();
            (end.entries, end.entries_here, end.size, end.offset) =
                (before.entries, before.entries_here, before.size, before.offset);
        },
        DIRECTORY,
    ),
];

fn claim(end: &mut End, entries: u64) {
    let zip64 = end.in_64();
    (zip64.entries, zip64.entries_here) = (entries, entries);
}

fn claim_room(end: &mut End) {
    claim(end, 10_000_000);
    end.zip64.as_mut().unwrap().size = 460_000_000;
}

#[sqlx::test(migrator = "model::store::MIGRATOR")]
async fn ends_that_lie(pool: PgPool) {
    let place = Place::new(pool);
    for (case, lie, words) in ENDS {
        place.refuses(case, &sample().bytes_with(Vec::new(), lie), words).await;
    }
}

#[sqlx::test(migrator = "model::store::MIGRATOR")]
async fn what_stands_around_an_archive(pool: PgPool) {
    let place = Place::new(pool);
    let sound = sample().bytes();
    let other = {
        let mut raw = sample();
        raw.put(ROLE, "");
        raw.bytes()
    };
    place.refuses("nothing", b"", NO_ZIP).await;
    place.refuses("no zip", b"PK, but no zip at all", NO_ZIP).await;
    place.refuses("only an end", &End::default().bytes(0), "[00_manifest.json] does not exist").await;
    place.refuses("zeros", &[0; 100_000], NO_ZIP).await;
    // An end within the end, as long as the search for one goes.
    place.refuses("nothing but ends", &b"PK\x05\x06".repeat(20_000), "after its end").await;
    place.refuses("nothing but central headers", &b"PK\x01\x02".repeat(20_000), NO_ZIP).await;
    place.refuses("something behind the archive", &[&sound[..], b"x"].concat(), "after its end").await;
    place
        .refuses("garbage before the archive, of which it knows nothing", &[b"garbage", &sound[..]].concat(), DIRECTORY)
        .await;
    let prefix = sample().bytes_with(b"garbage".to_vec(), |_| ());
    place.refuses("garbage before the archive, of which it knows", &prefix, "before its first entry").await;
    place.refuses("an archive before the archive", &[&other[..], &sound[..]].concat(), DIRECTORY).await;
    let behind = sample().bytes_with(other.clone(), |_| ());
    place.refuses("an archive before the archive, which knows of it", &behind, "local file header missing").await;
    // One reader takes the last end there is, another one the end whose comment ends with the file.
    let twice = sample().bytes_with(Vec::new(), |end| {
        let fake = End { comment: Vec::new(), ..end.clone() };
        end.comment = fake.bytes(0);
    });
    place.refuses("a comment that is another end", &twice, DIRECTORY).await;
    let whole = sample().bytes_with(Vec::new(), |end| end.comment.clone_from(&other));
    place.refuses("a comment that is a whole archive", &whole, DIRECTORY).await;
    for part in 0..20 {
        let case = format!("the first {part}/20 of an archive");
        place.refuses(&case, &sound[..sound.len() * part / 20], NO_ZIP).await;
    }
    for lost in [1, 21, 22, 23] {
        place.refuses(&format!("all but the last {lost} bytes"), &sound[..sound.len() - lost], NO_ZIP).await;
    }
    place.refuses("all but the first byte", &sound[1..], DIRECTORY).await;
}

/// An archive that a reader may fall back to must not be larger than the one that was counted.
#[sqlx::test(migrator = "model::store::MIGRATOR")]
async fn a_directory_that_only_one_reader_can_read(pool: PgPool) {
    let place = Place::new(pool);
    let mut raw = sample();
    let more = raw.clone();
    raw.entry(ROLE).offset = Some(u32::MAX);
    raw.entry(ROLE).central.extra = zip64(&[u64::MAX - 3]);
    // The first end is sound; the second one, which is looked at first, has a header that only some take for broken.
    let bytes = raw.bytes_with(more.bytes(), |_| ());
    place.refuses("two directories", &bytes, "").await;
}
