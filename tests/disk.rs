//! A disk that is full: it is said, nothing is lost, and with room again everything goes on.

use crate::common::{
    Sandbox, json,
    s3_server::{BUCKET, S3Server},
    small_sweep, transcript,
};
use std::{
    fmt::Write as _,
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

const STEPS: u64 = 300;
const TRIAL: &str = "pico-300steps-s1";
const FULL: &str = "No space left on device";

/// A small file system in memory, for as long as this lives.
struct Disk {
    at: PathBuf,
}

impl Disk {
    fn new(at: &Path, kib: u32) -> Result<Disk, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root can mount one".to_owned());
        }
        std::fs::create_dir_all(at).expect("the sandbox is writable");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={kib}k"), "tmpfs"])
            .arg(at)
            .output()
            .map_err(|error| format!("mount: {error}"))?;
        match mounted.status.success() {
            true => Ok(Disk { at: at.to_owned() }),
            false => Err(String::from_utf8_lossy(&mounted.stderr).into_owned()),
        }
    }

    /// Leaves no room. What fills it goes when the answer is dropped.
    fn fill(&self) -> Filler {
        let path = self.at.join("filler");
        let mut file = File::create(&path).expect("a name takes no room");
        let block = [0x5a; 4096];
        while let Ok(1..) = file.write(&block) {}
        let filled = file.metadata().expect("it is there").len();
        Filler { path, filled }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

struct Filler {
    path: PathBuf,
    filled: u64,
}

impl Drop for Filler {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).expect("it was made");
    }
}

macro_rules! disk {
    ($at:expr, $kib:expr) => {
        match Disk::new(&$at, $kib) {
            Ok(disk) => disk,
            Err(why) => return println!("skipped: no small disk can be made here: {why}"),
        }
    };
}

fn digest(sandbox: &Sandbox, store: &str) -> serde_json::Value {
    json(&sandbox.result(store, TRIAL))["outcome"]["digest"].clone()
}

#[test]
fn a_run_whose_disk_is_full_waits_for_room() {
    let sandbox = Sandbox::new();
    let disk = disk!(sandbox.path("runs"), 8 << 10);
    sandbox.write("sweep.toml", &small_sweep(STEPS));
    sandbox.succeed(&["launch", "sweep.toml", "--store", "undisturbed"]);
    let mut launch = sandbox.start(&["launch", "sweep.toml"]);
    launch.wait_for("step 20:");
    let filler = disk.fill();
    assert!(filler.filled > 0, "there was room");
    launch.wait_for(FULL);
    launch.wait_for(" is tried again");
    drop(filler);
    let (success, lines) = launch.finish();
    assert!(success, "{}", lines.join("\n"));
    assert_eq!(digest(&sandbox, "runs"), digest(&sandbox, "undisturbed"));
}

#[test]
fn training_does_not_wait_for_metrics_files_that_have_no_room() {
    let sandbox = Sandbox::new();
    sandbox.write("sweep.toml", &small_sweep(STEPS));
    sandbox.succeed(&["launch", "sweep.toml", "--store", "undisturbed"]);
    // The run's folder has the same name in any store; only its files for other programs lie on the small disk.
    let name = sandbox.only_run("undisturbed");
    let name = name.file_name().expect("it has a name");
    let disk = disk!(sandbox.path("runs").join(name).join("metrics"), 64);
    let filler = disk.fill();
    assert!(filler.filled > 0, "there was room");
    let launch = sandbox.run(&["launch", "sweep.toml"]);
    let said = transcript(&launch);
    assert!(launch.status.success(), "{said}");
    assert!(
        said.contains("metrics files of") && said.contains(FULL),
        "{said}"
    );
    assert!(!said.contains("is tried again"), "{said}");
    assert_eq!(digest(&sandbox, "runs"), digest(&sandbox, "undisturbed"));
    drop(filler);
    let run = sandbox.only_run("runs");
    let run = run.to_str().expect("a path in UTF-8");
    let said = sandbox.succeed(&["metrics", run, "--output", "copy"]);
    assert!(said.contains("300 steps"), "{said}");
}

#[test]
fn an_import_without_room_for_its_rows_says_so_and_goes_on_with_room() {
    let sandbox = Sandbox::new();
    let mut rows = String::new();
    for prompt in 0..300 {
        for (policy, sample) in [("a", 0), ("a", 1), ("b", 0), ("b", 1)] {
            // Words that don't compress to nothing.
            let words: Vec<String> = (0..40)
                .map(|word| {
                    blake3::hash(format!("{prompt} {policy} {sample} {word}").as_bytes()).to_hex()
                        [..12]
                        .to_owned()
                })
                .collect();
            let words = words.join(" ");
            writeln!(
                rows,
                r#"{{"prompt":"prompt {prompt}","policy":"{policy}","response":"{words}"}}"#
            )
            .expect("a text takes everything");
        }
    }
    sandbox.write("rows.jsonl", &rows);
    let import = |output: &str| {
        let mut command = sandbox.command(&["corpus", "import", "rows.jsonl", "--output", output]);
        command.env("TMPDIR", sandbox.path("small"));
        command.output().expect("the program starts")
    };
    let undisturbed =
        sandbox.succeed(&["corpus", "import", "rows.jsonl", "--output", "undisturbed"]);
    let disk = disk!(sandbox.path("small"), 4 << 10);
    let filler = disk.fill();
    let said = transcript(&import("corpus"));
    assert!(said.contains(FULL) && said.contains("small"), "{said}");
    assert!(!sandbox.path("corpus/corpus.json").exists(), "{said}");
    drop(filler);
    let again = import("corpus");
    let said = transcript(&again);
    assert!(again.status.success(), "{said}");
    let fingerprint = |said: &str| {
        let (_, rest) = said.split_once("fingerprint ").expect("it is told");
        rest.split_whitespace().next().map(str::to_owned)
    };
    assert_eq!(fingerprint(&said), fingerprint(&undisturbed));
}

#[test]
fn a_cache_without_room_costs_speed_alone() {
    let server = S3Server::start();
    let sandbox = Sandbox::new();
    let disk = disk!(sandbox.path("cache"), 8 << 10);
    let base = format!("s3://{BUCKET}");
    let text = small_sweep(STEPS);
    sandbox.write("alone.toml", &text);
    sandbox.succeed(&["launch", "alone.toml", "--store", "undisturbed"]);
    let text = text.replace("url = \"corpus\"", &format!("url = \"{base}/corpus\""));
    sandbox.write("sweep.toml", &text);
    let filler = disk.fill();
    let launch = |store: &str| {
        let launch = sandbox
            .command(&["launch", "sweep.toml", "--store", store])
            .envs(server.environment())
            .env("POLESTAR_CACHE", sandbox.path("cache"))
            .output()
            .expect("the program starts");
        assert!(launch.status.success(), "{}", transcript(&launch));
        assert_eq!(digest(&sandbox, store), digest(&sandbox, "undisturbed"));
    };
    let kept = || -> u64 {
        let kept = std::fs::read_dir(sandbox.path("cache")).expect("it is there");
        kept.map(|entry| {
            let entry = entry.and_then(|entry| entry.metadata());
            entry.expect("readable").len()
        })
        .sum()
    };
    launch("full");
    assert!(filler.filled > 0, "there was room");
    assert_eq!(kept(), filler.filled, "nothing was kept");
    drop(filler);
    launch("roomy");
    assert!(kept() > 0, "with room it is used");
}
