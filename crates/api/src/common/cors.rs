//! Headers that every answer carries.

use actix_web::HttpResponse;
use actix_web::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ALLOW, HeaderMap, HeaderName, HeaderValue, ORIGIN,
};

/// The Personium version this service behaves like.
const VERSION: &str = "1.8.4";
const PERSONIUM_VERSION: HeaderName = HeaderName::from_static("x-personium-version");

/// Adds the version, and for a request with an origin what a browser needs to let its script read the answer.
pub(crate) fn finish(response: &mut HttpResponse, request: &HeaderMap) {
    let headers = response.headers_mut();
    headers.insert(PERSONIUM_VERSION, HeaderValue::from_static(VERSION));
    let Some(origin) = request.get(ORIGIN) else { return };
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("X-Personium-Version"));
    if let Some(asked) = request.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
    }
}

/// Methods an anonymous OPTIONS names, whatever it asks about.
pub(crate) const ALL_METHODS: &str =
    "OPTIONS, GET, POST, PUT, DELETE, HEAD, MERGE, MKCOL, MOVE, PROPFIND, PROPPATCH, ACL";

/// The answer to OPTIONS.
pub(crate) fn options(methods: &'static str) -> HttpResponse {
    HttpResponse::Ok().insert_header((ALLOW, methods)).insert_header((ACCESS_CONTROL_ALLOW_METHODS, methods)).finish()
}
