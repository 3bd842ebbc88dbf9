//! TensorBoard's event files: records of protobuf messages, each with two checksums.
//!
//! ```text
//! length of the message, u64 │ masked CRC-32C of these 8 bytes │ the message │ masked CRC-32C of it     all little-endian
//! ```
//! Only what this program writes has a type here: scalars, and the hyperparameters as the HParams plugin reads them.
//! Field numbers are those of TensorBoard's event.proto, summary.proto and hparams/plugin_data.proto.

use polestar_core::Step;
use prost::{Message, Oneof};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// What names of event files begin with: how readers find them.
pub(crate) const PREFIX: &str = "events.out.tfevents.";
/// The version that every file's first record says.
const VERSION: &str = "brain.Event:2";
const HPARAMS: &str = "hparams";
const SESSION_START: &str = "_hparams_/session_start_info";
const SESSION_END: &str = "_hparams_/session_end_info";

/// One record.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    pub(crate) wall_time: f64,
    #[prost(int64, tag = "2")]
    pub(crate) step: i64,
    #[prost(oneof = "Content", tags = "3, 5")]
    pub(crate) content: Option<Content>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Content {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Summary {
    #[prost(message, repeated, tag = "1")]
    pub(crate) values: Vec<Tagged>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Tagged {
    #[prost(string, tag = "1")]
    pub(crate) tag: String,
    #[prost(float, optional, tag = "2")]
    pub(crate) scalar: Option<f32>,
    #[prost(message, optional, tag = "9")]
    metadata: Option<Metadata>,
}

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(message, optional, tag = "1")]
    plugin: Option<Plugin>,
}

#[derive(Clone, PartialEq, Message)]
struct Plugin {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "vec", tag = "2")]
    content: Vec<u8>,
}

/// What the HParams plugin keeps in its metadata; its version is 0, which protobuf leaves out.
#[derive(Clone, PartialEq, Message)]
struct Session {
    #[prost(oneof = "Edge", tags = "3, 4")]
    edge: Option<Edge>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Edge {
    #[prost(message, tag = "3")]
    Start(SessionStart),
    #[prost(message, tag = "4")]
    End(SessionEnd),
}

#[derive(Clone, PartialEq, Message)]
struct SessionStart {
    #[prost(btree_map = "string, message", tag = "1")]
    hparams: BTreeMap<String, Hparam>,
    #[prost(double, tag = "5")]
    start: f64,
}

#[derive(Clone, PartialEq, Message)]
struct SessionEnd {
    /// 1 is success.
    #[prost(int32, tag = "1")]
    status: i32,
    #[prost(double, tag = "2")]
    end: f64,
}

/// A google.protobuf.Value.
#[derive(Clone, PartialEq, Message)]
struct Hparam {
    #[prost(oneof = "HparamKind", tags = "2, 3, 4")]
    kind: Option<HparamKind>,
}

#[derive(Clone, PartialEq, Oneof)]
enum HparamKind {
    #[prost(double, tag = "2")]
    Number(f64),
    #[prost(string, tag = "3")]
    Text(String),
    #[prost(bool, tag = "4")]
    Flag(bool),
}

/// The name of a file: readers take a folder's files in the order of their names.
pub(crate) fn file_name(seconds: u64, number: u32) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let known = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let host = host.as_deref().unwrap_or("host").trim();
    let host: String = host.chars().filter(|&c| known(c)).collect();
    let host = if host.is_empty() { "host" } else { &host };
    format!(
        "{PREFIX}{seconds:010}.{host}.{}.{number:04}",
        std::process::id()
    )
}

/// The seconds in the name of a file.
pub(crate) fn seconds_in(name: &str) -> Option<u64> {
    let (seconds, _) = name.strip_prefix(PREFIX)?.split_once('.')?;
    seconds.parse().ok()
}

/// What a file begins with.
pub(crate) fn header(wall_time: f64) -> Vec<u8> {
    record(&Event {
        wall_time,
        step: 0,
        content: Some(Content::FileVersion(VERSION.to_owned())),
    })
}

/// Numbers of a step.
pub(crate) fn scalars(wall_time: f64, step: Step, numbers: &[(String, f64)]) -> Vec<u8> {
    let tagged = |(tag, number): &(String, f64)| Tagged {
        tag: tag.clone(),
        scalar: Some(*number as f32),
        metadata: None,
    };
    summary(wall_time, step, numbers.iter().map(tagged).collect())
}

