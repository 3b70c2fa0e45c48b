//! A cell whose contents change all the time and fit together at every instant: a document counts up, another counts
//! down, and a file says how far they are. A snapshot that mixes two instants cannot hide it.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::{Connection, PgConnection, Row};
use uuid::Uuid;
use zip::ZipArchive;

use crate::stop::Stop;
use crate::system::System;

/// The two documents add up to this.
const SUM: i64 = 1_000_000;
/// The file that is rewritten.
const PATH: &str = "__/profile.txt";

/// The ledger of one cell.
#[derive(Debug)]
pub struct Ledger {
    cell: String,
    up: Value,
    down: Value,
    count: i64,
    /// Contents that were replaced.
    replaced: Vec<Uuid>,
}

fn contents(count: i64) -> Vec<u8> {
    format!("ledger {count:012}\n").repeat(20).into_bytes()
}

impl Ledger {
    /// Puts a ledger into a sample cell.
    pub fn open(system: &System, cell: &str) -> Self {
        let example = |of: &str| -> Value {
            let body = system.value(&format!(
                "SELECT body FROM document JOIN cell USING (generation)
                 WHERE cell.name = '{cell}' AND type = '{of}' AND body NOT LIKE '%ledger%' ORDER BY position LIMIT 1"
            ));
            serde_json::from_str(&body).expect("a document of the sample cell")
        };
        let (mut up, mut down) = (example("UserData"), example("Relation"));
        (up["_id"], down["_id"]) = ("ledger-up".into(), "ledger-down".into());
        (up["_source"]["ll"], up["_source"]["s"]["__id"]) = (Value::Array(Vec::new()), "ledger".into());
        let mut ledger = Self { cell: cell.to_owned(), up, down, count: 0, replaced: Vec::new() };
        let insert = "INSERT INTO document (generation, type, id, body)
                      SELECT generation, $2::document_type, $3, '{}' FROM cell WHERE name = $1";
        for (of, id) in [("UserData", "ledger-up"), ("Relation", "ledger-down")] {
            let inserting = sqlx::query(insert).bind(cell).bind(of).bind(id).execute(system.pool());
            system.block_on(inserting).expect("a ledger can be put into the cell");
        }
        ledger.change(system).expect("the ledger can be written");
        ledger
    }

    /// Counts on: all of it in one transaction, the file as new contents.
    ///
    /// # Errors
    /// When the database does not do it; it may have done it all the same.
    pub fn change(&mut self, system: &System) -> Result<(), sqlx::Error> {
        self.count += 1;
        let (blob, bytes) = (Uuid::new_v4(), contents(self.count));
        let text = blob.simple().to_string();
        let directory = system.blobs().join(&text[..2]);
        std::fs::create_dir_all(&directory).expect("a directory of blobs");
        std::fs::write(directory.join(&text), &bytes).expect("contents");
        self.up["_source"]["s"]["P002"] = self.count.into();
        self.down["_source"]["s"]["Name"] = format!("ledger-{}", SUM - self.count).into();
        let replaced = system.block_on(self.write(system, blob, &bytes))?;
        self.replaced.push(replaced);
        Ok(())
    }

    async fn write(&self, system: &System, blob: Uuid, bytes: &[u8]) -> Result<Uuid, sqlx::Error> {
        let mut connection = system.pool().acquire().await?;
        let mut tx = connection.begin().await?;
        let generation = generation(&mut tx, &self.cell).await?;
        let update = "UPDATE document SET body = $4 WHERE generation = $1 AND type = $2::document_type AND id = $3";
        for (of, document) in [("UserData", &self.up), ("Relation", &self.down)] {
            // An import into the same cell keeps the ids.
            let id = document["_id"].as_str().unwrap_or_default();
            sqlx::query(update)
                .bind(&generation)
                .bind(of)
                .bind(id)
                .bind(document.to_string())
                .execute(&mut *tx)
                .await?;
        }
        sqlx::query("INSERT INTO blob (id, generation, size, sha256) VALUES ($1, $2, $3, $4)")
            .bind(blob)
            .bind(&generation)
            .bind(bytes.len() as i64)
            .bind(Sha256::digest(bytes).as_slice())
            .execute(&mut *tx)
            .await?;
        let old: Uuid = sqlx::query_scalar("SELECT blob_id FROM node WHERE generation = $1 AND path = $2")
            .bind(&generation)
            .bind(PATH)
            .fetch_one(&mut *tx)
            .await?;
        let pmeta = r#"UPDATE node SET blob_id = $3, pmeta = regexp_replace(pmeta, '"cl":\d+', '"cl":' || $4)
                       WHERE generation = $1 AND path = $2"#;
        sqlx::query(pmeta)
            .bind(&generation)
            .bind(PATH)
            .bind(blob)
            .bind(bytes.len().to_string())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(old)
    }

