//! One run, one answer: the same digest under different disturbances.

mod common;

use common::{Sandbox, json, kill, small_sweep};

const TRIAL: &str = "pico-40steps-s1";

fn digest_and_losses(sandbox: &Sandbox, store: &str) -> (String, u64) {
    let run = sandbox.only_run(store);
    let result = json(&run.join(format!("trials/{TRIAL}/result.json")));
    let digest = result["outcome"]["digest"].as_str().expect("a digest");
    let losses = result["losses"].as_u64().expect("a count");
    (digest.to_owned(), losses)
}

#[test]
fn the_digest_is_the_same_at_every_world_size_and_after_a_kill() {
    let sandbox = Sandbox::new();
    sandbox.write("sweep.toml", &small_sweep(40));
    let mut digests = Vec::new();
    for workers in ["1", "2", "3", "4"] {
        let store = format!("runs-{workers}");
        sandbox.succeed(&[
            "launch",
            "sweep.toml",
            "--store",
            &store,
            "--workers",
            workers,
            "--workers-per-trial",
            workers,
        ]);
        let (digest, losses) = digest_and_losses(&sandbox, &store);
        assert_eq!(losses, 0);
        digests.push(digest);
    }

    let mut launch = sandbox.start(&[
        "launch",
        "sweep.toml",
        "--store",
        "runs-killed",
        "--workers",
        "2",
        "--workers-per-trial",
        "2",
    ]);
    let joined = launch.wait_for("worker 2 joined");
    let pid = joined
        .rsplit("pid ")
        .next()
        .and_then(|p| p.trim_end_matches(')').parse().ok());
    launch.wait_for("step 20:");
    kill(pid.expect("a process id"));
    let (success, lines) = launch.finish();
    let lines = lines.join("\n");
    assert!(success, "{lines}");
    assert!(
        lines.contains("was lost"),
        "the kill was noticed as such:\n{lines}"
    );
    let resumed = lines
        .split("resumes after step ")
        .nth(1)
        .and_then(|l| l.split(' ').next()?.parse::<u64>().ok());
    assert!(
        resumed.is_some_and(|s| (15..40).contains(&s)),
        "it went on from a checkpoint:\n{lines}"
    );
    let (digest, losses) = digest_and_losses(&sandbox, "runs-killed");
    assert_eq!(losses, 1, "the fault fired once");
    digests.push(digest);

    assert!(digests.iter().all(|d| *d == digests[0]), "{digests:#?}");
}

#[test]
fn relaunching_does_only_what_is_missing() {
    let sandbox = Sandbox::new();
    let text = small_sweep(10).replace("steps = [10]", "steps = [5, 10]");
    sandbox.write("sweep.toml", &text);
    sandbox.succeed(&["launch", "sweep.toml"]);
    let run = sandbox.only_run("runs");
    let result = |steps: u64| run.join(format!("trials/pico-{steps}steps-s1/result.json"));
    let kept = std::fs::read(result(5)).expect("a result");
    let lost = json(&result(10));
    std::fs::remove_file(result(10)).expect("it is there");
    std::fs::remove_dir_all(run.join("report")).expect("it is there");

    let output = sandbox.run(&["launch", "sweep.toml"]);
    let said = common::said(&output);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("pico-5steps-s1 begins"), "{said}");
    assert_eq!(std::fs::read(result(5)).expect("a result"), kept);
    assert_eq!(
        json(&result(10))["outcome"]["digest"],
        lost["outcome"]["digest"]
    );
    assert!(run.join("report/report.html").exists());

    let again = sandbox.succeed(&["launch", "sweep.toml"]);
    assert!(again.contains("every trial is done already"), "{again}");
}
