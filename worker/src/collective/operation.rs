//! The operations themselves, each on the thread that calls it.

mod bytes;

use super::{
    Aborter, Cause, CollectiveError, FlightRecord, LaneSum, LinkError, Mesh, Operation, Partials,
    exchange::{Exchange, Header, Receive, SendQueue},
    merge::{CHUNK, Merge, one_root},
    plan::{GatherPhase, SumPhase, Topology},
};
use crate::host::HostBuffer;
use polestar_core::{Rank, WorldSize};
use std::{
    collections::VecDeque,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Operations that an error tells of.
const FLIGHT_RECORD: usize = 16;

#[derive(Clone, Copy)]
pub(super) struct Kind {
    name: &'static str,
    code: u32,
}

pub(super) const SUM: Kind = kind("sum", 1);
pub(super) const ALL_GATHER: Kind = kind("all-gather", 2);
const BROADCAST: Kind = kind("broadcast", 3);
const EXCHANGE: Kind = kind("exchange", 4);
const GATHER: Kind = kind("gather", 5);
const ALL_TO_ALL: Kind = kind("all-to-all", 6);
pub(super) const PASS_ON: Kind = kind("pass-on", 7);
#[cfg(feature = "cuda")]
pub(super) const CONNECT: Kind = kind("connecting by NCCL", 8);

const fn kind(name: &'static str, code: u32) -> Kind {
    Kind { name, code }
}

/// What goes to one peer.
struct Outgoing<'a> {
    bytes: usize,
    slices: Box<dyn Iterator<Item = &'a [u8]> + 'a>,
}

impl<'a> Outgoing<'a> {
    fn one(bytes: &'a [u8]) -> Outgoing<'a> {
        Outgoing {
            bytes: bytes.len(),
            slices: Box::new(std::iter::once(bytes)),
        }
    }
}

/// Links, and where the operations over them have come to.
pub(super) struct Core {
    mesh: Mesh,
    topology: Topology,
    deadline: Duration,
    next: u64,
    /// The step that is under way.
    step: Arc<AtomicU64>,
    /// Bytes that were sent to ranks on this host, and on others, when the last operation ended.
    sent: Arc<[AtomicU64; 2]>,
    record: VecDeque<Operation>,
    /// After a failure the streams may be anywhere, and nothing may use them again.
    failed: Option<Cause>,
}

impl Core {
    pub(super) fn new(mesh: Mesh, deadline: Duration) -> Core {
        let topology = Topology::new(mesh.rank.0 as usize, &mesh.hosts);
        Core {
            mesh,
            topology,
            deadline,
            next: 0,
            step: Arc::default(),
            sent: Arc::default(),
            record: VecDeque::with_capacity(FLIGHT_RECORD),
            failed: None,
        }
    }

    fn me(&self) -> usize {
        self.mesh.rank.0 as usize
    }

    pub(super) fn rank(&self) -> Rank {
        self.mesh.rank
    }

    pub(super) fn world(&self) -> WorldSize {
        self.mesh.world()
    }

    pub(super) fn aborter(&self) -> Aborter {
        self.mesh.aborter()
    }

    #[cfg(feature = "cuda")]
    pub(super) fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    #[cfg(feature = "cuda")]
    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Says which step is under way, from any thread.
    pub(super) fn step(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.step)
    }

    /// As [`super::Peers::hosts`].
    pub(super) fn hosts(&self) -> Vec<usize> {
        self.topology.hosts().to_vec()
    }

    /// Lets nothing use the links any more, here or on other ranks.
    pub(super) fn fail(&mut self, cause: Cause) {
        self.failed.get_or_insert(cause);
        self.mesh.aborter.abort();
    }

