//! A trained model as a folder for other programs, and such a folder as what a sweep starts from.

use crate::common::{Sandbox, json, small_sweep};
use std::{fs, path::Path};

/// A sweep that starts from weights, with a store of its own.
fn sweep_from(weights: &str, store: &str) -> String {
    let sweep = small_sweep(5).replace("store = \"runs\"", &format!("store = {store:?}"));
    let sweep = sweep.replace("sizes = [\"pico\"]", "sizes = [\"start\"]");
    format!("{sweep}\n[start]\nweights = {weights:?}\n")
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn weights(sandbox: &Sandbox, folder: &str) -> Vec<u8> {
    fs::read(sandbox.path(folder).join("model.safetensors")).expect("weights")
}

#[test]
fn a_model_that_is_handed_on_and_started_from_and_handed_on_again_keeps_every_bit() {
    let sandbox = Sandbox::new();
    sandbox.write("sweep.toml", &small_sweep(5));
    sandbox.succeed(&["launch", "sweep.toml"]);
    let run = sandbox.only_run("runs");
    let run = path(&run);
    sandbox.succeed(&["export", run, "--output", "f32", "--calibrate", "16"]);
    sandbox.succeed(&["export", run, "--output", "bf16", "--dtype", "bf16"]);
    sandbox.succeed(&["export", run, "--output", "polar", "--layout", "internlm2"]);
    assert_ne!(weights(&sandbox, "f32"), weights(&sandbox, "polar"));

    // By the checkpoint's own place, too.
    let checkpoint = sandbox
        .trial("runs", "pico-5steps-s1")
        .join("checkpoints/00000005");
    sandbox.succeed(&["export", path(&checkpoint), "--output", "again"]);
    assert!(weights(&sandbox, "again") == weights(&sandbox, "f32"));

    for (from, layout, dtype, same) in [
        ("f32", "llama", "f32", "f32"),
        ("polar", "llama", "f32", "f32"),
        ("f32", "internlm2", "f32", "polar"),
        ("bf16", "llama", "bf16", "bf16"),
    ] {
        let (store, out) = (format!("runs-{from}"), format!("{from}-{layout}-{dtype}"));
        if !sandbox.path(&store).exists() {
            sandbox.write("from.toml", &sweep_from(from, &store));
            sandbox.succeed(&["launch", "from.toml"]);
        }
        let run = sandbox.only_run(&store);
        let said = sandbox.succeed(&[
            "export",
            path(&run),
            "--step",
            "0",
            "--output",
            &out,
            "--layout",
            layout,
            "--dtype",
            dtype,
        ]);
        assert!(said.contains("after step 0"), "{said}");
        assert!(weights(&sandbox, &out) == weights(&sandbox, same), "{out}");
    }
    // What is started from is part of what a trial is.
    let trained: Vec<String> = ["runs-f32", "runs-polar", "runs-bf16"]
        .iter()
        .map(|store| {
            json(&sandbox.result(store, "start-5steps-s1"))["outcome"]["digest"].to_string()
        })
        .collect();
    assert_eq!(trained[0], trained[1], "the same weights under other names");
    assert_ne!(trained[0], trained[2]);
    let [ours, theirs] =
        ["runs-f32", "runs-polar"].map(|store| sandbox.trial(store, "start-5steps-s1"));
    assert_ne!(
        ours.file_name(),
        theirs.file_name(),
        "other files are another recipe"
    );

    let card = fs::read_to_string(sandbox.path("f32/README.md")).expect("a card");
    for known in [
        "pico-5steps-s1",
        "held-out prompts",
        "digest of the weights",
        "standard deviation",
    ] {
        assert!(card.contains(known), "{known}: {card}");
    }
    let lines = fs::read_to_string(sandbox.path("f32/calibration.jsonl")).expect("rewards");
    assert_eq!(lines.lines().count(), 32);

    let said = sandbox.refuse(&["export", run, "--output", "f32"]);
    assert!(said.contains("f32 is not empty"), "{said}");
    let said = sandbox.refuse(&["export", run, "--output", "none", "--step", "3"]);
    assert!(
        said.contains("no checkpoint after step 3; there are those after steps 5"),
        "{said}"
    );
}

#[test]
fn a_batch_is_shown_as_it_is_trained_on() {
    let sandbox = Sandbox::new();
    sandbox.write("sweep.toml", &small_sweep(5));
    sandbox.succeed(&["launch", "sweep.toml"]);
    let run = sandbox.only_run("runs");
    let lines = sandbox.succeed(&[
        "batches",
        path(&run),
        "--step",
        "2",
        "--steps",
        "9",
        "--json",
    ]);
    let lines: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), 4, "up to the last step");
    assert_eq!(lines[0]["step"], 2);
    assert!(lines[3]["loss"].as_f64().expect("a loss") > 0.0);
    let triplets = lines[0]["triplets"].as_array().expect("triplets");
    assert_eq!(triplets.len(), 16);
    let [a, b] = ["positive", "negative"].map(|which| triplets[0][which].as_array().expect("ids"));
    assert_eq!(
        (a.first(), a.last()),
        (b.first(), b.last()),
        "BOS and the reward token"
    );
    let text = sandbox.succeed(&["batches", path(&run), "--step", "2"]);
    assert!(text.starts_with("step 2: loss"), "{text}");
    let said = sandbox.refuse(&["batches", path(&run), "--step", "6"]);
    assert!(said.contains("1 to 5"), "{said}");
}

