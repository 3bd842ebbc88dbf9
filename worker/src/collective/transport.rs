//! The transport over a mesh of connections and shared memory, for engines whose vectors lie in host
//! memory.

use super::{
    Aborter, CollectiveError, LaneSum, Mesh, Neighbours, Partials, Passed, Peers, Pending,
    Transport, background::Background, operation::Core,
};
use crate::{
    engine::{Engine, Fence},
    host::HostBuffer,
};
use polestar_core::{Rank, Step, WorldSize, tree::add_into};
use std::{
    fmt,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// The collectives of one generation on one rank.
///
/// Where each rank has one vector and one sum comes out, it comes out where the vector was, and can be
/// gathered there: nothing is copied but what comes from other ranks.
pub struct MeshTransport {
    rank: Rank,
    world: WorldSize,
    hosts: Vec<usize>,
    step: Arc<AtomicU64>,
    sent: Arc<[AtomicU64; 2]>,
    aborter: Aborter,
    background: Background,
}

impl fmt::Debug for MeshTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshTransport")
            .field("rank", &self.rank)
            .field("world", &self.world)
            .finish_non_exhaustive()
    }
}

impl MeshTransport {
    /// A world of one: nothing is ever sent.
    pub fn alone() -> MeshTransport {
        MeshTransport::new(Mesh::alone(), Duration::MAX)
    }

    /// Collectives over a mesh. An operation in which nothing moves for longer than `deadline` fails.
    pub fn new(mesh: Mesh, deadline: Duration) -> MeshTransport {
        let core = Core::new(mesh, deadline);
        MeshTransport {
            rank: core.rank(),
            world: core.world(),
            hosts: core.hosts(),
            step: core.step(),
            sent: core.sent(),
            aborter: core.aborter(),
            background: Background::new(core.rank(), core),
        }
    }

    fn is_alone(&self) -> bool {
        self.world.0 == 1
    }

    #[cfg(any(test, feature = "cuda"))]
    pub(super) fn background(&mut self) -> &mut Background {
        &mut self.background
    }
}

impl Peers for MeshTransport {
    fn rank(&self) -> Rank {
        self.rank
    }

    fn world(&self) -> WorldSize {
        self.world
    }

    fn exchange(&mut self, local: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        self.background.now().exchange(local)
    }

    fn gather(
        &mut self,
        root: Rank,
        local: &[u8],
    ) -> Result<Option<Vec<Vec<u8>>>, CollectiveError> {
        self.background.now().gather(root, local)
    }

    fn broadcast(&mut self, root: Rank, local: &[u8]) -> Result<Vec<u8>, CollectiveError> {
        self.background.now().broadcast(root, local)
    }

    fn all_to_all(&mut self, to: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        self.background.now().all_to_all(to)
    }

    fn hosts(&self) -> Vec<usize> {
        self.hosts.clone()
    }

    fn sent(&self) -> [u64; 2] {
        [0, 1].map(|place| self.sent[place].load(Ordering::Relaxed))
    }

    fn at_step(&mut self, step: Step) {
        self.step.store(step.0, Ordering::Relaxed);
    }

    fn aborter(&self) -> Aborter {
        self.aborter.clone()
    }
}

impl<E: Engine<Flat = HostBuffer>> Transport<E> for MeshTransport {
    fn canonical_sum(
        &mut self,
        engine: &E,
        sum: LaneSum,
        local: Vec<HostBuffer>,
    ) -> Pending<Partials<HostBuffer>> {
        if self.is_alone() {
            let nodes = sum.partials.iter().map(|(_, node)| *node);
            return Pending::ready(engine.merge(nodes.zip(local)));
        }
        let fence = engine.fence();
        self.background.start(move |core| {
            fence.wait();
            core.sum(&sum, local)
        })
    }

    fn fast_sum(
        &mut self,
        engine: &E,
        sum: LaneSum,
        local: Vec<HostBuffer>,
    ) -> Pending<HostBuffer> {
        let fence = engine.fence();
        let alone = self.is_alone();
        let add = |mut left: HostBuffer, right: HostBuffer| {
            add_into(&mut left, &right);
            left
        };
        let total = move |vectors: Vec<HostBuffer>| {
            let total = vectors.into_iter().reduce(add);
            total.expect("a sum has a part")
        };
        if alone {
            return Pending::ready(total(local));
        }
        // The tree over ranks is as fast as any order here: each byte goes once, to whom it is for.
        self.background.start(move |core| {
            fence.wait();
            let partials = core.sum(&sum, local)?;
            Ok(total(partials.into_iter().map(|(_, sum)| sum).collect()))
        })
    }

    fn all_gather(
        &mut self,
        engine: &E,
        shards: Vec<Range<usize>>,
        own: HostBuffer,
    ) -> Pending<HostBuffer> {
        if self.is_alone() {
            return Pending::ready(own);
        }
        let (fence, me) = (engine.fence(), self.rank.0 as usize);
        self.background.start(move |core| {
            fence.wait();
            let elements = shards.last().map_or(0, |shard| shard.end);
            let mut whole = own.into_whole(elements, shards[me].clone());
            core.all_gather(&shards, &mut whole)?;
            Ok(whole.into())
        })
    }

    fn pass_on(
        &mut self,
        engine: &E,
        neighbours: Neighbours,
        own: HostBuffer,
        elements: usize,
    ) -> Pending<Passed<HostBuffer>> {
        let fence = engine.fence();
        self.background.start(move |core| {
            fence.wait();
            let received = core.pass_on(neighbours, &own, elements)?.into();
            Ok(Passed { own, received })
        })
    }
}

impl Drop for MeshTransport {
    fn drop(&mut self) {
        // Nobody wants what is still under way, and it may be waiting for a peer.
        if self.background.is_busy() {
            self.aborter.abort();
        }
        self.background.join();
        let [here, away] = self.sent();
        tracing::debug!(
            rank = self.rank.0,
            here,
            away,
            "bytes sent to ranks on this host and on others"
        );
    }
}
