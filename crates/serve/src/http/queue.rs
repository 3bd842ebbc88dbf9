//! The model's thread: what it is asked waits in a queue of bounded size, and goes through the model in batches.
//!
//! ```text
//! handlers ──▶ room for its tokens? ──▶ queue ──▶ batch up to a pack's tokens ──▶ Scorer ──▶ handlers
//!                 no: refused               whoever is gone is passed over
//! ```
//! What waits is cut into pieces that fit a pack, so that a large request holds nobody up for longer than a pack.
//! Pieces of a batch with one prefix become one tree, whoever sent them. None of this shows in a reward.

use super::metrics::Metrics;
use crate::{ScoreError, Scorer};
use polestar_core::chain;
use polestar_dataset::{Layout, TokenTree};
use polestar_worker::engine::Engine;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::Instant,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Why trees have no rewards.
#[derive(Debug, thiserror::Error)]
pub(super) enum QueueError {
    /// It would never fit.
    #[error(
        "the request has {tokens} tokens, and the queue holds {most}; send fewer candidates at a time"
    )]
    TooLarge {
        /// Of the request.
        tokens: usize,
        /// The queue's.
        most: usize,
    },
    /// Not at the moment.
    #[error("the queue is full; try again in a moment, or send less at a time")]
    Full,
    /// The model failed.
    #[error("{0}")]
    Model(Arc<str>),
    /// The thread has ended.
    #[error(
        "the model's thread has ended; its log says why, and the server has to be started again"
    )]
    Ended,
}

/// A part of a request, waiting for its rewards.
struct Job {
    tree: TokenTree,
    tokens: usize,
    since: Instant,
    reply: oneshot::Sender<Result<Vec<f32>, Arc<str>>>,
    /// Room in the queue, free again when the job is taken or dropped.
    _room: OwnedSemaphorePermit,
}

/// The way to the model's thread.
#[derive(Debug)]
pub(super) struct Queue {
    jobs: Sender<Job>,
    room: Arc<Semaphore>,
    most: usize,
    pack_tokens: usize,
    layout: Layout,
    metrics: Arc<Metrics>,
    /// Gone when the thread is.
    lives: Weak<()>,
}

impl Queue {
    /// Starts the thread. It ends when the queue is dropped.
    pub(super) fn start<E>(
        scorer: Scorer<E>,
        layout: Layout,
        most: usize,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Queue>
    where
        E: Engine,
        E::Weights: Send,
    {
        let (jobs, waiting) = mpsc::channel();
        let pack_tokens = scorer.pack_tokens();
        let told = Arc::clone(&metrics);
        let life = Arc::new(());
        let lives = Arc::downgrade(&life);
        let work = move || {
            let _life = life;
            work(&scorer, &waiting, &told);
        };
        thread::Builder::new()
            .name("model".to_owned())
            .spawn(work)?;
        // A semaphore counts no further than this.
        let most = most.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize);
        Ok(Queue {
            jobs,
            room: Arc::new(Semaphore::new(most)),
            most,
            pack_tokens,
            layout,
            metrics,
            lives,
        })
    }

    /// Whether the thread still works.
    pub(super) fn lives(&self) -> bool {
        self.lives.upgrade().is_some()
    }

    /// Tokens that wait.
    pub(super) fn waiting(&self) -> usize {
        self.most - self.room.available_permits()
    }

    /// The rewards of trees, in order. Dropped, it takes what still waits of them out of the queue.
    pub(super) async fn score(&self, trees: Vec<TokenTree>) -> Result<Vec<Vec<f32>>, QueueError> {
        let trees: Vec<(usize, Vec<TokenTree>)> = trees
            .into_iter()
            .map(|tree| (tree.branches.len(), self.pieces(tree)))
            .collect();
        let pieces = || trees.iter().flat_map(|(_, pieces)| pieces);
        let tokens: usize = pieces().map(|piece| piece.tokens(self.layout)).sum();
        if tokens > self.most {
            let most = self.most;
            return Err(QueueError::TooLarge { tokens, most });
        }
        let room = Arc::clone(&self.room).try_acquire_many_owned(tokens as u32);
        let mut room = room.map_err(|_| QueueError::Full)?;
        self.metrics.waiting(self.waiting());
        let mut asked = Vec::with_capacity(trees.len());
        for (branches, pieces) in trees {
            let mut replies = Vec::with_capacity(pieces.len());
            for tree in pieces {
                let tokens = tree.tokens(self.layout);
                let of_it = room.split(tokens);
                let (reply, answer) = oneshot::channel();
                let job = Job {
                    tree,
                    tokens,
                    since: Instant::now(),
                    reply,
                    _room: of_it.expect("room was made for all pieces"),
                };
                self.jobs.send(job).map_err(|_| QueueError::Ended)?;
                replies.push(answer);
            }
            asked.push((branches, replies));
        }
        let mut rewards = Vec::with_capacity(asked.len());
        for (branches, replies) in asked {
            let mut of_tree = Vec::with_capacity(branches);
            for reply in replies {
                let part = reply.await.map_err(|_| QueueError::Ended)?;
                of_tree.extend(part.map_err(QueueError::Model)?);
            }
            rewards.push(of_tree);
        }
        Ok(rewards)
    }

