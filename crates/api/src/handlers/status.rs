//! `GET {cell}__export` and `GET {cell}__import`: is something under way?

use actix_web::HttpResponse;
use model::error_code::ErrorCode;
use model::status_report::StatusReport;
use model::store::jobs;

use crate::auth::CellRoot;
use crate::database;
use crate::error::ApiError;
use crate::state::State;

/// Reports the active export of a cell. Status and listing read rows that change in one transaction: once this says
/// `ready`, the result is listed.
pub(crate) async fn export(state: &State, root: &CellRoot) -> Result<HttpResponse, ApiError> {
    let cell = root.cell.id.clone();
    let active = database::ask(&state.pool, async move |connection| {
        jobs::active(connection, &cell).await.map_err(ApiError::from)
    });
    let report = match active.await? {
        None => StatusReport::ready(),
        Some(job) => StatusReport::in_progress(&job.name, job.accepted_at, &job.progress),
    };
    document(&report)
}

/// Imports cannot run yet, so none is under way.
pub(crate) fn import() -> Result<HttpResponse, ApiError> {
    document(&StatusReport::ready())
}

fn document(report: &StatusReport) -> Result<HttpResponse, ApiError> {
    let text = serde_json::to_string(report).map_err(|_| ErrorCode::Unknown)?;
    Ok(HttpResponse::Ok().content_type("application/json").body(text))
}
