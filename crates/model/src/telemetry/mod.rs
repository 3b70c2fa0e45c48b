//! What a service tells of itself: a log always, traces when there is a collector for them.

mod collector;
mod log;
mod span;

use opentelemetry_sdk::trace::SdkTracerProvider;

pub use span::TraceSpan;

use crate::error_chain::Chain;
use crate::limits;
use crate::settings::{LogSettings, TraceSettings};

/// Telemetry of a process, until it ends.
#[derive(Debug)]
pub struct Telemetry(Option<SdkTracerProvider>);

impl Telemetry {
    /// Starts logging, and sending spans if there is an endpoint for them. `service` is the program's name. To be called
    /// once in a process.
    pub fn start(service: &'static str, log: &LogSettings, traces: &TraceSettings) -> Self {
        log::start(log);
        let Some(endpoint) = &traces.endpoint else { return Self(None) };
        match collector::start(service, endpoint, traces) {
            Ok(provider) => {
                opentelemetry::global::set_tracer_provider(provider.clone());
                Self(Some(provider))
            }
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "cannot send traces, going on without");
                Self(None)
            }
        }
    }

    /// Sends what is left, for no longer than [`limits::SPANS_END`]. Blocks: for the end of a process.
    pub fn end(self) {
        if let Some(provider) = self.0 {
            // What went wrong was said when it did.
            let _ = provider.shutdown_with_timeout(limits::SPANS_END);
        }
    }
}
