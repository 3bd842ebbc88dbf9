//! What other programs read of a run: each step once, with the numbers of its metrics.

use crate::common::{Sandbox, kill, small_sweep};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

const STEPS: u64 = 200;
const TRIAL: &str = "pico-200steps-s1";

/// One field of a protobuf message: its number, and its bytes or those of its number.
fn fields(mut message: &[u8]) -> Vec<(u64, &[u8])> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let (&byte, rest) = bytes.split_first().expect("a whole number");
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message);
        let before = message;
        let length = match key & 7 {
            0 => {
                varint(&mut message);
                found.push((key >> 3, &before[..before.len() - message.len()]));
                continue;
            }
            1 => 8,
            2 => varint(&mut message) as usize,
            5 => 4,
            other => panic!("wire type {other}"),
        };
        let (value, rest) = message.split_at(length);
        found.push((key >> 3, value));
        message = rest;
    }
    found
}

fn number(varint: &[u8]) -> u64 {
    let parts = varint.iter().rev();
    parts.fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f))
}

/// The messages of an event file, whose checksums have to be right.
fn records(mut file: &[u8]) -> Vec<&[u8]> {
    let masked = |bytes: &[u8]| {
        let sum = crc32c::crc32c(bytes);
        sum.rotate_right(15).wrapping_add(0xa282_ead8)
    };
    let mut found = Vec::new();
    while !file.is_empty() {
        let (length, rest) = file.split_at(8);
        let (sum, rest) = rest.split_at(4);
        assert_eq!(masked(length).to_le_bytes(), sum, "of a length");
        let length = u64::from_le_bytes(length.try_into().expect("8 bytes"));
        let (message, rest) = rest.split_at(length as usize);
        let (sum, rest) = rest.split_at(4);
        assert_eq!(masked(message).to_le_bytes(), sum, "of a message");
        found.push(message);
        file = rest;
    }
    found
}

/// The scalars of all event files of a folder, in order, by tag: step and value.
fn scalars(folder: &Path) -> BTreeMap<String, Vec<(u64, f32)>> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut paths: Vec<PathBuf> = entries.map(|e| e.expect("readable").path()).collect();
    paths.retain(|path| {
        let name = path.file_name().expect("a name").to_string_lossy();
        name.starts_with("events.out.tfevents.")
    });
    paths.sort();
    let mut found = BTreeMap::<String, Vec<(u64, f32)>>::new();
    for path in paths {
        let bytes = std::fs::read(&path).expect("readable");
        for message in records(&bytes) {
            let event = fields(message);
            let step = event.iter().find(|(number, _)| *number == 2);
            let step = step.map_or(0, |(_, value)| number(value));
            for (_, summary) in event.iter().filter(|(number, _)| *number == 5) {
                for (_, value) in fields(summary) {
                    let value: BTreeMap<u64, &[u8]> = fields(value).into_iter().collect();
                    let Some(scalar) = value.get(&2) else {
                        continue;
                    };
                    let tag = String::from_utf8_lossy(value[&1]).into_owned();
                    let scalar = f32::from_le_bytes((*scalar).try_into().expect("4 bytes"));
                    found.entry(tag).or_default().push((step, scalar));
                }
            }
        }
    }
    found
}

/// A column of a table, where it says something: step and value.
fn column(folder: &Path, name: &str) -> Vec<(u64, f32)> {
    let mut table = csv::Reader::from_path(folder.join("metrics.csv")).expect("a table");
    let heads = table.headers().expect("a head").clone();
    let at = |name: &str| {
        heads
            .iter()
            .position(|head| head == name)
            .expect("a column")
    };
    let (step, value) = (at("step"), at(name));
    let rows = table.records().map(|row| row.expect("a row"));
    let some = rows.filter(|row| !row[value].is_empty());
    some.map(|row| {
        let step = row[step].parse().expect("a step");
        (step, row[value].parse::<f64>().expect("a number") as f32)
    })
    .collect()
}

#[test]
fn event_files_and_tables_have_each_step_once_after_everything_was_killed() {
    let sandbox = Sandbox::new();
    sandbox.write("sweep.toml", &small_sweep(STEPS));
    let mut launch = sandbox.start(&["launch", "sweep.toml"]);
    let joined = launch.wait_for(" joined");
    launch.wait_for("step 40:");
    // First whoever writes the files, then the rank that the next one would have found.
    kill(launch.pid());
    kill(crate::common::pid_in(&joined));
    sandbox.succeed(&["launch", "sweep.toml"]);

    let run = sandbox.only_run("runs");
    let folder = run.join("metrics").join(TRIAL);
    let all: Vec<u64> = (1..=STEPS).collect();
    let scalars = scalars(&folder);
    for (tag, name) in [
        ("train/loss", "loss"),
        ("train/accuracy", "accuracy"),
        ("train/margin", "margin"),
        ("train/lr", "lr"),
        ("train/grad_norm", "grad_norm"),
        ("progress/tokens", "plain_tokens"),
    ] {
        let read = &scalars[tag];
        let steps: Vec<u64> = read.iter().map(|(step, _)| *step).collect();
        assert_eq!(steps, all, "{tag}");
        assert_eq!(*read, column(&folder, name), "{tag}");
    }
    let scored: Vec<u64> = all.iter().copied().filter(|step| step % 5 == 0).collect();
    for end in [
        "loss",
        "margin",
        "reward_mean",
        "reward_deviation",
        "reward_min",
        "reward_max",
    ] {
        let read = &scalars[&format!("heldout_prompts/{end}")];
        let steps: Vec<u64> = read.iter().map(|(step, _)| *step).collect();
        assert_eq!(steps, scored, "{end}");
        assert_eq!(*read, column(&folder, &format!("heldout_prompts_{end}")));
    }

    // From the store alone comes the same.
    let run = run.to_str().expect("a path in UTF-8");
    sandbox.succeed(&["metrics", run, "--output", "copy"]);
    let copy = sandbox.path("copy").join(TRIAL);
    let read = |folder: &Path, name: &str| std::fs::read(folder.join(name)).expect("readable");
    for name in [
        "metrics.csv",
        "metrics.parquet",
        "pairs.csv",
        "hparams.json",
    ] {
        assert_eq!(read(&copy, name), read(&folder, name), "{name}");
    }
    assert_eq!(self::scalars(&copy)["train/loss"], scalars["train/loss"]);

    let said = sandbox.succeed(&["runs", "runs"]);
    assert!(
        said.contains("small-") && said.contains("1/1") && said.contains("done"),
        "{said}"
    );
    let said = sandbox.succeed(&["status", run, "--watch"]);
    assert!(said.contains("1 of 1 trials done"), "{said}");
}
