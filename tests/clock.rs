//! The time of day jumps while a sweep is trained: leases, deadlines and waits go by another clock, so nothing comes
//! of it. The clock that jumps is that of libfaketime, which is preloaded into the launch and its workers.

use crate::common::{Running, Sandbox, json, small_sweep};
use std::{path::Path, process::Stdio};

const STEPS: u64 = 400;
const TRIAL: &str = "pico-400steps-s1";
/// Where Debian and others have it.
const LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
];

#[test]
fn a_clock_that_jumps_by_days_changes_nothing() {
    let library = LIBRARIES.into_iter().find(|path| Path::new(path).exists());
    let Some(library) = library else {
        return println!("skipped: libfaketime is not installed");
    };
    let sandbox = Sandbox::new();
    let pool = "workers = 2\nworkers_per_trial = 2\nlease_seconds = 2\ngrace_seconds = 20\ndeadline_seconds = 5.0";
    let text = small_sweep(STEPS).replace("workers = 1", pool);
    sandbox.write("sweep.toml", &text);
    sandbox.succeed(&["launch", "sweep.toml", "--store", "undisturbed"]);

    let clock = sandbox.write("clock", "+0\n");
    let mut launch = sandbox.command(&["launch", "sweep.toml"]);
    launch
        .stdout(Stdio::null())
        .env("LD_PRELOAD", library)
        .env("FAKETIME_TIMESTAMP_FILE", &clock)
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let mut launch = Running::start(launch);
    for (step, jump) in [(20, "+10d\n"), (100, "-10d\n"), (200, "+0\n")] {
        launch.wait_for(&format!(" step {step}:"));
        // At once and whole, as programs look at it all the time.
        let next = sandbox.write("next", jump);
        std::fs::rename(next, &clock).expect("both are in one folder");
    }
    let (success, lines) = launch.finish();
    let lines = lines.join("\n");
    assert!(success, "{lines}");
    assert!(
        !lines.contains("the store doesn't answer"),
        "the lease was kept: {lines}"
    );
    let [runs, undisturbed] =
        ["runs", "undisturbed"].map(|store| json(&sandbox.result(store, TRIAL)));
    assert_eq!(runs["outcome"]["digest"], undisturbed["outcome"]["digest"]);
    assert_eq!(
        (&runs["losses"], &runs["failures"]),
        (&0.into(), &0.into()),
        "{lines}"
    );
    // The journal says when things happened by the time of day: it went forth and back.
    let history = sandbox.succeed(&[
        "replay",
        sandbox.only_run("runs").to_str().expect("a plain path"),
    ]);
    let days: std::collections::BTreeSet<&str> = history
        .lines()
        .filter_map(|line| {
            line.split_whitespace()
                .find(|word| word.matches('-').count() == 2 && word.len() == 10)
        })
        .collect();
    assert!(days.len() >= 3, "the clock jumped: {days:?}\n{history}");
}
