//! The way to the collector: OTLP over HTTP, in batches, on a thread of its own. Nobody waits for it; what it does not
//! take in time is dropped.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use opentelemetry::KeyValue;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{ExporterBuildError, Protocol, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider};
use secrecy::ExposeSecret;

use crate::error_chain::Chain;
use crate::limits;
use crate::settings::TraceSettings;

/// Starts the thread.
///
/// # Errors
/// When the endpoint or a header cannot be used.
pub(super) fn start(
    service: &'static str,
    endpoint: &str,
    settings: &TraceSettings,
) -> Result<SdkTracerProvider, ExporterBuildError> {
    let headers = settings.headers.iter().map(|(name, value)| (name.clone(), value.expose_secret().to_owned()));
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Collector::new())
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(endpoint)
        .with_headers(headers.collect::<HashMap<_, _>>())
        .with_timeout(limits::SPANS_SEND)
        // While one batch is tried again the next ones would be dropped.
        .with_retry_policy(RetryPolicy::disabled())
        .build()?;
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(limits::SPANS_WAITING)
        .with_max_export_batch_size(limits::SPANS_AT_ONCE)
        .with_scheduled_delay(limits::SPANS_PAUSE)
        .build();
    Ok(SdkTracerProvider::builder()
        .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build())
        .with_resource(resource(service, settings))
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.share))))
        .build())
}

/// Who sends. The name that is set goes before the one among the attributes, and the program's is the last resort.
fn resource(service: &'static str, settings: &TraceSettings) -> Resource {
    let mut attributes = vec![
        KeyValue::new("service.name", service),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", uuid::Uuid::new_v4().to_string()),
    ];
    attributes.extend(settings.resource.iter().map(|(name, value)| KeyValue::new(name.clone(), value.clone())));
    attributes.extend(settings.service.iter().map(|name| KeyValue::new("service.name", name.clone())));
    // Of two values for one name the later one counts.
    Resource::builder_empty().with_attributes(attributes).build()
}

/// Says once that the collector is away, and once that it is back.
#[derive(Debug)]
struct Collector {
    agent: ureq::Agent,
    away: AtomicBool,
}

/// Why spans were not taken.
#[derive(Debug, thiserror::Error)]
enum NotTaken {
    #[error("the collector cannot be reached")]
    Unreachable(#[from] ureq::Error),
    #[error("the collector answered {0}")]
    Refused(u16),
}

impl Collector {
    fn new() -> Self {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(limits::SPANS_SEND))
            // Credentials go where they were meant to go.
            .max_redirects(0)
            .http_status_as_error(false)
            .build();
        Self { agent: agent.new_agent(), away: AtomicBool::new(false) }
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, NotTaken> {
        let answer = self.agent.run(request.map(Vec::from))?;
        let (head, mut body) = answer.into_parts();
        let body = body.with_config().limit(limits::SPANS_ANSWER).read_to_vec()?;
        match head.status.is_success() {
            true => Ok(Response::from_parts(head, body.into())),
            false => Err(NotTaken::Refused(head.status.as_u16())),
        }
    }
}

#[async_trait]
impl HttpClient for Collector {
    /// Blocks: the thread that sends spans does nothing else.
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let sent = self.send(request);
        match &sent {
            Ok(_) if self.away.swap(false, Relaxed) => tracing::info!("the collector takes traces again"),
            Err(error) if !self.away.swap(true, Relaxed) => {
                tracing::warn!(error = %Chain(error), "traces are not taken, dropping them until they are");
            }
            Ok(_) | Err(_) => {}
        }
        Ok(sent?)
    }
}
