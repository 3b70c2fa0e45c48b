//! Reading request bodies: bounded in size and in time.

use actix_web::http::header::{CONTENT_TYPE, HeaderMap};
use actix_web::web::Payload;
use encoding_rs::{Encoding, UTF_8};
use futures_util::StreamExt;
use model::error_code::ErrorCode;
use model::limits;
use model::snapshot_name::{self, SnapshotName};
use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};

use crate::error::ApiError;

/// Reads a body of at most `longest` bytes.
///
/// # Errors
/// 413 when it is longer, 408 when it takes too long, 500 PR500-CM-0001 when the connection breaks.
pub(crate) async fn read(payload: &mut Payload, longest: usize) -> Result<Vec<u8>, ApiError> {
    let until = Instant::now() + limits::BODY_TOTAL;
    let mut body = Vec::new();
    loop {
        let next = timeout_at(until, timeout(limits::BODY_IDLE, payload.next())).await;
        let piece = match next {
            Ok(Ok(piece)) => piece,
            Ok(Err(_)) | Err(_) => return Err(ErrorCode::BodyTimeout.into()),
        };
        match piece {
            None => return Ok(body),
            Some(Ok(piece)) if body.len() + piece.len() <= longest => body.extend_from_slice(&piece),
            Some(Ok(_)) => return Err(ApiError::with(ErrorCode::BodyTooLarge, &[&longest.to_string()])),
            Some(Err(_)) => return Err(ErrorCode::BodyRead.into()),
        }
    }
}

/// Decodes a JSON body with the `charset` of its Content-Type, UTF-8 when there is none.
///
/// # Errors
/// 415 for a charset nobody knows, 400 PR400-CM-0004 for bytes that are none of its characters.
pub(crate) fn text(headers: &HeaderMap, body: &[u8]) -> Result<String, ApiError> {
    let no_text = || ApiError::with(ErrorCode::JsonParse, &[&String::from_utf8_lossy(body)]);
    decoded(headers, body)?.ok_or_else(no_text)
}

/// Decodes a body with the `charset` of its Content-Type, UTF-8 when there is none; nothing when the bytes are none of
/// its characters.
///
/// # Errors
/// 415 for a charset nobody knows.
pub(crate) fn decoded(headers: &HeaderMap, body: &[u8]) -> Result<Option<String>, ErrorCode> {
    let encoding = match charset(headers) {
        None => UTF_8,
        Some(label) => Encoding::for_label(label.as_bytes()).ok_or(ErrorCode::MediaType)?,
    };
    // A byte order mark is not part of JSON; it stays and is refused there.
    Ok(encoding.decode_without_bom_handling_and_without_replacement(body).map(|text| text.into_owned()))
}

/// Reads the snapshot name in the body of an export or import; nothing when it has none.
///
/// # Errors
/// 400 for a text that is no JSON object, and for a name that does not follow its pattern.
pub(crate) fn snapshot_name(text: &str) -> Result<Option<SnapshotName>, ApiError> {
    let no_object = || ApiError::with(ErrorCode::JsonParse, &[text]);
    let Value::Object(fields) = serde_json::from_str(text).map_err(|_| no_object())? else { return Err(no_object()) };
    let name = match fields.get("Name") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(name)) => SnapshotName::parse(name),
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => None,
    };
    let bad = || ApiError::with(ErrorCode::FieldFormat, &["Name", snapshot_name::PATTERN]);
    name.map(Some).ok_or_else(bad)
}

fn charset(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    value.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"').to_owned())
    })
}
