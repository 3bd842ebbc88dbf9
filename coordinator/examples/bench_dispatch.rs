//! The control loop's own speed: the real core, with workers that answer at once. Prints a line of JSON.

use polestar_coordinator::{
    control::core::{
        Command, Core, Deadlines, Event, History, Inventory, Job, LeaseEvent, Limits, Moment,
        Options, Order, Work, WorkerEvent,
    },
    run::Spent,
};
use polestar_core::{Digest, Epoch, Generation, Step, TrialId, WorkerId};
use polestar_run::{Consumed, Failure, Outcome, failure::Phase};
use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

const MANY: u32 = 10_000;

fn core(workers: u32, jobs: Vec<Job>) -> Core {
    let options = Options {
        epoch: Epoch(1),
        lease: Duration::from_secs(15),
        takes_over: false,
        workers,
        limits: Limits {
            failures: 2,
            losses: 100,
        },
        deadlines: Deadlines::default(),
    };
    Core::new(options, jobs).expect("jobs that fit")
}

fn job(number: u32, world: u32) -> Job {
    Job {
        trial: TrialId(format!("t{number}")),
        after: None,
        work: Work {
            kind: "all alike".to_owned(),
            of_step: 1.0,
            steps: 0..1,
        },
        world,
        least_world: 1,
        shares: false,
        history: History::Missing(Spent::default()),
    }
}

fn outcome(trial: TrialId) -> Outcome {
    Outcome {
        digest: Digest::of(trial.0.as_bytes()),
        trial,
        steps: 1,
        validation: BTreeMap::new(),
        along: BTreeMap::new(),
        consumed: Consumed::default(),
        flops_6nd: 1.0,
        flops_executed: 1.0,
    }
}

/// A core whose workers open their ports and whose store writes at once. What they train is up to who drives it.
struct Pool {
    core: Core,
    now: Duration,
    /// Seconds that each event took.
    took: Vec<f64>,
    /// Generations that were started, in order, with the worker and the trial.
    started: Vec<(WorkerId, Generation, TrialId)>,
    aborted: usize,
    queue: VecDeque<Event>,
}

impl Pool {
    fn new(workers: u32, jobs: Vec<Job>) -> Pool {
        let mut core = core(workers, jobs);
        core.begin(Moment::default());
        Pool {
            core,
            now: Duration::ZERO,
            took: Vec::new(),
            started: Vec::new(),
            aborted: 0,
            queue: VecDeque::new(),
        }
    }

    fn event(&mut self, event: Event) {
        self.queue.push_back(event);
        while let Some(event) = self.queue.pop_front() {
            let begun = Instant::now();
            let commands = self.core.handle(Moment(self.now), event);
            self.took.push(begun.elapsed().as_secs_f64());
            for command in commands {
                self.perform(command);
            }
        }
    }

    fn perform(&mut self, command: Command) {
        match command {
            Command::Send(worker, Order::Prepare { generation }) => {
                let endpoint = ([127, 0, 0, 1], 1).into();
                let ready = WorkerEvent::Ready {
                    generation,
                    endpoint,
                };
                self.queue.push_back(Event::Worker(worker, ready));
            }
            Command::Send(
                worker,
                Order::Start {
                    generation, trial, ..
                },
            ) => self.started.push((worker, generation, trial)),
            Command::Send(_, Order::Abort { .. }) => self.aborted += 1,
            Command::Persist(ticket, _) => self.queue.push_back(Event::Stored(ticket, Ok(()))),
            Command::Renew => {
                let asked = Moment(self.now);
                self.queue
                    .push_back(Event::Lease(LeaseEvent::Renewed { asked }));
            }
            _ => {}
        }
    }

    fn join(&mut self, workers: u32) {
        for number in 1..=workers {
            let inventory = Inventory {
                host: "h".to_owned(),
                pid: number,
                launch: None,
                machine: Default::default(),
            };
            let joined = WorkerEvent::Joined(inventory);
            self.event(Event::Worker(WorkerId(u64::from(number)), joined));
        }
    }

    fn finish(&mut self, worker: WorkerId, generation: Generation, trial: TrialId) {
        let outcome = outcome(trial);
        let finished = WorkerEvent::Finished {
            generation,
            outcome,
        };
        self.event(Event::Worker(worker, finished));
    }

    /// The 99th percentile of what events took, in milliseconds.
    fn p99(&mut self) -> f64 {
        self.took.sort_by(f64::total_cmp);
        1e3 * self.took[self.took.len() * 99 / 100]
    }
}

/// Every worker trains a trial of its own, twice. The 99th percentile of an event, in milliseconds.
fn many_workers() -> f64 {
    let jobs = (0..2 * MANY).map(|number| job(number, 1)).collect();
    let mut pool = Pool::new(MANY, jobs);
    pool.join(MANY);
    while let Some((worker, generation, trial)) = pool.started.pop() {
        pool.finish(worker, generation, trial);
    }
    assert!(pool.core.verdict().is_some(), "every trial is done");
    pool.p99()
}

/// Cores that the loop takes when every worker reports a step a second.
fn progress() -> f64 {
    let jobs = (0..MANY).map(|number| job(number, 1)).collect();
    let mut pool = Pool::new(MANY, jobs);
    pool.join(MANY);
    let started = std::mem::take(&mut pool.started);
    pool.took.clear();
    for (worker, generation, _) in started {
        let event = polestar_run::Event::Stepped {
            step: Step(1),
            loss: 1.0,
            accuracy: None,
            triplets_per_second: 1.0,
        };
        let progress = WorkerEvent::Progress { generation, event };
        pool.event(Event::Worker(worker, progress));
    }
    assert_eq!(pool.took.len(), MANY as usize);
    pool.took.iter().sum()
}

/// From the failure of one rank of a trial over all workers to the order to stop for every other. In seconds.
fn abort_all() -> f64 {
    let mut pool = Pool::new(MANY, vec![job(0, MANY)]);
    pool.join(MANY);
    let (worker, generation, _) = pool.started[0].clone();
    let failure = Failure {
        phase: Phase::Compute,
        message: "broken".to_owned(),
        collateral: false,
        retryable: true,
        last_operation: None,
    };
    let begun = Instant::now();
    let failed = WorkerEvent::Failed {
        generation,
        failure,
    };
    pool.event(Event::Worker(worker, failed));
    let seconds = begun.elapsed().as_secs_f64();
    assert_eq!(pool.aborted, MANY as usize - 1);
    seconds
}

/// Trials of a second on sixteen workers, and what the loop adds to each of them, in real time. In seconds.
fn short_trials() -> f64 {
    const SLOTS: u32 = 16;
    let jobs = (0..MANY).map(|number| job(number, 1)).collect();
    let mut pool = Pool::new(SLOTS, jobs);
    pool.join(SLOTS);
    let mut loops = 0.0;
    while !pool.started.is_empty() {
        pool.now += Duration::from_secs(1);
        let begun = Instant::now();
        for (worker, generation, trial) in std::mem::take(&mut pool.started) {
            pool.finish(worker, generation, trial);
        }
        // All slots wait for the loop.
        loops += begun.elapsed().as_secs_f64();
    }
    assert!(pool.core.verdict().is_some(), "every trial is done");
    pool.now.as_secs_f64() + loops
}

fn main() {
    println!(
        "{{\"event_ms\": {}, \"cores\": {}, \"abort_s\": {}, \"short_s\": {}}}",
        many_workers(),
        progress(),
        abort_all(),
        short_trials()
    );
}
