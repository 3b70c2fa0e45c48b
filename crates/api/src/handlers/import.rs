//! `POST {cell}__import` and `POST {cell}__import/dry-run`: asks that the cell becomes what a snapshot of it says, or
//! what would become of it.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::web::Payload;
use model::error_code::ErrorCode;
use model::job::JobKind;
use model::limits;
use model::snapshot_file::{self, Unfit};
use model::snapshot_name::{FileKind, SnapshotFileName};
use model::store::snapshots::{self, Content};
use sqlx::PgConnection;
use tokio::time::timeout;

use super::orders::{self, Manner, Order};
use crate::auth::CellRoot;
use crate::body;
use crate::common::incoming::Incoming;
use crate::error::ApiError;
use crate::state::State;

/// Accepts an import or a dry run of a snapshot that looks like one.
pub(crate) async fn accept(
    state: &State,
    root: &CellRoot,
    kind: JobKind,
    request: &Incoming,
    payload: &mut Payload,
) -> Result<HttpResponse, ApiError> {
    let body = body::read(payload, limits::JSON_BODY).await?;
    let manner = Manner::read(request, kind, &body)?;
    if let Some(before) = orders::repeated(state, root, kind, &manner).await? {
        return Ok(before);
    }
    let name = body::snapshot_name(&body::text(&request.headers, &body)?)?;
    let name = name.ok_or_else(|| ApiError::with(ErrorCode::RequiredKey, &["Name"]))?;
    let file = SnapshotFileName { base: name.clone(), kind: FileKind::Zip };
    let cell = root.cell.id.clone();
    let key = state.database.ask(async move |connection: &mut PgConnection| {
        // A busy cell costs no look at a file.
        orders::refuse_when_busy(connection, &cell).await?;
        match snapshots::find(connection, &cell, &file).await?.map(|found| found.content) {
            Some(Content::Blob(key)) => Ok(key),
            Some(Content::Inline(_)) | None => Err(ApiError::with(ErrorCode::NotFound, &[&file.to_string()])),
        }
    });
    let key = key.await?;
    inspect(state, &key).await?;
    orders::place(state, root, name, Order::Import { kind, key }, manner).await
}

/// Looks whether a file is a snapshot that can be read. Only some at once, each for a bounded time: this is work that
/// a client can cause again and again.
async fn inspect(state: &State, key: &str) -> Result<(), ApiError> {
    let busy = || ApiError::for_now(ErrorCode::TooManyRequests, "5");
    let permit = timeout(limits::INSPECTION, Arc::clone(&state.inspecting).acquire_owned()).await;
    let Ok(Ok(permit)) = permit else { return Err(busy()) };
    let (area, opened) = (state.area.clone(), key.to_owned());
    let looking = tokio::task::spawn_blocking(move || {
        // A look that hangs keeps its permit, whoever still waits for it.
        let _permit = permit;
        let file = area.open_file(&opened).map_err(Unfit::Io)?;
        snapshot_file::inspect(&file)
    });
    let unavailable = || ApiError::for_now(ErrorCode::FileUnavailable, "5");
    match timeout(limits::INSPECTION, looking).await {
        Ok(Ok(Ok(_))) => Ok(()),
        Ok(Ok(Err(Unfit::Refused(code, body)))) => Err(ApiError::of(code, body)),
        Ok(Ok(Err(Unfit::Io(error)))) => {
            tracing::error!(%error, "a listed snapshot cannot be read");
            Err(unavailable())
        }
        Ok(Err(error)) => {
            tracing::error!(%error, "the look at a snapshot failed");
            Err(ErrorCode::Unknown.into())
        }
        Err(_) => {
            tracing::error!("the look at a snapshot takes too long");
            Err(unavailable())
        }
    }
}
