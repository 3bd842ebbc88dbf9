//! Histories of a pool, event by event; simulated ones by the thousand in [`simulation`].

mod budgets;
mod handover;
mod left;
mod simulation;

use super::*;
use crate::run::{AbandonedTrial, Setback, Spent};
use polestar_core::{Digest, Epoch, Step};
use polestar_run::{
    Consumed,
    failure::{Phase, Trouble},
};
use std::collections::{BTreeMap, VecDeque};

const LEASE: Duration = Duration::from_secs(15);
const LIMITS: Limits = Limits {
    failures: 1,
    losses: 5,
};

fn options(workers: u32) -> Options {
    Options {
        epoch: Epoch(7),
        lease: LEASE,
        takes_over: false,
        workers,
        limits: LIMITS,
        deadlines: Deadlines::default(),
    }
}

fn named(name: &str) -> TrialId {
    TrialId(name.to_owned())
}

fn job(name: &str, cost: f64, world: u32, after: Option<&str>) -> Job {
    Job {
        trial: named(name),
        after: after.map(named),
        work: Work {
            kind: "pico".to_owned(),
            of_step: cost / 10.0,
            steps: 0..10,
        },
        world,
        least_world: world,
        shares: false,
        history: History::Missing(Spent::default()),
    }
}

fn generation(number: u64) -> Generation {
    Generation {
        epoch: Epoch(7),
        number,
    }
}

fn outcome(trial: &TrialId) -> Outcome {
    Outcome {
        trial: trial.clone(),
        steps: 10,
        digest: Digest::of(b"d"),
        validation: BTreeMap::new(),
        along: BTreeMap::new(),
        consumed: Consumed::default(),
        flops_6nd: 1.0,
        flops_executed: 1.0,
    }
}

fn failure(message: &str, collateral: bool, retryable: bool) -> Failure {
    Failure {
        phase: match collateral {
            true => Phase::Collective,
            false => Phase::Compute,
        },
        message: message.to_owned(),
        collateral,
        retryable,
        last_operation: None,
    }
}

fn inventory(worker: u64) -> Inventory {
    Inventory {
        host: "h".to_owned(),
        pid: worker as u32,
        launch: Some(LaunchId(format!("l{worker}"))),
        machine: Default::default(),
    }
}

/// A core, its clock, and a store that takes everything unless it is told not to.
struct Pool {
    core: Core,
    now: u64,
    /// Commands that no test has looked at yet.
    said: VecDeque<Command>,
    facts: Vec<Fact>,
    store_is_down: bool,
    lease_is_stuck: bool,
}

impl Pool {
    fn new(workers: u32, jobs: Vec<Job>) -> Pool {
        let mut core = Core::new(options(workers), jobs).expect("jobs that can be scheduled");
        let said = core.begin(Moment::default()).into();
        Pool {
            core,
            now: 0,
            said,
            facts: Vec::new(),
            store_is_down: false,
            lease_is_stuck: false,
        }
    }

