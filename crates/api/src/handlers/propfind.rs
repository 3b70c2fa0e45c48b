//! `PROPFIND` of the snapshot area and of its files.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::ETAG;
use actix_web::web::Payload;
use model::store::snapshots::{self, SnapshotFile};
use model::store::{StoreError, directory};
use sqlx::PgConnection;

use crate::auth::CellRoot;
use crate::common::incoming::Incoming;
use crate::error::ApiError;
use crate::state::State;
use crate::webdav::multistatus::Multistatus;
use crate::webdav::pmeta::Pmeta;
use crate::webdav::propfind::{self, Depth};

/// Lists the area: itself first, then its files sorted by name.
pub(crate) async fn area(
    state: &State,
    root: &CellRoot,
    request: &Incoming,
    payload: &mut Payload,
) -> Result<HttpResponse, ApiError> {
    let depth = propfind::read(request, payload).await?;
    let cell = root.cell.id.clone();
    let (pmeta, files) = state
        .database
        .ask(async move |connection: &mut PgConnection| {
            let pmeta = pmeta(connection, &cell).await?;
            let files = match depth {
                Depth::Zero => Vec::new(),
                Depth::One => snapshots::list(connection, &cell).await?,
            };
            Ok::<_, ApiError>((pmeta, files))
        })
        .await?;
    let mut document = Multistatus::new(&root.url, &pmeta);
    document.area();
    for file in &files {
        document.file(file);
    }
    Ok(multistatus(document, &pmeta.etag()))
}

/// Describes one file; both depths mean the file itself.
pub(crate) async fn file(
    state: &State,
    root: &CellRoot,
    file: &SnapshotFile,
    request: &Incoming,
    payload: &mut Payload,
) -> Result<HttpResponse, ApiError> {
    propfind::read(request, payload).await?;
    let cell = root.cell.id.clone();
    let reading = state
        .database
        .ask(async move |connection: &mut PgConnection| Ok::<_, ApiError>(pmeta(connection, &cell).await?));
    let pmeta = reading.await?;
    let mut document = Multistatus::new(&root.url, &pmeta);
    document.file(file);
    Ok(multistatus(document, &file.etag()))
}

/// Reads the cell's own metadata, the roles of its ACL by name.
async fn pmeta(connection: &mut PgConnection, cell: &model::cell::CellId) -> Result<Pmeta, StoreError> {
    let text = directory::root_pmeta(connection, cell).await?;
    let mut pmeta = Pmeta::parse(text.as_deref().unwrap_or("{}"));
    pmeta.acl.name_roles(&directory::roles(connection, cell, &pmeta.acl.role_ids()).await?);
    Ok(pmeta)
}

fn multistatus(document: Multistatus<'_>, etag: &str) -> HttpResponse {
    let status = StatusCode::MULTI_STATUS;
    HttpResponse::build(status).content_type("application/xml").insert_header((ETAG, etag)).body(document.finish())
}
