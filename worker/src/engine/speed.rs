//! How fast this machine trains: steps of a model on made-up triplets, timed.

use super::{
    BurnEngine, LaneInput, MadeUp, OptimizerStep, SegmentState, StepError, StepPlan, Stepper,
};
use crate::{
    collective::{CollectiveError, Locality, MeshError, MeshTransport, local_world},
    device::{NoBackend, device},
};
use polestar_core::{Lane, Precision, Rank, WorldSize};
use polestar_kernels::adamw::AdamW;
use polestar_model::{HeadKind, ModelConfig, ModelLayout, count, init::initial_segment};
use polestar_run::{
    config::Backend,
    placement::{Reduction, Sharding, Zero},
};
use std::time::{Duration, Instant};

/// Why it can't be told.
#[derive(Debug, thiserror::Error)]
pub enum SpeedError {
    /// The backend isn't in this build.
    #[error(transparent)]
    Device(#[from] NoBackend),
    /// The threads can't be had.
    #[error("threads can't be started")]
    Threads(#[from] rayon::ThreadPoolBuildError),
    /// A world of one rank can't be made.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// A step failed.
    #[error(transparent)]
    Step(#[from] StepError),
    /// There is nobody to talk to, and still it failed.
    #[error(transparent)]
    Collective(#[from] CollectiveError),
}

/// What is timed.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The model.
    pub model: ModelConfig,
    /// How operands of products are rounded.
    pub precision: Precision,
    /// Threads that compute.
    pub threads: usize,
    /// How long to go on: at least two steps, after one that isn't counted.
    pub patience: Duration,
}

/// Triplets of a step.
const TRIPLETS: u32 = 8;
/// Tokens of the prefix that the two candidates of a triplet share: twice a prompt, and a reference.
const PREFIX: u32 = 130;
/// Tokens of a candidate.
const CANDIDATE: u32 = 65;

impl Probe {
    /// FLOPs a second, convention `executed`, of the fastest step. To be called where a thread may block.
    ///
    /// # Errors
    /// [`SpeedError`], for a machine or build that can't train at all.
    pub fn flops_per_second(&self, runtime: &tokio::runtime::Handle) -> Result<f64, SpeedError> {
        let world = local_world(&[Locality::Machine], self.patience);
        let alone = runtime.block_on(world)?.pop();
        let alone = alone.expect("a world of one has one");
        let mut transport = MeshTransport::new(alone, self.patience);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.threads);
        let seconds = pool
            .build()?
            .install(|| self.fastest_step(&mut transport))?;
        Ok(self.flops() / seconds)
    }

    fn flops(&self) -> f64 {
        let seen = |tokens: u64| tokens * (tokens + 1) / 2;
        let (prefix, candidate) = (u64::from(PREFIX), u64::from(CANDIDATE));
        let tokens = prefix + 2 * candidate;
        let pairs = seen(prefix) + 2 * (seen(candidate) + candidate * prefix);
        let triplets = u64::from(TRIPLETS);
        count::flops_executed(&self.model, triplets * tokens, triplets * pairs)
    }

    fn fastest_step(&self, transport: &mut MeshTransport) -> Result<f64, SpeedError> {
        let layout = ModelLayout::new(&self.model, HeadKind::Reward);
        let plan = StepPlan {
            sharding: Sharding {
                zero: Zero::None,
                world: WorldSize(1),
                rank: Rank(0),
            },
            lanes: 1,
            reduction: Reduction::Canonical,
        };
        let device = device(Backend::Flex)?;
        let engine = BurnEngine::new(layout.clone(), &device, false, self.precision);
        let mut stepper = Stepper::new(engine, plan);
        for (i, segment) in layout.segments.iter().enumerate() {
            let mut weights = vec![0.0; segment.elements];
            initial_segment(segment, 1, &mut weights);
            stepper.set_shard(i, SegmentState::fresh(weights[stepper.owned(i)].to_vec()));
        }
        stepper.replicate(transport)?;
        stepper.materialize(transport);
        let made_up = MadeUp {
            triplets: TRIPLETS,
            prefix: PREFIX,
            candidate: CANDIDATE,
            vocabulary: self.model.vocab_size,
            seed: 0,
        };
        let lanes = [LaneInput {
            lane: Lane(0),
            packs: vec![made_up.row()],
        }];
        let (begun, mut fastest, mut number) = (Instant::now(), f64::INFINITY, 0);
        while number < 3 || begun.elapsed() < self.patience {
            number += 1;
            let optimizer = OptimizerStep {
                adamw: AdamW {
                    lr: 1e-4,
                    beta1: 0.9,
                    beta2: 0.95,
                    eps: 1e-8,
                    weight_decay: 0.0,
                },
                number,
                clip: 1.0,
            };
            let step = Instant::now();
            stepper.step(transport, &lanes, 1.0 / TRIPLETS as f32, &optimizer)?;
            if number > 1 {
                fastest = fastest.min(step.elapsed().as_secs_f64());
            }
        }
        Ok(fastest)
    }
}
