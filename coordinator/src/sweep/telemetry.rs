//! What a sweep file may say of telemetry.

use polestar_telemetry::{Endpoint, Protocol};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, path::PathBuf};

/// What a launch and its workers tell of themselves, and whom. Nothing here changes a result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryTable {
    /// Collector of OpenTelemetry that traces, metrics and logs go to: `http://host:4317`, or `https`. Each process asks
    /// for it from its own host; `OTEL_EXPORTER_OTLP_*` in a process's environment overrules it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp: Option<String>,
    /// What the collector speaks. Without it, HTTP at port 4318 and gRPC at any other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<OtlpProtocol>,
    /// Spans of every collective operation and every request to the store, too: for a closer look, at a price.
    pub operations: bool,
    /// Address on which `launch` answers `/metrics` to Prometheus: `127.0.0.1:9464`. One that other hosts can reach needs
    /// `token_file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<SocketAddr>,
    /// File with the token that Prometheus has to show (its `credentials_file`); `coordinator token FILE` makes one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
}

/// What a collector speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OtlpProtocol {
    /// OTLP over gRPC.
    #[serde(rename = "grpc")]
    Grpc,
    /// OTLP as protobuf over HTTP.
    #[serde(rename = "http/protobuf")]
    Http,
}

impl From<OtlpProtocol> for Protocol {
    fn from(protocol: OtlpProtocol) -> Protocol {
        match protocol {
            OtlpProtocol::Grpc => Protocol::Grpc,
            OtlpProtocol::Http => Protocol::Http,
        }
    }
}

impl TelemetryTable {
    /// Whether it says nothing.
    pub(super) fn is_default(&self) -> bool {
        *self == TelemetryTable::default()
    }

    /// The collector that the file names.
    pub fn collector(&self) -> Option<(&str, Option<Protocol>)> {
        let url = self.otlp.as_deref()?;
        Some((url, self.protocol.map(Protocol::from)))
    }

    /// Checks what the types don't.
    pub(super) fn check(&self) -> Result<(), String> {
        if let Some((url, protocol)) = self.collector() {
            let endpoint = Endpoint::at(url, protocol);
            endpoint.map_err(|error| format!("telemetry.otlp: {error}"))?;
        }
        match (self.prometheus, &self.token_file) {
            (Some(address), None) if !address.ip().is_loopback() => Err(format!(
                "telemetry.prometheus = \"{address}\" can be reached from other hosts; say in telemetry.token_file which \
                 token they have to show (`coordinator token FILE` makes one), or listen on 127.0.0.1"
            )),
            (None, Some(_)) => Err(
                "telemetry.token_file is the token of telemetry.prometheus, which isn't there"
                    .into(),
            ),
            _ => Ok(()),
        }
    }
}
