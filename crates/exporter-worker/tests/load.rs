//! Loading a cell: what is sound is stored as it was, what is not is refused by name, and nothing is ever half stored.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use exporter_worker::import::{Origin, Summary};
use exporter_worker::load::{self, LoadError, LoadOptions};
use model::area::BlobStore;
use model::cell::{CellId, CellName};
use model::store::MIGRATOR;
use serde_json::{Value, json};
use sqlx::{ConnectOptions, PgPool};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

const USERDATA: &str = "10_odata/70_userdata.pjson";
const ROLE: &str = "10_odata/20_role.pjson";
const CELL: &str = "10_odata/00_cell.json";

/// The entries of a snapshot, to be changed.
#[derive(Clone)]
struct Snapshot(Vec<(String, Vec<u8>)>);

impl Snapshot {
    fn sample() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("sample.zip");
        let test = std::env::current_exe().unwrap();
        let example = test.parent().and_then(Path::parent).unwrap().join("examples/sample_cell");
        let status =
            Command::new(&example).arg(&file).status().unwrap_or_else(|e| panic!("{}: {e}", example.display()));
        assert!(status.success());
        Self::read(&std::fs::read(file).unwrap())
    }

    fn read(bytes: &[u8]) -> Self {
        let mut zip = ZipArchive::new(Cursor::new(bytes)).unwrap();
        let count = zip.len();
        let entry = |index| {
            let mut entry = zip.by_index(index).unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (String::from_utf8(entry.name_raw().to_vec()).unwrap(), bytes)
        };
        Self((0..count).map(entry).collect())
    }

    fn zip(&self) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in &self.0 {
            let text = name.ends_with("json");
            let method = if text { CompressionMethod::Deflated } else { CompressionMethod::Stored };
            let options = SimpleFileOptions::default().compression_method(method);
            if name.ends_with('/') {
                zip.add_directory(name.as_str(), options).unwrap();
            } else {
                zip.start_file(name.as_str(), options).unwrap();
                zip.write_all(bytes).unwrap();
            }
        }
        zip.finish().unwrap().into_inner()
    }

    fn bytes(&mut self, name: &str) -> &mut Vec<u8> {
        &mut self.0.iter_mut().find(|(n, _)| n == name).unwrap_or_else(|| panic!("{name}")).1
    }

    fn text(&self, name: &str) -> String {
        let (_, bytes) = self.0.iter().find(|(n, _)| n == name).unwrap();
        String::from_utf8(bytes.clone()).unwrap()
    }

    fn lines(&self, name: &str) -> Vec<String> {
        self.text(name).lines().map(str::to_owned).collect()
    }

    /// The name of the first entry that ends like this.
    fn find(&self, end: &str) -> String {
        self.0.iter().map(|(n, _)| n).find(|n| n.ends_with(end)).unwrap().clone()
    }
}

struct Place {
    directory: TempDir,
    options: LoadOptions,
    pool: PgPool,
}

impl Place {
    fn new(pool: PgPool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = LoadOptions {
            cell: CellName::parse_new("sample").unwrap(),
            cell_id: None,
            owner: None,
            origin: Origin::Anybody,
            file: directory.path().join("snapshot.zip"),
            blobs: BlobStore::open(&directory.path().join("blobs")).unwrap(),
            database: pool.connect_options().to_url_lossy().to_string().into(),
        };
        Self { directory, options, pool }
    }

    async fn load(&self, zip: &[u8]) -> Result<Summary, LoadError> {
        self.load_as(zip, self.options.clone()).await
    }

    async fn load_as(&self, zip: &[u8], options: LoadOptions) -> Result<Summary, LoadError> {
        std::fs::write(&options.file, zip).unwrap();
        load::load(options, CancellationToken::new()).await
    }

    async fn rows(&self) -> i64 {
        let count = "SELECT (SELECT count(*) FROM cell) + (SELECT count(*) FROM document)
                          + (SELECT count(*) FROM node) + (SELECT count(*) FROM blob) + (SELECT count(*) FROM generation)";
        sqlx::query_scalar(count).fetch_one(&self.pool).await.unwrap()
    }

