//! The mesh under an engine whose vectors lie on a CUDA device: they go through host memory.
//!
//! The device's part is done when the operation's turn comes, on the thread of the operations: it waits for the point at
//! which the vector was complete, and for nothing that was given out to be computed since. What comes back is brought to
//! the device by whoever waits for it.

use super::{
    LaneSum, MeshTransport, Neighbours, Partials, Passed, Peers, Pending, Transport,
    over_mesh::OverMesh,
};
use crate::{engine::CudaEngine, host::HostBuffer};
use polestar_core::tree::add_into;
use polestar_kernels::cuda::{Class, Device, DeviceVec, Event};
use std::ops::Range;

/// The collectives of one generation on one rank, through host memory.
#[derive(Debug)]
pub struct Staged {
    mesh: MeshTransport,
}

impl Staged {
    /// Over these connections.
    pub fn new(mesh: MeshTransport) -> Staged {
        Staged { mesh }
    }

    fn is_alone(&self) -> bool {
        self.mesh.world().0 == 1
    }
}

impl OverMesh for Staged {
    fn mesh(&self) -> &MeshTransport {
        &self.mesh
    }

    fn mesh_mut(&mut self) -> &mut MeshTransport {
        &mut self.mesh
    }
}

impl Transport<CudaEngine> for Staged {
    fn canonical_sum(
        &mut self,
        engine: &CudaEngine,
        sum: LaneSum,
        local: Vec<DeviceVec<f32>>,
    ) -> Pending<Partials<DeviceVec<f32>>> {
        use crate::engine::Engine;
        if self.is_alone() {
            let nodes = sum.partials.iter().map(|(_, node)| *node);
            return Pending::ready(engine.merge(nodes.zip(local)));
        }
        let (complete, device) = (engine.device().computed(), engine.device().clone());
        let summed = self.mesh.background().start(move |core| {
            let local = local.into_iter().map(|vector| to_host(vector, &complete));
            core.sum(&sum, local.collect())
        });
        Pending::running(move || {
            let partials = summed.wait()?.into_iter();
            Ok(partials
                .map(|(node, sum)| (node, to_device(&device, &sum)))
                .collect())
        })
    }

    fn fast_sum(
        &mut self,
        engine: &CudaEngine,
        sum: LaneSum,
        local: Vec<DeviceVec<f32>>,
    ) -> Pending<DeviceVec<f32>> {
        use crate::engine::Engine;
        if self.is_alone() {
            let add = |mut left: DeviceVec<f32>, right: DeviceVec<f32>| {
                engine.add(&mut left, &right);
                left
            };
            let total = local.into_iter().reduce(add);
            return Pending::ready(total.expect("a sum has a part"));
        }
        let (complete, device) = (engine.device().computed(), engine.device().clone());
        let summed = self.mesh.background().start(move |core| {
            let local = local.into_iter().map(|vector| to_host(vector, &complete));
            let partials = core.sum(&sum, local.collect())?;
            let add = |mut left: HostBuffer, right: HostBuffer| {
                add_into(&mut left, &right);
                left
            };
            let total = partials.into_iter().map(|(_, sum)| sum).reduce(add);
            Ok(total.expect("a sum has a part"))
        });
        Pending::running(move || Ok(to_device(&device, &summed.wait()?)))
    }

    fn all_gather(
        &mut self,
        engine: &CudaEngine,
        shards: Vec<Range<usize>>,
        own: DeviceVec<f32>,
    ) -> Pending<DeviceVec<f32>> {
        if self.is_alone() {
            return Pending::ready(own);
        }
        let (complete, device) = (engine.device().computed(), engine.device().clone());
        let me = self.rank().0 as usize;
        let gathered = self.mesh.background().start(move |core| {
            let elements = shards.last().map_or(0, |shard| shard.end);
            let own = to_host(own, &complete);
            let mut whole = own.into_whole(elements, shards[me].clone());
            core.all_gather(&shards, &mut whole)?;
            Ok(whole)
        });
        Pending::running(move || Ok(to_device(&device, &gathered.wait()?)))
    }

    fn pass_on(
        &mut self,
        engine: &CudaEngine,
        neighbours: Neighbours,
        own: DeviceVec<f32>,
        elements: usize,
    ) -> Pending<Passed<DeviceVec<f32>>> {
        let (complete, device) = (engine.device().computed(), engine.device().clone());
        let passed = self.mesh.background().start(move |core| {
            let mut values = vec![0.0; own.len()];
            device.read(own.view(), &mut values, Some(&complete));
            let received = core.pass_on(neighbours, &values, elements)?;
            Ok((own, received, device))
        });
        Pending::running(move || {
            let (own, received, device) = passed.wait()?;
            let received = to_device(&device, &received);
            Ok(Passed { own, received })
        })
    }
}

/// The values of a vector as they were when it was complete. Its memory is free afterwards.
fn to_host(vector: DeviceVec<f32>, complete: &Event) -> HostBuffer {
    let mut values = vec![0.0; vector.len()];
    let device = vector.device().clone();
    device.read(vector.view(), &mut values, Some(complete));
    values.into()
}

fn to_device(device: &Device, values: &[f32]) -> DeviceVec<f32> {
    let vector = device.alloc(Class::Vectors, values.len());
    device.write(values, vector.view());
    vector
}
