//! Clients that ask for a large answer and do not take it.
//!
//! The server library waits for a client for ever, and while it waits it asks the body for nothing: so the body only
//! counts what was taken of it, and a task beside it ends the connection when that is too little.

use std::any::Any;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::Extensions;
use actix_web::web::Bytes;
use model::limits;
use tokio::net::TcpStream;

/// The connection of a request, to be ended from outside.
#[derive(Debug, Clone)]
pub(crate) struct Line(Arc<OwnedFd>);

/// Keeps a handle on a new connection for its requests.
pub(crate) fn remember(connection: &dyn Any, data: &mut Extensions) {
    let handle = connection.downcast_ref::<TcpStream>().and_then(|stream| stream.as_fd().try_clone_to_owned().ok());
    if let Some(handle) = handle {
        data.insert(Line(Arc::new(handle)));
    }
}

/// Ends the connection when, over a `window`, less than [`limits::DOWNLOAD_RATE`] of the answer was taken, or nothing of a
/// stream of events. Short answers are not watched.
pub(crate) fn watch(response: HttpResponse, line: Option<&Line>, window: Duration) -> HttpResponse {
    let Some(line) = line.cloned() else { return response };
    let (window, least) = match response.body().size() {
        BodySize::Sized(size) if size > limits::DOWNLOAD_UNWATCHED => {
            (window, (limits::DOWNLOAD_RATE as f64 * window.as_secs_f64()) as u64)
        }
        // Events: there is always something to take.
        BodySize::Stream => (limits::EVENTS_TAKEN, 1),
        BodySize::Sized(_) | BodySize::None => return response,
    };
    let taken = Arc::new(AtomicU64::new(0));
    let watching = Watching(actix_web::rt::spawn(end_when_slow(line, Arc::clone(&taken), window, least)));
    response.map_body(|_, body| Watched { body, taken, _watching: watching }.boxed())
}

async fn end_when_slow(line: Line, taken: Arc<AtomicU64>, window: Duration, least: u64) {
    let mut before = 0;
    loop {
        tokio::time::sleep(window).await;
        let now = taken.load(Relaxed);
        if now - before < least {
            tracing::info!(taken = now, "a client takes its answer too slowly, ending the connection");
            // What is in the way to the client is lost with the rest: it can ask for that again, by range.
            let _ = rustix::net::shutdown(&line.0, rustix::net::Shutdown::Both);
            return;
        }
        before = now;
    }
}

/// The task ends with the body.
struct Watching(actix_web::rt::task::JoinHandle<()>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Watched {
    body: BoxBody,
    taken: Arc<AtomicU64>,
    _watching: Watching,
}

impl MessageBody for Watched {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_next(context);
        if let Poll::Ready(Some(Ok(piece))) = &polled {
            self.taken.fetch_add(piece.len() as u64, Relaxed);
        }
        polled
    }
}