    /// Takes an event in, and lets the store answer.
    fn event(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now = Moment(Duration::from_secs(self.now));
            for command in self.core.handle(now, event) {
                if let Command::Persist(ticket, fact) = &command
                    && !self.store_is_down
                {
                    self.facts.push(fact.clone());
                    events.push_back(Event::Stored(*ticket, Ok(())));
                }
                if command == Command::Renew && !self.lease_is_stuck {
                    events.push_back(Event::Lease(LeaseEvent::Renewed { asked: now }));
                }
                self.said.push_back(command);
            }
        }
    }

    fn worker(&mut self, worker: u64, event: WorkerEvent) {
        self.event(Event::Worker(WorkerId(worker), event));
    }

    fn started(&mut self, inventory: &Inventory) {
        let launch = inventory.launch.clone().expect("it has a name");
        self.event(Event::Launcher(LaunchEvent::Started { launch }));
    }

    fn join(&mut self, worker: u64) {
        self.started(&inventory(worker));
        self.worker(worker, WorkerEvent::Joined(inventory(worker)));
    }

    fn ready(&mut self, worker: u64, number: u64) {
        let event = WorkerEvent::Ready {
            generation: generation(number),
            endpoint: ([127, 0, 0, 1], worker as u16).into(),
        };
        self.worker(worker, event);
    }

    fn begun(&mut self, worker: u64, number: u64) {
        let event = WorkerEvent::Progress {
            generation: generation(number),
            event: polestar_run::Event::Begun {
                step: Step(0),
                steps: 10,
                from: polestar_run::ResumedFrom::Nothing,
                seconds: 1.0,
                passed_over: Vec::new(),
            },
        };
        self.worker(worker, event);
    }

    fn finished(&mut self, worker: u64, number: u64) {
        let running = self.core.groups.get(&generation(number));
        let index = running.expect("a generation that runs").trial;
        let outcome = outcome(&self.core.trials[index].job.trial.clone());
        let event = WorkerEvent::Finished {
            generation: generation(number),
            outcome,
        };
        self.worker(worker, event);
    }

    fn failed(&mut self, worker: u64, number: u64, failure: Failure) {
        let event = WorkerEvent::Failed {
            generation: generation(number),
            failure,
        };
        self.worker(worker, event);
    }

    fn stopped(&mut self, worker: u64, number: u64) {
        let generation = generation(number);
        self.worker(worker, WorkerEvent::Stopped { generation });
    }

    fn wait(&mut self, seconds: u64) {
        self.now += seconds;
        self.event(Event::Tick);
    }

    /// Takes out the commands so far.
    fn said(&mut self) -> Vec<Command> {
        self.said.drain(..).collect()
    }

    /// Takes out the commands so far, and of them those who are asked to stop.
    fn aborted(&mut self) -> Vec<u64> {
        let said = self.said();
        let aborted = said.iter().filter_map(|command| match command {
            Command::Send(worker, Order::Abort { .. }) => Some(worker.0),
            _ => None,
        });
        aborted.collect()
    }

    /// Takes out the commands so far, and of them the workers that are retired.
    fn retired(&mut self) -> Vec<u64> {
        let said = self.said();
        let retired = said.iter().filter_map(|command| match command {
            Command::Retire { worker, .. } => Some(worker.expect("it had joined").0),
            _ => None,
        });
        retired.collect()
    }

    fn state(&self, trial: &str) -> TrialState {
        let status = self.core.status();
        let found = status.trials.into_iter().find(|t| t.trial.0 == trial);
        found.expect("a trial of that name").state
    }

    fn setbacks(&self) -> Vec<Cause> {
        let causes = self.facts.iter().filter_map(|fact| match fact {
            Fact::Ended(setback) => Some(setback.cause.clone()),
            _ => None,
        });
        causes.collect()
    }

    /// A trial that two workers train, at some stage.
    fn two_at(stage: Stage) -> Pool {
        let mut pool = Pool::new(2, vec![job("t", 1.0, 2, None)]);
        pool.join(1);
        pool.join(2);
        if stage >= Stage::Connecting {
            pool.ready(1, 1);
            pool.ready(2, 1);
        }
        if stage >= Stage::Running {
            pool.begun(1, 1);
        }
        if stage == Stage::Stopping {
            // Rank 1 stays busy: it has not answered.
            pool.failed(1, 1, failure("a page is damaged", false, true));
        }
        assert_eq!(pool.core.groups[&generation(1)].stage, stage);
        pool.said.clear();
        pool
    }
}

#[test]
fn the_costliest_goes_first_and_starts_before_what_needs_them() {
    let jobs = vec![
        job("small", 1.0, 1, None),
        job("big", 9.0, 1, Some("start")),
        job("start", 2.0, 1, None),
    ];
    let mut pool = Pool::new(1, jobs);
    assert!(pool.said().contains(&Command::Scale(1)));
    pool.join(1);
    assert!(matches!(pool.state("start"), TrialState::Running { .. }));
    let status = pool.core.status().to_string();
    assert!(
        status.contains("big waits: start must be done first"),
        "{status}"
    );
    assert!(
        status.contains("small waits: it needs 1 free workers; 0 of 1 are free"),
        "{status}"
    );
    pool.ready(1, 1);
    pool.finished(1, 1);
    assert_eq!(pool.state("start"), TrialState::Done);
    // Nobody idles while a result is being stored: the worker was free before `big` could begin.
    assert!(matches!(pool.state("small"), TrialState::Running { .. }));
    pool.ready(1, 2);
    pool.finished(1, 2);
    assert!(matches!(pool.state("big"), TrialState::Running { .. }));
}

#[test]
fn a_worker_that_is_lost_at_any_stage_ends_the_generation_and_the_trial_is_regrouped() {
    for stage in [Stage::Preparing, Stage::Connecting, Stage::Running] {
        let mut pool = Pool::two_at(stage);
        pool.worker(2, WorkerEvent::Left);
        assert_eq!(pool.aborted(), [1], "{stage}");
        // Its collateral failure and its confirmation may both come; it is one setback.
        pool.failed(1, 1, failure("peer lost", true, true));
        pool.stopped(1, 1);
        let [cause] = &pool.setbacks()[..] else {
            panic!("{stage}: {:?}", pool.facts);
        };
        assert!(cause.is_loss(), "{stage}: {cause}");
        let story = cause.to_string();
        assert!(
            story.starts_with("rank 1 on worker 2 (h, pid 2) was lost"),
            "{story}"
        );
        assert!(story.contains("affected as well: rank 0"), "{story}");

        pool.join(3);
        for worker in [1, 3] {
            pool.ready(worker, 2);
        }
        for worker in [1, 3] {
            pool.finished(worker, 2);
        }
        assert_eq!(pool.core.verdict(), Some(&Verdict::Complete), "{stage}");
        let Some(Fact::Done(result)) = pool.facts.last() else {
            panic!("{stage}: {:?}", pool.facts);
        };
        assert_eq!((result.failures, result.losses), (0, 1), "{stage}");
    }
}

