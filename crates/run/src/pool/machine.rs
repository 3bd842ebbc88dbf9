//! What a worker has to train with, as it tells when it joins.

use crate::proto;
use polestar_core::ByteCount;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// What a worker runs on. Everything is as far as known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Machine {
    /// Its job in a batch system, as in `1234` or, of an array, `1234_5`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// What it computes with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// Memory that it may use, in bytes: the machine's, or less where a control group says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<ByteCount>,
    /// The address on which the other ranks of a trial reach it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_address: Option<IpAddr>,
}

/// Devices of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Device {
    /// As in `cpu` or `NVIDIA H100 80GB HBM3`.
    pub kind: String,
    /// How many: of a CPU, threads that compute.
    pub count: u32,
    /// What the driver told of it when the worker joined.
    #[serde(default, skip_serializing_if = "GpuState::is_unknown")]
    pub gpu: GpuState,
}

/// A GPU's memory, power and use. Everything is as far as known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GpuState {
    /// Memory in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<ByteCount>,
    /// Memory in use, in bytes, whoever uses it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_used_bytes: Option<ByteCount>,
    /// What it drew, in watts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_watts: Option<u32>,
    /// The most that it may draw, in watts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_limit_watts: Option<u32>,
    /// Share of the moments before in which a kernel ran, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub utilization_percent: Option<u32>,
}

impl GpuState {
    fn is_unknown(&self) -> bool {
        *self == GpuState::default()
    }
}

impl From<Device> for proto::Device {
    fn from(Device { kind, count, gpu }: Device) -> Self {
        proto::Device {
            kind,
            count,
            memory_bytes: gpu.memory_bytes.map(|bytes| bytes.0),
            memory_used_bytes: gpu.memory_used_bytes.map(|bytes| bytes.0),
            power_watts: gpu.power_watts,
            power_limit_watts: gpu.power_limit_watts,
            utilization_percent: gpu.utilization_percent,
        }
    }
}

impl From<proto::Device> for Device {
    fn from(device: proto::Device) -> Self {
        Device {
            kind: device.kind,
            count: device.count,
            gpu: GpuState {
                memory_bytes: device.memory_bytes.map(ByteCount),
                memory_used_bytes: device.memory_used_bytes.map(ByteCount),
                power_watts: device.power_watts,
                power_limit_watts: device.power_limit_watts,
                utilization_percent: device.utilization_percent,
            },
        }
    }
}

impl From<Machine> for proto::Machine {
    fn from(machine: Machine) -> Self {
        let devices = machine.devices.into_iter();
        proto::Machine {
            job: machine.job.unwrap_or_default(),
            devices: devices.map(proto::Device::from).collect(),
            memory_bytes: machine.memory_bytes.unwrap_or_default().0,
            data_address: machine
                .data_address
                .map_or(String::new(), |a| a.to_string()),
        }
    }
}

/// What isn't there or can't be read isn't known: nothing depends on it but what people are shown.
impl From<proto::Machine> for Machine {
    fn from(machine: proto::Machine) -> Self {
        let devices = machine.devices.into_iter();
        Machine {
            job: Some(machine.job).filter(|job| !job.is_empty()),
            devices: devices.map(Device::from).collect(),
            memory_bytes: Some(ByteCount(machine.memory_bytes)).filter(|bytes| bytes.0 > 0),
            data_address: machine.data_address.parse().ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_comes_out_of_a_message_as_it_went_in() {
        let whole = Machine {
            job: Some("12_3".to_owned()),
            devices: vec![
                Device {
                    kind: "cpu".to_owned(),
                    count: 8,
                    ..Device::default()
                },
                Device {
                    kind: "NVIDIA H100 80GB HBM3".to_owned(),
                    count: 1,
                    gpu: GpuState {
                        memory_bytes: Some(ByteCount(80 << 30)),
                        power_watts: Some(0),
                        ..GpuState::default()
                    },
                },
            ],
            memory_bytes: Some(ByteCount(1 << 35)),
            data_address: Some([10, 0, 0, 7].into()),
        };
        for machine in [whole, Machine::default()] {
            let message = proto::Machine::from(machine.clone());
            assert_eq!(Machine::from(message), machine);
        }
    }
}
