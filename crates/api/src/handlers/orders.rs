//! What exports and imports have in common: a job is ordered, or the client is told why not.

use actix_web::HttpResponse;
use actix_web::http::header::LOCATION;
use model::cell::CellId;
use model::error_code::ErrorCode;
use model::failpoint;
use model::job::JobKind;
use model::snapshot_name::SnapshotName;
use model::store::StoreError;
use model::store::jobs::{self, AcceptError, Admission, NewJob};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::auth::CellRoot;
use crate::error::ApiError;
use crate::state::State;

/// What is ordered.
#[derive(Debug, Clone)]
pub(super) enum Order {
    /// An export.
    Export,
    /// An import or a dry run, of the file that was looked at.
    Import {
        /// Which of them.
        kind: JobKind,
        /// Key of the file.
        key: String,
    },
}

impl Order {
    fn kind(&self) -> JobKind {
        match self {
            Self::Export => JobKind::Export,
            Self::Import { kind, .. } => *kind,
        }
    }
}

/// Orders a job: 202 once it is committed. The database's constraints decide.
pub(super) async fn place(
    state: &State,
    root: &CellRoot,
    name: SnapshotName,
    order: Order,
) -> Result<HttpResponse, ApiError> {
    let kind = order.kind();
    let job = NewJob {
        id: Uuid::new_v4(),
        cell: root.cell.id.clone(),
        name: name.clone(),
        deadline: state.jobs.deadline,
        max_strikes: state.jobs.max_strikes,
        admission: Admission { queued: state.jobs.max_queued, of_owner: state.jobs.max_per_owner },
    };
    let id = job.id;
    let accepting = state.database.ask(async move |connection: &mut PgConnection| {
        let accepted = match &order {
            Order::Export => jobs::accept(connection, &job).await,
            Order::Import { kind, key } => jobs::accept_import(connection, &job, *kind, key).await,
        };
        match accepted {
            Ok(()) => Ok(()),
            Err(error) => {
                if matches!(error, AcceptError::CellBusy) {
                    // Names what the cell is busy with, unless that has ended since.
                    refuse_when_busy(connection, &job.cell).await?;
                }
                Err(refusal(error, kind, &job))
            }
        }
    });
    accepting.await?;
    failpoint::reached("api.after_commit");
    let what = kind.noun();
    tracing::info!(job.id = %id, cell.name = %root.cell.name, snapshot.name = %name, "{what} accepted");
    state.ringer.ring(id);
    failpoint::reached("api.before_answer");
    Ok(HttpResponse::Accepted().insert_header((LOCATION, format!("{}{}", root.url, resource(kind)))).finish())
}

/// Refuses while a job of the cell is active.
pub(super) async fn refuse_when_busy(connection: &mut PgConnection, cell: &CellId) -> Result<(), ApiError> {
    match jobs::active(connection, cell).await? {
        Some(job) => Err(ApiError::busy(job.kind)),
        None => Ok(()),
    }
}

/// Path of a kind's resource below its cell.
fn resource(kind: JobKind) -> &'static str {
    match kind {
        JobKind::Export => "__export",
        JobKind::Import => "__import",
        JobKind::DryRun => "__import/dry-run",
    }
}

fn refusal(error: AcceptError, kind: JobKind, job: &NewJob) -> ApiError {
    match error {
        AcceptError::CellBusy => ApiError::busy(kind),
        AcceptError::CellGone => ErrorCode::CellNotFound.into(),
        AcceptError::SourceChanged => ErrorCode::CellInUse.into(),
        AcceptError::NameTaken => ApiError::with(ErrorCode::FileExists, &[&format!("{}.zip", job.name)]),
        AcceptError::TooMany => ErrorCode::TooManyChildren.into(),
        AcceptError::QueueFull => ApiError::for_now(ErrorCode::TooManyRequests, "60"),
        AcceptError::OwnerBusy => ApiError::for_now(ErrorCode::TooManyRequests, "30"),
        AcceptError::Store(error) => StoreError::into(error),
    }
}
