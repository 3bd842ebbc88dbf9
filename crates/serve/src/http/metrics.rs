//! What the server tells Prometheus.

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};
use std::time::Duration;

/// Whose requests, and what became of them.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Request {
    route: String,
    status: u16,
}

/// Counters, gauges and histograms.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    seconds: Histogram,
    rewards: Counter,
    cut: Counter,
    cancelled: Counter,
    waiting: Gauge,
    waited: Histogram,
    batch_tokens: Histogram,
    batch_seconds: Histogram,
}

impl Metrics {
    pub(super) fn new() -> Metrics {
        let mut registry = Registry::with_prefix("polestar");
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 16));
        let metrics = Metrics {
            requests: Family::default(),
            seconds: seconds(),
            rewards: Counter::default(),
            cut: Counter::default(),
            cancelled: Counter::default(),
            waiting: Gauge::default(),
            waited: seconds(),
            batch_tokens: Histogram::new(exponential_buckets(64.0, 2.0, 12)),
            batch_seconds: seconds(),
            registry: Registry::default(),
        };
        let m = &metrics;
        registry.register(
            "requests",
            "Requests by route and status",
            m.requests.clone(),
        );
        let help = "From the first byte of a request to its answer";
        registry.register_with_unit("request", help, Unit::Seconds, m.seconds.clone());
        registry.register("rewards", "Rewards that were answered", m.rewards.clone());
        let help = "Texts that the limits of the run cut";
        registry.register("cut_texts", help, m.cut.clone());
        let help = "Parts of requests whose client was gone before they were scored";
        registry.register("cancelled", help, m.cancelled.clone());
        registry.register("queue_tokens", "Tokens in the queue", m.waiting.clone());
        let help = "From a request's arrival in the queue to its batch";
        registry.register_with_unit("queue", help, Unit::Seconds, m.waited.clone());
        registry.register("batch_tokens", "Tokens of a batch", m.batch_tokens.clone());
        let help = "A batch's way through the model";
        registry.register_with_unit("batch", help, Unit::Seconds, m.batch_seconds.clone());
        Metrics {
            registry,
            ..metrics
        }
    }

    /// A request was answered.
    pub(super) fn answered(&self, route: &str, status: u16, after: Duration) {
        let request = Request {
            route: route.to_owned(),
            status,
        };
        self.requests.get_or_create(&request).inc();
        self.seconds.observe(after.as_secs_f64());
    }

    pub(super) fn rewards(&self, count: usize) {
        self.rewards.inc_by(count as u64);
    }

    pub(super) fn cut(&self, texts: usize) {
        self.cut.inc_by(texts as u64);
    }

    pub(super) fn cancelled(&self) {
        self.cancelled.inc();
    }

    pub(super) fn waiting(&self, tokens: usize) {
        self.waiting.set(i64::try_from(tokens).unwrap_or(i64::MAX));
    }

    pub(super) fn waited(&self, time: Duration) {
        self.waited.observe(time.as_secs_f64());
    }

    pub(super) fn batch(&self, tokens: usize, time: Duration) {
        self.batch_tokens.observe(tokens as f64);
        self.batch_seconds.observe(time.as_secs_f64());
    }

    /// All of it as text.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a string takes all that is written to it");
        text
    }
}
