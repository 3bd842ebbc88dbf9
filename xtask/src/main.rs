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

/// Standard output of a command that must succeed.
fn output(command: &[&str]) -> Result<String, Trouble> {
    let said = command.join(" ");
    let output = Command::new(command[0])
        .args(&command[1..])
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
