//! Preference benchmarks through trained checkpoints: by hand, and as a sweep names them.

use crate::common::{Sandbox, json, small_sweep};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

const POLICIES: [&str; 4] = ["bdf", "ghk", "lmn", "prs"];

/// What a policy says: words of letters of its own, which nobody can mistake.
fn answer(policy: usize, prompt: usize, sample: usize) -> String {
    let letters: Vec<char> = POLICIES[policy].chars().collect();
    let word = |at: usize| -> String {
        let letter = |of: usize| letters[(prompt * 7 + sample + at * 5 + of * (at + 1)) % 3];
        (0..3).map(letter).collect()
    };
    (0..5).map(word).collect::<Vec<String>>().join(" ")
}

fn lines(records: impl Iterator<Item = Value>) -> String {
    records.map(|record| format!("{record}\n")).collect()
}

/// Trajectories of policies that are told apart by their letters.
fn trajectories() -> String {
    let all = (0..120).flat_map(|prompt| {
        (0..POLICIES.len()).flat_map(move |policy| {
            (0..2).map(move |sample| {
                json!({"prompt": format!("question {prompt}"), "policy": POLICIES[policy], "sample_id": sample,
                       "response": answer(policy, prompt, sample)})
            })
        })
    });
    lines(all)
}

/// Pairs of new prompts, whose better answer is of the reference's policy.
fn pairs() -> String {
    let all = (200..260).map(|prompt| {
        let (policy, other) = (prompt % 4, (prompt + 1 + prompt % 3) % 4);
        json!({"prompt": format!("question {prompt}"), "reference": answer(policy, prompt, 0),
               "chosen": answer(policy, prompt, 1), "rejected": answer(other, prompt, 0),
               "category": if prompt % 2 == 0 { "even" } else { "odd" }})
    });
    lines(all)
}

fn sweep(steps: &str) -> String {
    let small = small_sweep(5);
    let (before, rest) = small
        .split_once("[corpus.synth]")
        .expect("a synthetic corpus");
    let (_, after) = rest.split_once("[samples]").expect("samples");
    let import = "[corpus.import]\ninputs = [\"trajectories.jsonl\"]\nvocab_size = 512\nheldout_prompts = { count = 16 }\n";
    let evaluation = "\n[[evaluation]]\nname = \"letters\"\nurl = \"pairs.jsonl\"\n";
    format!("{before}{import}[samples]{after}{evaluation}").replace("steps = [5]", steps)
}

