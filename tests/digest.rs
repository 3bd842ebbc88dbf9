//! One run, one answer: the same digest under different disturbances.

use crate::common::{Sandbox, json, kill, pid_in, small_sweep, transcript};

const STEPS: u64 = 200;
const TRIAL: &str = "pico-200steps-s1";

fn digest_and_losses(sandbox: &Sandbox, store: &str) -> (String, u64) {
    let run = sandbox.only_run(store);
    let result = json(&run.join(format!("trials/{TRIAL}/result.json")));
    let digest = result["outcome"]["digest"].as_str().expect("a digest");
    let losses = result["losses"].as_u64().expect("a count");
    (digest.to_owned(), losses)
}

/// Step in a line such as `trial resumes after step 15 (200 steps, …)`.
fn resumed_at(line: &str) -> u64 {
    let rest = line.split("resumes after step ").nth(1);
    let step = rest.and_then(|r| r.split(' ').next()?.parse().ok());
    step.expect("a step")
}

#[test]
fn the_digest_is_the_same_at_every_world_size_and_after_kills() {
    let sandbox = Sandbox::new();
    sandbox.write("sweep.toml", &small_sweep(STEPS));
    let mut digests = Vec::new();
    for workers in ["1", "2", "3", "4"] {
        let store = format!("runs-{workers}");
        let world = ["--workers", workers, "--workers-per-trial", workers];
        sandbox.succeed(&[&["launch", "sweep.toml", "--store", &store], &world[..]].concat());
        let (digest, losses) = digest_and_losses(&sandbox, &store);
        assert_eq!(losses, 0);
        digests.push(digest);
    }

    // What is sharded makes no difference either.
    for (zero, workers) in [(1, "3"), (2, "2"), (3, "3")] {
        let (file, store) = (format!("zero-{zero}.toml"), format!("runs-zero-{zero}"));
        let text = small_sweep(STEPS).replace("[train]\n", &format!("[train]\nzero = {zero}\n"));
        assert!(text.contains("zero ="));
        sandbox.write(&file, &text);
        let world = ["--workers", workers, "--workers-per-trial", workers];
        sandbox.succeed(&[&["launch", &file, "--store", &store], &world[..]].concat());
        digests.push(digest_and_losses(&sandbox, &store).0);
    }

    // Two workers; first one rank is killed, then the other: one of them is rank 0, which saves.
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
    let pids = [launch.wait_for(" joined"), launch.wait_for(" joined")].map(|l| pid_in(&l));
    launch.wait_for("step 20:");
    kill(pids[1]);
    let first = resumed_at(&launch.wait_for("resumes after step "));
    launch.wait_for(&format!("step {}:", first + 10));
    kill(pids[0]);
    let second = resumed_at(&launch.wait_for("resumes after step "));
    let (success, lines) = launch.finish();
    let lines = lines.join("\n");
    assert!(success, "{lines}");
    assert_eq!(
        lines.matches("was lost").count(),
        2,
        "both kills were noticed as such:\n{lines}"
    );
    assert!(
        (15..STEPS).contains(&first) && (first..STEPS).contains(&second),
        "{lines}"
    );
    let (digest, losses) = digest_and_losses(&sandbox, "runs-killed");
    assert_eq!(losses, 2, "both faults fired");
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
    let said = transcript(&output);
    assert!(output.status.success(), "{said}");
    for word in ["begins", "resumes"] {
        assert!(!said.contains(&format!("pico-5steps-s1 {word}")), "{said}");
        assert_eq!(
            said.contains(&format!("pico-10steps-s1 {word}")),
            word == "resumes",
            "{said}"
        );
    }
    assert_eq!(std::fs::read(result(5)).expect("a result"), kept);
    assert_eq!(
        json(&result(10))["outcome"]["digest"],
        lost["outcome"]["digest"]
    );
    assert!(run.join("report/report.html").exists());

    let again = sandbox.succeed(&["launch", "sweep.toml"]);
    assert!(again.contains("every trial is done already"), "{again}");
}
