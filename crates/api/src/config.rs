//! Settings of the api: the shared sections of [`model::settings`], and its own.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `API_LISTEN` | address and port to listen on | `127.0.0.1:8080` |
//! | `API_POOL` | database connections | 20 |
//! | `MASTER_TOKEN` | the unit master token; unset or empty: nobody has it | none |
//! | `UPLOAD_MAX_BYTES` | longest snapshot that a client may send | 20 GiB |
//! | `CELL_QUOTA_BYTES` | all snapshots of one cell together, checked by uploads | 100 GiB |
//! | `UPLOAD_IDLE_SECS` | an upload of which nothing comes for so long is given up | 15 |
//! | `UPLOAD_WINDOW_SECS` | over each such time an upload must have come at 64 KiB per second | 30 |

use std::net::SocketAddr;
use std::time::Duration;

use model::limits;
use model::settings::{
    AreaSettings, BrokerSettings, DatabaseSettings, JobSettings, LogSettings, SettingsError, UnitSettings, Variables,
};
use secrecy::SecretString;

/// Everything `api serve` needs to know.
#[derive(Debug, Clone)]
pub struct ApiSettings {
    /// The database.
    pub database: DatabaseSettings,
    /// The broker.
    pub broker: BrokerSettings,
    /// The unit: forms of URLs.
    pub unit: UnitSettings,
    /// The snapshot area.
    pub area: AreaSettings,
    /// The job protocol's times.
    pub jobs: JobSettings,
    /// The log.
    pub log: LogSettings,
    /// The service's own section.
    pub http: HttpSettings,
}

/// The api's own section.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// Where to listen; port 0 takes any free port.
    pub listen: SocketAddr,
    /// Database connections.
    pub pool: u32,
    /// Whoever shows it may do everything with every cell.
    pub master_token: Option<SecretString>,
    /// What uploads may cost.
    pub uploads: UploadSettings,
}

/// What uploads may cost.
#[derive(Debug, Clone)]
pub struct UploadSettings {
    /// See [`limits::UPLOAD`].
    pub longest: u64,
    /// See [`limits::CELL_QUOTA`].
    pub cell_quota: u64,
    /// See [`limits::BODY_IDLE`].
    pub idle: Duration,
    /// See [`limits::UPLOAD_WINDOW`].
    pub window: Duration,
}

impl UploadSettings {
    fn read(variables: &Variables) -> Result<Self, SettingsError> {
        Ok(Self {
            longest: bytes(variables, "UPLOAD_MAX_BYTES", limits::UPLOAD)?,
            cell_quota: bytes(variables, "CELL_QUOTA_BYTES", limits::CELL_QUOTA)?,
            idle: seconds(variables, "UPLOAD_IDLE_SECS", limits::BODY_IDLE)?,
            window: seconds(variables, "UPLOAD_WINDOW_SECS", limits::UPLOAD_WINDOW)?,
        })
    }
}

impl ApiSettings {
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
            http: HttpSettings {
                listen: listen(variables)?,
                pool: variables.parsed("API_POOL", "a number of connections", 20)?,
                master_token: variables.text("MASTER_TOKEN")?.map(SecretString::from),
                uploads: UploadSettings::read(variables)?,
            },
        })
    }
}

/// Reads `API_LISTEN` alone, for the health check.
pub fn listen(variables: &Variables) -> Result<SocketAddr, SettingsError> {
    variables.parsed("API_LISTEN", "an address with a port", SocketAddr::from(([127, 0, 0, 1], 8080)))
}

/// Lengths are stored as signed numbers.
fn bytes(variables: &Variables, name: &'static str, default: u64) -> Result<u64, SettingsError> {
    let what = "a number of bytes, at most 2^62";
    match variables.parsed(name, what, default)? {
        bytes if bytes <= 1 << 62 => Ok(bytes),
        _ => Err(SettingsError::Invalid(name, what)),
    }
}

fn seconds(variables: &Variables, name: &'static str, default: Duration) -> Result<Duration, SettingsError> {
    let what = "a number of seconds between 0.05 and 86400";
    match variables.parsed(name, what, default.as_secs_f64())? {
        seconds if (0.05..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(SettingsError::Invalid(name, what)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_uploads_are_read_and_bounded() {
        let read = |pairs: &[(&str, &str)]| UploadSettings::read(&Variables::table(pairs));
        let uploads = read(&[("UPLOAD_MAX_BYTES", "7"), ("UPLOAD_IDLE_SECS", "0.5")]).expect("fine");
        assert_eq!((uploads.longest, uploads.cell_quota), (7, limits::CELL_QUOTA));
        assert_eq!((uploads.idle, uploads.window), (Duration::from_millis(500), limits::UPLOAD_WINDOW));
        for bad in [("UPLOAD_MAX_BYTES", "-1"), ("CELL_QUOTA_BYTES", "18446744073709551615"), ("UPLOAD_IDLE_SECS", "0")]
        {
            assert!(read(&[bad]).is_err(), "{bad:?}");
        }
    }
}
