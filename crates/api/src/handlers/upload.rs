//! `PUT {cell}__snapshot/{NAME.zip}`: brings a snapshot into the cell's area, so that it can be imported.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, ETAG};
use actix_web::web::Payload;
use model::area::SnapshotArea;
use model::cell::CellId;
use model::error_code::ErrorCode;
use model::snapshot_name::{FileKind, SnapshotFileName, SnapshotName};
use model::store::StoreError;
use model::store::snapshots::{self, ChangeError, Changed, Conditions, Uploaded};
use sqlx::PgConnection;
use tracing::Instrument;

use crate::auth::CellRoot;
use crate::common::incoming::Incoming;
use crate::config::UploadSettings;
use crate::database::Database;
use crate::error::ApiError;
use crate::state::State;
use crate::upload::{Received, Upload, UploadError};

/// The names that can be put, as error texts show it.
const PATTERN: &str = r"^[a-zA-Z0-9-_]{1,192}\.zip$";

/// Longest media type that is kept.
const CONTENT_TYPE_LENGTH: usize = 255;

/// Takes a snapshot: 201 when it is new, 204 when it replaces one. What can be refused is refused before the body is
/// read; until the last step nothing of the upload can be seen, and whatever fails, the old file stays.
pub(crate) async fn put(
    state: &State,
    root: &CellRoot,
    name: &str,
    request: &Incoming,
    payload: &mut Payload,
) -> Result<HttpResponse, ApiError> {
    let name = match SnapshotFileName::parse(name) {
        Some(SnapshotFileName { base, kind: FileKind::Zip }) => base,
        Some(_) | None => return Err(ApiError::with(ErrorCode::FieldFormat, &["Name", PATTERN])),
    };
    let content_type = content_type(request)?;
    let conditions = Conditions {
        if_match: request.condition("if-match"),
        must_be_new: request.header("if-none-match").is_some_and(|value| value.trim() == "*"),
    };
    let announced = request.content_length.unwrap_or(0);
    let refused = |error| refusal(error, &state.uploads);
    if announced > state.uploads.longest {
        return Err(refused(UploadError::TooLong));
    }
    // Without an answer from the volume there is nothing to refuse for: writing shows it.
    if state.area.free().is_ok_and(|free| free == 0 || free < announced) {
        return Err(refused(UploadError::DiskFull));
    }
    let (cell, wanted, expected) = (root.cell.id.clone(), name.clone(), conditions.clone());
    let looking = state.database.ask(async move |connection: &mut PgConnection| {
        snapshots::check_put(connection, &cell, &wanted, &expected).await?;
        Ok::<_, ChangeError>(snapshots::bytes_beside(connection, &cell, &wanted).await?)
    });
    let beside = looking.await.map_err(|error| unchanged(error, &state.uploads))?;
    let room = state.uploads.cell_quota.saturating_sub(beside);
    if announced > room {
        return Err(refused(UploadError::Quota));
    }
    let Ok(permit) = Arc::clone(&state.uploading).try_acquire_owned() else {
        return Err(ApiError::for_now(ErrorCode::TooManyRequests, "5"));
    };
    let mut upload = Upload::begin(&state.area).map_err(refused)?;
    upload.receive(payload, &state.uploads, room).await.map_err(refused)?;

    // All is here. From now on it does not matter whether the client is.
    let ending = Ending {
        database: state.database.clone(),
        area: state.area.clone(),
        cell: root.cell.id.clone(),
        name: name.clone(),
        conditions,
        content_type,
        settings: state.uploads.clone(),
    };
    let ending = async move {
        let _permit = permit;
        let received = upload.finish().await.map_err(|error| refusal(error, &ending.settings))?;
        ending.show(received).await
    };
    let changed = actix_web::rt::spawn(ending.in_current_span()).await.map_err(|_| ErrorCode::Unknown)??;
    tracing::info!(cell.name = %root.cell.name, snapshot.name = %name, "snapshot uploaded");
    let status = if changed.created { StatusCode::CREATED } else { StatusCode::NO_CONTENT };
    Ok(HttpResponse::build(status).insert_header((ETAG, changed.etag)).finish())
}

/// The media type the client gave, kept as it is.
fn content_type(request: &Incoming) -> Result<Option<String>, ApiError> {
    let Some(value) = request.headers.get(CONTENT_TYPE).filter(|value| !value.is_empty()) else { return Ok(None) };
    let printable = |b: &u8| (b' '..=b'~').contains(b);
    match value.to_str() {
        Ok(text) if text.len() <= CONTENT_TYPE_LENGTH && text.as_bytes().iter().all(printable) => {
            Ok(Some(text.to_owned()))
        }
        Ok(_) | Err(_) => {
            let shown = String::from_utf8_lossy(value.as_bytes());
            Err(ApiError::with(ErrorCode::HeaderValue, &["Content-Type", &shown]))
        }
    }
}

/// The last step of an upload.
struct Ending {
    database: Database,
    area: SnapshotArea,
    cell: CellId,
    name: SnapshotName,
    conditions: Conditions,
    content_type: Option<String>,
    settings: UploadSettings,
}

impl Ending {
    /// Makes a row name the file, and removes the one that no row names any more: the old one or, when the new one is
    /// refused, the new one. Without an answer from the database nobody knows which that is: it is left to the sweeper.
    async fn show(self, received: Received) -> Result<Changed, ApiError> {
        let Received { key, size, sha256 } = received;
        let uploaded = Uploaded { key: key.clone(), size, sha256, content_type: self.content_type };
        let quota = self.settings.cell_quota;
        let (cell, name, conditions) = (self.cell, self.name, self.conditions);
        let putting = self.database.ask(async move |connection: &mut PgConnection| {
            snapshots::put(connection, &cell, &name, &conditions, &uploaded, quota).await
        });
        match putting.await {
            Ok(changed) => {
                if let Some(replaced) = &changed.replaced {
                    self.area.remove(replaced).await;
                }
                Ok(changed)
            }
            Err(error) => {
                if !matches!(error, ChangeError::Store(_)) {
                    self.area.remove(&key).await;
                }
                Err(unchanged(error, &self.settings))
            }
        }
    }
}

fn unchanged(error: ChangeError, settings: &UploadSettings) -> ApiError {
    match error {
        ChangeError::Conditions => ErrorCode::EtagMismatch.into(),
        ChangeError::Busy(kind) => ApiError::busy(kind),
        ChangeError::TooMany => ErrorCode::TooManyChildren.into(),
        ChangeError::Quota => refusal(UploadError::Quota, settings),
        ChangeError::CellGone | ChangeError::NotFound => ErrorCode::CellNotFound.into(),
        ChangeError::Store(error) => StoreError::into(error),
    }
}

fn refusal(error: UploadError, settings: &UploadSettings) -> ApiError {
    match error {
        UploadError::TooLong => ApiError::with(ErrorCode::BodyTooLarge, &[&settings.longest.to_string()]),
        UploadError::Quota => ApiError::with(ErrorCode::QuotaExceeded, &[&settings.cell_quota.to_string()]),
        UploadError::TooSlow => ErrorCode::BodyTimeout.into(),
        UploadError::Broken => ErrorCode::BodyRead.into(),
        UploadError::DiskFull => ApiError::for_now(ErrorCode::DiskFull, "60"),
        UploadError::Io(error) => {
            tracing::error!(%error, "an upload cannot be written");
            ErrorCode::FileSystemInconsistent.into()
        }
    }
}
