//! Scoring evaluation sets, spread over the ranks, the same numbers on every world size.

use super::{Engine, PassError, Scores, Stepper};
use crate::collective::Transport;
use polestar_core::tree::tree_sum;
use polestar_model::PackInput;
use polestar_run::SetScore;
use polestar_run::{placement::Sharding, scores::Compared};

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

/// Packs that go through the model together: sharded weights are gathered once for all of them.
const TOGETHER: usize = 4;

/// Scores a set. Each rank runs every world-th pack; all ranks get the result, and the margin of
/// every triplet if the trial ranks them.
pub(super) fn score<E: Engine, T: Transport<E>>(
    set: &EvalSet<E::Pack>,
    stepper: &mut Stepper<E>,
    transport: &mut T,
) -> Result<(SetScore, Vec<f32>), ScoreError> {
    let world = transport.world().0 as usize;
    let mut local = Vec::new();
    // As often as the rank with the most packs: to gather weights takes all ranks.
    for round in 0..set.packs.div_ceil(world).div_ceil(TOGETHER) {
        let from = (round * TOGETHER).min(set.own.len());
        let to = (from + TOGETHER).min(set.own.len());
        for scores in stepper.score(transport, &set.own[from..to])? {
            local.extend(encode(&scores));
        }
    }
    let gathered = transport.exchange(&local)?;
    let mut readers: Vec<&[u8]> = gathered.iter().map(Vec::as_slice).collect();
    let mut losses = Vec::with_capacity(set.triplets.len());
    let mut margins = Vec::with_capacity(set.triplets.len());
    for index in 0..set.packs {
        let reader = &mut readers[index % world];
        let pack = decode(reader).ok_or(ScoreError::Truncated)?;
        losses.extend(pack.losses.into_iter().map(f64::from));
        margins.extend(pack.margins);
    }
    let mean = |values: &[f64]| tree_sum(values) / values.len().max(1) as f64;
    let right: Vec<f64> = margins.iter().copied().map(credit).collect();
    let score = SetScore {
        loss: mean(&losses),
        accuracy: (!right.is_empty()).then(|| mean(&right)),
        triplets: set.triplets.len(),
    };
    Ok((score, margins))
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
    for part in [&scores.losses, &scores.margins] {
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
    })
}
