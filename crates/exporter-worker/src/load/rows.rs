//! The one transaction of a load: all rows of the cell, in the order of an export.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

use model::cell::{CellId, CellName};
use model::layout::DocumentType;
use model::limits;
use model::store::{self, StoreError};
use secrecy::SecretString;
use sqlx::{Connection, Executor, PgConnection};
use tokio::sync::mpsc;

use super::archive::Archive;
use super::copy_out::CopyBuffer;
use super::document;
use super::error::LoadError;
use super::identity::Identity;
use super::lines;
use super::tree::Spool;
use super::{Loaded, Shared};

const COPY_BLOBS: &str = "COPY blob (id, cell_id, size, sha256) FROM STDIN (FORMAT binary)";
const COPY_NODES: &str = "COPY node (cell_id, path, pmeta, blob_id) FROM STDIN (FORMAT binary)";
// Positions come from the sequence: the order of the rows is the order of the snapshot.
const COPY_DOCUMENTS: &str = "COPY document (cell_id, type, id, body) FROM STDIN (FORMAT binary)";
const COPY_REFERENCES: &str = "COPY loading_reference (user_id, target_id) FROM STDIN (FORMAT binary)";

/// Refuses early what the constraints would refuse late. They decide.
pub(super) async fn check_free(database: &SecretString, name: &CellName, id: Option<&CellId>) -> Result<(), LoadError> {
    let mut connection = store::connect(database, "cell-export load").await?;
    let taken =
        sqlx::query_scalar!("SELECT name FROM cell WHERE name = $1 OR id = $2", name.as_str(), id.map(CellId::as_str))
            .fetch_optional(&mut connection)
            .await
            .map_err(StoreError::doing("look for the cell"))?;
    match taken {
        None => Ok(()),
        Some(other) if other == name.as_str() => Err(name_taken(name.as_str())),
        Some(other) => Err(id_taken(&other)),
    }
}

/// Stores the cell.
pub(super) async fn store(
    database: &SecretString,
    archive: Archive,
    identity: Identity,
    spool: Spool,
    shared: &Shared,
) -> Result<Loaded, LoadError> {
    let mut connection = store::connect_for_copy(database, "cell-export load").await?;
    let mut tx = connection.begin().await.map_err(StoreError::doing("begin a load"))?;
    // The trigger that keeps targets before users looks at single rows; a load does it once for all.
    tx.execute("SET LOCAL cellexport.loading = 'on'").await.map_err(StoreError::doing("begin a load"))?;
    insert_cell(&mut tx, &identity).await?;
    copy_file(&mut tx, COPY_BLOBS, spool.blobs, shared).await?;
    copy_file(&mut tx, COPY_NODES, spool.nodes, shared).await?;
    let (documents, references) = copy_documents(&mut tx, archive, &identity, shared).await?;
    order(&mut tx, &identity, references, shared).await?;
    if shared.stop.is_cancelled() {
        return Err(LoadError::Interrupted);
    }
    tx.commit().await.map_err(StoreError::doing("commit a load"))?;
    Ok(Loaded { documents: documents.count, files: spool.files, bytes: spool.bytes + documents.bytes })
}

async fn insert_cell(tx: &mut PgConnection, identity: &Identity) -> Result<(), LoadError> {
    let inserted = sqlx::query!(
        "INSERT INTO cell (id, name, owner, document) VALUES ($1, $2, $3, $4)",
        identity.id.as_str(),
        identity.name,
        identity.owner,
        identity.document
    )
    .execute(tx)
    .await
    .map_err(StoreError::doing("store the cell"));
    match inserted {
        Ok(_) => Ok(()),
        Err(error) => Err(match error.constraint() {
            Some("cell_name_key") => name_taken(&identity.name),
            Some("cell_pkey") => id_taken("another name"),
            _ => error.into(),
        }),
    }
}

fn name_taken(name: &str) -> LoadError {
    LoadError::Exists(format!("a cell named {name} exists"))
}

fn id_taken(other: &str) -> LoadError {
    LoadError::Exists(format!("the cell is stored already as {other}; give it another id with --cell-id"))
}

/// Sends a spooled stream.
async fn copy_file(
    tx: &mut PgConnection,
    statement: &'static str,
    file: File,
    shared: &Shared,
) -> Result<(), LoadError> {
    let mut file = tokio::fs::File::from_std(file);
    let mut copy = tx.copy_in_raw(statement).await.map_err(StoreError::doing("begin to copy rows"))?;
    let mut piece = vec![0; limits::PIECE];
    loop {
        let n = tokio::io::AsyncReadExt::read(&mut file, &mut piece)
            .await
            .map_err(|e| LoadError::io("read a temporary file", e))?;
        if n == 0 {
            break;
        }
        if shared.stop.is_cancelled() {
            return Err(LoadError::Interrupted);
        }
        copy.send(&piece[..n]).await.map_err(StoreError::doing("copy rows"))?;
    }
    copy.finish().await.map(|_| ()).map_err(|e| refused(StoreError::doing("copy rows")(e)))
}

#[derive(Debug, Clone, Copy, Default)]
struct Documents {
    count: u64,
    bytes: u64,
}

