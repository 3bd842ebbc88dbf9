//! The operations themselves, each on the thread that calls it.

use super::{
    Cause, CollectiveError, Mesh, Partials,
    exchange::{Due, Exchange, Feed, Header},
};
use polestar_core::{
    Rank,
    tree::{Counter, Node, add_into},
};
use std::{collections::VecDeque, ops::Range, sync::atomic::Ordering, time::Duration};

/// Elements that are merged at a time: a few of these fit into the fastest caches.
const CHUNK: usize = 16 * 1024;

/// Operations that an error tells of.
const FLIGHT_RECORD: usize = 16;

#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    code: u32,
}

const REDUCE_SCATTER: Kind = kind("reduce-scatter", 1);
const ALL_GATHER: Kind = kind("all-gather", 2);
const BROADCAST: Kind = kind("broadcast", 3);
const GATHER: Kind = kind("gather", 4);

const fn kind(name: &'static str, code: u32) -> Kind {
    Kind { name, code }
}

/// An operation in the flight record.
struct Entry {
    name: &'static str,
    sequence: u64,
    bytes: usize,
    done: bool,
}

/// Links, and where the operations over them have come to.
pub(super) struct Core {
    mesh: Mesh,
    deadline: Duration,
    next: u64,
    record: VecDeque<Entry>,
    /// After a failure the streams may be anywhere, and nothing may use them again.
    failed: Option<Cause>,
}

impl Core {
    pub(super) fn new(mesh: Mesh, deadline: Duration) -> Core {
        Core {
            mesh,
            deadline,
            next: 0,
            record: VecDeque::with_capacity(FLIGHT_RECORD),
            failed: None,
        }
    }

    fn me(&self) -> usize {
        self.mesh.rank.0 as usize
    }

    /// As [`super::Collective::reduce_scatter`].
    pub(super) fn reduce_scatter(
        &mut self,
        pieces: &[(Rank, Node)],
        cuts: &[Range<usize>],
        mine: &[Vec<f32>],
    ) -> Result<Partials, CollectiveError> {
        let me = self.me();
        let held = |rank: usize| pieces.iter().filter(|(r, _)| r.0 as usize == rank).count();
        let own: Vec<&[f32]> = mine.iter().map(|m| &m[cuts[me].clone()]).collect();
        let feed = |rank: usize| -> Vec<&[u8]> {
            mine.iter()
                .map(|m| bytemuck::cast_slice(&m[cuts[rank].clone()]))
                .collect()
        };
        let bytes = 4 * cuts.last().map_or(0, |c| c.end);
        self.run(REDUCE_SCATTER, bytes, feed, 4 * CHUNK, |exchange, sizes| {
            let elements = cuts[me].len();
            for (rank, &found) in sizes.iter().enumerate() {
                let expected = 4 * elements * held(rank);
                if rank != me && found != expected {
                    return Err(size(rank, found, expected));
                }
            }
            let mut merge = Merge::new(pieces, || Vec::with_capacity(elements));
            let mut scratch: Vec<Vec<f32>> = (0..sizes.len())
                .map(|rank| match rank == me {
                    true => Vec::new(),
                    false => vec![0.0; CHUNK.min(elements) * held(rank)],
                })
                .collect();
            let mut at = 0;
            while at < elements {
                let length = CHUNK.min(elements - at);
                let each = scratch.iter_mut().enumerate();
                let mut due: Vec<Due<'_>> = each
                    .filter(|(rank, _)| *rank != me)
                    .map(|(rank, scratch)| Due {
                        from: Rank(rank as u32),
                        into: bytemuck::cast_slice_mut(&mut scratch[..length * held(rank)]),
                    })
                    .collect();
                exchange.fill(&mut due)?;
                merge.chunk(length, |rank, index| match rank == me {
                    true => &own[index][at..at + length],
                    false => &scratch[rank][index * length..(index + 1) * length],
                });
                at += length;
            }
            exchange.flush()?;
            Ok(merge.outputs)
        })
    }

