//! Settings of the api: the shared sections of [`model::settings`], and its own.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `API_LISTEN` | address and port to listen on | `127.0.0.1:8080` |
//! | `API_POOL` | database connections | 20 |
//! | `DOWNLOAD_WINDOW_SECS` | over each such time a download must have been taken at 16 KiB per second | 120 |
//! | `MASTER_TOKEN` | the unit master token; unset or empty: nobody has it | none |
//! | `UNIT_SECRET16` | the unit's `security.secret16`, the key of its tokens and cookies; unset: none is accepted | none |
//! | `LEGACY_TOKENS` | accept tokens in the forms before version 1.7.21 of the unit's core | `false` |
//! | `UNIT_PASSWORD_SALT` | what the unit puts behind passwords before it hashes them with SHA-256 | empty |
//! | `BASIC_TOKENS` | accept a token as the password of Basic credentials | `false` |
//! | `DIRECTORY_CACHE_SECS` | how long ACLs, accounts and roles are remembered, at most 60 | 5 |
//! | `OIDC_ISSUER` | accept JSON Web Tokens whose `iss` is this; with it, the next two are required | none |
//! | `OIDC_AUDIENCE` | what their `aud` has to hold | |
//! | `OIDC_KEYS` | the issuer's key set: a path, or a URL | |
//! | `OIDC_ALGORITHMS` | accepted algorithms, between spaces | `RS256 ES256` |
//! | `OIDC_CLAIM` | the claim that names cells and privileges | `personium` |
//! | `UPLOAD_MAX_BYTES` | longest snapshot that a client may send | 20 GiB |
//! | `CELL_QUOTA_BYTES` | all snapshots of one cell together, checked by uploads | 100 GiB |
//! | `UPLOAD_IDLE_SECS` | an upload of which nothing comes for so long is given up | 15 |
//! | `UPLOAD_WINDOW_SECS` | over each such time an upload must have come at 64 KiB per second | 30 |

use std::net::SocketAddr;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use model::limits;
use model::settings::{
    BrokerSettings, DatabaseSettings, InternalSettings, JobSettings, LogSettings, SettingsError, StorageSettings,
    TraceSettings, UnitSettings, Variables,
};
use secrecy::SecretString;

pub use crate::auth::{AuthSettings, KeySource, WebTokenSettings};

/// Everything `api serve` needs to know.
#[derive(Debug, Clone)]
pub struct ApiSettings {
    /// The database.
    pub database: DatabaseSettings,
    /// The broker.
    pub broker: BrokerSettings,
    /// The unit: forms of URLs.
    pub unit: UnitSettings,
    /// Where snapshots lie.
    pub storage: StorageSettings,
    /// The job protocol's times.
    pub jobs: JobSettings,
    /// The log.
    pub log: LogSettings,
    /// Traces.
    pub traces: TraceSettings,
    /// The internal port.
    pub internal: InternalSettings,
    /// Credentials.
    pub auth: AuthSettings,
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
    /// What uploads may cost.
    pub uploads: UploadSettings,
    /// See [`limits::DOWNLOAD_WINDOW`].
    pub download_window: Duration,
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
            storage: StorageSettings::read_for_snapshots(variables)?,
            jobs: JobSettings::read(variables)?,
            log: LogSettings::read(variables)?,
            traces: TraceSettings::read(variables)?,
            internal: InternalSettings::read(variables)?,
            auth: auth(variables)?,
            http: HttpSettings::read(variables)?,
        })
    }

    /// Everything that keeps [`Self::read`] from succeeding: the first fault of each section.
    pub fn faults(variables: &Variables) -> Vec<SettingsError> {
        let sections = [
            DatabaseSettings::read(variables).err(),
            BrokerSettings::read(variables).err(),
            UnitSettings::read(variables).err(),
            StorageSettings::read_for_snapshots(variables).err(),
            JobSettings::read(variables).err(),
            LogSettings::read(variables).err(),
            InternalSettings::read(variables).err(),
            TraceSettings::read(variables).err(),
            auth(variables).err(),
            HttpSettings::read(variables).err(),
        ];
        sections.into_iter().flatten().collect()
    }
}

impl HttpSettings {
    fn read(variables: &Variables) -> Result<Self, SettingsError> {
        Ok(Self {
            listen: listen(variables)?,
            pool: variables.parsed("API_POOL", "a number of connections", 20)?,
            uploads: UploadSettings::read(variables)?,
            download_window: seconds(variables, "DOWNLOAD_WINDOW_SECS", limits::DOWNLOAD_WINDOW)?,
        })
    }
}

fn auth(variables: &Variables) -> Result<AuthSettings, SettingsError> {
    let cache = seconds(variables, "DIRECTORY_CACHE_SECS", limits::DIRECTORY_CACHE)?;
    if cache > Duration::from_secs(60) {
        return Err(SettingsError::Invalid("DIRECTORY_CACHE_SECS", "a number of seconds between 0.05 and 60"));
    }
    Ok(AuthSettings {
        master_token: variables.text("MASTER_TOKEN")?.map(SecretString::from),
        secret: secret(variables)?,
        legacy_tokens: variables.parsed("LEGACY_TOKENS", "true or false", false)?,
        basic_tokens: variables.parsed("BASIC_TOKENS", "true or false", false)?,
        password_salt: variables.text("UNIT_PASSWORD_SALT")?.unwrap_or_default().into(),
        directory_cache: cache,
        web_tokens: web_tokens(variables)?,
    })
}