    /// As [`super::Transport::canonical_sum`].
    pub(super) fn sum(
        &mut self,
        sum: &LaneSum,
        local: Vec<HostBuffer>,
    ) -> Result<Partials<HostBuffer>, CollectiveError> {
        let LaneSum {
            partials,
            shards,
            gathered_next,
        } = sum;
        let me = self.me();
        if *gathered_next {
            let phases = self.topology.sum(partials, shards, true);
            // One vector a rank and one sum, in every exchange: it can end where its parts were.
            let in_place = |phase: &SumPhase| {
                let root = one_root(&phase.merges)?;
                (phase.sent_by(me) == 1).then_some(root)
            };
            let roots: Option<Vec<_>> = phases.iter().map(in_place).collect();
            if let Some(&root) = roots.as_ref().and_then(|roots| roots.last()) {
                let elements = shards.last().map_or(0, |shard| shard.end);
                let [own] = <[HostBuffer; 1]>::try_from(local)
                    .expect("a rank that holds one partial sum brings one vector");
                let mut whole = own.into_whole(elements, 0..elements);
                for phase in &phases {
                    self.sum_in_place(phase, &mut whole)?;
                }
                let shard = HostBuffer::within(whole, shards[me].clone());
                return Ok(vec![(root, shard)]);
            }
        }
        let mut sums: Partials<HostBuffer> = Vec::new();
        for (i, phase) in self
            .topology
            .sum(partials, shards, false)
            .iter()
            .enumerate()
        {
            let vectors: Vec<&[f32]> = match i {
                0 => local.iter().map(|vector| &**vector).collect(),
                _ => sums.iter().map(|(_, sum)| &**sum).collect(),
            };
            let merged = self.sum_apart(phase, &vectors)?;
            sums = merged.into_iter().map(|(n, sum)| (n, sum.into())).collect();
        }
        Ok(sums)
    }

    /// One exchange of a sum, whose result lies apart from what went into it: the shards that this rank
    /// keeps, one after the other.
    fn sum_apart(
        &mut self,
        phase: &SumPhase,
        local: &[&[f32]],
    ) -> Result<Partials<Vec<f32>>, CollectiveError> {
        let me = self.me();
        let held: Vec<usize> = (0..phase.to.len()).map(|r| phase.sent_by(r)).collect();
        let elements: usize = phase.parts_for(me).map(|part| part.len()).sum();
        let outgoing = |rank: usize| Outgoing {
            bytes: 4 * local.len() * phase.parts_for(rank).map(|p| p.len()).sum::<usize>(),
            // Chunk by chunk, so that the peer can merge the first of all vectors before the second
            // comes.
            slices: Box::new(
                phase
                    .parts_for(rank)
                    .flat_map(chunks)
                    .flat_map(move |chunk| {
                        let part = move |&vector| part_of(vector, chunk.clone());
                        local.iter().map(part)
                    }),
            ),
        };
        let bytes = 4 * phase.shards.last().map_or(0, |shard| shard.end);
        self.run(SUM, bytes, &phase.talks, outgoing, |exchange, sizes| {
            check(sizes, me, |rank| 4 * elements * held[rank])?;
            let mut merge = Merge::new(&phase.merges, elements);
            let room = CHUNK.min(elements);
            let mut scratch: Vec<Vec<f32>> = (0..sizes.len())
                .map(|rank| match rank == me {
                    true => Vec::new(),
                    false => vec![0.0; room * held[rank]],
                })
                .collect();
            for chunk in phase.parts_for(me).flat_map(chunks) {
                let length = chunk.len();
                let each = scratch.iter_mut().enumerate();
                let mut due: Vec<Receive<'_>> = each
                    .filter(|(rank, _)| *rank != me && held[*rank] > 0)
                    .map(|(rank, scratch)| Receive {
                        from: Rank(rank as u32),
                        into: bytemuck::cast_slice_mut(&mut scratch[..length * held[rank]]),
                    })
                    .collect();
                exchange.fill(&mut due)?;
                merge.chunk(length, |rank, index| match rank == me {
                    true => &local[index][chunk.clone()],
                    false => &scratch[rank][index * length..(index + 1) * length],
                });
            }
            exchange.flush()?;
            Ok(merge.into_sums())
        })
    }

