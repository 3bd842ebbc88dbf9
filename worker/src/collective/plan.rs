//! Who sends what to whom. Pure.
//!
//! On one host, or with one rank a host, a sum is one exchange: each rank sends every owner its part.
//! On several hosts with several ranks it is two, of the same tree:
//! ```text
//! host 0: ranks 0 1    host 1: ranks 2 3         the shard of rank 3
//!
//! 1. inside a host, to the delegate of its owner       0 ─▶ 1        2 ─▶ 3
//! 2. between hosts, from delegate to owner             1 ─────────────▶ 3
//! ```
//! A rank's delegate on another host is the rank with the same place there. What has been merged inside
//! a host crosses the network once, not once a rank. Merging siblings is all that either exchange does,
//! so that the bits are those of one exchange. A gather takes the same ways back.

use super::merge::left_over;
use polestar_core::{Rank, tree::Subtree};
use std::ops::Range;

/// Which ranks share a host.
#[derive(Clone, Debug)]
pub(super) struct Topology {
    me: usize,
    /// By rank: the number of its host.
    host: Vec<usize>,
    /// By rank: its place among the ranks of its host.
    place: Vec<usize>,
    /// By host: its ranks.
    members: Vec<Vec<usize>>,
}

/// An exchange of partial sums, as one rank takes part in it.
#[derive(Debug)]
pub(super) struct SumPhase {
    /// What this rank merges, in lane order, and who sends it, itself included.
    pub(super) merges: Vec<(Rank, Subtree)>,
    /// Where each owner's shard is in this rank's vectors; empty where there is none of it.
    pub(super) shards: Vec<Range<usize>>,
    /// To whom each owner's shard goes from here.
    pub(super) to: Vec<Option<usize>>,
    /// By rank, whether anything at all may pass between it and this one.
    pub(super) talks: Vec<bool>,
}

impl SumPhase {
    /// How many of the partial sums come from a rank.
    pub(super) fn sent_by(&self, rank: usize) -> usize {
        let by = |(holder, _): &&(Rank, Subtree)| holder.0 as usize == rank;
        self.merges.iter().filter(by).count()
    }

    /// The parts of this rank's vectors that go to a rank.
    pub(super) fn parts_for(&self, rank: usize) -> impl Iterator<Item = Range<usize>> + '_ {
        let each = self.shards.iter().zip(&self.to);
        each.filter(move |(_, to)| **to == Some(rank))
            .map(|(shard, _)| shard.clone())
    }
}

/// An exchange of shards, as one rank takes part in it.
#[derive(Debug)]
pub(super) struct GatherPhase {
    /// By rank: the owners whose shards go there.
    pub(super) send: Vec<Vec<usize>>,
    /// By rank: the owners whose shards come from there.
    pub(super) receive: Vec<Vec<usize>>,
}

impl GatherPhase {
    /// By rank, whether anything at all may pass between it and this one.
    pub(super) fn talks(&self) -> Vec<bool> {
        let both = self.send.iter().zip(&self.receive);
        both.map(|(send, receive)| !send.is_empty() || !receive.is_empty())
            .collect()
    }
}

impl Topology {
    /// Rank `me` among ranks on these hosts.
    pub(super) fn new<H: PartialEq>(me: usize, hosts: &[H]) -> Topology {
        let (mut host, mut place) = (Vec::new(), Vec::new());
        let mut members: Vec<Vec<usize>> = Vec::new();
        for (rank, id) in hosts.iter().enumerate() {
            let known = members.iter().position(|ranks| hosts[ranks[0]] == *id);
            let number = known.unwrap_or(members.len());
            if known.is_none() {
                members.push(Vec::new());
            }
            host.push(number);
            place.push(members[number].len());
            members[number].push(rank);
        }
        Topology {
            me,
            host,
            place,
            members,
        }
    }

    /// By rank: the number of its host.
    pub(super) fn hosts(&self) -> &[usize] {
        &self.host
    }

    fn ranks(&self) -> Range<usize> {
        0..self.host.len()
    }

    fn home(&self) -> usize {
        self.host[self.me]
    }

    /// Whether there is anything to gain from two exchanges.
    fn has_levels(&self) -> bool {
        self.members.len() > 1 && self.members.iter().any(|ranks| ranks.len() > 1)
    }

