//! Fine-tuning: planted preferences are learned, from fresh weights and from those of a run; and one run has one
//! answer here too.

use crate::common::{Sandbox, json, kill, pid_in, small_sweep};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const GOOD: [&str; 8] = ["bo", "de", "fi", "go", "lu", "ma", "ne", "pi"];
const BAD: [&str; 8] = ["ro", "su", "ta", "ve", "wi", "zo", "ku", "ja"];

/// Pairs by a hidden rule: the chosen answer has more words of the good kind. Nothing else tells the two
/// apart.
fn preferences(prompts: usize) -> String {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let mut answer = |good: usize| {
        let kinds = (0..8).map(|at| if at < good { GOOD } else { BAD });
        let mut words: Vec<&str> = kinds.map(|kind| kind[random.random_range(0..8)]).collect();
        for at in (1..words.len()).rev() {
            words.swap(at, random.random_range(0..=at));
        }
        words.join(" ")
    };
    let mut lines = Vec::new();
    for prompt in 0..prompts {
        let (reference, chosen, rejected) = (answer(4), answer(6), answer(2));
        let line = serde_json::json!({
            "prompt": format!("say {prompt}"), "reference": reference,
            "chosen": chosen, "rejected": rejected, "subset": format!("kind-{}", prompt % 2),
        });
        lines.push(line.to_string());
    }
    lines.join("\n")
}

/// A sweep on labelled pairs; `sizes` or a start, and how long.
fn tuning(store: &str, models: &str, steps: u64) -> String {
    let text = small_sweep(steps)
        .replace("name = \"small\"", "name = \"tuning\"")
        .replace("store = \"runs\"", &format!("store = \"{store}\""))
        .replace("url = \"corpus\"", "url = \"pairs\"")
        .replace(
            "[sweep]\nsizes = [\"pico\"]",
            &format!("{models}\nobjective = \"sft\""),
        )
        .replace(
            "max_prompt = 8\nmax_response = 16",
            "max_prompt = 16\nmax_response = 40",
        )
        .replace("pack_tokens = 128", "pack_tokens = 1024")
        .replace("triplets = 32", "triplets = 120");
    let synth = text.find("[corpus.synth]").expect("a corpus");
    let samples = text.find("[samples]").expect("samples");
    format!("{}{}", &text[..synth], &text[samples..])
}

fn score(result: &serde_json::Value) -> (f64, u64) {
    let score = &result["outcome"]["validation"]["heldout_prompts"];
    let accuracy = score["accuracy"].as_f64().expect("an accuracy");
    (accuracy, score["triplets"].as_u64().expect("a count"))
}

#[test]
fn planted_preferences_are_learned_from_fresh_weights_and_from_each_trial_of_a_run() {
    let sandbox = Sandbox::new();
    let lengths = small_sweep(10).replace("steps = [10]", "steps = [5, 20]");
    sandbox.write("before.toml", &lengths);
    sandbox.succeed(&["launch", "before.toml"]);
    let run = sandbox.only_run("runs");
    sandbox.write("pairs.jsonl", &preferences(900));
    let import = [
        "corpus",
        "import",
        "pairs.jsonl",
        "--labelled",
        "--output",
        "pairs",
    ];
    let lent = ["--tokenizer-of", "corpus"];
    let said = sandbox.succeed(&[&import[..], &lent].concat());
    assert!(
        said.contains("900 labelled pairs on 900 prompts, 90 pairs held out"),
        "{said}"
    );

    // Curves of every few steps are no matter here.
    let tuning = |store: &str, models: &str, steps: u64| {
        tuning(store, models, steps).replace("every = 5", "every = 100")
    };
    let fresh = tuning("fresh", "[sweep]\nsizes = [\"pico\"]", 200);
    sandbox.write("fresh.toml", &fresh);
    sandbox.succeed(&["launch", "fresh.toml"]);
    let result = json(&sandbox.result("fresh", "pico-200steps-s1"));
    let (accuracy, pairs) = score(&result);
    assert!(accuracy > 0.9 && pairs == 90, "{accuracy} of {pairs}");

    // One fine-tuning for each trial of the run, whose weights lie in another store.
    let start = format!("[start]\nrun = \"{}\"\n[sweep]", run.display());
    sandbox.write("tuned.toml", &tuning("tuned", &start, 200));
    let said = sandbox.succeed(&["launch", "tuned.toml"]);
    let mut digests = Vec::new();
    for steps in [5, 20] {
        let name = format!("pico-{steps}steps-s1-200steps-s1");
        let result = json(&sandbox.result("tuned", &name));
        let (accuracy, _) = score(&result);
        assert!(accuracy > 0.9, "{name}: {accuracy}\n{said}");
        digests.push(result["outcome"]["digest"].clone());
    }
    assert_ne!(digests[0], digests[1], "they began with other weights");
    let report = sandbox.only_run("tuned").join("report");
    let input = &json(&report.join("report.json"))["input"];
    let tuned = input["fine_tuned"].as_array().expect("fine-tunings");
    assert_eq!(tuned.len(), 2);
    let flops = |at: usize| tuned[at]["flops"].as_f64().expect("FLOPs");
    assert!((flops(1) / flops(0) - 4.0).abs() < 0.2, "{tuned:?}");
    assert_eq!(input["finished"][1]["flops"], tuned[1]["flops"]);
    let page = std::fs::read_to_string(report.join("report.html")).expect("a report");
    assert!(page.contains("Preference accuracy against pre-training compute"));
    assert!(report.join("accuracy-vs-pretraining.svg").exists());

    // A start that was trained with other tokens is refused, and so is pre-training on pairs.
    let own = [&import[..4], &["--output", "own"]].concat();
    sandbox.succeed(&own);
    let other = tuning("tuned", &start, 200).replace("url = \"pairs\"", "url = \"own\"");
    sandbox.write("other.toml", &other);
    let said = sandbox.refuse(&["launch", "other.toml"]);
    assert!(said.contains("--tokenizer-of"), "{said}");
    let polar = fresh.replace("objective = \"sft\"", "objective = \"polar\"");
    sandbox.write("polar.toml", &polar);
    let said = sandbox.refuse(&["launch", "polar.toml"]);
    assert!(said.contains("holds labelled pairs"), "{said}");
    let said = sandbox.succeed(&["corpus", "inspect", "pairs"]);
    assert!(said.contains("kind-0: 450 pairs"), "{said}");
    sandbox.succeed(&["corpus", "verify", "pairs"]);
}

