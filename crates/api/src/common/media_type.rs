//! `Accept` and `Content-Type`: whether they can be read. What they say has no effect: every answer has one form.

use actix_web::http::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use model::error_code::ErrorCode;

use crate::error::ApiError;

/// Refuses an Accept that is not ASCII.
pub(crate) fn check_accept_is_ascii(headers: &HeaderMap) -> Result<(), ApiError> {
    match headers.get_all(ACCEPT).find(|value| !value.as_bytes().is_ascii()) {
        None => Ok(()),
        Some(value) => {
            let value = String::from_utf8_lossy(value.as_bytes());
            Err(ApiError::with(ErrorCode::HeaderValue, &["Accept", &value]))
        }
    }
}

/// Refuses an Accept or Content-Type that names no media type.
pub(crate) fn check(headers: &HeaderMap) -> Result<(), ApiError> {
    for value in headers.get_all(ACCEPT) {
        let value = value.to_str().unwrap_or_default();
        // Java's own client sends a lone `*`.
        let readable = |range: &str| range.trim().is_empty() || first(range) == "*" || is_media_type(first(range));
        if !value.split(',').all(readable) {
            return Err(ApiError::with(ErrorCode::NotAcceptable, &[value]));
        }
    }
    match headers.get(CONTENT_TYPE).map(|v| String::from_utf8_lossy(v.as_bytes())) {
        Some(value) if !value.is_empty() && !is_media_type(first(&value)) => {
            Err(ApiError::with(ErrorCode::HeaderValue, &["Content-Type", &value]))
        }
        Some(_) | None => Ok(()),
    }
}

fn first(value: &str) -> &str {
    value.split(';').next().unwrap_or_default().trim()
}

fn is_media_type(text: &str) -> bool {
    // RFC 9110, section 5.6.2: token.
    let token =
        |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    text.split_once('/').is_some_and(|(kind, subtype)| token(kind) && token(subtype))
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn checked(name: actix_web::http::header::HeaderName, value: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).expect("a value"));
        check(&headers).is_ok()
    }

    #[test]
    fn what_clients_really_send_is_accepted() {
        for good in [
            "*/*",
            "application/json",
            "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2",
            "text/html,application/xhtml+xml;q=0.9",
            "",
        ] {
            assert!(checked(ACCEPT, good), "{good}");
        }
        for good in ["application/json", "text/plain;charset=UTF-8", ""] {
            assert!(checked(CONTENT_TYPE, good), "{good}");
        }
    }

    #[test]
    fn what_names_no_media_type_is_refused() {
        for bad in ["foo", "a/b/c", "text/", "text/html, foo"] {
            assert!(!checked(ACCEPT, bad), "{bad}");
        }
        for bad in ["garbage", "application / json", "*"] {
            assert!(!checked(CONTENT_TYPE, bad), "{bad}");
        }
    }
}
