//! The loader: training steps in order, prepared ahead by a background thread.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::oneshot;

use crate::corpus::{self, Corpus, Draw};
use crate::lanes::{self, LaneOrder, PromptRef};
use crate::layout::{SampleConfig, TokenTriplet};
use crate::manifest::FileSplit;
use crate::reader::Reader;
use crate::triplet::{Contest, Weighting};

/// Steps that are ready before they are asked for.
const STEPS_AHEAD: usize = 4;
/// Row groups that are on their way at a time.
const GROUPS_AT_A_TIME: usize = 8;
/// Bytes of decoded row groups that a loader keeps unless it is told otherwise.
pub const DEFAULT_MEMORY: u64 = 1 << 30;

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
    #[error("lane {lane} is hosted, but there are only {lanes} lanes")]
    Lane {
        /// The lane.
        lane: u32,
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
    #[error("could not load step {step}")]
    Step {
        /// The step.
        step: u64,
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
    pub hosted: Vec<u32>,
    /// The first step, counted from 0.
    pub start: u64,
    /// How trajectories become tokens.
    pub samples: SampleConfig,
    /// How the reference's policy is drawn.
    pub weighting: Weighting,
    /// Prompts of a lane that are shuffled among each other.
    pub window: usize,
    /// Most bytes of decoded row groups to keep; less makes row groups be read more than once. It never
    /// shows in what is loaded.
    pub memory: u64,
}

/// The triplets of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepBatch {
    /// The step.
    pub step: u64,
    /// (lane, its triplets) of every hosted lane, in the plan's order.
    pub lanes: Vec<(u32, Vec<TokenTriplet>)>,
}

/// Loads steps in order. Dropping it stops its thread.
#[derive(Debug)]
pub struct Loader {
    steps: Option<Receiver<Result<StepBatch, Error>>>,
    cancel: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Loader {
    /// Starts loading. What is wrong with the plan is told by the first [`Loader::next`].
    pub fn start(corpus: Arc<Corpus>, plan: LoadPlan) -> Self {
        let (sender, steps) = sync_channel(STEPS_AHEAD);
        let (cancel, cancelled) = oneshot::channel();
        let failed = sender.clone();
        let thread = std::thread::Builder::new()
            .name("corpus loader".into())
            .spawn(move || run(&corpus, &plan, &sender, cancelled));
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
        for step in plan.start.. {
            let batch = source.step(step).await;
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
        if let Some(&lane) = plan.hosted.iter().find(|&&lane| lane >= lanes) {
            return Err(Error::Lane { lane, lanes });
        }
        let (memory, group) = cache_bytes(corpus, plan);
        let reader = corpus.reopen(memory).map_err(|source| Error::Step {
            step: start,
            source: source.into(),
        })?;
        Ok(Self {
            corpus,
            plan,
            order,
            reader,
            fit: (memory / group.max(1)) as usize,
        })
    }

    async fn step(&self, step: u64) -> Result<StepBatch, Error> {
        let &LoadPlan {
            seed,
            batch,
            lanes,
            weighting,
            ..
        } = self.plan;
        let share = u64::from(batch / lanes);
        let positions = step * share..(step + 1) * share;
        let drawn: Vec<(u32, Vec<PromptRef>)> = self
            .plan
            .hosted
            .iter()
            .map(|&lane| {
                let order = positions.clone().map(|at| self.order.locate(lane, at));
                (lane, order.collect())
            })
            .collect();
        self.fetch(step, drawn.iter().flat_map(|(_, drawn)| drawn))
            .await?;
        let mut loaded = Vec::with_capacity(drawn.len());
        for (lane, drawn) in drawn {
            let mut triplets = Vec::with_capacity(share as usize);
            for prompt in drawn {
                let PromptRef {
                    file,
                    row_group,
                    prompt,
                    epoch,
                    index,
                } = prompt;
                let contest = Contest::Training;
                let draw = Draw {
                    file,
                    row_group,
                    prompt,
                    contest,
                    weighting,
                    key: [seed, epoch, index],
                };
                let triplet = self
                    .corpus
                    .triplet(
                        &self.reader,
                        self.corpus.trained(),
                        &draw,
                        &self.plan.samples,
                    )
                    .await;
                triplets.push(triplet.map_err(|source| Error::Step {
                    step,
                    source: source.into(),
                })?);
            }
            loaded.push((lane, triplets));
        }
        Ok(StepBatch {
            step,
            lanes: loaded,
        })
    }

    /// Has the row groups of these prompts in memory, several read at a time.
    async fn fetch(
        &self,
        step: u64,
        prompts: impl Iterator<Item = &PromptRef>,
    ) -> Result<(), Error> {
        let mut seen = BTreeSet::new();
        let places = prompts.map(|p| (p.file, p.row_group));
        let places = places.filter(|place| seen.insert(*place));
        // Those that would be thrown out again before their turn are read when it comes.
        let places = places.take(self.fit);
        let reads = places.map(|(file, row_group)| self.reader.row_group(file, row_group));
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

/// Bytes to keep: enough for the row groups under every hosted lane's window, and no more than the plan
/// allows. And the bytes of a row group, about.
fn cache_bytes(corpus: &Corpus, plan: &LoadPlan) -> (u64, u64) {
    const LEAST: u64 = 64 << 20;
    let manifest = corpus.manifest();
    let (groups, prompts) = manifest
        .row_groups(FileSplit::Train)
        .fold((0, 0), |(groups, prompts), (_, _, entry)| {
            (groups + 1, prompts + entry.prompts)
        });
    let spanned = (plan.window as u64).saturating_mul(groups) / prompts.max(1) + 2;
    let wanted = spanned.saturating_mul(plan.hosted.len() as u64).min(groups);
    let text = manifest.counts.text_bytes + 64 * manifest.counts.trajectories;
    // Tokens are beside the texts, or will be.
    let group = 2 * text / groups.max(1);
    (
        group.saturating_mul(wanted).max(LEAST).min(plan.memory),
        group,
    )
}
