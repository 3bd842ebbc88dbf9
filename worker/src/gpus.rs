//! The GPUs of this machine, as NVIDIA's management library (NVML) tells of them.
//!
//! The library comes with the driver and is opened when it is asked for: where it isn't, that is what is said.
//! Nothing here touches CUDA, so that asking costs no context on a device.

use nvml_wrapper::{Nvml, error::NvmlError};
use polestar_core::ByteCount;
use std::path::Path;

/// One GPU. What the driver doesn't tell is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gpu {
    /// What `CUDA_VISIBLE_DEVICES` can name it by, whatever the order that CUDA counts in.
    pub uuid: String,
    /// As in `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Memory.
    pub memory_bytes: Option<ByteCount>,
    /// Memory that is in use, whoever uses it.
    pub memory_used_bytes: Option<ByteCount>,
    /// What it draws, in milliwatts.
    pub power_milliwatts: Option<u32>,
    /// The most that it may draw, in milliwatts.
    pub power_limit_milliwatts: Option<u32>,
    /// Share of the last moments in which a kernel ran, in percent.
    pub utilization_percent: Option<u32>,
    /// The NUMA node that its bus hangs on: a worker is best placed there.
    pub numa_node: Option<u32>,
}

/// GPUs that this process may use, in the order of the driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gpus(pub Vec<Gpu>);

/// Why they can't be told.
#[derive(Debug, thiserror::Error)]
pub enum GpusError {
    /// No driver, most likely.
    #[error("NVIDIA's libnvidia-ml.so.1, which comes with the driver, can't be opened")]
    Library(#[source] NvmlError),
    /// The driver is there and doesn't answer.
    #[error("NVIDIA's driver doesn't tell its GPUs")]
    Driver(#[source] NvmlError),
}

impl Gpus {
    /// Those of this machine that `CUDA_VISIBLE_DEVICES` leaves visible.
    ///
    /// # Errors
    /// Without a driver, or when it can't be asked.
    pub fn of_this_machine() -> Result<Gpus, GpusError> {
        let nvml = Nvml::init().map_err(|error| match error {
            NvmlError::LibloadingError(_) => GpusError::Library(error),
            error => GpusError::Driver(error),
        })?;
        let count = nvml.device_count().map_err(GpusError::Driver)?;
        // One that fell off the bus is no use to anybody; the others are.
        let all = (0..count).filter_map(|index| gpu(&nvml, index).ok());
        let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
        Ok(Gpus(visible_of(all.collect(), visible.as_deref())))
    }
}

fn gpu(nvml: &Nvml, index: u32) -> Result<Gpu, NvmlError> {
    let device = nvml.device_by_index(index)?;
    let memory = device.memory_info().ok();
    let bus = device.pci_info().ok().map(|pci| pci.bus_id);
    Ok(Gpu {
        uuid: device.uuid()?,
        name: device.name()?,
        memory_bytes: memory.as_ref().map(|memory| ByteCount(memory.total)),
        memory_used_bytes: memory.as_ref().map(|memory| ByteCount(memory.used)),
        power_milliwatts: device.power_usage().ok(),
        power_limit_milliwatts: device.enforced_power_limit().ok(),
        utilization_percent: device.utilization_rates().ok().map(|rates| rates.gpu),
        numa_node: bus.and_then(|bus| numa_node(Path::new("/sys/bus/pci/devices"), &bus)),
    })
}

/// The node of a device on the bus: NVML writes its domain with eight digits, Linux with four, in small letters.
fn numa_node(devices: &Path, bus_id: &str) -> Option<u32> {
    let bus_id = bus_id.to_ascii_lowercase();
    let short = bus_id.strip_prefix("0000").filter(|rest| rest.len() == 12);
    let file = devices.join(short.unwrap_or(&bus_id)).join("numa_node");
    // Linux says -1 where there is only one.
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// What `CUDA_VISIBLE_DEVICES` leaves, as CUDA reads it: numbers or beginnings of UUIDs, in its order, up to the first
/// that names none.
fn visible_of(all: Vec<Gpu>, variable: Option<&str>) -> Vec<Gpu> {
    let Some(variable) = variable else {
        return all;
    };
    let find = |word: &str| match word.parse::<usize>() {
        Ok(index) => all.get(index),
        Err(_) if word.is_empty() => None,
        Err(_) => all.iter().find(|gpu| gpu.uuid.starts_with(word)),
    };
    let named = variable.split(',').map(|word| find(word.trim()));
    named.map_while(|found| found.cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_visible_gpus_count_as_cuda_reads_the_variable() {
        let gpu = |uuid: &str| Gpu {
            uuid: uuid.to_owned(),
            ..Gpu::default()
        };
        let all = || vec![gpu("GPU-aa"), gpu("GPU-ab"), gpu("GPU-b")];
        let visible = |variable| {
            let left = visible_of(all(), variable);
            left.into_iter().map(|g| g.uuid).collect::<Vec<_>>()
        };
        assert_eq!(visible(None).len(), 3);
        assert_eq!(visible(Some("2, 0")), ["GPU-b", "GPU-aa"]);
        assert_eq!(visible(Some("GPU-b,GPU-ab")), ["GPU-b", "GPU-ab"]);
        assert_eq!(visible(Some("1,-1,0")), ["GPU-ab"]);
        assert!(visible(Some("")).is_empty() && visible(Some("7")).is_empty());
    }

    #[test]
    fn a_gpu_is_found_on_its_numa_node_by_the_bus_that_nvml_names() {
        let devices = tempfile::tempdir().unwrap();
        let folder = devices.path().join("0000:3b:00.0");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("numa_node"), "1\n").unwrap();
        assert_eq!(numa_node(devices.path(), "00000000:3B:00.0"), Some(1));
        std::fs::write(folder.join("numa_node"), "-1\n").unwrap();
        assert_eq!(numa_node(devices.path(), "00000000:3B:00.0"), None);
        assert_eq!(numa_node(devices.path(), "00000000:5B:00.0"), None);
    }

    #[test]
    fn a_machine_without_a_driver_says_so() {
        match Gpus::of_this_machine() {
            Ok(gpus) => println!(
                "skipped: this machine has a driver, and {} GPUs",
                gpus.0.len()
            ),
            Err(error) => assert!(error.to_string().contains("driver"), "{error}"),
        }
    }
}
