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

mod connection;
pub mod core;
mod driver;
mod effects;
#[cfg(test)]
mod explore;
mod journal;
mod lead;
mod listen;
mod recorder;
mod server;
mod trace;

pub use effects::{EffectError, Effects};
pub use journal::{Entry, JournalEntry, Subscription};
pub use lead::{Candidate, Lead, LeadError, take as take_lead};
pub use listen::{Listen, ListenAddress, NotAnAddress};
pub use server::{ServeError, Server};

use self::core::{Core, Deadlines, History, Job, JobError, Limits, Status, Verdict, Work};
use crate::{
    launcher::Launcher,
    metrics,
    run::{EventLog, Run, RunError},
    sweep::{PlannedTrial, PoolTable, WorkersPerTrial, least_world},
};
use driver::Request;
use effects::World;
use journal::Journal;
use polestar_core::TrialId;
use polestar_run::{Cause, proto::Collector};
use server::Greeting;
use std::{collections::BTreeMap, time::Duration};
use tokio::sync::{mpsc, oneshot};

/// How long workers have to end by themselves.
const GRACE: Duration = Duration::from_secs(10);

/// How long the files for other programs have at the end: those of the last trial are written whole then.
const FILES_GRACE: Duration = Duration::from_secs(60);

/// How a run is trained.
#[derive(Clone, Debug)]
pub struct Options {
    /// Worker processes to have.
    pub workers: u32,
    /// Workers that train one trial together.
    pub workers_per_trial: WorkersPerTrial,
    /// Budgets of each trial.
    pub limits: Limits,
    /// How long to wait for answers.
    pub deadlines: Deadlines,
    /// A collective that waits longer fails.
    pub collective_deadline: Duration,
    /// How long workers may go on without a coordinator.
    pub grace: Duration,
    /// Whether trials that were abandoned for good are tried again, too.
    pub retry_abandoned: bool,
    /// Where workers export traces and logs to, unless their environment says so.
    pub collector: Option<Collector>,
    /// Whether metrics are written as files for other programs.
    pub metrics_files: bool,
}

