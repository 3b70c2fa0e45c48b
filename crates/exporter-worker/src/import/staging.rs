//! Storing a cell: its rows and contents go under a new generation that no cell names yet.
//!
//! Every batch of rows is a short transaction of its own, because nobody sees a generation before a cell names it. Each
//! holds the generation while it adds to it: an attempt that lost its job without knowing stops there, and cannot leave
//! rows behind its successor's back.

use std::io::Read;
use std::sync::{Arc, Mutex};

use futures_util::TryStreamExt;
use model::area::BlobStore;
use model::layout::DocumentType;
use model::limits;
use model::store::{StoreError, generations};
use sqlx::{Connection, Executor, PgConnection};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::document::Checked;
use super::error::ImportError;
use super::metered::Metered;
use super::order::{self, Passing};
use super::rows::{Batch, Rows};
use super::sink::{Content, Sink};

const COPY_BLOBS: &str = "COPY blob (id, generation, size, sha256) FROM STDIN (FORMAT binary)";
const COPY_NODES: &str = "COPY node (generation, path, pmeta, blob_id) FROM STDIN (FORMAT binary)";
// Positions come from the sequence: the order of the rows is the order of the snapshot.
const COPY_DOCUMENTS: &str = "COPY document (generation, type, id, body) FROM STDIN (FORMAT binary)";
const COPY_REFERENCES: &str = "COPY staging_reference (user_id, target_id) FROM STDIN (FORMAT binary)";
const COPY_LINKS: &str = "COPY staging_link (id, body) FROM STDIN (FORMAT binary)";

/// Blobs written so far, to be removed when nothing comes of them.
pub(super) type Written = Arc<Mutex<Vec<Uuid>>>;

/// The sink.
pub(super) struct Staging {
    generation: String,
    blobs: BlobStore,
    reserve: u64,
    runtime: Handle,
    written: Written,
    to: mpsc::Sender<Batch>,
    blob_rows: Rows,
    node_rows: Rows,
    document_rows: Rows,
    reference_rows: Rows,
    link_rows: Rows,
    /// Bytes of contents whose rows still wait.
    unnamed: u64,
    user_data: Passing,
}

impl Staging {
    /// `reserve` are the bytes that stay free on the blobs' volume.
    pub(super) fn new(
        generation: String,
        blobs: BlobStore,
        reserve: u64,
        written: Written,
        to: mpsc::Sender<Batch>,
        runtime: Handle,
    ) -> Self {
        Self {
            generation,
            blobs,
            reserve,
            runtime,
            written,
            to,
            blob_rows: Rows::of(COPY_BLOBS),
            node_rows: Rows::of(COPY_NODES),
            document_rows: Rows::of(COPY_DOCUMENTS),
            reference_rows: Rows::of(COPY_REFERENCES),
            link_rows: Rows::of(COPY_LINKS),
            unnamed: 0,
            user_data: Passing::new(),
        }
    }

    /// Tells whether all user data is stored in the order in which it has to be.
    pub(super) fn is_in_order(&self) -> bool {
        self.user_data.were_in_order()
    }

    fn put(&self, entry: &mut Metered<'_, impl Read>, id: Uuid) -> Result<Content, ImportError> {
        let failed = |e: object_store::Error| ImportError::io("store the contents of a file", e);
        let length = BlobStore::part_length(entry.size());
        let first = next_part(entry, length)?;
        if first.len() < length {
            self.runtime.block_on(self.blobs.put(id, first.into())).map_err(failed)?;
        } else {
            let mut upload = self.runtime.block_on(self.blobs.put_in_parts(id)).map_err(failed)?;
            let mut part = first;
            while !part.is_empty() {
                let put = self.runtime.block_on(upload.put_part(part.into())).map_err(failed);
                match put.and_then(|()| self.check_space()).and_then(|()| next_part(entry, length)) {
                    Ok(next) => part = next,
                    Err(error) => {
                        let _ = self.runtime.block_on(upload.abort());
                        return Err(error);
                    }
                }
            }
            self.runtime.block_on(upload.complete()).map_err(failed)?;
        }
        Ok(Content { id, size: entry.size(), sha256: entry.digest()? })
    }

    fn check_space(&self) -> Result<(), ImportError> {
        let doing = "store the contents of a file";
        match self.blobs.free() {
            Ok(free) if free.is_none_or(|free| free > self.reserve) => Ok(()),
            Ok(_) => Err(ImportError::io(doing, std::io::Error::from(std::io::ErrorKind::StorageFull))),
            Err(error) => Err(ImportError::io(doing, error)),
        }
    }

