//! Answers that are given before the request's body was read to its end.
//!
//! As long as the body is there, the server library closes the connection after the answer: it says so in the answer,
//! throws away what still comes for [`limits::DISCONNECT`](model::limits::DISCONNECT), so that the client gets the
//! answer and not a reset, and closes. Once the body is dropped, it reads a chunked one to its end instead, however
//! long that lasts.

use actix_web::web::Payload;
use actix_web::{HttpResponse, dev};

use crate::held;

/// Keeps what was not read of a request until its answer is sent. Costs nothing when all was read.
pub(crate) fn keep(payload: Payload, response: HttpResponse) -> HttpResponse {
    let rest = payload.into_inner();
    if matches!(rest, dev::Payload::None) {
        return response;
    }
    held::until_sent(response, rest)
}
