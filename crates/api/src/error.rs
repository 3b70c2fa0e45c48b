//! Errors as clients see them. One exhaustive way from each kind of failure to a code.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use model::error_chain::Chain;
use model::error_code::{ErrorBody, ErrorCode};
use model::job::JobKind;
use model::settings::UnitSettings;
use model::store::{FaultClass, StoreError};
use serde_json::json;

/// Media type of a problem document (RFC 9457, section 3).
const PROBLEM: &str = "application/problem+json";

/// An error answer.
#[derive(Debug)]
pub(crate) struct ApiError {
    code: ErrorCode,
    body: ErrorBody,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl ApiError {
    /// An error with the parameters of its message.
    pub(crate) fn with(code: ErrorCode, parameters: &[&str]) -> Self {
        Self::of(code, code.with(parameters))
    }

    /// An error whose document was made elsewhere.
    pub(crate) fn of(code: ErrorCode, body: ErrorBody) -> Self {
        Self { code, body, headers: Vec::new() }
    }

    /// An error that may be over in some seconds.
    pub(crate) fn for_now(code: ErrorCode, seconds: &str) -> Self {
        Self::from(code).header(RETRY_AFTER, seconds)
    }

    /// The refusal because of an active job of this kind.
    pub(crate) fn busy(kind: JobKind) -> Self {
        Self::with(ErrorCode::CellBusy, &[kind.activity()])
    }

    /// Adds a header field, also one of a name that is there already; one that cannot be written is left out.
    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    /// The answer: Personium's document, or a problem (RFC 9457) for a client that asks for one.
    pub(crate) fn response(self, request: &HeaderMap, unit: &UnitSettings) -> HttpResponse {
        let status = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = HttpResponse::build(status);
        for header in self.headers {
            response.append_header(header);
        }
        let mut ranges = request.get_all(ACCEPT).filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
        let wanted = |range: &str| range.split(';').next().is_some_and(|r| r.trim().eq_ignore_ascii_case(PROBLEM));
        if !ranges.any(wanted) {
            return response.content_type("application/json").body(self.body.to_json());
        }
        let problem = json!({
            "type": format!("{}openapi.html#{}", unit.url(), self.body.code),
            "title": status.canonical_reason().unwrap_or_default(),
            "status": status.as_u16(),
            "detail": self.body.message.value,
            "code": self.body.code,
        });
        response.content_type(PROBLEM).body(problem.to_string())
    }
}

impl From<ErrorCode> for ApiError {
    fn from(code: ErrorCode) -> Self {
        Self::with(code, &[])
    }
}

impl From<StoreError> for ApiError {
    /// Logs the failure, here and nowhere else, with all its causes; the client learns none of them.
    fn from(error: StoreError) -> Self {
        match error.class() {
            FaultClass::Transient | FaultClass::DiskFull => {
                tracing::warn!(error = %Chain(&error), "the database does not answer");
                Self::for_now(ErrorCode::DatastoreUnavailable, "5")
            }
            FaultClass::Permanent => {
                tracing::error!(error = %Chain(&error), "the database refuses");
                ErrorCode::DatastoreUnknown.into()
            }
        }
    }
}
