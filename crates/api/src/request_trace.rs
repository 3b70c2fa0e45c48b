//! The span of a request: what a collector is told of it, by OpenTelemetry's names for HTTP.

use model::settings::UnitSettings;
use model::telemetry::TraceSpan;

use crate::common::incoming::Incoming;
use crate::routes;

/// Begins it, below the client's span if the request names one. Queries and credentials are no part of it.
pub(crate) fn begin(request: &Incoming, key: &str, unit: &UnitSettings) -> TraceSpan {
    let method = method(request);
    let span = TraceSpan::request(method, request.trace.as_ref());
    span.set("http.request.method", method);
    span.set("url.scheme", unit.scheme.clone());
    span.set("url.path", request.path.clone());
    span.set("personium.request_key", key.to_owned());
    span
}

/// Ends it with what was answered.
pub(crate) fn end(span: TraceSpan, request: &Incoming, route: &'static str, status: u16) {
    if route != routes::NO_ROUTE {
        span.rename(format!("{} {route}", method(request)));
        span.set("http.route", route);
    }
    span.set("http.response.status_code", i64::from(status));
    if status >= 500 {
        span.set("error.type", status.to_string());
        span.fail("");
    }
}

/// A method as spans name it: one of few.
fn method(request: &Incoming) -> &'static str {
    match routes::method_name(&request.method) {
        routes::OTHER_METHOD => "_OTHER",
        known => known,
    }
}
