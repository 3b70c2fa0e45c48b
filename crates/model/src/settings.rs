//! Settings that both services read, one typed section per concern.
//!
//! | variable | section | default |
//! |---|---|---|
//! | `DATABASE_URL` | [`DatabaseSettings`] | required |
//! | `AMQP_URL` | [`BrokerSettings`] | required |
//! | `AMQP_PREFIX` | [`BrokerSettings`] | `cellexport` |
//! | `AMQP_MANAGEMENT_URL` | [`BrokerSettings::management_url`] | none |
//! | `UNIT_SCHEME`, `UNIT_FQDN`, `UNIT_PORT`, `PATH_BASED_CELL_URL` | [`UnitSettings`] | `https`, required, none, `false` |
//! | `STORAGE` | [`StorageSettings`]: `directory` or `s3` | `directory` |
//! | `SNAPSHOT_DIR`, `BLOB_DIR` | [`Place::Directories`] | with `directory`, the first is required by services, the second by workers and loads |
//! | `STORAGE_SHARED`, `HOST_ID` | [`StorageSettings`] | `false`, the id of this run of the kernel |
//! | `S3_BUCKET`, `S3_ENDPOINT`, `S3_REGION`, `S3_PATH_STYLE`, `S3_ALLOW_HTTP` | [`BucketSettings`] | required with `s3`, AWS, `us-east-1`, `true`, `false` |
//! | `S3_ACCESS_KEY_ID`, `S3_SECRET_ACCESS_KEY` | [`BucketSettings`] | the identity of the machine or pod |
//! | `S3_DOWNLOADS` | [`BucketSettings`]: `proxy` or `redirect` | `proxy` |
//! | `SCRATCH_DIR`, `DISK_RESERVE_BYTES` | [`StorageSettings`] | the system's, 1 GiB |
//! | `JOB_LEASE_SECS`, `JOB_HEARTBEAT_SECS`, `JOB_POLL_SECS`, `JOB_REAP_SECS`, `JOB_STALL_SECS`, `JOB_DEADLINE_SECS`, `JOB_MAX_STRIKES` | [`JobSettings`] | 60, 10, 5, 10, 600, 86400, 4 |
//! | `JOBS_QUEUED_MAX`, `JOBS_PER_OWNER_MAX` | [`JobSettings`] | 10000, 1000 |
//! | `INTERNAL_LISTEN` | [`InternalSettings`] | none |
//! | `LOG_FORMAT`, `RUST_LOG` | [`LogSettings`] | `json`, `info` |
//! | `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, or `OTEL_EXPORTER_OTLP_ENDPOINT` with `/v1/traces` behind it | [`TraceSettings`] | none: no traces |
//! | `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER_ARG` | [`TraceSettings`] | none, the program's, none, 1 |
//!
//! Any variable `X` can be given as `X_FILE` instead: the path of a file whose first line is the value.
//! This module is the only reader of the environment; secrets are kept in types that do not print.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
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

/// Where snapshots and the contents of files lie. All services of an installation have the same.
#[derive(Debug, Clone)]
pub struct StorageSettings {
    /// The place.
    pub place: Place,
    /// Directories are seen by every host that runs a service.
    pub shared: bool,
    /// Directory for temporary files; they have no names, or lose them as soon as they are open.
    pub scratch: PathBuf,
    /// Bytes that always stay free on the volume that new snapshots are written to.
    pub reserve: u64,
    /// What all processes of this host have in common, and no process of another one.
    pub host: String,
}

/// The place.
#[derive(Debug, Clone)]
pub enum Place {
    /// Directories of this host, or of a file system that all hosts share.
    Directories {
        /// Directory of the finished snapshots, for whoever needs it.
        snapshots: Option<PathBuf>,
        /// Directory of the contents of files, for whoever needs it.
        blobs: Option<PathBuf>,
    },
    /// A bucket of an S3-compatible service.
    Bucket(BucketSettings),
}