    /// Sends the rows of nodes, those of their contents first.
    fn send_tree(&mut self) -> Result<(), ImportError> {
        self.unnamed = 0;
        self.blob_rows.send(&self.to)?;
        self.node_rows.send(&self.to)
    }
}

impl Sink for Staging {
    fn content(&mut self, entry: &mut Metered<'_, impl Read>) -> Result<Content, ImportError> {
        let id = Uuid::new_v4();
        self.written.lock().unwrap_or_else(|e| e.into_inner()).push(id);
        self.check_space()?;
        let content = self.put(entry, id)?;
        let size = (content.size as i64).to_be_bytes();
        let generation = Some(self.generation.as_bytes());
        self.blob_rows.add(&[Some(id.as_bytes()), generation, Some(&size), Some(&content.sha256)]);
        self.unnamed += content.size;
        Ok(content)
    }

    fn node(&mut self, path: &str, pmeta: Option<&str>, content: Option<&Content>) -> Result<(), ImportError> {
        let id = content.map(|content| content.id.as_bytes().as_slice());
        let generation = Some(self.generation.as_bytes());
        self.node_rows.add(&[generation, Some(path.as_bytes()), pmeta.map(str::as_bytes), id]);
        // Contents without a row are found by the sweeper only after a day: a killed process leaves few.
        if self.node_rows.are_many() || self.blob_rows.are_many() || self.unnamed > limits::FLUSH_BYTES {
            self.send_tree()?;
        }
        Ok(())
    }

