//! A worker that dies costs its trial at most one step, though there is no checkpoint.

use crate::common::{Running, Sandbox, json, kill, pid_in, small_sweep};

const STEPS: u64 = 120;

/// The last step whose scores were told.
fn told(lines: &[String]) -> u64 {
    let mut steps = lines.iter().filter_map(|line| {
        let rest = line.split(" step ").nth(1)?;
        rest.split_once(':')?.0.parse().ok()
    });
    steps.next_back().expect("a step was told")
}

/// Kills a worker and returns where its trial was, and where it went on.
fn killed(launch: &mut Running, pid: u32) -> (u64, u64) {
    kill(pid);
    let line = launch.wait_for(" resumes after step ");
    let (_, rest) = line
        .split_once(" resumes after step ")
        .expect("it was waited for");
    let (step, rest) = rest.split_once(' ').expect("more words");
    assert!(rest.starts_with("from memory "), "{line}");
    (told(&launch.seen), step.parse().expect("a number"))
}

#[test]
fn a_trial_that_loses_a_worker_goes_on_at_most_one_step_before() {
    let sandbox = Sandbox::new();
    // Every step is told; none is saved but the last.
    let text = small_sweep(STEPS)
        .replace(
            "[train.validation]\nevery = 5",
            "[train.validation]\nevery = 1",
        )
        .replace(
            "[train.checkpoint]\nevery = 5",
            "[train.checkpoint]\nevery = 0",
        );
    assert_eq!(text.matches("every = 5").count(), 0);
    sandbox.write("sweep.toml", &text);
    sandbox.succeed(&["launch", "sweep.toml", "--store", "undisturbed"]);
    let answer = |store: &str| {
        let mut result = json(&sandbox.result(store, &format!("pico-{STEPS}steps-s1")));
        let outcome = result["outcome"].take();
        (outcome["digest"].clone(), outcome["validation"].clone())
    };
    for zero in [0, 2] {
        let (file, store) = (format!("zero-{zero}.toml"), format!("killed-{zero}"));
        sandbox.write(
            &file,
            &text.replace("[train]\n", &format!("[train]\nzero = {zero}\n")),
        );
        let pool = ["--workers", "3", "--workers-per-trial", "2"];
        let mut launch =
            sandbox.start(&[&["launch", &file, "--store", &store], &pool[..]].concat());
        // The first two are the trial's ranks.
        let pids = [0, 1, 2].map(|_| pid_in(&launch.wait_for(" joined")));
        launch.wait_for(" step 20:");
        let (before, after) = killed(&mut launch, pids[1]);
        assert!(after >= before, "zero {zero}: {after} after {before}");
        // Rank 0, which has told of it all.
        launch.wait_for(&format!(" step {}:", after + 10));
        let (before, again) = killed(&mut launch, pids[0]);
        assert!(
            again >= before && again > after,
            "zero {zero}: {again} after {before}"
        );
        let (success, lines) = launch.finish();
        let lines = lines.join("\n");
        assert!(success, "{lines}");
        assert_eq!(
            lines.matches("was lost").count(),
            2,
            "both kills fired:\n{lines}"
        );
        assert_eq!(answer(&store), answer("undisturbed"), "zero {zero}");
    }
}
