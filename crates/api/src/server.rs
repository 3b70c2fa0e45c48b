//! The HTTP server: connections of our own below the server library, one service above it.

use std::net::{SocketAddr, TcpListener};

use actix_http::{HttpService, Request};
use actix_service::{IntoServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_web::dev::{AppConfig, Extensions, Server};
use actix_web::web::Data;
use actix_web::{App, web};
use model::limits;
use tokio::net::TcpStream;

use crate::connection::Connection;
use crate::front;
use crate::state::State;

/// Starts to listen.
///
/// # Errors
/// When the listener cannot be used.
pub(crate) fn listen(listener: TcpListener, state: Data<State>) -> std::io::Result<Server> {
    let address = listener.local_addr()?;
    let builder = Server::build()
        .workers(limits::HTTP_THREADS)
        .max_concurrent_connections(limits::CONNECTIONS_PER_THREAD)
        .shutdown_timeout(limits::DRAIN.as_secs())
        .disable_signals();
    let ending = builder.graceful_shutdown_signal();
    let listening = builder.listen("api", listener, move || {
        let ending = ending.clone();
        // One service for everything: methods beyond HTTP's own, overrides of methods and a fixed order of checks do
        // not fit a router.
        let app = App::new().app_data(state.clone()).default_service(web::to(front::answer));
        let app = IntoServiceFactory::<_, Request>::into_factory(app).map_err(|error| error.error_response());
        let http = HttpService::build()
            .graceful_shutdown_signal(move || {
                let ending = ending.clone();
                async move { ending.notified().await }
            })
            .keep_alive(limits::KEEP_ALIVE)
            .client_request_timeout(limits::REQUEST_HEAD)
            .client_disconnect_timeout(limits::DISCONNECT)
            .local_addr(address)
            .on_connect_ext(|connection: &Connection, data: &mut Extensions| {
                data.insert(connection.line());
            })
            .h1(map_config(app, |()| AppConfig::default()));
        fn_service(async |stream: TcpStream| Ok(opened(stream))).and_then(http)
    });
    Ok(listening?.run())
}

/// A new connection, and whose it is.
fn opened(stream: TcpStream) -> (Connection, Option<SocketAddr>) {
    // The end of an answer does not wait until the client has acknowledged what came before.
    let _ = stream.set_nodelay(true);
    let peer = stream.peer_addr().ok();
    (Connection::new(stream), peer)
}
