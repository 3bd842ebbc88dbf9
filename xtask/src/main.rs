//! Developer tasks. `cargo xtask verify` runs everything that CI runs, cheapest first;
//! `cargo xtask generate` writes the pages that verify checks.

mod arrows;
mod pages;
mod reference;
mod shape;
mod verify;

use std::process::{Command, ExitCode};

/// What a task says where it fails: sentences for whoever broke it.
type Trouble = String;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["verify", only @ ..] => verify::verify(only),
        ["generate"] => pages::generate(),
        _ => {
            eprintln!("{}", usage());
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("{trouble}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> String {
    let mut text = String::from(
        "usage: cargo xtask generate           write the pages that are made from the code\n\
         \x20      cargo xtask verify [STEP ...]  check everything, or only some of it:\n",
    );
    for (name, about) in verify::steps() {
        text += &format!("  {name:16} {about}\n");
    }
    text
}

/// A command without what cargo told this program of itself. Build scripts ask for these variables: with them, what
/// is built here would be out of date for a cargo that is called by hand, and the other way round.
fn process(command: &[&str]) -> Command {
    let mut process = Command::new(command[0]);
    process.args(&command[1..]);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            process.env_remove(name.as_ref());
        }
    }
    process
}

/// Standard output of a command that must succeed.
fn output(command: &[&str]) -> Result<String, Trouble> {
    let said = command.join(" ");
    let output = process(command)
        .output()
        .map_err(|error| format!("`{said}` can't be run: {error}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(format!("`{said}` failed:\n{stderr}"));
    }
    String::from_utf8(output.stdout)
        .map_err(|_| format!("`{said}` prints something that is no text"))
}

/// What cargo knows of the workspace's members.
fn metadata() -> Result<serde_json::Value, Trouble> {
    let text = output(&[
        "cargo",
        "metadata",
        "--format-version=1",
        "--no-deps",
        "--locked",
    ])?;
    serde_json::from_str(&text)
        .map_err(|error| format!("`cargo metadata` printed no JSON: {error}"))
}
