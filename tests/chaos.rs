//! Faults at random moments, in real processes: whatever dies, the digest is that of a run that nobody disturbed.
//! Every test proves that its faults struck.

use crate::common::{Running, Sandbox, json, kill, pid_in, small_sweep, transcript};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    process::Stdio,
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::Duration,
};

/// Long enough for faults to find it at work.
const STEPS: u64 = 400;
const TRIAL: &str = "pico-400steps-s1";

/// A sweep whose workers look for a coordinator for a while, and whose leaders are soon missed.
fn sweep(sandbox: &Sandbox) {
    let pool = "workers = 2\nworkers_per_trial = 2\nlosses = 1000\nlease_seconds = 2\ngrace_seconds = 20\n\
                deadline_seconds = 5.0\n[pool.deadlines]\nrejoining_seconds = 3";
    let text = small_sweep(STEPS).replace("workers = 1", pool);
    sandbox.write("sweep.toml", &text);
    sandbox.succeed(&["launch", "sweep.toml", "--store", "undisturbed"]);
}

fn digest(sandbox: &Sandbox, store: &str) -> serde_json::Value {
    json(&sandbox.result(store, TRIAL))["outcome"]["digest"].clone()
}

fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid as i32).expect("a process id");
    kill_process(pid, signal).expect("it runs");
}

/// Reads what a launch says until its workers train, and returns their processes.
fn trains(launch: &mut Running) -> [u32; 2] {
    let first = pid_in(&launch.wait_for(" joined"));
    let second = pid_in(&launch.wait_for(" joined"));
    launch.wait_for("step 20:");
    [first, second]
}

#[test]
fn a_generation_outlives_its_coordinator() {
    let sandbox = Sandbox::new();
    sweep(&sandbox);
    let mut launch = sandbox.start(&["launch", "sweep.toml"]);
    trains(&mut launch);
    kill(launch.pid());
    let (success, _) = launch.finish();
    assert!(!success, "it was killed");

    let again = sandbox.run(&["launch", "sweep.toml"]);
    let said = transcript(&again);
    assert!(again.status.success(), "{said}");
    // Nothing was trained twice: the ranks went on, or were at their end when they came back.
    assert!(said.contains("its 2 workers are back"), "{said}");
    assert!(!said.contains("resumes after"), "{said}");
    assert_eq!(digest(&sandbox, "runs"), digest(&sandbox, "undisturbed"));

    let run = sandbox.only_run("runs");
    let run = run.to_str().expect("a plain path");
    let diagnosis = sandbox.run(&["diagnose", run]);
    assert_eq!(
        diagnosis.status.code(),
        Some(0),
        "{}",
        transcript(&diagnosis)
    );
    let history = sandbox.succeed(&["replay", run]);
    assert!(
        history.matches("a coordinator leads in").count() == 2,
        "{history}"
    );
}

#[test]
fn a_coordinator_that_wakes_up_is_fenced_and_the_next_has_its_workers() {
    let sandbox = Sandbox::new();
    sweep(&sandbox);
    let mut first = sandbox.start(&["launch", "sweep.toml"]);
    trains(&mut first);
    send(first.pid(), Signal::STOP);
    let mut second = sandbox.start(&["launch", "sweep.toml"]);
    second.wait_for("waiting 3 s to see whether it lives");
    second.wait_for(" joined");
    send(first.pid(), Signal::CONT);
    let (success, lines) = first.finish();
    let lines = lines.join("\n");
    assert!(
        !success && lines.contains("another coordinator leads the run"),
        "{lines}"
    );
    let (success, lines) = second.finish();
    assert!(success, "{}", lines.join("\n"));
    assert_eq!(digest(&sandbox, "runs"), digest(&sandbox, "undisturbed"));
}

#[test]
fn the_second_of_two_launches_says_who_leads() {
    let sandbox = Sandbox::new();
    sweep(&sandbox);
    let mut first = sandbox.start(&["launch", "sweep.toml"]);
    trains(&mut first);
    let refused = sandbox.refuse(&["launch", "sweep.toml"]);
    let leader = format!("process {}", first.pid());
    assert!(
        refused.contains("another coordinator leads this run") && refused.contains(&leader),
        "{refused}"
    );
    let run = sandbox.only_run("runs");
    let status = sandbox.succeed(&["status", run.to_str().expect("a plain path")]);
    assert!(status.contains(&leader), "{status}");
    let (success, lines) = first.finish();
    assert!(success, "{}", lines.join("\n"));
    assert_eq!(digest(&sandbox, "runs"), digest(&sandbox, "undisturbed"));
}

