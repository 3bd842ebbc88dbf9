//! `cargo xtask verify`: everything that CI runs, cheapest first.

use std::process::{Command, ExitCode};

/// One check.
struct Step {
    name: &'static str,
    command: &'static [&'static str],
    rustdoc_flags: Option<&'static str>,
}

const fn step(name: &'static str, command: &'static [&'static str]) -> Step {
    Step {
        name,
        command,
        rustdoc_flags: None,
    }
}

const CLIPPY: &[&str] = &[
    "cargo",
    "clippy",
    "--workspace",
    "--all-targets",
    "--locked",
    "--",
    "-D",
    "warnings",
];
const QUICK_START: &[&str] = &[
    "cargo",
    "run",
    "--release",
    "--locked",
    "--",
    "launch",
    "configs/quickstart.toml",
    "--store",
    QUICK_START_STORE,
];

/// What `verify` runs, in order.
const STEPS: [Step; 5] = [
    step("format", &["cargo", "fmt", "--all", "--check"]),
    step("clippy", CLIPPY),
    Step {
        name: "docs",
        command: &["cargo", "doc", "--workspace", "--no-deps", "--locked"],
        rustdoc_flags: Some("-D warnings"),
    },
    step("test", &["cargo", "test", "--workspace", "--locked"]),
    step("quick start", QUICK_START),
];

/// Emptied before each run, so that the quick start really trains.
const QUICK_START_STORE: &str = "runs/verify";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some("verify") {
        eprintln!("usage: cargo xtask verify [STEP ...]\nsteps:");
        for Step { name, command, .. } in STEPS {
            eprintln!("  {name:12} {}", command.join(" "));
        }
        return ExitCode::from(2);
    }
    let only: Vec<String> = arguments.collect();
    let known = |only: &String| STEPS.iter().any(|step| step.name == only);
    if let Some(unknown) = only.iter().find(|only| !known(only)) {
        eprintln!("verify has no step `{unknown}`");
        return ExitCode::from(2);
    }
    if let Err(error) = std::fs::remove_dir_all(QUICK_START_STORE)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        eprintln!("{QUICK_START_STORE} can't be emptied: {error}");
        return ExitCode::FAILURE;
    }
    for step in STEPS {
        let Step { name, command, .. } = step;
        if !only.is_empty() && !only.iter().any(|o| o == name) {
            continue;
        }
        println!("== {name}: {}", command.join(" "));
        let status = Command::new(command[0])
            .args(&command[1..])
            .envs(step.rustdoc_flags.map(|flags| ("RUSTDOCFLAGS", flags)))
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
