//! The control loop as a service: trials to workers, facts to the store, what happens to whoever listens.
//!
//! ```text
//!             ┌──────────────── driver ────────────────┐
//!   Handle ──▶│ event ─▶ core (pure) ─▶ commands       │──▶ journal ──▶ subscriptions
//!             │   ▲                         │          │
//!             └───┼─────────────────────────┼──────────┘
//!                 └── effects: server (gRPC), store, launcher, clock
//! ```
//! [`Service`] owns the loop and its channels; a [`Handle`] is a cheap way to look at it, to listen, and to end it.

pub mod core;
mod door;
mod driver;
mod effects;
mod journal;
mod listen;
mod server;

pub use effects::{EffectError, Effects};
pub use journal::{Entry, JournalEntry, Subscription};
pub use listen::{Listen, ListenAddress, NotAnAddress};
pub use server::{ServeError, Server};

use self::core::{Core, Deadlines, History, Job, JobError, Limits, Status, Verdict};
use crate::{
    launcher::Launcher,
    run::{Facts, Launch, Run, RunError},
    sweep::PoolTable,
};
use driver::Request;
use effects::World;
use journal::Journal;
use polestar_core::{Epoch, TrialId};
use polestar_run::Cause;
use std::{collections::BTreeMap, time::Duration};
use tokio::sync::{mpsc, oneshot};

/// How long workers have to end by themselves.
const GRACE: Duration = Duration::from_secs(10);

/// How a run is trained.
#[derive(Clone, Debug)]
pub struct Options {
    /// Worker processes to have.
    pub workers: u32,
    /// Workers that train one trial together.
    pub workers_per_trial: u32,
    /// Budgets of each trial.
    pub limits: Limits,
    /// How long to wait for answers.
    pub deadlines: Deadlines,
    /// A collective that waits longer fails.
    pub collective_deadline: Duration,
    /// Whether trials that were abandoned for good are tried again, too.
    pub retry_abandoned: bool,
}

impl Options {
    /// As a sweep file says.
    ///
    /// # Errors
    /// [`Error::Deadline`] for a time that is none.
    pub fn of(pool: &PoolTable) -> Result<Options, Error> {
        let seconds = pool.deadline_seconds;
        Ok(Options {
            workers: pool.workers,
            workers_per_trial: pool.workers_per_trial,
            limits: Limits {
                failures: pool.failures,
                losses: pool.losses,
            },
            deadlines: pool.deadlines,
            collective_deadline: Duration::try_from_secs_f64(seconds)
                .map_err(|source| Error::Deadline { seconds, source })?,
            retry_abandoned: false,
        })
    }
}

/// Why a service can't begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The run's records.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The trials can't be scheduled.
    #[error(transparent)]
    Jobs(#[from] JobError),
    /// A trial can't be written as a message.
    #[error("a trial can't be written as a message")]
    Trial(#[source] serde_json::Error),
    /// Not a time.
    #[error("pool.deadline_seconds can't be {seconds}")]
    Deadline {
        /// What was given.
        seconds: f64,
        /// Why.
        #[source]
        source: std::time::TryFromFloatSecsError,
    },
    /// There are no events any more.
    #[error(transparent)]
    Effects(#[from] EffectError),
    /// Worker processes can't be brought to join.
    #[error("{0}")]
    NoWorkers(Verdict),
}

/// What came of a service.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Whether it was asked to stop before the end.
    pub stopped: bool,
    /// How far everything was in the end.
    pub status: Status,
    /// Trials that were abandoned, now or before, and why.
    pub abandoned: BTreeMap<TrialId, Cause>,
}

/// A run's control loop, ready to run.
pub struct Service<L> {
    core: Core,
    world: World<L>,
    requests: mpsc::UnboundedReceiver<Request>,
    handle: Handle,
    epoch: Epoch,
    facts: Facts,
}

/// A way to a service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    requests: mpsc::UnboundedSender<Request>,
    journal: Journal,
}

impl Handle {
    /// How far everything is; `None` when the service has ended.
    pub async fn status(&self) -> Option<Status> {
        let (answer, status) = oneshot::channel();
        self.requests.send(Request::Status(answer)).ok()?;
        status.await.ok()
    }

    /// Everything that happens from now on.
    pub fn subscribe(&self) -> Subscription {
        self.journal.subscribe()
    }

    /// Asks the service to end before the trials do. What is committed stays, and a later service goes on from
    /// there.
    pub fn stop(&self) {
        // One that has ended needs no telling.
        let _ = self.requests.send(Request::Stop);
    }
}

impl<L: Launcher> Service<L> {
    /// Takes an epoch of the run and looks what is missing of it. Nothing is started yet.
    ///
    /// # Errors
    /// The store's, or a plan that can't be scheduled.
    pub async fn begin(
        options: &Options,
        run: &Run,
        server: Server,
        launcher: L,
    ) -> Result<Service<L>, Error> {
        let jobs = jobs(options, run).await?;
        let facts = run.facts();
        let launch = Launch::of_this_process(&run.record.run);
        let epoch: Epoch = facts.claim_epoch(&launch).await?;
        let core = Core::new(
            core::Options {
                epoch,
                workers: options.workers,
                limits: options.limits,
                deadlines: options.deadlines,
            },
            jobs,
        )?;
        let (sender, requests) = mpsc::unbounded_channel();
        let handle = Handle {
            requests: sender,
            journal: Journal::default(),
        };
        let journal = handle.journal.clone();
        let deadline = options.collective_deadline;
        let world = World::new(server, launcher, run.clone(), deadline, journal);
        Ok(Service {
            core,
            world: world.map_err(Error::Trial)?,
            requests,
            handle,
            epoch,
            facts,
        })
    }

    /// A way to it.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs until every trial is done or abandoned, or somebody asks for an end. Workers are ended in any case.
    ///
    /// # Errors
    /// When workers can't be started, or can't be heard any more.
    pub async fn run(mut self) -> Result<Summary, Error> {
        let verdict = driver::drive(&mut self.core, &mut self.world, &mut self.requests).await;
        self.handle.journal.close();
        self.world.close(GRACE).await;
        if let Err(error) = self.facts.record_end(self.epoch).await {
            // All that comes of it is a warning too many.
            tracing::warn!("the end of this launch can't be recorded: {error}");
        }
        match verdict? {
            verdict @ Verdict::NoWorkers { .. } => Err(Error::NoWorkers(verdict)),
            verdict => Ok(Summary {
                stopped: verdict == Verdict::Stopped,
                status: self.core.status(),
                abandoned: self.core.abandoned(),
            }),
        }
    }
}

/// The run's trials, and what is known of them.
async fn jobs(options: &Options, run: &Run) -> Result<Vec<Job>, RunError> {
    let (facts, results) = (run.facts(), run.results().await?);
    let mut jobs = Vec::with_capacity(run.record.plan.trials.len());
    for planned in &run.record.plan.trials {
        let config = &planned.config;
        let history = if results.contains_key(&config.id) {
            History::Done
        } else {
            let abandoned = facts.abandoned(&planned.recipe_id).await?;
            match abandoned {
                Some(record) if !record.cause.is_retryable() && !options.retry_abandoned => {
                    History::Abandoned(record.cause)
                }
                record => History::Missing(facts.spent(&planned.recipe_id, record.as_ref()).await?),
            }
        };
        jobs.push(Job {
            trial: config.id.clone(),
            after: planned.after.clone(),
            cost: planned.own_flops(),
            world: options.workers_per_trial,
            history,
        });
    }
    Ok(jobs)
}
