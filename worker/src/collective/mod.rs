//! Collectives between the ranks of one generation.
//!
//! A [`Transport`] moves framed messages between two ranks; everything else is built on it here,
//! so that the order of additions is written once. Every operation has a sequence number that is
//! checked on arrival, a deadline, and a place in the flight record that an error carries.

mod handshake;
mod local;
mod tcp;

pub use handshake::{HandshakeError, Secret};
pub use local::Local;
pub use tcp::{Aborter, Mesh, MeshError, listen};

use crate::{
    Rank, WorldSize,
    reduce::{self, Counter, Node, add_into},
};
use std::{collections::VecDeque, fmt, time::Duration};

/// Moves messages between the ranks of a generation.
pub trait Transport: Send {
    /// Who we are.
    fn rank(&self) -> Rank;
    /// How many we are.
    fn world(&self) -> WorldSize;
    /// Hands a message over for delivery.
    ///
    /// # Errors
    /// When the peer is gone or the generation was aborted.
    fn send(&mut self, to: Rank, sequence: u64, payload: &[u8]) -> Result<(), LinkError>;
    /// Waits for the next message of a peer.
    ///
    /// # Errors
    /// When the peer is gone, the generation was aborted, or nothing came within `deadline`.
    fn receive(&mut self, from: Rank, deadline: Duration) -> Result<Message, LinkError>;
}

/// A message as it came off the wire. Its storage is aligned for any plain number.
#[derive(Debug, Default)]
pub struct Message {
    /// Sequence number of the operation it belongs to.
    pub sequence: u64,
    words: Vec<u64>,
    bytes: usize,
}

impl Message {
    /// A zeroed message of this many bytes.
    pub fn with_len(sequence: u64, bytes: usize) -> Message {
        Message {
            sequence,
            words: vec![0; bytes.div_ceil(8)],
            bytes,
        }
    }

    /// The payload.
    pub fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.bytes]
    }

    /// The payload, to be filled.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.bytes]
    }

    /// The payload as numbers. A trailing partial number is left out.
    pub fn floats(&self) -> &[f32] {
        let whole = self.bytes / 4;
        &bytemuck::cast_slice(&self.words)[..whole]
    }
}

/// Why one link failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The peer's process or connection is gone.
    #[error("the connection to {0} broke")]
    PeerLost(Rank),
    /// Nothing came in time.
    #[error("{from} sent nothing for {seconds} s")]
    Deadline {
        /// Whom we waited for.
        from: Rank,
        /// How long.
        seconds: u64,
    },
    /// Somebody called [`tcp::Aborter::abort`].
    #[error("the generation was aborted")]
    Aborted,
}

/// A failed collective: what it was, why, and what came before it on this rank.
#[derive(Debug, thiserror::Error)]
#[error("{operation} #{sequence} on {rank} failed: {cause}\nlast operations here: {record}")]
pub struct CollectiveError {
    /// This rank.
    pub rank: Rank,
    /// The operation's name.
    pub operation: &'static str,
    /// Its number, the same on every rank.
    pub sequence: u64,
    /// What went wrong.
    pub cause: Cause,
    /// The flight record.
    pub record: String,
}

/// What went wrong in a collective.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// A link failed.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Ranks disagree about where they are.
    #[error("{from} sent a message of operation #{found}: the ranks are not in step")]
    OutOfStep {
        /// Who sent it.
        from: Rank,
        /// Its sequence number.
        found: u64,
    },
    /// Ranks disagree about sizes.
    #[error("{from} sent {found} bytes where {expected} were due")]
    Size {
        /// Who sent it.
        from: Rank,
        /// Bytes that came.
        found: usize,
        /// Bytes that were due.
        expected: usize,
    },
}

struct Entry {
    operation: &'static str,
    sequence: u64,
    bytes: usize,
    done: bool,
}

/// The collectives of one generation on one rank.
pub struct Collective {
    transport: Box<dyn Transport>,
    deadline: Duration,
    next: u64,
    record: VecDeque<Entry>,
}

impl fmt::Debug for Collective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collective")
            .field("rank", &self.rank())
            .field("world", &self.world())
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

const FLIGHT_RECORD: usize = 16;

impl Collective {
    /// Collectives over a transport. An operation that waits longer than `deadline` fails.
    pub fn new(transport: Box<dyn Transport>, deadline: Duration) -> Collective {
        Collective {
            transport,
            deadline,
            next: 0,
            record: VecDeque::with_capacity(FLIGHT_RECORD),
        }
    }

    /// This rank.
    pub fn rank(&self) -> Rank {
        self.transport.rank()
    }

    /// Ranks in the world.
    pub fn world(&self) -> WorldSize {
        self.transport.world()
    }

    /// The canonical sum of all lanes' vectors, on every rank.
    ///
    /// `partials` are this rank's subtrees over its [hosted](reduce::hosted) lanes, each a vector
    /// of `elements`. Moves the bytes of a reduce-scatter and an all-gather when the world is a
    /// power of two, and up to a factor log₂(lanes) more of the former when it isn't.
    ///
    /// # Errors
    /// [`CollectiveError`] when a rank is lost, late or out of step.
    pub fn sum(
        &mut self,
        lanes: u32,
        elements: usize,
        partials: Vec<(Node, Vec<f32>)>,
    ) -> Result<Vec<f32>, CollectiveError> {
        let mine = self.reduce_scatter(lanes, elements, &partials)?;
        drop(partials);
        self.all_gather(elements, &mine)
    }

