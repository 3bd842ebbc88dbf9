//! The loader: training steps in order, drawn and packed ahead by a background thread.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use futures::{StreamExt, TryStreamExt, stream};
use polestar_core::{ByteCount, Lane, Objective, Step};
use tokio::sync::oneshot;
use tracing::{Instrument, Span};

use crate::corpus::{self, Corpus};
use crate::lanes::{self, LaneOrder, Visit};
use crate::manifest::FileSplit;
use crate::pack::{Pack, PackCost, Packer};
use crate::reader::Reader;
use crate::sample::{SampleConfig, TokenTriplet};
use crate::sampler::{Sampler, TripletRequest};
use crate::triplet::{Task, Weighting};

/// Steps that are ready before they are asked for.
const STEPS_AHEAD: usize = 4;
/// Row groups that are on their way at a time.
const GROUPS_AT_A_TIME: usize = 8;
/// Decoded row groups that a loader keeps unless its plan says otherwise.
pub const DEFAULT_MEMORY: ByteCount = ByteCount::from_mib(1024);

/// Why a step could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The batch does not divide into lanes.
    #[error(
        "a batch of {batch} triplets does not divide into {lanes} lanes; make the batch a \
         multiple of the lanes"
    )]
    Batch {
        /// Triplets a step.
        batch: u32,
        /// Lanes.
        lanes: u32,
    },
    /// A hosted lane does not exist.
    #[error("{lane} is hosted, but there are only {lanes} lanes")]
    Lane {
        /// The lane.
        lane: Lane,
        /// Lanes.
        lanes: u32,
    },
    /// The corpus can't be ordered.
    #[error("could not order the prompts of {url}")]
    Order {
        /// The corpus.
        url: String,
        /// What went wrong.
        source: lanes::Error,
    },
    /// The corpus could not be read.
    #[error("could not load {step}")]
    Step {
        /// The step.
        step: Step,
        /// What went wrong.
        source: Box<corpus::Error>,
    },
    /// The background thread could not be started.
    #[error("could not start the loader's thread")]
    Start(#[source] std::io::Error),
    /// The background thread is gone.
    #[error("the loader has stopped after an earlier error; start another")]
    Stopped,
}

/// Which steps to load, and for whom.
#[derive(Debug, Clone)]
pub struct LoadPlan {
    /// Orders prompts and chooses triplets.
    pub seed: u64,
    /// Triplets a step, over all lanes; a multiple of the lanes.
    pub batch: u32,
    /// Lanes of the whole run.
    pub lanes: u32,
    /// The lanes wanted here, in the order in which a step lists them.
    pub hosted: Vec<Lane>,
    /// The first step, counted from 0.
    pub start: Step,
    /// What is learnt from the triplets.
    pub objective: Objective,
    /// How trajectories become tokens.
    pub samples: SampleConfig,
    /// Most tokens of a pack, as of [`Packer::pack_tokens`].
    pub pack_tokens: u32,
    /// How the reference's policy is drawn.
    pub weighting: Weighting,
    /// Prompts of a lane that are shuffled among each other.
    pub window: usize,
    /// Most decoded row groups to keep; less makes row groups be read more than once. It never
    /// shows in what is loaded.
    pub memory: ByteCount,
}

/// What goes through the model in one step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepBatch {
    /// The step.
    pub step: Step,
    /// Every hosted lane, in the plan's order.
    pub lanes: Vec<LanePacks>,
}

/// A lane of a step, packed.
#[derive(Debug, Clone, PartialEq)]
pub struct LanePacks {
    /// Which.
    pub lane: Lane,
    /// Its packs, in order.
    pub packs: Vec<Pack>,
    /// What they come to.
    pub cost: PackCost,
}

/// A lane of a step before it is packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneTriplets {
    /// Which.
    pub lane: Lane,
    /// Its triplets, in order.
    pub triplets: Vec<TokenTriplet>,
}