impl Options {
    /// As a sweep file says.
    ///
    /// # Errors
    /// [`Error::Deadline`] for a time that is none.
    pub fn of(pool: &PoolTable) -> Result<Options, Error> {
        let seconds = pool.deadline_seconds;
        Ok(Options {
            workers: pool.workers.number(),
            workers_per_trial: pool.workers_per_trial,
            limits: Limits {
                failures: pool.failures,
                losses: pool.losses,
            },
            deadlines: pool.deadlines,
            grace: Duration::from_secs(pool.grace_seconds),
            collective_deadline: Duration::try_from_secs_f64(seconds)
                .map_err(|source| Error::Deadline { seconds, source })?,
            retry_abandoned: false,
            collector: None,
            metrics_files: pool.metrics_files,
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
    /// Somebody else leads the run now.
    #[error("{0}; what is trained goes on there")]
    Fenced(Verdict),
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
    run: Run,
    log: EventLog,
    metrics_files: bool,
    began: Entry,
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

    /// Asks the service to end as soon as nothing is lost by it: what trains saves a checkpoint first.
    pub fn drain(&self) {
        // One that has ended needs no telling.
        let _ = self.requests.send(Request::Drain);
    }

    /// Asks the service to end before the trials do. What is committed stays, and a later service goes on from
    /// there.
    pub fn stop(&self) {
        // One that has ended needs no telling.
        let _ = self.requests.send(Request::Stop);
    }

    /// Asks for a trial that was abandoned to be tried again, with a new budget, and for those that were abandoned
    /// because they start from it. Nothing comes of it for any other trial.
    pub fn retry(&self, trial: TrialId) {
        // One that has ended needs no telling.
        let _ = self.requests.send(Request::Retry(trial));
    }
}

impl<L: Launcher> Service<L> {
    /// Looks what is missing of a run that we lead. Nothing is started yet.
    ///
    /// # Errors
    /// The store's, or a plan that can't be scheduled.
    pub async fn begin(
        options: &Options,
        run: &Run,
        lead: Lead,
        server: Server,
        launcher: L,
    ) -> Result<Service<L>, Error> {
        let jobs = jobs(options, run).await?;
        let epoch = lead.epoch();
        server.leads(Greeting {
            epoch,
            run: run.folder.url().to_owned(),
            grace: options.grace,
            collector: options.collector.clone(),
        });
        let core = Core::new(
            core::Options {
                epoch,
                lease: lead.lease.record().time(),
                takes_over: lead.takes_over,
                workers: options.workers,
                limits: options.limits,
                deadlines: options.deadlines,
            },
            jobs,
        )?;
        let began = Entry::Began {
            epoch,
            leader: lead.lease.record().leader.to_string(),
            trials: core.unfinished(),
        };
        let (sender, requests) = mpsc::unbounded_channel();
        let handle = Handle {
            requests: sender,
            journal: Journal::default(),
        };
        let journal = handle.journal.clone();
        let deadline = options.collective_deadline;
        let world = World::new(server, launcher, run.clone(), deadline, journal, lead);
        Ok(Service {
            core,
            world: world.map_err(Error::Trial)?,
            requests,
            handle,
            run: run.clone(),
            log: EventLog::new(run, epoch),
            metrics_files: options.metrics_files,
            began,
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
        let journal = self.handle.journal.clone();
        let recorder = tokio::spawn(recorder::record(journal.subscribe(), self.log));
        let files = self.metrics_files.then(|| {
            let run = self.run.clone();
            let fill = tokio::spawn(metrics::fill(run.clone()));
            (
                fill,
                tokio::spawn(metrics::follow(journal.subscribe(), run)),
            )
        });
        journal.publish(&JournalEntry {
            at: self.world.now(),
            entry: self.began,
        });
        let status = tokio::spawn(recorder::keep_status(self.handle.clone(), self.run));
        let verdict = driver::drive(&mut self.core, &mut self.world, &mut self.requests).await;
        status.abort();
        if let Ok(verdict) = &verdict {
            let at = self.world.now();
            let entry = Entry::Ended {
                verdict: verdict.to_string(),
                warmth: self.core.warmth(),
            };
            journal.publish(&JournalEntry { at, entry });
        }
        journal.close();
        // A store that is away must not keep a launch from ending.
        let _ = tokio::time::timeout(GRACE, recorder).await;
        if let Some((fill, follow)) = files {
            // What it has not come to, the next launch or `metrics` writes.
            fill.abort();
            let _ = tokio::time::timeout(FILES_GRACE, follow).await;
        }
        match &verdict {
            // The workers are those of whoever leads now.
            Ok(Verdict::Fenced { .. }) => drop(self.world),
            _ => self.world.close(GRACE).await,
        }
        match verdict? {
            verdict @ Verdict::NoWorkers { .. } => Err(Error::NoWorkers(verdict)),
            verdict @ Verdict::Fenced { .. } => Err(Error::Fenced(verdict)),
            verdict => Ok(Summary {
                stopped: verdict == Verdict::Stopped,
                status: self.core.status(),
                abandoned: self.core.abandoned(),
            }),
        }
    }
}

/// What a trial has to do: trials of one size go at one pace.
fn work(planned: &PlannedTrial) -> Work {
    let recipe = &planned.config.recipe;
    let trunk = planned.config.execution.trunk.as_ref();
    Work {
        kind: planned.at.size.clone(),
        of_step: planned.flops_6nd / recipe.steps.max(1) as f64,
        steps: trunk.map_or(0, |trunk| trunk.step.0)..recipe.steps,
    }
}

/// The run's trials, and what is known of them.
async fn jobs(options: &Options, run: &Run) -> Result<Vec<Job>, RunError> {
    let (facts, results) = (run.facts(), run.results().await?);
    let mut jobs = Vec::with_capacity(run.record.plan.trials.len());
    for planned in &run.record.plan.trials {
        let config = &planned.config;
        let lanes = config.recipe.batch.lanes;
        let world = options.workers_per_trial.most(options.workers, lanes);
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
            work: work(planned),
            world,
            least_world: least_world(&run.record.sweep, config, world),
            shares: options.workers_per_trial == WorkersPerTrial::Auto,
            history,
        });
    }
    Ok(jobs)
}
