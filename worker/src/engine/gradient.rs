//! A step's gradient on its way from the lanes to the shards of its owners.

use super::{Engine, Scores, StepPlan};
use crate::collective::{CollectiveError, LaneSum, Partials, Passed, Pending, Transport};
use polestar_core::{
    Lane,
    tree::{Subtree, TreeSum},
};
use polestar_model::ModelLayout;
use polestar_run::placement::{Reduction, Zero};
use std::collections::VecDeque;

/// The gradient of a step, as one rank has it.
pub(super) struct Gradient<F> {
    /// Scores of each pack of each of its lanes.
    pub(super) scores: Vec<Vec<Scores>>,
    pub(super) shards: Shards<F>,
}

/// Parts of the sum of all lanes, by segment.
pub(super) struct Shards<F> {
    /// This rank's shard.
    pub(super) own: Vec<F>,
    /// That of the shard that this rank has a copy of, if any.
    pub(super) copied: Vec<F>,
}

impl<F> Shards<F> {
    /// Those that were passed on, and what came instead.
    pub(super) fn passed(passed: Vec<Pending<Passed<F>>>) -> Result<Shards<F>, CollectiveError> {
        let mut shards = Shards::default();
        for passed in passed {
            let Passed { own, received } = passed.wait()?;
            shards.own.push(own);
            shards.copied.push(received);
        }
        Ok(shards)
    }
}

impl<F> Default for Shards<F> {
    fn default() -> Shards<F> {
        Shards {
            own: Vec::new(),
            copied: Vec::new(),
        }
    }
}

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

/// Sums in flight when lanes are strided: the one that is sent and the one that is computed. More
/// would be gradients that wait in memory.
const IN_FLIGHT: usize = 2;

/// A sum under way.
enum InFlight<F> {
    Canonical(Pending<Partials<F>>),
    Fast(Pending<F>),
}

/// A shard of the global sum, as far as it has come.
enum Shard<F> {
    Canonical(TreeSum<F>),
    Fast(Option<F>),
}

/// Adds a step's gradient up, segment by segment, while the passes go on.
pub(super) struct Accumulator<E: Engine> {
    plan: StepPlan,
    elements: Vec<usize>,
    /// The sum over the packs of the running lane (fast: over all packs so far).
    running: Vec<Option<E::Flat>>,
    /// Finished lanes of this rank, whole.
    lanes: Vec<TreeSum<E::Flat>>,
    in_flight: VecDeque<(usize, InFlight<E::Flat>)>,
    /// What has been added up over the ranks: this one's shard.
    shards: Vec<Shard<E::Flat>>,
}

impl<E: Engine> Accumulator<E> {
    pub(super) fn new(layout: &ModelLayout, plan: StepPlan) -> Accumulator<E> {
        let elements: Vec<usize> = layout.segments.iter().map(|s| s.elements).collect();
        let shard = || match plan.reduction {
            Reduction::Canonical => Shard::Canonical(TreeSum::default()),
            Reduction::Fast => Shard::Fast(None),
        };
        Accumulator {
            plan,
            running: elements.iter().map(|_| None).collect(),
            lanes: elements.iter().map(|_| TreeSum::default()).collect(),
            in_flight: VecDeque::new(),
            shards: elements.iter().map(|_| shard()).collect(),
            elements,
        }
    }

    /// The vector that a pass adds a segment's gradient to.
    pub(super) fn begin(&mut self, engine: &E, segment: usize, pass: Pass) -> E::Flat {
        if let Pass::Strided { hosts: false, .. } = pass {
            // There is nothing to add.
            return engine.zeros(0);
        }
        let running = self.running[segment].take();
        running.unwrap_or_else(|| engine.zeros(self.elements[segment]))
    }

    /// Takes it back, and sends it on its way if it is complete.
    pub(super) fn complete<T: Transport<E>>(
        &mut self,
        engine: &E,
        transport: &mut T,
        segment: usize,
        pass: Pass,
        gradient: E::Flat,
    ) -> Result<(), CollectiveError> {
        match pass {
            Pass::Strided { round, hosts } => {
                let local = if hosts { vec![gradient] } else { Vec::new() };
                self.start_sum(engine, transport, segment, round, local);
                while self.in_flight.len() > IN_FLIGHT {
                    self.finish_one(engine)?;
                }
            }
            Pass::Contiguous {
                lane,
                ends_lane,
                ends_step,
            } => {
                let goes_on = match self.plan.reduction {
                    Reduction::Canonical => !ends_lane,
                    Reduction::Fast => !ends_step,
                };
                if goes_on {
                    self.running[segment] = Some(gradient);
                    return Ok(());
                }
                self.lanes[segment].push(
                    Subtree::leaf(lane, self.plan.lanes),
                    gradient,
                    add(engine),
                );
                if ends_step {
                    let partials = std::mem::take(&mut self.lanes[segment]).into_partials();
                    let local = partials.into_iter().map(|(_, sum)| sum).collect();
                    self.start_sum(engine, transport, segment, 0, local);
                }
            }
        }
        Ok(())
    }

    /// This rank's shard of each segment's sum.
    pub(super) fn finish(mut self, engine: &E) -> Result<Vec<E::Flat>, CollectiveError> {
        while !self.in_flight.is_empty() {
            self.finish_one(engine)?;
        }
        let finished = self.shards.into_iter().map(|shard| match shard {
            Shard::Canonical(sum) => sum.into_root().expect("the lanes cover the tree"),
            Shard::Fast(sum) => sum.expect("every segment was added up"),
        });
        Ok(finished.collect())
    }

    fn start_sum<T: Transport<E>>(
        &mut self,
        engine: &E,
        transport: &mut T,
        segment: usize,
        round: u32,
        local: Vec<E::Flat>,
    ) {
        let StepPlan {
            sharding,
            lanes,
            reduction,
        } = self.plan;
        let sum = LaneSum {
            partials: sharding.partials(lanes, reduction, round),
            shards: sharding.shards(self.elements[segment]),
            gathered_next: sharding.zero == Zero::None,
        };
        let pending = match reduction {
            Reduction::Canonical => {
                InFlight::Canonical(transport.canonical_sum(engine, sum, local))
            }
            Reduction::Fast => InFlight::Fast(transport.fast_sum(engine, sum, local)),
        };
        self.in_flight.push_back((segment, pending));
    }

    fn finish_one(&mut self, engine: &E) -> Result<(), CollectiveError> {
        let oldest = self.in_flight.pop_front();
        let (segment, pending) = oldest.expect("only called while something is in flight");
        match (&mut self.shards[segment], pending) {
            (Shard::Canonical(shard), InFlight::Canonical(pending)) => {
                for (node, sum) in pending.wait()? {
                    shard.push(node, sum, add(engine));
                }
            }
            (Shard::Fast(shard), InFlight::Fast(pending)) => {
                let sum = pending.wait()?;
                match shard {
                    Some(shard) => engine.add(shard, &sum),
                    None => *shard = Some(sum),
                }
            }
            (Shard::Canonical(_), InFlight::Fast(_)) | (Shard::Fast(_), InFlight::Canonical(_)) => {
                unreachable!("a step adds up in one way, that of its plan")
            }
        }
        Ok(())
    }
}

fn add<E: Engine>(engine: &E) -> impl FnMut(E::Flat, E::Flat) -> E::Flat + '_ {
    |mut left, right| {
        engine.add(&mut left, &right);
        left
    }
}
