//! The steps of `cargo xtask verify`, and running them.

use crate::{Trouble, arrows, pages, shape};

/// One check.
struct Step {
    name: &'static str,
    about: &'static str,
    work: Work,
}

/// How a step checks.
enum Work {
    /// In this program. Returns what there is to say about a success.
    Here(fn() -> Result<String, Trouble>),
    /// By commands, with `RUSTDOCFLAGS` where it is given.
    Command {
        command: &'static [&'static str],
        rustdoc_flags: Option<&'static str>,
    },
    /// By a tool that not everybody has. `CI` in the environment makes it a must.
    Tool {
        command: &'static [&'static str],
        version: &'static [&'static str],
    },
}

const fn command(command: &'static [&'static str]) -> Work {
    Work::Command {
        command,
        rustdoc_flags: None,
    }
}

/// Emptied before each run, so that the quick start really trains.
const QUICK_START_STORE: &str = "runs/verify";

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
const STEPS: [Step; 10] = [
    Step {
        name: "format",
        about: "rustfmt",
        work: command(&["cargo", "fmt", "--all", "--check"]),
    },
    Step {
        name: "typos",
        about: "spelling (_typos.toml), if typos is installed",
        work: Work::Tool {
            command: &["typos"],
            version: &["typos", "--version"],
        },
    },
    Step {
        name: "arrows",
        about: "which crate may use which, and the picture in docs/architecture.md",
        work: Work::Here(arrows::verify),
    },
    Step {
        name: "shape",
        about: "lengths of files and functions, shares of crates",
        work: Work::Here(shape::verify),
    },
    Step {
        name: "deny",
        about: "licences, sources, banned crates (deny.toml), if cargo-deny is installed",
        work: Work::Tool {
            command: &[
                "cargo",
                "deny",
                "--offline",
                "check",
                "bans",
                "licenses",
                "sources",
            ],
            version: &["cargo", "deny", "--version"],
        },
    },
    Step {
        name: "clippy",
        about: "clippy without a warning",
        work: command(CLIPPY),
    },
    Step {
        name: "docs",
        about: "rustdoc without a warning",
        work: Work::Command {
            command: &["cargo", "doc", "--workspace", "--no-deps", "--locked"],
            rustdoc_flags: Some("-D warnings"),
        },
    },
    Step {
        name: "test",
        about: "all tests",
        work: command(&["cargo", "test", "--workspace", "--locked"]),
    },
    Step {
        name: "config-reference",
        about: "docs/configuration.md, docs/presets.md and docs/openapi.json, as the program says them",
        work: Work::Here(pages::verify),
    },
    Step {
        name: "quickstart",
        about: "the README's first command, in release",
        work: command(QUICK_START),
    },
];

/// Names of the steps, and what each checks.
pub(crate) fn steps() -> impl Iterator<Item = (&'static str, &'static str)> {
    STEPS.iter().map(|step| (step.name, step.about))
}

/// Runs the steps of these names, or all, until one fails.
///
/// # Errors
/// An unknown name, or the step that failed.
pub(crate) fn verify(only: &[&str]) -> Result<(), Trouble> {
    let known = |name: &&&str| steps().any(|(step, _)| step == **name);
    if let Some(unknown) = only.iter().find(|name| !known(name)) {
        let names: Vec<&str> = steps().map(|(name, _)| name).collect();
        return Err(format!(
            "verify has no step `{unknown}`; it has {}",
            names.join(", ")
        ));
    }
    if let Err(error) = std::fs::remove_dir_all(QUICK_START_STORE)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(format!("{QUICK_START_STORE} can't be emptied: {error}"));
    }
    for step in &STEPS {
        if only.is_empty() || only.contains(&step.name) {
            step.run()
                .map_err(|trouble| format!("{}: {trouble}", step.name))?;
        }
    }
    Ok(())
}

impl Step {
    fn run(&self) -> Result<(), Trouble> {
        let Step { name, about, work } = self;
        match work {
            Work::Here(check) => {
                println!("== {name}: {about}");
                println!("{}", check()?);
                Ok(())
            }
            Work::Command {
                command,
                rustdoc_flags,
            } => {
                println!("== {name}: {}", command.join(" "));
                run(command, *rustdoc_flags)
            }
            Work::Tool { command, version } => {
                println!("== {name}: {}", command.join(" "));
                if is_installed(version) {
                    return run(command, None);
                }
                if std::env::var_os("CI").is_some() {
                    return Err(format!(
                        "`{}` doesn't run; scripts/setup-tools installs it",
                        version.join(" ")
                    ));
                }
                println!("skipped: not installed (scripts/setup-tools installs it)");
                Ok(())
            }
        }
    }
}

fn run(command: &[&str], rustdoc_flags: Option<&str>) -> Result<(), Trouble> {
    let status = crate::process(command)
        .envs(rustdoc_flags.map(|flags| ("RUSTDOCFLAGS", flags)))
        .status()
        .map_err(|error| format!("{} can't be run: {error}", command[0]))?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("failed ({status})")),
    }
}

fn is_installed(version: &[&str]) -> bool {
    crate::output(version).is_ok()
}
