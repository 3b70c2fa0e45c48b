//! Getting a cell in from the command line: reads a snapshot, checks it strictly, and stores it as a new cell, all or
//! nothing. A load that fails removes what it stored; one that is killed leaves it to the workers' chores.

use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use model::area::BlobStore;
use model::cell::{CellId, CellName};
use model::error_chain::Chain;
use model::store::{self, StoreError, cells, generations};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use crate::control::{Control, StopReason};
use crate::import::{self, Filled, Import, ImportError, NewCell, Origin, Owner, Places, Summary};

/// What to load, and as what.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Name of the new cell.
    pub cell: CellName,
    /// Id of the new cell; the snapshot's own when absent.
    pub cell_id: Option<CellId>,
    /// Owner of the new cell; the snapshot's own when absent.
    pub owner: Option<String>,
    /// Whether the snapshot may be one that was made to do harm.
    pub origin: Origin,
    /// The snapshot.
    pub file: PathBuf,
    /// Where contents go.
    pub blobs: BlobStore,
    /// The database.
    pub database: SecretString,
}

/// Why nothing was loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is a cell of this name.
    #[error("a cell named {0} exists")]
    NameTaken(String),
    /// There is a cell with the new one's id; this is its name.
    #[error("the cell is stored already as {0}; give it another id with --cell-id")]
    IdTaken(String),
    /// The snapshot could not be stored.
    #[error(transparent)]
    Import(#[from] ImportError),
}

impl From<StoreError> for LoadError {
    fn from(error: StoreError) -> Self {
        ImportError::from(error).into()
    }
}

impl LoadError {
    /// The process's exit code: 2 for a faulty snapshot, 3 for a cell that exists, 130 when interrupted, otherwise 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Import(ImportError::Faulty(_) | ImportError::Refused(_)) => 2,
            Self::NameTaken(_) | Self::IdTaken(_) => 3,
            Self::Import(ImportError::Interrupted) => 130,
            Self::Import(ImportError::Store(_) | ImportError::Io { .. }) => 1,
        }
    }
}

/// Loads a snapshot as a new cell.
///
/// # Errors
/// [`LoadError`]; nothing is stored then.
pub async fn load(options: LoadOptions, stop: CancellationToken) -> Result<Summary, LoadError> {
    // Whoever loads by hand may use all there is.
    let places = Places { database: options.database.clone(), blobs: options.blobs.clone(), reserve: 0 };
    let file = std::fs::File::open(&options.file).map_err(|e| ImportError::io("open the snapshot", e))?;
    let mut connection = store::connect(&options.database, "cell-export load").await?;
    check_free(&mut connection, &options.cell, options.cell_id.as_ref()).await?;
    let generation = generations::begin(&mut connection, None).await?;
    let control = Control::default();
    let watching = tokio::spawn(watch(control.clone(), stop));
    let outcome = store_cell(&places, &options, file, &generation, &control).await;
    watching.abort();
    if outcome.is_err() {
        discard(&places, &generation).await;
    }
    outcome
}

async fn store_cell(
    places: &Places,
    options: &LoadOptions,
    file: std::fs::File,
    generation: &str,
    control: &Control,
) -> Result<Summary, LoadError> {
    let owner = options.owner.clone().map_or(Owner::Same, |owner| Owner::Is(Some(owner)));
    let cell = NewCell { id: options.cell_id.clone(), name: Some(options.cell.to_string()), owner };
    let import = Import { file, origin: options.origin, cell };
    let Filled { contents, identity, summary, .. } = import::fill(places, import, generation, control).await?;
    // A new connection: the load may have taken longer than an idle one lives.
    let mut connection = store::connect(&options.database, "cell-export load").await?;
    let adopted =
        cells::adopt(&mut connection, &identity.id, &identity.name, identity.owner.as_deref(), &contents).await;
    match adopted {
        Ok(()) => Ok(summary),
        Err(error) => Err(match error.constraint() {
            Some("cell_name_key") => LoadError::NameTaken(identity.name),
            Some("cell_pkey") => LoadError::IdTaken("another name".to_owned()),
            // The answer may have got lost; the row has the last word.
            _ if cells::names(&mut connection, &identity.id, generation).await.unwrap_or(false) => return Ok(summary),
            _ => error.into(),
        }),
    }
}

/// Refuses early what the constraints would refuse late. They decide.
async fn check_free(
    connection: &mut sqlx::PgConnection,
    name: &CellName,
    id: Option<&CellId>,
) -> Result<(), LoadError> {
    let taken =
        sqlx::query_scalar!("SELECT name FROM cell WHERE name = $1 OR id = $2", name.as_str(), id.map(CellId::as_str))
            .fetch_optional(connection)
            .await
            .map_err(StoreError::doing("look for the cell"))?;
    match taken {
        None => Ok(()),
        Some(other) if other == name.as_str() => Err(LoadError::NameTaken(other)),
        Some(other) => Err(LoadError::IdTaken(other)),
    }
}

/// Removes the rows of a load that failed, unless a cell names them after all.
async fn discard(places: &Places, generation: &str) {
    let discarding = async {
        let mut connection = generations::connect(&places.database).await?;
        let blobs = &places.blobs;
        generations::discard(&mut connection, generation, |ids| import::remove_blobs(blobs, ids)).await
    };
    if let Err(error) = discarding.await {
        tracing::warn!(error = %Chain(&error), "cannot remove what was loaded, leaving it to the workers");
    }
}

/// Shows the progress on a terminal, and passes on the wish to stop.
async fn watch(control: Control, stop: CancellationToken) {
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    let bar = ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    loop {
        tokio::select! {
            () = stop.cancelled() => return control.stop(StopReason::Shutdown),
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
        let progress = control.progress();
        if let Some(total) = progress.total {
            bar.set_length(total.bytes);
        }
        bar.set_position(progress.done.bytes);
    }
}
