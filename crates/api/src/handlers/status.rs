//! `GET {cell}__export`, `GET {cell}__import` and `GET {cell}__import/dry-run`: what is under way, and how an import
//! ended.

use actix_web::HttpResponse;
use model::error_code::ErrorCode;
use model::job::{JobKind, JobState};
use model::status_report::{Reported, StatusReport};
use model::store::jobs::{self, JobView};

use crate::auth::CellRoot;
use crate::error::ApiError;
use crate::state::State;

/// Reports the active export of a cell. Status and listing read rows that change in one transaction: once this says
/// `ready`, the result is listed.
pub(crate) fn export(active: Option<&JobView>) -> Result<HttpResponse, ApiError> {
    document(&match active.filter(|job| job.kind == JobKind::Export) {
        None => StatusReport::ready(),
        Some(job) => StatusReport::in_progress(&reported(job)),
    })
}

/// Reports the last import of a cell, or its last dry run: under way, failed, or `ready`; of a dry run also what it
/// found. There is nothing to list that would tell.
pub(crate) async fn import(state: &State, root: &CellRoot, kind: JobKind) -> Result<HttpResponse, ApiError> {
    let cell = root.cell.id.clone();
    let latest =
        state.database.ask(async move |connection| jobs::latest(connection, &cell, kind).await.map_err(ApiError::from));
    let Some(job) = latest.await? else { return document(&StatusReport::ready()) };
    document(&match (job.state, kind) {
        (JobState::Queued | JobState::Running, _) => StatusReport::in_progress(&reported(&job)),
        (JobState::Failed | JobState::Cancelled, _) => StatusReport::failed(&reported(&job), job.error.clone()),
        (JobState::Succeeded, JobKind::DryRun) => {
            StatusReport::found(&reported(&job), job.result.as_deref().unwrap_or("{}"))
        }
        (JobState::Succeeded, JobKind::Import | JobKind::Export) => StatusReport::ready(),
    })
}

fn reported(job: &JobView) -> Reported<'_> {
    Reported { kind: job.kind, name: &job.name, accepted_at: job.accepted_at, progress: &job.progress }
}

fn document(report: &StatusReport) -> Result<HttpResponse, ApiError> {
    let text = serde_json::to_string(report).map_err(|_| ErrorCode::Unknown)?;
    Ok(HttpResponse::Ok().content_type("application/json").body(text))
}
