//! On a corpus with a planted optimum the loss starts at ln 2 and approaches the optimum from above.

use crate::common::{Sandbox, json, small_sweep};

#[test]
fn losses_start_at_ln_2_and_approach_the_planted_optimum_from_above() {
    let sandbox = Sandbox::new();
    let sweep = small_sweep(1)
        .replace("prompts = 80", "prompts = 400")
        .replace("samples = 2", "samples = 3")
        .replace("triplets = 32", "triplets = 256")
        .replace("pack_tokens = 128", "pack_tokens = 1024")
        .replace("every = 5", "every = 0")
        .replace("batch = 16", "batch = 32")
        .replace("sizes = [\"pico\"]", "sizes = [\"pico\", \"nano\"]")
        .replace("steps = [1]", "steps = [500]");
    sandbox.write("sweep.toml", &sweep);
    sandbox.succeed(&["launch", "sweep.toml"]);
    let run = sandbox.only_run("runs");
    let report = json(&run.join("report/report.json"));
    let optimum = report["input"]["optimum"]
        .as_f64()
        .expect("a planted optimum");
    let ln2 = std::f64::consts::LN_2;
    assert!(
        optimum > 0.0 && optimum < 0.6 * ln2,
        "the corpus can be learned: {optimum}"
    );

    let mut losses = Vec::new();
    for size in ["pico", "nano"] {
        let curves = report["input"]["curves"].as_array().expect("curves");
        let curve = curves.iter().find(|c| c["size"] == size).expect("a curve");
        let first = curve["points"][0]["train_loss"].as_f64().expect("a loss");
        assert!(
            (first - ln2).abs() < 1e-6,
            "{size} starts at {first}, not at ln 2"
        );
        let result = json(&sandbox.result("runs", &format!("{size}-500steps-s1")));
        losses.push(
            result["outcome"]["validation"]["heldout_prompts"]["loss"]
                .as_f64()
                .expect("a loss"),
        );
    }
    assert!(
        losses[1] < losses[0],
        "the larger model is nearer: {losses:?}"
    );
    // The optimum is an expectation; on a few hundred triplets a model may be lucky by a little.
    assert!(
        losses.iter().all(|l| *l > optimum - 0.02),
        "{losses:?} against {optimum}"
    );
    assert!(
        losses[1] < 0.85 * ln2,
        "the larger model has learned: {losses:?} against {optimum}"
    );
}
