//! Every request comes through here: the common processing in its order, then the resource's handler.
//!
//! The order is Personium's, with one difference on purpose: credentials come before the existence of a snapshot file,
//! so that an outsider cannot tell which names exist.

use std::cell::Cell;
use std::time::Instant;

use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use model::cell::CellName;
use model::error_code::ErrorCode;
use model::snapshot_name::SnapshotFileName;
use model::store::jobs::JobView;
use model::store::snapshots::SnapshotFile;
use model::{metrics, store};
use sqlx::PgConnection;
use tracing::Instrument;

use crate::auth::{CellRoot, UnitMaster};
use crate::common::incoming::Incoming;
use crate::common::{cors, media_type, request_key};
use crate::error::ApiError;
use crate::handlers::{cells, delete, download, export, import, jobs, propfind, status, upload};
use crate::routes::{self, Action, Target, UnitAction};
use crate::state::State;
use crate::{openapi, page, request_trace, slow_reader, unread};

/// Answers a request.
pub(crate) async fn answer(state: Data<State>, request: HttpRequest, mut payload: Payload) -> HttpResponse {
    let mut incoming = Incoming::read(&request);
    let key = request_key::for_log(incoming.request_key.as_ref());
    let trace = request_trace::begin(&incoming, &key, &state.unit);
    // What is asked for from here on is asked for by this span.
    incoming.trace = trace.context();
    let span = tracing::info_span!(
        "request",
        request.key = key,
        method = incoming.method,
        path = incoming.path,
        trace.id = trace.trace_id()
    );
    let (begun, route) = (Instant::now(), Cell::new(routes::NO_ROUTE));
    let outcome = process(&state, &incoming, &mut payload, &route).instrument(span.clone()).await;
    let mut response = outcome.unwrap_or_else(|error| error.response(&incoming.headers, &state.unit));
    cors::finish(&mut response, &incoming.headers);
    let (method, status) = (routes::method_name(&incoming.method), response.status().as_u16());
    metrics::answered(route.get(), method, status, begun.elapsed().as_secs_f64());
    let _span = span.entered();
    tracing::info!(status, "answered");
    request_trace::end(trace, &incoming, route.get(), status);
    slow_reader::watch(unread::keep(payload, response), incoming.line, state.download_window)
}

/// The common processing. Says which route it is as soon as it is known.
async fn process(
    state: &State,
    request: &Incoming,
    payload: &mut Payload,
    route: &Cell<&'static str>,
) -> Result<HttpResponse, ApiError> {
    if request.wire_method == "OPTIONS" && !request.headers.contains_key("authorization") {
        return Ok(cors::options(cors::ALL_METHODS));
    }
    media_type::check_accept_is_ascii(&request.headers)?;
    request_key::check(request.request_key.as_ref())?;
    match routes::target(request, &state.unit)? {
        Target::Cell { name, segments } => {
            route.set(routes::cell_route(&segments));
            cell(state, request, payload, name, &segments).await
        }
        Target::Description => match request.method.as_str() {
            "GET" | "HEAD" => Ok(openapi::answer(&state.unit)),
            _ => Err(ErrorCode::MethodNotAllowed.into()),
        },
        Target::Unit(segments) => {
            route.set("/__ctl");
            unit(state, request, payload, &segments).await
        }
        Target::Page(file) => match request.method.as_str() {
            "GET" | "HEAD" => Ok(page::answer(file, request)),
            _ => Err(ErrorCode::MethodNotAllowed.into()),
        },
    }
}

