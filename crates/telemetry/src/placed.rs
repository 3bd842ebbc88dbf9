//! Spans whose place in a trace is known beforehand: it came from another process, or another process is told.
//!
//! A crate that knows of tracing alone gives a span its place by two fields, both in the form of W3C's
//! `traceparent`. They aren't exported.

use opentelemetry::{
    Context, Value,
    trace::{SpanBuilder, SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, Tracer},
};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SdkTracer};
use std::{borrow::Cow, cell::Cell};

/// The field that says whose child a span is, wherever its parent is.
pub const PARENT: &str = "trace.parent";
/// The field that says what a span itself is called.
pub const SELF: &str = "trace.self";

thread_local! {
    /// What the next span of this thread is called.
    static NEXT: Cell<Option<(TraceId, SpanId)>> = const { Cell::new(None) };
}

/// A tracer that puts spans where they say that they are.
#[derive(Clone, Debug)]
pub(crate) struct Placed(pub(crate) SdkTracer);

impl Tracer for Placed {
    type Span = opentelemetry_sdk::trace::Span;

    fn build_with_context(&self, mut builder: SpanBuilder, parent: &Context) -> Self::Span {
        let parent = match take(&mut builder, PARENT) {
            Some((trace, span)) => {
                let remote =
                    SpanContext::new(trace, span, TraceFlags::SAMPLED, true, Default::default());
                Cow::Owned(Context::new().with_remote_span_context(remote))
            }
            None => Cow::Borrowed(parent),
        };
        NEXT.set(take(&mut builder, SELF));
        let span = self.0.build_with_context(builder, &parent);
        NEXT.set(None);
        span
    }
}

/// Gives spans the names that they are to have, and any others to the rest.
#[derive(Debug, Default)]
pub(crate) struct Names(RandomIdGenerator);

impl IdGenerator for Names {
    fn new_trace_id(&self) -> TraceId {
        let next = NEXT.get().map(|(trace, _)| trace);
        next.unwrap_or_else(|| self.0.new_trace_id())
    }

    fn new_span_id(&self) -> SpanId {
        let next = NEXT.get().map(|(_, span)| span);
        next.unwrap_or_else(|| self.0.new_span_id())
    }
}

/// Takes a field out of those that a span has.
fn take(builder: &mut SpanBuilder, name: &str) -> Option<(TraceId, SpanId)> {
    let attributes = builder.attributes.as_mut()?;
    let at = attributes.iter().position(|a| a.key.as_str() == name)?;
    let taken = attributes.swap_remove(at);
    match &taken.value {
        Value::String(text) => parse(text.as_str()),
        _ => None,
    }
}

/// The trace and the span of a `traceparent`, `00-<32 digits>-<16 digits>-<2 digits>`.
fn parse(text: &str) -> Option<(TraceId, SpanId)> {
    let mut parts = text.split('-').skip(1);
    let trace = TraceId::from_hex(parts.next()?).ok()?;
    let span = SpanId::from_hex(parts.next()?).ok()?;
    (trace != TraceId::INVALID && span != SpanId::INVALID).then_some((trace, span))
}
