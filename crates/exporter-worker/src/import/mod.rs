//! One import: a snapshot file in, the contents of a cell out, or what they would change. Knows neither broker nor job
//! table.
//!
//! `archive` looks at the file as a whole, `reading` goes through it once and gives everything, checked and with its
//! new ids, to a `sink`: `staging` stores it under a generation that no cell names yet, `comparison` compares it
//! with what the cell holds. Reading blocks and has a thread of its own; rows come to the database through a bounded
//! channel.

mod archive;
mod comparison;
mod copy_out;
pub mod document;
mod error;
mod fields;
#[cfg(fuzzing)]
pub mod fuzzing;
mod identity;
mod integrity;
mod json_rules;
mod lines;
mod metered;
mod order;
pub mod pmeta;
mod reading;
mod rows;
mod schema;
mod sink;
mod staging;
mod verification;

use std::collections::BTreeMap;
use std::fs::File;
use std::panic::resume_unwind;

use model::area::BlobStore;
use model::cell::CellId;
use model::error_chain::Chain;
use model::failpoint;
use model::job::Amount;
use model::layout::DocumentType;
use model::limits;
use model::store::jobs::NewContents;
use model::store::{self, StoreError, generations};
use secrecy::SecretString;
use serde::Serialize;
use sqlx::{Connection, PgConnection};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use uuid::Uuid;

pub use archive::{Archive, Origin};
pub use comparison::{AllChanges, Changes};
pub use error::{Faults, ImportError};
pub use identity::{Identity, NewCell, Owner};
pub use reading::Summary;
pub use verification::{Verified, VerifiedContents, verify};

use crate::control::Control;
use comparison::Comparison;
use rows::Batch;
use staging::{Staging, Written};

/// Where imports find what they need.
#[derive(Debug, Clone)]
pub struct Places {
    /// The database.
    pub database: SecretString,
    /// Contents of files.
    pub blobs: BlobStore,
    /// Bytes that stay free on the blobs' volume.
    pub reserve: u64,
}

/// What is imported.
#[derive(Debug)]
pub struct Import {
    /// The snapshot.
    pub file: File,
    /// Who wrote it.
    pub origin: Origin,
    /// The cell it becomes.
    pub cell: NewCell,
}

/// A generation that is filled; no cell names it.
#[derive(Debug, Clone)]
pub struct Filled {
    /// What a cell has to name.
    pub contents: NewContents,
    /// Who the cell was and is.
    pub identity: Identity,
    /// What was stored.
    pub summary: Summary,
    /// The snapshot's version.
    pub version: i64,
}

/// Fills a generation that was begun for this. When this returns `Ok` everything is stored, and durable as soon as a
/// transaction after it is.
///
/// # Errors
/// [`ImportError`]; contents are removed then, rows are left for whoever discards the generation.
pub async fn fill(places: &Places, import: Import, generation: &str, control: &Control) -> Result<Filled, ImportError> {
    let written = Written::default();
    let outcome = fill_generation(places, import, generation, control, written.clone()).await;
    if outcome.is_err() {
        let ids = std::mem::take(&mut *written.lock().unwrap_or_else(|e| e.into_inner()));
        remove_blobs(&places.blobs, ids).await;
    }
    outcome
}

/// Removes contents that nothing will name; what cannot be removed now is left to the sweeper.
pub async fn remove_blobs(blobs: &BlobStore, ids: Vec<Uuid>) {
    if let Err(error) = blobs.remove(ids).await {
        tracing::warn!(error = %Chain(&error), "cannot remove blobs, leaving them to the sweeper");
    }
}

async fn fill_generation(
    places: &Places,
    import: Import,
    generation: &str,
    control: &Control,
    written: Written,
) -> Result<Filled, ImportError> {
    let mut connection = store::connect_for_copy(&places.database, "cell-export import").await?;
    staging::prepare(&mut connection).await?;
    let (blobs, reserve, runtime) = (places.blobs.clone(), places.reserve, Handle::current());
    let (name, shared) = (generation.to_owned(), control.clone());
    let storing = run(&mut connection, Some(generation), move |to| {
        let mut sink = Staging::new(name, blobs, reserve, written, to, runtime);
        let mut faults = Faults::ending_with_the_first();
        let (archive, identity) = open(import, &shared, &mut faults)?;
        let version = archive.version().number();
        let summary = reading::read(archive, &identity, &shared, &mut faults, &mut sink)?;
        Ok((summary, identity, version, sink.is_in_order()))
    });
    let (summary, identity, version, in_order) = control.phase("read and store", storing).await?;
    let completing = control.waiting_for(staging::complete(&mut connection, generation, in_order));
    control.phase("put targets before users", completing).await?;
    if control.stopped().is_some() {
        return Err(ImportError::Interrupted);
    }
    let _ = connection.close().await;
    let contents = NewContents { generation: generation.to_owned(), document: identity.document.clone() };
    Ok(Filled { contents, identity, summary, version })
}

fn open(import: Import, control: &Control, faults: &mut Faults) -> Result<(Archive, Identity), ImportError> {
    let mut archive = Archive::open(import.file, import.origin, control, faults)?;
    let (text, value) = archive.cell_document()?;
    let identity = Identity::new(&text, &value, &import.cell)?;
    Ok((archive, identity))
}

/// Reads on a thread of its own, and writes to the database what it sends.
async fn run<T: Send + 'static>(
    connection: &mut PgConnection,
    generation: Option<&str>,
    read: impl FnOnce(mpsc::Sender<Batch>) -> Result<T, ImportError> + Send + 'static,
) -> Result<T, ImportError> {
    let (to, mut batches) = mpsc::channel(limits::BATCHES_WAITING);
    let span = tracing::Span::current();
    let reading = tokio::task::spawn_blocking(move || span.in_scope(|| read(to)));
    let mut written = Ok(());
    while let Some(batch) = batches.recv().await {
        written = write(connection, generation, batch).await;
        if written.is_err() {
            break;
        }
    }
    // Whoever still sends learns that nobody takes it.
    drop(batches);
    let read = match reading.await {
        Ok(read) => read,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(error) => return Err(ImportError::internal(error)),
        },
    };
    written?;
    read
}

