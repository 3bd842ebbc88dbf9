//! A canonical sum by messages, piece by piece. Pure: what to send, what to receive where, and what to add up.
//!
//! It goes the ways of [`Topology`]: inside a host first, where what was added up crosses to other hosts once. Received
//! parts lie in staging buffers of a size that doesn't depend on the sum, so that a large one comes in rounds, each of the
//! next piece of every owner's shard. Sums are the tree's, as far as its subtrees are there, so that neither
//! rounds nor hosts show in the bits.

use super::super::{
    LaneSum,
    plan::{SumPhase, Topology},
};
use polestar_core::tree::{Subtree, TreeSum};
use polestar_kernels::cuda::abi::MAX_MERGED;
use std::ops::Range;

/// Staging buffers begin on multiples of so many elements, so that kernels read 16 bytes at once.
const ALIGNMENT: usize = 4;

/// Some elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Of this rank's partial sum number `vector`.
    Local { vector: usize, range: Range<usize> },
    /// Of the staging buffers.
    Staged(Range<usize>),
    /// Of the sum of subtree number `node` that is left in the end.
    Sum { node: usize, range: Range<usize> },
}

/// Some places, of one length, whose tree sum goes to one place, which may be the first of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Merge {
    pub(super) parts: Vec<Place>,
    pub(super) into: Place,
}

/// Messages that go at once, and what is added up when they have come.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Exchange {
    /// To which rank, in the order in which it receives them.
    pub(super) sends: Vec<(usize, Place)>,
    /// From which rank, in the order in which it sends them.
    pub(super) receives: Vec<(usize, Place)>,
    pub(super) merges: Vec<Merge>,
}

/// All of a sum.
pub(super) struct Rounds<'a> {
    me: usize,
    sum: &'a LaneSum,
    phases: Vec<SumPhase>,
    /// Elements of a piece, the same on every rank.
    piece: usize,
    longest: usize,
}

/// Places whose sum is a subtree's, as yet not added up: 1, 2, 4 or 8 of one height.
type Run = Vec<Place>;

impl<'a> Rounds<'a> {
    /// Rank `me`'s part in a sum, with so many elements of staging buffers on every rank. `delegated` is the topology's
    /// [`Topology::most_delegated`].
    ///
    /// # Panics
    /// When there are fewer elements than messages.
    pub(super) fn new(
        me: usize,
        topology: &Topology,
        delegated: usize,
        sum: &'a LaneSum,
        staging: usize,
    ) -> Rounds<'a> {
        let messages = delegated * topology.most_inside(&sum.partials) + sum.partials.len();
        let room = staging / messages.max(1) / ALIGNMENT * ALIGNMENT;
        assert!(
            room > 0,
            "{staging} elements of staging buffers hold a piece of {messages} messages"
        );
        let longest = sum.shards.iter().map(Range::len).max().unwrap_or(0);
        Rounds {
            me,
            sum,
            phases: topology.sum(&sum.partials, &sum.shards, true),
            piece: room.min(longest.next_multiple_of(ALIGNMENT)),
            longest,
        }
    }

    /// How many rounds there are, on every rank.
    pub(super) fn count(&self) -> usize {
        match self.piece {
            0 => 0,
            piece => self.longest.div_ceil(piece),
        }
    }

    /// The exchanges of a round, in order.
    pub(super) fn round(&self, round: usize) -> Vec<Exchange> {
        let own = self.sum.partials.iter();
        let own = own.filter(|(rank, _)| rank.0 as usize == self.me).count();
        // By owner of the piece, then by number.
        let mut held: Vec<Vec<Place>> = Vec::new();
        for owner in 0..self.sum.shards.len() {
            let local = |vector| Place::Local {
                vector,
                range: self.piece_of(owner, round),
            };
            held.push((0..own).map(local).collect());
        }
        let mut exchanges = Vec::new();
        let mut staged = 0;
        for (i, phase) in self.phases.iter().enumerate() {
            let is_last = i + 1 == self.phases.len();
            let mut exchange = Exchange::default();
            let mut sums: Vec<Vec<Place>> = vec![Vec::new(); held.len()];
            for (owner, to) in phase.to.iter().enumerate() {
                let length = self.piece_of(owner, round).len();
                match to {
                    _ if length == 0 => {}
                    Some(rank) if *rank == self.me => {
                        let mut stage = || {
                            let start = staged;
                            staged += length.next_multiple_of(ALIGNMENT);
                            Place::Staged(start..start + length)
                        };
                        let parts = self.receive(phase, &held[owner], &mut stage, &mut exchange);
                        let merges = &mut exchange.merges;
                        let left = merge(phase, parts, merges).into_iter();
                        if is_last {
                            merges.extend(self.finish(round, length, left));
                        } else {
                            sums[owner] = left.map(|run| settle(run, merges)).collect();
                        }
                    }
                    Some(rank) => {
                        let sends = held[owner].iter().map(|place| (*rank, place.clone()));
                        exchange.sends.extend(sends);
                    }
                    None => {}
                }
            }
            exchanges.push(exchange);
            held = sums;
        }
        exchanges
    }

    /// The piece of a shard that a round is about; empty where the shard has ended.
    fn piece_of(&self, owner: usize, round: usize) -> Range<usize> {
        let shard = &self.sum.shards[owner];
        let start = (shard.start + round * self.piece).min(shard.end);
        start..(start + self.piece).min(shard.end)
    }

    /// Where all that is merged for an owner lies, in lane order: what comes from others in staging buffers.
    fn receive(
        &self,
        phase: &SumPhase,
        held: &[Place],
        stage: &mut impl FnMut() -> Place,
        exchange: &mut Exchange,
    ) -> Vec<Place> {
        let mut from: Vec<Vec<Place>> = Vec::new();
        for rank in 0..phase.to.len() {
            if rank == self.me {
                from.push(held.to_vec());
                continue;
            }
            let parts: Vec<Place> = (0..phase.sent_by(rank)).map(|_| stage()).collect();
            let receives = parts.iter().map(|place| (rank, place.clone()));
            exchange.receives.extend(receives);
            from.push(parts);
        }
        let mut next = vec![0; from.len()];
        let in_order = phase.merges.iter().map(|(rank, _)| {
            let rank = rank.0 as usize;
            next[rank] += 1;
            from[rank][next[rank] - 1].clone()
        });
        in_order.collect()
    }

    /// Adds up what is left into the sums.
    fn finish(
        &self,
        round: usize,
        length: usize,
        left: impl Iterator<Item = Run>,
    ) -> impl Iterator<Item = Merge> {
        let start = round * self.piece;
        left.enumerate().map(move |(node, parts)| Merge {
            parts,
            into: Place::Sum {
                node,
                range: start..start + length,
            },
        })
    }
}

