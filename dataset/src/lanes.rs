//! The order of training prompts: which prompt stands at which position of which lane, by
//! arithmetic over the manifest.
//!
//! ```text
//! epoch e:  the row groups of the train split, permuted by (seed, e) and laid end to end:
//!           a line of U usable prompts
//! lane l:   owns the slice [l*U/G, (l+1)*U/G) of that line, and walks it in windows,
//!           each shuffled by (seed, e, l, window)
//! ```
//! A lane's slice has the same length in every epoch, so a position divides into epoch and index:
//! seeking is never a replay. Neither the number of workers nor the placement of lanes on them
//! enters anywhere.

use std::sync::{Arc, Mutex};

use polestar_core::{Lane, random::Stream};

use crate::manifest::{FileSplit, Manifest, PromptRef, RowGroupRef};

/// Why no order can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A lane would never get a prompt.
    #[error(
        "the corpus has {prompts} usable training prompts for {lanes} lanes; every lane needs \
         at least one: use fewer lanes or a larger corpus"
    )]
    TooFewPrompts {
        /// Usable training prompts.
        prompts: u64,
        /// Lanes asked for.
        lanes: u32,
    },
    /// No lanes, or an empty window.
    #[error("lanes and window must be positive")]
    Empty,
}

/// A prompt, and which visit to it this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Visit {
    /// The prompt.
    pub prompt: PromptRef,
    /// The visit: every prompt is met once an epoch.
    pub epoch: u64,
    /// Position in the whole epoch's order, `0..U`: with seed and epoch the key of the triplet
    /// choice.
    pub index: u64,
}

/// The row groups of one epoch, end to end.
#[derive(Debug)]
struct Epoch {
    number: u64,
    /// First prompt of each row group in the epoch's line, ascending.
    groups: Vec<(u64, RowGroupRef)>,
}

/// The order of a corpus for a seed, a number of lanes and a window.
#[derive(Debug)]
pub struct LaneOrder {
    seed: u64,
    lanes: u32,
    window: u64,
    prompts: u64,
    /// Usable prompts of every row group that has some.
    groups: Vec<(RowGroupRef, u64)>,
    /// The last epochs asked for: lanes cross an epoch's edge at slightly different steps.
    recent: Mutex<[Option<Arc<Epoch>>; 2]>,
}

impl LaneOrder {
    /// Orders the training split. `window` is how many consecutive prompts of a lane are shuffled
    /// among each other.
    ///
    /// # Errors
    /// [`Error`]: no lanes, no window, or fewer prompts than lanes.
    pub fn new(manifest: &Manifest, seed: u64, lanes: u32, window: usize) -> Result<Self, Error> {
        let groups: Vec<_> = manifest
            .row_groups(FileSplit::Train)
            .filter(|(_, group)| group.prompts > 0)
            .map(|(place, group)| (place, group.prompts))
            .collect();
        let prompts = groups.iter().map(|(_, prompts)| prompts).sum();
        if lanes == 0 || window == 0 {
            return Err(Error::Empty);
        }
        if prompts < u64::from(lanes) {
            return Err(Error::TooFewPrompts { prompts, lanes });
        }
        Ok(Self {
            seed,
            lanes,
            window: window as u64,
            prompts,
            groups,
            recent: Mutex::default(),
        })
    }

    /// Usable training prompts: the length of an epoch over all lanes.
    pub fn prompts(&self) -> u64 {
        self.prompts
    }

    /// First index of the slice of lane number `lane`.
    fn slice_start(&self, lane: u32) -> u64 {
        (u128::from(lane) * u128::from(self.prompts) / u128::from(self.lanes)) as u64
    }

    /// Prompts that a lane meets in an epoch; lanes differ by at most one.
    pub fn lane_length(&self, lane: Lane) -> u64 {
        self.slice_start(lane.0 + 1) - self.slice_start(lane.0)
    }

    /// The prompt at `position` (counted over all epochs) of a lane, which must be below the number
    /// of lanes.
    pub fn locate(&self, lane: Lane, position: u64) -> Visit {
        assert!(lane.0 < self.lanes, "{lane} of {}", self.lanes);
        let length = self.lane_length(lane);
        let (epoch, within) = (position / length, position % length);
        let window = within / self.window;
        let first = window * self.window;
        let size = self.window.min(length - first) as usize;
        let key = [self.seed, epoch, u64::from(lane.0), window];
        let order = Stream::new("lane window", &key).permutation(size);
        let index = self.slice_start(lane.0) + first + u64::from(order[(within - first) as usize]);

        let groups = self.epoch(epoch);
        let at = groups.groups.partition_point(|&(start, _)| start <= index) - 1;
        let (start, row_group) = groups.groups[at];
        Visit {
            prompt: PromptRef {
                row_group,
                prompt: (index - start) as usize,
            },
            epoch,
            index,
        }
    }