    fn document(&mut self, document: &Checked<'_>) -> Result<(), ImportError> {
        let (id, body) = (Some(document.id.as_bytes()), Some(document.body.as_bytes()));
        if document.repaired {
            self.link_rows.add(&[id, body]);
        } else {
            let label = Some(document.document_type.name().as_bytes());
            self.document_rows.add(&[Some(self.generation.as_bytes()), label, id, body]);
        }
        if document.document_type == DocumentType::UserData {
            self.user_data.pass(&document.id, &document.targets, limits::IDS_REMEMBERED);
        }
        for target in &document.targets {
            self.reference_rows.add(&[id, Some(target.as_bytes())]);
        }
        for rows in [&mut self.document_rows, &mut self.reference_rows, &mut self.link_rows] {
            rows.send_when_many(&self.to)?;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), ImportError> {
        self.send_tree()?;
        for rows in [&mut self.document_rows, &mut self.reference_rows, &mut self.link_rows] {
            rows.send(&self.to)?;
        }
        Ok(())
    }
}

/// Reads up to so many bytes; fewer at the end only.
fn next_part(entry: &mut Metered<'_, impl Read>, length: usize) -> Result<Vec<u8>, ImportError> {
    let wanted = usize::try_from(entry.size()).unwrap_or(length).clamp(1, length - 1) + 1;
    let mut part = vec![0; wanted];
    let mut end = 0;
    while end < part.len() {
        match entry.piece(&mut part[end..])? {
            0 => break,
            n => end += n,
        }
    }
    part.truncate(end);
    Ok(part)
}

/// Prepares a connection for a staging: what the whole of it needs, and nothing that outlives the connection.
pub(super) async fn prepare(connection: &mut PgConnection) -> Result<(), ImportError> {
    // The trigger that keeps targets before users looks at single rows; a staging does it once for all. Its commits need
    // not be durable one by one: the one that makes a cell name the generation makes all before it durable.
    // A process that freezes in the middle of a batch must not hold its generation for long.
    let setup = format!(
        "SET cellexport.loading = 'on';
         SET synchronous_commit = off;
         SET statement_timeout = {};
         SET idle_in_transaction_session_timeout = {};
         CREATE TEMPORARY TABLE staging_reference (user_id text, target_id text);
         CREATE TEMPORARY TABLE staging_link (n bigserial, id text, body text)",
        limits::BATCH_TIMEOUT.as_millis(),
        limits::IDLE_IN_TRANSACTION_TIMEOUT.as_millis()
    );
    connection
        .execute(sqlx::AssertSqlSafe(setup))
        .await
        .map(|_| ())
        .map_err(StoreError::doing("prepare to store rows"))
        .map_err(Into::into)
}

/// Does what can only be done when all rows are there: repaired links, and targets before users unless they are.
pub(super) async fn complete(
    connection: &mut PgConnection,
    generation: &str,
    in_order: bool,
) -> Result<(), ImportError> {
    let doing = || StoreError::doing("order user data");
    let mut tx = connection.begin().await.map_err(doing())?;
    let patience = format!("SET LOCAL statement_timeout = {}", limits::READ_STATEMENT_TIMEOUT.as_millis());
    tx.execute(sqlx::AssertSqlSafe(patience)).await.map_err(doing())?;
    if !generations::hold(&mut tx, generation).await? {
        return Err(ImportError::Interrupted);
    }
    // Of several links between the same ends one is enough. Checked at run time: the tables exist in this session only.
    let links = "INSERT INTO document (generation, type, id, body)
                 SELECT $1, 'link', id, body FROM staging_link ORDER BY n
                 ON CONFLICT (generation, type, id) DO NOTHING";
    sqlx::query(links).bind(generation).execute(&mut *tx).await.map_err(StoreError::doing("repair links"))?;
    if !in_order {
        order(&mut tx, generation).await?;
    }
    tx.commit().await.map_err(doing())?;
    Ok(())
}

/// Puts targets before users, wherever the snapshot had them the other way round.
async fn order(tx: &mut PgConnection, generation: &str) -> Result<(), ImportError> {
    let doing = || StoreError::doing("order user data");
    tx.execute("ANALYZE staging_reference").await.map_err(doing())?;
    // Nothing is known yet of a generation that was just filled: the planner takes it for a row or two and would go through
    // all of it again for every reference.
    tx.execute("SET LOCAL enable_nestloop = off").await.map_err(doing())?;
    // Checked at run time: the table exists in this session only. Within one import positions only grow, and their
    // distance to the first one is a small number.
    let (first, forward): (i64, bool) = sqlx::query_as(
        "SELECT coalesce(min(u.position), 0), coalesce(bool_or(t.position > u.position), false)
         FROM staging_reference r
         JOIN document u ON u.generation = $1 AND u.type = 'UserData' AND u.id = r.user_id
         JOIN document t ON t.generation = $1 AND t.type = 'UserData' AND t.id = r.target_id",
    )
    .bind(generation)
    .fetch_one(&mut *tx)
    .await
    .map_err(doing())?;
    if !forward {
        return Ok(());
    }
    let mut rows = sqlx::query_as::<_, (i64, i64)>(
        "SELECT u.position, t.position
         FROM staging_reference r
         JOIN document u ON u.generation = $1 AND u.type = 'UserData' AND u.id = r.user_id
         JOIN document t ON t.generation = $1 AND t.type = 'UserData' AND t.id = r.target_id
         ORDER BY 1, 2 LIMIT $2",
    )
    .bind(generation)
    .bind(limits::REFERENCES_ORDERED as i64 + 1)
    .fetch(&mut *tx);
    let mut references = Vec::new();
    while let Some((user, target)) = rows.try_next().await.map_err(doing())? {
        match (u32::try_from(user - first), u32::try_from(target - first)) {
            (Ok(user), Ok(target)) if references.len() < limits::REFERENCES_ORDERED => {
                references.push((user, target));
            }
            // A target before all users needs nothing. Beyond the limit the order stays as it is: nothing but
            // Personium's importer depends on it.
            (Ok(_), Err(_)) if target < first => {}
            _ => {
                tracing::warn!("too many references to put targets before users");
                return Ok(());
            }
        }
    }
    drop(rows);
    let moving = order::moving(&references);
    drop(references);
    tx.execute("CREATE TEMPORARY TABLE staging_move (n bigserial, position bigint) ON COMMIT DROP")
        .await
        .map_err(doing())?;
    // The front grows to smaller and smaller positions: what must stand first is moved last.
    for some in moving.rchunks(limits::MOVES) {
        let some: Vec<i64> = some.iter().rev().map(|place| first + i64::from(*place)).collect();
        let insert = "INSERT INTO staging_move (position) SELECT p FROM unnest($1::bigint[]) WITH ORDINALITY AS m (p, n) ORDER BY n";
        sqlx::query(insert).bind(some).execute(&mut *tx).await.map_err(doing())?;
    }
    // Drawn once: a join may read its input again for every row, and nextval would answer anew each time.
    sqlx::query(
        "WITH moved AS MATERIALIZED (
           SELECT position, nextval('document_front') AS front FROM (SELECT position FROM staging_move ORDER BY n) m)
         UPDATE document d SET position = moved.front FROM moved
         WHERE d.generation = $1 AND d.type = 'UserData' AND d.position = moved.position",
    )
    .bind(generation)
    .execute(&mut *tx)
    .await
    .map_err(doing())?;
    Ok(())
}
