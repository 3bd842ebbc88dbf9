//! What all ranks hold, and what can be made of it. Pure: every rank comes to the same answer.

use super::Snapshot;
use polestar_core::{Rank, Step};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// What a snapshot has, as its holder tells the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::engine) struct Offer {
    step: Step,
    /// Whether it can be brought to the next step.
    prepared: bool,
    pieces: Vec<Extent>,
}

/// Some elements of a segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Extent {
    pub(super) segment: usize,
    pub(super) range: Range<usize>,
}

impl Offer {
    pub(in crate::engine) fn of(snapshot: &Snapshot) -> Offer {
        let extent = |piece: &super::Piece| Extent {
            segment: piece.segment,
            range: piece.range(),
        };
        Offer {
            step: snapshot.step,
            prepared: snapshot.is_prepared(),
            pieces: snapshot.pieces.iter().map(extent).collect(),
        }
    }

    /// Whether its pieces are, or can be brought, to a step.
    fn reaches(&self, step: Step) -> bool {
        self.step == step || (self.prepared && self.step.0 + 1 == step.0)
    }
}

/// A step that the ranks can go on from together.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::engine) struct Offers {
    /// Steps done.
    pub(in crate::engine) step: Step,
    /// A rank that has done them all, and knows what there is to know of them.
    pub(super) teller: Rank,
    /// All pieces, by rank and in the order of its snapshots.
    pub(super) held: Vec<Held>,
}

/// A piece, and who has it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Held {
    pub(super) rank: Rank,
    /// Which of the rank's pieces.
    pub(super) index: usize,
    pub(super) extent: Extent,
}

/// Where some elements are to be taken from.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Source {
    pub(super) rank: Rank,
    /// Which of its pieces.
    pub(super) index: usize,
    pub(super) range: Range<usize>,
}

impl Offers {
    /// The newest step beyond `floor` and up to `limit` of which the offers, by rank, hold every element of
    /// segments of these sizes.
    pub(in crate::engine) fn newest(
        offers: &[Vec<Offer>],
        segments: &[usize],
        floor: Step,
        limit: Step,
    ) -> Option<Offers> {
        let mut steps: Vec<Step> = offers.iter().flatten().map(|offer| offer.step).collect();
        steps.sort_unstable();
        steps.dedup();
        steps.retain(|step| (floor.0 + 1..=limit.0).contains(&step.0));
        steps.into_iter().rev().find_map(|step| {
            let found = Offers::at(offers, step)?;
            let whole = |(segment, elements)| found.covers(segment, elements);
            let all = segments.iter().copied().enumerate().all(whole);
            all.then_some(found)
        })
    }

    fn at(offers: &[Vec<Offer>], step: Step) -> Option<Offers> {
        let there = |of_rank: &Vec<Offer>| of_rank.iter().any(|offer| offer.step == step);
        let teller = Rank(offers.iter().position(there)? as u32);
        let mut held = Vec::new();
        for (rank, of_rank) in (0..).map(Rank).zip(offers) {
            let reach = of_rank.iter().filter(|offer| offer.reaches(step));
            let extents = reach.flat_map(|offer| &offer.pieces).cloned();
            held.extend(extents.enumerate().map(|(index, extent)| Held {
                rank,
                index,
                extent,
            }));
        }
        Some(Offers { step, teller, held })
    }

    /// The pieces of a segment.
    pub(super) fn of_segment(&self, segment: usize) -> impl Iterator<Item = &Held> {
        let held = self.held.iter();
        held.filter(move |held| held.extent.segment == segment)
    }

    fn covers(&self, segment: usize, elements: usize) -> bool {
        let mut ranges: Vec<_> = self.of_segment(segment).map(|h| &h.extent.range).collect();
        ranges.sort_by_key(|range| range.start);
        let mut end = 0;
        for range in ranges {
            if range.start > end {
                return false;
            }
            end = end.max(range.end);
        }
        end >= elements
    }

