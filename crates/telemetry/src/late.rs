//! A layer that stands in the subscriber from the beginning and begins to work when it is known where to export to:
//! a launch knows it from its sweep file, a worker from its coordinator.

use crate::placed::Placed;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_sdk::logs::{SdkLogger, SdkLoggerProvider};
use std::{
    fmt,
    sync::{Arc, OnceLock},
};
use tracing::{
    Event, Level, Metadata,
    level_filters::LevelFilter,
    span::{Attributes, Id, Record},
    subscriber::Interest,
};
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::{
    Layer, Registry,
    layer::{Context, Filter},
};

/// Crates whose spans and events are ours. What the exporters' own libraries say must not be exported: it would
/// never end.
const OURS: &str = "polestar";

/// Where spans and events go.
pub(crate) struct Sinks {
    pub(crate) spans: OpenTelemetryLayer<Registry, Placed>,
    pub(crate) events: OpenTelemetryTracingBridge<SdkLoggerProvider, SdkLogger>,
    /// The finest level of spans.
    pub(crate) finest: Level,
}

/// The layer, and its filter: both see the same sinks.
#[derive(Clone, Default)]
pub(crate) struct Late(Arc<OnceLock<Sinks>>);

impl fmt::Debug for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exports = self.0.get().is_some();
        f.debug_struct("Late").field("exports", &exports).finish()
    }
}

impl Late {
    /// From now on spans and events go there. Returns whether they didn't go anywhere before.
    pub(crate) fn begin(&self, sinks: Sinks) -> bool {
        let first = self.0.set(sinks).is_ok();
        // What was found uninteresting is asked again.
        tracing::callsite::rebuild_interest_cache();
        first
    }

    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let Some(sinks) = self.0.get() else {
            return false;
        };
        let finest = match metadata.is_span() {
            true => sinks.finest,
            false => Level::INFO,
        };
        *metadata.level() <= finest && metadata.target().starts_with(OURS)
    }
}

impl Filter<Registry> for Late {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, Registry>) -> bool {
        self.wants(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        match self.wants(metadata) {
            true => Interest::always(),
            false => Interest::never(),
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match self.0.get() {
            Some(sinks) => LevelFilter::from_level(sinks.finest),
            None => LevelFilter::OFF,
        })
    }
}

impl Layer<Registry> for Late {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, Registry>) {
        if let Some(sinks) = self.0.get() {
            sinks.spans.on_new_span(attributes, id, context);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, Registry>) {
        if let Some(sinks) = self.0.get() {
            sinks.spans.on_record(id, values, context);
        }
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, context: Context<'_, Registry>) {
        if let Some(sinks) = self.0.get() {
            sinks.spans.on_follows_from(id, follows, context);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, Registry>) {
        if let Some(sinks) = self.0.get() {
            sinks.events.on_event(event, context);
        }
    }

    fn on_enter(&self, id: &Id, context: Context<'_, Registry>) {
        if let Some(sinks) = self.0.get() {
            sinks.spans.on_enter(id, context);
        }
    }

    fn on_exit(&self, id: &Id, context: Context<'_, Registry>) {
        if let Some(sinks) = self.0.get() {
            sinks.spans.on_exit(id, context);
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, Registry>) {
        if let Some(sinks) = self.0.get() {
            sinks.spans.on_close(id, context);
        }
    }
}
