//! Vectors from one CUDA device to another's by NCCL, and through host memory where it can't be had.
//!
//! NCCL moves bytes; what they are added up to is the device's own [`merge_received`](Device::merge_received), by the lanes' tree.
//! Only a sum in whatever order is fastest is NCCL's own. Control data stays with the mesh, whose connections also tell
//! that a rank is gone: NCCL may not notice.
//! ```text
//! CudaTransport ── in order, one at a time ──▶ Nccl ──▶ Communicator ──▶ the device's communication stream
//! ```
//! An operation begins where the computing that it needs was given out, and its end is waited for on the host: the device
//! never waits for other ranks but on that stream, so that nothing else hangs with them.

mod choice;
mod rounds;
mod run;

use super::{
    CollectiveError, Gathered, LaneSum, MeshTransport, Neighbours, Partials, Passed, Peers,
    Pending, Staged, Transport,
    merge::left_over,
    operation::{ALL_GATHER, CONNECT, PASS_ON, SUM},
    over_mesh::OverMesh,
    plan::Topology,
};
use crate::engine::{CudaEngine, Engine};
use choice::{Choice, Offer, choose};
use polestar_core::Rank;
use polestar_kernels::cuda::{
    Class, Device, DeviceVec, Span,
    nccl::{self, Communicator, UniqueId},
};
use polestar_run::config::DeviceTransport;
use run::Nccl;
use std::{fmt, ops::Range, sync::Arc};

/// Why ranks can't move vectors as they were asked to.
#[derive(Debug, thiserror::Error)]
pub enum NoNccl {
    /// It can't be had here.
    #[error(
        "vectors can't go between GPUs by NCCL: {0}; with train.transport = \"staged\" they go through host memory"
    )]
    Refused(String),
    /// A rank was lost.
    #[error(transparent)]
    Collective(#[from] CollectiveError),
}

/// The collectives of one generation on one rank with a CUDA device.
pub struct CudaTransport {
    staged: Staged,
    nccl: Option<Arc<Nccl>>,
    means: Option<String>,
}

impl fmt::Debug for CudaTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CudaTransport")
            .field("means", &self.means)
            .finish_non_exhaustive()
    }
}

impl CudaTransport {
    /// Agrees with the other ranks on how vectors go, and connects to them. All ranks call it.
    ///
    /// # Errors
    /// [`NoNccl`], the same on every rank, or when one is lost.
    pub fn connect(
        mut mesh: MeshTransport,
        setting: DeviceTransport,
        device: &Device,
    ) -> Result<CudaTransport, NoNccl> {
        if mesh.world().0 == 1 {
            return Ok(CudaTransport {
                staged: Staged::new(mesh),
                nccl: None,
                means: None,
            });
        }
        let (nccl, means) = match agree(&mut mesh, setting, device)? {
            Choice::Staged(why) => (None, format!("host memory: {why}")),
            Choice::Nccl(version) => {
                let means = format!("NCCL {version}");
                let nccl = Nccl::connect(&mut mesh, device, version)?;
                (Some(Arc::new(nccl)), means)
            }
        };
        tracing::info!(rank = mesh.rank().0, means, "how vectors go between GPUs");
        Ok(CudaTransport {
            staged: Staged::new(mesh),
            nccl,
            means: Some(means),
        })
    }

    /// Which NCCL it moves vectors by, if it does.
    pub fn nccl(&self) -> Option<String> {
        let nccl = self.nccl.as_ref()?;
        Some(format!("NCCL {}", nccl.version))
    }

    fn me(&self) -> usize {
        self.staged.rank().0 as usize
    }
}

