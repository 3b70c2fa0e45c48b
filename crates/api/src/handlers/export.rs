//! `POST {cell}__export`: asks for a snapshot of the cell.

use actix_web::HttpResponse;
use actix_web::http::header::{LOCATION, RETRY_AFTER};
use actix_web::web::Payload;
use model::error_code::ErrorCode;
use model::limits;
use model::snapshot_name::{self, SnapshotName};
use model::store::StoreError;
use model::store::jobs::{self, AcceptError};
use serde_json::Value;
use uuid::Uuid;

use crate::auth::CellRoot;
use crate::body;
use crate::common::incoming::Incoming;
use crate::database;
use crate::error::ApiError;
use crate::state::State;

/// Accepts an export: 202 once the job is committed. A name that is taken or a cell that is busy is a 409; the
/// database's constraints decide.
pub(crate) async fn accept(
    state: &State,
    root: &CellRoot,
    request: &Incoming,
    mut payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let body = body::read(&mut payload, limits::JSON_BODY).await?;
    let name = match requested_name(&body::text(&request.headers, &body)?)? {
        Some(name) => name,
        None => SnapshotName::default_for(&root.cell.name, (state.now)()),
    };
    // Without an answer from the volume there is nothing to refuse for: the worker looks again.
    if state.area.free().is_ok_and(|free| free == 0) {
        return Err(ApiError::from(ErrorCode::DiskFull).header(RETRY_AFTER, "60"));
    }
    let job = Uuid::new_v4();
    let (cell, wanted) = (root.cell.id.clone(), name.clone());
    let (deadline, max_strikes) = (state.jobs.deadline, state.jobs.max_strikes);
    let accepting = database::ask(&state.pool, async move |connection| {
        jobs::accept(connection, job, &cell, &wanted, deadline, max_strikes).await
    });
    accepting.await.map_err(|error| refusal(error, &name))?;
    tracing::info!(job.id = %job, cell.name = %root.cell.name, snapshot.name = %name, "export accepted");
    state.ringer.ring(job);
    Ok(HttpResponse::Accepted().insert_header((LOCATION, format!("{}__export", root.url))).finish())
}

fn refusal(error: AcceptError, name: &SnapshotName) -> ApiError {
    match error {
        AcceptError::CellBusy => ApiError::with(ErrorCode::CellBusy, &["cell export"]),
        AcceptError::NameTaken => ApiError::with(ErrorCode::FileExists, &[&format!("{name}.zip")]),
        AcceptError::TooMany => ErrorCode::TooManyChildren.into(),
        AcceptError::Store(error) => StoreError::into(error),
    }
}

/// Reads the name a body asks for; nothing when it leaves the choice to the service.
fn requested_name(body: &str) -> Result<Option<SnapshotName>, ApiError> {
    if body.is_empty() {
        return Ok(None);
    }
    let no_object = || ApiError::with(ErrorCode::JsonParse, &[body]);
    let Value::Object(fields) = serde_json::from_str(body).map_err(|_| no_object())? else { return Err(no_object()) };
    match fields.get("Name") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(name)) => SnapshotName::parse(name).map(Some).ok_or_else(bad_name),
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => Err(bad_name()),
    }
}

fn bad_name() -> ApiError {
    ApiError::with(ErrorCode::FieldFormat, &["Name", snapshot_name::PATTERN])
}