    /// One exchange of a sum, whose result ends in the vector that went into it: there the shards that
    /// this rank keeps are sums, and the others of no use.
    fn sum_in_place(&mut self, phase: &SumPhase, whole: &mut [f32]) -> Result<(), CollectiveError> {
        let me = self.me();
        let bytes = 4 * whole.len();
        let (mut kept, mut sent) = (Vec::new(), Vec::new());
        for (part, to) in split(whole, &phase.shards).into_iter().zip(&phase.to) {
            match to {
                Some(rank) if *rank == me => kept.push(part),
                Some(rank) => {
                    let part: &[f32] = part;
                    sent.push((*rank, part));
                }
                None => {}
            }
        }
        let elements: usize = kept.iter().map(|part| part.len()).sum();
        let parts_for = |rank: usize| {
            let sent = sent.iter().filter(move |(to, _)| *to == rank);
            sent.map(|(_, part)| *part)
        };
        let outgoing = |rank: usize| Outgoing {
            bytes: 4 * parts_for(rank).map(<[f32]>::len).sum::<usize>(),
            slices: Box::new(parts_for(rank).map(bytemuck::cast_slice)),
        };
        self.run(SUM, bytes, &phase.talks, outgoing, |exchange, sizes| {
            check(sizes, me, |rank| 4 * elements * phase.sent_by(rank))?;
            let mut merge = Merge::new(&phase.merges, 0);
            let room = kept.iter().map(|p| p.len()).max().unwrap_or(0).min(CHUNK);
            let mut scratch = vec![vec![0.0; room]; sizes.len()];
            for own in kept.into_iter().flat_map(|part| part.chunks_mut(CHUNK)) {
                let length = own.len();
                let each = scratch.iter_mut().enumerate();
                let mut due: Vec<Receive<'_>> = each
                    .filter(|(rank, _)| *rank != me && phase.sent_by(*rank) > 0)
                    .map(|(rank, scratch)| Receive {
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

    /// As [`super::Transport::all_gather`], in a vector that has this rank's shard in its place.
    pub(super) fn all_gather(
        &mut self,
        shards: &[Range<usize>],
        whole: &mut [f32],
    ) -> Result<(), CollectiveError> {
        for phase in self.topology.gather() {
            self.gather_phase(&phase, shards, whole)?;
        }
        Ok(())
    }

    fn gather_phase(
        &mut self,
        phase: &GatherPhase,
        shards: &[Range<usize>],
        whole: &mut [f32],
    ) -> Result<(), CollectiveError> {
        let me = self.me();
        let bytes = 4 * whole.len();
        let mut from = vec![None; shards.len()];
        for (rank, owners) in phase.receive.iter().enumerate() {
            for &owner in owners {
                from[owner] = Some(rank);
            }
        }
        let mut held: Vec<&[f32]> = vec![&[]; shards.len()];
        let mut into = Vec::new();
        for (owner, part) in split(whole, shards).into_iter().enumerate() {
            match from[owner] {
                Some(rank) => into.push((rank, part)),
                None => held[owner] = part,
            }
        }
        // What comes from one peer comes in order of owners, and is filled in that order.
        into.sort_by_key(|(rank, _)| *rank);
        let parts_for = |rank: usize| phase.send[rank].iter().map(|&owner| held[owner]);
        let outgoing = |rank: usize| Outgoing {
            bytes: 4 * parts_for(rank).map(<[f32]>::len).sum::<usize>(),
            slices: Box::new(parts_for(rank).map(bytemuck::cast_slice)),
        };
        let talks = phase.talks();
        self.run(ALL_GATHER, bytes, &talks, outgoing, |exchange, sizes| {
            let elements = |rank: usize| -> usize {
                phase.receive[rank].iter().map(|&o| shards[o].len()).sum()
            };
            check(sizes, me, |rank| 4 * elements(rank))?;
            let receive = |(rank, part): (usize, _)| Receive {
                from: Rank(rank as u32),
                into: bytemuck::cast_slice_mut(part),
            };
            let mut due: Vec<Receive<'_>> = into.into_iter().map(receive).collect();
            exchange.fill(&mut due)?;
            exchange.flush()
        })
    }

    /// Numbers an operation, announces it to the peers that it talks to, and runs it.
    fn run<'a, T>(
        &mut self,
        kind: Kind,
        bytes: usize,
        talks: &[bool],
        outgoing: impl Fn(usize) -> Outgoing<'a>,
        body: impl FnOnce(&mut Exchange<'_, 'a>, &[usize]) -> Result<T, Cause>,
    ) -> Result<T, CollectiveError> {
        self.recorded(kind, bytes, |core, sequence| {
            let header = |bytes: usize| Header {
                kind: kind.code,
                sequence,
                bytes: bytes as u64,
            };
            let talks_to = |rank: usize| talks[rank] && core.mesh.links[rank].is_some();
            let mut queues = Vec::with_capacity(talks.len());
            for rank in 0..talks.len() {
                queues.push(talks_to(rank).then(|| {
                    let Outgoing { bytes, slices } = outgoing(rank);
                    SendQueue::new(header(bytes), slices)
                }));
            }
            let aborted = &core.mesh.aborter.aborted;
            let links = &mut core.mesh.links;
            let mut exchange = Exchange::new(links, queues, aborted, core.deadline);
            let sizes = exchange.headers(header(0))?;
            body(&mut exchange, &sizes)
        })
    }

    /// Numbers an operation and runs it, unless one before it has failed.
    pub(super) fn recorded<T>(
        &mut self,
        kind: Kind,
        bytes: usize,
        body: impl FnOnce(&mut Core, u64) -> Result<T, Cause>,
    ) -> Result<T, CollectiveError> {
        let sequence = self.next;
        self.next += 1;
        let _span = tracing::debug_span!(
            "collective",
            polestar.operation = kind.name,
            polestar.sequence = sequence as i64,
            polestar.step = self.step.load(Ordering::Relaxed) as i64,
            polestar.bytes = bytes as i64
        )
        .entered();
        if self.record.len() == FLIGHT_RECORD {
            self.record.pop_front();
        }
        self.record.push_back(Operation {
            name: kind.name,
            sequence,
            step: self.step.load(Ordering::Relaxed),
            bytes,
            done: false,
        });
        let result = match &self.failed {
            Some(cause) => Err(cause.clone()),
            None => body(self, sequence),
        };
        self.note_sent();
        match result {
            Ok(value) => {
                let entry = self.record.back_mut();
                entry.expect("it was recorded above").done = true;
                Ok(value)
            }
            Err(cause) => {
                // A connection that was cut by an abort breaks before it says why.
                let aborted = self.mesh.aborter.is_aborted() && self.failed.is_none();
                let cause = if aborted {
                    LinkError::Aborted.into()
                } else {
                    cause
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

    fn flight_record(&self) -> FlightRecord {
        FlightRecord(self.record.iter().copied().collect())
    }

    /// Says how many bytes were sent to ranks on this host, and on others, from any thread.
    pub(super) fn sent(&self) -> Arc<[AtomicU64; 2]> {
        Arc::clone(&self.sent)
    }

    fn note_sent(&self) {
        let mut sent = [0; 2];
        for (rank, link) in self.mesh.links.iter().enumerate() {
            let bytes = link.as_ref().map_or(0, |link| link.sent);
            sent[usize::from(self.topology.is_away(rank))] += bytes;
        }
        for (known, sent) in self.sent.iter().zip(sent) {
            known.store(sent, Ordering::Relaxed);
        }
    }
}

fn part_of(vector: &[f32], part: Range<usize>) -> &[u8] {
    bytemuck::cast_slice(&vector[part])
}

/// The chunks of a part, in order.
fn chunks(part: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = part.end;
    part.step_by(CHUNK)
        .map(move |start| start..end.min(start + CHUNK))
}

/// Every owner's part of a vector that the shards cover.
fn split<'a>(mut whole: &'a mut [f32], shards: &[Range<usize>]) -> Vec<&'a mut [f32]> {
    let take = |shard: &Range<usize>| {
        let (part, rest) = std::mem::take(&mut whole).split_at_mut(shard.len());
        whole = rest;
        part
    };
    shards.iter().map(take).collect()
}

/// Whether every peer announced as many bytes as are due from it.
fn check(sizes: &[usize], me: usize, due: impl Fn(usize) -> usize) -> Result<(), Cause> {
    for (rank, &found) in sizes.iter().enumerate() {
        if rank != me && found != due(rank) {
            return Err(Cause::Size {
                from: Rank(rank as u32),
                found,
                expected: due(rank),
            });
        }
    }
    Ok(())
}