/// Reads `UNIT_SECRET16` alone, for the commands that need nothing else.
///
/// # Errors
/// When it is set to a text of another length than keys have.
pub fn secret(variables: &Variables) -> Result<Option<SecretString>, SettingsError> {
    match variables.text("UNIT_SECRET16")? {
        Some(text) if !matches!(text.len(), 16 | 24 | 32) => {
            Err(SettingsError::Invalid("UNIT_SECRET16", "16 characters, or 24, or 32"))
        }
        secret => Ok(secret.map(SecretString::from)),
    }
}

fn web_tokens(variables: &Variables) -> Result<Option<WebTokenSettings>, SettingsError> {
    let Some(issuer) = variables.text("OIDC_ISSUER")? else { return Ok(None) };
    let keys = KeySource::parse(&variables.required("OIDC_KEYS")?);
    let names = variables.text("OIDC_ALGORITHMS")?.unwrap_or_else(|| "RS256 ES256".to_owned());
    let what = "RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA, one or more between spaces";
    let algorithms: Option<Vec<Algorithm>> = names.split_whitespace().map(algorithm).collect();
    Ok(Some(WebTokenSettings {
        issuer,
        audience: variables.required("OIDC_AUDIENCE")?,
        keys: keys.ok_or(SettingsError::Invalid(
            "OIDC_KEYS",
            "a path, an https URL, or an http URL of this host, and no password in it",
        ))?,
        algorithms: algorithms.filter(|a| !a.is_empty()).ok_or(SettingsError::Invalid("OIDC_ALGORITHMS", what))?,
        claim: variables.text("OIDC_CLAIM")?.unwrap_or_else(|| "personium".to_owned()),
    }))
}

/// Algorithms with a shared secret are none here: whoever could verify a token could make one.
fn algorithm(name: &str) -> Option<Algorithm> {
    name.parse().ok().filter(|algorithm| !matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512))
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
    fn settings_of_credentials_are_checked() {
        let read = |pairs: &[(&str, &str)]| auth(&Variables::table(pairs));
        let settings = read(&[]).expect("nothing is required");
        assert!(settings.secret.is_none() && settings.web_tokens.is_none() && !settings.legacy_tokens);
        for length in [16, 24, 32] {
            assert!(read(&[("UNIT_SECRET16", &"x".repeat(length))]).expect("a key").secret.is_some());
        }
        let oidc = [("OIDC_ISSUER", "i"), ("OIDC_AUDIENCE", "a"), ("OIDC_KEYS", "https://i/keys")];
        let read_with = |more: (&'static str, &'static str)| {
            let pairs: Vec<_> = oidc.iter().copied().filter(|(name, _)| *name != more.0).chain([more]).collect();
            read(&pairs)
        };
        let web_tokens = read(&oidc).expect("complete").web_tokens.expect("on");
        assert_eq!(web_tokens.algorithms, [Algorithm::RS256, Algorithm::ES256]);
        assert!(read_with(("OIDC_ALGORITHMS", "EdDSA PS256")).is_ok());
        assert!(read_with(("OIDC_KEYS", "http://127.0.0.1:80/keys")).is_ok());
        for bad in [
            ("OIDC_ALGORITHMS", "HS256"),
            ("OIDC_ALGORITHMS", "none"),
            ("OIDC_ALGORITHMS", " "),
            ("OIDC_KEYS", "http://issuer/keys"),
            ("OIDC_KEYS", ""),
            ("OIDC_KEYS", "https://me:secret@issuer/keys"),
            ("OIDC_AUDIENCE", ""),
            ("UNIT_SECRET16", "secret167pm5m4y"),
            ("LEGACY_TOKENS", "yes"),
            ("DIRECTORY_CACHE_SECS", "61"),
        ] {
            assert!(read_with(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn every_section_tells_its_fault() {
        let names = |pairs: &[(&str, &str)]| -> Vec<String> {
            let faults = ApiSettings::faults(&Variables::table(pairs));
            faults.iter().map(|fault| fault.to_string().split(' ').next().unwrap_or_default().to_owned()).collect()
        };
        assert_eq!(names(&[]), ["DATABASE_URL", "AMQP_URL", "UNIT_FQDN", "SNAPSHOT_DIR"]);
        let bad = [
            ("DATABASE_URL", "postgres://h/d"),
            ("AMQP_URL", "amqp://h"),
            ("UNIT_FQDN", "a"),
            ("SNAPSHOT_DIR", "/a"),
            ("JOB_MAX_STRIKES", "0"),
            ("LOG_FORMAT", "xml"),
            ("INTERNAL_LISTEN", "x"),
            ("LEGACY_TOKENS", "yes"),
            ("API_POOL", "many"),
        ];
        assert_eq!(names(&bad), ["JOB_MAX_STRIKES", "LOG_FORMAT", "INTERNAL_LISTEN", "LEGACY_TOKENS", "API_POOL"]);
        assert_eq!(names(&bad[..4]), [""; 0]);
        assert!(ApiSettings::read(&Variables::table(&bad[..4])).is_ok());
    }

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
