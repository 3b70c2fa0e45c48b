//! `POST {cell}__export`: asks for a snapshot of the cell.

use actix_web::HttpResponse;
use actix_web::web::Payload;
use model::error_code::ErrorCode;
use model::job::JobKind;
use model::limits;
use model::snapshot_name::SnapshotName;

use super::orders::{self, Manner, Order};
use crate::auth::CellRoot;
use crate::body;
use crate::common::incoming::Incoming;
use crate::error::ApiError;
use crate::state::State;

/// Accepts an export. A name that is taken or a cell that is busy is a 409.
pub(crate) async fn accept(
    state: &State,
    root: &CellRoot,
    request: &Incoming,
    payload: &mut Payload,
) -> Result<HttpResponse, ApiError> {
    let body = body::read(payload, limits::JSON_BODY).await?;
    let manner = Manner::read(request, JobKind::Export, &body)?;
    if let Some(before) = orders::repeated(state, root, JobKind::Export, &manner).await? {
        return Ok(before);
    }
    let text = body::text(&request.headers, &body)?;
    let name = if text.is_empty() { None } else { body::snapshot_name(&text)? };
    let name = name.unwrap_or_else(|| SnapshotName::default_for(&root.cell.name, (state.now)()));
    // Without an answer from the volume there is nothing to refuse for: the worker looks again.
    if state.area.free().is_ok_and(|free| free == 0) {
        return Err(ApiError::for_now(ErrorCode::DiskFull, "60"));
    }
    orders::place(state, root, name, Order::Export, manner).await
}
