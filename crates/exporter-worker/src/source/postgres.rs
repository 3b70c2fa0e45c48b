//! Cells in our own schema: rows that are ready to be written, and write-once blobs.
//!
//! A view is one REPEATABLE READ transaction on a connection of its own, never one of a pool: an abandoned `COPY` puts
//! a connection of sqlx 0.9.0 out of step. Writers are never blocked; the transaction lasts as long as the documents
//! need and ends before the first content is read.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::TryStreamExt;
use model::area::{BlobStore, Pieces};
use model::cell::CellId;
use model::layout::DocumentType;
use model::limits;
use model::store::{self, StoreError};
use secrecy::SecretString;
use sqlx::{Connection, Executor, PgConnection, PgPool};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::copy_rows::{CopyError, CopyRows, Row};
use super::{Batch, CellSource, CellView, ContentRef, Node, Summary, Tree};
use crate::failure::Failure;

// COPY takes no parameters: the cell's generation is a setting of the transaction.
const COPY_DOCUMENTS: &str = "
    COPY (
      SELECT type, body FROM document
      WHERE generation = current_setting('cellexport.generation')
      ORDER BY type, position
    ) TO STDOUT (FORMAT binary)";

const COPY_NODES: &str = r#"
    COPY (
      SELECT n.path, n.pmeta, n.blob_id, b.size, b.sha256
      FROM node n LEFT JOIN blob b ON b.id = n.blob_id
      WHERE n.generation = current_setting('cellexport.generation')
        AND split_part(n.path, '/', 1) NOT IN ('.pkeys', '.pauthhistory')
      ORDER BY replace(n.path, '/', chr(1)) COLLATE "C"
    ) TO STDOUT (FORMAT binary)"#;

/// The cells of one database and one blob store.
#[derive(Debug, Clone)]
pub struct PostgresSource {
    url: SecretString,
    blobs: BlobStore,
    scratch: PathBuf,
}

impl PostgresSource {
    /// Names the places; nothing is opened yet. `scratch` is a directory for temporary files.
    pub fn new(url: SecretString, blobs: BlobStore, scratch: PathBuf) -> Self {
        Self { url, blobs, scratch }
    }
}

impl CellSource for PostgresSource {
    type View = PostgresView;

    async fn open(&self, cell: &CellId) -> Result<PostgresView, Failure> {
        let mut connection = store::connect_for_copy(&self.url, "cell-export reader").await.map_err(Failure::store)?;
        let begin = async {
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
            // The order is that of an index; sorting instead would spool the whole cell to the database's disk.
            connection.execute("SET LOCAL enable_sort = off").await?;
            // Whatever the statements say, this role sees one cell: the one that is set (migrations/0006_roles.sql).
            connection.execute("SET LOCAL ROLE cellexport_reader").await?;
            let set = "SELECT set_config('cellexport.cell', $1, true)";
            sqlx::query(set).bind(cell.as_str()).execute(&mut connection).await?;
            let read = "SELECT set_config('cellexport.generation', generation, true) FROM cell WHERE id = $1";
            sqlx::query(read).bind(cell.as_str()).execute(&mut connection).await
        };
        begin.await.map_err(StoreError::doing("open a view of a cell")).map_err(Failure::store)?;
        let summary = summary(&mut connection, cell).await?.ok_or_else(Failure::cell_gone)?;
        Ok(PostgresView { connection, summary, scratch: self.scratch.clone() })
    }

    async fn small_contents(&self, contents: Vec<ContentRef>) -> Vec<Result<Bytes, object_store::Error>> {
        self.blobs.read_small(contents.iter().map(|content| (content.id, content.size)).collect()).await
    }

    async fn content(&self, id: Uuid) -> Result<Pieces, object_store::Error> {
        self.blobs.read(id).await
    }
}

