//! A dry run: what an import would change. Nothing is stored but digests, in temporary tables of one connection.

use std::collections::BTreeMap;
use std::io::Read;

use model::cell::CellId;
use model::layout::DocumentType;
use model::limits;
use model::store::StoreError;
use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::{Connection, Executor, PgConnection, Row};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::document::Checked;
use super::error::{Faults, ImportError};
use super::metered::Metered;
use super::rows::{Batch, Rows};
use super::sink::{Content, Sink};

const COPY_DOCUMENTS: &str = "COPY compared_document (type, id, digest, repaired) FROM STDIN (FORMAT binary)";
const COPY_NODES: &str = "COPY compared_node (path, digest, size, sha256) FROM STDIN (FORMAT binary)";

/// The sink.
pub(super) struct Comparison {
    to: mpsc::Sender<Batch>,
    documents: Rows,
    nodes: Rows,
}

impl Comparison {
    pub(super) fn new(to: mpsc::Sender<Batch>) -> Self {
        Self { to, documents: Rows::of(COPY_DOCUMENTS), nodes: Rows::of(COPY_NODES) }
    }
}

/// Half of a SHA-256: two texts of one id that are not the same never share it.
fn digest(text: &str) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&Sha256::digest(text)[..16]);
    half
}

impl Sink for Comparison {
    fn content(&mut self, entry: &mut Metered<'_, impl Read>) -> Result<Content, ImportError> {
        let mut piece =
            vec![0; limits::PIECE.min(usize::try_from(entry.size()).unwrap_or(limits::PIECE).saturating_add(1))];
        while entry.piece(&mut piece)? > 0 {}
        Ok(Content { id: Uuid::nil(), size: entry.size(), sha256: entry.digest()? })
    }

    fn node(&mut self, path: &str, pmeta: Option<&str>, content: Option<&Content>) -> Result<(), ImportError> {
        let size = content.map(|content| (content.size as i64).to_be_bytes());
        self.nodes.add(&[
            Some(path.as_bytes()),
            Some(&digest(pmeta.unwrap_or_default())),
            size.as_ref().map(<[u8; 8]>::as_slice),
            content.map(|content| content.sha256.as_slice()),
        ]);
        self.nodes.send_when_many(&self.to)
    }

    fn document(&mut self, document: &Checked<'_>) -> Result<(), ImportError> {
        self.documents.add(&[
            Some(document.document_type.name().as_bytes()),
            Some(document.id.as_bytes()),
            Some(&digest(&document.body)),
            Some(&[u8::from(document.repaired)]),
        ]);
        self.documents.send_when_many(&self.to)
    }

    fn end(&mut self) -> Result<(), ImportError> {
        self.nodes.send(&self.to)?;
        self.documents.send(&self.to)
    }
}

/// Makes the temporary tables.
pub(super) async fn prepare(connection: &mut PgConnection) -> Result<(), ImportError> {
    let setup =
        "CREATE TEMPORARY TABLE compared_document (type document_type, id text, digest bytea, repaired boolean);
                 CREATE TEMPORARY TABLE compared_node (path text, digest bytea, size bigint, sha256 bytea)";
    connection.execute(setup).await.map(|_| ()).map_err(doing()).map_err(Into::into)
}

/// How many things an import would change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// In the snapshot only.
    pub added: i64,
    /// In both, and different.
    pub replaced: i64,
    /// In the cell only.
    pub removed: i64,
    /// In both, and the same.
    pub unchanged: i64,
}

/// What an import would change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AllChanges {
    /// Documents by type.
    pub documents: BTreeMap<&'static str, Changes>,
    /// Files: contents, or metadata, or both.
    pub files: Changes,
    /// Boxes and collections.
    pub collections: Changes,
}