#[test]
fn a_discriminator_prefers_the_policy_of_the_reference_and_the_report_draws_it_against_compute() {
    let sandbox = Sandbox::new();
    sandbox.write("trajectories.jsonl", &trajectories());
    sandbox.write("pairs.jsonl", &pairs());
    sandbox.write("sweep.toml", &sweep("steps = [5, 400]"));
    let said = sandbox.succeed(&["launch", "sweep.toml"]);
    assert!(said.contains("2 evaluations"), "{said}");
    let run = sandbox.only_run("runs");
    let kept = json(&run.join("evaluations/letters/pico-400steps-s1.json"));
    let evaluation = &kept["evaluation"];
    let model = &evaluation["scorers"][0]["accuracies"][0];
    let (value, lo) = (model["value"].as_f64(), model["lo"].as_f64());
    assert!(value > Some(0.8) && lo > Some(0.6), "{model}");
    // Without the reference there is nothing to go by.
    let without = evaluation["scorers"][1]["accuracies"][0]["value"].as_f64();
    assert!(without < value, "{evaluation}");
    let page = std::fs::read_to_string(run.join("report/report.html")).expect("a page");
    assert!(page.contains("Preference accuracy: letters") && page.contains("TF-IDF"));
    assert!(run.join("report/preference-1.svg").exists());

    // Nothing is scored twice; what the benchmark asks decides, not its name.
    let said = sandbox.succeed(&["launch", "sweep.toml"]);
    assert!(!said.contains("evaluations"), "{said}");
    let fewer: String = pairs()
        .lines()
        .take(40)
        .map(|line| format!("{line}\n"))
        .collect();
    sandbox.write("pairs.jsonl", &fewer);
    let said = sandbox.succeed(&["launch", "sweep.toml"]);
    assert!(said.contains("2 evaluations"), "{said}");

    // One trial by hand gives what is kept of it; a whole run the table.
    sandbox.write("pairs.jsonl", &pairs());
    let run = run.to_str().expect("a path in UTF-8");
    let trial = format!("{run}#pico-400steps-s1");
    let by_hand = sandbox.succeed(&[
        "eval",
        &trial,
        "letters=pairs.jsonl",
        "--json",
        "--output",
        "out.json",
    ]);
    let by_hand: Value = serde_json::from_str(&by_hand).expect("JSON");
    assert_eq!(by_hand, json(&sandbox.path("out.json")));
    assert_eq!(by_hand["checkpoints"][0]["evaluations"][0], *evaluation);
    let said = sandbox.succeed(&["eval", run, "letters=pairs.jsonl"]);
    for part in [
        "accuracy against compute",
        "pico-5steps-s1",
        "model less TF-IDF",
        "model less embedding",
        "even",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    refusals(&sandbox, &trial);
}

fn refusals(sandbox: &Sandbox, trial: &str) {
    sandbox.write("wrong.jsonl", "{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"b\"}\n{\"prompt\": \"p\", \"chosen\": \"a\"}\n");
    let said = sandbox.refuse(&["eval", trial, "wrong.jsonl"]);
    assert!(said.contains("wrong.jsonl line 2"), "{said}");
    let said = sandbox.refuse(&["eval", trial, "nothing.jsonl"]);
    assert!(said.contains("nothing.jsonl"), "{said}");
    let said = sandbox.refuse(&["eval", trial, "pairs.jsonl", "--format", "rmbench"]);
    assert!(said.contains("rm-bench"), "{said}");
    let said = sandbox.refuse(&[
        "eval",
        trial,
        "pairs.jsonl",
        "other=pairs.jsonl",
        "other=wrong.jsonl",
    ]);
    assert!(said.contains("two benchmarks are called other"), "{said}");
    let twice =
        sweep("steps = [5]") + "[[evaluation]]\nname = \"letters\"\nurl = \"pairs.jsonl\"\n";
    sandbox.write("twice.toml", &twice);
    let said = sandbox.refuse(&["plan", "twice.toml"]);
    assert!(said.contains("letters") && said.contains("twice"), "{said}");
}

/// The first lines of a packed file of real pairs.
fn sample(data: &Path, name: &str, every: usize) -> String {
    let file = std::fs::File::open(data.join(name)).expect("the data are there");
    let mut decoder = zstd::Decoder::new(file).expect("zstd");
    decoder.window_log_max(27).expect("a window");
    let lines = BufReader::new(decoder).lines().step_by(every);
    lines.map(|line| line.expect("text") + "\n").collect()
}

#[test]
fn real_pairs_are_read_and_every_one_is_accounted_for() {
    let Some(data) = std::env::var_os("POLESTAR_DATA").map(PathBuf::from) else {
        println!("skipped: POLESTAR_DATA is not set");
        return;
    };
    let sandbox = Sandbox::new();
    sandbox.write("sweep.toml", &small_sweep(5));
    sandbox.succeed(&["launch", "sweep.toml"]);
    let run = sandbox.only_run("runs");
    let run = run.to_str().expect("a path in UTF-8");
    for (name, every) in [("pref_bench", 40), ("pref_reference", 40)] {
        let text = sample(&data, &format!("{name}.jsonl.zst"), every);
        sandbox.write(&format!("{name}.jsonl"), &text);
        let said = sandbox.succeed(&["eval", run, &format!("{name}.jsonl"), "--json"]);
        let said: Value = serde_json::from_str(&said).expect("JSON");
        let found = &said["checkpoints"][0]["evaluations"][0];
        let account = &found["account"];
        let aside = account["aside"].as_object().expect("reasons").values();
        let aside: u64 = aside.filter_map(|aside| aside["count"].as_u64()).sum();
        let records = text.lines().count() as u64;
        assert_eq!(account["records"].as_u64(), Some(records), "{name}");
        assert_eq!(
            account["tasks"].as_u64().map(|tasks| tasks + aside),
            Some(records),
            "{name}"
        );
        // A model of five steps knows nothing; length and similarity know something of answers with a reference.
        let row = &found["rows"][0];
        assert_eq!(row["tasks"], account["tasks"], "{name}");
        let scorers = found["scorers"].as_array().expect("scorers");
        let named = |name: &str| scorers.iter().any(|scorer| scorer["name"] == name);
        for scorer in ["model", "length", "TF-IDF", "embedding"] {
            assert!(named(scorer), "{name}: {scorer} of {scorers:?}");
        }
        let is_asked_without = named("model, no reference");
        assert_eq!(is_asked_without, name == "pref_reference", "{name}");
    }
}
