//! The internal port of a service: `/healthz` tells that the process lives, `/readyz` whether it can do its work, each
//! dependency by name, `/metrics` what it does, for Prometheus. For whoever runs the services; never to be reachable from outside.
//!
//! Dependencies are looked at in the background, so that probes cost the same however many there are.

use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use actix_web::{App, HttpResponse, HttpServer, web};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use crate::area::SnapshotArea;
use crate::{limits, metrics};

/// What is known of a service's dependencies. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    draining: AtomicBool,
    dependencies: Mutex<Vec<Dependency>>,
}

#[derive(Debug)]
struct Dependency {
    name: &'static str,
    required: bool,
    state: State,
    since: Instant,
}

/// What a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It can be used.
    Fine,
    /// It does not answer, or not in time.
    Away,
    /// It has no space.
    Full,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Away => "away",
            Self::Full => "full",
        }
    }
}

impl Readiness {
    /// Looks at a dependency every [`limits::LOOK`], in the background and for ever. A service is not ready without what
    /// it requires; of the rest the state is only told.
    pub fn watch<F: Future<Output = State> + Send + 'static>(
        &self,
        name: &'static str,
        required: bool,
        look: impl Fn() -> F + Send + Sync + 'static,
    ) {
        let place = {
            let mut dependencies = self.0.dependencies.lock().unwrap_or_else(PoisonError::into_inner);
            dependencies.push(Dependency { name, required, state: State::Away, since: Instant::now() });
            dependencies.len() - 1
        };
        let inner = Arc::clone(&self.0);
        tokio::spawn(async move {
            loop {
                let state = timeout(limits::LOOK_TIMEOUT, look()).await.unwrap_or(State::Away);
                inner.note(place, state);
                metrics::up(name, state == State::Fine);
                sleep(limits::LOOK).await;
            }
        });
    }

    /// Says that the service is about to end: it lives, but is to get no new work.
    pub fn drain(&self) {
        self.0.draining.store(true, Relaxed);
    }

    /// Tells whether the service is ready, and the document that says why.
    pub fn report(&self) -> (bool, Value) {
        let dependencies = self.0.dependencies.lock().unwrap_or_else(PoisonError::into_inner);
        let draining = self.0.draining.load(Relaxed);
        let ready = !draining && dependencies.iter().all(|d| !d.required || d.state == State::Fine);
        let states: Map<String, Value> =
            dependencies.iter().map(|d| (d.name.to_owned(), Value::from(d.state.name()))).collect();
        (ready, json!({"ready": ready, "draining": draining, "dependencies": states}))
    }
}

impl Inner {
    fn note(&self, place: usize, state: State) {
        let mut dependencies = self.dependencies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(dependency) = dependencies.get_mut(place)
            && dependency.state != state
        {
            let seconds = dependency.since.elapsed().as_secs();
            tracing::info!(
                dependency = dependency.name,
                from = dependency.state.name(),
                to = state.name(),
                seconds,
                "a dependency changed"
            );
            (dependency.state, dependency.since) = (state, Instant::now());
        }
    }
}

/// The state of something that is connected or is not.
pub async fn connection(is_there: bool) -> State {
    if is_there { State::Fine } else { State::Away }
}

/// The state of the bucket that snapshots are in.
pub async fn bucket(area: SnapshotArea) -> State {
    connection(area.answers().await).await
}

/// Looks whether there is space, where that can be told, in a thread: a dead mount hangs whoever asks it. One such thread at most.
pub fn space(
    area: &'static str,
    free: impl Fn() -> std::io::Result<Option<u64>> + Clone + Send + Sync + 'static,
) -> impl Fn() -> Pin<Box<dyn Future<Output = State> + Send>> + Send + Sync + 'static {
    let one_at_once = Arc::new(Semaphore::new(1));
    move || {
        let (free, one_at_once) = (free.clone(), Arc::clone(&one_at_once));
        Box::pin(async move {
            let Ok(permit) = one_at_once.acquire_owned().await else { return State::Away };
            let looking = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                free()
            });
            match looking.await {
                Ok(Ok(Some(bytes))) => {
                    metrics::free(area, bytes);
                    if bytes == 0 { State::Full } else { State::Fine }
                }
                Ok(Ok(None)) => State::Fine,
                Ok(Err(_)) | Err(_) => State::Away,
            }
        })
    }
}

/// What was recorded, for [`serve`]. From here on metrics are recorded in this process.
///
/// # Errors
/// When they are already.
pub fn record(service: &'static str) -> std::io::Result<PrometheusHandle> {
    let buckets = |builder: PrometheusBuilder, name: &str, buckets| {
        builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), buckets)
    };
    let builder = buckets(PrometheusBuilder::new(), metrics::HTTP, metrics::REQUEST_BUCKETS);
    let builder = builder.and_then(|builder| buckets(builder, metrics::DURATION, metrics::JOB_BUCKETS));
    let builder = builder.and_then(|builder| buckets(builder, metrics::QUEUE_WAIT, metrics::JOB_BUCKETS));
    let recorded = builder.and_then(PrometheusBuilder::install_recorder).map_err(std::io::Error::other)?;
    metrics::describe(service);
    Ok(recorded)
}

/// Opens the port and answers in the background, until the process ends. Returns the port that was opened.
///
/// # Errors
/// When the address is taken.
pub fn serve(listen: SocketAddr, readiness: Readiness, recorded: PrometheusHandle) -> std::io::Result<u16> {
    let listener = TcpListener::bind(listen)?;
    let port = listener.local_addr()?.port();
    let rendered = recorded.clone();
    // Values wait in memory until somebody asks, or this puts them in order.
    tokio::spawn(async move {
        loop {
            sleep(limits::MEASURE).await;
            recorded.run_upkeep();
        }
    });
    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::new(readiness.clone()))
            .app_data(web::Data::new(rendered.clone()))
            .route("/metrics", web::get().to(metrics_text))
            .route("/healthz", web::get().to(async || HttpResponse::Ok().body("ok\n")))
            .route("/readyz", web::get().to(ready))
    });
    let server = server
        .workers(1)
        .max_connections(limits::INTERNAL_CONNECTIONS)
        .keep_alive(limits::KEEP_ALIVE)
        .client_request_timeout(limits::REQUEST_HEAD)
        .disable_signals()
        .listen(listener)?
        .run();
    tokio::spawn(server);
    Ok(port)
}

async fn metrics_text(recorded: web::Data<PrometheusHandle>) -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(recorded.render())
}

async fn ready(readiness: web::Data<Readiness>) -> HttpResponse {
    let (ready, document) = readiness.report();
    let mut response = if ready { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    response.content_type("application/json").body(format!("{document}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_what_is_required_decides() {
        let readiness = Readiness::default();
        assert!(readiness.report().0, "nothing is needed");
        let away = Arc::new(AtomicBool::new(true));
        let state = Arc::clone(&away);
        readiness.watch("database", true, move || {
            let away = state.load(Relaxed);
            async move { if away { State::Away } else { State::Fine } }
        });
        readiness.watch("broker", false, || async { State::Full });
        readiness.watch("hanging", false, std::future::pending);
        sleep(limits::LOOK * 3).await;
        let (ready, document) = readiness.report();
        assert!(!ready);
        let expected = json!({"database": "away", "broker": "full", "hanging": "away"});
        assert_eq!(document["dependencies"], expected);
        away.store(false, Relaxed);
        sleep(limits::LOOK * 3).await;
        assert!(readiness.report().0, "{}", readiness.report().1);
        readiness.drain();
        assert_eq!((readiness.report().0, &readiness.report().1["draining"]), (false, &json!(true)));
    }
}
