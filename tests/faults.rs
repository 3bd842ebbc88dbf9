//! What goes wrong is named: a loss that is no number, a rank that stalls.

use crate::common::{Sandbox, json, pid_in, small_sweep, transcript};
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn a_loss_that_is_no_number_abandons_the_trial_by_name_and_keeps_its_checkpoint() {
    let sandbox = Sandbox::new();
    let text = small_sweep(20).replace("lr = 3e-3", "lr = 3e38");
    let text = text.replace(
        "[train.checkpoint]\nevery = 5",
        "[train.checkpoint]\nevery = 1",
    );
    sandbox.write("sweep.toml", &text);
    let output = sandbox.run(&["launch", "sweep.toml"]);
    let said = transcript(&output);
    assert!(!output.status.success(), "{said}");
    // Step, lane and segment, or the norm that all lanes together have.
    let line = said
        .lines()
        .find(|l| l.contains("is abandoned"))
        .unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains("failed in compute: step "), "{line}");
    assert!(
        line.contains("lane ") && line.contains("segment `"),
        "{line}"
    );
    assert!(line.contains("train.optimizer.lr"), "{line}");
    let checkpoints = sandbox.trial("runs", "pico-20steps-s1").join("checkpoints");
    let kept = std::fs::read_dir(&checkpoints)
        .expect("it is there")
        .count();
    assert!(kept > 0, "{said}");

    // Whoever comes later knows as much.
    let run = sandbox.only_run("runs");
    let run = run.to_str().expect("a plain path");
    let abandoned = "pico-20steps-s1 was abandoned: rank 0";
    for command in ["status", "report"] {
        let said = sandbox.succeed(&[command, run]);
        let line = said.lines().find(|l| l.contains(abandoned));
        let line = line.unwrap_or_else(|| panic!("{command}: {said}"));
        assert!(line.contains("failed in compute: step "), "{line}");
    }
    let page = sandbox.only_run("runs").join("report/report.html");
    let page = std::fs::read_to_string(page).expect("it was written");
    assert!(page.contains("failed in compute: step "));

    // The same would happen again, so it is tried only by order.
    let again = sandbox.run(&["launch", "sweep.toml"]);
    let said = transcript(&again);
    assert!(!again.status.success(), "{said}");
    assert!(
        said.contains(abandoned) && said.contains("--retry-abandoned"),
        "{said}"
    );
    assert!(
        !said.contains(" resumes after") && !said.contains(" begins"),
        "{said}"
    );
    let forced = transcript(&sandbox.run(&["launch", "sweep.toml", "--retry-abandoned"]));
    assert!(
        forced.contains(" resumes after") || forced.contains(" begins"),
        "{forced}"
    );
}

#[test]
fn a_report_that_can_not_be_written_hides_no_results() {
    let sandbox = Sandbox::new();
    sandbox.write("sweep.toml", &small_sweep(5));
    sandbox.succeed(&["launch", "sweep.toml"]);
    let report = sandbox.only_run("runs").join("report");
    std::fs::remove_dir_all(&report).expect("it is there");
    std::fs::write(&report, "in the way").expect("writable");
    let output = sandbox.run(&["launch", "sweep.toml"]);
    let said = transcript(&output);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("the results are safe"), "{said}");
    assert!(
        said.contains("pico-5steps-s1"),
        "the summary is there: {said}"
    );
}

#[test]
fn a_rank_that_stalls_is_named_by_the_others_and_replaced() {
    const STEPS: u64 = 200;
    let sandbox = Sandbox::new();
    let text = small_sweep(STEPS).replace("workers = 1", "workers = 2\ndeadline_seconds = 2.0");
    sandbox.write("sweep.toml", &text);
    sandbox.succeed(&["launch", "sweep.toml", "--store", "undisturbed"]);

    let mut launch = sandbox.start(&[
        "launch",
        "sweep.toml",
        "--store",
        "stalled",
        "--workers-per-trial",
        "2",
    ]);
    let _ = launch.wait_for(" joined");
    let second = pid_in(&launch.wait_for(" joined"));
    launch.wait_for("step 20:");
    let process = Pid::from_raw(second as i32).expect("a process id");
    kill_process(process, Signal::STOP).expect("it runs");
    let named = launch.wait_for("sent nothing for 2 s");
    assert!(named.contains("failed in collective"), "{named}");
    // Which process that rank is.
    let ranks = launch.wait_for("rank 0 is ");
    assert!(ranks.contains(&format!("pid {second})")), "{ranks}");
    // Nobody wakes it: it is found silent, ended and replaced.
    launch.wait_for(" left");
    let (success, lines) = launch.finish();
    assert!(success, "{}", lines.join("\n"));

    let digest = |store| {
        let result = sandbox.result(store, &format!("pico-{STEPS}steps-s1"));
        json(&result)["outcome"]["digest"].clone()
    };
    assert_eq!(digest("stalled"), digest("undisturbed"));
}
