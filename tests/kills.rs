//! All processes of a launch killed at random moments, its store on S3: relaunching ends with the
//! digest of a run that nobody disturbed, every time.

use crate::common::{
    Sandbox, json,
    s3_server::{BUCKET, S3Server},
    small_sweep, transcript,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::process::{Pid, Signal, kill_process_group};
use std::{
    os::unix::process::CommandExt,
    process::{Output, Stdio},
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::Duration,
};

const STEPS: u64 = 120;
/// What must have happened: kills that found the launch alive.
const KILLS: usize = 50;
/// Longer than a launch needs to get to its first checkpoint, shorter than one needs to the end.
const LONGEST: Duration = Duration::from_millis(3000);

/// A launch that is killed after `patience`, with all its workers; `None` if it was.
fn launch(
    sandbox: &Sandbox,
    file: &str,
    environment: &[(String, String)],
    patience: Duration,
) -> Option<Output> {
    let mut command =
        sandbox.command(&["launch", file, "--workers", "2", "--workers-per-trial", "2"]);
    let child = command
        .envs(environment.iter().cloned())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .expect("the program starts");
    let group = Pid::from_raw(child.id() as i32).expect("a process id");
    let (ended, end) = channel();
    let waiting = thread::spawn(move || {
        let output = child.wait_with_output().expect("it was started");
        // Nobody listens any more to one that was killed.
        let _ = ended.send(());
        output
    });
    let killed = match end.recv_timeout(patience) {
        Ok(()) => false,
        Err(RecvTimeoutError::Timeout) => kill_process_group(group, Signal::KILL).is_ok(),
        Err(RecvTimeoutError::Disconnected) => panic!("the waiting thread panicked"),
    };
    let output = waiting.join().expect("it only waits");
    let survived = !killed || output.status.code().is_some();
    survived.then_some(output)
}

fn survives(base: &str, environment: &[(String, String)]) {
    let sandbox = Sandbox::new();
    let text = small_sweep(STEPS);
    sandbox.write("undisturbed.toml", &text);
    sandbox.succeed(&["launch", "undisturbed.toml"]);
    let result = sandbox.result("runs", &format!("pico-{STEPS}steps-s1"));
    let expected = json(&result)["outcome"]["digest"].to_string();
    let expected = expected.trim_matches('"');

    let mut random = ChaCha8Rng::seed_from_u64(1);
    let (mut kills, mut runs) = (0, 0);
    while kills < KILLS {
        runs += 1;
        let file = format!("run-{runs}.toml");
        let text = text
            .replace(
                "store = \"runs\"",
                &format!("store = \"{base}/runs-{runs}\""),
            )
            .replace(
                "url = \"corpus\"",
                &format!("url = \"{base}/corpus-{runs}\""),
            );
        assert!(text.matches(base).count() == 2);
        sandbox.write(&file, &text);
        let output = loop {
            let longest = if kills < KILLS {
                LONGEST
            } else {
                Duration::from_secs(300)
            };
            let patience = longest.mul_f64(random.random_range(0.01..1.0));
            match launch(&sandbox, &file, environment, patience) {
                Some(output) => break output,
                None => kills += 1,
            }
        };
        let said = transcript(&output);
        assert!(output.status.success(), "after {kills} kills: {said}");
        let again = sandbox
            .command(&["launch", &file])
            .envs(environment.iter().cloned())
            .output();
        let again = transcript(&again.expect("the program starts"));
        assert!(again.contains("every trial is done already"), "{again}");
        assert!(again.contains(&expected[..12]), "not {expected}: {again}");
    }
    println!("{kills} kills in {runs} runs");
}

#[test]
fn a_launch_on_s3_survives_fifty_kills() {
    let server = S3Server::start();
    survives(&format!("s3://{BUCKET}/kills"), &server.environment());
}

#[test]
fn a_launch_on_the_named_s3_server_survives_fifty_kills() {
    let Ok(base) = std::env::var("POLESTAR_S3_URL") else {
        println!("skipped: POLESTAR_S3_URL is not set");
        return;
    };
    let settings = std::env::vars().filter(|(name, _)| name.starts_with("AWS_"));
    survives(&format!("{base}/kills"), &settings.collect::<Vec<_>>());
}