    /// Whether a rank is on another host.
    pub(super) fn is_away(&self, rank: usize) -> bool {
        self.host[rank] != self.home()
    }

    /// The rank of a host through which a rank's shards pass: at home itself.
    fn delegate(&self, host: usize, rank: usize) -> usize {
        if self.host[rank] == host {
            return rank;
        }
        let members = &self.members[host];
        members[self.place[rank] % members.len()]
    }

    /// The most owners whose shards one rank merges inside its host.
    #[cfg(feature = "cuda")]
    pub(super) fn most_delegated(&self) -> usize {
        if !self.has_levels() {
            return 1;
        }
        let of_member = |host: usize, member: usize| {
            let through = self.ranks().filter(|&r| self.delegate(host, r) == member);
            through.count()
        };
        let members = self.members.iter().enumerate();
        let counts = members.flat_map(|(host, ranks)| ranks.iter().map(move |&m| (host, m)));
        counts
            .map(|(host, m)| of_member(host, m))
            .max()
            .unwrap_or(1)
    }

    /// The most of these partial sums that one rank merges in any exchange.
    #[cfg(feature = "cuda")]
    pub(super) fn most_inside(&self, partials: &[(Rank, Subtree)]) -> usize {
        if !self.has_levels() {
            return 0;
        }
        let mut of_host = vec![0; self.members.len()];
        for (rank, _) in partials {
            of_host[self.host[rank.0 as usize]] += 1;
        }
        of_host.into_iter().max().unwrap_or(0)
    }

    /// This rank's part in a sum. With `in_place`, its vectors keep their length after the first
    /// exchange; otherwise only what was merged is left of them, shard after shard.
    pub(super) fn sum(
        &self,
        partials: &[(Rank, Subtree)],
        shards: &[Range<usize>],
        in_place: bool,
    ) -> Vec<SumPhase> {
        if !self.has_levels() {
            return vec![SumPhase {
                merges: partials.to_vec(),
                shards: shards.to_vec(),
                to: self.ranks().map(Some).collect(),
                talks: vec![true; self.ranks().len()],
            }];
        }
        let of_host = |host: usize| -> Vec<(Rank, Subtree)> {
            let held = partials.iter().copied();
            held.filter(|(rank, _)| self.host[rank.0 as usize] == host)
                .collect()
        };
        let inside = SumPhase {
            merges: of_host(self.home()),
            shards: shards.to_vec(),
            to: self
                .ranks()
                .map(|owner| Some(self.delegate(self.home(), owner)))
                .collect(),
            talks: self.ranks().map(|rank| !self.is_away(rank)).collect(),
        };
        let mut merges = Vec::new();
        for host in 0..self.members.len() {
            let sender = Rank(self.delegate(host, self.me) as u32);
            merges.extend(left_over(&of_host(host)).into_iter().map(|n| (sender, n)));
        }
        merges.sort_by_key(|(_, node)| node.first);
        let mine = |owner: usize| self.delegate(self.home(), owner) == self.me;
        let mut end = 0;
        let left = self.ranks().map(|owner| {
            let start = end;
            end += if mine(owner) { shards[owner].len() } else { 0 };
            start..end
        });
        let left: Vec<_> = left.collect();
        let between = SumPhase {
            merges,
            shards: if in_place { shards.to_vec() } else { left },
            to: self
                .ranks()
                .map(|owner| mine(owner).then_some(owner))
                .collect(),
            talks: self.ranks().map(|rank| self.is_rail(rank)).collect(),
        };
        vec![inside, between]
    }

    /// Whether shards pass between this rank and one on another host.
    fn is_rail(&self, rank: usize) -> bool {
        self.is_away(rank)
            && (self.delegate(self.host[rank], self.me) == rank
                || self.delegate(self.home(), rank) == self.me)
    }