/// What all ranks do.
fn agree(
    mesh: &mut MeshTransport,
    setting: DeviceTransport,
    device: &Device,
) -> Result<Choice, NoNccl> {
    let version = nccl::version();
    let offer = Offer {
        nccl: version
            .map(|version| version.to_string())
            .map_err(|error| error.to_string()),
        device: device.uuid().to_owned(),
        sealed: mesh.background().now().mesh().is_sealed(),
    };
    let offer = serde_json::to_vec(&offer).expect("text serializes");
    let offers = mesh.exchange(&offer)?;
    let offers: Result<Vec<Offer>, _> = offers.iter().map(|o| serde_json::from_slice(o)).collect();
    let offers = offers.map_err(|error| {
        NoNccl::Refused(format!(
            "a rank of another build offers what is no offer: {error}"
        ))
    })?;
    choose(setting, &offers).map_err(NoNccl::Refused)
}

impl Nccl {
    /// Connects this rank; all do. Rank 0 makes what they find each other by.
    fn connect(mesh: &mut MeshTransport, device: &Device, version: String) -> Result<Nccl, NoNccl> {
        let (rank, world) = (mesh.rank(), mesh.world());
        let made = (rank == Rank(0)).then(UniqueId::new);
        let bytes = match &made {
            Some(Ok(id)) => id.to_bytes(),
            // The others are told by its being none.
            Some(Err(_)) | None => Vec::new(),
        };
        let id = mesh.broadcast(Rank(0), &bytes)?;
        if let Some(Err(error)) = made {
            return Err(NoNccl::Refused(error.to_string()));
        }
        let refused = || NoNccl::Refused("rank 0's NCCL can't begin a communicator".to_owned());
        let id = UniqueId::from_bytes(&id).ok_or_else(refused)?;
        let aborter = mesh.aborter();
        let mut core = mesh.background().now();
        let communicator = core.watched(CONNECT, 0, |watch| {
            let communicator = Communicator::begin(device, id, rank.0, world.0)?;
            let communicator = Arc::new(communicator);
            let end = Arc::downgrade(&communicator);
            aborter.also(move || {
                if let Some(communicator) = end.upgrade() {
                    communicator.abort();
                }
            });
            watch.until(|| Ok(communicator.progress()?))?;
            Ok(communicator)
        })?;
        drop(core);
        let me = rank.0 as usize;
        let topology = Topology::new(me, &mesh.hosts());
        let elements = device.capacity(Class::Staging) / size_of::<f32>();
        Ok(Nccl {
            communicator,
            me,
            delegated: topology.most_delegated(),
            topology,
            staging: device.alloc(Class::Staging, elements),
            device: device.clone(),
            version,
        })
    }
}

impl OverMesh for CudaTransport {
    fn mesh(&self) -> &MeshTransport {
        self.staged.mesh()
    }

    fn mesh_mut(&mut self) -> &mut MeshTransport {
        self.staged.mesh_mut()
    }

    fn means(&self) -> Option<String> {
        self.means.clone()
    }
}

// Memory that an operation writes is taken before the point is recorded at which it begins: whatever was computed in the
// same memory before is then done with it.
impl Transport<CudaEngine> for CudaTransport {
    fn canonical_sum(
        &mut self,
        engine: &CudaEngine,
        sum: LaneSum,
        local: Vec<DeviceVec<f32>>,
    ) -> Pending<Partials<DeviceVec<f32>>> {
        let Some(nccl) = self.nccl.clone() else {
            return self.staged.canonical_sum(engine, sum, local);
        };
        let device = engine.device();
        let shard = sum.shards[self.me()].len();
        let nodes = left_over(&sum.partials);
        let sums = nodes.iter().map(|_| device.alloc(Class::Vectors, shard));
        let sums: Vec<DeviceVec<f32>> = sums.collect();
        let complete = device.computed();
        self.staged.mesh_mut().background().start(move |core| {
            let what = (SUM, bytes(&sum.shards));
            let buffers = nccl.run(core, what, (local, sums), |nccl, watch, (local, sums)| {
                nccl.sum(watch, &complete, &sum, [local, sums])
            });
            let (_, sums) = buffers?;
            Ok(nodes.into_iter().zip(sums).collect())
        })
    }

