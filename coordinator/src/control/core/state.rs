//! The state, and how it takes events in.

use super::{
    Command, Deadlines, Event, History, Inventory, Job, Limits, Moment, StoreTrouble, Ticket,
    Verdict, WorkerEvent,
    group::Group,
    lease::LeaseState,
    pace::Paces,
    persist::Pending,
    rejoin::Rejoining,
    status::Warmth,
    timers::{Timer, Timers},
};
use crate::{control::journal::Entry, launcher::LaunchId, run::Spent};
use polestar_core::{Epoch, Generation, Step, TrialId, WorkerId};
use polestar_run::{Cause, failure::Trouble};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// What the core is to keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The coordinator's own epoch; all its generations carry it.
    pub epoch: Epoch,
    /// How long a renewal of the lease lasts.
    pub lease: Duration,
    /// Whether workers of an earlier coordinator may come back.
    pub takes_over: bool,
    /// Workers to have.
    pub workers: u32,
    /// Budgets of each trial.
    pub limits: Limits,
    /// How long to wait for answers.
    pub deadlines: Deadlines,
}

/// Why jobs can't be scheduled.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum JobError {
    /// A start that isn't among them.
    #[error("{trial} starts from {after}, which is not a trial of this run")]
    UnknownStart {
        /// Which.
        trial: TrialId,
        /// Its start.
        after: TrialId,
    },
    /// A world that can never be there.
    #[error(
        "{trial} needs {world} workers, the pool has {workers}; raise pool.workers, or lower pool.workers_per_trial"
    )]
    TooLarge {
        /// Which.
        trial: TrialId,
        /// Workers it needs.
        world: u32,
        /// Workers there are.
        workers: u32,
    },
}

/// The whole state of a pool and its trials.
#[derive(Clone, Debug)]
pub struct Core {
    pub(super) options: Options,
    /// The moment of the event that is being handled.
    pub(super) now: Moment,
    /// What it has led to so far.
    pub(super) commands: Vec<Command>,
    pub(super) workers: BTreeMap<WorkerId, Worker>,
    /// Those that are in no generation.
    pub(super) idle: BTreeSet<WorkerId>,
    /// Processes that a launcher started.
    pub(super) launches: BTreeMap<LaunchId, Launched>,
    /// Times in a row that processes ended before their worker joined.
    pub(super) failed_spawns: u32,
    /// When the last of them was counted.
    pub(super) failed_spawn: Option<Moment>,
    pub(super) trials: Vec<Trial>,
    /// Where each is among them.
    pub(super) names: BTreeMap<TrialId, usize>,
    /// Indices of the trials, each after the one that it starts from.
    pub(super) starts_first: Vec<usize>,
    /// Trials that can begin as soon as there are workers: indices by their place in the order.
    pub(super) ready: BTreeMap<usize, usize>,
    /// Trials that are neither done nor abandoned.
    open: usize,
    pub(super) groups: BTreeMap<Generation, Group>,
    /// Generations of earlier coordinators, some of whose ranks are back.
    pub(super) rejoining: BTreeMap<Generation, Rejoining>,
    /// Whether workers of an earlier coordinator still have time to come back.
    pub(super) settling: bool,
    pub(super) lease: LeaseState,
    /// Whether it is to end as soon as nothing is lost by it.
    pub(super) draining: bool,
    /// Since when the pool is too small for the trial that is next.
    pub(super) short_since: Option<Moment>,
    /// Since when there are workers that only a trial that began with too few could use.
    pub(super) spare_since: Option<Moment>,
    /// Workers of the pool that will be gone soon.
    pub(super) leaving: usize,
    pub(super) warmth: Warmth,
    pub(super) paces: Paces,
    /// Workers that are there for those that fail, beyond what the plan can use.
    pub(super) spares: u32,
    /// Workers that what is left can use, as last looked at, and whether that still holds.
    pub(super) demand: u32,
    pub(super) demand_is_known: bool,
    /// How many workers to have was last said to the launcher.
    pub(super) asked_for: Option<u32>,
    pub(super) next_generation: u64,
    pub(super) timers: Timers,
    /// What the driver was last asked to wake us for.
    wake: Option<Moment>,
    pub(super) pending: BTreeMap<Ticket, Pending>,
    pub(super) next_ticket: u64,
    verdict: Option<Verdict>,
}

/// A process that a launcher started.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Launched {
    /// Its worker hasn't joined since then.
    Since(Moment),
    /// It has, as this one last: a process whose stream broke comes back as another worker.
    Joined(WorkerId),
    /// It has, and was let go since.
    LetGo,
}

