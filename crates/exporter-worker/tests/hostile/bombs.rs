//! Archives that are larger than they look, or look larger than they are. The large ones are loaded by a process of its
//! own whose memory is limited.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use exporter_worker::import::Origin;
use flate2::Compression;
use flate2::write::DeflateEncoder;
use serde_json::json;
use sqlx::PgPool;

use crate::raw::{DEFLATED, Entry, Header, Raw, crc};
use crate::{CELL, INTEGRITY, MANIFEST, Place, ROLE, USERDATA, find, replace, sample, text};

const MIB: usize = 1 << 20;

/// Address space of a process that loads a bomb, KiB: a worker without work takes a quarter of it.
const MEMORY: usize = 700_000;

/// A file like the empty one of the sample.
fn put_file(raw: &mut Raw, directory: &str, content: Entry) {
    let pmeta = text(raw, &find(raw, "empty.bin/.pmeta"));
    let pmeta = pmeta.replace("\"cl\":0", &format!("\"cl\":{}", content.central.size));
    raw.entries.push(Entry::deflated(format!("20_webdav/__/{directory}/.pmeta"), pmeta));
    let name = format!("20_webdav/__/{directory}/content").into_bytes();
    raw.entries.push(content.both(|header| header.name.clone_from(&name)));
}

#[sqlx::test(migrator = "model::store::MIGRATOR")]
async fn contents_that_expand(pool: PgPool) {
    let place = Place::new(pool);
    let mut raw = sample();
    put_file(&mut raw, "zeros", Entry::deflated("", vec![0; 64 * MIB]));
    place.refuses("a thousand times", &raw.bytes(), "zeros/content: expands more than 200 times").await;
    // An export of ours may have found such a file in a cell.
    place.takes("a thousand times, by an export", Origin::Ours, &raw.bytes()).await;
    // More comes out than the headers say.
    let mut raw = sample();
    put_file(&mut raw, "zeros", Entry::deflated("", vec![0; 64 * MIB]).both(|header| header.size = 9));
    place.refuses("more than announced", &raw.bytes(), "zeros/content: cannot be read").await;
    // Each file may expand that much, all of them together may not.
    let mut raw = sample();
    let content = Entry::deflated("", vec![0; 10 * MIB]);
    for number in 0..110 {
        put_file(&mut raw, &format!("zeros{number}"), content.clone());
    }
    place.refuses("many", &raw.bytes(), "the snapshot expands too much").await;
    let mut raw = sample();
    raw.put(ROLE, vec![b'x'; 64 * MIB]);
    place.refuses("documents", &raw.bytes(), "20_role.pjson").await;
    for entry in [MANIFEST, CELL, &find(&raw, "海.jpg/.pmeta")] {
        let mut raw = sample();
        raw.put(entry, vec![b' '; 64 * MIB]);
        place.refuses(entry, &raw.bytes(), "long").await;
    }
}

#[sqlx::test(migrator = "model::store::MIGRATOR")]
async fn archives_within_archives_are_just_files(pool: PgPool) {
    let place = Place::new(pool);
    // As the famous one: six layers, sixteen archives in each, four gigabytes at the bottom.
    let mut layer = Raw { entries: vec![Entry::deflated("0.dll", vec![0; 4 * MIB])] }.bytes();
    for _ in 0..6 {
        let entries = (0..16).map(|number| Entry::deflated(format!("lib {number}.zip"), &layer)).collect();
        layer = Raw { entries }.bytes();
    }
    let mut raw = sample();
    let before = place.takes("the sample", Origin::Anybody, &raw.bytes()).await;
    put_file(&mut raw, "42.zip", Entry::stored("", &layer));
    let after = place.takes("an archive", Origin::Anybody, &raw.bytes()).await;
    assert_eq!(after.file_bytes, before.file_bytes + layer.len() as u64);
    assert_eq!(after.files, before.files + 1);
}

/// All central headers lead to one local header.
#[sqlx::test(migrator = "model::store::MIGRATOR")]
async fn entries_that_share_their_data(pool: PgPool) {
    let place = Place::new(pool);
    let kernel = Entry::deflated("", vec![0; 8 * MIB]);
    for (case, words) in [("under other names", "entries overlap"), ("under one name", "an entry name occurs twice")] {
        let mut raw = sample();
        put_file(&mut raw, "kernel", kernel.clone());
        let at = raw.bytes_with(Vec::new(), |end| end.comment.clear()).len();
        let shared = raw.entries.last().unwrap().clone();
        let offset = local_offset(&raw, raw.entries.len() - 1);
        assert!(offset < at);
        for number in 0..1000 {
            let mut twin = shared.clone();
            (twin.no_local, twin.offset) = (true, Some(offset as u32));
            if case == "under other names" {
                twin.central.name = format!("20_webdav/__/kernel{number}/content").into_bytes();
            }
            raw.entries.push(twin);
        }
        place.refuses(case, &raw.bytes(), words).await;
    }
}

