//! What is recommended, and what is refused.

use super::*;
use crate::sweep;
use polestar_laws::{
    Coordinates, Length,
    report::{ReportInput, build},
};

const SWEEP: &str = r#"
name = "planted"
store = "runs"
[corpus]
url = "c"
[train]
batch = 8
[train.optimizer]
lr = 2e-3
[sweep]
sizes = ["300k", "1M"]
budgets = [1e15, 4e15, 1.6e16, 6.4e16]
lr = { 1M = 1e-3 }
"#;

/// Trials of a planted law at budgets of `6ND`, N without and params with the embedding. Those of the
/// largest budget miss it by `miss`.
fn trials(miss: f64) -> Vec<FinishedTrial> {
    let mut trials = Vec::new();
    for (i, budget) in [1e15, 4e15, 1.6e16, 6.4e16].into_iter().enumerate() {
        for size in 0..9 {
            let n = 3e5 * 2f64.powi(size);
            let tokens = budget / (6.0 * n);
            let noise = if i == 3 { miss } else { 0.0 };
            trials.push(FinishedTrial {
                name: format!("{size}-{budget:e}"),
                at: Coordinates {
                    size: size.to_string(),
                    length: Length::Budget(budget),
                    batch: Some(16),
                    lr: Some(1e-3),
                    policies: None,
                    seed: 1,
                },
                params: Some(n),
                flops: Some(budget),
                tokens: Some(tokens),
                distance: None,
                run: None,
                loss: 0.2 + noise + 2.0 / n.powf(0.2) + 5.0 / tokens.powf(0.2),
            });
        }
    }
    trials
}

fn ask_of(
    sweep: &str,
    finished: Vec<FinishedTrial>,
    request: Request,
) -> Result<Recommendation, Refusal> {
    let sweep = sweep::read_str("t.toml", sweep).unwrap();
    let report = build(&ReportInput {
        finished: finished.clone(),
        ..ReportInput::default()
    });
    let inputs = Inputs {
        sweep: &sweep,
        tokens_per_triplet: 700.0,
        vocabulary: 256,
        finished: &finished,
        analysis: report.analysis(),
        by_compute: report.by_compute(),
    };
    recommend(&inputs, request)
}

fn ask(finished: Vec<FinishedTrial>, request: Request) -> Result<Recommendation, Refusal> {
    ask_of(SWEEP, finished, request)
}

#[test]
fn a_recommendation_is_a_sweep_that_spends_the_budget_on_the_best_size() {
    let request = Request {
        flops: 1e18,
        memory: Some(ByteCount(500_000_000)),
        force: false,
    };
    let found = ask(trials(0.0), request).unwrap();
    // The planted optimum: with equal exponents N* = sqrt(C / 6) · (2 / 5)^(1 / 0.4).
    let best = (1e18_f64 / 6.0).sqrt() * 0.4_f64.powf(2.5);
    let ratio = found.parameters as f64 / best;
    assert!((0.8..1.25).contains(&ratio), "{ratio}");
    assert!((found.extrapolation - 1e18 / 6.4e16).abs() < 1e-9);
    let text = found.toml(1e18, "a run").unwrap();
    let sweep = sweep::read_str("recommended.toml", &text).expect(&text);
    let planned = sweep::plan(
        &sweep,
        &sweep::CorpusFacts {
            vocab: 256,
            tokens_per_triplet: 700.0,
            ..sweep::fixture::facts()
        },
    )
    .unwrap();
    assert_eq!(planned.trials.len(), 1);
    let spent = planned.trials[0].flops_6nd;
    assert!((spent / 1e18 - 1.0).abs() < 0.01, "{spent}");
    let held = planned.trials[0].state_bytes.0;
    assert!(
        held <= 500_000_000,
        "{held} {:?} {}",
        sweep.train.zero,
        sweep.pool.workers_per_trial
    );
}

#[test]
fn laws_that_failed_are_not_followed_unless_that_is_overruled() {
    let request = |force| Request {
        flops: 1e18,
        memory: None,
        force,
    };
    let refused = ask(trials(0.3), request(false)).unwrap_err().to_string();
    assert!(refused.contains("missed the largest budget"), "{refused}");
    let found = ask(trials(0.3), request(true)).unwrap();
    assert!(found.cautions.iter().any(|c| c.contains("missed")));
    let few = trials(0.0).into_iter().take(9).collect();
    assert!(matches!(
        ask(few, request(true)),
        Err(Refusal::NoLaw { .. })
    ));
}

#[test]
fn a_sweep_without_budgets_is_told_which_keys_would_give_it_a_law() {
    let request = Request {
        flops: 1e18,
        memory: None,
        force: true,
    };
    let sweep = SWEEP.replace("budgets = [1e15, 4e15, 1.6e16, 6.4e16]", "steps = [40]");
    let mut finished = trials(0.0);
    for trial in &mut finished {
        trial.at.length = Length::Steps(40);
    }
    let refused = ask_of(&sweep, finished, request).unwrap_err().to_string();
    for says in [
        "sweep.budgets",
        "it has none",
        "3 sizes in sweep.sizes (2 are there)",
    ] {
        assert!(refused.contains(says), "{refused}");
    }
}

#[test]
fn learning_rate_and_batch_are_those_of_a_trial_that_was_run() {
    let request = Request {
        flops: 1e18,
        memory: None,
        force: false,
    };
    // Each size with two rates and two batches; none of them is what [train] says.
    let sweep = SWEEP.replace("lr = { 1M = 1e-3 }", "lr = [5e-4, 4e-3]\nbatch = [16, 32]");
    let mut all = Vec::new();
    for trial in trials(0.0) {
        for (lr, batch, worse) in [(5e-4, 16, 1.1), (4e-3, 32, 1.0)] {
            let mut trial = trial.clone();
            trial.name = format!("{}-b{batch}-lr{lr:e}", trial.name);
            (trial.at.lr, trial.at.batch) = (Some(lr), Some(batch));
            trial.loss *= worse;
            all.push(trial);
        }
    }
    let found = ask_of(&sweep, all.clone(), request).unwrap();
    let train = &found.sweep.train;
    assert_eq!((train.optimizer.lr, train.batch), (4e-3, 32));
    let source = "learning rate 0.004 is that of 8-6.4e16-b32-lr4e-3, the best trial";
    assert!(found.cautions[0].contains(source), "{}", found.cautions[0]);
    let spent = found.tokens * 6.0 * count::parameters(&found.model).non_embedding as f64;
    assert!((spent / 1e18 - 1.0).abs() < 0.01, "{spent}");

    // Rates by the paper's law stay so.
    let sweep = SWEEP.replace(
        "lr = { 1M = 1e-3 }",
        "lr = \"polar\"\npretrain_tokens = 1e12",
    );
    let found = ask_of(&sweep, all, request).unwrap();
    assert!(found.cautions[0].starts_with("the learning rate is by the paper's law"));
    let text = found.toml(1e18, "a run").unwrap();
    let again = sweep::read_str("recommended.toml", &text).expect(&text);
    assert!(matches!(again.sweep.lr, LrAxis::Law(_)), "{text}");
}