    fn blob_files(&self) -> Vec<PathBuf> {
        let directories = std::fs::read_dir(self.directory.path().join("blobs/blobs")).into_iter().flatten().flatten();
        directories.flat_map(|d| std::fs::read_dir(d.path()).unwrap().flatten().map(|f| f.path())).collect()
    }

    async fn assert_empty(&self, case: &str) {
        assert_eq!(self.rows().await, 0, "{case}: rows");
        assert_eq!(self.blob_files(), Vec::<PathBuf>::new(), "{case}: blobs");
    }

    async fn bodies(&self, of: &str) -> Vec<String> {
        let bodies = "SELECT body FROM document WHERE type = $1::document_type ORDER BY position";
        sqlx::query_scalar(bodies).bind(of).fetch_all(&self.pool).await.unwrap()
    }

    async fn clear(&self) {
        sqlx::raw_sql("TRUNCATE cell, document, node, blob, generation").execute(&self.pool).await.unwrap();
        let _ = std::fs::remove_dir_all(self.directory.path().join("blobs"));
    }
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn with_the_same_name_and_id_everything_is_stored_as_it_was(pool: PgPool) {
    let place = Place::new(pool);
    let sample = Snapshot::sample();
    let loaded = place.load(&sample.zip()).await.unwrap();
    let files = sample.0.iter().filter(|(n, _)| n.ends_with("/content")).count();
    assert_eq!((loaded.files, place.blob_files().len()), (files as u64, files));
    let (id, document): (String, String) =
        sqlx::query_as("SELECT id, document FROM cell").fetch_one(&place.pool).await.unwrap();
    assert_eq!(document, sample.text(CELL));
    assert!(document.contains(&id));
    assert_eq!(place.bodies("Role").await, sample.lines(ROLE));
    let mut got = place.bodies("UserData").await;
    let mut expected = sample.lines(USERDATA);
    got.sort();
    expected.sort();
    assert_eq!(got, expected);
    let nodes: Vec<(String, String)> =
        sqlx::query_as("SELECT path, pmeta FROM node").fetch_all(&place.pool).await.unwrap();
    for (path, pmeta) in &nodes {
        let slash = if path.is_empty() { "" } else { "/" };
        assert_eq!(*pmeta, sample.text(&format!("20_webdav/{path}{slash}.pmeta")), "{path}");
    }
    assert_eq!(nodes.len(), sample.0.iter().filter(|(n, _)| n.ends_with("/.pmeta")).count());
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn with_another_id_every_id_changes_and_texts_do_not(pool: PgPool) {
    let place = Place::new(pool);
    let mut sample = Snapshot::sample();
    let old = serde_json::from_str::<Value>(&sample.text(CELL)).unwrap()["_id"].as_str().unwrap().to_owned();
    // One document of the main box, whose text mentions the old id as well.
    let mut main: Value = serde_json::from_str(&sample.lines(USERDATA)[3]).unwrap();
    main["_source"]["b"] = old.as_str().into();
    main["_source"]["s"]["P001"] = format!("about {old}").into();
    main["_id"] = "main-box-document".into();
    writeln!(sample.bytes(USERDATA), "{main}").unwrap();
    let options = LoadOptions {
        cell: CellName::parse_new("copy").unwrap(),
        cell_id: CellId::parse("other-id"),
        owner: Some("https://unit.example/#hanako".to_owned()),
        ..place.options.clone()
    };
    place.load_as(&sample.zip(), options).await.unwrap();
    let (id, name, owner, document): (String, String, String, String) =
        sqlx::query_as("SELECT id, name, owner, document FROM cell").fetch_one(&place.pool).await.unwrap();
    assert_eq!((id.as_str(), name.as_str(), owner.as_str()), ("other-id", "copy", "https://unit.example/#hanako"));
    let mut expected: Value = serde_json::from_str(&sample.text(CELL)).unwrap();
    expected["_id"] = "other-id".into();
    expected["_source"]["s"]["Name"] = "copy".into();
    expected["_source"]["h"]["Owner"] = owner.into();
    assert_eq!(serde_json::from_str::<Value>(&document).unwrap(), expected);
    for of in ["Box", "Role", "UserData", "link", "Property"] {
        for body in place.bodies(of).await {
            let body: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(body["_source"]["c"], "other-id", "{of}");
            assert_ne!(body["_source"]["b"], old.as_str(), "{of}");
        }
    }
    let main: String = sqlx::query_scalar("SELECT body FROM document WHERE body LIKE '%\"about %'")
        .fetch_one(&place.pool)
        .await
        .unwrap();
    let main: Value = serde_json::from_str(&main).unwrap();
    assert_eq!(main["_source"]["b"], "other-id");
    assert_ne!(main["_id"], "main-box-document");
    assert_eq!(main["_source"]["s"]["P001"], format!("about {old}"));
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn targets_are_put_before_their_users(pool: PgPool) {
    let place = Place::new(pool);
    let mut sample = Snapshot::sample();
    // A chain in the worst order: each document refers to the next, and the last but one closes a circle.
    let lines = sample.lines(USERDATA);
    let template: Value = serde_json::from_str(&lines[1]).unwrap();
    let count = 20_000;
    let mut text = String::new();
    for number in 0..count {
        let mut line = template.clone();
        line["_id"] = format!("link-{number}").into();
        let target = if number == count - 1 { count - 2 } else { number + 1 };
        line["_source"]["ll"] = json!([format!("t:link-{target}"), "t:nowhere"]);
        text.push_str(&format!("{line}\n"));
    }
    *sample.bytes(USERDATA) = text.into_bytes();
    *sample.bytes("10_odata/80_link.pjson") = Vec::new();
    place.load(&sample.zip()).await.unwrap();
    let order: Vec<String> = sqlx::query_scalar("SELECT id FROM document WHERE type = 'UserData' ORDER BY position")
        .fetch_all(&place.pool)
        .await
        .unwrap();
    let places: std::collections::HashMap<_, _> =
        order.iter().enumerate().map(|(place, id)| (id.as_str(), place)).collect();
    let place_of = |number: usize| places[format!("link-{number}").as_str()];
    for number in 0..count - 2 {
        assert!(place_of(number + 1) < place_of(number), "{number} stands before its target");
    }
    assert_eq!(order.len(), count, "the circle at the end loses nothing");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_name_or_an_id_is_taken_once(pool: PgPool) {
    let place = Place::new(pool);
    let zip = Snapshot::sample().zip();
    place.load(&zip).await.unwrap();
    let (rows, blobs) = (place.rows().await, place.blob_files().len());
    let refused = place.load(&zip).await.unwrap_err();
    assert_eq!((refused.exit_code(), refused.to_string().as_str()), (3, "a cell named sample exists"));
    let other = LoadOptions { cell: CellName::parse_new("other").unwrap(), ..place.options.clone() };
    let refused = place.load_as(&zip, other.clone()).await.unwrap_err();
    assert_eq!(refused.exit_code(), 3);
    assert!(refused.to_string().contains("--cell-id"), "{refused}");
    assert_eq!((place.rows().await, place.blob_files().len()), (rows, blobs), "nothing was added");
    let other = LoadOptions { cell_id: CellId::parse("other-id"), ..other };
    place.load_as(&zip, other).await.unwrap();
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn asked_to_stop_it_leaves_nothing(pool: PgPool) {
    let place = Place::new(pool);
    std::fs::write(&place.options.file, Snapshot::sample().zip()).unwrap();
    let stop = CancellationToken::new();
    stop.cancel();
    let stopped = load::load(place.options.clone(), stop).await.unwrap_err();
    assert_eq!(stopped.exit_code(), 130);
    place.assert_empty("stopped").await;
}

type Change = fn(&mut Snapshot);

/// What is done to a sound snapshot, and what the refusal must say.
const FAULTS: &[(Change, &str)] = &[
    (|s| s.0.retain(|(n, _)| n != ROLE), "[10_odata/20_role.pjson] does not exist in the snapshot file."),
    (|s| s.0.retain(|(n, _)| n != CELL), "[10_odata/00_cell.json] does not exist in the snapshot file."),
    (|s| s.0.push(("10_odata/99_more.pjson".into(), vec![])), "10_odata/99_more.pjson: not an entry"),
    (|s| s.0.push(("readme.txt".into(), vec![])), "readme.txt: not an entry"),
    (|s| s.0.push(("20_webdav/../../x".into(), vec![])), "not a plain relative path"),
    (|s| s.0.push(("20_webdav//x/.pmeta".into(), vec![])), "not a plain relative path"),
    (|s| s.0.push(("/etc/passwd".into(), vec![])), "/etc/passwd: the name is not a plain relative path"),
    (|s| s.0.push(("20_webdav/a\\b/content".into(), vec![])), "not a plain relative path"),
    (|s| s.0.push(("20_webdav/a\nb/content".into(), vec![])), "not a plain relative path"),
    (|s| s.0.push((format!("20_webdav/{}/content", "x".repeat(800)), vec![])), "one of its names too long"),
    (|s| s.0.push(("20_webdav/.pkeys/a/.privatekey".into(), vec![])), "keys and login records"),
    (|s| s.0.push(("20_webdav/__/stray.txt".into(), vec![])), "20_webdav/__/stray.txt: not an entry"),
    (|s| s.0.push(("20_webdav/__/bare/".into(), vec![])), "20_webdav/__/bare: a directory without .pmeta"),
    (|s| *s.bytes("00_manifest.json") = b"x".to_vec(), "JSON parse error. [x]."),
    (|s| *s.bytes("00_manifest.json") = br#"{"export_version":3}"#.to_vec(), "Expected [2] but was [3]."),
    (|s| *s.bytes("00_manifest.json") = br#"{"export_version":1}"#.to_vec(), "[10_odata/10_data.pjson] does not exist"),
    (|s| *s.bytes("00_manifest.json") = br#"{"export_version":"2"}"#.to_vec(), "Expected [2] but was [\"2\"]."),
    (|s| *s.bytes("00_manifest.json") = br#"{"export_version":2}"#.to_vec(), "unit_url must be a string"),
    (|s| *s.bytes("00_manifest.json") = vec![b' '; 70_000], "the manifest is too long"),
    (|s| replace(s, CELL, "\"h\":", "\"hh\":"), "10_odata/00_cell.json: _source.h is missing"),
    (|s| replace(s, CELL, "\"Name\":", "\"name\":"), "10_odata/00_cell.json: _source.s.Name is missing"),
    (|s| s.bytes(ROLE).extend(b"\n"), "10_odata/20_role.pjson:3: a blank line"),
    (|s| s.bytes(ROLE).extend(b"{"), "10_odata/20_role.pjson:3: EOF"),
    (|s| s.bytes(ROLE).extend(b"[]"), "10_odata/20_role.pjson:3: not a JSON object"),
    (|s| s.bytes(ROLE).extend(b"\"\xff\""), "10_odata/20_role.pjson:3: not UTF-8"),
    (
        |s| s.bytes(ROLE).splice(0..0, *b"\xef\xbb\xbf").for_each(drop),
        "10_odata/20_role.pjson:1: begins with a byte order mark",
    ),
    (|s| replace(s, ROLE, "\"_type\":\"Role\"", "\"_type\":\"Box\""), "20_role.pjson:1: _type is \"Box\""),
    (|s| replace(s, ROLE, "\"c\":\"", "\"c\":\"x"), "20_role.pjson:1: c is \"x"),
    (|s| replace(s, ROLE, "\"p\":1640995200000", "\"p\":12"), "20_role.pjson:1: _source.p=12 is not epoch"),
    (|s| replace(s, ROLE, "\"p\":", "\"p\":1,\"p\":"), "20_role.pjson:1: an object has a key twice"),
    (|s| replace(s, ROLE, "\"p\":", "\"x\":9223372036854775808,\"p\":"), "20_role.pjson:1: an integer does not fit"),
    (|s| replace(s, ROLE, "\"p\":", "\"x\":99999999999999999999999,\"p\":"), "does not fit 64 bits"),
    (|s| replace(s, ROLE, "\"p\":", "\"x\":\"\\ud800\",\"p\":"), "20_role.pjson:1: "),
    (|s| replace(s, ROLE, "\"p\":", &format!("\"x\":{}1{},\"p\":", "[".repeat(40), "]".repeat(40))), "nested deeper"),
    (
        |s| {
            let line = s.lines(ROLE)[0].clone();
            s.bytes(ROLE).extend(line.bytes())
        },
        "20_role.pjson: the _id",
    ),
    (|s| replace(s, USERDATA, "\"ll\":[", "\"ll\":[\"no-colon\","), "70_userdata.pjson:1: ll entry \"no-colon\""),
    (|s| replace(s, USERDATA, "\"n\":\"", "\"m\":\""), "70_userdata.pjson:1: _source.n is missing"),
    (|s| pmeta(s, "海.jpg/.pmeta", "cl", json!(1)), "海.jpg/content: 20000 bytes, .pmeta says 1"),
    (|s| pmeta(s, "海.jpg/.pmeta", "cl", json!("x")), "海.jpg/.pmeta: cl is not an integer"),
    (|s| pmeta(s, "海.jpg/.pmeta", "et", json!("AES")), "contents of a snapshot are never encrypted"),
    (|s| pmeta(s, "海.jpg/.pmeta", "t", json!("col.webdav")), "海.jpg/.pmeta: content inside a col.webdav"),
    (|s| pmeta(s, "海.jpg/.pmeta", "t", json!("what")), "unknown node type \"what\""),
    (|s| pmeta(s, "写真/.pmeta", "t", json!("col.box")), "a node of type \"col.box\" at depth 2"),
    (|s| pmeta(s, "写真/.pmeta", "t", json!("dav.file")), "写真/.pmeta: a file without content"),
    (|s| pmeta(s, "写真/.pmeta", "a", Value::Null), "a is not an object"),
    (|s| pmeta(s, "写真/.pmeta", "i", json!("a/b")), "i is not base64url text"),
    (
        |s| {
            let n = s.find("海.jpg/content");
            s.0.retain(|(m, _)| *m != n)
        },
        "海.jpg/.pmeta: a file without content",
    ),
];

fn replace(snapshot: &mut Snapshot, entry: &str, from: &str, to: &str) {
    let text = snapshot.text(entry);
    assert!(text.contains(from), "{entry}: {from}");
    *snapshot.bytes(entry) = text.replacen(from, to, 1).into_bytes();
}

fn pmeta(snapshot: &mut Snapshot, end: &str, key: &str, value: Value) {
    let entry = snapshot.find(end);
    let mut json: Value = serde_json::from_str(&snapshot.text(&entry)).unwrap();
    json[key] = value;
    *snapshot.bytes(&entry) = json.to_string().into_bytes();
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn every_fault_is_named_and_nothing_is_stored(pool: PgPool) {
    let place = Place::new(pool);
    let sample = Snapshot::sample();
    for (number, (change, words)) in FAULTS.iter().enumerate() {
        let mut faulty = sample.clone();
        change(&mut faulty);
        let refused = place.load(&faulty.zip()).await.expect_err(words);
        assert_eq!(refused.exit_code(), 2, "{number}: {refused:?}");
        let text = refused.to_string();
        assert!(text.contains(words), "{number}: {text:?} does not say {words:?}");
        assert!(!text.contains('\n'), "{number}: one line");
        place.assert_empty(words).await;
    }
    place.load(&sample.zip()).await.expect("the unchanged one is sound");
}

/// Faults that a zip library would not write.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_forged_archive_is_refused(pool: PgPool) {
    let place = Place::new(pool);
    let mut sample = Snapshot::sample();
    let zip = sample.zip();
    let all = |bytes: &[u8], from: &[u8], to: &[u8]| {
        let mut bytes = bytes.to_vec();
        let places: Vec<_> = (0..bytes.len() - from.len()).filter(|i| bytes[*i..].starts_with(from)).collect();
        assert_eq!(places.len(), 2, "local and central header");
        (bytes.clone(), places.clone(), {
            places.iter().for_each(|i| bytes[*i..*i + to.len()].copy_from_slice(to));
            bytes
        })
    };
    let mut more = sample.clone();
    more.0.push(("10_odata/12_extcell.pjsox".into(), Vec::new()));
    let (_, _, twice) = all(&more.zip(), b"10_odata/12_extcell.pjsox", b"10_odata/12_extcell.pjson");
    let (original, places, _) = all(&zip, b"10_odata/11_account.pjson", b"10_odata/11_account.pjson");
    let with = |at: usize, value: u8| {
        let mut bytes = original.clone();
        bytes[at] = value;
        bytes
    };
    let content = sample.find("海.jpg/content");
    let at = zip.windows(content.len()).position(|w| w == content.as_bytes()).unwrap() + content.len() + 100;
    // A kilobyte for a megabyte: far beyond what texts and pictures do.
    let name = sample.find("empty.bin/.pmeta");
    *sample.bytes(&name.replace(".pmeta", "content")) = vec![0; 30 << 20];
    pmeta(&mut sample, "empty.bin/.pmeta", "cl", json!(30 << 20));
    let mut bomb = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in &sample.0 {
        bomb.start_file(name.as_str(), SimpleFileOptions::default()).unwrap();
        bomb.write_all(bytes).unwrap();
    }
    let bomb = bomb.finish().unwrap().into_inner();
    let mut links = ZipWriter::new_append(Cursor::new(zip.clone())).unwrap();
    links.add_symlink("20_webdav/__/link", "/etc/passwd", SimpleFileOptions::default()).unwrap();
    let links = links.finish().unwrap().into_inner();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"no zip at all".to_vec(), "not zip file"),
        (Vec::new(), "not zip file"),
        (zip[..zip.len() / 2].to_vec(), "not zip file"),
        (twice, "an entry name occurs twice"),
        (with(places[0], b'X'), "header inconsistency detected"),
        // General purpose flags and method of a central header.
        (with(places[1] - 46 + 8, original[places[1] - 46 + 8] | 1), ""),
        (with(places[1] - 46 + 10, 12), ""),
        (with(at, original[at] ^ 1), "海.jpg/content: cannot be read"),
        (links, "20_webdav/__/link: neither a file nor a directory"),
        (bomb, "empty.bin/content: expands more than 200 times"),
    ];
    for (number, (bytes, words)) in cases.into_iter().enumerate() {
        let refused = place.load(&bytes).await.expect_err(words);
        assert_eq!(refused.exit_code(), 2, "{number}: {refused:?}");
        assert!(refused.to_string().contains(words), "{number}: {refused} does not say {words}");
        place.assert_empty(words).await;
    }
}

/// Whatever is damaged, a load ends with a verdict and never with a panic; what it accepts is whole.
#[sqlx::test(migrator = "MIGRATOR")]
async fn damaged_archives_never_panic(pool: PgPool) {
    let place = Place::new(pool);
    let zip = Snapshot::sample().zip();
    let mut random = fastrand::Rng::with_seed(20261123);
    for round in 0..120 {
        let mut bytes = zip.clone();
        if round % 4 == 0 {
            bytes.truncate(random.usize(..bytes.len()));
        } else {
            for _ in 0..random.usize(1..4) {
                // Half of the damage goes to the central directory, where the structure is.
                let from = if random.bool() { 0 } else { bytes.len() * 4 / 5 };
                let at = random.usize(from..bytes.len());
                bytes[at] ^= 1 << random.u32(..8);
            }
        }
        match place.load(&bytes).await {
            Ok(_) => {
                assert_ne!(place.rows().await, 0, "round {round}");
                place.clear().await;
            }
            Err(refused) => {
                assert!(refused.exit_code() == 2, "round {round}: {refused:?}");
                place.assert_empty(&format!("round {round}")).await;
            }
        }
    }
}