/// Where a local header will be.
fn local_offset(raw: &Raw, index: usize) -> usize {
    raw.entries[..index].iter().map(|entry| entry.local_bytes().len() + entry.data.len()).sum()
}

/// Each entry's data begins with the next local header, quoted as incompressible: the names are right, and the kernel is
/// in all of them.
#[sqlx::test(migrator = "model::store::MIGRATOR")]
async fn entries_within_entries(pool: PgPool) {
    let place = Place::new(pool);
    let mut raw = sample();
    let (mut plain, kernel) = (vec![0; MIB], Entry::deflated("", vec![0; MIB]));
    let mut data = kernel.data;
    // Built from the last to the first: each header needs to know what it holds.
    let mut nested: Vec<(Header, usize)> = Vec::new();
    for number in (0..50).rev() {
        let header = Header {
            name: format!("20_webdav/__/quoted{number}/content").into_bytes(),
            method: DEFLATED,
            crc: crc(&plain),
            compressed: data.len() as u32,
            size: plain.len() as u32,
            ..Header::default()
        };
        let entry = Entry { local: header.clone(), ..Entry::default() };
        let local = entry.local_bytes();
        nested.push((header, data.len()));
        let length = local.len() as u16;
        let mut quoted = vec![0];
        quoted.extend(length.to_le_bytes());
        quoted.extend((!length).to_le_bytes());
        quoted.extend(&local);
        quoted.extend(&data);
        data = quoted;
        plain.splice(0..0, local);
    }
    nested.reverse();
    let start = local_offset(&raw, raw.entries.len());
    // The outermost five bytes quote nothing: the first header stands for itself.
    let (first, _) = nested[0].clone();
    let all = data.split_off(5);
    let carrier = Entry { local: first.clone(), ..Entry::default() };
    let head = carrier.local_bytes().len();
    let end = start + all.len();
    for (index, (header, inner)) in nested.into_iter().enumerate() {
        let mut entry = Entry { local: header.clone(), central: header, made_by: 3 << 8 | 20, ..Entry::default() };
        if index == 0 {
            entry.data = all[head..].to_vec();
        } else {
            (entry.no_local, entry.offset) = (true, Some((end - inner - entry.local_bytes().len()) as u32));
        }
        raw.entries.push(entry);
    }
    let zip = raw.bytes();
    // It is what it says: a reader that does not look for it expands all of it.
    let mut reader = zip::ZipArchive::new(std::io::Cursor::new(&zip)).unwrap();
    let mut out = Vec::new();
    std::io::Read::read_to_end(&mut reader.by_name("20_webdav/__/quoted49/content").unwrap(), &mut out).unwrap();
    assert_eq!(out.len(), MIB);
    place.refuses("quoted headers", &zip, "entries overlap").await;
}

#[sqlx::test(migrator = "model::store::MIGRATOR")]
async fn gigantic_lines(pool: PgPool) {
    let place = Place::new(pool);
    let mut random = fastrand::Rng::with_seed(4);
    let digits: Vec<u8> = (0..17 * MIB).map(|_| random.digit(10) as u8).collect();
    let mut raw = sample();
    raw.put(ROLE, vec![b'x'; 17 * MIB]);
    place.refuses("compressible", &raw.bytes(), "20_role.pjson: expands more than 200 times").await;
    raw.put(ROLE, &digits);
    place.refuses("not compressible", &raw.bytes(), "20_role.pjson:1: longer than 16777216 bytes").await;
    raw.put(ROLE, [text(&sample(), ROLE).as_bytes(), &digits].concat());
    place.refuses("after others", &raw.bytes(), "20_role.pjson:3: longer than 16777216 bytes").await;
    raw.put(ROLE, "x\n".repeat(1_000_000));
    place.refuses("a million lines of garbage", &raw.bytes(), "20_role.pjson:1: ").await;
    raw.put(ROLE, "\n".repeat(1_000_000));
    place.refuses("a million blank lines", &raw.bytes(), "20_role.pjson:1: a blank line").await;
}

