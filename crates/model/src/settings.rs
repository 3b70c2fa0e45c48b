//! Settings that both services read, one typed section per concern.
//!
//! | variable | section | default |
//! |---|---|---|
//! | `DATABASE_URL` | [`DatabaseSettings`] | required |
//! | `AMQP_URL` | [`BrokerSettings`] | required |
//! | `AMQP_PREFIX` | [`BrokerSettings`] | `cellexport` |
//! | `AMQP_MANAGEMENT_URL` | [`BrokerSettings::management_url`] | none |
//! | `UNIT_SCHEME`, `UNIT_FQDN`, `UNIT_PORT`, `PATH_BASED_CELL_URL` | [`UnitSettings`] | `https`, required, none, `false` |
//! | `SNAPSHOT_DIR`, `DISK_RESERVE_BYTES` | [`AreaSettings`] | required, 1 GiB |
//! | `JOB_LEASE_SECS`, `JOB_HEARTBEAT_SECS`, `JOB_POLL_SECS`, `JOB_REAP_SECS`, `JOB_STALL_SECS`, `JOB_DEADLINE_SECS`, `JOB_MAX_STRIKES` | [`JobSettings`] | 60, 10, 5, 10, 600, 86400, 4 |
//! | `JOBS_QUEUED_MAX`, `JOBS_PER_OWNER_MAX` | [`JobSettings`] | 10000, 1000 |
//! | `INTERNAL_LISTEN` | [`InternalSettings`] | none |
//! | `LOG_FORMAT`, `RUST_LOG` | [`LogSettings`] | `json`, `info` |
//!
//! Any variable `X` can be given as `X_FILE` instead: the path of a file whose first line is the value.
//! This module is the only reader of the environment; secrets are kept in types that do not print.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use secrecy::SecretString;

use crate::limits;

/// A setting that is missing or cannot be read. Names the variable, never its value.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Not set, and there is no default.
    #[error("{0} (or {0}_FILE) must be set")]
    Missing(&'static str),
    /// Set to something else than the text in the second field describes.
    #[error("{0} must be {1}")]
    Invalid(&'static str, &'static str),
    /// The file named by `X_FILE` cannot be read.
    #[error("the file named by {0}_FILE cannot be read")]
    File(&'static str, #[source] std::io::Error),
}

/// Where settings come from: the environment, or a table in tests.
pub struct Variables(Box<Lookup>);

type Lookup = dyn Fn(&str) -> Option<String>;

impl Variables {
    /// Reads the process environment.
    pub fn environment() -> Self {
        Self(Box::new(|name| std::env::var(name).ok()))
    }

    /// Reads a fixed table.
    pub fn table(pairs: &[(&str, &str)]) -> Self {
        let pairs: Vec<(String, String)> = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Self(Box::new(move |name| pairs.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone())))
    }

    /// Returns the value of a variable, from `name` or from the file named by `{name}_FILE`. Empty is unset.
    pub fn text(&self, name: &'static str) -> Result<Option<String>, SettingsError> {
        if let Some(value) = (self.0)(name).filter(|v| !v.is_empty()) {
            return Ok(Some(value));
        }
        match (self.0)(&format!("{name}_FILE")).filter(|v| !v.is_empty()) {
            None => Ok(None),
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|e| SettingsError::File(name, e))?;
                Ok(text.lines().next().map(|l| l.trim().to_owned()).filter(|l| !l.is_empty()))
            }
        }
    }

    /// Returns the value of a variable that must be set.
    pub fn required(&self, name: &'static str) -> Result<String, SettingsError> {
        self.text(name)?.ok_or(SettingsError::Missing(name))
    }

    /// Returns the parsed value of a variable, or the default.
    pub fn parsed<T: FromStr>(&self, name: &'static str, what: &'static str, default: T) -> Result<T, SettingsError> {
        match self.text(name)? {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| SettingsError::Invalid(name, what)),
        }
    }

    /// Returns the parsed value of a variable, or nothing when it is not set.
    pub fn optional<T: FromStr>(&self, name: &'static str, what: &'static str) -> Result<Option<T>, SettingsError> {
        let text = self.text(name)?;
        text.map(|text| text.parse().map_err(|_| SettingsError::Invalid(name, what))).transpose()
    }

    fn seconds(&self, name: &'static str, default: Duration) -> Result<Duration, SettingsError> {
        let what = "a number of seconds between 0.05 and 31536000";
        let secs: f64 = self.parsed(name, what, default.as_secs_f64())?;
        if (0.05..=31_536_000.0).contains(&secs) {
            Ok(Duration::from_secs_f64(secs))
        } else {
            Err(SettingsError::Invalid(name, what))
        }
    }
}

/// The database.
#[derive(Debug, Clone)]
pub struct DatabaseSettings {
    /// `postgres://user:password@host:port/database`.
    pub url: SecretString,
}

impl DatabaseSettings {
    /// Reads the section.
    pub fn read(variables: &Variables) -> Result<Self, SettingsError> {
        Ok(Self { url: variables.required("DATABASE_URL")?.into() })
    }
}