    /// As [`super::Collective::start_reduce_scatter_in_place`].
    pub(super) fn reduce_scatter_in_place(
        &mut self,
        pieces: &[(Rank, Node)],
        cuts: &[Range<usize>],
        whole: &mut [f32],
    ) -> Result<(), CollectiveError> {
        let me = self.me();
        let bytes = 4 * whole.len();
        let mut parts = split(whole, cuts);
        let own = std::mem::take(&mut parts[me]);
        let feed = |rank: usize| vec![bytemuck::cast_slice(&*parts[rank])];
        self.run(REDUCE_SCATTER, bytes, feed, 4 * CHUNK, |exchange, sizes| {
            for (rank, &found) in sizes.iter().enumerate() {
                if rank != me && found != 4 * own.len() {
                    return Err(size(rank, found, 4 * own.len()));
                }
            }
            let mut merge = Merge::new(pieces, Vec::new);
            let room = CHUNK.min(own.len());
            let mut scratch = vec![vec![0.0; room]; sizes.len()];
            for own in own.chunks_mut(CHUNK) {
                let length = own.len();
                let each = scratch.iter_mut().enumerate();
                let mut due: Vec<Due<'_>> = each
                    .filter(|(rank, _)| *rank != me)
                    .map(|(rank, scratch)| Due {
                        from: Rank(rank as u32),
                        into: bytemuck::cast_slice_mut(&mut scratch[..length]),
                    })
                    .collect();
                exchange.fill(&mut due)?;
                merge.chunk_in_place(own, me, |rank| &scratch[rank][..length]);
            }
            exchange.flush()
        })
    }

    /// As [`super::Collective::start_all_gather_in_place`].
    pub(super) fn all_gather_in_place(
        &mut self,
        cuts: &[Range<usize>],
        whole: &mut [f32],
    ) -> Result<(), CollectiveError> {
        let me = self.me();
        let bytes = 4 * whole.len();
        let mut parts = split(whole, cuts);
        let own = &*std::mem::take(&mut parts[me]);
        let feed = |_| vec![bytemuck::cast_slice(own)];
        self.run(ALL_GATHER, bytes, feed, usize::MAX, |exchange, sizes| {
            let mut due = Vec::with_capacity(parts.len());
            for (rank, part) in parts.into_iter().enumerate().filter(|(r, _)| *r != me) {
                if sizes[rank] != 4 * part.len() {
                    return Err(size(rank, sizes[rank], 4 * part.len()));
                }
                due.push(Due {
                    from: Rank(rank as u32),
                    into: bytemuck::cast_slice_mut(part),
                });
            }
            exchange.fill(&mut due)?;
            exchange.flush()
        })
    }

    /// As [`super::Collective::all_gather`].
    pub(super) fn all_gather(
        &mut self,
        cuts: &[Range<usize>],
        mine: &[f32],
    ) -> Result<Vec<f32>, CollectiveError> {
        let mut whole = vec![0.0; cuts.last().map_or(0, |c| c.end)];
        whole[cuts[self.me()].clone()].copy_from_slice(mine);
        self.all_gather_in_place(cuts, &mut whole)?;
        Ok(whole)
    }

    /// As [`super::Collective::broadcast`].
    pub(super) fn broadcast(
        &mut self,
        from: Rank,
        values: &mut [f32],
    ) -> Result<(), CollectiveError> {
        let me = self.me();
        let root = from.0 as usize;
        let bytes = 4 * values.len();
        let sent = if me == root {
            values.to_vec()
        } else {
            Vec::new()
        };
        let feed = |_| vec![bytemuck::cast_slice(&sent)];
        self.run(BROADCAST, bytes, feed, usize::MAX, |exchange, sizes| {
            for (rank, &found) in sizes.iter().enumerate() {
                let expected = if rank == root { bytes } else { 0 };
                if rank != me && found != expected {
                    return Err(size(rank, found, expected));
                }
            }
            if me != root {
                let into = bytemuck::cast_slice_mut(values);
                exchange.fill(&mut [Due { from, into }])?;
            }
            exchange.flush()
        })
    }

