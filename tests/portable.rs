//! The small training run on burn's portable GPU backend, in processes of its own.
//!
//! It needs a build with the feature `wgpu` and a Vulkan driver, which may compute on the CPU:
//! `scripts/setup-lavapipe`, as CI does. Elsewhere it says that it is skipped.

use crate::common::{Sandbox, json, small_sweep, transcript};

const STEPS: u64 = 10;
const TRIAL: &str = "pico-10steps-s1";
/// Largest difference of a validation loss from the CPU backend's after these steps, in nats.
const TOLERANCE: f64 = 1e-4;

/// A sweep of the small run with this in `[train]`.
fn sweep(keys: &str) -> String {
    let text = small_sweep(STEPS).replace("[train]\n", &format!("[train]\n{keys}\n"));
    assert!(text.contains(keys));
    text
}

/// Its digest and the losses at the end, of held-out prompts and of held-out policies.
fn outcome(sandbox: &Sandbox, store: &str) -> (String, [f64; 2]) {
    let outcome = json(&sandbox.result(store, TRIAL))["outcome"].clone();
    let digest = outcome["digest"].as_str().expect("a digest");
    let loss = |set: &str| {
        let loss = outcome["validation"][set]["loss"].as_f64();
        loss.unwrap_or_else(|| panic!("a loss of {set}: {outcome}"))
    };
    (
        digest.to_owned(),
        ["heldout_prompts", "heldout_policies"].map(loss),
    )
}

#[test]
fn wgpu_trains_in_two_processes_at_every_zero_stage_as_the_cpu_does() {
    let sandbox = Sandbox::new();
    sandbox.write("flex.toml", &sweep("zero = 0"));
    sandbox.succeed(&["launch", "flex.toml", "--store", "flex"]);
    let (flex, expected) = outcome(&sandbox, "flex");

    let mut digests = Vec::new();
    for zero in 0..=3 {
        let (file, store) = (format!("{zero}.toml"), format!("wgpu-{zero}"));
        let keys = format!("backend = \"burn-wgpu\"\nzero = {zero}");
        sandbox.write(&file, &sweep(&keys));
        let two = ["--workers", "2", "--workers-per-trial", "2"];
        let output = sandbox.run(&[&["launch", &file, "--store", &store], &two[..]].concat());
        let said = transcript(&output);
        if said.contains("was built without") || said.contains("has no device for it") {
            println!("skipped: no build with the feature wgpu, or no Vulkan driver");
            return;
        }
        assert!(output.status.success(), "{said}");
        let (digest, losses) = outcome(&sandbox, &store);
        assert_ne!(digest, flex, "it was another backend");
        for (loss, expected) in losses.iter().zip(&expected) {
            assert!((loss - expected).abs() < TOLERANCE, "{loss} {expected}");
        }
        digests.push(digest);
    }
    assert!(digests.iter().all(|d| *d == digests[0]), "{digests:#?}");
}
