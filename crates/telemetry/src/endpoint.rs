//! Which collector, and how it is spoken to.

use std::{env, fmt, str::FromStr};
use url::Url;

/// What is spoken to a collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP over gRPC.
    Grpc,
    /// OTLP as protobuf over HTTP.
    Http,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Grpc => "grpc",
            Protocol::Http => "http/protobuf",
        })
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Protocol, String> {
        match text {
            "grpc" => Ok(Protocol::Grpc),
            "http/protobuf" => Ok(Protocol::Http),
            _ => Err(format!(
                "`{text}` is no protocol of OTLP that is spoken here; there are grpc and http/protobuf"
            )),
        }
    }
}

/// The port on which collectors speak HTTP.
const HTTP_PORT: u16 = 4318;

/// The environment variables that name a collector: for all signals, or for one.
const ENDPOINT_VARIABLES: [&str; 4] = [
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
];

/// A collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// As the standard `OTEL_EXPORTER_OTLP_*` variables say.
    Environment,
    /// At a URL.
    At {
        /// `http://host:port`, or `https`.
        url: Url,
        /// What it speaks.
        protocol: Protocol,
    },
}

impl Endpoint {
    /// The collector that the environment names, otherwise the one that is configured: each host may have one of
    /// its own. `None` without either, and when `OTEL_SDK_DISABLED` says so.
    ///
    /// # Errors
    /// A sentence on a URL that is none.
    pub fn choose(
        configured: Option<(&str, Option<Protocol>)>,
    ) -> Result<Option<Endpoint>, String> {
        let given = |name: &str| env::var(name).is_ok_and(|value| !value.trim().is_empty());
        if env::var("OTEL_SDK_DISABLED").is_ok_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        if ENDPOINT_VARIABLES.into_iter().any(given) {
            return Ok(Some(Endpoint::Environment));
        }
        let endpoint = configured.map(|(url, protocol)| Endpoint::at(url, protocol));
        endpoint.transpose()
    }

    /// A collector at a URL. Port 4318 speaks HTTP and any other gRPC, unless something else is said.
    ///
    /// # Errors
    /// A sentence on a URL that is none.
    pub fn at(url: &str, protocol: Option<Protocol>) -> Result<Endpoint, String> {
        let parsed = Url::parse(url).ok();
        let parsed = parsed.filter(|url| matches!(url.scheme(), "http" | "https"));
        let parsed = parsed.filter(Url::has_host).ok_or_else(|| {
            format!("`{url}` is no URL of a collector; it looks like http://host:4317")
        })?;
        let protocol = protocol.unwrap_or_else(|| by_port(parsed.port()));
        Ok(Endpoint::At {
            url: parsed,
            protocol,
        })
    }

    /// What is spoken for one signal: `traces`, `metrics` or `logs`.
    pub(crate) fn protocol(&self, signal: &str) -> Protocol {
        let Endpoint::At { protocol, .. } = self else {
            let signal = signal.to_ascii_uppercase();
            let read = |name: String| env::var(name).ok().filter(|value| !value.is_empty());
            let either = |end: &str| {
                read(format!("OTEL_EXPORTER_OTLP_{signal}_{end}"))
                    .or_else(|| read(format!("OTEL_EXPORTER_OTLP_{end}")))
            };
            let url = || Url::parse(&either("ENDPOINT")?).ok();
            return match either("PROTOCOL").map(|text| text.parse()) {
                Some(Ok(protocol)) => protocol,
                _ => by_port(url().and_then(|url| url.port())),
            };
        };
        *protocol
    }

    /// Where one signal goes, unless the environment says so.
    pub(crate) fn url(&self, signal: &str) -> Option<String> {
        match self {
            Endpoint::Environment => None,
            Endpoint::At {
                url,
                protocol: Protocol::Grpc,
            } => Some(url.as_str().trim_end_matches('/').to_owned()),
            Endpoint::At {
                url,
                protocol: Protocol::Http,
            } => {
                let base = url.as_str().trim_end_matches('/');
                Some(format!("{base}/v1/{signal}"))
            }
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Environment => f.write_str("the collector that OTEL_* variables name"),
            Endpoint::At { url, protocol } => write!(f, "{url} ({protocol})"),
        }
    }
}

fn by_port(port: Option<u16>) -> Protocol {
    match port {
        Some(HTTP_PORT) => Protocol::Http,
        _ => Protocol::Grpc,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_what_is_spoken_and_where_signals_go() {
        let grpc = Endpoint::at("http://collector:4317", None).unwrap();
        assert_eq!(grpc.protocol("traces"), Protocol::Grpc);
        assert_eq!(grpc.url("traces").unwrap(), "http://collector:4317");
        let http = Endpoint::at("http://collector:4318/", None).unwrap();
        assert_eq!(http.url("logs").unwrap(), "http://collector:4318/v1/logs");
        let said = Endpoint::at("https://site.example/otlp", Some(Protocol::Http)).unwrap();
        assert_eq!(
            said.url("metrics").unwrap(),
            "https://site.example/otlp/v1/metrics"
        );
        for wrong in ["collector:4317", "", "ftp://collector", "http://"] {
            let error = Endpoint::at(wrong, None).unwrap_err();
            assert!(error.contains("http://host:4317"), "{error}");
        }
    }
}