    /// This rank's part in a gather.
    pub(super) fn gather(&self) -> Vec<GatherPhase> {
        let others = |rank: usize| rank != self.me;
        if !self.has_levels() {
            let own = |owner: usize| move |rank| if others(rank) { vec![owner] } else { vec![] };
            return vec![GatherPhase {
                send: self.ranks().map(own(self.me)).collect(),
                receive: self
                    .ranks()
                    .map(|rank| if others(rank) { vec![rank] } else { vec![] })
                    .collect(),
            }];
        }
        let between = GatherPhase {
            send: self
                .ranks()
                .map(|rank| {
                    let speaks = self.delegate(self.host[rank], self.me) == rank;
                    if self.is_away(rank) && speaks {
                        vec![self.me]
                    } else {
                        vec![]
                    }
                })
                .collect(),
            receive: self
                .ranks()
                .map(|rank| {
                    let mine = self.delegate(self.home(), rank) == self.me;
                    if self.is_away(rank) && mine {
                        vec![rank]
                    } else {
                        vec![]
                    }
                })
                .collect(),
        };
        // What a rank of this host has after that: its own, and what came for it to pass on.
        let held = |holder: usize| -> Vec<usize> {
            let holds = |owner: &usize| self.delegate(self.home(), *owner) == holder;
            self.ranks().filter(holds).collect()
        };
        let neighbour = |rank: usize| others(rank) && !self.is_away(rank);
        let inside = GatherPhase {
            send: self
                .ranks()
                .map(|rank| {
                    if neighbour(rank) {
                        held(self.me)
                    } else {
                        vec![]
                    }
                })
                .collect(),
            receive: self
                .ranks()
                .map(|rank| if neighbour(rank) { held(rank) } else { vec![] })
                .collect(),
        };
        vec![between, inside]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use polestar_core::{
        WorldSize,
        tree::{hosted, shard, subtrees},
    };

    /// Hosts by rank: even ones, uneven ones, ranks that are not in order of hosts.
    const HOSTS: [&[u32]; 7] = [
        &[0, 0],
        &[0, 1, 2],
        &[0, 0, 1, 1],
        &[0, 0, 0, 1],
        &[0, 1, 0, 1, 0],
        &[0, 0, 1, 1, 2, 2],
        &[0, 1, 1, 1, 2, 2],
    ];

    #[test]
    fn what_one_rank_sends_is_what_the_other_expects() {
        for hosts in HOSTS {
            let world = hosts.len();
            let all: Vec<Topology> = (0..world).map(|me| Topology::new(me, hosts)).collect();
            let size = WorldSize(world as u32);
            let shards: Vec<_> = (0..size.0).map(|r| shard(50_000, size, Rank(r))).collect();
            let partials: Vec<_> = (0..size.0)
                .flat_map(|r| {
                    let nodes = subtrees(hosted(13, size, Rank(r)), 13);
                    nodes.into_iter().map(move |node| (Rank(r), node))
                })
                .collect();
            let sums: Vec<_> = all
                .iter()
                .map(|t| t.sum(&partials, &shards, true))
                .collect();
            let gathers: Vec<_> = all.iter().map(Topology::gather).collect();
            for (me, peer) in (0..world).flat_map(|a| (0..world).map(move |b| (a, b))) {
                for (ours, theirs) in sums[me].iter().zip(&sums[peer]) {
                    assert!(me == peer || ours.talks[peer] == theirs.talks[me]);
                    let sent: usize = theirs.parts_for(me).map(|part| part.len()).sum();
                    let kept: usize = ours.parts_for(me).map(|part| part.len()).sum();
                    if ours.sent_by(peer) > 0 {
                        assert_eq!(sent, kept, "{hosts:?}: {peer} to {me}");
                    }
                }
                for (ours, theirs) in gathers[me].iter().zip(&gathers[peer]) {
                    assert_eq!(ours.receive[peer], theirs.send[me], "{hosts:?}");
                }
            }
        }
    }

    #[test]
    fn a_shard_crosses_to_each_other_host_once() {
        for hosts in HOSTS {
            for owner in 0..hosts.len() {
                let mut crossings = 0;
                for me in 0..hosts.len() {
                    let topology = Topology::new(me, hosts);
                    for phase in topology.gather() {
                        let away = (0..hosts.len()).filter(|&rank| topology.is_away(rank));
                        crossings += away.filter(|&r| phase.send[r].contains(&owner)).count();
                    }
                }
                let mut others: Vec<_> = hosts.iter().filter(|h| **h != hosts[owner]).collect();
                others.sort_unstable();
                others.dedup();
                assert_eq!(crossings, others.len(), "{hosts:?}, rank {owner}");
            }
        }
    }
}