/// Loads steps in order. Dropping it stops its thread.
#[derive(Debug)]
pub struct Loader {
    steps: Option<Receiver<Result<StepBatch, Error>>>,
    cancel: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Loader {
    /// Starts loading. The first [`Loader::next`] says what is wrong with the plan.
    pub fn start(corpus: Arc<Corpus>, plan: LoadPlan) -> Self {
        let (sender, steps) = sync_channel(STEPS_AHEAD);
        let (cancel, cancelled) = oneshot::channel();
        let failed = sender.clone();
        // What is loaded belongs to whoever wants it.
        let span = Span::current();
        let thread = std::thread::Builder::new()
            .name("corpus loader".into())
            .spawn(move || span.in_scope(|| run(&corpus, &plan, &sender, cancelled)));
        let thread = match thread {
            Ok(thread) => Some(thread),
            Err(error) => {
                // The channel is empty and has room, so this can't fail.
                let _ = failed.try_send(Err(Error::Start(error)));
                None
            }
        };
        Self {
            steps: Some(steps),
            cancel: Some(cancel),
            thread,
        }
    }

    /// The next step, once it is ready. Blocks. After an error every further call is
    /// [`Error::Stopped`].
    ///
    /// # Errors
    /// What is wrong with the plan, by the first call; what is wrong with the corpus, by the step that
    /// meets it.
    #[expect(
        clippy::should_implement_trait,
        reason = "a loader never ends, and its errors are not items"
    )]
    pub fn next(&mut self) -> Result<StepBatch, Error> {
        let steps = self.steps.as_ref().ok_or(Error::Stopped)?;
        let next = steps.recv().unwrap_or(Err(Error::Stopped));
        if next.is_err() {
            self.steps = None;
        }
        next
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // Both the wait for the store and the wait for room in the channel end, so the thread does.
        self.cancel.take();
        self.steps.take();
        if let Some(thread) = self.thread.take() {
            // A panic in the thread was already seen as `Stopped`.
            let _ = thread.join();
        }
    }
}

fn run(
    corpus: &Corpus,
    plan: &LoadPlan,
    steps: &SyncSender<Result<StepBatch, Error>>,
    cancelled: oneshot::Receiver<()>,
) {
    let load = async {
        let source = match Source::new(corpus, plan) {
            Ok(source) => source,
            Err(error) => return drop(steps.send(Err(error))),
        };
        for step in (plan.start.0..).map(Step) {
            let span = tracing::info_span!("load", polestar.step = (step.0 + 1) as i64);
            let batch = source.packed(step).instrument(span).await;
            let last = batch.is_err();
            if steps.send(batch).is_err() || last {
                return;
            }
            // A corpus in memory never makes the task wait, so the cancellation gets its turn here.
            tokio::task::yield_now().await;
        }
    };
    match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime.block_on(async {
            tokio::select! {
                _ = cancelled => {}
                () = load => {}
            }
        }),
        Err(error) => drop(steps.send(Err(Error::Start(error)))),
    }
}

/// Steps of a plan, from any number.
struct Source<'a> {
    corpus: &'a Corpus,
    plan: &'a LoadPlan,
    order: LaneOrder,
    reader: Reader,
    /// Row groups that fit into memory together.
    fit: usize,
}

impl Corpus {
    /// What the hosted lanes of `steps` steps hold from the plan's start on: the definition of what a
    /// [`Loader`] packs ahead of time.
    ///
    /// # Errors
    /// What is wrong with the plan, or with the corpus.
    pub async fn training_triplets(
        &self,
        plan: &LoadPlan,
        steps: usize,
    ) -> Result<Vec<Vec<LaneTriplets>>, Error> {
        let source = Source::new(self, plan)?;
        let mut drawn = Vec::with_capacity(steps);
        for step in (plan.start.0..).map(Step).take(steps) {
            drawn.push(source.step(step).await?);
        }
        Ok(drawn)
    }
}

impl<'a> Source<'a> {
    fn new(corpus: &'a Corpus, plan: &'a LoadPlan) -> Result<Self, Error> {
        let &LoadPlan {
            seed,
            batch,
            lanes,
            window,
            start,
            ..
        } = plan;
        let url = || corpus.url().to_owned();
        let order = LaneOrder::new(corpus.manifest(), seed, lanes, window);
        let order = order.map_err(|source| Error::Order { url: url(), source })?;
        if batch == 0 || batch % lanes != 0 {
            return Err(Error::Batch { batch, lanes });
        }
        if let Some(&lane) = plan.hosted.iter().find(|lane| lane.0 >= lanes) {
            return Err(Error::Lane { lane, lanes });
        }
        let (memory, group) = cached(corpus, plan);
        let reader = corpus.reopen(memory).map_err(|source| Error::Step {
            step: start,
            source: source.into(),
        })?;
        Ok(Self {
            corpus,
            plan,
            order,
            reader,
            fit: (memory.0 / group.0.max(1)) as usize,
        })
    }

