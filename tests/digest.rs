//! One run, one answer: the same digest under different disturbances.

use crate::common::{Sandbox, json, kill, pid_in, small_sweep, transcript};

const STEPS: u64 = 200;
const TRIAL: &str = "pico-200steps-s1";

fn digest_and_losses(sandbox: &Sandbox, store: &str) -> (String, u64) {
    let result = json(&sandbox.result(store, TRIAL));
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
    // The next steps that are measured: every fifth.
    launch.wait_for(&format!("step {}:", (first + 10) / 5 * 5));
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
    let result = |steps: u64| sandbox.result("runs", &format!("pico-{steps}steps-s1"));
    let (five, ten) = (result(5), result(10));
    let kept = std::fs::read(&five).expect("a result");
    let lost = json(&ten);
    std::fs::remove_file(&ten).expect("it is there");
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
    assert_eq!(std::fs::read(&five).expect("a result"), kept);
    assert_eq!(json(&ten)["outcome"]["digest"], lost["outcome"]["digest"]);
    assert!(run.join("report/report.html").exists());

    let again = sandbox.succeed(&["launch", "sweep.toml"]);
    assert!(again.contains("every trial is done already"), "{again}");
}

/// What a launch says it trained: trials that began or resumed.
fn trained(said: &str) -> Vec<String> {
    let lines = said
        .lines()
        .filter(|line| line.contains(" begins ") || line.contains(" resumes "));
    let mut names: Vec<String> = lines
        .filter_map(|line| {
            Some(
                line.split_whitespace()
                    .find(|w| w.starts_with("pico-"))?
                    .to_owned(),
            )
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn a_sweep_that_grows_trains_only_what_is_new() {
    let sandbox = Sandbox::new();
    let text = small_sweep(5);
    sandbox.write("sweep.toml", &text);
    sandbox.succeed(&["launch", "sweep.toml"]);

    // Another length and another seed, listed before those that are there, under another name.
    let grown = text
        .replace("steps = [5]", "steps = [10, 5]\nseeds = [2, 1]")
        .replace("name = \"small\"", "name = \"grown\"");
    sandbox.write("grown.toml", &grown);
    let output = sandbox.run(&["launch", "grown.toml"]);
    let said = transcript(&output);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("1 of 4 trials are in the store already"),
        "{said}"
    );
    assert_eq!(
        trained(&said),
        ["pico-10steps-s1", "pico-10steps-s2", "pico-5steps-s2"]
    );

    // Scores on more triplets of the same trials: nothing is trained, everything is scored again.
    let finer = grown
        .replace("every = 5\ntriplets = 32", "triplets = 24")
        .replace("name = \"grown\"", "name = \"finer\"");
    assert!(finer.contains("triplets = 24"));
    sandbox.write("finer.toml", &finer);
    let output = sandbox.run(&["launch", "finer.toml"]);
    let said = transcript(&output);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains(" begins "), "{said}");
}

#[test]
fn a_fast_run_is_recorded_and_verified_as_what_it_is() {
    let sandbox = Sandbox::new();
    let text = small_sweep(5).replace("[train]\n", "[train]\nreduction = \"fast\"\nzero = 1\n");
    sandbox.write("sweep.toml", &text);
    let world = ["--workers", "3", "--workers-per-trial", "3"];
    sandbox.succeed(&[&["launch", "sweep.toml"], &world[..]].concat());
    let run = sandbox.only_run("runs");
    let record = json(&run.join("run.json"));
    let order = &record["plan"]["trials"][0]["config"]["recipe"]["arithmetic"]["order"];
    assert_eq!(order["fast"]["world"], 3);
    let page = std::fs::read_to_string(run.join("report/report.html")).expect("a report");
    assert!(page.contains("fast: the digests hold for 3 workers a trial at ZeRO 1"));

    let said = sandbox.succeed(&["verify", &run.display().to_string()]);
    assert!(
        said.contains("in a world of 3") && said.contains("as recorded"),
        "{said}"
    );

    // Another world is another answer, and never mistaken for this one.
    sandbox.succeed(&["launch", "sweep.toml", "--store", "alone"]);
    let recipe = |store: &str| {
        sandbox
            .trial(store, "pico-5steps-s1")
            .file_name()
            .map(|n| n.to_owned())
    };
    assert_ne!(recipe("runs"), recipe("alone"));
}
