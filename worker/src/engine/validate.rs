//! Scoring evaluation sets, spread over the ranks, the same numbers on every world size.

use super::{Engine, PassError, Scores, Stepper};
use crate::collective::Transport;
use polestar_core::{Clustered, tree::tree_sum};
use polestar_model::PackInput;
use polestar_run::{
    RewardSpread, SetScore, memory::SCORED_TOGETHER, placement::Sharding, scores::Compared,
};

/// Triplets that are scored and not trained on, packed once.
#[derive(Debug)]
pub(super) struct EvalSet<P> {
    /// Its name in records.
    name: String,
    /// How many packs it has.
    packs: usize,
    /// Those that this rank scores, on its device.
    own: Vec<P>,
    /// What is in all of them, in order.
    triplets: Vec<Compared>,
}

impl<P> EvalSet<P> {
    /// A set of packs, the same on every rank, of which each rank keeps every world-th.
    pub(super) fn new<E: Engine<Pack = P>>(
        name: &str,
        packs: Vec<PackInput>,
        triplets: Vec<Compared>,
        sharding: &Sharding,
        engine: &E,
    ) -> EvalSet<P> {
        let (rank, world) = (sharding.rank.0 as usize, sharding.world.0 as usize);
        EvalSet {
            name: name.to_owned(),
            packs: packs.len(),
            own: packs
                .into_iter()
                .skip(rank)
                .step_by(world)
                .map(|pack| engine.upload(pack))
                .collect(),
            triplets,
        }
    }

    /// Its name in records.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What is in it, in the order of margins.
    pub(super) fn triplets(&self) -> &[Compared] {
        &self.triplets
    }
}

/// What came out of every triplet of a set, in the set's order.
pub(super) struct Outcomes {
    losses: Vec<f64>,
    /// The margin of every triplet if the trial ranks them.
    pub(super) margins: Vec<f32>,
    /// The rewards that margins are of, two a triplet, where the engine gives them.
    rewards: Vec<f32>,
}

impl Outcomes {
    /// The score of the set's first `count` triplets, or of all if it has fewer.
    pub(super) fn score<P>(&self, set: &EvalSet<P>, count: usize) -> SetScore {
        let triplets = &set.triplets[..count.min(set.triplets.len())];
        let first = |values: &[f64]| values[..triplets.len().min(values.len())].to_vec();
        let right: Vec<f64> = self.margins.iter().copied().map(credit).collect();
        let (losses, right) = (first(&self.losses), first(&right));
        let reals = |values: &[f32], each: usize| -> Vec<f64> {
            let first = values.iter().take(each * triplets.len());
            first.map(|&value| f64::from(value)).collect()
        };
        let margins = reals(&self.margins, 1);
        let mean = |values: &[f64]| tree_sum(values) / values.len().max(1) as f64;
        // A triplet that doesn't say its prompt is one by itself; those that are drawn from a corpus all do.
        let clustered = |values: &[f64]| {
            let prompts = triplets.iter().enumerate().map(|(at, triplet)| {
                let source = triplet.source.as_ref();
                source.map_or(Err(at), |source| Ok(source.prompt_id.as_str()))
            });
            Clustered::of(prompts.zip(values.iter().copied()))
        };
        let by_prompt = clustered(&losses);
        SetScore {
            loss: mean(&losses),
            accuracy: (!right.is_empty()).then(|| mean(&right)),
            triplets: triplets.len(),
            prompts: Some(by_prompt.clusters),
            loss_error: by_prompt.error,
            accuracy_error: clustered(&right).error,
            margin: (!margins.is_empty()).then(|| mean(&margins)),
            rewards: RewardSpread::of(&reals(&self.rewards, 2)),
        }
    }
}