/// A bucket.
#[derive(Debug, Clone)]
pub struct BucketSettings {
    /// Its name.
    pub bucket: String,
    /// URL of the service; AWS's own when absent.
    pub endpoint: Option<String>,
    /// Its region, which goes into signatures.
    pub region: String,
    /// Access key id and secret; the identity of the machine or pod when absent.
    pub credentials: Option<(String, SecretString)>,
    /// The bucket is the first segment of the path, not the first label of the host name.
    pub path_style: bool,
    /// The service may be reached without TLS.
    pub allow_http: bool,
    /// Downloads get a link to the bucket instead of the bytes.
    pub redirect: bool,
}

impl StorageSettings {
    /// Reads the section for whoever serves snapshots.
    pub fn read_for_snapshots(variables: &Variables) -> Result<Self, SettingsError> {
        Self::read(variables, &["SNAPSHOT_DIR"])
    }

    /// Reads the section for whoever stores contents of files.
    pub fn read_for_blobs(variables: &Variables) -> Result<Self, SettingsError> {
        Self::read(variables, &["BLOB_DIR"])
    }

    /// Reads the section for whoever does both.
    pub fn read_for_both(variables: &Variables) -> Result<Self, SettingsError> {
        Self::read(variables, &["SNAPSHOT_DIR", "BLOB_DIR"])
    }

