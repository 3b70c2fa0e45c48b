//! Every request comes through here: the common processing in its order, then the resource's handler.
//!
//! The order is Personium's, with one difference on purpose: credentials come before the existence of a snapshot file,
//! so that an outsider cannot tell which names exist.

use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use model::error_code::ErrorCode;
use tracing::Instrument;

use crate::auth::{self, CellRoot};
use crate::common::incoming::Incoming;
use crate::common::{cors, media_type, request_key};
use crate::database;
use crate::error::ApiError;
use crate::handlers::{download, export, propfind, status};
use crate::routes::{self, Action};
use crate::state::State;

/// Answers a request.
pub(crate) async fn answer(state: Data<State>, request: HttpRequest, payload: Payload) -> HttpResponse {
    let incoming = Incoming::read(&request);
    let key = request_key::for_log(incoming.request_key.as_ref());
    let span = tracing::info_span!("request", request.key = key, method = incoming.method, path = incoming.path);
    let outcome = process(&state, &incoming, payload).instrument(span.clone()).await;
    let mut response = outcome.unwrap_or_else(ApiError::response);
    cors::finish(&mut response, &incoming.headers);
    let _span = span.entered();
    tracing::info!(status = response.status().as_u16(), "answered");
    response
}

async fn process(state: &State, request: &Incoming, payload: Payload) -> Result<HttpResponse, ApiError> {
    if request.wire_method == "OPTIONS" && !request.headers.contains_key("authorization") {
        return Ok(cors::options(cors::ALL_METHODS));
    }
    media_type::check_accept_is_ascii(&request.headers)?;
    request_key::check(request.request_key.as_ref())?;

    let target = routes::target(request, &state.unit)?;
    let Some(name) = target.cell else { return Err(ErrorCode::CellNotFound.into()) };
    let url = state.unit.cell_url(name.as_str());
    let cell = database::ask(&state.pool, async move |connection| {
        model::store::cells::find(connection, &name).await.map_err(ApiError::from)
    });
    let cell = cell.await?.ok_or(ErrorCode::CellNotFound)?;
    if state.unit.path_based {
        // The key may have been put there by X-Override; units look twice in this mode.
        request_key::check(request.headers.get("x-personium-requestkey"))?;
    }
    let principal = auth::parse(request, state.master_token.as_ref());
    let action = routes::action(&target.segments, &request.method)?;
    if action == Action::NotImplemented {
        return Err(ErrorCode::NotImplemented.into());
    }
    media_type::check(&request.headers)?;

    let root = CellRoot::prove(&principal, cell, url)?;
    match action {
        Action::ExportStatus => status::export(state, &root).await,
        Action::Export => export::accept(state, &root, request, payload).await,
        Action::ImportStatus => status::import(),
        Action::ListArea => propfind::area(state, &root, request, payload).await,
        Action::DescribeFile(file) => propfind::file(state, &root, &file, request, payload).await,
        Action::Download(file) => download::get(state, &root, &file, request).await,
        Action::DownloadHead(file) => download::head(state, &root, &file, request).await,
        Action::Options(methods) => Ok(cors::options(methods)),
        Action::FileOptions(file, methods) => {
            download::find(state, &root, &file).await?;
            Ok(cors::options(methods))
        }
        Action::Absent | Action::NotImplemented => Err(ErrorCode::NotImplemented.into()),
    }
}