#[test]
fn a_process_that_is_back_as_another_worker_does_not_end_with_its_old_stream() {
    let mut pool = Pool::two_at(Stage::Running);
    pool.worker(3, WorkerEvent::Joined(inventory(2)));
    pool.said();
    pool.worker(2, WorkerEvent::Left);
    let ended: Vec<_> = pool.said();
    let ended = ended.iter().filter_map(|command| match command {
        Command::Retire { launch, .. } => Some(launch),
        _ => None,
    });
    assert_eq!(ended.collect::<Vec<_>>(), [&None]);
    pool.stopped(1, 1);
    for worker in [1, 3] {
        pool.ready(worker, 2);
    }
    for worker in [1, 3] {
        pool.finished(worker, 2);
    }
    assert_eq!(pool.core.verdict(), Some(&Verdict::Complete));
}

#[test]
fn a_worker_that_is_lost_while_it_stops_is_no_second_setback() {
    let mut pool = Pool::two_at(Stage::Stopping);
    pool.worker(2, WorkerEvent::Left);
    let [cause] = &pool.setbacks()[..] else {
        panic!("{:?}", pool.facts);
    };
    let story = cause.to_string();
    assert!(
        story.contains("rank 0 on worker 1 (h, pid 1) failed in compute: a page is damaged"),
        "{story}"
    );
    assert!(!cause.is_loss());
}

#[test]
fn a_rank_that_finished_and_is_gone_has_done_its_part() {
    let mut pool = Pool::two_at(Stage::Running);
    pool.finished(2, 1);
    pool.worker(2, WorkerEvent::Left);
    pool.finished(1, 1);
    assert_eq!(pool.state("t"), TrialState::Done);
    assert!(pool.setbacks().is_empty());
}

#[test]
fn whoever_is_stuck_while_preparing_is_retired_and_blamed() {
    let mut pool = Pool::two_at(Stage::Preparing);
    pool.ready(1, 1);
    pool.wait(Deadlines::default().preparing_seconds - 1);
    assert!(pool.retired().is_empty(), "there is a second left");
    pool.wait(1);
    let said = pool.said();
    assert!(said.contains(&Command::Retire {
        worker: Some(WorkerId(2)),
        launch: Some(LaunchId("l2".to_owned())),
        reason: RetireReason::Stuck {
            stage: Stage::Preparing,
            seconds: Deadlines::default().preparing_seconds
        },
        ending: Ending::Forced,
    }));
    pool.stopped(1, 1);
    let cause = pool.setbacks().remove(0).to_string();
    assert!(
        cause.starts_with("rank 1 on worker 2 (h, pid 2) was ended: 120 s of preparing"),
        "{cause}"
    );
    // Its stream's end is no news.
    pool.worker(2, WorkerEvent::Left);
    assert_eq!(pool.setbacks().len(), 1);
}

#[test]
fn whoever_is_stuck_while_stopping_is_retired_and_the_trial_goes_on() {
    let mut pool = Pool::two_at(Stage::Stopping);
    pool.wait(Deadlines::default().stopping_seconds);
    assert_eq!(pool.retired(), [2]);
    assert_eq!(pool.setbacks().len(), 1);
    pool.join(3);
    assert!(matches!(pool.state("t"), TrialState::Running { .. }));
}

#[test]
fn a_generation_without_progress_is_stopped_and_may_be_tried_again() {
    let deadlines = Deadlines::default();
    for (stage, limit) in [
        (Stage::Connecting, deadlines.connecting_seconds),
        (Stage::Running, deadlines.progress_seconds),
    ] {
        let mut pool = Pool::two_at(stage);
        if stage == Stage::Running {
            // A sign of life begins the time anew.
            pool.wait(limit - 1);
            pool.begun(1, 1);
        }
        pool.wait(limit - 1);
        assert!(pool.aborted().is_empty(), "{stage}");
        pool.wait(1);
        assert_eq!(pool.aborted(), [1, 2], "{stage}");
        pool.failed(1, 1, failure("aborted", true, true));
        pool.stopped(2, 1);
        assert_eq!(
            pool.setbacks(),
            [Cause::Stalled {
                stage,
                seconds: limit
            }]
        );
    }
}