/// What became of a load in a process of its own.
struct Loaded {
    code: Option<i32>,
    said: String,
    /// The most memory it held, KiB.
    peak: usize,
    took: Duration,
}

impl Place {
    /// Loads the file that is in place, with little memory.
    async fn load_apart(&self, case: &str) -> Loaded {
        let begun = Instant::now();
        let mut child = Command::new("sh")
            .args(["-c", &format!("ulimit -v {MEMORY} && exec \"$0\" \"$@\"")])
            .args([env!("CARGO_BIN_EXE_exporter-worker"), "load", "--cell", "sample"])
            .arg(&self.options.file)
            .env_clear()
            .env("DATABASE_URL", secrecy::ExposeSecret::expose_secret(&self.options.database))
            .env("BLOB_DIR", self.blobs())
            // Arenas and stacks are address space, and none of them memory.
            .env("MALLOC_ARENA_MAX", "1")
            .env("TOKIO_WORKER_THREADS", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let status = format!("/proc/{}/status", child.id());
        let mut peak = 0;
        while child.try_wait().unwrap().is_none() {
            let status = std::fs::read_to_string(&status).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            peak = peak.max(line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0));
            if begun.elapsed() > Duration::from_secs(120) {
                child.kill().unwrap();
                panic!("{case}: hangs");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let loaded = Loaded { code: output.status.code(), said, peak, took: begun.elapsed() };
        println!("{case}: {} MiB at most, {:.1} s: {}", peak / 1024, loaded.took.as_secs_f64(), loaded.said.trim());
        loaded
    }

    /// Asserts that such a load is refused.
    async fn refuses_apart(&self, case: &str, words: &str) -> Loaded {
        let loaded = self.load_apart(case).await;
        if loaded.code != Some(2) || !loaded.said.contains(words) {
            let (code, said) = (loaded.code, &loaded.said);
            self.wrong.lock().unwrap().push(format!("{case}: {code:?} {said:?}, not {words:?}"));
        }
        if let Err(left) = self.is_empty().await {
            self.wrong.lock().unwrap().push(format!("{case}: {left}"));
        }
        loaded
    }
}

/// Writes an archive of many entries without holding it: those of the sample, and empty ones.
fn write_many(file: &std::path::Path, names: impl Iterator<Item = String>, extra: &[u8]) {
    let mut out = BufWriter::new(File::create(file).unwrap());
    let (mut directory, mut at, mut count) = (Vec::new(), 0, 0u64);
    let more = names.map(|name| Entry::stored(name, "").with(|entry| entry.central.extra = extra.to_vec()));
    for entry in sample().entries.into_iter().chain(more) {
        let local = entry.local_bytes();
        out.write_all(&local).unwrap();
        out.write_all(&entry.data).unwrap();
        directory.extend(entry.central_bytes(at as u32));
        at += local.len() + entry.data.len();
        count += 1;
    }
    out.write_all(&directory).unwrap();
    let mut end = crate::raw::End { size: directory.len() as u32, offset: at as u32, ..Default::default() };
    let zip64 = end.in_64();
    (zip64.entries, zip64.entries_here) = (count, count);
    out.write_all(&end.bytes((at + directory.len()) as u64)).unwrap();
    out.flush().unwrap();
}

#[sqlx::test(migrator = "model::store::MIGRATOR")]
async fn a_million_entries(pool: PgPool) {
    let place = Place::new(pool);
    let of_sample = sample().entries.len();
    let names = |count: usize| (0..count - of_sample).map(|number| format!("20_webdav/__/{number}/.pmeta"));
    write_many(&place.options.file, names(1_000_001), b"");
    let refused = place.refuses_apart("a million entries and one", "more entries than allowed").await;
    assert!(refused.peak < 100_000, "an index was built: {} KiB", refused.peak);
    // A million is allowed: the first bad one ends it.
    write_many(&place.options.file, names(1_000_000), b"");
    let refused = place.refuses_apart("a million entries", "20_webdav/__/0/.pmeta: EOF").await;
    assert!(refused.peak < 600_000, "{} KiB", refused.peak);
}

#[sqlx::test(migrator = "model::store::MIGRATOR")]
async fn few_entries_that_take_much_memory(pool: PgPool) {
    let place = Place::new(pool);
    // Each path has directories of its own, and more of them than there are entries.
    let deep = (0..200_000).map(|number| format!("20_webdav/{number}/{}.pmeta", "a/".repeat(61)));
    write_many(&place.options.file, deep, b"");
    place.refuses_apart("many directories", "a directory without .pmeta").await;
    // A field of four bytes becomes a record of forty.
    let fields = b"\xfe\xca\0\0".repeat(16_000);
    write_many(&place.options.file, (0..2000).map(|number| format!("20_webdav/__/{number}/.pmeta")), &fields);
    place.refuses_apart("many extra fields", "too many extra fields").await;
    // A directory that begins somewhere in a sea of central headers.
    let mut sea = sample().bytes_with(b"PK\x01\x02".repeat(50 * MIB), |end| end.size = 0);
    let end = sea.len() - 6;
    sea[end..end + 4].fill(0);
    std::fs::write(&place.options.file, &sea).unwrap();
    place.refuses_apart("many central headers", "the central directory is not where").await;
}

/// JSON that is short, and long in memory.
#[sqlx::test(migrator = "model::store::MIGRATOR")]
async fn texts_that_take_much_memory(pool: PgPool) {
    let place = Place::new(pool);
    let write = |raw: &Raw| std::fs::write(&place.options.file, raw.bytes()).unwrap();
    let fast = |name: &str, bytes: &[u8]| {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        let data = encoder.finish().unwrap();
        let (size, compressed) = (bytes.len() as u32, data.len() as u32);
        let crc = crc(bytes);
        Entry { data, ..Entry::stored(name, "") }
            .both(|h| (h.method, h.crc, h.size, h.compressed) = (DEFLATED, crc, size, compressed))
    };
    let keys = |count: usize| (0..count).map(|n| format!("\"{n:x}\":1,")).collect::<String>();
    let mut raw = sample();
    let mut line = text(&raw, ROLE).lines().next().unwrap().replacen('{', &format!("{{{}", keys(1_600_000)), 1);
    line.truncate(16 * MIB - 1);
    line.push('\n');
    raw.put(ROLE, line);
    write(&raw);
    place.refuses_apart("a document of many keys", "20_role.pjson:1: ").await;
    let mut raw = sample();
    // Something random in between, or it would expand too much.
    let mut random = fastrand::Rng::with_seed(4);
    let some = |piece: &str, count: usize, random: &mut fastrand::Rng| -> String {
        let digit = |random: &mut fastrand::Rng| random.digit(10).to_string().repeat(usize::from(random.u8(..) < 40));
        (0..count).map(|_| piece.replace('?', &digit(random))).collect()
    };
    let lists = format!("\"s\":{{\"x\":[{}[]],", some("[?],", 4 * MIB, &mut random));
    replace(&mut raw, ROLE, "\"s\":{", &lists);
    replace(&mut raw, ROLE, "\"Name\":\"admin\"", "\"Name\":7");
    write(&raw);
    place.refuses_apart("a document of many lists", "20_role.pjson:1: _source.s.Name is not a string").await;
    let mut raw = sample();
    replace(&mut raw, USERDATA, "\"ll\":[", &format!("\"ll\":[{}7,", some("\"a:b?\",", 2_400_000, &mut random)));
    write(&raw);
    place.refuses_apart("a document of many references", "70_userdata.pjson:1: ll entry 7").await;
    let counts = format!("{{\"version\":1,\"documents\":{{{}\"\":1}},\"entries\":[]}}", keys(15_000_000));
    let mut raw = sample();
    raw.entries.push(fast(INTEGRITY, counts.as_bytes()));
    write(&raw);
    place.refuses_apart("a record of many counts", "99_integrity.json: longer than").await;
    let mut nested = b"{\"version\":1,\"more\":".to_vec();
    nested.extend((0..300 * MIB).map(|_| if random.u8(..) < 40 { b'[' } else { b' ' }));
    let mut raw = sample();
    raw.entries.push(fast(INTEGRITY, &nested));
    write(&raw);
    place.refuses_apart("a record of many levels", "99_integrity.json: longer than").await;
    let mut name = json!({"version": 1, "entries": []}).to_string().into_bytes();
    name.truncate(name.len() - 2);
    name.extend(b"{\"name\":\"");
    name.extend((0..300 * MIB).map(|_| if random.bool() { b'a' } else { b'b' }));
    raw.entries.pop();
    raw.entries.push(fast(INTEGRITY, &name));
    write(&raw);
    place.refuses_apart("a record of a long name", "99_integrity.json: longer than").await;
}