    fn epoch(&self, number: u64) -> Arc<Epoch> {
        let mut recent = self
            .recent
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(known) = recent.iter().flatten().find(|epoch| epoch.number == number) {
            return Arc::clone(known);
        }
        let mut order = self.groups.clone();
        Stream::new("row groups", &[self.seed, number]).shuffle(&mut order);
        let mut start = 0;
        let groups = order
            .into_iter()
            .map(|(row_group, prompts)| {
                let entry = (start, row_group);
                start += prompts;
                entry
            })
            .collect();
        let epoch = Arc::new(Epoch { number, groups });
        recent.rotate_right(1);
        recent[0] = Some(Arc::clone(&epoch));
        epoch
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::manifest::{Extent, File, RowGroup};

    fn corpus(prompts: &[&[u64]]) -> Manifest {
        let extent = Extent {
            offset: 0,
            bytes: 0,
            digest: String::new(),
        };
        let file = |groups: &&[u64]| File {
            path: String::new(),
            split: FileSplit::Train,
            rows: 0,
            bytes: 0,
            digest: String::new(),
            footer: extent.clone(),
            row_groups: groups
                .iter()
                .map(|&prompts| RowGroup {
                    rows: 0,
                    prompts,
                    heldout_policy_prompts: 0,
                    extent: extent.clone(),
                })
                .collect(),
        };
        Manifest::of_files(prompts.iter().map(file).collect())
    }

    #[test]
    fn an_epoch_meets_every_prompt_once() {
        let manifest = corpus(&[&[7, 0, 30], &[1, 13, 5, 44]]);
        for (lanes, window) in [
            (1, 1),
            (3, 7),
            (4, 8),
            (16, 3),
            (23, 4),
            (32, 1000),
            (100, 2),
        ] {
            let order = LaneOrder::new(&manifest, 5, lanes, window).unwrap();
            let mut epochs: Vec<BTreeSet<_>> = Vec::new();
            for epoch in 0..3 {
                let mut seen = BTreeSet::new();
                for lane in (0..lanes).map(Lane) {
                    let length = order.lane_length(lane);
                    for position in epoch * length..(epoch + 1) * length {
                        let at = order.locate(lane, position);
                        assert_eq!(at.epoch, epoch);
                        assert!(seen.insert(at.prompt), "repeated {at:?}");
                    }
                }
                assert_eq!(seen.len(), 100, "dropped some");
                epochs.push(seen);
            }
            assert_eq!(epochs[0], epochs[2]);
        }
        let first = |seed, epoch: u64| -> Vec<_> {
            let order = LaneOrder::new(&manifest, seed, 2, 10).unwrap();
            (0..50)
                .map(|i| order.locate(Lane(0), epoch * 50 + i).prompt)
                .collect()
        };
        assert_ne!(first(1, 0), first(1, 1), "epochs differ");
        assert_ne!(first(1, 0), first(2, 0), "seeds differ");
    }

    #[test]
    fn seeking_equals_replaying_in_any_order_of_lanes() {
        let manifest = corpus(&[&[7, 11, 30], &[1, 13]]);
        let replayed = LaneOrder::new(&manifest, 9, 8, 5).unwrap();
        let walk: Vec<Vec<_>> = (0..8)
            .map(|lane| (0..40).map(|at| replayed.locate(Lane(lane), at)).collect())
            .collect();
        for lane in (0..8).rev() {
            for position in (0..40).rev() {
                let alone = LaneOrder::new(&manifest, 9, 8, 5).unwrap();
                assert_eq!(
                    alone.locate(Lane(lane), position),
                    walk[lane as usize][position as usize]
                );
            }
        }
    }

    #[test]
    fn too_few_prompts_are_refused() {
        let refused = LaneOrder::new(&corpus(&[&[3]]), 0, 4, 8).unwrap_err();
        assert_eq!(
            refused,
            Error::TooFewPrompts {
                prompts: 3,
                lanes: 4
            }
        );
    }
}