/// That training begins, with these hyperparameters: numbers, texts and truths; others are passed over.
pub(crate) fn session_start(wall_time: f64, hparams: &serde_json::Map<String, Json>) -> Vec<u8> {
    let known = hparams.iter().filter_map(|(name, value)| {
        let kind = match value {
            Json::Number(number) => HparamKind::Number(number.as_f64()?),
            Json::String(text) => HparamKind::Text(text.clone()),
            Json::Bool(flag) => HparamKind::Flag(*flag),
            Json::Null | Json::Array(_) | Json::Object(_) => return None,
        };
        Some((name.clone(), Hparam { kind: Some(kind) }))
    });
    let start = SessionStart {
        hparams: known.collect(),
        start: wall_time,
    };
    session(wall_time, Step(0), SESSION_START, Edge::Start(start))
}

/// That training has come to its end.
pub(crate) fn session_end(wall_time: f64, step: Step) -> Vec<u8> {
    let end = SessionEnd {
        status: 1,
        end: wall_time,
    };
    session(wall_time, step, SESSION_END, Edge::End(end))
}

fn session(wall_time: f64, step: Step, tag: &str, edge: Edge) -> Vec<u8> {
    let session = Session { edge: Some(edge) };
    let plugin = Plugin {
        name: HPARAMS.to_owned(),
        content: session.encode_to_vec(),
    };
    let tagged = Tagged {
        tag: tag.to_owned(),
        scalar: None,
        metadata: Some(Metadata {
            plugin: Some(plugin),
        }),
    };
    summary(wall_time, step, vec![tagged])
}

fn summary(wall_time: f64, step: Step, values: Vec<Tagged>) -> Vec<u8> {
    record(&Event {
        wall_time,
        step: i64::try_from(step.0).unwrap_or(i64::MAX),
        content: Some(Content::Summary(Summary { values })),
    })
}

fn record(event: &Event) -> Vec<u8> {
    let message = event.encode_to_vec();
    let length = (message.len() as u64).to_le_bytes();
    let mut bytes = Vec::with_capacity(message.len() + 16);
    bytes.extend(length);
    bytes.extend(masked(&length).to_le_bytes());
    bytes.extend(&message);
    bytes.extend(masked(&message).to_le_bytes());
    bytes
}

/// A checksum that may lie among what is summed up again: rotated, with a constant added.
fn masked(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

/// The records of a file, up to the first that isn't whole.
pub(crate) struct Records<'a>(pub(crate) &'a [u8]);

impl Iterator for Records<'_> {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let (length, rest) = self.0.split_first_chunk::<8>()?;
        let (length_sum, rest) = rest.split_first_chunk::<4>()?;
        if masked(length) != u32::from_le_bytes(*length_sum) {
            return None;
        }
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        let (message, rest) = rest.split_at_checked(length)?;
        let (sum, rest) = rest.split_first_chunk::<4>()?;
        if masked(message) != u32::from_le_bytes(*sum) {
            return None;
        }
        self.0 = rest;
        Event::decode(message).ok()
    }
}

/// The last step that a file has numbers of; none if it has none.
pub(crate) fn last_step(bytes: &[u8]) -> Option<Step> {
    let with_numbers = |event: &Event| match &event.content {
        Some(Content::Summary(summary)) => summary.values.iter().any(|v| v.scalar.is_some()),
        _ => false,
    };
    let steps = Records(bytes).filter(with_numbers);
    steps
        .filter_map(|event| u64::try_from(event.step).ok().map(Step))
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_the_bytes_that_tensorboard_writes() {
        // The checksums are those that PyPI's tensorboard computes of this record.
        let header = header(1.0);
        assert_eq!(header.len(), 8 + 4 + 24 + 4);
        assert_eq!(header[..8], 24_u64.to_le_bytes());
        assert_eq!(header[8..12], 0x224b_7fa3_u32.to_le_bytes());
        assert_eq!(header[36..], 0x7a57_bf86_u32.to_le_bytes());
        assert!(
            header[12..]
                .windows(VERSION.len())
                .any(|w| w == VERSION.as_bytes())
        );
    }

    #[test]
    fn a_torn_file_ends_with_its_last_whole_record() {
        let mut file = header(1.0);
        for step in [1, 2] {
            file.extend(scalars(2.0, Step(step), &[("train/loss".to_owned(), 0.5)]));
        }
        assert_eq!(last_step(&file), Some(Step(2)));
        let whole = file.len();
        file.extend(session_end(3.0, Step(9)));
        assert_eq!(last_step(&file), Some(Step(2)), "an end has no numbers");
        assert_eq!(last_step(&file[..whole - 1]), Some(Step(1)));
        let mut damaged = file.clone();
        damaged[whole - 5] ^= 1;
        assert_eq!(
            Records(&damaged).count(),
            2,
            "a flipped bit ends it as well"
        );
        assert_eq!(last_step(&header(1.0)), None);
    }
}