    /// Contents that the ledger does not name any more.
    pub fn take_replaced(&mut self) -> Vec<Uuid> {
        std::mem::take(&mut self.replaced)
    }
}

async fn generation(tx: &mut PgConnection, cell: &str) -> Result<String, sqlx::Error> {
    let row = sqlx::query("SELECT generation FROM cell WHERE name = $1 FOR SHARE").bind(cell).fetch_one(tx).await?;
    row.try_get(0)
}

/// Reads the ledger of a cell as it is stored now.
///
/// # Errors
/// What does not fit together.
pub fn stored(system: &System, cell: &str) -> Result<i64, String> {
    let row = sqlx::query(
        "SELECT u.body, d.body, b.id FROM cell
         JOIN document u ON u.generation = cell.generation AND u.type = 'UserData' AND u.body LIKE '%\"__id\":\"ledger\"%'
         JOIN document d ON d.generation = cell.generation AND d.type = 'Relation' AND d.body LIKE '%\"ledger-%'
         JOIN node n ON n.generation = cell.generation AND n.path = $2
         JOIN blob b ON b.id = n.blob_id
         WHERE cell.name = $1",
    );
    let row = system.block_on(row.bind(cell).bind(PATH).fetch_all(system.pool())).map_err(|e| e.to_string())?;
    let [row] = &row[..] else { return Err(format!("{} ledgers", row.len())) };
    let json = |index: usize| serde_json::from_str::<Value>(row.get(index)).map_err(|e| e.to_string());
    let blob = row.get::<Uuid, _>(2).simple().to_string();
    let file = std::fs::read(system.blobs().join(&blob[..2]).join(&blob)).map_err(|e| e.to_string())?;
    fit(&json(0)?, &json(1)?, &file)
}

/// Changes ledgers, one after the other, until told to stop. What the database refuses meanwhile is no matter.
pub fn keep_changing(system: &System, ledgers: &mut [Ledger], pause: Duration, stop: &Stop) {
    while !stop.is_said() {
        for ledger in ledgers.iter_mut() {
            let _ = ledger.change(system);
            std::thread::sleep(pause);
        }
    }
}

/// Reads a snapshot to the end, every byte of it, and the ledger in it.
///
/// # Errors
/// What is wrong, in words: an entry that cannot be read, a ledger that does not add up.
pub fn read(snapshot: &Path) -> Result<Option<i64>, String> {
    let mut archive = File::open(snapshot)
        .map_err(|e| e.to_string())
        .and_then(|file| ZipArchive::new(file).map_err(|e| format!("no zip: {e}")))?;
    let mut entries = HashMap::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|e| format!("entry {index}: {e}"))?;
        let (mut bytes, name) = (Vec::new(), String::from_utf8_lossy(entry.name_raw()).into_owned());
        entry.read_to_end(&mut bytes).map_err(|e| format!("{name}: {e}"))?;
        entries.insert(name, bytes);
    }
    for name in ["00_manifest.json", "10_odata/00_cell.json", "20_webdav/.pmeta", "99_integrity.json"] {
        if !entries.contains_key(name) {
            return Err(format!("{name} is missing"));
        }
    }
    ledger_of(&entries)
}

fn ledger_of(entries: &HashMap<String, Vec<u8>>) -> Result<Option<i64>, String> {
    use model::layout::{CONTENT, DocumentType, WEBDAV_DIR};
    let line = |of: DocumentType, mark: &str| -> Result<Option<Value>, String> {
        let text = String::from_utf8_lossy(entries.get(of.entry()).ok_or("an entry is missing")?).into_owned();
        let line = text.lines().find(|line| line.contains(mark));
        line.map(|line| serde_json::from_str(line).map_err(|e| format!("{}: {e}", of.entry()))).transpose()
    };
    let up = line(DocumentType::UserData, r#""__id":"ledger""#)?;
    let down = line(DocumentType::Relation, r#""Name":"ledger-"#)?;
    let (up, down) = match (up, down) {
        (None, None) => return Ok(None),
        (Some(up), Some(down)) => (up, down),
        _ => return Err("one half of the ledger is missing".to_owned()),
    };
    let file = entries.get(&format!("{WEBDAV_DIR}{PATH}/{CONTENT}")).ok_or("the file is missing")?;
    fit(&up, &down, file).map(Some)
}

/// The count, if all three say the same.
fn fit(up: &Value, down: &Value, file: &[u8]) -> Result<i64, String> {
    let up = up["_source"]["s"]["P002"].as_i64().ok_or("no count")?;
    let down = down["_source"]["s"]["Name"].as_str().and_then(|name| name.strip_prefix("ledger-")?.parse().ok());
    if down != Some(SUM - up) || *file != contents(up) {
        let file = String::from_utf8_lossy(&file[..file.len().min(20)]).into_owned();
        return Err(format!("two instants in one: {up}, {down:?}, {file:?}"));
    }
    Ok(up)
}