/// Merges siblings, in as few passes over memory as the kernel allows; what is left is in lane order.
fn merge(phase: &SumPhase, parts: Vec<Place>, merges: &mut Vec<Merge>) -> Vec<Run> {
    let mut tree: TreeSum<Run> = TreeSum::default();
    let nodes = phase.merges.iter().map(|(_, node): &(_, Subtree)| *node);
    for (node, place) in nodes.zip(parts) {
        tree.push(node, vec![place], |left, right| {
            // Two full trees of one height are the halves of a larger one.
            if left.len() == right.len() && 2 * left.len() <= MAX_MERGED {
                return [left, right].concat();
            }
            vec![settle(left, merges), settle(right, merges)]
        });
    }
    tree.into_partials()
        .into_iter()
        .map(|(_, run)| run)
        .collect()
}

/// Adds up a run where its first part lies, which nobody needs any more.
fn settle(parts: Run, merges: &mut Vec<Merge>) -> Place {
    let into = parts[0].clone();
    if parts.len() > 1 {
        let into = into.clone();
        merges.push(Merge { parts, into });
    }
    into
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collective::merge::left_over;
    use polestar_core::{
        Lane, Rank, WorldSize,
        tree::{add_into, hosted, subtrees},
    };
    use std::collections::BTreeMap;

    /// A rank's memory, as the device has it.
    struct Memory {
        local: Vec<Vec<f32>>,
        staging: Vec<f32>,
        sums: Vec<Vec<f32>>,
    }

    impl Memory {
        fn at(&mut self, place: &Place) -> &mut [f32] {
            match place {
                Place::Local { vector, range } => &mut self.local[*vector][range.clone()],
                Place::Staged(range) => &mut self.staging[range.clone()],
                Place::Sum { node, range } => &mut self.sums[*node][range.clone()],
            }
        }

        fn merge(&mut self, merge: &Merge) {
            assert!(merge.parts.len().is_power_of_two() && merge.parts.len() <= MAX_MERGED);
            let parts = merge.parts.iter().map(|part| self.at(part).to_vec());
            let mut parts: Vec<Vec<f32>> = parts.collect();
            while parts.len() > 1 {
                let pairs = parts.chunks(2).map(|pair| {
                    let mut left = pair[0].clone();
                    add_into(&mut left, &pair[1]);
                    left
                });
                parts = pairs.collect();
            }
            self.at(&merge.into).copy_from_slice(&parts[0]);
        }
    }

    /// Sums of these depend on the order of addition.
    fn lane(lane: u32, elements: usize) -> Vec<f32> {
        let sign = |i: usize| [1.0, -1.0][usize::from((lane as usize + i).is_multiple_of(3))];
        let value = |i: usize| sign(i) * 1e-3 * 1.7_f32.powi((lane as usize * 5 + i) as i32 % 23);
        (0..elements).map(value).collect()
    }

    /// The sums of some lanes, as far as they are siblings.
    fn summed(lanes: Range<u32>, all: &[Vec<f32>]) -> Vec<(Subtree, Vec<f32>)> {
        let mut tree = TreeSum::default();
        for l in lanes {
            let leaf = Subtree::leaf(Lane(l), all.len() as u32);
            tree.push(leaf, all[l as usize].clone(), |mut left, right| {
                add_into(&mut left, &right);
                left
            });
        }
        tree.into_partials()
    }

    /// Does what all ranks are told, and returns every rank's sums.
    fn run(hosts: &[u32], sum: &LaneSum, lanes: &[Vec<f32>], staging: usize) -> Vec<Memory> {
        let world = hosts.len();
        let topologies: Vec<_> = (0..world).map(|me| Topology::new(me, hosts)).collect();
        let rounds: Vec<_> = topologies
            .iter()
            .enumerate()
            .map(|(me, t)| Rounds::new(me, t, t.most_delegated(), sum, staging))
            .collect();
        let mut memories: Vec<Memory> = (0..world)
            .map(|me| {
                let own = sum
                    .partials
                    .iter()
                    .filter(|(rank, _)| rank.0 as usize == me);
                let own = own.map(|(_, node)| {
                    let [(_, vector)] = <[_; 1]>::try_from(summed(node.range(), lanes))
                        .expect("a subtree has one sum");
                    vector
                });
                let nodes = left_over(&sum.partials).len();
                Memory {
                    local: own.collect(),
                    staging: vec![f32::NAN; staging],
                    sums: vec![vec![f32::NAN; sum.shards[me].len()]; nodes],
                }
            })
            .collect();
        for round in 0..rounds[0].count() {
            let all: Vec<_> = rounds.iter().map(|rank| rank.round(round)).collect();
            for phase in 0..all[0].len() {
                let mut under_way: BTreeMap<(usize, usize), Vec<Vec<f32>>> = BTreeMap::new();
                for (me, exchanges) in all.iter().enumerate() {
                    for (to, place) in &exchanges[phase].sends {
                        let values = memories[me].at(place).to_vec();
                        under_way.entry((me, *to)).or_default().push(values);
                    }
                }
                for (me, exchanges) in all.iter().enumerate() {
                    for (from, place) in &exchanges[phase].receives {
                        let values = under_way.get_mut(&(*from, me)).expect("it is sent");
                        memories[me].at(place).copy_from_slice(&values.remove(0));
                    }
                    exchanges[phase]
                        .merges
                        .iter()
                        .for_each(|m| memories[me].merge(m));
                }
                assert!(
                    under_way.values().all(Vec::is_empty),
                    "all of it is received"
                );
            }
        }
        memories
    }

    #[test]
    fn rounds_and_hosts_dont_show_in_the_bits() {
        let worlds: [&[u32]; 8] = [
            &[0, 0],
            &[0, 1, 2],
            &[0; 11],
            &[0, 0, 1, 1],
            &[0, 0, 0, 1],
            &[0, 1, 0, 1, 0],
            &[0, 1, 1, 1, 2, 2],
            &[0, 0, 0, 0, 1, 1, 1, 1],
        ];
        let elements = 5_003;
        for hosts in worlds {
            let world = WorldSize(hosts.len() as u32);
            for lanes in [11, 13, 16, 40] {
                let all: Vec<Vec<f32>> = (0..lanes).map(|l| lane(l, elements)).collect();
                let contiguous = (0..world.0).flat_map(|r| {
                    let nodes = subtrees(hosted(lanes, world, Rank(r)), lanes);
                    nodes.into_iter().map(move |node| (Rank(r), node))
                });
                // A round of strided lanes that not every rank has one of.
                let few =
                    (0..world.0.min(lanes) - 1).map(|r| (Rank(r), Subtree::leaf(Lane(r), lanes)));
                for partials in [contiguous.collect::<Vec<_>>(), few.collect()] {
                    let cut = |rank: usize| elements * rank / hosts.len();
                    let shards = (0..hosts.len()).map(|r| cut(r)..cut(r + 1));
                    let sum = LaneSum {
                        partials,
                        shards: shards.collect(),
                        gathered_next: false,
                    };
                    let last = sum.partials.last().expect("some").1.range().end;
                    let expected = summed(0..last, &all);
                    // Enough for all, and for a few elements at a time.
                    for staging in [100 * elements, 5_000] {
                        let memories = run(hosts, &sum, &all, staging);
                        for (memory, shard) in memories.iter().zip(&sum.shards) {
                            assert_eq!(memory.sums.len(), expected.len());
                            for (found, (_, whole)) in memory.sums.iter().zip(&expected) {
                                let whole = whole[shard.clone()].iter().map(|x| x.to_bits());
                                let same = found.iter().map(|x| x.to_bits()).eq(whole);
                                assert!(same, "hosts {hosts:?}, {lanes} lanes, {staging}");
                            }
                        }
                    }
                }
            }
        }
    }
}