    /// As [`super::Collective::gather_bytes`].
    pub(super) fn gather_bytes(&mut self, mine: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        let me = self.me();
        let feed = |_| vec![mine];
        self.run(GATHER, mine.len(), feed, usize::MAX, |exchange, sizes| {
            let mut all: Vec<Vec<u8>> = sizes.iter().map(|&n| vec![0; n]).collect();
            all[me] = mine.to_vec();
            let mut due: Vec<Due<'_>> = all
                .iter_mut()
                .enumerate()
                .filter(|(rank, _)| *rank != me)
                .map(|(rank, into)| Due {
                    from: Rank(rank as u32),
                    into,
                })
                .collect();
            exchange.fill(&mut due)?;
            exchange.flush()?;
            Ok(all)
        })
    }

    /// Numbers an operation, announces it to all peers and runs it. `feed(r)` are the pieces that go
    /// to rank `r`, interleaved by chunks of so many bytes.
    fn run<'a, T>(
        &mut self,
        kind: Kind,
        bytes: usize,
        feed: impl Fn(usize) -> Vec<&'a [u8]>,
        chunk: usize,
        body: impl FnOnce(&mut Exchange<'_>, &[usize]) -> Result<T, Cause>,
    ) -> Result<T, CollectiveError> {
        let sequence = self.next;
        self.next += 1;
        if self.record.len() == FLIGHT_RECORD {
            self.record.pop_front();
        }
        self.record.push_back(Entry {
            name: kind.name,
            sequence,
            bytes,
            done: false,
        });
        let ours = |bytes: usize| Header {
            kind: kind.code,
            sequence,
            bytes: bytes as u64,
        };
        let result = match &self.failed {
            Some(cause) => Err(cause.clone()),
            None => {
                let feeds = self.mesh.links.iter().enumerate().map(|(rank, link)| {
                    link.as_ref()?;
                    let pieces = feed(rank);
                    let bytes = pieces.iter().map(|p| p.len()).sum();
                    Some(Feed::new(ours(bytes), pieces, chunk))
                });
                let feeds = feeds.collect();
                let aborted = &self.mesh.aborter.aborted;
                let links = &mut self.mesh.links;
                let mut exchange = Exchange::new(links, feeds, aborted, self.deadline);
                exchange
                    .headers(ours(0))
                    .and_then(|sizes| body(&mut exchange, &sizes))
            }
        };
        match result {
            Ok(value) => {
                if let Some(entry) = self.record.back_mut() {
                    entry.done = true;
                }
                Ok(value)
            }
            Err(cause) => {
                // A connection that was cut by an abort breaks before it says why.
                let cause = match self.mesh.aborter.aborted.load(Ordering::SeqCst) {
                    true => super::LinkError::Aborted.into(),
                    false => cause,
                };
                self.failed.get_or_insert_with(|| cause.clone());
                Err(CollectiveError {
                    rank: self.mesh.rank,
                    operation: kind.name,
                    sequence,
                    cause,
                    record: self.flight_record(),
                })
            }
        }
    }

    fn flight_record(&self) -> String {
        let line = |e: &Entry| {
            let state = if e.done { "done" } else { "not done" };
            format!("#{} {} of {} bytes {state}", e.sequence, e.name, e.bytes)
        };
        self.record.iter().map(line).collect::<Vec<_>>().join(", ")
    }
}

/// Every rank's part of a vector that the cuts cover.
fn split<'a>(mut whole: &'a mut [f32], cuts: &[Range<usize>]) -> Vec<&'a mut [f32]> {
    let take = |cut: &Range<usize>| {
        let (part, rest) = std::mem::take(&mut whole).split_at_mut(cut.len());
        whole = rest;
        part
    };
    cuts.iter().map(take).collect()
}

fn size(rank: usize, found: usize, expected: usize) -> Cause {
    Cause::Size {
        from: Rank(rank as u32),
        found,
        expected,
    }
}