#[test]
fn a_fine_tuning_has_one_digest_at_every_world_size_and_stage_and_after_a_kill() {
    const STEPS: u64 = 120;
    let sandbox = Sandbox::new();
    sandbox.write("before.toml", &small_sweep(10));
    sandbox.succeed(&["launch", "before.toml"]);
    sandbox.write("pairs.jsonl", &preferences(200));
    sandbox.succeed(&[
        "corpus",
        "import",
        "pairs.jsonl",
        "--labelled",
        "--output",
        "pairs",
        "--tokenizer-of",
        "corpus",
    ]);
    let before = sandbox.trial("runs", "pico-10steps-s1");
    let start = format!("[start]\ncheckpoint = \"{}\"\n[sweep]", before.display());
    let digest = |store: &str| {
        let plan = json(&sandbox.only_run(store).join("run.json"));
        let name = plan["plan"]["trials"][0]["config"]["id"]
            .as_str()
            .expect("a name")
            .to_owned();
        let result = json(&sandbox.result(store, &name));
        let losses = result["losses"].as_u64().expect("a count");
        (
            result["outcome"]["digest"]
                .as_str()
                .expect("a digest")
                .to_owned(),
            losses,
        )
    };
    let mut digests = Vec::new();
    for (zero, workers) in [(0, "1"), (0, "3"), (1, "2"), (2, "2"), (3, "3")] {
        let (file, store) = (
            format!("z{zero}w{workers}.toml"),
            format!("z{zero}w{workers}"),
        );
        let text = tuning(&store, &start, STEPS);
        sandbox.write(
            &file,
            &text.replace("[train]\n", &format!("[train]\nzero = {zero}\n")),
        );
        sandbox.succeed(&[
            "launch",
            &file,
            "--workers",
            workers,
            "--workers-per-trial",
            workers,
        ]);
        digests.push(digest(&store).0);
    }
    sandbox.write("killed.toml", &tuning("killed", &start, STEPS));
    let mut launch = sandbox.start(&[
        "launch",
        "killed.toml",
        "--workers",
        "2",
        "--workers-per-trial",
        "2",
    ]);
    let pids = [launch.wait_for(" joined"), launch.wait_for(" joined")].map(|line| pid_in(&line));
    launch.wait_for("step 20:");
    kill(pids[0]);
    launch.wait_for("resumes after step ");
    let (success, lines) = launch.finish();
    assert!(success, "{}", lines.join("\n"));
    let (killed, losses) = digest("killed");
    assert_eq!(losses, 1, "the kill was noticed");
    digests.push(killed);
    assert!(digests.iter().all(|it| *it == digests[0]), "{digests:#?}");
}
