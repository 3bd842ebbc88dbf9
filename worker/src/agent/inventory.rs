//! What this process can train with, as the system tells it.

use crate::gpus::{Gpu, Gpus};
use polestar_core::ByteCount;
use polestar_run::pool::{Device, GpuState, Machine};
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

/// What this process runs on.
pub(super) fn machine(data_address: IpAddr) -> Machine {
    Machine {
        job: job(|name| std::env::var(name).ok()),
        devices: devices(),
        memory_bytes: memory(Path::new("/proc"), Path::new("/sys/fs/cgroup")),
        data_address: Some(data_address),
    }
}

/// The CPU, and the GPUs that this process may see. A machine without a driver for them is not worth a word.
fn devices() -> Vec<Device> {
    let cpu = Device {
        kind: "cpu".to_owned(),
        count: threads(std::env::var("RAYON_NUM_THREADS").ok().as_deref()),
        ..Device::default()
    };
    let gpus = Gpus::of_this_machine().unwrap_or_else(|error| {
        tracing::debug!("no GPUs in the inventory: {}", polestar_core::chain(&error));
        Gpus::default()
    });
    std::iter::once(cpu)
        .chain(gpus.0.into_iter().map(device))
        .collect()
}

fn device(gpu: Gpu) -> Device {
    let watts = |milliwatts: Option<u32>| milliwatts.map(|mw| mw / 1000);
    Device {
        kind: gpu.name,
        count: 1,
        gpu: GpuState {
            memory_bytes: gpu.memory_bytes,
            memory_used_bytes: gpu.memory_used_bytes,
            power_watts: watts(gpu.power_milliwatts),
            power_limit_watts: watts(gpu.power_limit_milliwatts),
            utilization_percent: gpu.utilization_percent,
        },
    }
}

/// The batch job that this process is part of.
fn job(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let of_array = || {
        let (job, task) = (
            variable("SLURM_ARRAY_JOB_ID")?,
            variable("SLURM_ARRAY_TASK_ID")?,
        );
        Some(format!("{job}_{task}"))
    };
    of_array().or_else(|| variable("SLURM_JOB_ID"))
}

/// Threads that compute, without starting them.
fn threads(told: Option<&str>) -> u32 {
    let told = told.and_then(|text| text.parse().ok()).filter(|&n| n > 0);
    told.unwrap_or_else(|| {
        let cores = std::thread::available_parallelism();
        cores.map_or(1, |cores| cores.get() as u32)
    })
}

/// Bytes that this process may use: those of the machine, or of the tightest control group around it.
fn memory(proc: &Path, groups: &Path) -> Option<ByteCount> {
    let whole = std::fs::read_to_string(proc.join("meminfo")).ok();
    let whole = whole.and_then(|text| total(&text));
    let own = std::fs::read_to_string(proc.join("self/cgroup")).ok();
    let limits = own.map(|own| limits(&own, groups));
    let all = whole.into_iter().chain(limits.into_iter().flatten());
    all.min().map(ByteCount)
}

/// The machine's memory, by what Linux says of it.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// What the control groups of this process allow, each of them and those around them.
fn limits(own: &str, groups: &Path) -> Vec<u64> {
    let mut found = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (root, file) = match controllers {
            "" => (groups.to_owned(), "memory.max"),
            c if c.split(',').any(|c| c == "memory") => {
                (groups.join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let inner: PathBuf = root.join(path.trim_start_matches('/'));
        for group in inner
            .ancestors()
            .take_while(|group| group.starts_with(&root))
        {
            let Ok(text) = std::fs::read_to_string(group.join(file)) else {
                continue;
            };
            // The newer kind says `max` where there is no limit.
            found.extend(text.trim().parse::<u64>().ok());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_the_tightest_limit_around() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let found = || memory(&root.path().join("proc"), &root.path().join("groups"));
        assert_eq!(found(), None);
        write("proc/meminfo", "MemFree: 5 kB\nMemTotal:      16384 kB\n");
        assert_eq!(found(), Some(ByteCount(16 << 20)));
        write("proc/self/cgroup", "0::/job/step\n");
        write("groups/job/step/memory.max", "max\n");
        write("groups/job/memory.max", "8388608\n");
        assert_eq!(
            found(),
            Some(ByteCount(8 << 20)),
            "that of the group around it"
        );
        write("groups/job/step/memory.max", "4194304\n");
        assert_eq!(found(), Some(ByteCount(4 << 20)));
        write("proc/self/cgroup", "3:cpu:/job\n2:memory:/old\n");
        write("groups/memory/old/memory.limit_in_bytes", "1048576\n");
        assert_eq!(found(), Some(ByteCount(1 << 20)));
        // Without a limit, the older kind says more than anybody has.
        write(
            "groups/memory/old/memory.limit_in_bytes",
            "9223372036854771712\n",
        );
        assert_eq!(found(), Some(ByteCount(16 << 20)));
    }

    #[test]
    fn a_job_is_named_as_slurm_names_it() {
        let job = |variables: &[(&str, &str)]| {
            let of = |name: &str| {
                let found = variables.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            job(of)
        };
        assert_eq!(job(&[]), None);
        assert_eq!(job(&[("SLURM_JOB_ID", "7")]).as_deref(), Some("7"));
        let array = [
            ("SLURM_JOB_ID", "9"),
            ("SLURM_ARRAY_JOB_ID", "7"),
            ("SLURM_ARRAY_TASK_ID", "2"),
        ];
        assert_eq!(job(&array).as_deref(), Some("7_2"));
    }
}
