//! Answers that are given before the request's body was read to its end.
//!
//! As long as the body is there, the server library closes the connection after the answer: it says so in the answer,
//! throws away what still comes for [`limits::DISCONNECT`](model::limits::DISCONNECT), so that the client gets the
//! answer and not a reset, and closes. Once the body is dropped, it reads a chunked one to its end instead, however
//! long that lasts.

use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::HttpResponse;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev;
use actix_web::web::{Bytes, Payload};

/// Keeps what was not read of a request until its answer is sent. Costs nothing when all was read.
pub(crate) fn keep(payload: Payload, response: HttpResponse) -> HttpResponse {
    let rest = payload.into_inner();
    if matches!(rest, dev::Payload::None) {
        return response;
    }
    response.map_body(|_, body| Kept { body, _rest: rest }.boxed())
}

struct Kept {
    body: BoxBody,
    _rest: dev::Payload,
}

impl MessageBody for Kept {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(context)
    }
}
