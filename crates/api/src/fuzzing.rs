//! For the fuzz targets: what reads a request's body and headers, and what must hold whatever it reads.

use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::test::TestRequest;
use actix_web::{FromRequest, web};
use chrono::{DateTime, Utc};
use model::limits;

use crate::auth;
use crate::common::incoming::Incoming;
use crate::ranges::{self, Wanted};
use crate::webdav::propfind;

/// Reads a `Range` header for a file of some size.
///
/// # Panics
/// When bytes would be sent that the file does not have, or more of them than it has.
pub fn range(header: &[u8], size: u64) {
    let Ok(value) = HeaderValue::from_bytes(header) else { return };
    let request = TestRequest::default().insert_header((HeaderName::from_static("range"), value)).to_http_request();
    let ranges = match ranges::wanted(&Incoming::read(&request), "\"1-5\"", DateTime::<Utc>::UNIX_EPOCH, size) {
        Wanted::Whole | Wanted::Unsatisfiable => return,
        Wanted::One(range) => vec![range],
        Wanted::Several(ranges) => {
            assert!((2..=limits::RANGES).contains(&ranges.len()), "{ranges:?}");
            ranges
        }
    };
    assert!(ranges.iter().all(|range| range.start < range.end && range.end <= size), "{ranges:?} of {size}");
    assert!(ranges.iter().map(|range| range.end - range.start).sum::<u64>() <= size, "{ranges:?} of {size}");
}

/// Reads the credentials of a request: two header fields, each alone, and the query.
///
/// # Panics
/// When somebody is taken for the unit master, or a token for one of another cell or of another unit.
pub fn credentials(authorization: &[u8], cookie: &[u8], query: &[u8]) {
    auth::fuzzing::request(authorization, cookie, &String::from_utf8_lossy(query));
    let text = String::from_utf8_lossy(authorization);
    auth::fuzzing::token(text.strip_prefix("Bearer ").unwrap_or(&text));
}

/// Reads the body of a PROPFIND; says whether it was taken.
pub async fn propfind(body: Vec<u8>) -> bool {
    let request = TestRequest::default()
        .insert_header((HeaderName::from_static("depth"), HeaderValue::from_static("1")))
        .insert_header((HeaderName::from_static("content-length"), HeaderValue::from(body.len())))
        .set_payload(body);
    let (request, mut payload) = request.to_http_parts();
    match web::Payload::from_request(&request, &mut payload).await {
        Ok(mut payload) => propfind::read(&Incoming::read(&request), &mut payload).await.is_ok(),
        Err(_) => false,
    }
}
