//! What a rank held when its generation ended.

use super::super::SegmentState;
use crate::engine::corpora::OpenCorpus;
use polestar_core::{RecipeId, Step, digest::checksum, tree::BLOCK};
use polestar_run::{Consumed, Trial, metrics::Row};
use polestar_store::Store;
use rayon::prelude::*;
use std::{
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What a process keeps from one generation to the next. Clones are one and the same.
#[derive(Clone, Debug, Default)]
pub struct Kept(Arc<Mutex<Memory>>);

#[derive(Debug, Default)]
struct Memory {
    snapshots: Vec<Snapshot>,
    corpus: Option<OpenCorpus>,
}

impl Kept {
    /// The steps of which something is kept.
    pub fn steps(&self) -> Vec<Step> {
        let memory = self.lock();
        memory.snapshots.iter().map(|s| s.step).collect()
    }

    pub(in crate::engine) fn put(&self, snapshots: Vec<Snapshot>) {
        self.lock().snapshots.extend(snapshots);
    }

    /// Takes what is of this trial out, and drops the rest: a process has room for one trial.
    pub(in crate::engine) fn take(&self, key: &Key) -> Vec<Snapshot> {
        let mut kept = std::mem::take(&mut self.lock().snapshots);
        kept.retain(|snapshot| snapshot.key == *key);
        kept
    }

    pub(in crate::engine) fn corpus(&self) -> Option<OpenCorpus> {
        self.lock().corpus.clone()
    }

    /// Keeps a corpus open, in place of the one before.
    pub(in crate::engine) fn keep_corpus(&self, corpus: OpenCorpus) {
        self.lock().corpus = Some(corpus);
    }

    /// Who panicked while holding it left whole snapshots, and a whole corpus.
    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of what a snapshot is: its rows continue those of one measurement in one store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Key {
    run: String,
    recipe: RecipeId,
    measurement: String,
}

impl Key {
    pub(in crate::engine) fn of(trial: &Trial, run: &Store) -> Key {
        Key {
            run: run.url().to_owned(),
            recipe: trial.recipe_id(),
            measurement: trial.measurement.id(),
        }
    }
}

/// A whole step, as one rank has it.
#[derive(Debug)]
pub(in crate::engine) struct Snapshot {
    pub(in crate::engine) key: Key,
    /// Steps done.
    pub(in crate::engine) step: Step,
    pub(in crate::engine) consumed: Consumed,
    /// Those of the steps since the last checkpoint that this rank knows to be committed.
    pub(in crate::engine) rows: Vec<Row>,
    pub(in crate::engine) pieces: Vec<Piece>,
}

impl Snapshot {
    /// Whether it can take the next step as soon as somebody knows the norm of its gradient.
    pub(super) fn is_prepared(&self) -> bool {
        !self.pieces.is_empty() && self.pieces.iter().all(|piece| piece.gradient.is_some())
    }
}

/// Some elements of a segment, from a block's edge on.
#[derive(Debug)]
pub(in crate::engine) struct Piece {
    pub(in crate::engine) segment: usize,
    /// The first element.
    pub(in crate::engine) start: usize,
    pub(in crate::engine) state: SegmentState<Vec<f32>>,
    /// Their part of the next step's gradient, if that is all there.
    pub(in crate::engine) gradient: Option<Vec<f32>>,
}

impl Piece {
    /// Its place in the segment.
    pub(super) fn range(&self) -> Range<usize> {
        self.start..self.start + self.state.master.len()
    }

    /// The state of some elements of the segment that are in it.
    pub(super) fn part(&self, range: &Range<usize>) -> [&[f32]; 3] {
        let at = range.start - self.start..range.end - self.start;
        let SegmentState {
            master,
            exp_avg,
            exp_avg_sq,
        } = &self.state;
        [master, exp_avg, exp_avg_sq].map(|vector| &vector[at.clone()])
    }
}

/// A sum over each [`BLOCK`] of some elements' state.
pub(super) fn block_checksums(state: [&[f32]; 3]) -> Vec<u64> {
    let of_block = |block: usize| {
        let sums = state.map(|vector| {
            let end = vector.len().min((block + 1) * BLOCK);
            checksum(&vector[end.min(block * BLOCK)..end])
        });
        sums.into_iter()
            .fold(0_u64, |all, sum| all.rotate_left(7).wrapping_add(sum))
    };
    let blocks = state[0].len().div_ceil(BLOCK);
    (0..blocks).into_par_iter().map(of_block).collect()
}