/// Scores a set. Each rank runs every world-th pack; all ranks get the result.
pub(super) fn score<E: Engine, T: Transport<E>>(
    set: &EvalSet<E::Pack>,
    stepper: &mut Stepper<E>,
    transport: &mut T,
) -> Result<Outcomes, ScoreError> {
    let world = transport.world().0 as usize;
    let mut local = Vec::new();
    // As often as the rank with the most packs: to gather weights takes all ranks.
    for round in 0..set.packs.div_ceil(world).div_ceil(SCORED_TOGETHER) {
        let from = (round * SCORED_TOGETHER).min(set.own.len());
        let to = (from + SCORED_TOGETHER).min(set.own.len());
        for scores in stepper.score(transport, &set.own[from..to])? {
            local.extend(encode(&scores));
        }
    }
    let gathered = transport.exchange(&local)?;
    let mut readers: Vec<&[u8]> = gathered.iter().map(Vec::as_slice).collect();
    let mut losses = Vec::with_capacity(set.triplets.len());
    let mut margins = Vec::with_capacity(set.triplets.len());
    let mut rewards = Vec::new();
    for index in 0..set.packs {
        let reader = &mut readers[index % world];
        let pack = decode(reader).ok_or(ScoreError::Truncated)?;
        losses.extend(pack.losses.into_iter().map(f64::from));
        margins.extend(pack.margins);
        rewards.extend(pack.rewards);
    }
    Ok(Outcomes {
        losses,
        margins,
        rewards,
    })
}

/// One for a correct ranking, a half for a tie.
pub(super) fn credit(margin: f32) -> f64 {
    if margin > 0.0 {
        1.0
    } else if margin == 0.0 {
        0.5
    } else {
        0.0
    }
}

/// Why a set could not be scored.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScoreError {
    /// A loss is not a number.
    #[error(transparent)]
    NotFinite(#[from] super::NotFinite),
    /// A rank is gone.
    #[error(transparent)]
    Collective(#[from] crate::collective::CollectiveError),
    /// A rank sent fewer scores than it has packs.
    #[error("a rank sent too few scores")]
    Truncated,
}

impl From<PassError> for ScoreError {
    fn from(error: PassError) -> ScoreError {
        match error {
            PassError::NotFinite(source) => ScoreError::NotFinite(source),
            PassError::Collective(error) => ScoreError::Collective(error),
        }
    }
}

fn encode(scores: &Scores) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in [&scores.losses, &scores.margins, &scores.rewards] {
        bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
        for value in part {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
    }
    bytes
}

fn decode(reader: &mut &[u8]) -> Option<Scores> {
    let mut part = || {
        let (head, rest) = reader.split_first_chunk::<4>()?;
        let len = u32::from_le_bytes(*head) as usize * 4;
        let (values, rest) = rest.split_at_checked(len)?;
        *reader = rest;
        let number = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        Some(values.chunks_exact(4).map(number).collect::<Vec<f32>>())
    };
    Some(Scores {
        losses: part()?,
        margins: part()?,
        rewards: part()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use polestar_dataset::TripletSource;

    #[test]
    fn the_first_triplets_are_scored_as_if_they_were_alone_and_by_prompt() {
        let compared = |prompt: u32| Compared {
            policy: 0,
            other: 1,
            reference: 1,
            positive: 1,
            negative: 1,
            source: Some(TripletSource {
                prompt_id: prompt.to_string(),
                ..TripletSource::default()
            }),
        };
        let set = |count: u32| EvalSet::<()> {
            name: "s".to_owned(),
            packs: 1,
            own: vec![],
            triplets: (0..count).map(|at| compared(at % 6)).collect(),
        };
        let outcomes = |count: u32| Outcomes {
            losses: (0..count).map(|at| f64::from(at * at)).collect(),
            margins: (0..count).map(|at| at as f32 % 5.0 - 2.0).collect(),
            rewards: (0..2 * count).map(|at| at as f32 / 2.0).collect(),
        };
        let (whole, first) = (outcomes(60), outcomes(12));
        assert_eq!(whole.score(&set(60), 12), first.score(&set(12), 12));
        let score = whole.score(&set(60), 60);
        assert_eq!((score.triplets, score.prompts), (60, Some(6)));
        assert_eq!(score.accuracy, Some(0.5));
        assert_eq!(score.margin, Some(0.0));
        let spread = score.rewards.expect("the engine gave rewards");
        assert_eq!((spread.mean, spread.min, spread.max), (29.75, 0.0, 59.5));
        assert!(score.loss_error > first.score(&set(12), 12).loss_error);
        // A language model ranks nothing.
        let ranks_nothing = Outcomes {
            margins: vec![],
            rewards: vec![],
            ..whole
        };
        let score = ranks_nothing.score(&set(60), 60);
        assert_eq!((score.accuracy, score.accuracy_error), (None, None));
        assert_eq!((score.margin, score.rewards), (None, None));
        assert!(score.loss_interval().is_some());
    }
}
