//! What a trial is scored on: curves of the same triplets from end to end, scores that name their texts, and weights
//! that know nothing of it.

#[path = "common/alike.rs"]
mod alike;
mod common;
#[path = "common/small.rs"]
mod small;

use alike::run;
use polestar_core::Step;
use polestar_run::{metrics, placement::Zero, scores};
use small::{STEPS, store, trial};
use std::collections::BTreeSet;
use tokio::runtime::Runtime;

#[test]
fn a_curve_is_of_the_same_triplets_to_its_end_and_measuring_changes_no_weight() {
    let runtime = Runtime::new().expect("a runtime");
    let plain = trial(&runtime, Zero::None);
    let mut measured = plain.clone();
    measured.measurement.every = 2;
    measured.measurement.final_triplets = 40;
    let (one, two, other) = (store("one-rank"), store("two-ranks"), store("plain"));
    let outcome = |trial, place: &polestar_store::Store, world| {
        let mut generation = run(&runtime, trial, vec![place.clone(); world]);
        assert_eq!(generation.begun, Some(Step(0)));
        generation.ends.remove(0).expect("a result")
    };
    let [alone, shared] = [outcome(&measured, &one, 1), outcome(&measured, &two, 2)];
    let unmeasured = outcome(&plain, &other, 1);
    assert_eq!(alone.digest, unmeasured.digest);
    assert_eq!(alone.validation, shared.validation);
    assert_eq!(alone.along, shared.along);
    for (set, score) in &alone.along {
        let directly = unmeasured.validation[set];
        let apart = (score.loss - directly.loss).abs();
        assert!(score.triplets == 8 && apart < 1e-6, "{score} {directly}");
    }

    let rows = runtime.block_on(metrics::read(&one, &measured));
    let rows = rows.expect("metrics");
    let curve: Vec<_> = rows.iter().filter(|r| !r.validation.is_empty()).collect();
    assert_eq!(curve.len() as u64, STEPS / 2);
    assert!(
        curve
            .iter()
            .all(|row| row.validation["heldout_prompts"].triplets == 8)
    );
    let last = curve.last().expect("a point");
    assert_eq!(last.validation, alone.along);
    let score = alone.validation["heldout_prompts"];
    assert_eq!((score.triplets, score.prompts), (40, Some(8)));
    assert!(score.loss_interval().is_some() && score.accuracy_interval().is_some());

    let written = runtime.block_on(scores::read(&one, &measured));
    let written = written.expect("scores");
    for set in &measured.measurement.sets {
        let of_set = written.iter().filter(|s| s.set == set.name);
        let sources = of_set.map(|s| s.triplet.source.as_ref().expect("a source"));
        let sources: Vec<_> = sources.collect();
        assert_eq!(sources.len(), 40);
        let prompts: BTreeSet<_> = sources.iter().map(|s| &s.prompt_id).collect();
        assert_eq!(Some(prompts.len()), alone.validation[&set.name].prompts);
        assert!(
            sources
                .iter()
                .all(|s| s.reference.sample != s.positive.sample)
        );
    }
}
