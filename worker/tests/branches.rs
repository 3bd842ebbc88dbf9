//! Trials of several lengths share a trunk, and none of them can be told from one that was trained alone.

#[path = "common/alike.rs"]
mod alike;
mod common;
#[path = "common/small.rs"]
mod small;

use alike::run;
use polestar_core::{Step, TrialId};
use polestar_run::{Trial, Trunk, checkpoint, placement::Zero, schedule::Schedule};
use polestar_store::Store;
use small::{store, trial};
use tokio::runtime::Runtime;

fn of_length(trial: &Trial, id: &str, steps: u64, decay: u64) -> Trial {
    let mut trial = trial.clone();
    trial.id = TrialId(id.to_owned());
    trial.recipe.steps = steps;
    trial.recipe.schedule = Schedule::WsdSteps {
        warmup: 2,
        decay,
        floor: 0.0,
    };
    trial
}

#[test]
fn a_branch_ends_where_the_whole_trial_does() {
    let runtime = Runtime::new().expect("a runtime");
    let mut small = trial(&runtime, Zero::None);
    // As if nothing were kept but what has to be.
    small.execution.checkpoint.every = 1;
    small.execution.checkpoint.keep_every = 0;
    // One recipe, one folder: what is trained alone must not find what was trained with a trunk.
    let (place, apart) = (store("branches"), store("branches-alone"));
    let mut trunk = of_length(&small, "trunk", 7, 0);
    trunk.execution.checkpoint.at = vec![Step(3), Step(7)];
    let digest = |trial: &Trial, place: &Store, world: usize, begun: u64| {
        let mut generation = run(&runtime, trial, vec![place.clone(); world]);
        assert_eq!(generation.begun, Some(Step(begun)), "{}", trial.id);
        let outcome = generation.ends.remove(0).expect("a result");
        (
            outcome.digest,
            outcome.validation,
            outcome.consumed.triplets,
        )
    };
    digest(&trunk, &place, 1, 0);
    // The last leaves where the trunk kept no checkpoint, and begins at the one before.
    for (steps, decay, begun) in [(5, 2, 3), (9, 2, 7), (7, 2, 3)] {
        let alone = of_length(&small, &format!("alone-{steps}"), steps, decay);
        let mut branch = of_length(&small, &format!("branch-{steps}"), steps, decay);
        let left = Step(steps - decay);
        branch.execution.trunk = Some(Trunk {
            recipe: trunk.recipe_id(),
            step: left,
        });
        assert_eq!(branch.recipe_id(), alone.recipe_id());
        assert_eq!(
            digest(&branch, &place, 2, begun),
            digest(&alone, &apart, 1, 0)
        );
    }
    let kept = runtime.block_on(checkpoint::committed(&place, &trunk.recipe_id()));
    assert_eq!(kept.expect("a listing"), [3, 6, 7].map(Step));
}
