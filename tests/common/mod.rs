//! A folder of its own for each test, sweeps in it, and the real program run on them.

pub(crate) mod network;
pub(crate) mod s3_server;

use serde_json::Value;
use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

pub(crate) struct Sandbox {
    folder: tempfile::TempDir,
}

impl Sandbox {
    pub(crate) fn new() -> Sandbox {
        Sandbox {
            folder: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("the sandbox is writable");
        path
    }

    /// The program, in this folder, without the caller's credentials.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coordinator"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("TMPDIR", self.folder.path())
            .stdin(Stdio::null());
        for (name, _) in std::env::vars() {
            if name.starts_with("AWS_") {
                command.env_remove(name);
            }
        }
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments)
            .output()
            .expect("the program starts")
    }

    /// Runs and returns standard output; fails the test with everything printed otherwise.
    pub(crate) fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            transcript(&output)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs, expects a refusal and returns what was said.
    pub(crate) fn refuse(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            !output.status.success(),
            "{arguments:?} was not refused: {}",
            transcript(&output)
        );
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Starts and leaves standard error to be read line by line.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        let mut command = self.command(arguments);
        command.stdout(Stdio::null());
        Running::start(command)
    }

    /// The folder of the only run in a store.
    pub(crate) fn only_run(&self, store: &str) -> PathBuf {
        let runs: Vec<PathBuf> = std::fs::read_dir(self.path(store))
            .expect("the store is there")
            .map(|entry| entry.expect("a readable folder").path())
            .filter(|folder| folder.join("run.json").exists())
            .collect();
        let [run] = &runs[..] else {
            panic!("expected one run in {store}: {runs:?}");
        };
        run.clone()
    }

    /// The folder of a trial of the only run in a store.
    pub(crate) fn trial(&self, store: &str, name: &str) -> PathBuf {
        let record = json(&self.only_run(store).join("run.json"));
        let trials = record["plan"]["trials"].as_array().expect("trials");
        let trial = trials.iter().find(|t| t["config"]["id"] == name);
        let recipe = trial.expect("a trial of this name")["recipe_id"].clone();
        let recipe = recipe.as_str().expect("an identity");
        self.path(store).join("trials").join(&recipe[..16])
    }

    /// The only result of a trial of the only run in a store.
    pub(crate) fn result(&self, store: &str, name: &str) -> PathBuf {
        let results = self.trial(store, name).join("results");
        let results: Vec<PathBuf> = std::fs::read_dir(results)
            .expect("it has results")
            .map(|entry| entry.expect("readable").path())
            // What a write that was killed leaves behind, `NAME#1`, is no object to the store.
            .filter(|path| !path.to_string_lossy().contains('#'))
            .collect();
        let [result] = &results[..] else {
            panic!("expected one result of {name}: {results:?}");
        };
        result.clone()
    }
}

pub(crate) struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStderr>>,
    pub(crate) seen: Vec<String>,
}

impl Running {
    /// Starts a command and leaves standard error to be read line by line.
    pub(crate) fn start(mut command: Command) -> Running {
        let child = command.stderr(Stdio::piped()).spawn();
        let mut child = child.expect("the program starts");
        let stderr = child.stderr.take().expect("it was piped");
        Running {
            child,
            lines: BufReader::new(stderr).lines(),
            seen: Vec::new(),
        }
    }

    /// Whether it still runs.
    pub(crate) fn lives(&mut self) -> bool {
        self.child.try_wait().expect("it was started").is_none()
    }

    /// Blocks until it has ended well.
    pub(crate) fn wait_for_end(&mut self) {
        for line in self.lines.by_ref() {
            self.seen.push(line.expect("readable output"));
        }
        let status = self.child.wait().expect("it was started");
        assert!(status.success(), "{status}: {}", self.seen.join("\n"));
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Blocks until a line has this in it.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        self.wait_for_all(&[text])
    }

    /// Blocks until each of these was in some line, in whatever order; returns the last such line.
    pub(crate) fn wait_for_all(&mut self, texts: &[&str]) -> String {
        let mut awaited = texts.to_vec();
        for line in self.lines.by_ref() {
            let line = line.expect("readable output");
            self.seen.push(line.clone());
            awaited.retain(|text| !line.contains(text));
            if awaited.is_empty() {
                return line;
            }
        }
        panic!("it ended without {awaited:?}:\n{}", self.seen.join("\n"));
    }

    /// Blocks until the end; returns whether it succeeded.
    pub(crate) fn finish(mut self) -> (bool, Vec<String>) {
        for line in self.lines.by_ref() {
            self.seen.push(line.expect("readable output"));
        }
        let status = self.child.wait().expect("it was started");
        (status.success(), self.seen)
    }
}

/// SIGKILL, as an out-of-memory killer or a preemption would send it.
pub(crate) fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid as i32).expect("a process id");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it still runs");
}

pub(crate) fn json(path: &Path) -> Value {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&bytes).expect("JSON")
}

pub(crate) fn transcript(output: &Output) -> String {
    format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A sweep of one tiny model on a tiny synthetic corpus.
pub(crate) fn small_sweep(steps: u64) -> String {
    format!(
        r#"
name = "small"
store = "runs"

[corpus]
url = "corpus"
[corpus.synth]
policies = 6
prompts = 80
samples = 2
heldout_prompts = {{ count = 16 }}
heldout_policies = 1

[samples]
max_prompt = 8
max_response = 16

[train]
batch = 16
lanes = 8
pack_tokens = 128
[train.optimizer]
lr = 3e-3
[train.validation]
every = 5
triplets = 32
[train.checkpoint]
every = 5

[sweep]
sizes = ["pico"]
steps = [{steps}]

[models.pico]
hidden_size = 16
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 1
intermediate_size = 32

[pool]
workers = 1
"#
    )
}

/// The line that a launch prints for other hosts, in what it printed so far.
pub(crate) fn join_line(printed: &str) -> String {
    let line = printed.lines().find(|line| line.contains(" worker join "));
    let line = line.unwrap_or_else(|| panic!("no line to join by:\n{printed}"));
    line.trim().to_owned()
}

/// Process id in a line such as `worker 2 joined (host, pid 77)`.
pub(crate) fn pid_in(line: &str) -> u32 {
    let pid = line.rsplit("pid ").next().map(|p| p.trim_end_matches(')'));
    pid.and_then(|p| p.parse().ok()).expect("a process id")
}
