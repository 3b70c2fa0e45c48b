//! Spans: what a collector is told of a request, of an attempt and of its phases. Few, and apart from the log, which has
//! its own words for the same.

use std::borrow::Cow;

use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer,
};
use opentelemetry::{Context, Value};

use crate::trace_context::TraceContext;

/// Name of the instrumentation.
const TRACER: &str = "cell-export";

/// A span that ends when it is dropped. Without a collector it is nothing but the context it was given, which is passed
/// on all the same.
#[derive(Debug, Default)]
pub struct TraceSpan(Context);

impl TraceSpan {
    /// A request that is answered, below what its client says.
    pub fn request(name: impl Into<Cow<'static, str>>, parent: Option<&TraceContext>) -> Self {
        Self::begin(name.into(), SpanKind::Server, &outer(parent))
    }

    /// An attempt at a job, below the request that asked for it.
    pub fn attempt(name: impl Into<Cow<'static, str>>, parent: Option<&TraceContext>) -> Self {
        Self::begin(name.into(), SpanKind::Consumer, &outer(parent))
    }

    /// A phase of this span; nothing when this one is nothing.
    pub fn phase(&self, name: &'static str) -> Self {
        if !self.0.span().span_context().is_valid() {
            return Self::default();
        }
        Self::begin(name.into(), SpanKind::Internal, &self.0)
    }

    fn begin(name: Cow<'static, str>, kind: SpanKind, parent: &Context) -> Self {
        let tracer = opentelemetry::global::tracer(TRACER);
        let span = tracer.span_builder(name).with_kind(kind).start_with_context(&tracer, parent);
        Self(parent.with_span(span))
    }

    /// Gives it its name when more is known.
    pub fn rename(&self, name: impl Into<Cow<'static, str>>) {
        self.0.span().update_name(name);
    }

    /// Sets an attribute.
    pub fn set(&self, name: &'static str, value: impl Into<Value>) {
        self.0.span().set_attribute(opentelemetry::KeyValue::new(name, value));
    }

    /// Says that it failed, and why: for operators, never shown to clients.
    pub fn fail(&self, why: impl Into<Cow<'static, str>>) {
        self.0.span().set_status(Status::error(why));
    }

    /// Ends it before it is dropped.
    pub fn end(&self) {
        self.0.span().end();
    }

    /// What others have to know to go on with the trace; nothing when there is none.
    pub fn context(&self) -> Option<TraceContext> {
        let span = self.0.span();
        let known = span.span_context();
        let number = |bytes: [u8; 8]| u64::from_be_bytes(bytes);
        let state = Some(known.trace_state().header()).filter(|state| !state.is_empty());
        let trace = u128::from_be_bytes(known.trace_id().to_bytes());
        TraceContext::new(trace, number(known.span_id().to_bytes()), known.trace_flags().to_u8(), state)
    }

    /// Number of the trace, as collectors show it, for the log.
    pub fn trace_id(&self) -> Option<String> {
        self.context().map(|context| format!("{:032x}", context.trace()))
    }
}

impl Drop for TraceSpan {
    fn drop(&mut self) {
        self.end();
    }
}

/// A span of somebody else, as the library has it.
fn outer(parent: Option<&TraceContext>) -> Context {
    let Some(parent) = parent else { return Context::new() };
    let state: Option<TraceState> = parent.state().and_then(|state| state.parse().ok());
    Context::new().with_remote_span_context(SpanContext::new(
        TraceId::from(parent.trace()),
        SpanId::from(parent.span()),
        TraceFlags::new(parent.flags()),
        true,
        state.unwrap_or_default(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_collector_the_context_is_passed_on_as_it_came() {
        let parent = TraceContext::read("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Some("a=b"));
        let span = TraceSpan::request("POST", parent.as_ref());
        assert_eq!(span.context(), parent);
        assert_eq!(span.phase("read").context(), parent);
        assert_eq!(span.trace_id().as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
        assert_eq!(TraceSpan::attempt("export", None).context(), None);
    }
}