/// A world of one has all pieces, and they needn't be copied.
pub(super) fn merge_alone(pieces: &[(Rank, Node)], mine: Vec<Vec<f32>>) -> Partials {
    let mut merged = Counter::default();
    for ((_, node), piece) in pieces.iter().zip(mine) {
        merged.push(*node, piece, |mut left: Vec<f32>, right| {
            add_into(&mut left, &right);
            left
        });
    }
    merged.into_partials()
}

/// Adds up pieces, `values(i)` being those of the piece number `i`, in buffers from `spare`.
fn merge<'b>(
    pieces: &[(Rank, Node)],
    spare: &mut Vec<Vec<f32>>,
    values: impl Fn(usize) -> &'b [f32],
) -> Partials {
    let mut merged: Counter<Vec<f32>> = Counter::default();
    for (i, (_, node)) in pieces.iter().enumerate() {
        let mut buffer = spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(values(i));
        merged.push(*node, buffer, |mut left, right| {
            add_into(&mut left, &right);
            spare.push(right);
            left
        });
    }
    merged.into_partials()
}

/// Whether each rank has one piece, and their sum is one: then a vector can be reduced in place.
pub(super) fn has_one_root(pieces: &[(Rank, Node)], world: usize) -> bool {
    let mut ranks: Vec<Rank> = pieces.iter().map(|(rank, _)| *rank).collect();
    ranks.sort_unstable();
    ranks.dedup();
    let mut nodes = Counter::default();
    for (_, node) in pieces {
        nodes.push(*node, (), |(), ()| ());
    }
    pieces.len() == world && ranks.len() == world && nodes.nodes().count() == 1
}

/// Merges chunk after chunk of all pieces.
struct Merge<'a> {
    pieces: &'a [(Rank, Node)],
    /// Which of its rank's pieces each is.
    index: Vec<usize>,
    outputs: Partials,
    /// Buffers that no partial sum needs at the moment.
    spare: Vec<Vec<f32>>,
}

impl<'a> Merge<'a> {
    fn new(pieces: &'a [(Rank, Node)], buffer: impl Fn() -> Vec<f32>) -> Merge<'a> {
        let mut nodes = Counter::default();
        let mut index = Vec::with_capacity(pieces.len());
        for (i, (rank, node)) in pieces.iter().enumerate() {
            nodes.push(*node, (), |(), ()| ());
            index.push(pieces[..i].iter().filter(|(r, _)| r == rank).count());
        }
        let output = |node| (node, buffer());
        Merge {
            pieces,
            index,
            outputs: nodes.nodes().map(output).collect(),
            spare: Vec::new(),
        }
    }

    /// Merges one chunk: `of(rank, i)` are the values of the rank's piece number `i`.
    fn chunk<'b>(&mut self, length: usize, of: impl Fn(usize, usize) -> &'b [f32]) {
        let values = |i: usize| of(self.pieces[i].0.0 as usize, self.index[i]);
        if let ([_, _], [(_, output)]) = (self.pieces, &mut self.outputs[..]) {
            // Two ranks with a piece each: nothing is copied before it is added.
            let pairs = values(0).iter().zip(values(1));
            output.extend(pairs.map(|(left, right)| left + right));
            return;
        }
        let merged = merge(self.pieces, &mut self.spare, values);
        for ((_, output), (_, sum)) in self.outputs.iter_mut().zip(merged) {
            output.extend_from_slice(&sum[..length]);
            self.spare.push(sum);
        }
    }

    /// Merges one chunk of one piece a rank, all of which have a root, into `own`, the values of rank `me`.
    fn chunk_in_place<'b>(&mut self, own: &mut [f32], me: usize, of: impl Fn(usize) -> &'b [f32]) {
        let rank = |i: usize| self.pieces[i].0.0 as usize;
        if self.pieces.len() == 2 {
            // A sum of two has no order.
            let other = if rank(0) == me { rank(1) } else { rank(0) };
            add_into(own, of(other));
            return;
        }
        let values = |i: usize| if rank(i) == me { &*own } else { of(rank(i)) };
        let merged = merge(self.pieces, &mut self.spare, values);
        for (_, sum) in merged {
            own.copy_from_slice(&sum);
            self.spare.push(sum);
        }
    }
}
