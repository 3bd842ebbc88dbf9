//! The engine of a CUDA device: flat vectors, weights and activations lie there, and values come to the host only where
//! the contract says so.

mod memory;
mod pass;

use super::{
    Engine, Environment, Failure, Fence, GradientStore, NotFinite, ParameterStore, Scores,
    SegmentState, Update,
    trainer::{check, run_with},
};
use crate::collective::{CudaTransport, MeshTransport, NoNccl, Peers};
use polestar_core::{Rank, digest};
use polestar_kernels::cuda::{Class, CudaError, Device, DeviceVec, Event};
use polestar_model::{
    HeadKind, ModelLayout, PackInput,
    cuda::{CudaModel, PreparedPack, Scored, SegmentWeights, Unsupported},
};
use polestar_run::{
    Outcome, Trial,
    placement::{Reduction, Sharding},
};
use std::{ops::Range, sync::Arc};

/// Why a trial can't be trained on this machine's device.
#[derive(Debug, thiserror::Error)]
pub enum CudaEngineError {
    /// The device can't be opened.
    #[error(transparent)]
    Device(#[from] CudaError),
    /// The kernels can't compute this model.
    #[error(transparent)]
    Model(#[from] Unsupported),
}

/// A model on a CUDA device.
#[derive(Debug)]
pub struct CudaEngine {
    device: Device,
    model: CudaModel,
    recompute: bool,
    numerics: String,
}

impl CudaEngine {
    /// A trial's model on this rank's device, with memory for all that the rank will hold.
    ///
    /// # Errors
    /// [`CudaEngineError`]: no device, no library, no room, or a model that the kernels can't compute.
    pub fn open(
        trial: &Trial,
        sharding: Sharding,
        ordinal: usize,
    ) -> Result<CudaEngine, CudaEngineError> {
        let head = HeadKind::of(trial.recipe.objective);
        let layout = ModelLayout::new(&trial.recipe.model, head);
        CudaModel::check(&layout)?;
        let budget = memory::budget(trial, &layout, sharding);
        let device = CudaModel::open(ordinal, &budget)?;
        tracing::info!(
            device = device.name(),
            vectors = budget.vectors,
            weights = budget.weights,
            activations = budget.activations,
            "memory of the CUDA device is taken, in bytes"
        );
        let model = CudaModel::new(layout, &device);
        let tokens = trial.recipe.batch.pack_tokens as usize;
        Ok(CudaEngine {
            numerics: model.numerics(tokens)?,
            model,
            device,
            recompute: trial.execution.recompute,
        })
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Says that bits depend on what adds up between ranks, too.
    fn adds_by(&mut self, what: &str) {
        self.numerics += &format!("; sums between ranks by {what}");
    }

    /// A segment's weights with this rank's shard of them, where others' are to be received.
    pub(crate) fn sharded_weights(
        &self,
        segment: usize,
        own: &DeviceVec<f32>,
        owned: Range<usize>,
    ) -> SegmentWeights {
        self.model.sharded_weights(segment, own.view(), owned)
    }

    fn vector(&self, elements: usize) -> DeviceVec<f32> {
        self.device.alloc(Class::Vectors, elements)
    }
}

/// Trains a trial on this rank's CUDA device, as [`super::run`] does on the CPU.
///
/// # Errors
/// As [`super::run`]; [`Failure::Config`] where there is no device for it.
pub(super) fn run(trial: &Trial, env: Environment<MeshTransport>) -> Result<Outcome, Failure> {
    let (rank, world) = (env.collective.rank(), env.collective.world());
    check(trial, world)?;
    let sharding = Sharding {
        zero: trial.execution.zero,
        world,
        rank,
    };
    let ordinal = place_on_host(&env.collective.hosts(), rank);
    let engine = CudaEngine::open(trial, sharding, ordinal);
    let mut engine =
        engine.map_err(|error| Failure::Config(polestar_core::chain::chain(&error)))?;
    let setting = trial.execution.transport;
    let env = env.over(|mesh| CudaTransport::connect(mesh, setting, engine.device()));
    let env = env.map_err(|error| match error {
        NoNccl::Collective(error) => Failure::Collective(error),
        refused => Failure::Config(refused.to_string()),
    })?;
    if trial.recipe.arithmetic.order.reduction() == Reduction::Fast
        && let Some(nccl) = env.collective.nccl()
    {
        engine.adds_by(&nccl);
    }
    run_with(trial, env, engine)
}

/// A rank's number among those on its host: which of the host's devices is its own. More ranks than devices share them.
fn place_on_host(hosts: &[usize], rank: Rank) -> usize {
    let me = rank.0 as usize;
    let lower = hosts.iter().take(me);
    let place = lower.filter(|&host| Some(host) == hosts.get(me)).count();
    place % Device::count().max(1)
}

/// A point in a device's work.
impl Fence for Event {
    fn wait(self) {
        self.synchronize();
    }
}

impl Engine for CudaEngine {
    type Flat = DeviceVec<f32>;
    type Weights = Arc<SegmentWeights>;
    type Pack = PreparedPack;
    type Scored = Scored;
    type Fence = Event;

    fn layout(&self) -> &ModelLayout {
        self.model.layout()
    }

    fn numerics(&self) -> Option<String> {
        Some(self.numerics.clone())
    }

    fn upload(&self, pack: PackInput) -> PreparedPack {
        self.model.prepare(pack)
    }

    fn zeros(&self, elements: usize) -> DeviceVec<f32> {
        let vector = self.vector(elements);
        self.device.zero(vector.view());
        vector
    }

    fn flat(&self, values: Vec<f32>) -> DeviceVec<f32> {
        let vector = self.vector(values.len());
        self.device.write(&values, vector.view());
        vector
    }

    fn copy(&self, vector: &DeviceVec<f32>) -> DeviceVec<f32> {
        let copy = self.vector(vector.len());
        self.device.copy(vector.view(), copy.view());
        copy
    }

    fn read(&self, vector: &DeviceVec<f32>, range: Range<usize>, into: &mut [f32]) {
        self.device.read(vector.view().slice(range), into, None);
    }

    fn weights(&self, segment: usize, master: &DeviceVec<f32>) -> Arc<SegmentWeights> {
        Arc::new(self.model.weights(segment, master.view()))
    }

    fn train<S: GradientStore<Self>>(
        &self,
        packs: &[PreparedPack],
        scale: f32,
        store: &mut S,
    ) -> Result<Scored, S::Error> {
        self.forward_and_backward(packs, scale, store)
    }

    fn score<S: ParameterStore<Self>>(
        &self,
        packs: &[PreparedPack],
        store: &mut S,
    ) -> Result<Scored, S::Error> {
        self.forward_only(packs, store)
    }

    fn scores(&self, scored: Scored) -> Result<Vec<Scores>, NotFinite> {
        let packs = scored.read();
        let scores: Vec<Scores> = packs
            .into_iter()
            .map(|pack| Scores {
                losses: pack.losses,
                margins: pack.margins,
                rewards: pack.rewards,
            })
            .collect();
        let losses = scores.iter().flat_map(|scores| &scores.losses);
        match losses.copied().all(f32::is_finite) {
            true => Ok(scores),
            false => Err(NotFinite {
                what: "the loss",
                segment: "head".to_owned(),
            }),
        }
    }

    fn add(&self, sum: &mut DeviceVec<f32>, other: &DeviceVec<f32>) {
        self.device.add(sum.view(), other.view());
    }

    fn block_sums(&self, vector: &DeviceVec<f32>) -> Vec<f64> {
        self.model.block_sums(vector.view())
    }

    fn checksum(&self, vector: &DeviceVec<f32>) -> u64 {
        let mut values = vec![0.0; vector.len()];
        self.device.read(vector.view(), &mut values, None);
        digest::checksum(&values)
    }

    fn adamw(
        &self,
        state: &mut SegmentState<DeviceVec<f32>>,
        gradient: &DeviceVec<f32>,
        update: &Update,
    ) {
        let SegmentState {
            master,
            exp_avg,
            exp_avg_sq,
        } = state;
        let vectors = [master, exp_avg, exp_avg_sq].map(|vector| vector.view());
        let Update {
            adamw,
            number,
            scale,
        } = update;
        self.device
            .adamw(vectors, gradient.view(), adamw, *number, *scale);
    }

    fn fence(&self) -> Event {
        self.device.computed()
    }
}
