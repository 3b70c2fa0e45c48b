//! `X-Personium-RequestKey`: a client's own mark on a request, for logs. Never echoed.

use actix_web::http::header::HeaderValue;
use model::error_code::ErrorCode;

/// Checks the key: letters, digits, `_` and `-`, at most 128 of them; an empty one is fine.
pub(crate) fn check(key: Option<&HeaderValue>) -> Result<(), ErrorCode> {
    let legal = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    match key.map(HeaderValue::as_bytes) {
        Some(key) if key.len() > 128 || !key.iter().all(legal) => Err(ErrorCode::RequestKey),
        Some(_) | None => Ok(()),
    }
}

/// The key for the log: the client's, or one made in the form units use (4 characters, `_`, 18 characters).
pub(crate) fn for_log(key: Option<&HeaderValue>) -> String {
    match key.and_then(|k| k.to_str().ok()).filter(|k| !k.is_empty()) {
        Some(key) => key.to_owned(),
        None => {
            let random = uuid::Uuid::new_v4().simple().to_string();
            format!("{}_{}", &random[..4], &random[4..22])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_follow_their_pattern() {
        let long = "k".repeat(128);
        for good in ["", "a-Z_9", &long] {
            assert!(check(Some(&HeaderValue::from_str(good).expect("a value"))).is_ok(), "{good}");
        }
        let longer = "k".repeat(129);
        for bad in ["a b", "a.b", "é", &longer] {
            assert!(check(Some(&HeaderValue::from_bytes(bad.as_bytes()).expect("a value"))).is_err(), "{bad}");
        }
        assert!(check(None).is_ok());
    }
}
