//! The stand-in finds the mistakes it is there for.

use crate::library::{Host, at};
use polestar_kernels::cuda::abi::Launch;

fn launch(kernel: &'static str, shared: u32, arguments: Vec<u64>) -> Launch {
    Launch {
        kernel,
        blocks: [1, 1, 1],
        threads: 128,
        shared,
        arguments,
    }
}

#[test]
fn what_a_device_would_hang_on_ends_with_a_message() {
    let Some(host) = Host::open() else { return };
    let (input, mut out) = (vec![7_u32; 4 * 128], vec![0_u32; 128]);
    let (input, out) = (at(&input), out.as_mut_ptr() as u64);
    let cases = [
        (launch("fault_skipped_barrier", 0, vec![out]), "barrier"),
        (launch("fault_other_barrier", 0, vec![out]), "barrier"),
        (
            launch("fault_left_warp", 0, vec![out]),
            "has left the kernel",
        ),
        (
            launch("fault_copies_left", 2048, vec![input, out]),
            "copies under way",
        ),
        (
            launch("fault_outside", 2048, vec![out]),
            "ldmatrix at byte 2048 of 2048",
        ),
    ];
    for (launch, part) in cases {
        let before = host.launches(launch.kernel);
        for seed in 0..4 {
            let message = host.try_launch(&launch, seed).expect_err(launch.kernel);
            assert!(
                message.contains(part) && message.contains(launch.kernel),
                "{message}"
            );
        }
        assert_eq!(
            host.launches(launch.kernel),
            before,
            "what failed isn't counted"
        );
    }
    let unknown = host
        .try_launch(&launch("fault_none", 0, vec![]), 0)
        .unwrap_err();
    assert!(
        unknown.contains("no kernel is called fault_none"),
        "{unknown}"
    );
}

#[test]
fn races_and_early_reads_show_as_other_results() {
    let Some(host) = Host::open() else { return };
    let input: Vec<u32> = (0..4 * 128).collect();
    for (kernel, arguments) in [
        ("fault_missing_barrier", vec![]),
        ("fault_missing_wait", vec![at(&input)]),
    ] {
        let before = host.launches(kernel);
        let mut results = Vec::new();
        for seed in 0..4 {
            let mut out = vec![0_u32; 128];
            let arguments = [arguments.clone(), vec![out.as_mut_ptr() as u64]].concat();
            host.try_launch(&launch(kernel, 2048, arguments), seed)
                .expect(kernel);
            results.push(out);
        }
        assert!(
            results.iter().any(|out| *out != results[0]),
            "{kernel}: another order, another result"
        );
        assert_eq!(host.launches(kernel), before + 4);
    }
}