async fn summary(connection: &mut PgConnection, cell: &CellId) -> Result<Option<Summary>, Failure> {
    let doing = || StoreError::doing("count a cell");
    let row = sqlx::query!(
        r#"SELECT document, (extract(epoch FROM now()) * 1000)::bigint AS "taken_at!" FROM cell WHERE id = $1"#,
        cell.as_str()
    )
    .fetch_optional(&mut *connection)
    .await
    .map_err(|e| Failure::store(doing()(e)))?;
    let Some(row) = row else { return Ok(None) };
    let counts = sqlx::query!(
        r#"SELECT type::text AS "type!", count(*) AS "count!"
           FROM document WHERE generation = (SELECT generation FROM cell WHERE id = $1) GROUP BY type"#,
        cell.as_str()
    )
    .fetch_all(&mut *connection)
    .await
    .map_err(|e| Failure::store(doing()(e)))?;
    let mut documents = [0; DocumentType::ALL.len()];
    for count in counts {
        let known = DocumentType::parse(&count.r#type)
            .ok_or(StoreError::Corrupt { table: "document", column: "type", row: count.r#type })
            .map_err(Failure::store)?;
        documents[known.index()] = count.count as u64;
    }
    let files = sqlx::query!(
        r#"
        SELECT count(*) AS "files!", coalesce(sum(b.size), 0)::bigint AS "bytes!"
        FROM node n JOIN blob b ON b.id = n.blob_id
        WHERE n.generation = (SELECT generation FROM cell WHERE id = $1) AND split_part(n.path, '/', 1) NOT IN ('.pkeys', '.pauthhistory')
        "#,
        cell.as_str()
    )
    .fetch_one(connection)
    .await
    .map_err(|e| Failure::store(doing()(e)))?;
    Ok(Some(Summary {
        document: row.document,
        taken_at: row.taken_at,
        documents,
        files: files.files as u64,
        file_bytes: files.bytes as u64,
    }))
}

/// One REPEATABLE READ transaction.
#[derive(Debug)]
pub struct PostgresView {
    connection: PgConnection,
    summary: Summary,
    scratch: PathBuf,
}

impl CellView for PostgresView {
    fn summary(&self) -> &Summary {
        &self.summary
    }

    async fn documents(&mut self, batches: mpsc::Sender<Batch>) -> Result<(), Failure> {
        let mut rows = CopyRows::default();
        let mut batch = Growing::default();
        let mut stream = copy_out(&mut self.connection, COPY_DOCUMENTS).await?;
        while let Some(piece) = next_piece(&mut stream).await? {
            rows.push(piece);
            while let Some(row) = rows.next_row().map_err(malformed)? {
                let (name, body) = document(row)?;
                if let Some(full) = batch.add(&name, &body)?
                    && batches.send(full).await.is_err()
                {
                    return Ok(());
                }
            }
        }
        rows.finish().map_err(malformed)?;
        if let Some(last) = batch.take() {
            let _ = batches.send(last).await;
        }
        Ok(())
    }

    async fn seal(mut self) -> Result<Tree, Failure> {
        let doing = "list the file tree";
        let mut spool = tempfile::tempfile_in(&self.scratch).map_err(|e| Failure::io(doing, e))?;
        let mut stream = copy_out(&mut self.connection, COPY_NODES).await?;
        while let Some(piece) = next_piece(&mut stream).await? {
            spool.write_all(&piece).map_err(|e| Failure::io(doing, e))?;
        }
        drop(stream);
        let commit = async {
            self.connection.execute("COMMIT").await?;
            self.connection.close().await
        };
        commit.await.map_err(StoreError::doing("close a view of a cell")).map_err(Failure::store)?;
        spool.seek(SeekFrom::Start(0)).map_err(|e| Failure::io(doing, e))?;
        Ok(Tree(Box::new(Nodes { spool: BufReader::new(spool), rows: CopyRows::default() })))
    }
}

type CopyStream<'c> = futures_util::stream::BoxStream<'c, Result<Bytes, sqlx::Error>>;

async fn copy_out<'c>(connection: &'c mut PgConnection, statement: &str) -> Result<CopyStream<'c>, Failure> {
    connection.copy_out_raw(statement).await.map_err(StoreError::doing("read a cell")).map_err(Failure::store)
}

async fn next_piece(stream: &mut CopyStream<'_>) -> Result<Option<Bytes>, Failure> {
    match tokio::time::timeout(limits::READ_STALL, stream.try_next()).await {
        Ok(piece) => piece.map_err(StoreError::doing("read a cell")).map_err(Failure::store),
        Err(_) => {
            let source = sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
            Err(Failure::store(StoreError::Database { doing: "read a cell", source }))
        }
    }
}

fn malformed(error: CopyError) -> Failure {
    Failure::internal(error.to_string())
}

fn document(mut row: Row) -> Result<(Bytes, Bytes), Failure> {
    match (row.fields(), row.field(), row.field()) {
        (2, Some(name), Some(body)) => Ok((name, body)),
        _ => Err(Failure::internal("a document row without type or body".to_owned())),
    }
}

/// A batch being filled.
#[derive(Default)]
struct Growing {
    document_type: Option<DocumentType>,
    lines: BytesMut,
    count: u64,
}

impl Growing {
    /// Adds a document; returns what was collected before it when that is enough or of another type.
    fn add(&mut self, name: &[u8], body: &[u8]) -> Result<Option<Batch>, Failure> {
        let same = self.document_type.is_some_and(|known| known.name().as_bytes() == name);
        let full = if same && self.lines.len() < limits::PIECE { None } else { self.take() };
        if self.document_type.is_none() {
            let known = std::str::from_utf8(name).ok().and_then(DocumentType::parse);
            self.document_type =
                Some(known.ok_or_else(|| Failure::internal("a document of an unknown type".to_owned()))?);
            self.lines.reserve(limits::PIECE + 4096);
        }
        self.lines.reserve(body.len() + 1);
        self.lines.extend_from_slice(body);
        self.lines.extend_from_slice(b"\n");
        self.count += 1;
        Ok(full)
    }

    fn take(&mut self) -> Option<Batch> {
        let document_type = self.document_type.take()?;
        let lines = std::mem::take(&mut self.lines).freeze();
        Some(Batch { document_type, lines, count: std::mem::take(&mut self.count) })
    }
}

/// The spooled tree, read back row by row.
struct Nodes {
    spool: BufReader<File>,
    rows: CopyRows,
}

impl Iterator for Nodes {
    type Item = Result<Node, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.rows.next_row() {
                Ok(Some(row)) => {
                    return Some(node(row).ok_or_else(|| Failure::internal("a malformed node row".into())));
                }
                Ok(None) => {}
                Err(error) => return Some(Err(malformed(error))),
            }
            let mut piece = [0; 16 << 10];
            match self.spool.read(&mut piece) {
                Ok(0) => return self.rows.finish().err().map(|e| Err(malformed(e))),
                Ok(n) => self.rows.push(Bytes::copy_from_slice(&piece[..n])),
                Err(error) => return Some(Err(Failure::io("list the file tree", error))),
            }
        }
    }
}

