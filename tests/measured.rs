//! What a run says of its own measurements: how sure they are, what of the texts they saw, and how two compare.

use crate::common::{Sandbox, json, small_sweep};

#[test]
fn scores_say_how_sure_they_are_and_what_of_the_texts_they_saw() {
    let sandbox = Sandbox::new();
    // Answers have 12 tokens or more, of which 4 are shown; the end is measured on more than the way there.
    let sweep = small_sweep(10)
        .replace("max_response = 16", "max_response = 4")
        .replace("triplets = 32", "triplets = 32\nfinal_triplets = 80");
    sandbox.write("sweep.toml", &sweep);
    let planned = sandbox.succeed(&["plan", "sweep.toml"]);
    let cut = "samples.max_prompt = 8 and samples.max_response = 4";
    let probe = "held-out prompts: lengths are compared after cutting: 100.0% of answers are cut, so the length probe can see little";
    for said in [cut, "training: 0.0%", probe] {
        assert!(planned.contains(said), "{said}: {planned}");
    }

    let launched = sandbox.succeed(&["launch", "sweep.toml"]);
    assert!(launched.contains(probe), "{launched}");
    let run = sandbox.only_run("runs");
    let run = run.display().to_string();
    for said in [launched, sandbox.succeed(&["status", &run])] {
        let row = |line: &&str| line.contains("held-out prompts") && line.contains(" to ");
        let row = said.lines().find(row).expect("scores with intervals");
        assert!(row.trim_end().ends_with("80       16"), "{row}");
    }

    let report = sandbox.only_run("runs").join("report");
    let page = std::fs::read_to_string(report.join("report.html")).expect("a page");
    assert!(page.contains("What was cut") && page.contains("so the length probe can see little"));
    assert!(page.contains("scored on the same 32 triplets of 16 prompts"));
    let input = json(&report.join("report.json"))["input"].clone();
    let points = input["curves"][0]["points"].as_array().expect("points");
    let curve: Vec<f64> = points
        .iter()
        .filter_map(|p| p["val_loss"].as_f64())
        .collect();
    let outcome = json(&sandbox.result("runs", "pico-10steps-s1"))["outcome"].clone();
    let loss = |of: &str| {
        outcome[of]["heldout_prompts"]["loss"]
            .as_f64()
            .expect("a loss")
    };
    assert_eq!((curve.len(), curve[1]), (2, loss("along")));
    assert_ne!(loss("along"), loss("validation"));
    let points = std::fs::read_to_string(report.join("points.csv")).expect("points");
    assert!(
        points.lines().nth(1).expect("a trial").contains(",80,16,"),
        "{points}"
    );
}

#[test]
fn two_runs_are_compared_triplet_by_triplet() {
    let sandbox = Sandbox::new();
    let sweep = small_sweep(5);
    sandbox.write("sweep.toml", &sweep);
    sandbox.write(
        "other.toml",
        &sweep.replace("steps = [5]", "steps = [5]\nseeds = [2]"),
    );
    let runs = ["sweep.toml", "other.toml"].map(|file| {
        let store = file.replace(".toml", "");
        sandbox.succeed(&["launch", file, "--store", &store]);
        sandbox.only_run(&store).display().to_string()
    });
    let said = sandbox.succeed(&["report", &runs[0], "--compare", &runs[1]]);
    let row = said
        .lines()
        .find(|l| l.starts_with("loss on held-out prompts, paired"));
    let row = row.expect("a paired difference");
    assert!(row.contains("32 triplets of 16 prompts"), "{row}");
}
