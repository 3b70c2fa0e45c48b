//! Uploads are hostile. Each attack is refused with a clear code, in bounded time and memory, and nothing is stored.
//!
//! [`structure`] lies about the archive, [`names`] about what its entries are called and are, [`bombs`] about how large
//! everything is; [`contents`] puts what is no cell into a sound archive, [`integrity`] contradicts the record of it.
//! [`dry_runs`] shows that a dry run lists what is wrong and ends too.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod bombs;
mod contents;
mod dry_runs;
mod integrity;
mod names;
mod raw;
mod structure;

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use exporter_worker::control::Control;
use exporter_worker::import::{self, Examined, Import, NewCell, Origin, Places, Summary};
use exporter_worker::load::{self, LoadError, LoadOptions};
use model::area::BlobStore;
use model::cell::{CellId, CellName};
use raw::{Entry, Raw};
use sqlx::{ConnectOptions, PgPool};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use zip::ZipArchive;

const MANIFEST: &str = "00_manifest.json";
const CELL: &str = "10_odata/00_cell.json";
const ROLE: &str = "10_odata/20_role.pjson";
const USERDATA: &str = "10_odata/70_userdata.pjson";
const INTEGRITY: &str = "99_integrity.json";

/// Guards against hanging, not against slowness.
const LONGEST: Duration = Duration::from_secs(20);

/// A sound snapshot, to be changed.
fn sample() -> Raw {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("sample.zip");
    let test = std::env::current_exe().unwrap();
    let example = test.parent().and_then(Path::parent).unwrap().join("examples/sample_cell");
    let status = Command::new(&example).arg(&file).status().unwrap_or_else(|e| panic!("{}: {e}", example.display()));
    assert!(status.success());
    let mut zip = ZipArchive::new(File::open(file).unwrap()).unwrap();
    let count = zip.len();
    let entry = |index| {
        let mut entry = zip.by_index(index).unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let name = entry.name_raw().to_vec();
        if name.ends_with(b"json") { Entry::deflated(name, bytes) } else { Entry::stored(name, bytes) }
    };
    Raw { entries: (0..count).map(entry).collect() }
}

/// The contents of an entry.
fn text(raw: &Raw, name: &str) -> String {
    let mut zip = ZipArchive::new(Cursor::new(raw.bytes())).unwrap();
    let mut text = String::new();
    zip.by_name(name).unwrap().read_to_string(&mut text).unwrap();
    text
}

/// Replaces the first such words in an entry.
fn replace(raw: &mut Raw, name: &str, from: &str, to: &str) {
    let old = text(raw, name);
    assert!(old.contains(from), "{name}: {from}");
    raw.put(name, old.replacen(from, to, 1));
}

/// The name of the first entry that ends like this.
fn find(raw: &Raw, end: &str) -> String {
    let names = raw.entries.iter().map(|entry| String::from_utf8_lossy(&entry.central.name).into_owned());
    names.into_iter().find(|name| name.ends_with(end)).unwrap()
}

