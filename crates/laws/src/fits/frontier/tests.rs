use super::*;
use crate::{Coordinates, Length, fits::CHANCE_LOSS};

fn trial(size: &str, params: f64, budget: Option<f64>, seed: u64, loss: f64) -> FinishedTrial {
    let flops = budget.unwrap_or(params * 1e6);
    FinishedTrial {
        name: format!("{size}-{flops:.0e}-{seed}"),
        at: Coordinates {
            size: size.into(),
            length: budget.map_or(Length::TokensPerParameter(20.0), Length::Budget),
            batch: Some(32),
            lr: Some(1e-3),
            policies: None,
            seed,
        },
        params: Some(params),
        flops: Some(flops),
        tokens: Some(flops / params),
        distance: None,
        run: None,
        loss,
    }
}

fn chosen(selection: &Selection) -> Vec<&str> {
    let chosen = selection.chosen.iter();
    chosen
        .map(|observation| observation.label.as_str())
        .collect()
}

fn reason<'a>(selection: &'a Selection, trial: &str) -> &'a str {
    let out = selection.excluded.iter().find(|out| out.trial == trial);
    &out.unwrap_or_else(|| panic!("{trial} is not left out"))
        .reason
}

/// Three sizes at two budgets; the middle size wins the first budget, the largest the second.
fn grid() -> Vec<FinishedTrial> {
    let losses = [
        ("s", 10.0, 0.50, 0.49),
        ("m", 30.0, 0.48, 0.45),
        ("l", 90.0, 0.52, 0.43),
    ];
    losses
        .into_iter()
        .flat_map(|(size, params, small, large)| {
            [
                trial(size, params, Some(1e9), 0, small),
                trial(size, params, Some(1e10), 0, large),
            ]
        })
        .collect()
}

#[test]
fn each_size_enters_at_its_best_and_each_budget_with_its_best_size() {
    let by_size = by_params(&grid(), &[], Some(CHANCE_LOSS));
    assert_eq!(chosen(&by_size), ["s-1e10-0", "m-1e10-0", "l-1e10-0"]);
    assert_eq!(by_size.chosen[1].x, 30.0);

    let by_budget = by_compute(&grid(), &[], Some(CHANCE_LOSS));
    assert_eq!(chosen(&by_budget), ["m-1e9-0", "l-1e10-0"]);
    assert_eq!(by_budget.chosen[1].x, 1e10);
    assert_eq!(by_budget.excluded.len(), 4);
    assert!(
        by_budget.excluded[0]
            .reason
            .starts_with("not the best size at its budget")
    );
    // The middle size is bracketed at the first budget; the largest is an edge at the second.
    assert_eq!(by_budget.cautions.len(), 1);
    assert!(
        by_budget.cautions[0].contains("l, is the largest tried"),
        "{:?}",
        by_budget.cautions
    );
}

#[test]
fn a_size_that_was_tried_and_left_out_is_no_size_that_was_not_tried() {
    let caution = |trials: &[FinishedTrial]| {
        let found = by_compute(trials, &[], Some(CHANCE_LOSS));
        found.cautions[0].clone()
    };
    let alone = trial("s", 10.0, Some(1e9), 0, 0.5);
    let text = caution(std::slice::from_ref(&alone));
    assert!(text.contains("only size s was tried"), "{text}");
    // The larger one is no better than chance.
    let larger = trial("m", 30.0, Some(1e9), 0, 0.7);
    let text = caution(&[alone, larger]);
    assert!(
        text.contains("only size s can enter (m was tried and left out)"),
        "{text}"
    );
    let mut trials = grid();
    trials.push(trial("xl", 270.0, Some(1e10), 0, f64::NAN));
    let text = caution(&trials);
    assert!(
        text.contains("l, is the largest that can enter (xl was tried and left out)"),
        "{text}"
    );
}