    async fn packed(&self, step: Step) -> Result<StepBatch, Error> {
        let packer = Packer {
            objective: self.plan.objective,
            samples: &self.plan.samples,
            special: self.corpus.tokenizer().special(),
            pack_tokens: self.plan.pack_tokens,
        };
        let lanes = self.step(step).await?.into_iter();
        let packed = lanes.map(|LaneTriplets { lane, triplets }| {
            let packs = packer.pack(&triplets);
            let cost = packer.cost(&triplets, &packs);
            LanePacks { lane, packs, cost }
        });
        Ok(StepBatch {
            step,
            lanes: packed.collect(),
        })
    }

    async fn step(&self, step: Step) -> Result<Vec<LaneTriplets>, Error> {
        let share = u64::from(self.plan.batch / self.plan.lanes);
        let positions = step.0 * share..(step.0 + 1) * share;
        let hosted = self.plan.hosted.iter();
        let visits: Vec<(Lane, Vec<Visit>)> = hosted
            .map(|&lane| {
                let order = positions.clone().map(|at| self.order.locate(lane, at));
                (lane, order.collect())
            })
            .collect();
        self.fetch(step, visits.iter().flat_map(|(_, visits)| visits))
            .await?;
        let sampler = Sampler {
            corpus: self.corpus,
            reader: &self.reader,
            policies: self.corpus.trained(),
            samples: &self.plan.samples,
        };
        let mut lanes = Vec::with_capacity(visits.len());
        for (lane, visits) in visits {
            let mut triplets = Vec::with_capacity(visits.len());
            for visit in visits {
                let request = TripletRequest {
                    prompt: visit.prompt,
                    task: Task::Training,
                    weighting: self.plan.weighting,
                    key: [self.plan.seed, visit.epoch, visit.index],
                };
                let triplet = sampler.triplet(&request).await;
                triplets.push(triplet.map_err(|source| Error::Step {
                    step,
                    source: source.into(),
                })?);
            }
            lanes.push(LaneTriplets { lane, triplets });
        }
        Ok(lanes)
    }

    /// Has the row groups of these prompts in memory, several read at a time.
    async fn fetch(&self, step: Step, visits: impl Iterator<Item = &Visit>) -> Result<(), Error> {
        let mut seen = BTreeSet::new();
        let places = visits.map(|visit| visit.prompt.row_group);
        let places = places.filter(|place| seen.insert(*place));
        // Those that would be thrown out again before their turn are read when it comes.
        let places = places.take(self.fit);
        let reads = places.map(|place| self.reader.row_group(place));
        let mut reads = stream::iter(reads).buffer_unordered(GROUPS_AT_A_TIME);
        let read = async {
            while reads.try_next().await?.is_some() {}
            Ok(())
        };
        read.await.map_err(|source| Error::Step {
            step,
            source: Box::new(corpus::Error::Read {
                url: self.corpus.url().to_owned(),
                source,
            }),
        })
    }
}

/// What to keep: enough for the row groups under every hosted lane's window, and no more than the plan
/// allows. And how large a row group is, about.
fn cached(corpus: &Corpus, plan: &LoadPlan) -> (ByteCount, ByteCount) {
    const LEAST: u64 = 64 << 20;
    let manifest = corpus.manifest();
    let (groups, prompts) = manifest
        .row_groups(FileSplit::Train)
        .fold((0, 0), |(groups, prompts), (_, entry)| {
            (groups + 1, prompts + entry.prompts)
        });
    let spanned = (plan.window as u64).saturating_mul(groups) / prompts.max(1) + 2;
    let wanted = spanned.saturating_mul(plan.hosted.len() as u64).min(groups);
    let text = manifest.counts.text_bytes + 64 * manifest.counts.trajectories;
    // Tokens are beside the texts, or will be.
    let group = 2 * text / groups.max(1);
    let kept = ByteCount(group.saturating_mul(wanted).max(LEAST));
    (kept.min(plan.memory), ByteCount(group))
}