    fn read(variables: &Variables, needed: &[&'static str]) -> Result<Self, SettingsError> {
        let directory = |name| match variables.text(name)? {
            None if needed.contains(&name) => Err(SettingsError::Missing(name)),
            directory => Ok(directory.map(PathBuf::from)),
        };
        let place = match variables.text("STORAGE")?.as_deref() {
            None | Some("directory") => {
                Place::Directories { snapshots: directory("SNAPSHOT_DIR")?, blobs: directory("BLOB_DIR")? }
            }
            Some("s3") => Place::Bucket(BucketSettings::read(variables)?),
            Some(_) => return Err(SettingsError::Invalid("STORAGE", "directory or s3")),
        };
        Ok(Self {
            place,
            shared: variables.parsed("STORAGE_SHARED", "true or false", false)?,
            scratch: variables.text("SCRATCH_DIR")?.map_or_else(std::env::temp_dir, PathBuf::from),
            reserve: variables.parsed("DISK_RESERVE_BYTES", "a number of bytes", limits::DISK_RESERVE)?,
            host: host(variables)?,
        })
    }

    /// Tells whether downloads get a link to the bucket.
    pub fn redirects(&self) -> bool {
        matches!(&self.place, Place::Bucket(bucket) if bucket.redirect)
    }

    /// Tells whether it is a bucket.
    pub fn is_bucket(&self) -> bool {
        matches!(self.place, Place::Bucket(_))
    }

    /// Tells whether another host sees what this one stores.
    pub fn is_shared(&self) -> bool {
        self.shared || self.is_bucket()
    }
}

fn host(variables: &Variables) -> Result<String, SettingsError> {
    match variables.text("HOST_ID")? {
        Some(id) if crate::cell::is_id(&id) && id.len() <= 100 => Ok(id),
        Some(_) => Err(SettingsError::Invalid("HOST_ID", "1 to 100 letters, digits, '-' or '_'")),
        // Made anew when the kernel starts, and the same in all its containers (random(4)).
        None => {
            let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
            Ok(id.map_or_else(|_| "unknown".to_owned(), |id| id.trim().to_owned()))
        }
    }
}

impl BucketSettings {
    fn read(variables: &Variables) -> Result<Self, SettingsError> {
        let endpoint = variables.text("S3_ENDPOINT")?;
        let allow_http = variables.parsed("S3_ALLOW_HTTP", "true or false", false)?;
        if let Some(endpoint) = &endpoint {
            let known = endpoint.starts_with("https://") || (allow_http && endpoint.starts_with("http://"));
            if !known || endpoint.contains('@') {
                let what = "an https URL without a password, or with S3_ALLOW_HTTP=true an http one";
                return Err(SettingsError::Invalid("S3_ENDPOINT", what));
            }
        }
        let credentials = match (variables.text("S3_ACCESS_KEY_ID")?, variables.text("S3_SECRET_ACCESS_KEY")?) {
            (Some(id), Some(secret)) => Some((id, secret.into())),
            (None, None) => None,
            (None, Some(_)) => return Err(SettingsError::Missing("S3_ACCESS_KEY_ID")),
            (Some(_), None) => return Err(SettingsError::Missing("S3_SECRET_ACCESS_KEY")),
        };
        Ok(Self {
            bucket: variables.required("S3_BUCKET")?,
            endpoint,
            region: variables.text("S3_REGION")?.unwrap_or_else(|| "us-east-1".to_owned()),
            credentials,
            path_style: variables.parsed("S3_PATH_STYLE", "true or false", true)?,
            allow_http,
            redirect: match variables.text("S3_DOWNLOADS")?.as_deref() {
                None | Some("proxy") => false,
                Some("redirect") => true,
                Some(_) => return Err(SettingsError::Invalid("S3_DOWNLOADS", "proxy or redirect")),
            },
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

/// Traces: where spans are sent, and which. The names are OpenTelemetry's.
#[derive(Debug, Clone)]
pub struct TraceSettings {
    /// URL that spans are sent to (OTLP over HTTP, protobuf); nothing is sent when absent.
    pub endpoint: Option<String>,
    /// Header fields that are sent with them: credentials, as a rule.
    pub headers: Vec<(String, SecretString)>,
    /// Name of the service, in place of the program's.
    pub service: Option<String>,
    /// What else is said of the service.
    pub resource: Vec<(String, String)>,
    /// Share of the traces that begin here which is sent, 0 to 1. Those that others began are their decision.
    pub share: f64,
}

impl TraceSettings {
    /// Reads the section.
    pub fn read(variables: &Variables) -> Result<Self, SettingsError> {
        const SHARE: (&str, &str) = ("OTEL_TRACES_SAMPLER_ARG", "a number from 0 to 1");
        const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
        let share = variables.parsed(SHARE.0, SHARE.1, 1.0)?;
        if !(0.0..=1.0).contains(&share) {
            return Err(SettingsError::Invalid(SHARE.0, SHARE.1));
        }
        let endpoint = match url(variables, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")? {
            Some(whole) => Some(whole),
            None => url(variables, "OTEL_EXPORTER_OTLP_ENDPOINT")?
                .map(|base| format!("{}/v1/traces", base.trim_end_matches('/'))),
        };
        let headers = pairs(variables, HEADERS)?;
        let is_name = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        let is_value = |value: &str| value.bytes().all(|b| matches!(b, b' '..=b'~'));
        if !headers.iter().all(|(name, value)| is_name(name) && is_value(value)) {
            return Err(SettingsError::Invalid(HEADERS, "header fields of printable ASCII"));
        }
        Ok(Self {
            endpoint,
            headers: headers.into_iter().map(|(name, value)| (name, value.into())).collect(),
            service: variables.text("OTEL_SERVICE_NAME")?,
            resource: pairs(variables, "OTEL_RESOURCE_ATTRIBUTES")?,
            share,
        })
    }
}

/// Reads the URL of another service. A password in it would be printed with the other settings.
fn url(variables: &Variables, name: &'static str) -> Result<Option<String>, SettingsError> {
    let Some(url) = variables.text(name)? else { return Ok(None) };
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let authority = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    let legal = url.bytes().all(|b| b.is_ascii_graphic());
    match authority.filter(|authority| legal && !authority.is_empty() && !authority.contains('@')) {
        Some(_) => Ok(Some(url)),
        None => Err(SettingsError::Invalid(name, "an http or https URL without a password")),
    }
}

/// Reads `name=value,name=value`, values percent-encoded.
fn pairs(variables: &Variables, name: &'static str) -> Result<Vec<(String, String)>, SettingsError> {
    let text = variables.text(name)?.unwrap_or_default();
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        Some((name.trim().to_owned(), value.into_owned())).filter(|(name, _)| !name.is_empty())
    };
    let read: Option<Vec<_>> = text.split(',').filter(|part| !part.trim().is_empty()).map(pair).collect();
    read.ok_or(SettingsError::Invalid(name, "name=value, several with commas between them, values percent-encoded"))
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

    #[test]
    fn a_storage_is_complete_or_refused_by_name() {
        let read = |pairs: &[(&str, &str)]| StorageSettings::read_for_both(&Variables::table(pairs));
        let refused = |pairs: &[(&str, &str)]| read(pairs).expect_err("not complete").to_string();
        let directories = [("SNAPSHOT_DIR", "/s"), ("BLOB_DIR", "/b")];
        assert!(!read(&directories).expect("complete").is_shared());
        assert!(refused(&directories[..1]).starts_with("BLOB_DIR "));
        assert!(refused(&[("STORAGE", "tape")]).starts_with("STORAGE "));
        let bucket = [("STORAGE", "s3"), ("S3_BUCKET", "b")];
        assert!(read(&bucket).expect("AWS, by the machine's identity").is_shared());
        assert!(refused(&bucket[..1]).starts_with("S3_BUCKET "));
        let with = |more: (&'static str, &'static str)| [bucket[0], bucket[1], more];
        assert!(refused(&with(("S3_ACCESS_KEY_ID", "a"))).starts_with("S3_SECRET_ACCESS_KEY "));
        assert!(refused(&with(("S3_SECRET_ACCESS_KEY", "a"))).starts_with("S3_ACCESS_KEY_ID "));
        assert!(refused(&with(("S3_ENDPOINT", "http://h"))).starts_with("S3_ENDPOINT "));
        assert!(refused(&with(("S3_ENDPOINT", "https://a:b@h"))).starts_with("S3_ENDPOINT "));
        assert!(refused(&with(("S3_DOWNLOADS", "maybe"))).starts_with("S3_DOWNLOADS "));
        let secret = [bucket[0], bucket[1], ("S3_ACCESS_KEY_ID", "a"), ("S3_SECRET_ACCESS_KEY", "marker")];
        assert!(!format!("{:?}", read(&secret).expect("complete")).contains("marker"));
    }

    #[test]
    fn traces_go_to_an_endpoint_with_secrets_that_do_not_print() {
        let read = |pairs: &[(&str, &str)]| TraceSettings::read(&Variables::table(pairs));
        let none = read(&[]).expect("nothing is required");
        assert!(none.endpoint.is_none() && none.share == 1.0 && none.headers.is_empty());
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");
        let endpoint = |pairs: &[(&str, &str)]| read(pairs).expect("fine").endpoint;
        assert_eq!(endpoint(&[base]).as_deref(), Some("http://collector:4318/v1/traces"));
        let whole = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://vendor/v7/spans?x=y");
        assert_eq!(endpoint(&[base, whole]).as_deref(), Some("https://vendor/v7/spans?x=y"));
        let pairs = [
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20marker, x-tenant = one"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,"),
        ];
        let settings = read(&pairs).expect("fine");
        assert_eq!(settings.headers[0].1.expose_secret(), "Bearer marker");
        assert_eq!(settings.headers[1].0, "x-tenant");
        assert_eq!(settings.resource, [("deployment.environment.name".to_owned(), "test".to_owned())]);
        assert!(!format!("{settings:?}").contains("marker"));
    }

    #[test]
    fn bad_settings_of_traces_are_refused_by_name() {
        for bad in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http:///v1"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://me:secret@vendor/"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=%0d%0ab: c"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a b=c"),
            ("OTEL_TRACES_SAMPLER_ARG", "1.1"),
            ("OTEL_TRACES_SAMPLER_ARG", "NaN"),
        ] {
            let error = TraceSettings::read(&Variables::table(&[bad])).expect_err(bad.1);
            assert!(error.to_string().starts_with(bad.0) && !error.to_string().contains("secret"), "{error}");
        }
    }
}
