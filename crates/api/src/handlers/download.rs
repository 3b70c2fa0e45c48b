//! `GET` and `HEAD` of a snapshot file: whole, in ranges, or not at all because the client has it.

use std::fmt::Display;
use std::ops::Range;

use actix_web::body::{BodyStream, SizedStream};
use actix_web::http::StatusCode;
use actix_web::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, LAST_MODIFIED,
    LOCATION, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::{HttpResponse, HttpResponseBuilder};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use model::area::SnapshotArea;
use model::error_code::ErrorCode;
use model::limits;
use model::store::snapshots::{Content, SnapshotFile};

use crate::auth::CellRoot;
use crate::common::incoming::Incoming;
use crate::common::prefer;
use crate::connection::Line;
use crate::error::ApiError;
use crate::ranges::{self, Wanted};
use crate::sent_file;
use crate::state::State;
use crate::webdav::http_date;

const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// The 404 of a file, with its URL.
pub(crate) fn missing(root: &CellRoot, name: &str) -> ApiError {
    ApiError::with(ErrorCode::NotFound, &[&format!("{}__snapshot/{name}", root.url)])
}

/// Answers GET: the whole file, or the ranges that were asked for.
pub(crate) async fn get(state: &State, file: &SnapshotFile, request: &Incoming) -> Result<HttpResponse, ApiError> {
    if is_known(file, request) {
        return Ok(not_modified(file));
    }
    if let Some(link) = link(state, file, request).await? {
        return Ok(redirect(&link));
    }
    match ranges::wanted(request, &file.etag(), file.modified_at, file.size) {
        Wanted::Unsatisfiable => {
            let error = ApiError::from(ErrorCode::RangeNotSatisfiable);
            Err(error.header(CONTENT_RANGE, &format!("bytes */{}", file.size)))
        }
        Wanted::Whole => one(state, file, 0..file.size, headers(StatusCode::OK, file), request.line.as_ref()).await,
        Wanted::One(range) => {
            let mut response = headers(StatusCode::PARTIAL_CONTENT, file);
            response.insert_header((CONTENT_RANGE, content_range(&range, file.size)));
            one(state, file, range, response, request.line.as_ref()).await
        }
        Wanted::Several(ranges) => several(&state.area, file, ranges).await,
    }
}

/// Answers HEAD: the length of the file, and no bytes. Ranges are for GET only (RFC 9110, section 14.2).
pub(crate) fn head(file: &SnapshotFile, request: &Incoming) -> HttpResponse {
    if is_known(file, request) {
        return not_modified(file);
    }
    let mut response = headers(StatusCode::OK, file);
    let empty = stream::empty::<Piece>();
    // A POST that was overridden to HEAD gets no length, since on its wire a length promises bytes.
    match request.wire_method.as_str() {
        "HEAD" => response.body(SizedStream::new(file.size, empty)),
        _ => response.finish(),
    }
}

/// Tells whether the client has the file: an `If-None-Match` with exactly its tag, strong or weak. `*` and lists are no
/// match, because the units' web client always sends `*` and needs the file.
fn is_known(file: &SnapshotFile, request: &Incoming) -> bool {
    let etag = file.etag();
    request.header("if-none-match").is_some_and(|v| v == etag || v.strip_prefix("W/") == Some(&etag))
}

/// A link to the bucket, when downloads are to be redirected. Not for whoever would rather not, and not for scripts of a
/// page: they would need the bucket's leave to read what is of another origin (Fetch standard, `Sec-Fetch-Mode`).
async fn link(state: &State, file: &SnapshotFile, request: &Incoming) -> Result<Option<String>, ApiError> {
    let by_script = request.header("sec-fetch-mode").is_some_and(|mode| mode != "navigate");
    let stays = prefer::no_redirect(&request.headers);
    match &file.content {
        Content::Blob(key) if state.redirect && !by_script && !stays && file.size > 0 => {
            let link = state.area.link(key, &file.name.to_string(), content_type(file)).await;
            link.map_err(|error| {
                tracing::error!(%error, "a link to the bucket cannot be made");
                ApiError::from(ErrorCode::FileUnavailable)
            })
        }
        Content::Blob(_) | Content::Inline(_) => Ok(None),
    }
}

/// Method and ranges are repeated there. The link is a secret for as long as it works.
fn redirect(link: &str) -> HttpResponse {
    HttpResponse::TemporaryRedirect()
        .insert_header((LOCATION, link))
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((REFERRER_POLICY, "no-referrer"))
        .finish()
}