/// A request to a cell.
async fn cell(
    state: &State,
    request: &Incoming,
    payload: &mut Payload,
    name: Option<CellName>,
    segments: &[String],
) -> Result<HttpResponse, ApiError> {
    let name = name.ok_or(ErrorCode::CellNotFound)?;
    let url = state.unit.cell_url(name.as_str());
    let action = routes::action(segments, &request.method);
    let wanted = action.clone().ok();
    let finding = state.database.ask(async move |connection| find(connection, &name, wanted.as_ref()).await);
    let Found { cell, active, file } = finding.await?.ok_or(ErrorCode::CellNotFound)?;
    if state.unit.path_based {
        // The key may have been put there by X-Override; units look twice in this mode.
        request_key::check(request.headers.get("x-personium-requestkey"))?;
    }
    if let Ok(Action::Page(file)) = action {
        // It asks for credentials itself.
        return Ok(page::answer(file, request));
    }
    let caller = state.auth.caller(request, &state.unit, Some(&url));
    let action = action?;
    if action == Action::NotImplemented {
        return Err(ErrorCode::NotImplemented.into());
    }
    media_type::check(&request.headers)?;

    let root = CellRoot::prove(&state.auth, &caller, cell, url).await?;
    let there = |name: &str| file.ok_or_else(|| download::missing(&root, name));
    match action {
        Action::ExportStatus => status::export(state, &root, active, request).await,
        Action::Export => export::accept(state, &root, request, payload).await,
        Action::ImportStatus(kind) => status::import(state, &root, kind, request).await,
        Action::Import(kind) => import::accept(state, &root, kind, request, payload).await,
        Action::ListJobs(family) => jobs::list(state, &root, family, request).await,
        Action::Job(family, id) => jobs::show(state, &root, family, &id, request).await,
        Action::CancelJob(family, id) => jobs::cancel(state, &root, family, &id).await,
        Action::JobEvents(family, id) => jobs::events(state, &root, family, &id, request).await,
        Action::ListArea => propfind::area(state, &root, request, payload).await,
        Action::DescribeFile(name) => propfind::file(state, &root, &there(&name)?, request, payload).await,
        Action::Download(name) => download::get(state, &there(&name)?, request).await,
        Action::DownloadHead(name) => Ok(download::head(&there(&name)?, request)),
        Action::Upload(file) => upload::put(state, &root, &file, request, payload).await,
        Action::Delete(file) => delete::file(state, &root, &file, request).await,
        Action::Options(methods) => Ok(cors::options(methods)),
        Action::FileOptions(name, methods) => {
            there(&name)?;
            Ok(cors::options(methods))
        }
        Action::Page(file) => Ok(page::answer(file, request)),
        Action::NotImplemented => Err(ErrorCode::NotImplemented.into()),
    }
}

/// A cell, and what is asked for most: that comes with it, in one trip to the database.
struct Found {
    cell: store::cells::Cell,
    active: Option<JobView>,
    file: Option<SnapshotFile>,
}

async fn find(
    connection: &mut PgConnection,
    name: &CellName,
    action: Option<&Action>,
) -> Result<Option<Found>, ApiError> {
    let file = action.and_then(Action::file).and_then(SnapshotFileName::parse);
    if let Some(file) = file {
        let found = store::snapshots::find_by_cell_name(connection, name, &file).await?;
        return Ok(found.map(|(cell, file)| Found { cell, active: None, file }));
    }
    if matches!(action, Some(Action::ExportStatus)) {
        let found = store::jobs::active_by_name(connection, name).await?;
        return Ok(found.map(|(cell, active)| Found { cell, active, file: None }));
    }
    let found = store::cells::find(connection, name).await?;
    Ok(found.map(|cell| Found { cell, active: None, file: None }))
}

/// A request to the unit itself.
async fn unit(
    state: &State,
    request: &Incoming,
    payload: &mut Payload,
    segments: &[String],
) -> Result<HttpResponse, ApiError> {
    let caller = state.auth.caller(request, &state.unit, None);
    let action = routes::unit_action(segments, &request.method)?;
    media_type::check(&request.headers)?;

    let master = UnitMaster::prove(&state.auth, &caller, state.unit.url()).await?;
    match action {
        UnitAction::ListCells => cells::list(state, &master, request).await,
        UnitAction::CreateCell => cells::create(state, &master, request, payload).await,
        UnitAction::DescribeCell(name) => cells::describe(state, &master, &name).await,
        UnitAction::DeleteCell(name) => cells::delete(state, &master, &name, request).await,
        UnitAction::Options(methods) => Ok(cors::options(methods)),
    }
}