#[test]
fn seeds_enter_together_and_compete_by_their_mean() {
    let mut trials = grid();
    trials.extend([
        trial("s", 10.0, Some(1e9), 1, 0.40),
        trial("m", 30.0, Some(1e9), 1, 0.60),
    ]);
    // Means at the first budget: s 0.45, m 0.54.
    assert_eq!(
        chosen(&by_compute(&trials, &[], Some(CHANCE_LOSS)))[..2],
        ["s-1e9-0", "s-1e9-1"]
    );
}

#[test]
fn trials_are_grouped_by_where_they_lie_whatever_they_are_called() {
    let mut trials = vec![
        trial("s", 10.0, Some(1e9), 1, 0.50),
        trial("s", 10.0, Some(1e9), 2, 0.48),
        trial("s", 10.0, Some(1e9), 1, 0.47),
    ];
    // The first two are one setting under names of two; the third has the name of a further seed.
    for (trial, name) in trials
        .iter_mut()
        .zip(["s-lr1e-3-s1", "s-lr9e-3-s1", "s-lr1e-3-s3"])
    {
        trial.name = name.into();
    }
    trials[2].at.lr = Some(2e-3);
    let kept: Vec<&str> = best_settings(&trials).iter().map(|t| &*t.name).collect();
    assert_eq!(kept, ["s-lr1e-3-s3"]);
    trials[2].loss = 0.495;
    let selection = by_params(&trials, &[], Some(CHANCE_LOSS));
    assert_eq!(chosen(&selection), ["s-lr1e-3-s1", "s-lr9e-3-s1"]);
    // Its one seed beats the first of theirs, but not their mean.
    assert!(reason(&selection, "s-lr1e-3-s3").contains("0.4950 with batch 32, learning rate 2e-3"));
}

#[test]
fn the_same_steps_of_a_larger_batch_are_more_training_not_another_setting() {
    let mut trials = vec![
        trial("s", 10.0, None, 1, 0.50),
        trial("s", 10.0, None, 1, 0.45),
    ];
    for (trial, batch) in trials.iter_mut().zip([32, 64]) {
        trial.at.length = Length::Steps(100);
        trial.at.batch = Some(batch);
        trial.flops = trial.flops.map(|flops| flops * f64::from(batch));
    }
    assert_eq!(by_compute(&trials, &[], None).chosen.len(), 2);
    for trial in &mut trials {
        trial.at.length = Length::TokensPerParameter(20.0);
    }
    assert_eq!(by_compute(&trials, &[], None).chosen.len(), 1);
}

#[test]
fn what_can_not_enter_is_listed_with_its_reason() {
    let mut trials = grid();
    trials.push(trial("s", 10.0, Some(1e10), 5, 0.70));
    trials.push(trial("s", 10.0, Some(1e10), 6, f64::NAN));
    let mut slower = trial("s", 10.0, Some(1e10), 0, 0.60);
    slower.name = "s-slow".into();
    slower.at.lr = Some(1e-4);
    trials.push(slower);
    let failed = [FailedTrial {
        name: "xl".into(),
        reason: "out of memory".into(),
    }];
    for selection in [
        by_params(&trials, &failed, Some(CHANCE_LOSS)),
        by_compute(&trials, &failed, Some(CHANCE_LOSS)),
    ] {
        assert_eq!(
            selection.chosen.len() + selection.excluded.len(),
            trials.len() + failed.len()
        );
        assert!(reason(&selection, "s-1e10-5").contains("not below chance"));
        assert!(reason(&selection, "s-1e10-6").contains("not a finite number"));
        assert!(reason(&selection, "s-slow").contains("another setting of this size and length"));
        assert_eq!(reason(&selection, "xl"), "trial failed: out of memory");
    }
}

#[test]
fn without_budgets_a_trial_enters_unless_cheaper_training_did_better() {
    let trials = [
        trial("s", 10.0, None, 0, 0.50),
        trial("m", 30.0, None, 0, 0.52),
        trial("l", 90.0, None, 0, 0.45),
    ];
    let selection = by_compute(&trials, &[], Some(CHANCE_LOSS));
    assert_eq!(chosen(&selection), ["s-1e7-0", "l-9e7-0"]);
    assert!(
        selection.excluded[0]
            .reason
            .contains("with no more compute")
    );
}
