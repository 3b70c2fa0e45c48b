//! `DELETE {cell}__snapshot/{file}`: removes a snapshot, or an error file.

use actix_web::HttpResponse;
use model::error_code::ErrorCode;
use model::snapshot_name::SnapshotFileName;
use model::store::StoreError;
use model::store::snapshots::{self, ChangeError, Conditions};
use sqlx::PgConnection;

use super::download;
use crate::auth::CellRoot;
use crate::common::incoming::Incoming;
use crate::error::ApiError;
use crate::state::State;

/// Removes a file: 204. Its bytes go after the row that named them.
pub(crate) async fn file(
    state: &State,
    root: &CellRoot,
    name: &str,
    request: &Incoming,
) -> Result<HttpResponse, ApiError> {
    let file = SnapshotFileName::parse(name).ok_or_else(|| download::missing(root, name))?;
    let conditions = Conditions { if_match: request.condition("if-match"), must_be_new: false };
    let cell = root.cell.id.clone();
    let removed = file.clone();
    let removing = state.database.ask(async move |connection: &mut PgConnection| {
        snapshots::delete(connection, &cell, &removed, &conditions).await
    });
    let bytes = removing.await.map_err(|error| match error {
        ChangeError::Conditions => ErrorCode::EtagMismatch.into(),
        ChangeError::Busy(kind) => ApiError::busy(kind),
        ChangeError::Store(error) => StoreError::into(error),
        // The others are none of a removal.
        ChangeError::NotFound | ChangeError::CellGone | ChangeError::TooMany | ChangeError::Quota => {
            download::missing(root, name)
        }
    })?;
    if let Some(key) = bytes {
        state.area.remove(&key).await;
    }
    tracing::info!(cell.name = %root.cell.name, snapshot.name = %file, "snapshot removed");
    Ok(HttpResponse::NoContent().finish())
}