async fn write(connection: &mut PgConnection, generation: Option<&str>, batch: Batch) -> Result<(), ImportError> {
    let mut tx = connection.begin().await.map_err(StoreError::doing("begin to store rows"))?;
    if let Some(generation) = generation
        && !generations::hold(&mut tx, generation).await?
    {
        return Err(ImportError::Interrupted);
    }
    let mut copy = tx.copy_in_raw(batch.copy).await.map_err(StoreError::doing("store rows"))?;
    // A refusal of the database may arrive at any piece, or at the end.
    copy.send(batch.stream).await.map_err(|e| refused(StoreError::doing("store rows")(e)))?;
    copy.finish().await.map_err(|e| refused(StoreError::doing("store rows")(e)))?;
    tx.commit().await.map_err(StoreError::doing("commit rows"))?;
    failpoint::reached("import.batch_stored");
    Ok(())
}

/// Turns a constraint that the rows break into a fault of the snapshot.
fn refused(error: StoreError) -> ImportError {
    match error.constraint() {
        None => error.into(),
        Some("document_pkey") => ImportError::Faulty(twice(&error)),
        Some(constraint) => ImportError::Faulty(format!("the snapshot breaks the rule {constraint} of the store")),
    }
}

/// Names the document from the database's own words: `Key (generation, type, id)=(…, Role, x) already exists.`
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

/// What an import did: the job's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Version of the snapshot.
    pub version: i64,
    /// Whether ids stayed as they were (the snapshot's own cell) or were made anew.
    pub ids: &'static str,
    /// Documents by type.
    pub documents: BTreeMap<&'static str, u64>,
    /// Files.
    pub files: u64,
    /// Boxes and collections.
    pub collections: u64,
    /// Bytes of documents and files.
    pub bytes: u64,
    /// Links that an earlier importer had damaged.
    pub repaired_links: u64,
    /// Entries that were left out.
    pub left_out: u64,
}

impl Report {
    /// Reports what was stored.
    pub fn of(filled: &Filled) -> Self {
        let summary = &filled.summary;
        Self {
            version: filled.version,
            ids: kept_or_new(&filled.identity),
            documents: DocumentType::ALL.iter().map(|of| (of.name(), summary.documents[of.index()])).collect(),
            files: summary.files,
            collections: summary.collections,
            bytes: summary.amount().bytes,
            repaired_links: summary.repaired_links,
            left_out: summary.left_out,
        }
    }
}

/// What a dry run found: the job's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Examined {
    /// An import of this file would succeed.
    pub importable: bool,
    /// Version of the snapshot, when it can be opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// Whether ids would stay as they are (the snapshot's own cell) or be made anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ids: Option<&'static str>,
    /// What would change, as far as the snapshot can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changes: Option<AllChanges>,
    /// Links that an earlier importer had damaged, which would be repaired.
    pub repaired_links: u64,
    /// Entries that would be left out: earlier contents of files, marks of failed imports.
    pub left_out: u64,
    /// What is wrong with the snapshot.
    pub faults: FaultList,
    /// What was read.
    #[serde(skip)]
    pub amount: Amount,
}

/// Faults of a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FaultList {
    /// How many there are.
    pub count: u64,
    /// The first ones, in words.
    pub listed: Vec<String>,
}

/// Finds out what an import would do with a cell.
///
/// # Errors
/// [`ImportError`] when that cannot be found out; faults of the snapshot are part of the answer.
pub async fn examine(
    places: &Places,
    import: Import,
    cell: &CellId,
    control: &Control,
) -> Result<Examined, ImportError> {
    let mut connection = store::connect_for_copy(&places.database, "cell-export dry run").await?;
    comparison::prepare(&mut connection).await?;
    let shared = control.clone();
    let read = run(&mut connection, None, move |to| {
        let mut sink = Comparison::new(to);
        let mut faults = Faults::going_on();
        let (archive, identity) = match open(import, &shared, &mut faults) {
            Ok(opened) => opened,
            Err(error) => return faults.end_with(error).map(|faults| (faults, None)),
        };
        let version = archive.version().number();
        match reading::read(archive, &identity, &shared, &mut faults, &mut sink) {
            Ok(summary) => Ok((faults, Some((summary, identity, version)))),
            Err(error) => faults.end_with(error).map(|faults| (faults, None)),
        }
    });
    let (mut faults, found) = control.phase("read", read).await?;
    let changes = match &found {
        Some(_) => {
            let comparing = control.waiting_for(comparison::compare(&mut connection, cell, &mut faults));
            Some(control.phase("compare", comparing).await?)
        }
        None => None,
    };
    let _ = connection.close().await;
    let summary = found.as_ref().map(|(summary, _, _)| *summary).unwrap_or_default();
    Ok(Examined {
        importable: faults.count == 0,
        version: found.as_ref().map(|(_, _, version)| *version),
        ids: found.as_ref().map(|(_, identity, _)| kept_or_new(identity)),
        changes,
        repaired_links: summary.repaired_links,
        left_out: summary.left_out,
        faults: FaultList { count: faults.count, listed: faults.listed },
        amount: summary.amount(),
    })
}

/// How a result calls what became of the ids.
fn kept_or_new(identity: &Identity) -> &'static str {
    if identity.is_remapped() { "new" } else { "kept" }
}
