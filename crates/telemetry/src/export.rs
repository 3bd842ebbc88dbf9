//! Exporters, their queues and their end.

use crate::{
    Protocol, Settings,
    http::Client,
    late::{Late, Sinks},
    placed::{Names, Placed},
};
use opentelemetry::{KeyValue, metrics::MeterProvider, trace::TracerProvider};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{
    ExporterBuildError, LogExporter, MetricExporter, SpanExporter, WithExportConfig,
    WithHttpConfig, WithTonicConfig, tonic_types::transport::ClientTlsConfig,
};
use opentelemetry_sdk::{
    Resource, error::OTelSdkResult, logs::SdkLoggerProvider, metrics::SdkMeterProvider,
    trace::SdkTracerProvider,
};
use std::{
    env, fmt,
    sync::mpsc,
    time::{Duration, Instant},
};
use tokio::runtime::{Builder, Runtime};
use tracing::Level;
use tracing_opentelemetry::OpenTelemetryLayer;

/// How long the end of a process waits at most for what is still queued.
pub const SHUTDOWN: Duration = Duration::from_secs(3);

/// What instruments and tracers are called.
const SCOPE: &str = "polestar";

/// Why nothing can be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// An exporter can't be made: an address or a variable that makes no sense.
    #[error("telemetry can't be exported; look at [telemetry] and at OTEL_* variables")]
    Exporter(#[from] ExporterBuildError),
    /// The client of HTTP can't be made.
    #[error("telemetry can't be exported over HTTP")]
    Client(#[from] reqwest::Error),
    /// No thread to export from.
    #[error("telemetry can't be exported: no thread to do it")]
    Runtime(#[source] std::io::Error),
    /// It is exported already.
    #[error("telemetry is exported already")]
    Twice,
}

/// Exports until it is [ended](Exporting::finish).
pub struct Exporting {
    spans: SdkTracerProvider,
    events: SdkLoggerProvider,
    metrics: SdkMeterProvider,
    /// Of its own, so that nothing that hangs in an exporter holds up anything else.
    runtime: Option<Runtime>,
}

impl fmt::Debug for Exporting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporting").finish_non_exhaustive()
    }
}

/// Builds an exporter of one signal, over what the collector speaks.
macro_rules! exporter {
    ($exporter:ident, $signal:literal, $settings:expr, $client:expr) => {{
        let endpoint = &$settings.endpoint;
        let url = endpoint.url($signal);
        match endpoint.protocol($signal) {
            Protocol::Grpc => {
                let sealed = is_sealed(url.as_deref(), $signal);
                let builder = $exporter::builder().with_tonic();
                let builder = match url {
                    Some(url) => builder.with_endpoint(url),
                    None => builder,
                };
                let builder = match sealed {
                    true => builder.with_tls_config(ClientTlsConfig::new().with_enabled_roots()),
                    false => builder,
                };
                builder.build()?
            }
            Protocol::Http => {
                let builder = $exporter::builder()
                    .with_http()
                    .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
                    .with_http_client($client.clone());
                let builder = match url {
                    Some(url) => builder.with_endpoint(url),
                    None => builder,
                };
                builder.build()?
            }
        }
    }};
}

/// Whether a signal goes over TLS: to a configured URL, or to that of the environment.
fn is_sealed(configured: Option<&str>, signal: &str) -> bool {
    let is_https = |url: &str| url.starts_with("https://");
    let given = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let signal = signal.to_ascii_uppercase();
    let variable = || {
        given(&format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"))
            .or_else(|| given("OTEL_EXPORTER_OTLP_ENDPOINT"))
    };
    match configured {
        Some(url) => is_https(url),
        None => variable().is_some_and(|url| is_https(&url)),
    }
}

pub(crate) fn begin(late: &Late, settings: Settings) -> Result<Exporting, ExportError> {
    // One provider of TLS for the process; whoever came first has installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("telemetry")
        .enable_all()
        .build()
        .map_err(ExportError::Runtime)?;
    // Connections of gRPC live where they are made.
    let entered = runtime.enter();
    let client = Client::new(runtime.handle().clone())?;
    let resource = resource(&settings.resource);
    let spans = SdkTracerProvider::builder()
        .with_id_generator(Names::default())
        .with_resource(resource.clone())
        .with_batch_exporter(exporter!(SpanExporter, "traces", settings, client))
        .build();
    let events = SdkLoggerProvider::builder()
        .with_resource(resource.clone())
        .with_batch_exporter(exporter!(LogExporter, "logs", settings, client))
        .build();
    let metrics = SdkMeterProvider::builder().with_resource(resource);
    let metrics = match settings.metrics.clone() {
        Some((families, board)) => {
            let exporter = exporter!(MetricExporter, "metrics", settings, client);
            let provider = metrics.with_periodic_exporter(exporter).build();
            board.register(&provider.meter(SCOPE), families);
            provider
        }
        None => metrics.build(),
    };
    drop(entered);
    let layer = OpenTelemetryLayer::new(Placed(spans.tracer(SCOPE)))
        .with_location(false)
        .with_target(false)
        .with_threads(false)
        .with_tracked_inactivity(false);
    let first = late.begin(Sinks {
        spans: layer,
        events: OpenTelemetryTracingBridge::new(&events),
        finest: match settings.operations {
            true => Level::DEBUG,
            false => Level::INFO,
        },
    });
    let exporting = Exporting {
        spans,
        events,
        metrics,
        runtime: Some(runtime),
    };
    match first {
        true => Ok(exporting),
        false => Err(ExportError::Twice),
    }
}

/// What all that this process exports has in common. The environment has the last word on the service's name.
fn resource(attributes: &[(&'static str, String)]) -> Resource {
    let own = attributes
        .iter()
        .map(|(key, value)| KeyValue::new(*key, value.clone()));
    let builder = Resource::builder().with_attributes(own);
    match env::var("OTEL_SERVICE_NAME").is_ok_and(|name| !name.is_empty()) {
        true => builder.build(),
        false => builder.with_service_name(SCOPE).build(),
    }
}

impl Exporting {
    /// Sends what is queued, and waits for that no longer than [`SHUTDOWN`]: a collector that hangs gets what it got.
    pub fn finish(&mut self) {
        let Some(runtime) = self.runtime.take() else {
            return;
        };
        let (ended, end) = mpsc::channel();
        let (spans, events, metrics) = (
            self.spans.clone(),
            self.events.clone(),
            self.metrics.clone(),
        );
        // Each on a thread of its own, so that they share one deadline.
        let shutdowns: [Box<dyn FnOnce() -> OTelSdkResult + Send>; 3] = [
            Box::new(move || spans.shutdown_with_timeout(SHUTDOWN)),
            Box::new(move || events.shutdown_with_timeout(SHUTDOWN)),
            Box::new(move || metrics.shutdown_with_timeout(SHUTDOWN)),
        ];
        let deadline = Instant::now() + SHUTDOWN;
        for shutdown in shutdowns {
            let ended = ended.clone();
            std::thread::spawn(move || {
                // What went wrong was told where it did.
                let _ = shutdown();
                let _ = ended.send(());
            });
        }
        drop(ended);
        for _ in 0..3 {
            let left = deadline.saturating_duration_since(Instant::now());
            if end.recv_timeout(left).is_err() {
                break;
            }
        }
        runtime.shutdown_background();
    }
}

impl Drop for Exporting {
    fn drop(&mut self) {
        self.finish();
    }
}
