//! What every request needs.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use model::area::SnapshotArea;
use model::doorbell::Ringer;
use model::settings::{JobSettings, UnitSettings};
use model::store::jobs::Admission;
use tokio::sync::Semaphore;

use crate::auth::Auth;
use crate::config::UploadSettings;
use crate::database::Database;
use crate::watch::Watch;

/// Shared by all requests.
pub(crate) struct State {
    pub(crate) database: Database,
    pub(crate) ringer: Ringer,
    pub(crate) watch: Watch,
    pub(crate) area: SnapshotArea,
    /// Downloads get a link to the bucket.
    pub(crate) redirect: bool,
    pub(crate) unit: UnitSettings,
    pub(crate) jobs: JobSettings,
    pub(crate) admission: Admission,
    pub(crate) auth: Auth,
    pub(crate) uploads: UploadSettings,
    /// See [`model::limits::DOWNLOAD_WINDOW`].
    pub(crate) download_window: Duration,
    /// A permit for each upload.
    pub(crate) uploading: Arc<Semaphore>,
    /// A permit for each look at a snapshot file.
    pub(crate) inspecting: Arc<Semaphore>,
    /// The clock behind default names and the dates of new cells.
    pub(crate) now: fn() -> DateTime<Utc>,
}
