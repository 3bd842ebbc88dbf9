//! Collectives between the ranks of one generation.
//!
//! The engine says what it means: [`Transport`] for vectors, [`Peers`] for control data. How they get
//! there is the transport's business:
//! ```text
//! MeshTransport ── in order, one at a time ──▶ Exchange ──▶ Link ──▶ connection, or shared memory
//! ```
//! An operation has a sequence number, the same on every rank and checked on arrival; a deadline; and
//! a place in the flight record that an error carries. It runs on the thread that calls it, or, if it
//! was *started*, on a thread of its own, behind those that were started before it.

mod background;
mod error;
mod exchange;
mod greet;
mod handshake;
mod link;
mod local;
mod merge;
mod mesh;
#[cfg(feature = "cuda")]
mod nccl;
mod operation;
#[cfg(feature = "cuda")]
mod over_mesh;
mod plan;
mod ring;
mod sealed;
mod shared;
#[cfg(feature = "cuda")]
mod staged;
#[cfg(test)]
mod tests;
mod transport;
#[cfg(feature = "cuda")]
mod watch;

pub use error::{Cause, CollectiveError, FlightRecord, LinkError, Operation};
pub use handshake::{HandshakeError, Secret};
pub use local::local_world;
pub use mesh::{Aborter, Join, Locality, Mesh, MeshError, listen};
#[cfg(feature = "cuda")]
pub use nccl::{CudaTransport, NoNccl};
#[cfg(feature = "cuda")]
pub use staged::Staged;
pub use transport::MeshTransport;

use crate::engine::Engine;
use polestar_core::{Rank, Step, WorldSize, tree::Subtree};
use std::{fmt, ops::Range};

/// Partial sums, each with the subtree of lanes that it is the sum of, in lane order.
pub type Partials<F> = Vec<(Subtree, F)>;

/// A sum over ranks, as every rank describes it.
#[derive(Clone, Debug)]
pub struct LaneSum {
    /// All partial sums that there are, in lane order, and who holds them.
    pub partials: Vec<(Rank, Subtree)>,
    /// The elements that each rank gets of the sum. They cover the vector in order.
    pub shards: Vec<Range<usize>>,
    /// Whether the ranks [gather](Transport::all_gather) the sum afterwards: it is then worth to keep
    /// room for the whole.
    pub gathered_next: bool,
}

/// Who a rank gives a vector to, and whose it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbours {
    /// Takes this rank's.
    pub to: Rank,
    /// Gives this rank its own.
    pub from: Rank,
}

/// What became of a vector that was [passed on](Transport::pass_on).
#[derive(Clone, Debug)]
pub struct Passed<F> {
    /// It, as it was.
    pub own: F,
    /// What came instead.
    pub received: F,
}

/// The weights of a segment, gathered from their owners.
#[derive(Debug)]
pub enum Gathered<E: Engine> {
    /// As the optimizer has them, to be made into what passes read.
    Master(E::Flat),
    /// As passes read them.
    Weights(E::Weights),
}

/// The other ranks of a generation, and the control data that goes to and from them. All ranks call
/// the same operations in the same order.
pub trait Peers: Send {
    /// This rank.
    fn rank(&self) -> Rank;

    /// Ranks in the world.
    fn world(&self) -> WorldSize;

