//! What every request needs.

use chrono::{DateTime, Utc};
use model::area::SnapshotArea;
use model::doorbell::Ringer;
use model::settings::{JobSettings, UnitSettings};
use secrecy::SecretString;
use sqlx::PgPool;

/// Shared by all requests.
pub(crate) struct State {
    pub(crate) pool: PgPool,
    pub(crate) ringer: Ringer,
    pub(crate) area: SnapshotArea,
    pub(crate) unit: UnitSettings,
    pub(crate) jobs: JobSettings,
    pub(crate) master_token: Option<SecretString>,
    /// The clock behind default names.
    pub(crate) now: fn() -> DateTime<Utc>,
}
