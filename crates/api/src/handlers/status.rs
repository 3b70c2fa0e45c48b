//! `GET {cell}__export`, `GET {cell}__import` and `GET {cell}__import/dry-run`: what is under way, and how an import
//! ended.

use std::time::Duration;

use actix_web::HttpResponse;
use model::error_code::ErrorCode;
use model::job::{JobKind, JobState};
use model::status_report::{Reported, StatusReport};
use model::store::job_resources::Family;
use model::store::jobs::{self, JobView};

use super::jobs as resources;
use crate::auth::CellRoot;
use crate::common::incoming::Incoming;
use crate::common::prefer;
use crate::error::ApiError;
use crate::state::State;

/// Reports the active export of a cell. Status and listing read rows that change in one transaction: once this says
/// `ready`, the result is listed.
pub(crate) async fn export(
    state: &State,
    root: &CellRoot,
    active: Option<JobView>,
    request: &Incoming,
) -> Result<HttpResponse, ApiError> {
    let mut active = active.filter(|job| job.kind == JobKind::Export);
    let waited = wait(state, root, active.as_ref(), request).await?;
    if waited.is_some() {
        let cell = root.cell.id.clone();
        let reading =
            state.database.ask(async move |connection| jobs::active(connection, &cell).await.map_err(ApiError::from));
        active = reading.await?.filter(|job| job.kind == JobKind::Export);
    }
    let report = match active {
        None => StatusReport::ready(),
        Some(job) => StatusReport::in_progress(&reported(&job)),
    };
    document(&report, waited)
}

/// Reports the last import of a cell, or its last dry run: under way, failed, or `ready`; of a dry run also what it
/// found. There is nothing to list that would tell.
pub(crate) async fn import(
    state: &State,
    root: &CellRoot,
    kind: JobKind,
    request: &Incoming,
) -> Result<HttpResponse, ApiError> {
    let mut last = latest(state, root, kind).await?;
    let waited = wait(state, root, last.as_ref(), request).await?;
    if waited.is_some() {
        last = latest(state, root, kind).await?;
    }
    let Some(job) = last else { return document(&StatusReport::ready(), waited) };
    let report = match (job.state, kind) {
        (JobState::Queued | JobState::Running, _) => StatusReport::in_progress(&reported(&job)),
        (JobState::Failed | JobState::Cancelled, _) => StatusReport::failed(&reported(&job), job.error.clone()),
        (JobState::Succeeded, JobKind::DryRun) => {
            StatusReport::found(&reported(&job), job.result.as_deref().unwrap_or("{}"))
        }
        (JobState::Succeeded, JobKind::Import | JobKind::Export) => StatusReport::ready(),
    };
    document(&report, waited)
}

async fn latest(state: &State, root: &CellRoot, kind: JobKind) -> Result<Option<JobView>, ApiError> {
    let cell = root.cell.id.clone();
    let reading =
        state.database.ask(async move |connection| jobs::latest(connection, &cell, kind).await.map_err(ApiError::from));
    reading.await
}

/// Waits until the state of an active job changes, if the client would. Returns how long would have been waited.
async fn wait(
    state: &State,
    root: &CellRoot,
    job: Option<&JobView>,
    request: &Incoming,
) -> Result<Option<Duration>, ApiError> {
    let active = job.filter(|job| !job.state.is_final());
    let (Some(job), Some(longest)) = (active, prefer::wait(&request.headers)) else { return Ok(None) };
    let family = Family::of(job.kind);
    let (_, waited) = resources::wait(state, root, family, job.id, longest, resources::until_changed).await?;
    Ok(waited)
}

fn reported(job: &JobView) -> Reported<'_> {
    Reported { kind: job.kind, name: &job.name, accepted_at: job.accepted_at, percent: job.percent }
}

fn document(report: &StatusReport, waited: Option<Duration>) -> Result<HttpResponse, ApiError> {
    let text = serde_json::to_string(report).map_err(|_| ErrorCode::Unknown)?;
    let mut response = HttpResponse::Ok();
    if let Some(waited) = waited {
        response.insert_header((resources::PREFERENCE_APPLIED, prefer::applied(waited)));
    }
    Ok(response.content_type("application/json").body(text))
}
