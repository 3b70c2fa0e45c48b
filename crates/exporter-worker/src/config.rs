//! Settings of the worker: the shared sections of [`model::settings`], and its own.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `BLOB_DIR` | directory of the blob store | required |
//! | `SCRATCH_DIR` | directory for temporary files | the system's |
//! | `WORKER_SLOTS` | jobs at once in this process | 1 |
//! | `SNAPSHOT_COMPRESSION` | `faster`, or `smaller` by a tenth for five times the work | faster |
//! | `DRAIN_SECS` | how long a running job may go on after SIGTERM | 25 |
//! | `SNAPSHOT_KEEP_DAYS` | snapshot files older than this are removed | none |
//! | `SNAPSHOT_KEEP_COUNT` | of each cell's snapshot files the newest so many are kept | none |

use std::path::PathBuf;
use std::time::Duration;

use model::limits;
use model::settings::{
    AreaSettings, BrokerSettings, DatabaseSettings, InternalSettings, JobSettings, LogSettings, SettingsError,
    UnitSettings, Variables,
};
use model::store::snapshots::Retention;

use crate::snapshot::Effort;

/// Everything `exporter-worker run` needs to know.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// The database.
    pub database: DatabaseSettings,
    /// The broker.
    pub broker: BrokerSettings,
    /// The unit whose URL goes into manifests.
    pub unit: UnitSettings,
    /// The snapshot area.
    pub area: AreaSettings,
    /// The job protocol's times.
    pub jobs: JobSettings,
    /// The log.
    pub log: LogSettings,
    /// The internal port.
    pub internal: InternalSettings,
    /// Where contents and temporary files lie, and how much is done at once.
    pub work: WorkSettings,
}

/// The worker's own section.
#[derive(Debug, Clone)]
pub struct WorkSettings {
    /// Directory of the blob store.
    pub blob_dir: PathBuf,
    /// Directory for temporary files; they are unlinked as soon as they are open.
    pub scratch_dir: PathBuf,
    /// Jobs at once.
    pub slots: usize,
    /// How hard snapshots are compressed.
    pub effort: Effort,
    /// See [`limits::DRAIN`].
    pub drain: Duration,
    /// How long snapshots are kept.
    pub retention: Retention,
}

impl WorkerSettings {
    /// Reads all sections.
    ///
    /// # Errors
    /// Names the first variable that is missing or cannot be read.
    pub fn read(variables: &Variables) -> Result<Self, SettingsError> {
        Ok(Self {
            database: DatabaseSettings::read(variables)?,
            broker: BrokerSettings::read(variables)?,
            unit: UnitSettings::read(variables)?,
            area: AreaSettings::read(variables)?,
            jobs: JobSettings::read(variables)?,
            log: LogSettings::read(variables)?,
            internal: InternalSettings::read(variables)?,
            work: WorkSettings::read(variables)?,
        })
    }

    /// Everything that keeps [`Self::read`] from succeeding: the first fault of each section.
    pub fn faults(variables: &Variables) -> Vec<SettingsError> {
        let sections = [
            DatabaseSettings::read(variables).err(),
            BrokerSettings::read(variables).err(),
            UnitSettings::read(variables).err(),
            AreaSettings::read(variables).err(),
            JobSettings::read(variables).err(),
            LogSettings::read(variables).err(),
            InternalSettings::read(variables).err(),
            WorkSettings::read(variables).err(),
        ];
        sections.into_iter().flatten().collect()
    }
}

impl WorkSettings {
    fn read(variables: &Variables) -> Result<Self, SettingsError> {
        let slots = variables.parsed("WORKER_SLOTS", "a number from 1 to 64", 1)?;
        if !(1..=64).contains(&slots) {
            return Err(SettingsError::Invalid("WORKER_SLOTS", "a number from 1 to 64"));
        }
        let drain = variables.parsed("DRAIN_SECS", "a number of seconds", limits::DRAIN.as_secs())?;
        Ok(Self {
            blob_dir: variables.required("BLOB_DIR")?.into(),
            scratch_dir: scratch_dir(variables)?,
            slots,
            effort: effort(variables)?,
            drain: Duration::from_secs(drain),
            retention: Retention {
                days: variables.optional("SNAPSHOT_KEEP_DAYS", "a number of days")?,
                count: variables.optional("SNAPSHOT_KEEP_COUNT", "a number of files")?,
            },
        })
    }
}

/// Everything `exporter-worker load` needs to know.
#[derive(Debug, Clone)]
pub struct LoadSettings {
    /// The database.
    pub database: DatabaseSettings,
    /// Directory of the blob store.
    pub blob_dir: PathBuf,
}

impl LoadSettings {
    /// Reads the sections.
    ///
    /// # Errors
    /// Names the first variable that is missing or cannot be read.
    pub fn read(variables: &Variables) -> Result<Self, SettingsError> {
        Ok(Self { database: DatabaseSettings::read(variables)?, blob_dir: variables.required("BLOB_DIR")?.into() })
    }
}

fn scratch_dir(variables: &Variables) -> Result<PathBuf, SettingsError> {
    Ok(variables.text("SCRATCH_DIR")?.map_or_else(std::env::temp_dir, PathBuf::from))
}

fn effort(variables: &Variables) -> Result<Effort, SettingsError> {
    match variables.text("SNAPSHOT_COMPRESSION")?.as_deref() {
        None | Some("faster") => Ok(Effort::Faster),
        Some("smaller") => Ok(Effort::Smaller),
        Some(_) => Err(SettingsError::Invalid("SNAPSHOT_COMPRESSION", "faster or smaller")),
    }
}