fn not_modified(file: &SnapshotFile) -> HttpResponse {
    HttpResponse::NotModified().insert_header((ETAG, file.etag())).finish()
}

fn headers(status: StatusCode, file: &SnapshotFile) -> HttpResponseBuilder {
    let mut response = HttpResponse::build(status);
    response
        .insert_header((ETAG, file.etag()))
        .insert_header((LAST_MODIFIED, http_date(file.modified_at)))
        .insert_header((ACCEPT_RANGES, "bytes"))
        // Of the whole file, also with a part of it (RFC 9530, section 3).
        .insert_header((REPR_DIGEST, format!("sha-256=:{}:", STANDARD.encode(&file.sha256))))
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        // An upload may be of any type, a page with a script among them: it is saved, not shown.
        .insert_header((CONTENT_DISPOSITION, format!("attachment; filename=\"{}\"", file.name)))
        .insert_header((CONTENT_TYPE, content_type(file)));
    response
}

fn content_type(file: &SnapshotFile) -> &str {
    file.content_type.as_deref().unwrap_or("application/octet-stream")
}

/// Answers with one range: the kernel sends what is a file of this host and not short, the rest is copied.
async fn one(
    state: &State,
    file: &SnapshotFile,
    range: Range<u64>,
    mut response: HttpResponseBuilder,
    line: Option<&Line>,
) -> Result<HttpResponse, ApiError> {
    let size = range.end - range.start;
    if let (Content::Blob(key), Some(line)) = (&file.content, line)
        && size > limits::COPIED
        && let Some(opened) = state.area.open_here(key, &range).await.map_err(|error| unreadable(file, &error))?
    {
        // To the server library it is a stream that says how long it is, and has nothing in it.
        return Ok(response.no_chunking(size).body(BodyStream::new(sent_file::body(line.clone(), opened, range))));
    }
    let body = part(&state.area, file, range).await?;
    Ok(response.body(SizedStream::new(size, body)))
}

/// Answers with several ranges as `multipart/byteranges` (RFC 9110, section 14.6), its length known beforehand.
async fn several(area: &SnapshotArea, file: &SnapshotFile, ranges: Vec<Range<u64>>) -> Result<HttpResponse, ApiError> {
    let boundary = uuid::Uuid::new_v4().simple().to_string();
    let kind = content_type(file);
    let mut size = 0;
    let mut parts = Vec::new();
    for range in ranges {
        let content_range = content_range(&range, file.size);
        let head = format!("--{boundary}\r\nContent-Type: {kind}\r\nContent-Range: {content_range}\r\n\r\n");
        size += head.len() as u64 + (range.end - range.start) + 2;
        // Opened before the answer begins, so that a missing file is an answer and not a broken one.
        let bytes = part(area, file, range).await?;
        parts.push(once(head).chain(bytes).chain(once("\r\n".to_owned())).boxed_local());
    }
    let end = format!("--{boundary}--\r\n");
    size += end.len() as u64;
    parts.push(once(end).boxed_local());
    let body = SizedStream::new(size, stream::iter(parts).flatten());
    let kind = format!("multipart/byteranges; boundary={boundary}");
    Ok(headers(StatusCode::PARTIAL_CONTENT, file).insert_header((CONTENT_TYPE, kind)).body(body))
}

type Piece = Result<Bytes, actix_web::Error>;

/// Opens a range of a file. Nothing is held in memory but the piece on its way.
async fn part(
    area: &SnapshotArea,
    file: &SnapshotFile,
    range: Range<u64>,
) -> Result<stream::LocalBoxStream<'static, Piece>, ApiError> {
    match &file.content {
        Content::Inline(text) => {
            let bytes = text.as_bytes().get(range.start as usize..range.end as usize).unwrap_or_default();
            Ok(stream::iter([Ok(Bytes::copy_from_slice(bytes))]).boxed_local())
        }
        // The storage library takes no empty range.
        Content::Blob(_) if range.is_empty() => Ok(stream::empty().boxed_local()),
        Content::Blob(key) => {
            let opened = area.read(key, Some(range)).await.map_err(|error| unreadable(file, &error));
            Ok(opened?.map_err(actix_web::error::ErrorInternalServerError).boxed_local())
        }
    }
}

fn unreadable(file: &SnapshotFile, error: &dyn Display) -> ApiError {
    tracing::error!(snapshot.name = %file.name, %error, "a listed snapshot cannot be read");
    ErrorCode::FileUnavailable.into()
}

fn once(text: String) -> impl Stream<Item = Piece> {
    stream::iter([Ok(Bytes::from(text))])
}

fn content_range(range: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start, range.end - 1)
}
