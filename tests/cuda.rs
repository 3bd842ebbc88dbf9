//! `backend = "cuda"` through the real program, on stand-ins for CUDA's libraries: nothing here runs on a GPU.

use crate::{
    common::{Sandbox, json, kill, pid_in, small_sweep, transcript},
    standin::{Setting, StandIns},
};

const STEPS: u64 = 40;
const TRIAL: &str = "pico-40steps-s1";

fn sweep(changes: &str) -> String {
    let train = format!("[train]\nbackend = \"cuda\"\nprecision = \"bf16\"\n{changes}");
    let text = small_sweep(STEPS);
    assert!(text.contains("[train]\n"));
    text.replace("[train]\n", &train)
}

fn digest(sandbox: &Sandbox, store: &str) -> String {
    let result = json(&sandbox.result(store, TRIAL));
    let digest = result["outcome"]["digest"].as_str();
    digest.expect("a digest").to_owned()
}

#[test]
fn a_launch_on_cuda_has_one_digest_after_kills_too() {
    let Some(stand_ins) = StandIns::build(env!("CARGO_TARGET_TMPDIR")) else {
        return;
    };
    let sandbox = Sandbox::new();
    sandbox.write("alone.toml", &sweep(""));
    sandbox.write("together.toml", &sweep("zero = 3\nrecompute = true\n"));
    let command = |file: &str, store: &str, workers: &str, seed| {
        let world = ["--workers", workers, "--workers-per-trial", workers];
        let arguments = [&["launch", file, "--store", store], &world[..]].concat();
        let mut command = sandbox.command(&arguments);
        command.envs(stand_ins.environment(Setting {
            seed,
            ..Setting::default()
        }));
        command
    };
    let output = command("alone.toml", "runs", "1", 1)
        .output()
        .expect("the program starts");
    assert!(output.status.success(), "{}", transcript(&output));
    let expected = digest(&sandbox, "runs");

    let mut launched = command("together.toml", "killed", "2", 2);
    launched.stdout(std::process::Stdio::null());
    let mut launch = crate::common::Running::start(launched);
    let pids = [launch.wait_for(" joined"), launch.wait_for(" joined")].map(|line| pid_in(&line));
    launch.wait_for("step 10:");
    kill(pids[1]);
    launch.wait_for("resumes after step ");
    let (success, lines) = launch.finish();
    assert!(success, "{}", lines.join("\n"));
    assert_eq!(digest(&sandbox, "killed"), expected);

    // What computed is written down with what it computed, and what moved it.
    let written = manifest(&sandbox, "killed");
    let text = |key: &str| written[key].as_str().expect("text").to_owned();
    assert!(text("numerics").contains("stand-in (no GPU)"), "{written}");
    let shared = "host memory: rank 0 and rank 1 share a GPU";
    assert!(text("transport").starts_with(shared), "{written}");

    // A GPU for each. One dies when half of what it sends in a sum has gone, and the two that then meet have a communicator
    // of their own.
    let mut launched = command("together.toml", "nccl", "2", 3);
    let (devices, nccl_fault) = (2, Some("die:1:400"));
    launched.envs(stand_ins.environment(Setting {
        devices,
        nccl_fault,
        ..Setting::default()
    }));
    launched.stdout(std::process::Stdio::null());
    let mut launch = crate::common::Running::start(launched);
    launch.wait_for("resumes after step ");
    let (success, lines) = launch.finish();
    assert!(success, "{}", lines.join("\n"));
    assert_eq!(digest(&sandbox, "nccl"), expected);
    let transport = &manifest(&sandbox, "nccl")["transport"];
    assert_eq!(transport, "NCCL 2.27.0");
}

/// The newest checkpoint's.
fn manifest(sandbox: &Sandbox, store: &str) -> serde_json::Value {
    let checkpoints = sandbox.trial(store, TRIAL).join("checkpoints");
    let newest = std::fs::read_dir(checkpoints).expect("checkpoints");
    let newest = newest.map(|entry| entry.expect("readable").path()).max();
    json(&newest.expect("a checkpoint").join("manifest.json"))
}

#[test]
fn cuda_without_a_driver_or_in_f32_is_refused() {
    let sandbox = Sandbox::new();
    let text = sweep("").replace("precision = \"bf16\"", "precision = \"f32\"");
    sandbox.write("f32.toml", &text);
    let said = sandbox.refuse(&["plan", "f32.toml"]);
    assert!(said.contains("train.precision = \"bf16\""), "{said}");

    sandbox.write("sweep.toml", &sweep(""));
    let plan = sandbox.succeed(&["plan", "sweep.toml"]);
    assert!(plan.contains(TRIAL), "{plan}");
    if std::path::Path::new("/proc/driver/nvidia").exists() {
        println!("skipped: this machine has a driver");
        return;
    }
    let said = sandbox.refuse(&["launch", "sweep.toml"]);
    assert!(
        said.contains("libcuda.so") && said.contains("\"flex\""),
        "{said}"
    );
}