#[test]
fn weights_that_cannot_be_started_from_are_refused_in_a_sentence() {
    let sandbox = Sandbox::new();
    sandbox.write("sweep.toml", &small_sweep(5));
    sandbox.succeed(&["launch", "sweep.toml"]);
    let run = sandbox.only_run("runs");
    sandbox.succeed(&["export", path(&run), "--output", "good"]);
    let plan = |sweep: &str| {
        sandbox.write("from.toml", sweep);
        sandbox.refuse(&["plan", "from.toml", "--no-measure"])
    };

    let said = plan(&sweep_from("nowhere", "r"));
    assert!(said.contains("start.weights: there is no folder"), "{said}");
    let other = sweep_from("good", "r").replace("sizes = [\"start\"]", "sizes = [\"nano\"]");
    let said = plan(&other);
    assert!(
        said.contains("`nano`") && said.contains("\"start\""),
        "{said}"
    );
    let said = plan(&small_sweep(5).replace("sizes = [\"pico\"]", "sizes = [\"start\"]"));
    assert!(said.contains("there is no [start]"), "{said}");

    // A tokenizer in which two tokens have changed places.
    let tokenizer = sandbox.path("good/tokenizer.json");
    let mut swapped = json(&tokenizer);
    let vocab = swapped["model"]["vocab"]
        .as_object_mut()
        .expect("a vocabulary");
    let (a, b) = (vocab["a"].clone(), vocab["b"].clone());
    vocab.insert("a".to_owned(), b);
    vocab.insert("b".to_owned(), a);
    let whole = fs::read(&tokenizer).expect("readable");
    fs::write(&tokenizer, swapped.to_string()).expect("writable");
    let said = plan(&sweep_from("good", "r"));
    assert!(
        said.contains("another vocabulary") && said.contains("import-weights"),
        "{said}"
    );
    fs::remove_file(&tokenizer).expect("removable");
    let said = plan(&sweep_from("good", "r"));
    assert!(said.contains("tokenizer.json is missing"), "{said}");
    fs::write(&tokenizer, whole).expect("writable");

    let said = sandbox.succeed(&["import-weights", "good", "--tokenizer", "tokenizer.json"]);
    assert!(said.contains("reward head taken from the file"), "{said}");
    assert!(said.contains("POLAR's two among them"), "{said}");

    // Files that change after a run has begun with them.
    sandbox.write("from.toml", &sweep_from("good", "r"));
    sandbox.succeed(&["launch", "from.toml"]);
    let run = sandbox.only_run("r");
    let file = sandbox.path("good/model.safetensors");
    let mut bytes = fs::read(&file).expect("readable");
    let last = bytes.len() - 1;
    bytes[last] ^= 0x40;
    fs::write(&file, &bytes).expect("writable");
    let said = sandbox.refuse(&["export", path(&run), "--step", "0", "--output", "changed"]);
    assert!(said.contains("aren't those on record"), "{said}");
    fs::write(&file, &bytes[..last]).expect("writable");
    let said = sandbox.refuse(&["import-weights", "good"]);
    assert!(
        said.contains("model.safetensors has") && said.contains("isn't whole"),
        "{said}"
    );
}
