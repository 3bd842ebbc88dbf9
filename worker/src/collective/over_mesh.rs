//! Control data of transports that move only vectors by other ways: it goes over the mesh that they have beside those.

use super::{Aborter, CollectiveError, MeshTransport, Peers};
use polestar_core::{Rank, Step, WorldSize};

/// A transport that has a mesh for everything that isn't a vector.
pub(super) trait OverMesh: Send {
    /// The mesh.
    fn mesh(&self) -> &MeshTransport;

    /// The mesh, to send over.
    fn mesh_mut(&mut self) -> &mut MeshTransport;

    /// See [`Peers::means`].
    fn means(&self) -> Option<String> {
        None
    }
}

impl<T: OverMesh> Peers for T {
    fn rank(&self) -> Rank {
        self.mesh().rank()
    }

    fn world(&self) -> WorldSize {
        self.mesh().world()
    }

    fn exchange(&mut self, local: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        self.mesh_mut().exchange(local)
    }

    fn gather(
        &mut self,
        root: Rank,
        local: &[u8],
    ) -> Result<Option<Vec<Vec<u8>>>, CollectiveError> {
        self.mesh_mut().gather(root, local)
    }

    fn broadcast(&mut self, root: Rank, local: &[u8]) -> Result<Vec<u8>, CollectiveError> {
        self.mesh_mut().broadcast(root, local)
    }

    fn all_to_all(&mut self, to: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        self.mesh_mut().all_to_all(to)
    }

    fn hosts(&self) -> Vec<usize> {
        self.mesh().hosts()
    }

    fn at_step(&mut self, step: Step) {
        self.mesh_mut().at_step(step);
    }

    /// What goes by other ways is not among it.
    fn sent(&self) -> [u64; 2] {
        self.mesh().sent()
    }

    fn aborter(&self) -> Aborter {
        self.mesh().aborter()
    }

    fn means(&self) -> Option<String> {
        OverMesh::means(self)
    }
}
