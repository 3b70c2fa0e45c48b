//! Clients that ask for a large answer and do not take it.
//!
//! The server library waits for a client for ever: a task beside the answer looks how much of it is taken, and ends the
//! connection when that is too little.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::body::{BodySize, MessageBody};
use actix_web::http::header::CONTENT_LENGTH;
use model::limits;
use tokio_util::task::AbortOnDropHandle;

use crate::connection::Line;
use crate::held;

/// Ends the connection when, over a `window`, less than [`limits::DOWNLOAD_RATE`] of the answer was taken, or nothing of a
/// stream of events. Short answers are not watched.
pub(crate) fn watch(response: HttpResponse, line: Option<Line>, window: Duration) -> HttpResponse {
    let Some(line) = line else { return response };
    let (window, least) = match length(&response) {
        BodySize::Sized(size) if size > limits::DOWNLOAD_UNWATCHED => {
            (window, (limits::DOWNLOAD_RATE as f64 * window.as_secs_f64()) as u64)
        }
        // Events: there is always something to take.
        BodySize::Stream => (limits::EVENTS_TAKEN, 1),
        BodySize::Sized(_) | BodySize::None => return response,
    };
    let watching = actix_web::rt::spawn(end_when_slow(line, window, least));
    held::until_sent(response, AbortOnDropHandle::new(watching))
}

/// A file that the kernel sends is a stream to the server library; its head says how long it is.
fn length(response: &HttpResponse) -> BodySize {
    let said = response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    said.map_or(response.body().size(), BodySize::Sized)
}

async fn end_when_slow(line: Line, window: Duration, least: u64) {
    let mut before = line.taken();
    loop {
        tokio::time::sleep(window).await;
        let now = line.taken();
        if now - before < least {
            tracing::info!(taken = now, "a client takes its answer too slowly, ending the connection");
            // What is in the way to the client is lost with the rest: it can ask for that again, by range.
            line.end();
            return;
        }
        before = now;
    }
}