/// Reads, checks and copies all documents; returns the references among user data as a spooled stream.
async fn copy_documents(
    tx: &mut PgConnection,
    archive: Archive,
    identity: &Identity,
    shared: &Shared,
) -> Result<(Documents, File), LoadError> {
    let references = tempfile::tempfile_in(&shared.scratch).map_err(|e| LoadError::io("write a temporary file", e))?;
    let (sender, mut pieces) = mpsc::channel(limits::PIECES_WAITING);
    let identity = identity.clone();
    // Decompressing and checking block, and they take as long as the database does: side by side, on two threads.
    let reading = tokio::task::spawn_blocking(move || read_documents(archive, &identity, references, &sender));
    let mut copy = tx.copy_in_raw(COPY_DOCUMENTS).await.map_err(StoreError::doing("begin to copy documents"))?;
    let mut sent = Ok(());
    while let Some(piece) = pieces.recv().await {
        sent = copy.send(piece).await.map(|_| ());
        if sent.is_err() {
            break;
        }
    }
    drop(pieces);
    let read = reading.await.map_err(LoadError::internal)?;
    if let (Err(error), Ok(())) = (&read, &sent) {
        // Ends the COPY in order; the transaction is given up by whoever gets the error.
        copy.abort(error.to_string()).await.map_err(StoreError::doing("give up a COPY"))?;
        return read;
    }
    // A refusal of the database may arrive at any piece, or at the end.
    sent.map_err(|e| refused(StoreError::doing("copy documents")(e)))?;
    copy.finish().await.map_err(|e| refused(StoreError::doing("copy documents")(e)))?;
    read
}

fn read_documents(
    mut archive: Archive,
    identity: &Identity,
    mut references: File,
    pieces: &mpsc::Sender<Vec<u8>>,
) -> Result<(Documents, File), LoadError> {
    let spooling = |e| LoadError::io("write a temporary file", e);
    let (mut rows, mut edges) = (CopyBuffer::new(), CopyBuffer::new());
    let mut documents = Documents::default();
    let cell = identity.id.as_str().as_bytes();
    for document_type in DocumentType::ALL {
        let mut entry = archive.documents(document_type)?;
        let label = document_type.name().as_bytes();
        lines::for_each(&mut entry, |number, line| {
            let checked = document::check(line, document_type, identity)
                .map_err(|what| LoadError::line(document_type.entry(), number, what))?;
            let body = checked.body.as_bytes();
            rows.row(&[Some(cell), Some(label), Some(checked.id.as_bytes()), Some(body)]);
            for target in &checked.targets {
                edges.row(&[Some(checked.id.as_bytes()), Some(target.as_bytes())]);
            }
            documents.count += 1;
            documents.bytes += body.len() as u64 + 1;
            if rows.len() > limits::PIECE && pieces.blocking_send(rows.take()).is_err() {
                // The other side stopped because the database refused; its error is the one that counts.
                return Err(LoadError::Interrupted);
            }
            if edges.len() > limits::PIECE {
                references.write_all(&edges.take()).map_err(spooling)?;
            }
            Ok(())
        })?;
    }
    rows.end();
    edges.end();
    let _ = pieces.blocking_send(rows.take());
    references.write_all(&edges.take()).and_then(|()| references.seek(SeekFrom::Start(0))).map_err(spooling)?;
    Ok((documents, references))
}

/// Puts targets before users, wherever the snapshot had them the other way round.
async fn order(
    tx: &mut PgConnection,
    identity: &Identity,
    mut references: File,
    shared: &Shared,
) -> Result<(), LoadError> {
    let doing = || StoreError::doing("order user data");
    // An empty stream is a header and an end.
    let mut start = [0; 22];
    let empty = references.read(&mut start).map_err(|e| LoadError::io("read a temporary file", e))? < start.len();
    if empty {
        return Ok(());
    }
    references.seek(SeekFrom::Start(0)).map_err(|e| LoadError::io("read a temporary file", e))?;
    let table = "CREATE TEMPORARY TABLE loading_reference (user_id text, target_id text) ON COMMIT DROP";
    tx.execute(table).await.map_err(doing())?;
    copy_file(tx, COPY_REFERENCES, references, shared).await?;
    // Checked at run time: the table exists in this transaction only.
    let users: Vec<(String,)> = sqlx::query_as(
        "SELECT DISTINCT ON (u.position) u.id
         FROM loading_reference r
         JOIN document u ON u.cell_id = $1 AND u.type = 'UserData' AND u.id = r.user_id
         JOIN document t ON t.cell_id = $1 AND t.type = 'UserData' AND t.id = r.target_id
         WHERE t.position > u.position
         ORDER BY u.position",
    )
    .bind(identity.id.as_str())
    .fetch_all(&mut *tx)
    .await
    .map_err(doing())?;
    for (user,) in users {
        sqlx::query_scalar!("SELECT document_targets_first($1, $2)", identity.id.as_str(), user)
            .fetch_one(&mut *tx)
            .await
            .map_err(doing())?;
    }
    Ok(())
}

/// Turns a constraint that the rows break into a fault of the snapshot.
fn refused(error: StoreError) -> LoadError {
    match error.constraint() {
        None => error.into(),
        Some("document_pkey") => LoadError::BadInput(twice(&error)),
        Some(constraint) => LoadError::BadInput(format!("the snapshot breaks the rule {constraint} of the store")),
    }
}

/// Names the document from the database's own words: `Key (cell_id, type, id)=(…, Role, x) already exists.`
fn twice(error: &StoreError) -> String {
    let StoreError::Database { source: sqlx::Error::Database(source), .. } = error else { return String::new() };
    let source: &sqlx::postgres::PgDatabaseError = source.downcast_ref();
    let detail = source.detail().unwrap_or_default();
    let key = detail.split_once("=(").map_or("", |(_, rest)| rest);
    let key = key.split_once(')').map_or("", |(key, _)| key);
    let mut parts = key.split(", ").skip(1);
    let (name, id) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let entry = DocumentType::parse(name).map_or(name, |t| t.entry());
    format!("{entry}: the _id {id} occurs twice")
}