    /// This rank's [shard](reduce::shard) of the canonical sum.
    fn reduce_scatter(
        &mut self,
        lanes: u32,
        elements: usize,
        partials: &[(Node, Vec<f32>)],
    ) -> Result<Vec<f32>, CollectiveError> {
        let (rank, world) = (self.rank(), self.world());
        self.operation("reduce-scatter", 4 * elements, |link| {
            let mut outgoing = Vec::new();
            for peer in peers(rank, world) {
                let shard = reduce::shard(elements, world, peer);
                outgoing.clear();
                for (_, partial) in partials {
                    outgoing.extend_from_slice(&partial[shard.clone()]);
                }
                link.send(peer, bytemuck::cast_slice(&outgoing))?;
            }
            let shard = reduce::shard(elements, world, rank);
            let mut merged = Counter::default();
            let add = |mut left: Vec<f32>, right: Vec<f32>| {
                add_into(&mut left, &right);
                left
            };
            for source in (0..world.0).map(Rank) {
                if source == rank {
                    for (node, partial) in partials {
                        merged.push(*node, partial[shard.clone()].to_vec(), add);
                    }
                    continue;
                }
                let nodes = reduce::subtrees(reduce::hosted(lanes, world, source));
                let message = link.receive(source, 4 * nodes.len() * shard.len())?;
                let values = message.floats();
                for (i, node) in nodes.into_iter().enumerate() {
                    let from = i * shard.len();
                    merged.push(node, values[from..from + shard.len()].to_vec(), add);
                }
            }
            // Empty only for an empty shard: lanes cover the tree by construction.
            Ok(merged.into_root().unwrap_or_default())
        })
    }

    /// Every rank's shard, concatenated.
    fn all_gather(&mut self, elements: usize, mine: &[f32]) -> Result<Vec<f32>, CollectiveError> {
        let (rank, world) = (self.rank(), self.world());
        self.operation("all-gather", 4 * elements, |link| {
            for peer in peers(rank, world) {
                link.send(peer, bytemuck::cast_slice(mine))?;
            }
            let mut whole = vec![0.0; elements];
            for source in (0..world.0).map(Rank) {
                let shard = reduce::shard(elements, world, source);
                if source == rank {
                    whole[shard].copy_from_slice(mine);
                } else {
                    let message = link.receive(source, 4 * shard.len())?;
                    whole[shard].copy_from_slice(message.floats());
                }
            }
            Ok(whole)
        })
    }

    /// Every rank's bytes, by rank. Sizes may differ.
    ///
    /// # Errors
    /// [`CollectiveError`] when a rank is lost, late or out of step.
    pub fn gather_bytes(&mut self, mine: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        let (rank, world) = (self.rank(), self.world());
        self.operation("gather", mine.len(), |link| {
            for peer in peers(rank, world) {
                link.send(peer, mine)?;
            }
            (0..world.0)
                .map(|r| {
                    if Rank(r) == rank {
                        Ok(mine.to_vec())
                    } else {
                        Ok(link.receive_any(Rank(r))?.bytes().to_vec())
                    }
                })
                .collect()
        })
    }

    /// Returns when every rank has called it.
    ///
    /// # Errors
    /// [`CollectiveError`] when a rank is lost, late or out of step.
    pub fn barrier(&mut self) -> Result<(), CollectiveError> {
        self.gather_bytes(&[]).map(drop)
    }

    fn operation<T>(
        &mut self,
        operation: &'static str,
        bytes: usize,
        run: impl FnOnce(&mut Link<'_>) -> Result<T, Cause>,
    ) -> Result<T, CollectiveError> {
        let sequence = self.next;
        self.next += 1;
        if self.record.len() == FLIGHT_RECORD {
            self.record.pop_front();
        }
        self.record.push_back(Entry {
            operation,
            sequence,
            bytes,
            done: false,
        });
        let mut link = Link {
            transport: &mut *self.transport,
            deadline: self.deadline,
            sequence,
        };
        match run(&mut link) {
            Ok(value) => {
                if let Some(entry) = self.record.back_mut() {
                    entry.done = true;
                }
                Ok(value)
            }
            Err(cause) => Err(CollectiveError {
                rank: self.rank(),
                operation,
                sequence,
                cause,
                record: self.flight_record(),
            }),
        }
    }

    fn flight_record(&self) -> String {
        let line = |e: &Entry| {
            let state = if e.done { "done" } else { "not done" };
            format!(
                "#{} {} of {} bytes {state}",
                e.sequence, e.operation, e.bytes
            )
        };
        self.record.iter().map(line).collect::<Vec<_>>().join(", ")
    }
}

fn peers(rank: Rank, world: WorldSize) -> impl Iterator<Item = Rank> {
    (0..world.0).map(Rank).filter(move |&r| r != rank)
}

/// One operation's view of the transport.
struct Link<'a> {
    transport: &'a mut dyn Transport,
    deadline: Duration,
    sequence: u64,
}

impl Link<'_> {
    fn send(&mut self, to: Rank, payload: &[u8]) -> Result<(), Cause> {
        Ok(self.transport.send(to, self.sequence, payload)?)
    }

    fn receive(&mut self, from: Rank, expected: usize) -> Result<Message, Cause> {
        let message = self.receive_any(from)?;
        let found = message.bytes().len();
        if found != expected {
            return Err(Cause::Size {
                from,
                found,
                expected,
            });
        }
        Ok(message)
    }

    fn receive_any(&mut self, from: Rank) -> Result<Message, Cause> {
        let message = self.transport.receive(from, self.deadline)?;
        if message.sequence != self.sequence {
            return Err(Cause::OutOfStep {
                from,
                found: message.sequence,
            });
        }
        Ok(message)
    }
}
