//! `cargo xtask verify`: everything that CI runs, cheapest first.

use std::process::{Command, ExitCode};

/// What `verify` runs, in order: name, program and arguments, environment.
const STEPS: [(&str, &[&str], &[(&str, &str)]); 5] = [
    ("format", &["cargo", "fmt", "--all", "--check"], &[]),
    (
        "clippy",
        &[
            "cargo",
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ],
        &[],
    ),
    (
        "docs",
        &["cargo", "doc", "--workspace", "--no-deps", "--locked"],
        &[("RUSTDOCFLAGS", "-D warnings")],
    ),
    ("test", &["cargo", "test", "--workspace", "--locked"], &[]),
    (
        "quick start",
        &[
            "cargo",
            "run",
            "--release",
            "--locked",
            "--",
            "launch",
            "configs/quickstart.toml",
        ],
        &[],
    ),
];

/// Emptied before each run, so that the quick start really trains.
const QUICK_START_STORE: &str = "runs/verify";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some("verify") {
        eprintln!("usage: cargo xtask verify [STEP ...]\nsteps:");
        for (name, command, _) in STEPS {
            eprintln!("  {name:12} {}", command.join(" "));
        }
        return ExitCode::from(2);
    }
    let only: Vec<String> = arguments.collect();
    if let Some(unknown) = only
        .iter()
        .find(|o| STEPS.iter().all(|(name, ..)| name != o))
    {
        eprintln!("verify has no step `{unknown}`");
        return ExitCode::from(2);
    }
    if let Err(error) = std::fs::remove_dir_all(QUICK_START_STORE)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        eprintln!("{QUICK_START_STORE} can't be emptied: {error}");
        return ExitCode::FAILURE;
    }
    for (name, command, environment) in STEPS {
        if !only.is_empty() && !only.iter().any(|o| o == name) {
            continue;
        }
        println!("== {name}: {}", command.join(" "));
        let status = Command::new(command[0])
            .args(&command[1..])
            .envs(environment.iter().copied())
            .status();
        match status {
            Ok(status) if status.success() => {}
            Ok(status) => {
                eprintln!("{name} failed ({status})");
                return ExitCode::FAILURE;
            }
            Err(error) => {
                eprintln!("{name}: {} can't be run: {error}", command[0]);
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