struct Place {
    directory: TempDir,
    options: LoadOptions,
    pool: PgPool,
    wrong: Mutex<Vec<String>>,
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
        Self { directory, options, pool, wrong: Mutex::default() }
    }

    async fn load(&self, origin: Origin, zip: &[u8]) -> Result<Summary, LoadError> {
        std::fs::write(&self.options.file, zip).unwrap();
        load::load(LoadOptions { origin, ..self.options.clone() }, CancellationToken::new()).await
    }

    /// Asserts that a file is refused with a code, in words that name the problem, and that nothing is left of it.
    async fn refuses(&self, case: &str, zip: &[u8], words: &str) {
        if let Err(wrong) = self.try_to_load(zip, words).await {
            self.wrong.lock().unwrap().push(format!("{case}: {wrong}"));
            self.clear().await;
        }
    }

    async fn try_to_load(&self, zip: &[u8], words: &str) -> Result<(), String> {
        let begun = Instant::now();
        let loaded = self.load(Origin::Anybody, zip).await;
        let took = begun.elapsed();
        let error = match loaded {
            Ok(_) => return Err("was stored".to_owned()),
            Err(LoadError::Import(error)) => error,
            Err(other) => return Err(format!("{other:?}")),
        };
        let body = error.fault().ok_or_else(|| format!("no fault of the snapshot: {error:?}"))?;
        let said = &body.message.value;
        for (right, what) in [
            (took < LONGEST, "takes too long"),
            (body.code.starts_with("PR400-"), "has another code"),
            (said.contains(words), "is refused in other words"),
            (said.chars().count() < 600 && !said.contains(char::is_control), "is refused in bad words"),
        ] {
            if !right {
                return Err(format!("{what}: {took:?}, {said:?}, not {words:?}, {}", body.code));
            }
        }
        self.is_empty().await
    }

    /// Asserts that a file is taken, and removes it again.
    async fn takes(&self, case: &str, origin: Origin, zip: &[u8]) -> Summary {
        let summary = self.load(origin, zip).await.unwrap_or_else(|refused| panic!("{case}: {refused}"));
        self.clear().await;
        summary
    }

    /// A dry run.
    async fn examines(&self, case: &str, zip: &[u8]) -> Examined {
        std::fs::write(&self.options.file, zip).unwrap();
        let (database, blobs) = (self.options.database.clone(), self.options.blobs.clone());
        let places = Places { database, blobs, reserve: 0 };
        let file = File::open(&self.options.file).unwrap();
        let import = Import { file, origin: Origin::Anybody, cell: NewCell::default() };
        let begun = Instant::now();
        let examined = import::examine(&places, import, &CellId::parse("a-cell").unwrap(), &Control::default()).await;
        let took = begun.elapsed();
        assert!(took < LONGEST, "{case}: took {took:?}");
        self.assert_empty(case).await;
        examined.unwrap_or_else(|error| panic!("{case}: {error:?}"))
    }

    async fn assert_empty(&self, case: &str) {
        assert_eq!(self.is_empty().await, Ok(()), "{case}");
    }

    /// Says what was stored.
    async fn is_empty(&self) -> Result<(), String> {
        let count = "SELECT (SELECT count(*) FROM cell) + (SELECT count(*) FROM document)
                          + (SELECT count(*) FROM node) + (SELECT count(*) FROM blob) + (SELECT count(*) FROM generation)";
        let rows: i64 = sqlx::query_scalar(count).fetch_one(&self.pool).await.unwrap();
        let directories = std::fs::read_dir(self.blobs().join("blobs")).into_iter().flatten().flatten();
        let files = directories.flat_map(|d| std::fs::read_dir(d.path()).unwrap().flatten()).count();
        if rows == 0 && files == 0 { Ok(()) } else { Err(format!("leaves {rows} rows and {files} files")) }
    }

    async fn clear(&self) {
        sqlx::raw_sql("TRUNCATE cell, document, node, blob, generation").execute(&self.pool).await.unwrap();
        for directory in std::fs::read_dir(self.blobs().join("blobs")).into_iter().flatten().flatten() {
            std::fs::remove_dir_all(directory.path()).unwrap();
        }
    }

    /// Directory of the blob store.
    fn blobs(&self) -> PathBuf {
        self.directory.path().join("blobs")
    }
}

/// A table of attacks is gone through to its end, then all that went wrong is told.
impl Drop for Place {
    fn drop(&mut self) {
        let wrong = std::mem::take(&mut *self.wrong.lock().unwrap());
        if !wrong.is_empty() && !std::thread::panicking() {
            panic!("{} cases:\n{}", wrong.len(), wrong.join("\n"));
        }
    }
}

#[sqlx::test(migrator = "model::store::MIGRATOR")]
async fn the_sample_itself_is_sound(pool: PgPool) {
    let place = Place::new(pool);
    place.takes("the sample", Origin::Anybody, &sample().bytes()).await;
    // So is what honest writers do: zip64 records, and sizes behind the data of an entry.
    let zip64 = sample().bytes_with(Vec::new(), |end| _ = end.in_64());
    place.takes("a zip64 archive", Origin::Anybody, &zip64).await;
    let mut described = sample();
    let role = described.entry(ROLE);
    let mut descriptor = b"PK\x07\x08".to_vec();
    descriptor.extend([role.local.crc, role.local.compressed, role.local.size].map(u32::to_le_bytes).concat());
    role.data.extend(descriptor);
    *role = role.clone().both(|header| header.flags |= 8);
    (role.local.crc, role.local.compressed, role.local.size) = (0, 0, 0);
    place.takes("a data descriptor", Origin::Anybody, &described.bytes()).await;
}