#[test]
fn the_first_interrupt_saves_and_the_next_launch_goes_on_from_there() {
    let sandbox = Sandbox::new();
    sweep(&sandbox);
    let mut launch = sandbox.start(&["launch", "sweep.toml"]);
    trains(&mut launch);
    send(launch.pid(), Signal::INT);
    let saved = launch.wait_for("is saved at step ");
    let (success, lines) = launch.finish();
    let lines = lines.join("\n");
    assert!(
        !success && lines.contains("the same command goes on"),
        "{lines}"
    );
    let step = saved
        .split("is saved at step ")
        .nth(1)
        .and_then(|s| s.split(' ').next());
    let step = step.expect("a number");

    let again = sandbox.run(&["launch", "sweep.toml"]);
    let said = transcript(&again);
    assert!(again.status.success(), "{said}");
    let resumed = format!("resumes after step {step} from");
    assert!(said.contains(&resumed), "not {resumed}: {said}");
    assert_eq!(digest(&sandbox, "runs"), digest(&sandbox, "undisturbed"));
}

/// What is killed, and what is left to be killed.
#[derive(Debug, Default)]
struct Kills {
    workers: u32,
    all_workers: u32,
    coordinators: u32,
    everything: u32,
}

#[test]
fn kills_at_random_moments_change_no_digest() {
    const KILLS: u32 = 100;
    let sandbox = Sandbox::new();
    sweep(&sandbox);
    let expected = digest(&sandbox, "undisturbed");
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let (mut done, mut runs) = (Kills::default(), 0);
    let total = |k: &Kills| k.workers + k.all_workers + k.coordinators + k.everything;
    while total(&done) < KILLS {
        runs += 1;
        let store = format!("runs-{runs}");
        loop {
            let launch = sandbox
                .command(&["launch", "sweep.toml", "--store", &store])
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .expect("the program starts");
            let coordinator = launch.id();
            let (end, ended) = channel::<()>();
            let waiting = thread::spawn(move || {
                let output = launch.wait_with_output().expect("it was started");
                drop(end);
                output
            });
            while !waiting.is_finished() && total(&done) < KILLS {
                // The moment is random, and comes early if the launch ends before it.
                let pause = Duration::from_millis(random.random_range(50..1300));
                match ended.recv_timeout(pause) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
                }
                let workers = children(coordinator);
                let struck = |pids: &[u32]| pids.iter().filter(|&&pid| try_kill(pid)).count() > 0;
                match random.random_range(0..10) {
                    0 => {
                        let all = [&workers[..], &[coordinator]].concat();
                        done.everything += u32::from(struck(&all));
                        break;
                    }
                    1 => {
                        done.coordinators += u32::from(struck(&[coordinator]));
                        break;
                    }
                    2 => done.all_workers += u32::from(struck(&workers)),
                    _ if workers.is_empty() => {}
                    _ => {
                        let one = workers[random.random_range(0..workers.len())];
                        done.workers += u32::from(struck(&[one]));
                    }
                }
            }
            let output = waiting.join().expect("it only waits");
            match output.status.code() {
                Some(0) => break,
                // It was killed.
                None => {}
                Some(_) => panic!("after {done:?}: {}", transcript(&output)),
            }
        }
        assert_eq!(digest(&sandbox, &store), expected, "after {done:?}");
    }
    println!("{done:?} in {runs} runs");
    assert!(done.workers > 30 && done.all_workers > 0, "{done:?}");
    assert!(done.coordinators > 0 && done.everything > 0, "{done:?}");
}

/// The processes that a process has started.
fn children(pid: u32) -> Vec<u32> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let mut all: Vec<u32> = list
        .iter()
        .flat_map(|list| list.split_whitespace())
        .filter_map(|pid| pid.parse().ok())
        .collect();
    for task in tasks.into_iter().flatten().flatten() {
        let list = std::fs::read_to_string(task.path().join("children"));
        let pids = list.iter().flat_map(|list| list.split_whitespace());
        all.extend(pids.filter_map(|pid| pid.parse::<u32>().ok()));
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// Kills a process. Whether it was there, and not dead already.
fn try_kill(pid: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    let alive = state.is_ok_and(|stat| !stat.contains(") Z "));
    let pid = Pid::from_raw(pid as i32).expect("a process id");
    alive && kill_process(pid, Signal::KILL).is_ok()
}
