//! Lengths that share a trunk: one trial at a constant rate, from whose checkpoints the others decay.

use super::{TrialRole, axes::TrunkTable, expand::Stage};
use polestar_core::{Step, TrialId};
use polestar_laws::Length;
use polestar_run::schedule::Schedule;

/// The trunk of some trials that differ only in their lengths, and these as its branches. A length so
/// short that it has nothing in common with others stays as it is.
pub(super) fn grow(
    id: TrialId,
    table: TrunkTable,
    mut branches: Vec<Stage>,
) -> (Option<Stage>, Vec<Stage>) {
    let shortest = branches.iter().map(|b| b.steps).min().unwrap_or(0);
    let warmup = table
        .warmup
        .unwrap_or_else(|| (0.03 * shortest as f64).ceil() as u64);
    let schedule = |decay| Schedule::WsdSteps {
        warmup,
        decay,
        floor: table.floor,
    };
    let mut left = Vec::new();
    for branch in &mut branches {
        let decay = (table.decay * branch.steps as f64).round().max(1.0) as u64;
        branch.train.schedule = schedule(decay);
        let step = branch.steps.saturating_sub(decay);
        if step > 0 {
            left.push(Step(step));
            branch.leaves = Some(Step(step));
        }
    }
    left.sort();
    left.dedup();
    let (Some(&last), Some(any)) = (left.last(), branches.first()) else {
        return (None, branches);
    };
    let mut train = any.train.clone();
    train.schedule = schedule(0);
    train.checkpoint.at = left;
    let trunk = Stage {
        id,
        train,
        steps: last.0,
        leaves: None,
        role: TrialRole::Trunk,
        length: Length::Steps(last.0),
        ..any.clone()
    };
    (Some(trunk), branches)
}