#[derive(Clone, Debug)]
pub(super) struct Worker {
    pub(super) inventory: Inventory,
    pub(super) generation: Option<Generation>,
    /// Whether this coordinator's launcher started it.
    pub(super) is_ours: bool,
    /// Whether it will be gone soon, and gets nothing new to do.
    pub(super) leaving: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Trial {
    pub(super) job: Job,
    /// Its place in the order.
    pub(super) place: usize,
    /// The trial that must be done before it.
    pub(super) after: Option<usize>,
    /// Trials that it must be done before.
    pub(super) dependents: Vec<usize>,
    pub(super) standing: Standing,
    pub(super) spent: Spent,
    /// When a smaller trial first took workers that it could have used.
    pub(super) overtaken: Option<Moment>,
    /// Steps done, as last reported.
    pub(super) step: Step,
    /// Times in a row that the store was away.
    pub(super) outages: u32,
    /// When it may be tried again.
    pub(super) not_before: Option<Moment>,
    /// Workers of its last generation, which may have its state in memory.
    pub(super) survivors: Vec<WorkerId>,
}

/// How far a trial is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Standing {
    Waiting,
    Running(Generation),
    /// Trained; its result is on its way to the store.
    Saving,
    Done,
    Abandoned(Cause),
}

impl Standing {
    fn is_open(&self) -> bool {
        !matches!(self, Standing::Done | Standing::Abandoned(_))
    }
}

impl Core {
    /// A pool without workers.
    ///
    /// # Errors
    /// [`JobError`] when a job can never begin.
    pub fn new(options: Options, jobs: Vec<Job>) -> Result<Core, JobError> {
        let names: BTreeMap<TrialId, usize> = jobs
            .iter()
            .enumerate()
            .map(|(index, job)| (job.trial.clone(), index))
            .collect();
        let mut trials = Vec::with_capacity(jobs.len());
        for job in jobs {
            trials.push(Trial::new(job, &names, options.workers)?);
        }
        for index in 0..trials.len() {
            if let Some(after) = trials[index].after {
                trials[after].dependents.push(index);
            }
        }
        let mut core = Core {
            options,
            now: Moment::default(),
            commands: Vec::new(),
            workers: BTreeMap::new(),
            idle: BTreeSet::new(),
            launches: BTreeMap::new(),
            failed_spawns: 0,
            failed_spawn: None,
            open: trials.iter().filter(|t| t.standing.is_open()).count(),
            starts_first: starts_first(&trials),
            trials,
            names,
            ready: BTreeMap::new(),
            groups: BTreeMap::new(),
            rejoining: BTreeMap::new(),
            settling: false,
            lease: LeaseState::default(),
            draining: false,
            short_since: None,
            spare_since: None,
            leaving: 0,
            warmth: Warmth::default(),
            paces: Paces::default(),
            spares: 0,
            demand: 0,
            demand_is_known: false,
            asked_for: None,
            next_generation: 1,
            timers: Timers::default(),
            wake: None,
            pending: BTreeMap::new(),
            next_ticket: 1,
            verdict: None,
        };
        core.order();
        for index in 0..core.trials.len() {
            core.note_ready(index);
        }
        core.spares = core.spares_of_plan();
        Ok(core)
    }

    /// The first commands.
    pub fn begin(&mut self, now: Moment) -> Vec<Command> {
        self.now = now;
        for index in 0..self.trials.len() {
            if matches!(self.trials[index].standing, Standing::Abandoned(_)) {
                self.abandon_dependents(index);
            }
        }
        self.lease_from(now);
        if self.options.takes_over {
            self.expect_workers_back();
        }
        self.scale();
        self.conclude()
    }

    /// Takes an event in and says what is to be done, in order. `now` never goes back.
    pub fn handle(&mut self, now: Moment, event: Event) -> Vec<Command> {
        self.now = now;
        match event {
            Event::Worker(worker, event) => {
                if let Some(event) = self.keep_while_rejoining(worker, event) {
                    self.worker(worker, event);
                }
            }
            Event::Launcher(event) => self.launcher(event),
            Event::Stored(ticket, result) => self.stored(ticket, result),
            Event::Lease(event) => self.lease_event(event),
            Event::Tick => {}
            Event::Drain => self.drain(),
            Event::Stop => self.conclude_with(Verdict::Stopped),
            Event::Retry(trial) => self.retry(&trial),
        }
        while let Some(timer) = self.timers.pop(now) {
            self.expired(timer);
        }
        self.conclude()
    }

    /// Trials that are neither done nor abandoned.
    pub fn unfinished(&self) -> usize {
        self.open
    }

    pub(super) fn has_work(&self) -> bool {
        self.open > 0
    }

    /// How it ended, if it has.
    pub fn verdict(&self) -> Option<&Verdict> {
        self.verdict.as_ref()
    }

    /// Why each abandoned trial is.
    pub fn abandoned(&self) -> BTreeMap<TrialId, Cause> {
        let abandoned = self.trials.iter().filter_map(|t| match &t.standing {
            Standing::Abandoned(cause) => Some((t.job.trial.clone(), cause.clone())),
            _ => None,
        });
        abandoned.collect()
    }

    /// It ends with this, unless it has ended before.
    pub(super) fn conclude_with(&mut self, verdict: Verdict) {
        self.verdict.get_or_insert(verdict);
    }

