//! What a process tells of itself: lines on standard error, traces, logs and metrics over OTLP, and metrics as
//! Prometheus reads them.
//!
//! ```text
//!   tracing spans and events ──▶ subscriber ─┬─▶ standard error (RUST_LOG)
//!     (every crate)                          └─▶ late ─▶ queues ─▶ OTLP exporters      once [`Telemetry::export`] says where
//!   samples ─▶ board ─┬─▶ text for Prometheus
//!     (coordinator)   └─▶ OTLP metrics
//! ```
//! The other crates only write spans and events. What is exported goes through bounded queues that drop what they
//! can't hold, on threads of their own: a collector that is away or hangs slows nothing. A span that nobody wants
//! costs a look at a flag.

mod endpoint;
mod export;
mod http;
mod late;
mod metrics;
mod placed;

pub use endpoint::{Endpoint, Protocol};
pub use export::{ExportError, Exporting, SHUTDOWN};
pub use metrics::{Board, Family, Kind, Sample, Unit, text};
pub use placed::{PARENT, SELF};

use late::Late;
use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};
use tracing::{Metadata, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt, dynamic_filter_fn},
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
    util::SubscriberInitExt,
};

/// The subscriber of this process.
#[derive(Clone, Debug)]
pub struct Telemetry {
    late: Late,
}

impl Telemetry {
    /// Sends what `RUST_LOG` lets through (by default warnings and errors) to standard error. Nothing is exported
    /// yet.
    ///
    /// # Panics
    /// When the process has a subscriber already.
    pub fn install() -> Telemetry {
        let late = Late::default();
        tracing_subscriber::registry()
            .with(late.clone().with_filter(late.clone()))
            .with(lines())
            .init();
        Telemetry { late }
    }

    /// Begins to export, from here on. What comes back ends it.
    ///
    /// # Errors
    /// [`ExportError`] when an exporter can't be made. That the collector can't be reached is none: that is only
    /// said.
    pub fn export(&self, settings: Settings) -> Result<Exporting, ExportError> {
        export::begin(&self.late, settings)
    }
}

/// Where to export to, and what.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The collector.
    pub endpoint: Endpoint,
    /// Spans of single operations, too: of every collective and every read of the store.
    pub operations: bool,
    /// Attributes of this process, beside those that the environment gives.
    pub resource: Vec<(&'static str, String)>,
    /// Metrics, and what is known of them.
    pub metrics: Option<(&'static [Family], Board)>,
}

/// Lines on standard error.
fn lines<S>() -> impl Layer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let wanted = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    let once = dynamic_filter_fn(first_of_its_kind()).with_max_level_hint(LevelFilter::TRACE);
    tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .log_internal_errors(false)
        .with_filter(wanted.and(once))
}

/// The exporters repeat the same complaint with every batch while a collector is away: each kind is told once.
fn first_of_its_kind<S>() -> impl Fn(&Metadata<'_>, &Context<'_, S>) -> bool {
    let told = Mutex::new(BTreeSet::new());
    move |metadata, _| {
        if !metadata.target().starts_with("opentelemetry") {
            return true;
        }
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        told.insert(metadata.name().to_owned())
    }
}