    /// From whom a rank takes some elements of a segment: from itself where it can, otherwise from holders
    /// that differ from rank to rank.
    ///
    /// # Panics
    /// When nobody has one of them.
    pub(super) fn sources(&self, segment: usize, wanted: Range<usize>, to: Rank) -> Vec<Source> {
        let mut sources: Vec<Source> = Vec::new();
        let mut at = wanted.start;
        while at < wanted.end {
            let has = |held: &&Held| held.extent.range.contains(&at);
            let holders: Vec<&Held> = self.of_segment(segment).filter(has).collect();
            let own = holders.iter().find(|held| held.rank == to);
            let other = || &holders[to.0 as usize % holders.len()];
            assert!(!holders.is_empty(), "element {at} of segment {segment}");
            let Held {
                rank,
                index,
                extent,
            } = own.unwrap_or_else(other);
            let end = extent.range.end.min(wanted.end);
            sources.push(Source {
                rank: *rank,
                index: *index,
                range: at..end,
            });
            at = end;
        }
        sources
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ELEMENTS: usize = 12;

    /// What a rank of three has of one segment: its third, and a copy of the one before.
    fn sharded(rank: usize, step: u64, prepared: bool) -> Vec<Offer> {
        let third = |rank: usize| Extent {
            segment: 0,
            range: rank % 3 * 4..rank % 3 * 4 + 4,
        };
        vec![Offer {
            step: Step(step),
            prepared,
            pieces: vec![third(rank), third(rank + 2)],
        }]
    }

    fn newest(offers: &[Vec<Offer>], floor: u64, limit: u64) -> Option<u64> {
        let found = Offers::newest(offers, &[ELEMENTS], Step(floor), Step(limit))?;
        for to in [0, 1, 7].map(Rank) {
            let sources = found.sources(0, 2..ELEMENTS, to);
            let mut at = 2;
            for Source { rank, index, range } in sources {
                assert_eq!(range.start, at);
                let from = found.held.iter();
                let mut from = from.filter(|held| (held.rank, held.index) == (rank, index));
                let held = &from.next().expect("a piece").extent.range;
                assert!(held.start <= range.start && range.end <= held.end);
                at = range.end;
            }
            assert_eq!(at, ELEMENTS);
        }
        Some(found.step.0)
    }

    #[test]
    fn survivors_go_on_with_the_newest_step_that_they_can_all_be_at() {
        let none = Vec::new();
        // One of three is lost, and the others are at one step.
        let at_seven = [sharded(0, 7, false), none.clone(), sharded(2, 7, false)];
        assert_eq!(newest(&at_seven, 0, 100), Some(7));
        // One of them took the step, the other only knows its gradient.
        let ahead = [sharded(0, 8, false), none.clone(), sharded(2, 7, true)];
        assert_eq!(newest(&ahead, 0, 100), Some(8));
        // Nobody knows the norm of the next step.
        let waiting = [sharded(0, 7, true), none.clone(), sharded(2, 7, true)];
        assert_eq!(newest(&waiting, 0, 100), Some(7));
        // A step that was torn is no step.
        let torn = [sharded(0, 8, false), none.clone(), sharded(2, 7, false)];
        assert_eq!(newest(&torn, 0, 100), None);
        // Two neighbours of three are lost.
        let alone = [none.clone(), sharded(1, 7, false), none.clone()];
        assert_eq!(newest(&alone, 0, 100), None);
        // The store is as far, or must have a checkpoint of before.
        assert_eq!(newest(&at_seven, 7, 100), None);
        assert_eq!(newest(&at_seven, 0, 6), None);
        // A replica is enough, the furthest best.
        let whole = |step| {
            vec![Offer {
                step: Step(step),
                prepared: false,
                pieces: vec![Extent {
                    segment: 0,
                    range: 0..ELEMENTS,
                }],
            }]
        };
        assert_eq!(newest(&[none, whole(4), whole(5)], 0, 9), Some(5));
        // What the generation before held and this one had just been given make one whole.
        let both = [[sharded(0, 7, false), sharded(1, 7, false)].concat()];
        assert_eq!(newest(&both, 0, 9), Some(7));
    }
}