/// Compares with the cell as it is at one instant.
pub(super) async fn compare(
    connection: &mut PgConnection,
    cell: &CellId,
    faults: &mut Faults,
) -> Result<AllChanges, ImportError> {
    connection.execute("ANALYZE compared_document; ANALYZE compared_node").await.map_err(doing())?;
    let mut tx = connection.begin().await.map_err(doing())?;
    tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await.map_err(doing())?;
    find_twice(&mut tx, faults).await?;
    let mut changes = AllChanges::default();
    for of in DocumentType::ALL {
        changes.documents.insert(of.name(), Changes::default());
    }
    // Checked at run time: the tables exist in this session only.
    let documents = sqlx::query(
        "WITH new AS (SELECT DISTINCT ON (type, id) type, id, digest FROM compared_document ORDER BY type, id),
              old AS (SELECT type, id, substr(sha256(convert_to(body, 'UTF8')), 1, 16) AS digest
                      FROM document WHERE generation = (SELECT generation FROM cell WHERE id = $1))
         SELECT type::text, count(*) FILTER (WHERE old.digest IS NULL),
                count(*) FILTER (WHERE old.digest <> new.digest),
                count(*) FILTER (WHERE new.digest IS NULL), count(*) FILTER (WHERE old.digest = new.digest)
         FROM new FULL JOIN old USING (type, id) GROUP BY type",
    )
    .bind(cell.as_str())
    .fetch_all(&mut *tx)
    .await
    .map_err(doing())?;
    for row in documents {
        let name: String = row.get(0);
        if let Some(of) = DocumentType::parse(&name) {
            changes.documents.insert(of.name(), counted(&row, 1));
        }
    }
    let nodes = sqlx::query(
        "WITH old AS (SELECT n.path, substr(sha256(convert_to(coalesce(n.pmeta, ''), 'UTF8')), 1, 16) AS digest,
                             b.size, b.sha256
                      FROM node n LEFT JOIN blob b ON b.id = n.blob_id
                      WHERE n.generation = (SELECT generation FROM cell WHERE id = $1)),
              both_sides AS (
                SELECT coalesce(new.size, old.size) IS NOT NULL AS file, old.path AS old_path, new.path AS new_path,
                       (old.digest, old.size, old.sha256) IS NOT DISTINCT FROM (new.digest, new.size, new.sha256) AS same
                FROM compared_node new FULL JOIN old USING (path))
         SELECT file, count(*) FILTER (WHERE old_path IS NULL),
                count(*) FILTER (WHERE old_path IS NOT NULL AND new_path IS NOT NULL AND NOT same),
                count(*) FILTER (WHERE new_path IS NULL), count(*) FILTER (WHERE same)
         FROM both_sides GROUP BY file",
    )
    .bind(cell.as_str())
    .fetch_all(&mut *tx)
    .await
    .map_err(doing())?;
    for row in nodes {
        match row.get(0) {
            true => changes.files = counted(&row, 1),
            false => changes.collections = counted(&row, 1),
        }
    }
    tx.rollback().await.map_err(doing())?;
    Ok(changes)
}

fn counted(row: &sqlx::postgres::PgRow, first: usize) -> Changes {
    Changes {
        added: row.get(first),
        replaced: row.get(first + 1),
        removed: row.get(first + 2),
        unchanged: row.get(first + 3),
    }
}

/// An import would fail on an id that stands twice.
async fn find_twice(tx: &mut PgConnection, faults: &mut Faults) -> Result<(), ImportError> {
    let twice: Vec<(String, String, i64)> = sqlx::query_as(
        "SELECT type::text, id, count(*) OVER () FROM compared_document
         GROUP BY type, id HAVING count(*) FILTER (WHERE NOT repaired) > 1
         ORDER BY type, id LIMIT $1",
    )
    .bind(limits::FAULTS_LISTED as i64)
    .fetch_all(tx)
    .await
    .map_err(doing())?;
    let all = twice.first().map_or(0, |(_, _, all)| *all as u64);
    for (of, id, _) in &twice {
        let entry = DocumentType::parse(of).map_or("", DocumentType::entry);
        faults.add(&format!("{entry}: the _id {id} occurs twice"));
    }
    faults.count += all - twice.len() as u64;
    Ok(())
}

fn doing() -> impl FnOnce(sqlx::Error) -> StoreError {
    StoreError::doing("compare with the cell")
}
