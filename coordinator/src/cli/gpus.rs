//! `gpus`: what NVIDIA's driver tells of this machine's GPUs.

use super::table::table;
use polestar_core::chain;
use polestar_worker::gpus::{Gpu, Gpus};

/// Prints them, or why there are none: that is no fault of a machine.
pub(super) fn show() {
    match Gpus::of_this_machine() {
        Ok(Gpus(gpus)) if gpus.is_empty() => {
            println!(
                "no GPU: the driver is there and shows none (CUDA_VISIBLE_DEVICES may hide them)"
            );
        }
        Ok(Gpus(gpus)) => print!("{}", listed(&gpus)),
        Err(error) => println!("no GPU: {}", chain(&error)),
    }
}

fn listed(gpus: &[Gpu]) -> String {
    let head = [
        "GPU",
        "memory",
        "in use",
        "power",
        "limit",
        "busy",
        "NUMA node",
        "UUID",
    ];
    let rows: Vec<Vec<String>> = gpus.iter().map(row).collect();
    table(&head, &rows)
}

fn row(gpu: &Gpu) -> Vec<String> {
    fn known<T>(value: Option<T>, text: impl Fn(T) -> String) -> String {
        value.map_or_else(|| "?".to_owned(), text)
    }
    let watts = |milliwatts: u32| format!("{} W", milliwatts / 1000);
    vec![
        gpu.name.clone(),
        known(gpu.memory_bytes, |bytes| bytes.to_string()),
        known(gpu.memory_used_bytes, |bytes| bytes.to_string()),
        known(gpu.power_milliwatts, watts),
        known(gpu.power_limit_milliwatts, watts),
        known(gpu.utilization_percent, |percent| format!("{percent}%")),
        known(gpu.numa_node, |node| node.to_string()),
        gpu.uuid.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use polestar_core::ByteCount;

    #[test]
    fn what_the_driver_does_not_tell_is_a_question_mark() {
        let gpu = Gpu {
            uuid: "GPU-1".to_owned(),
            name: "NVIDIA H100 80GB HBM3".to_owned(),
            memory_bytes: Some(ByteCount(80 << 30)),
            power_milliwatts: Some(71_500),
            ..Gpu::default()
        };
        let text = listed(&[gpu]);
        let line = text.lines().last().unwrap();
        assert!(line.contains("80.0 GiB") && line.contains("71 W"), "{text}");
        assert_eq!(line.matches('?').count(), 4, "{text}");
    }
}