fn node(mut row: Row) -> Option<Node> {
    if row.fields() != 5 {
        return None;
    }
    let [path, pmeta, blob_id, size, sha256] = std::array::from_fn(|_| row.field());
    let text = |bytes: Bytes| String::from_utf8(bytes.into()).ok();
    let content = match (blob_id, size, sha256) {
        (None, _, _) => None,
        (Some(id), Some(mut size), Some(sha256)) if size.len() == 8 => Some(ContentRef {
            id: Uuid::from_slice(&id).ok()?,
            size: size.get_i64() as u64,
            sha256: sha256.as_ref().try_into().ok()?,
        }),
        _ => return None,
    };
    let pmeta = match pmeta {
        None => None,
        Some(bytes) => Some(text(bytes)?),
    };
    Some(Node { path: text(path?)?, pmeta, content })
}

/// Finds, among these blobs, those that no row names.
pub async fn unnamed_blobs(pool: &PgPool, ids: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
    sqlx::query_scalar!(
        r#"
        SELECT candidate AS "id!" FROM unnest($1::uuid[]) AS candidate
        WHERE NOT EXISTS (SELECT 1 FROM blob WHERE blob.id = candidate)
        "#,
        ids
    )
    .fetch_all(pool)
    .await
    .map_err(StoreError::doing("look for blobs without a row"))
}