    /// Every rank's bytes, by rank, on every rank. Sizes may differ.
    ///
    /// # Errors
    /// [`CollectiveError`] when a rank is lost, late or out of step.
    fn exchange(&mut self, local: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError>;

    /// Every rank's bytes, by rank, on rank `root`; nothing is sent to the others. Sizes may differ.
    ///
    /// # Errors
    /// [`CollectiveError`] when a rank is lost, late or out of step.
    fn gather(&mut self, root: Rank, local: &[u8])
    -> Result<Option<Vec<Vec<u8>>>, CollectiveError>;

    /// The bytes of rank `root`, on every rank. The others' are not looked at.
    ///
    /// # Errors
    /// [`CollectiveError`] when a rank is lost, late or out of step.
    fn broadcast(&mut self, root: Rank, local: &[u8]) -> Result<Vec<u8>, CollectiveError>;

    /// Some bytes for each rank, by rank; returns those that came from each. Sizes may differ.
    ///
    /// # Errors
    /// [`CollectiveError`] when a rank is lost, late or out of step.
    ///
    /// # Panics
    /// When there are not as many as ranks.
    fn all_to_all(&mut self, to: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, CollectiveError>;

    /// The host of each rank, as a number, by rank.
    fn hosts(&self) -> Vec<usize>;

    /// From now on this step is under way: for the flight record.
    fn at_step(&mut self, step: Step);

    /// Returns when every rank has called it.
    ///
    /// # Errors
    /// [`CollectiveError`] when a rank is lost, late or out of step.
    fn barrier(&mut self) -> Result<(), CollectiveError> {
        self.exchange(&[]).map(drop)
    }

    /// Bytes sent so far to ranks on this host, and on others: for those who watch.
    fn sent(&self) -> [u64; 2] {
        [0; 2]
    }

    /// Ends all operations, from any thread.
    fn aborter(&self) -> Aborter;

    /// How vectors go between devices, where there was a choice: a few words for a record.
    fn means(&self) -> Option<String> {
        None
    }
}

/// Moves an engine's vectors between ranks: started at once, in the order of the calls, behind what the
/// engine computes meanwhile.
pub trait Transport<E: Engine>: Peers {
    /// Adds up partial sums, left + right wherever both siblings of the lanes' tree exist, and gives
    /// each rank its shard of what is left. `local` are this rank's partial sums, in lane order.
    ///
    /// The bits are those of [`Engine::merge`] over all partial sums on one rank.
    fn canonical_sum(
        &mut self,
        engine: &E,
        sum: LaneSum,
        local: Vec<E::Flat>,
    ) -> Pending<Partials<E::Flat>>;

    /// Adds up partial sums in whatever order is fastest, and gives each rank its shard.
    fn fast_sum(&mut self, engine: &E, sum: LaneSum, local: Vec<E::Flat>) -> Pending<E::Flat>;

    /// Every rank's shard, put together.
    fn all_gather(
        &mut self,
        engine: &E,
        shards: Vec<Range<usize>>,
        own: E::Flat,
    ) -> Pending<E::Flat>;

    /// Every rank's shard of a segment's weights, put together for passes. `own` may be changed as soon as this returns.
    fn gather_weights(
        &mut self,
        engine: &E,
        segment: usize,
        shards: Vec<Range<usize>>,
        own: &E::Flat,
    ) -> Pending<Gathered<E>> {
        let _ = segment;
        let own = engine.copy(own);
        self.all_gather(engine, shards, own).map(Gathered::Master)
    }

    /// Gives a copy of a vector to one rank and takes one of `elements` from another. All ranks call it; who
    /// gives to whom is a permutation without fixed points.
    fn pass_on(
        &mut self,
        engine: &E,
        neighbours: Neighbours,
        own: E::Flat,
        elements: usize,
    ) -> Pending<Passed<E::Flat>>;
}

/// An operation that was started.
#[must_use = "an operation that nobody waits for may still fail"]
pub struct Pending<T>(State<T>);

enum State<T> {
    Ready(T),
    Running(Box<dyn FnOnce() -> Result<T, CollectiveError> + Send>),
}

impl<T> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            State::Ready(_) => "Pending(ready)",
            State::Running(_) => "Pending(running)",
        })
    }
}

impl<T> Pending<T> {
    /// What needs no operation.
    pub fn ready(value: T) -> Pending<T> {
        Pending(State::Ready(value))
    }

    /// An operation that `wait` waits for.
    pub fn running(wait: impl FnOnce() -> Result<T, CollectiveError> + Send + 'static) -> Self {
        Pending(State::Running(Box::new(wait)))
    }

    /// The same with what `change` makes of its value.
    fn map<U>(self, change: impl FnOnce(T) -> U + Send + 'static) -> Pending<U>
    where
        T: 'static,
    {
        match self.0 {
            State::Ready(value) => Pending::ready(change(value)),
            State::Running(wait) => Pending::running(move || wait().map(change)),
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// [`CollectiveError`] when a rank is lost, late or out of step.
    pub fn wait(self) -> Result<T, CollectiveError> {
        match self.0 {
            State::Ready(value) => Ok(value),
            State::Running(wait) => wait(),
        }
    }
}
