//! Synthetic sweeps for tests: a loss surface with a known optimum, sampled on a grid of sizes and budgets.

use super::{
    Corpus, CurveScores, CutShare, CutTexts, Cutting, Discrimination, PairedDifference,
    ReportInput, ScoredTriplet, Validation,
};
use crate::{
    Coordinates, Length,
    fits::{CHANCE_LOSS, Curve, CurvePoint, FailedTrial, FinishedTrial},
};
use polestar_core::Clustered;

const SIZES: [(&str, u64); 4] = [
    ("xs", 24_600),
    ("s", 98_300),
    ("m", 393_000),
    ("l", 1_570_000),
];
const BUDGETS: [f64; 4] = [1.25e11, 1e12, 8e12, 6.4e13];
const OPTIMUM: f64 = 0.302;

fn surface(params: f64, tokens: f64) -> f64 {
    OPTIMUM + 9.0 / params.powf(0.40) + 22.0 / tokens.powf(0.40)
}

/// Repeatable noise in -1..1.
fn jitter(key: u64) -> f64 {
    let mixed = key
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .rotate_left(31)
        .wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (mixed >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

fn curve(trial: &str, size: &str, params: u64, flops: f64) -> Curve {
    let steps = 400;
    let points = (1..=steps)
        .map(|step| {
            let share = step as f64 / steps as f64;
            let tokens = share * flops / (6.0 * params as f64);
            let loss = surface(params as f64, tokens).min(CHANCE_LOSS);
            CurvePoint {
                step,
                tokens,
                flops: share * flops,
                train_loss: Some(loss * (1.0 + 0.08 * jitter(step * 7 + params))),
                val_loss: (step % 10 == 0).then_some(loss),
                val_accuracy: (step % 10 == 0).then_some(0.5 + (CHANCE_LOSS - loss)),
            }
        })
        .collect();
    Curve {
        trial: trial.into(),
        size: size.into(),
        params: params as f64,
        points,
    }
}

/// Triplets of three policies on one set, some pairs easier than others.
fn discrimination(set: &str, harder: f64) -> Option<Discrimination> {
    let policies = ["large <v2>", "middle", "small"];
    let triplets: Vec<ScoredTriplet> = (0..900_u64)
        .map(|at| {
            let (policy, other) = ((at % 3) as usize, (at / 3 % 3) as usize);
            let lengths = [0, 1, 2].map(|of| 40 + ((at * 7 + of * 13) % 29) as u32);
            ScoredTriplet {
                policy: policies[policy].into(),
                other: policies[other].into(),
                lengths,
                margin: 0.6 * policy.abs_diff(other) as f64 - harder + jitter(at),
                prompt: Some(format!("prompt {}", at % 50)),
                cut_answers: Some(u32::from(lengths[0] > 60)),
            }
        })
        .collect();
    Discrimination::of("l-c3", set, &triplets)
}

/// A trial that is a little worse than the best one on most of fifty prompts.
fn paired(trial: &str) -> PairedDifference {
    let each = |sign: f64| {
        let differences = (0..2_000_u64).map(move |i| (i % 50, sign * (0.02 + 0.05 * jitter(i))));
        Clustered::of(differences)
    };
    PairedDifference {
        set: "held-out prompts".into(),
        trials: [trial, "l-c3"].map(str::to_owned),
        loss: each(1.0),
        accuracy: each(-1.0),
        alone: 0,
    }
}

/// Texts of which most answers are cut.
fn cutting() -> Cutting {
    let texts = |data: &str, cut| CutTexts {
        data: data.into(),
        prompts: CutShare { cut: 0, all: 400 },
        answers: CutShare { cut, all: 1_200 },
        triplets: 512,
    };
    Cutting {
        max_prompt: 1_024,
        max_response: 64,
        texts: vec![texts("training", 1_198), texts("held-out prompts", 1_190)],
    }
}

/// Four sizes at four budgets, complete.
pub(super) fn demo_input() -> ReportInput {
    let mut input = ReportInput {
        title: "Quick start: 4 sizes × 4 budgets".into(),
        run_id: "quickstart-7f3a".into(),
        corpus: Corpus {
            name: "synthetic-16".into(),
            fingerprint: "b3:5b1e0c7f9a44d2e0".into(),
            policies: 16,
            prompts: 4_096,
            triplets_seen: 1_280_000,
            tokens_seen: 163_000_000,
        },
        config_digest: "b3:0d9fe1a27c55".into(),
        created: "2026-11-22 21:40 UTC".into(),
        conventions: vec![
            ("N".into(), "all parameters but the embedding".into()),
            ("C".into(), "forward and backward FLOPs of the tokens really computed, shared prefix counted once".into()),
        ],
        chance: Some(CHANCE_LOSS),
        fitted_set: "held-out prompts".into(),
        curve_scores: Some(CurveScores {
            triplets: 512,
            prompts: Some(50),
            final_triplets: 2_000,
            without_end: vec![],
        }),
        cutting: Some(cutting()),
        optimum: Some(OPTIMUM),
        baselines: vec![("length alone".into(), 0.641), ("TF-IDF of character 3-4-grams".into(), 0.653)],
        ..ReportInput::default()
    };
    for (size, params) in SIZES {
        for (row, budget) in BUDGETS.into_iter().enumerate() {
            let trial = format!("{size}-c{row}");
            let tokens = budget / (6.0 * params as f64);
            let loss = surface(params as f64, tokens) * (1.0 + 0.006 * jitter(params + row as u64));
            input.finished.push(FinishedTrial {
                name: trial.clone(),
                at: Coordinates {
                    size: size.into(),
                    length: Length::Budget(budget),
                    batch: Some(64),
                    lr: Some(1e-3),
                    policies: None,
                    seed: 0,
                },
                params: Some(params as f64),
                flops: Some(budget),
                tokens: Some(tokens),
                distance: None,
                run: None,
                loss: loss.min(0.6943),
            });
            input.curves.push(curve(&trial, size, params, budget));
            input.digests.push((
                trial.clone(),
                format!("b3:{:016x}", params.wrapping_mul(budget as u64)),
            ));
            for (set, harder) in [("held-out prompts", 0.0), ("held-out policies", 0.03)] {
                let loss = loss + harder;
                let accuracy = 0.5 + (CHANCE_LOSS - loss).max(0.0);
                let row = Validation {
                    trial: trial.clone(),
                    set: set.into(),
                    loss,
                    accuracy,
                    triplets: 2_000,
                    prompts: Some(50),
                    loss_error: Some(0.01),
                    accuracy_error: Some(0.015),
                };
                input.validation.push(row);
            }
        }
    }
    let sets = [("held-out prompts", 0.0), ("held-out policies", 0.2)];
    let sets = sets.into_iter();
    input.discriminations = sets
        .filter_map(|(set, harder)| discrimination(set, harder))
        .collect();
    let others = input.finished.iter().filter(|trial| trial.name != "l-c3");
    input.paired = others.map(|trial| paired(&trial.name)).collect();
    input
}

/// The same sweep half-way: some trials unfinished, one failed, names that need escaping.
pub(super) fn provisional_input() -> ReportInput {
    let mut input = demo_input();
    input.title = "Sizes & budgets <first half>".into();
    let unfinished = |trial: &str| trial.ends_with("c3") && trial != "xs-c3";
    input.missing = input
        .finished
        .iter()
        .map(|trial| trial.name.clone())
        .filter(|trial| unfinished(trial))
        .collect();
    input
        .finished
        .retain(|trial| !unfinished(&trial.name) && trial.name != "l-c0");
    input.curves.retain(|curve| !unfinished(&curve.trial));
    input.validation.retain(|row| !unfinished(&row.trial));
    input.digests.retain(|(trial, _)| !unfinished(trial));
    input.failed = vec![FailedTrial {
        name: "l-c0".into(),
        reason: "rank 2 on node-7: loss is <NaN> at step 118".into(),
    }];
    input.optimum = None;
    input
}

/// Two sizes at one budget: no law can be fitted.
pub(super) fn unfittable_input() -> ReportInput {
    let mut input = demo_input();
    let kept = ["xs-c1", "s-c1"];
    input
        .finished
        .retain(|trial| kept.contains(&trial.name.as_str()));
    input
        .curves
        .retain(|curve| kept.contains(&curve.trial.as_str()));
    input
        .validation
        .retain(|row| kept.contains(&row.trial.as_str()));
    input
        .digests
        .retain(|(trial, _)| kept.contains(&trial.as_str()));
    input.title = "Two trials".into();
    input
}
