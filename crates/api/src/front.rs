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
use model::{metrics, store};
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
    let line = request.conn_data::<slow_reader::Line>();
    slow_reader::watch(unread::keep(payload, response), line, state.download_window)
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
    // What is asked most comes with the cell.
    let wants_job = matches!(action, Ok(Action::ExportStatus));
    let finding = state.database.ask(async move |connection| {
        if wants_job {
            return Ok(store::jobs::active_by_name(connection, &name).await?);
        }
        Ok::<_, ApiError>(store::cells::find(connection, &name).await?.map(|cell| (cell, None)))
    });
    let (cell, active) = finding.await?.ok_or(ErrorCode::CellNotFound)?;
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
        Action::DescribeFile(file) => propfind::file(state, &root, &file, request, payload).await,
        Action::Download(file) => download::get(state, &root, &file, request).await,
        Action::DownloadHead(file) => download::head(state, &root, &file, request).await,
        Action::Upload(file) => upload::put(state, &root, &file, request, payload).await,
        Action::Delete(file) => delete::file(state, &root, &file, request).await,
        Action::Options(methods) => Ok(cors::options(methods)),
        Action::FileOptions(file, methods) => {
            download::find(state, &root, &file).await?;
            Ok(cors::options(methods))
        }
        Action::Page(file) => Ok(page::answer(file, request)),
        Action::NotImplemented => Err(ErrorCode::NotImplemented.into()),
    }
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
