//! A step's gradient on its way from the lanes to the shards of its owners.

use super::step::StepPlan;
use crate::collective::{Collective, CollectiveError, Partials, Pending};
use polestar_core::{
    Lane,
    tree::{Counter, Node, add_into},
};
use polestar_model::ModelLayout;
use polestar_run::placement::{Reduction, Sharding, Zero};
use std::{collections::VecDeque, ops::Range};

/// Which part of a step a pass through the model is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pass {
    /// One pack of one of this rank's contiguous lanes.
    Contiguous {
        lane: Lane,
        /// Whether it is the lane's last pack.
        ends_lane: bool,
        /// Whether it is this rank's last lane too.
        ends_step: bool,
    },
    /// A whole lane, at the same time as every other rank's.
    Strided {
        round: u32,
        /// Whether this rank has a lane in this round.
        hosts: bool,
    },
}

/// Reductions in flight when lanes are strided: the one that is sent and the one that is computed.
/// More would be gradients that wait in memory.
const IN_FLIGHT: usize = 2;

/// A reduction under way.
enum Flight {
    Partials(Pending<Partials>),
    InPlace(Pending<Vec<f32>>),
}

/// This rank's part of a segment's gradient.
pub(super) struct Shard {
    /// The shard; or, to be gathered in place, a vector for the whole with the shard in it.
    pub(super) values: Vec<f32>,
    /// Where the shard is in it.
    pub(super) range: Range<usize>,
}

impl Shard {
    pub(super) fn own(&self) -> &[f32] {
        &self.values[self.range.clone()]
    }
}

/// Partial sums by segment.
pub(super) struct Sums {
    sharding: Sharding,
    reduction: Reduction,
    lanes: u32,
    elements: Vec<usize>,
    /// The sum over the packs of the running lane (fast: over all packs so far).
    running: Vec<Vec<f32>>,
    /// Finished lanes of this rank, whole.
    subtrees: Vec<Counter<Vec<f32>>>,
    flying: VecDeque<(usize, Flight)>,
    /// What has been reduced: this rank's shard.
    reduced: Vec<Reduced>,
}

impl Sums {
    pub(super) fn new(layout: &ModelLayout, plan: StepPlan) -> Sums {
        let segments = layout.segments.len();
        let mut sums = Sums {
            sharding: plan.sharding,
            reduction: plan.reduction,
            lanes: plan.lanes,
            elements: layout.segments.iter().map(|s| s.elements).collect(),
            running: vec![Vec::new(); segments],
            subtrees: Vec::new(),
            flying: VecDeque::new(),
            reduced: Vec::new(),
        };
        sums.subtrees.resize_with(segments, Counter::default);
        let reduced = || match plan.reduction {
            Reduction::Canonical => Reduced::Tree(Counter::default()),
            Reduction::Fast => Reduced::Running(Vec::new()),
        };
        sums.reduced.resize_with(segments, reduced);
        sums
    }

    /// The vector that a pass adds a segment's gradient to.
    pub(super) fn take(&mut self, segment: usize, pass: Pass) -> Vec<f32> {
        if let Pass::Strided { hosts: false, .. } = pass {
            return Vec::new();
        }
        let running = std::mem::take(&mut self.running[segment]);
        if running.is_empty() {
            vec![0.0; self.elements[segment]]
        } else {
            running
        }
    }

    /// Takes it back, and sends it on its way if it is complete.
    pub(super) fn give(
        &mut self,
        segment: usize,
        pass: Pass,
        gradient: Vec<f32>,
        collective: &mut Collective,
    ) -> Result<(), CollectiveError> {
        match pass {
            Pass::Strided { round, hosts } => {
                let mine = if hosts { vec![gradient] } else { Vec::new() };
                self.reduce(segment, round, mine, collective);
                while self.flying.len() > IN_FLIGHT {
                    self.land()?;
                }
            }
            Pass::Contiguous {
                lane,
                ends_lane,
                ends_step,
            } => {
                let goes_on = match self.reduction {
                    Reduction::Canonical => !ends_lane,
                    Reduction::Fast => !ends_step,
                };
                if goes_on {
                    self.running[segment] = gradient;
                    return Ok(());
                }
                let subtrees = &mut self.subtrees[segment];
                subtrees.push(Node::leaf(lane, self.lanes), gradient, add);
                if ends_step {
                    let partials = std::mem::take(subtrees).into_partials();
                    let mine = partials.into_iter().map(|(_, sum)| sum).collect();
                    self.reduce(segment, 0, mine, collective);
                }
            }
        }
        Ok(())
    }

    /// This rank's shard of each segment's sum.
    pub(super) fn finish(mut self) -> Result<Vec<Shard>, CollectiveError> {
        while !self.flying.is_empty() {
            self.land()?;
        }
        Ok(self.reduced.into_iter().map(Reduced::finish).collect())
    }

    fn reduce(
        &mut self,
        segment: usize,
        round: u32,
        mut mine: Vec<Vec<f32>>,
        collective: &mut Collective,
    ) {
        let pieces = self.sharding.pieces(self.lanes, self.reduction, round);
        let cuts = self.sharding.cuts(self.elements[segment]);
        // Without ZeRO every rank gets the whole gradient in the end: its own has room for it.
        let whole = self.sharding.zero == Zero::None && collective.can_reduce_in_place(&pieces);
        let flight = match mine.pop() {
            Some(mine) if whole => {
                Flight::InPlace(collective.start_reduce_scatter_in_place(pieces, cuts, mine))
            }
            last => {
                mine.extend(last);
                Flight::Partials(collective.start_reduce_scatter(pieces, cuts, mine))
            }
        };
        self.flying.push_back((segment, flight));
    }

    fn land(&mut self) -> Result<(), CollectiveError> {
        match self.flying.pop_front() {
            Some((segment, Flight::Partials(pending))) => {
                for (node, sum) in pending.wait()? {
                    self.reduced[segment].push(node, sum);
                }
            }
            Some((segment, Flight::InPlace(pending))) => {
                let range = self.sharding.owned(self.elements[segment]);
                let values = pending.wait()?;
                self.reduced[segment] = Reduced::InPlace(Shard { values, range });
            }
            None => {}
        }
        Ok(())
    }
}

/// A shard of the global sum, as far as it has come.
enum Reduced {
    Tree(Counter<Vec<f32>>),
    Running(Vec<f32>),
    InPlace(Shard),
}

impl Reduced {
    fn push(&mut self, node: Node, sum: Vec<f32>) {
        match self {
            Reduced::Tree(counter) => counter.push(node, sum, add),
            Reduced::Running(running) if running.is_empty() => *running = sum,
            Reduced::Running(running) => add_into(running, &sum),
            // A segment is reduced once where it is reduced in place.
            Reduced::InPlace(_) => {}
        }
    }

    fn finish(self) -> Shard {
        let values = match self {
            // Lanes cover the tree by construction: there is a root.
            Reduced::Tree(counter) => counter.into_root().unwrap_or_default(),
            Reduced::Running(running) => running,
            Reduced::InPlace(shard) => return shard,
        };
        let range = 0..values.len();
        Shard { values, range }
    }
}

fn add(mut left: Vec<f32>, right: Vec<f32>) -> Vec<f32> {
    add_into(&mut left, &right);
    left
}
