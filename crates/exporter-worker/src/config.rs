//! Settings of the worker: the shared sections of [`model::settings`], and its own.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `WORKER_SLOTS` | jobs at once in this process | 1 |
//! | `SNAPSHOT_COMPRESSION` | `faster`, or `smaller` by a tenth for five times the work | faster |
//! | `DRAIN_SECS` | how long a running job may go on after SIGTERM | 25 |
//! | `SNAPSHOT_KEEP_DAYS` | snapshot files older than this are removed | none |
//! | `SNAPSHOT_KEEP_COUNT` | of each cell's snapshot files the newest so many are kept | none |

use std::time::Duration;

use model::limits;
use model::settings::{
    BrokerSettings, DatabaseSettings, InternalSettings, JobSettings, LogSettings, SettingsError, StorageSettings,
    TraceSettings, UnitSettings, Variables,
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
    /// Where snapshots, contents and temporary files lie.
    pub storage: StorageSettings,
    /// The job protocol's times.
    pub jobs: JobSettings,
    /// The log.
    pub log: LogSettings,
    /// Traces.
    pub traces: TraceSettings,
    /// The internal port.
    pub internal: InternalSettings,
    /// How much is done at once, and how.
    pub work: WorkSettings,
}

/// The worker's own section.
#[derive(Debug, Clone)]
pub struct WorkSettings {
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
            storage: StorageSettings::read_for_both(variables)?,
            jobs: JobSettings::read(variables)?,
            log: LogSettings::read(variables)?,
            traces: TraceSettings::read(variables)?,
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
            StorageSettings::read_for_both(variables).err(),
            JobSettings::read(variables).err(),
            LogSettings::read(variables).err(),
            InternalSettings::read(variables).err(),
            TraceSettings::read(variables).err(),
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
    /// Where contents lie.
    pub storage: StorageSettings,
}

impl LoadSettings {
    /// Reads the sections.
    ///
    /// # Errors
    /// Names the first variable that is missing or cannot be read.
    pub fn read(variables: &Variables) -> Result<Self, SettingsError> {
        Ok(Self { database: DatabaseSettings::read(variables)?, storage: StorageSettings::read_for_blobs(variables)? })
    }
}

fn effort(variables: &Variables) -> Result<Effort, SettingsError> {
    match variables.text("SNAPSHOT_COMPRESSION")?.as_deref() {
        None | Some("faster") => Ok(Effort::Faster),
        Some("smaller") => Ok(Effort::Smaller),
        Some(_) => Err(SettingsError::Invalid("SNAPSHOT_COMPRESSION", "faster or smaller")),
    }
}