/// The broker.
#[derive(Debug, Clone)]
pub struct BrokerSettings {
    /// `amqp://user:password@host:port/vhost`.
    pub url: SecretString,
    /// First part of every exchange and queue name.
    pub prefix: String,
}

impl BrokerSettings {
    /// Reads the section.
    pub fn read(variables: &Variables) -> Result<Self, SettingsError> {
        let prefix = variables.text("AMQP_PREFIX")?.unwrap_or_else(|| "cellexport".to_owned());
        if !crate::cell::is_id(&prefix) || prefix.len() > 100 {
            return Err(SettingsError::Invalid("AMQP_PREFIX", "1 to 100 letters, digits, '-' or '_'"));
        }
        Ok(Self { url: variables.required("AMQP_URL")?.into(), prefix })
    }

    /// Reads the URL of the broker's management interface, `http://user:password@host:15672`, which only the doctor asks.
    pub fn management_url(variables: &Variables) -> Result<Option<SecretString>, SettingsError> {
        match variables.text("AMQP_MANAGEMENT_URL")? {
            Some(url) if !url.starts_with("http://") && !url.starts_with("https://") => {
                Err(SettingsError::Invalid("AMQP_MANAGEMENT_URL", "an http or https URL"))
            }
            url => Ok(url.map(SecretString::from)),
        }
    }
}

/// The unit: what its URLs look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitSettings {
    /// `http` or `https`.
    pub scheme: String,
    /// Host name of the unit.
    pub fqdn: String,
    /// Port of the unit, when it is not the scheme's own.
    pub port: Option<u16>,
    /// Cells are the first segment of the path (`true`) or the first label of the host name.
    pub path_based: bool,
}

impl UnitSettings {
    /// Reads the section.
    pub fn read(variables: &Variables) -> Result<Self, SettingsError> {
        let scheme = variables.text("UNIT_SCHEME")?.unwrap_or_else(|| "https".to_owned());
        if scheme != "http" && scheme != "https" {
            return Err(SettingsError::Invalid("UNIT_SCHEME", "http or https"));
        }
        let fqdn = variables.required("UNIT_FQDN")?;
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
        if !fqdn.bytes().all(legal) {
            return Err(SettingsError::Invalid("UNIT_FQDN", "a host name without port"));
        }
        let port = match variables.text("UNIT_PORT")? {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| SettingsError::Invalid("UNIT_PORT", "a port number"))?),
        };
        let path_based = variables.parsed("PATH_BASED_CELL_URL", "true or false", false)?;
        Ok(Self { scheme, fqdn, port, path_based })
    }

    /// Host name and port, as they stand in URLs.
    pub fn authority(&self) -> String {
        match self.port {
            None => self.fqdn.clone(),
            Some(port) => format!("{}:{port}", self.fqdn),
        }
    }

    /// Base URL of the unit, with a trailing slash.
    pub fn url(&self) -> String {
        format!("{}://{}/", self.scheme, self.authority())
    }

    /// URL of a cell, with a trailing slash.
    pub fn cell_url(&self, cell: &str) -> String {
        if self.path_based {
            format!("{}{cell}/", self.url())
        } else {
            format!("{}://{cell}.{}/", self.scheme, self.authority())
        }
    }
}

/// The snapshot area.
#[derive(Debug, Clone)]
pub struct AreaSettings {
    /// Directory of the finished snapshots. Shared by the api and all workers.
    pub directory: PathBuf,
    /// Bytes that always stay free on its volume.
    pub reserve: u64,
}

impl AreaSettings {
    /// Reads the section.
    pub fn read(variables: &Variables) -> Result<Self, SettingsError> {
        Ok(Self {
            directory: variables.required("SNAPSHOT_DIR")?.into(),
            reserve: variables.parsed("DISK_RESERVE_BYTES", "a number of bytes", limits::DISK_RESERVE)?,
        })
    }
}

/// The job protocol's times. The defaults are the tested ones; see [`limits`].
#[derive(Debug, Clone)]
pub struct JobSettings {
    /// See [`limits::LEASE`].
    pub lease: Duration,
    /// See [`limits::HEARTBEAT`].
    pub heartbeat: Duration,
    /// See [`limits::POLL`].
    pub poll: Duration,
    /// See [`limits::REAP`].
    pub reap: Duration,
    /// See [`limits::STALL`].
    pub stall: Duration,
    /// See [`limits::DEADLINE`].
    pub deadline: Duration,
    /// Strikes at which a job fails for good.
    pub max_strikes: i32,
    /// See [`limits::JOBS_QUEUED`].
    pub max_queued: i64,
    /// See [`limits::JOBS_OF_OWNER`].
    pub max_per_owner: i64,
}