    /// What follows from any change: new generations, the next wake-up, the end.
    fn conclude(&mut self) -> Vec<Command> {
        self.schedule();
        self.grow();
        self.give_back();
        self.conclude_if_drained();
        if self.open == 0 && self.groups.is_empty() && self.pending.is_empty() {
            self.conclude_with(Verdict::Complete);
        }
        let next = self.timers.next();
        if let Some(next) = next
            && self.wake != Some(next)
        {
            self.commands.push(Command::WakeAt(next));
        }
        self.wake = next;
        std::mem::take(&mut self.commands)
    }

    pub(super) fn publish(&mut self, entry: Entry) {
        self.commands.push(Command::Publish(entry));
    }

    pub(super) fn worker(&mut self, worker: WorkerId, event: WorkerEvent) {
        match event {
            WorkerEvent::Joined(inventory) => self.joined(worker, inventory),
            WorkerEvent::Rejoined(inventory, membership) => {
                self.rejoined(worker, inventory, membership);
            }
            WorkerEvent::Leaving => self.leaving(worker),
            WorkerEvent::Left => self.left(worker),
            WorkerEvent::Ready {
                generation,
                endpoint,
            } => self.ready(worker, generation, endpoint),
            WorkerEvent::Progress { generation, event } => {
                self.progress(worker, generation, event);
            }
            WorkerEvent::Finished {
                generation,
                outcome,
            } => self.finished(worker, generation, outcome),
            WorkerEvent::Failed {
                generation,
                failure,
            } => self.trouble(worker, generation, Trouble::Failed { failure }),
            WorkerEvent::Stopped { generation } => self.stopped(worker, generation),
        }
    }

    /// Changes how far a trial is.
    pub(super) fn stand(&mut self, index: usize, standing: Standing) {
        let trial = &mut self.trials[index];
        let (was, is) = (trial.standing.is_open(), standing.is_open());
        // Work never gets more: a trial that waits again can use what it could before.
        self.demand_is_known &= matches!(standing, Standing::Waiting | Standing::Running(_));
        trial.standing = standing;
        self.open = self.open + usize::from(is) - usize::from(was);
        self.note_ready(index);
    }

    /// Keeps [`Core::ready`] true to what a trial has become.
    pub(super) fn note_ready(&mut self, index: usize) {
        let trial = &self.trials[index];
        let done = |after: usize| self.trials[after].standing == Standing::Done;
        if trial.standing == Standing::Waiting
            && trial.after.is_none_or(done)
            && trial.not_before.is_none()
        {
            self.ready.insert(trial.place, index);
        } else {
            self.ready.remove(&trial.place);
        }
    }

    fn expired(&mut self, timer: Timer) {
        match timer {
            Timer::Generation(generation) => self.late(generation),
            Timer::Fact(ticket) => self.fact_is_due(ticket),
            Timer::Joining(launch) => self.never_joined(launch),
            Timer::LetGo(worker) => self.never_left(worker),
            Timer::Scaling => self.scale(),
            Timer::Renewal => self.renew(),
            Timer::LeaseEnd => self.lease_is_over(),
            Timer::Settled => self.settled(),
            Timer::Retry(index) => {
                self.trials[index].not_before = None;
                self.note_ready(index);
            }
            // Whatever follows is seen when the trials are looked at next.
            Timer::Shrinking | Timer::Growing => {}
        }
    }

    fn stored(&mut self, ticket: Ticket, result: Result<(), StoreTrouble>) {
        match result {
            Ok(()) => self.fact_is_stored(ticket),
            Err(trouble) => self.fact_has_trouble(ticket, trouble),
        }
    }
}

/// Indices of trials, each after the one that it starts from.
fn starts_first(trials: &[Trial]) -> Vec<usize> {
    let roots = (0..trials.len()).filter(|&index| trials[index].after.is_none());
    let mut order: Vec<usize> = roots.collect();
    let mut at = 0;
    while let Some(&index) = order.get(at) {
        order.extend(&trials[index].dependents);
        at += 1;
    }
    order
}

impl Trial {
    fn new(job: Job, names: &BTreeMap<TrialId, usize>, workers: u32) -> Result<Trial, JobError> {
        let after = match &job.after {
            None => None,
            Some(after) => {
                let index = names.get(after).ok_or_else(|| JobError::UnknownStart {
                    trial: job.trial.clone(),
                    after: after.clone(),
                })?;
                Some(*index)
            }
        };
        let (standing, spent) = match &job.history {
            History::Missing(spent) => (Standing::Waiting, *spent),
            History::Done => (Standing::Done, Spent::default()),
            History::Abandoned(cause) => (Standing::Abandoned(cause.clone()), Spent::default()),
        };
        if standing == Standing::Waiting && job.world > workers {
            return Err(JobError::TooLarge {
                trial: job.trial,
                world: job.world,
                workers,
            });
        }
        Ok(Trial {
            job,
            place: 0,
            after,
            dependents: Vec::new(),
            standing,
            spent,
            overtaken: None,
            step: Step(0),
            outages: 0,
            not_before: None,
            survivors: Vec::new(),
        })
    }
}