    /// A tree in parts that fit a pack each; a prefix with one branch stays whole.
    fn pieces(&self, tree: TokenTree) -> Vec<TokenTree> {
        let TokenTree { prefix, branches } = tree;
        let mut pieces: Vec<TokenTree> = Vec::new();
        for branch in branches {
            let mut more = branch.len();
            if self.layout == Layout::Plain {
                more += prefix.len();
            }
            match pieces.last_mut() {
                Some(last) if last.tokens(self.layout) + more <= self.pack_tokens => {
                    last.branches.push(branch);
                }
                _ => pieces.push(TokenTree {
                    prefix: prefix.clone(),
                    branches: vec![branch],
                }),
            }
        }
        pieces
    }
}

/// Scores batch after batch, until nobody can ask any more.
fn work<E: Engine>(scorer: &Scorer<E>, waiting: &Receiver<Job>, metrics: &Metrics) {
    let mut next = None;
    while let Some(first) = next.take().or_else(|| waiting.recv().ok()) {
        let mut batch = Batch::default();
        batch.add(first, metrics);
        while let Ok(job) = waiting.try_recv() {
            if batch.tokens > 0 && batch.tokens + job.tokens > scorer.pack_tokens() {
                next = Some(job);
                break;
            }
            batch.add(job, metrics);
        }
        batch.score(scorer, metrics);
    }
}

/// Jobs that go through the model together.
#[derive(Default)]
struct Batch {
    jobs: Vec<Job>,
    tokens: usize,
}

impl Batch {
    /// Takes a job in, unless whoever asked is gone.
    fn add(&mut self, job: Job, metrics: &Metrics) {
        if job.reply.is_closed() {
            metrics.cancelled();
            return;
        }
        metrics.waited(job.since.elapsed());
        self.tokens += job.tokens;
        self.jobs.push(job);
    }

    fn score<E: Engine>(self, scorer: &Scorer<E>, metrics: &Metrics) {
        if self.jobs.is_empty() {
            return;
        }
        let mut trees: Vec<TokenTree> = Vec::new();
        let mut by_prefix: BTreeMap<Vec<u32>, usize> = BTreeMap::new();
        // Of each job: tree, first branch, how many.
        let mut places = Vec::with_capacity(self.jobs.len());
        let mut replies = Vec::with_capacity(self.jobs.len());
        for Job { tree, reply, .. } in self.jobs {
            let TokenTree { prefix, branches } = tree;
            let number = *by_prefix.entry(prefix).or_insert_with_key(|prefix| {
                let prefix = prefix.clone();
                trees.push(TokenTree {
                    prefix,
                    branches: Vec::new(),
                });
                trees.len() - 1
            });
            let all = &mut trees[number].branches;
            places.push((number, all.len(), branches.len()));
            all.extend(branches);
            replies.push(reply);
        }
        let begun = Instant::now();
        let tokens: usize = trees.iter().map(|tree| scorer.cost(tree)).sum();
        let scored = scorer.score(&trees);
        metrics.batch(tokens, begun.elapsed());
        let failed = |error: &ScoreError| Arc::<str>::from(chain(error));
        let rewards = scored.as_ref().map_err(failed);
        for ((tree, first, count), reply) in places.into_iter().zip(replies) {
            let part = match &rewards {
                Ok(rewards) => Ok(rewards[tree][first..first + count].to_vec()),
                Err(error) => Err(Arc::clone(error)),
            };
            // Whoever is gone by now has no use for it.
            let _ = reply.send(part);
        }
    }
}
