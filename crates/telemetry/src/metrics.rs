//! Metrics as plain data: one list of families and samples, given to Prometheus as text and to OTLP as instruments.

use opentelemetry::{KeyValue, metrics::Meter};
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family, gauge::Gauge},
    registry::Registry,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
};

/// Whether a metric only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It grows, and begins with 0 in each process.
    Counter,
    /// It is what it is.
    Gauge,
}

/// What a metric counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Number,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// A share of 1.
    Ratio,
}

impl Unit {
    /// As names of metrics end in Prometheus.
    fn suffix(self) -> &'static str {
        match self {
            Unit::Number => "",
            Unit::Seconds => "_seconds",
            Unit::Bytes => "_bytes",
            Unit::Ratio => "_ratio",
        }
    }

    /// As OpenTelemetry writes it.
    fn code(self) -> &'static str {
        match self {
            Unit::Number | Unit::Ratio => "1",
            Unit::Seconds => "s",
            Unit::Bytes => "By",
        }
    }
}

/// A metric, whatever its labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// As OpenTelemetry names things: `polestar.trial.loss`.
    pub name: &'static str,
    /// What it is, in a line.
    pub help: &'static str,
    /// Whether it only grows.
    pub kind: Kind,
    /// What it counts.
    pub unit: Unit,
}

impl Family {
    /// Its name in Prometheus, as queries spell it.
    pub fn prometheus_name(&self) -> String {
        let end = match self.kind {
            Kind::Counter => "_total",
            Kind::Gauge => "",
        };
        format!("{}{end}", self.prometheus_base())
    }

    fn prometheus_base(&self) -> String {
        format!("{}{}", self.name.replace('.', "_"), self.unit.suffix())
    }
}

/// A value of a metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// [Name](Family::name) of its family.
    pub name: &'static str,
    /// What it is of: names and values.
    pub labels: Vec<(&'static str, String)>,
    /// How much.
    pub value: f64,
}

/// The newest samples, for whoever exports them. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<Vec<Sample>>>);

impl Board {
    /// These are the newest.
    pub fn set(&self, samples: Vec<Sample>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = samples;
    }

    fn each(&self, name: &str, mut tell: impl FnMut(&Sample)) {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        samples
            .iter()
            .filter(|s| s.name == name)
            .for_each(&mut tell);
    }

    /// Makes an instrument of each family, which is read when metrics are exported.
    pub(crate) fn register(&self, meter: &Meter, families: &'static [Family]) {
        for family in families {
            let (board, name) = (self.clone(), family.name);
            let read = move |observe: &mut dyn FnMut(f64, &[KeyValue])| {
                board.each(name, |sample| {
                    let labels = sample.labels.iter();
                    let labels = labels.map(|(key, value)| {
                        KeyValue::new(format!("polestar.{key}"), value.clone())
                    });
                    observe(sample.value, &labels.collect::<Vec<_>>());
                });
            };
            // The meter keeps what it made, and the callback with it.
            match family.kind {
                Kind::Counter => {
                    let _ = meter
                        .f64_observable_counter(name)
                        .with_description(family.help)
                        .with_unit(family.unit.code())
                        .with_callback(move |o| read(&mut |value, of| o.observe(value, of)))
                        .build();
                }
                Kind::Gauge => {
                    let _ = meter
                        .f64_observable_gauge(name)
                        .with_description(family.help)
                        .with_unit(family.unit.code())
                        .with_callback(move |o| read(&mut |value, of| o.observe(value, of)))
                        .build();
                }
            }
        }
    }
}

type Labels = Vec<(&'static str, String)>;

/// The samples as Prometheus reads them. A sample of no family is left out.
pub fn text(families: &[Family], samples: &[Sample]) -> String {
    let mut of: BTreeMap<&str, Vec<&Sample>> = BTreeMap::new();
    for sample in samples {
        of.entry(sample.name).or_default().push(sample);
    }
    let mut registry = Registry::default();
    for family in families {
        let samples = of.remove(family.name).unwrap_or_default();
        let name = family.prometheus_base();
        match family.kind {
            Kind::Counter => {
                let metric = family::Family::<Labels, Counter<f64, AtomicU64>>::default();
                for sample in samples {
                    let counter = metric.get_or_create(&sample.labels);
                    counter.inc_by(sample.value.max(0.0));
                }
                registry.register(name, family.help, metric);
            }
            Kind::Gauge => {
                let metric = family::Family::<Labels, Gauge<f64, AtomicU64>>::default();
                for sample in samples {
                    metric.get_or_create(&sample.labels).set(sample.value);
                }
                registry.register(name, family.help, metric);
            }
        }
    }
    let mut text = String::new();
    encode(&mut text, &registry).expect("a string takes all that is written to it");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_become_lines_that_say_what_they_count() {
        let families = [
            Family {
                name: "polestar.trial.loss",
                help: "Loss",
                kind: Kind::Gauge,
                unit: Unit::Number,
            },
            Family {
                name: "polestar.trial.step.time",
                help: "Time",
                kind: Kind::Counter,
                unit: Unit::Seconds,
            },
        ];
        let sample = |name, part: &str, value| Sample {
            name,
            labels: vec![("trial", "a\"b".to_owned()), ("part", part.to_owned())],
            value,
        };
        let text = text(
            &families,
            &[
                sample("polestar.trial.step.time", "data", 1.5),
                sample("polestar.trial.step.time", "save", 0.5),
                sample("polestar.trial.loss", "all", 0.25),
            ],
        );
        for line in [
            "# TYPE polestar_trial_loss gauge",
            "polestar_trial_loss{trial=\"a\\\"b\",part=\"all\"} 0.25",
            "# TYPE polestar_trial_step_time_seconds counter",
            "polestar_trial_step_time_seconds_total{trial=\"a\\\"b\",part=\"save\"} 0.5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
        }
        assert_eq!(
            families[1].prometheus_name(),
            "polestar_trial_step_time_seconds_total"
        );
    }
}