    fn fast_sum(
        &mut self,
        engine: &CudaEngine,
        sum: LaneSum,
        local: Vec<DeviceVec<f32>>,
    ) -> Pending<DeviceVec<f32>> {
        let Some(nccl) = self.nccl.clone() else {
            return self.staged.fast_sum(engine, sum, local);
        };
        let device = engine.device();
        let own = local.into_iter().reduce(|mut left, right| {
            engine.add(&mut left, &right);
            left
        });
        // Whoever has nothing to add takes part all the same.
        let own = own.unwrap_or_else(|| engine.zeros(elements(&sum.shards)));
        let out = device.alloc(Class::Vectors, sum.shards[self.me()].len());
        let complete = device.computed();
        self.staged.mesh_mut().background().start(move |core| {
            let what = (SUM, bytes(&sum.shards));
            let buffers = nccl.run(core, what, (own, out), |nccl, watch, (own, out)| {
                nccl.fast_sum(watch, &complete, &sum.shards, [own, out])
            });
            Ok(buffers?.1)
        })
    }

    fn all_gather(
        &mut self,
        engine: &CudaEngine,
        shards: Vec<Range<usize>>,
        own: DeviceVec<f32>,
    ) -> Pending<DeviceVec<f32>> {
        let Some(nccl) = self.nccl.clone() else {
            return self.staged.all_gather(engine, shards, own);
        };
        let device = engine.device();
        let whole: DeviceVec<f32> = device.alloc(Class::Vectors, elements(&shards));
        let place = whole.view().slice(shards[self.me()].clone());
        device.copy(own.view(), place);
        let complete = device.computed();
        self.staged.mesh_mut().background().start(move |core| {
            let part = |shard: &Range<usize>| vec![whole.view().slice(shard.clone()).span()];
            let spans: Vec<Vec<Span>> = shards.iter().map(part).collect();
            let what = (ALL_GATHER, bytes(&shards));
            nccl.run(core, what, whole, |nccl, watch, _| {
                nccl.gather(watch, &complete, &spans)
            })
        })
    }

    fn gather_weights(
        &mut self,
        engine: &CudaEngine,
        segment: usize,
        shards: Vec<Range<usize>>,
        own: &DeviceVec<f32>,
    ) -> Pending<Gathered<CudaEngine>> {
        let Some(nccl) = self.nccl.clone() else {
            return self.staged.gather_weights(engine, segment, shards, own);
        };
        // Rounded by their owner: half the bytes, and the same bits.
        let weights = engine.sharded_weights(segment, own, shards[self.me()].clone());
        let complete = engine.device().computed();
        self.staged.mesh_mut().background().start(move |core| {
            let spans = shards.iter().map(|shard| weights.spans(shard.clone()));
            let spans: Vec<Vec<Span>> = spans.collect();
            let moved = spans.iter().flatten().map(Span::bytes).sum();
            let what = (ALL_GATHER, moved);
            let weights = nccl.run(core, what, weights, |nccl, watch, _| {
                nccl.gather(watch, &complete, &spans)
            });
            Ok(Gathered::Weights(Arc::new(weights?)))
        })
    }

    fn pass_on(
        &mut self,
        engine: &CudaEngine,
        neighbours: Neighbours,
        own: DeviceVec<f32>,
        elements: usize,
    ) -> Pending<Passed<DeviceVec<f32>>> {
        let Some(nccl) = self.nccl.clone() else {
            return self.staged.pass_on(engine, neighbours, own, elements);
        };
        let received = engine.device().alloc(Class::Vectors, elements);
        let complete = engine.device().computed();
        self.staged.mesh_mut().background().start(move |core| {
            let what = (PASS_ON, own.view().bytes());
            let buffers = nccl.run(core, what, (own, received), |nccl, watch, buffers| {
                let (own, received) = buffers;
                nccl.pass_on(watch, &complete, neighbours, [own, received])
            });
            let (own, received) = buffers?;
            Ok(Passed { own, received })
        })
    }
}

fn elements(shards: &[Range<usize>]) -> usize {
    shards.last().map_or(0, |shard| shard.end)
}

fn bytes(shards: &[Range<usize>]) -> usize {
    size_of::<f32>() * elements(shards)
}
