//! A request after its overrides: X-HTTP-Method-Override, X-Override and X-Forwarded-*, in this order.

use actix_web::HttpRequest;
use actix_web::http::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue};
use model::trace_context::TraceContext;

use crate::connection::Line;

/// What the rest of the service sees of a request. `X-Forwarded-Proto` has no effect here: every URL that is emitted
/// is built from settings.
#[derive(Debug)]
pub(crate) struct Incoming {
    /// The method on the wire.
    pub(crate) wire_method: String,
    /// The method that counts, verbatim and case-sensitive.
    pub(crate) method: String,
    /// Header fields after X-Override.
    pub(crate) headers: HeaderMap,
    /// X-Personium-RequestKey as it was sent, before X-Override.
    pub(crate) request_key: Option<HeaderValue>,
    /// Host and port of the request, X-Forwarded-Host in place of the host.
    pub(crate) authority: String,
    /// Host and port as they were sent: a cell's name is read from these.
    pub(crate) raw_authority: String,
    /// Path, still encoded.
    pub(crate) path: String,
    /// Query, still encoded.
    pub(crate) query: String,
    /// The span that asks: the client's, until the request has one of its own.
    pub(crate) trace: Option<TraceContext>,
    /// Length that the body was announced with on the wire.
    pub(crate) content_length: Option<u64>,
    /// The connection it came by.
    pub(crate) line: Option<Line>,
}

impl Incoming {
    pub(crate) fn read(request: &HttpRequest) -> Self {
        let wire_method = request.method().as_str().to_owned();
        let method = method(&wire_method, request.headers());
        let raw_authority = text(request.headers().get(HOST)).unwrap_or_default();
        let headers = overridden(request.headers());
        let authority = match text(headers.get("x-forwarded-host")) {
            None => raw_authority.clone(),
            // Only the host is replaced; the port stays.
            Some(host) => match raw_authority.rsplit_once(':') {
                Some((_, port)) => format!("{host}:{port}"),
                None => host,
            },
        };
        let path = match text(headers.get("x-forwarded-path")) {
            None => request.uri().path().to_owned(),
            Some(path) => path.split('?').next().unwrap_or_default().to_owned(),
        };
        Self {
            wire_method,
            method,
            request_key: request.headers().get("x-personium-requestkey").cloned(),
            trace: trace(request.headers()),
            headers,
            authority,
            raw_authority,
            path,
            query: request.uri().query().unwrap_or_default().to_owned(),
            content_length: text(request.headers().get(CONTENT_LENGTH)).and_then(|length| length.parse().ok()),
            line: request.conn_data::<Line>().cloned(),
        }
    }

    /// The value of a header field as text; other bytes than text make it absent.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The value of a condition: a value that is no text stays one, and matches nothing.
    pub(crate) fn condition(&self, name: &str) -> Option<String> {
        self.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    }
}

fn text(value: Option<&HeaderValue>) -> Option<String> {
    value?.to_str().ok().map(str::to_owned)
}

/// What the client says of the trace it is in (W3C Trace Context): nothing that must be right, so nothing is refused.
fn trace(headers: &HeaderMap) -> Option<TraceContext> {
    let mut parents = headers.get_all("traceparent");
    let parent = parents.next()?.to_str().ok()?;
    if parents.next().is_some() {
        return None;
    }
    // A list may stand in several fields.
    let states: Vec<&str> = headers.get_all("tracestate").filter_map(|value| value.to_str().ok()).collect();
    TraceContext::read(parent, Some(&states.join(",")))
}

fn method(wire: &str, headers: &HeaderMap) -> String {
    let wanted = text(headers.get("x-http-method-override")).filter(|m| !m.is_empty());
    wanted.filter(|_| wire.eq_ignore_ascii_case("POST")).unwrap_or_else(|| wire.to_owned())
}

/// Applies each `X-Override: Name: Value`. Lines without a name, or with one that cannot be a header's, are ignored.
fn overridden(headers: &HeaderMap) -> HeaderMap {
    let mut result = headers.clone();
    for line in headers.get_all("x-override") {
        let Some((name, value)) = line.to_str().ok().and_then(|l| l.split_once(':')) else { continue };
        let name = HeaderName::try_from(name.trim());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value.trim())) {
            result.insert(name, value);
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn only_a_post_can_be_another_method() {
        for (wire, wanted, expected) in [
            ("POST", "PROPFIND", "PROPFIND"),
            ("POST", "propfind", "propfind"),
            ("POST", "", "POST"),
            ("GET", "DELETE", "GET"),
        ] {
            let request = TestRequest::default()
                .method(wire.parse().expect("a method"))
                .insert_header(("X-HTTP-Method-Override", wanted))
                .to_http_request();
            assert_eq!(Incoming::read(&request).method, expected, "{wire} {wanted}");
        }
    }

    #[test]
    fn overrides_replace_and_create_headers() {
        let request = TestRequest::default()
            .insert_header(("Depth", "0"))
            .append_header(("X-Override", "Depth : 1, 2"))
            .append_header(("X-Override", "Authorization:Bearer a:b"))
            .append_header(("X-Override", ":x"))
            .append_header(("X-Override", "nothing"))
            .to_http_request();
        let incoming = Incoming::read(&request);
        assert_eq!(incoming.header("depth"), Some("1, 2"));
        assert_eq!(incoming.header("authorization"), Some("Bearer a:b"));
        assert_eq!(incoming.header("nothing"), None);
    }

    #[test]
    fn a_trace_is_read_from_what_was_sent() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let read = |headers: &[(&'static str, &str)]| {
            let request = TestRequest::default();
            let request = headers.iter().fold(request, |request, header| request.append_header(*header));
            Incoming::read(&request.to_http_request()).trace.map(|t| (t.parent(), t.state().map(str::to_owned)))
        };
        let (traced, states) = (("traceparent", parent), [("tracestate", "a=1"), ("tracestate", "b=2")]);
        assert_eq!(read(&[traced, states[0], states[1]]), Some((parent.to_owned(), Some("a=1,b=2".to_owned()))));
        assert_eq!(read(&[traced]), Some((parent.to_owned(), None)));
        assert_eq!(read(&[traced, traced]), None, "two of them are none");
        assert_eq!(read(&[("traceparent", "00-1-2-3"), states[0]]), None);
        assert_eq!(read(&[("x-override", &format!("traceparent: {parent}"))]), None);
    }

    #[test]
    fn a_forwarded_host_keeps_the_port() {
        let request = TestRequest::default()
            .uri("/x?y=z")
            .insert_header(("Host", "unit:8443"))
            .insert_header(("X-Forwarded-Host", "other"))
            .insert_header(("X-Forwarded-Path", "/cell/__export?a=b"))
            .to_http_request();
        let incoming = Incoming::read(&request);
        assert_eq!((incoming.authority.as_str(), incoming.raw_authority.as_str()), ("other:8443", "unit:8443"));
        assert_eq!((incoming.path.as_str(), incoming.query.as_str()), ("/cell/__export", "y=z"));
    }
}
