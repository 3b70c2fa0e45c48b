//! Settings of the api: the shared sections of [`model::settings`], and its own.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `API_LISTEN` | address and port to listen on | `127.0.0.1:8080` |
//! | `API_POOL` | database connections | 20 |
//! | `MASTER_TOKEN` | the unit master token; unset or empty: nobody has it | none |

use std::net::SocketAddr;

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
            },
        })
    }
}

/// Reads `API_LISTEN` alone, for the health check.
pub fn listen(variables: &Variables) -> Result<SocketAddr, SettingsError> {
    variables.parsed("API_LISTEN", "an address with a port", SocketAddr::from(([127, 0, 0, 1], 8080)))
}