impl JobSettings {
    /// Reads the section.
    pub fn read(variables: &Variables) -> Result<Self, SettingsError> {
        let settings = Self {
            lease: variables.seconds("JOB_LEASE_SECS", limits::LEASE)?,
            heartbeat: variables.seconds("JOB_HEARTBEAT_SECS", limits::HEARTBEAT)?,
            poll: variables.seconds("JOB_POLL_SECS", limits::POLL)?,
            reap: variables.seconds("JOB_REAP_SECS", limits::REAP)?,
            stall: variables.seconds("JOB_STALL_SECS", limits::STALL)?,
            deadline: variables.seconds("JOB_DEADLINE_SECS", limits::DEADLINE)?,
            max_strikes: variables.parsed("JOB_MAX_STRIKES", "a number from 1 to 1000", 4)?,
            max_queued: variables.parsed("JOBS_QUEUED_MAX", "a number of jobs", limits::JOBS_QUEUED)?,
            max_per_owner: variables.parsed("JOBS_PER_OWNER_MAX", "a number of jobs", limits::JOBS_OF_OWNER)?,
        };
        if settings.heartbeat * 2 > settings.lease {
            return Err(SettingsError::Invalid("JOB_LEASE_SECS", "at least twice JOB_HEARTBEAT_SECS"));
        }
        if !(1..=1000).contains(&settings.max_strikes) {
            return Err(SettingsError::Invalid("JOB_MAX_STRIKES", "a number from 1 to 1000"));
        }
        for (name, number) in [("JOBS_QUEUED_MAX", settings.max_queued), ("JOBS_PER_OWNER_MAX", settings.max_per_owner)]
        {
            if !(1..=1_000_000).contains(&number) {
                return Err(SettingsError::Invalid(name, "a number from 1 to 1000000"));
            }
        }
        Ok(settings)
    }
}

/// The internal port.
#[derive(Debug, Clone)]
pub struct InternalSettings {
    /// Where `/healthz` and `/readyz` are answered; nowhere when absent. Port 0 takes any free port.
    pub listen: Option<SocketAddr>,
}

impl InternalSettings {
    /// Reads the section.
    pub fn read(variables: &Variables) -> Result<Self, SettingsError> {
        Ok(Self { listen: variables.optional("INTERNAL_LISTEN", "an address with a port")? })
    }
}

/// The log.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// One JSON object per line, instead of text for people.
    pub json: bool,
    /// Filter in the syntax of `RUST_LOG`.
    pub filter: String,
}

impl LogSettings {
    /// Reads the section.
    pub fn read(variables: &Variables) -> Result<Self, SettingsError> {
        let json = match variables.text("LOG_FORMAT")?.as_deref() {
            None | Some("json") => true,
            Some("text") => false,
            Some(_) => return Err(SettingsError::Invalid("LOG_FORMAT", "json or text")),
        };
        Ok(Self { json, filter: variables.text("RUST_LOG")?.unwrap_or_else(|| "info".to_owned()) })
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_missing_setting_is_named() {
        let error = DatabaseSettings::read(&Variables::table(&[])).expect_err("nothing is set");
        assert_eq!(error.to_string(), "DATABASE_URL (or DATABASE_URL_FILE) must be set");
    }

    #[test]
    fn a_secret_can_come_from_a_file_and_never_prints() {
        let file = std::env::temp_dir().join(format!("model-settings-{}", std::process::id()));
        std::fs::write(&file, "postgres://u:marker@h/d\n").expect("a temporary file");
        let path = file.to_str().expect("a UTF-8 path").to_owned();
        let settings = DatabaseSettings::read(&Variables::table(&[("DATABASE_URL_FILE", &path)]));
        std::fs::remove_file(&file).expect("the file was made above");
        let settings = settings.expect("the file is there");
        assert_eq!(settings.url.expose_secret(), "postgres://u:marker@h/d");
        assert!(!format!("{settings:?}").contains("marker"));
    }

    #[test]
    fn unit_urls_have_two_forms() {
        let pairs = [("UNIT_FQDN", "unit1.example"), ("UNIT_PORT", "8443")];
        let host = UnitSettings::read(&Variables::table(&pairs)).expect("complete");
        assert_eq!(host.cell_url("cell1"), "https://cell1.unit1.example:8443/");
        let path = UnitSettings { path_based: true, port: None, ..host };
        assert_eq!(path.cell_url("cell1"), "https://unit1.example/cell1/");
    }

    #[test]
    fn bad_values_are_refused_by_name() {
        for pairs in [
            [("UNIT_FQDN", "a:1"), ("UNIT_SCHEME", "http")],
            [("UNIT_FQDN", "a"), ("UNIT_SCHEME", "ftp")],
            [("UNIT_FQDN", "a"), ("UNIT_PORT", "70000")],
            [("UNIT_FQDN", "a"), ("PATH_BASED_CELL_URL", "yes")],
        ] {
            assert!(UnitSettings::read(&Variables::table(&pairs)).is_err(), "{pairs:?}");
        }
        let pairs = [("JOB_LEASE_SECS", "10"), ("JOB_HEARTBEAT_SECS", "9")];
        assert!(JobSettings::read(&Variables::table(&pairs)).is_err());
    }
}
