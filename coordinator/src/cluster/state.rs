//! The state and its transitions.

use super::{Command, Event, Failure, Job, Status, WorkerId};
use polestar_worker::{Generation, Rank, TrialId};
use std::collections::{BTreeMap, BTreeSet};

/// How often a trial may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Failures that are the trial's or the program's own.
    pub failures: u32,
    /// Losses of a worker: preemption, a killed process, a dead host.
    pub losses: u32,
}

/// The whole state of a pool and its trials.
#[derive(Clone, Debug)]
pub struct Cluster {
    limits: Limits,
    workers: BTreeMap<WorkerId, Worker>,
    trials: Vec<Trial>,
    groups: BTreeMap<Generation, Group>,
    next_generation: u64,
}

#[derive(Clone, Debug)]
struct Worker {
    name: String,
    group: Option<Generation>,
}

#[derive(Clone, Debug)]
struct Trial {
    job: Job,
    state: TrialState,
    failures: u32,
    losses: u32,
}

#[derive(Clone, Debug, PartialEq)]
enum TrialState {
    Waiting,
    Running(Generation),
    Done,
    GivenUp(String),
}

#[derive(Clone, Debug)]
struct Group {
    trial: usize,
    /// By rank.
    members: Vec<Member>,
    phase: Phase,
    causes: Vec<Cause>,
}

#[derive(Clone, Debug)]
struct Member {
    worker: WorkerId,
    name: String,
    address: Option<String>,
    outcome: Option<String>,
    /// Whether its engine may still run.
    busy: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Preparing,
    Running,
    Stopping,
}

#[derive(Clone, Debug)]
enum Cause {
    Lost { who: String },
    Failed { who: String, failure: Failure },
}

impl Cluster {
    /// A pool without workers.
    pub fn new(jobs: Vec<Job>, limits: Limits) -> Cluster {
        let trials = jobs
            .into_iter()
            .map(|job| Trial {
                state: if job.done {
                    TrialState::Done
                } else {
                    TrialState::Waiting
                },
                job,
                failures: 0,
                losses: 0,
            })
            .collect();
        Cluster {
            limits,
            workers: BTreeMap::new(),
            trials,
            groups: BTreeMap::new(),
            next_generation: 1,
        }
    }

    /// Takes an event in and says what is to be done, in order.
    pub fn handle(&mut self, event: Event) -> Vec<Command> {
        let mut commands = Vec::new();
        match event {
            Event::Joined { worker, host, pid } => {
                let name = format!("{worker} ({host}, pid {pid})");
                self.workers.insert(worker, Worker { name, group: None });
            }
            Event::Left(worker) => self.left(worker, &mut commands),
            Event::Ready {
                worker,
                generation,
                address,
            } => self.ready(worker, generation, address, &mut commands),
            Event::Finished {
                worker,
                generation,
                outcome,
            } => self.finished(worker, generation, outcome, &mut commands),
            Event::Failed {
                worker,
                generation,
                failure,
            } => self.failed(worker, generation, failure, &mut commands),
            Event::Stopped { worker, generation } => {
                self.release(worker, generation);
                self.settle(generation, &mut commands);
            }
        }
        self.schedule(&mut commands);
        commands
    }

    /// Whether every trial is done or given up and no group is left.
    pub fn is_complete(&self) -> bool {
        self.groups.is_empty()
            && self
                .trials
                .iter()
                .all(|t| matches!(t.state, TrialState::Done | TrialState::GivenUp(_)))
    }

    /// Every trial and how far it is.
    pub fn statuses(&self) -> Vec<(TrialId, Status)> {
        let status = |trial: &Trial| match &trial.state {
            TrialState::Waiting => Status::Waiting(self.why_waiting(trial)),
            TrialState::Running(generation) => Status::Running(*generation),
            TrialState::Done => Status::Done,
            TrialState::GivenUp(why) => Status::GivenUp(why.clone()),
        };
        let line = |t: &Trial| (t.job.trial.clone(), status(t));
        self.trials.iter().map(line).collect()
    }

    /// The trial that a generation works on.
    pub fn trial_of(&self, generation: Generation) -> Option<&TrialId> {
        let group = self.groups.get(&generation)?;
        Some(&self.trials[group.trial].job.trial)
    }

    fn why_waiting(&self, trial: &Trial) -> String {
        if let Some(after) = &trial.job.after
            && !self.is_done(after)
        {
            return format!("{after} must be done first");
        }
        let idle = self.workers.values().filter(|w| w.group.is_none()).count();
        format!(
            "it needs {} free workers; {idle} of {} are free",
            trial.job.world,
            self.workers.len()
        )
    }

    fn is_done(&self, id: &TrialId) -> bool {
        self.trials
            .iter()
            .any(|t| t.job.trial == *id && t.state == TrialState::Done)
    }

    /// Groups idle workers around waiting trials, costliest first.
    fn schedule(&mut self, commands: &mut Vec<Command>) {
        self.give_up_orphans(commands);
        let mut order: Vec<usize> = (0..self.trials.len())
            .filter(|&i| self.trials[i].state == TrialState::Waiting)
            .filter(|&i| {
                let after = self.trials[i].job.after.as_ref();
                after.is_none_or(|id| self.is_done(id))
            })
            .collect();
        order.sort_by(|&a, &b| {
            let cost = |i: usize| self.trials[i].job.cost;
            cost(b).total_cmp(&cost(a)).then(a.cmp(&b))
        });
        for index in order {
            let world = self.trials[index].job.world as usize;
            let idle: Vec<WorkerId> = self
                .workers
                .iter()
                .filter(|(_, w)| w.group.is_none())
                .map(|(id, _)| *id)
                .take(world)
                .collect();
            // A costlier trial that can't start yet must not be overtaken for ever.
            if idle.len() < world {
                return;
            }
            self.group(index, &idle, commands);
        }
    }

    fn group(&mut self, trial: usize, workers: &[WorkerId], commands: &mut Vec<Command>) {
        let generation = Generation(self.next_generation);
        self.next_generation += 1;
        let mut members = Vec::with_capacity(workers.len());
        for &worker in workers {
            let Some(entry) = self.workers.get_mut(&worker) else {
                continue;
            };
            entry.group = Some(generation);
            members.push(Member {
                worker,
                name: entry.name.clone(),
                address: None,
                outcome: None,
                busy: true,
            });
            commands.push(Command::Prepare { worker, generation });
        }
        self.trials[trial].state = TrialState::Running(generation);
        self.groups.insert(
            generation,
            Group {
                trial,
                members,
                phase: Phase::Preparing,
                causes: Vec::new(),
            },
        );
    }

    fn ready(
        &mut self,
        worker: WorkerId,
        generation: Generation,
        address: String,
        commands: &mut Vec<Command>,
    ) {
        let Some(group) = self.groups.get_mut(&generation) else {
            return;
        };
        if group.phase != Phase::Preparing {
            return;
        }
        if let Some(member) = group.members.iter_mut().find(|m| m.worker == worker) {
            member.address = Some(address);
        }
        let addresses: Option<Vec<String>> =
            group.members.iter().map(|m| m.address.clone()).collect();
        let Some(peers) = addresses else { return };
        group.phase = Phase::Running;
        for (rank, member) in group.members.iter().enumerate() {
            commands.push(Command::Start {
                worker: member.worker,
                generation,
                rank: Rank(rank as u32),
                peers: peers.clone(),
                trial: self.trials[group.trial].job.trial.clone(),
            });
        }
    }

    fn finished(
        &mut self,
        worker: WorkerId,
        generation: Generation,
        outcome: String,
        commands: &mut Vec<Command>,
    ) {
        let Some(group) = self.groups.get_mut(&generation) else {
            return;
        };
        if let Some(member) = group.members.iter_mut().find(|m| m.worker == worker) {
            member.outcome = Some(outcome);
        }
        self.release(worker, generation);
        self.settle(generation, commands);
    }

    fn failed(
        &mut self,
        worker: WorkerId,
        generation: Generation,
        failure: Failure,
        commands: &mut Vec<Command>,
    ) {
        let Some(group) = self.groups.get_mut(&generation) else {
            return;
        };
        if let Some((rank, member)) = group.member(worker) {
            let who = format!("rank {rank} on {}", member.name);
            group.causes.push(Cause::Failed { who, failure });
        }
        self.release(worker, generation);
        self.stop(generation, commands);
    }

    fn left(&mut self, worker: WorkerId, commands: &mut Vec<Command>) {
        let Some(entry) = self.workers.remove(&worker) else {
            return;
        };
        let Some(generation) = entry.group else {
            return;
        };
        let Some(group) = self.groups.get_mut(&generation) else {
            return;
        };
        if let Some((rank, member)) = group.member(worker) {
            // A rank that had finished has done its part.
            if member.outcome.is_none() {
                let who = format!("rank {rank} on {}", member.name);
                group.causes.push(Cause::Lost { who });
            }
        }
        self.release(worker, generation);
        self.stop(generation, commands);
    }

    /// Marks a member's engine as ended; the worker itself is free only when its group is gone,
    /// unless the group has succeeded for it.
    fn release(&mut self, worker: WorkerId, generation: Generation) {
        if let Some(group) = self.groups.get_mut(&generation)
            && let Some(member) = group.members.iter_mut().find(|m| m.worker == worker)
        {
            member.busy = false;
        }
    }

    /// Begins to stop a group that has a cause to; otherwise only looks whether it is over.
    fn stop(&mut self, generation: Generation, commands: &mut Vec<Command>) {
        if let Some(group) = self.groups.get_mut(&generation)
            && !group.causes.is_empty()
            && group.phase != Phase::Stopping
        {
            group.phase = Phase::Stopping;
            let reason = group.story();
            for member in group.members.iter().filter(|m| m.busy) {
                commands.push(Command::Abort {
                    worker: member.worker,
                    generation,
                    reason: reason.clone(),
                });
            }
        }
        self.settle(generation, commands);
    }

    /// Ends a group none of whose members is busy any more.
    fn settle(&mut self, generation: Generation, commands: &mut Vec<Command>) {
        let over = self
            .groups
            .get(&generation)
            .is_some_and(|g| g.members.iter().all(|m| !m.busy));
        if !over {
            return;
        }
        let Some(group) = self.groups.remove(&generation) else {
            return;
        };
        for worker in self.workers.values_mut() {
            if worker.group == Some(generation) {
                worker.group = None;
            }
        }
        let trial = &mut self.trials[group.trial];
        let id = trial.job.trial.clone();
        let outcomes: Option<Vec<&String>> =
            group.members.iter().map(|m| m.outcome.as_ref()).collect();
        if let Some(outcomes) = outcomes {
            trial.state = TrialState::Done;
            commands.push(Command::Record {
                trial: id,
                outcome: outcomes[0].clone(),
                failures: trial.failures,
                losses: trial.losses,
            });
            return;
        }
        let story = group.story();
        let hopeless = group.first_failure().is_some_and(|f| !f.retryable);
        if group.was_lost() {
            trial.losses += 1;
        } else {
            trial.failures += 1;
        }
        if hopeless || trial.failures > self.limits.failures || trial.losses > self.limits.losses {
            trial.state = TrialState::GivenUp(story.clone());
            commands.push(Command::GiveUp { trial: id, story });
        } else {
            trial.state = TrialState::Waiting;
            commands.push(Command::Retry { trial: id, story });
        }
    }

    /// A trial whose start was given up can never begin.
    fn give_up_orphans(&mut self, commands: &mut Vec<Command>) {
        loop {
            let lost: BTreeSet<TrialId> = self
                .trials
                .iter()
                .filter(|t| matches!(t.state, TrialState::GivenUp(_)))
                .map(|t| t.job.trial.clone())
                .collect();
            let orphan = self.trials.iter_mut().find(|t| {
                t.state == TrialState::Waiting
                    && t.job.after.as_ref().is_some_and(|a| lost.contains(a))
            });
            let Some(orphan) = orphan else { return };
            let after = orphan.job.after.clone().unwrap_or(orphan.job.trial.clone());
            let story = format!("it starts from {after}, which was given up");
            orphan.state = TrialState::GivenUp(story.clone());
            commands.push(Command::GiveUp {
                trial: orphan.job.trial.clone(),
                story,
            });
        }
    }
}

impl Group {
    fn member(&self, worker: WorkerId) -> Option<(usize, &Member)> {
        self.members
            .iter()
            .enumerate()
            .find(|(_, m)| m.worker == worker)
    }

    /// Index of the cause that began it: the first that is no collateral. A lost worker counts
    /// before failures of others, which usually follow from it.
    fn first(&self) -> Option<usize> {
        let real = |c: &Cause| matches!(c, Cause::Failed { failure, .. } if !failure.collateral);
        let lost = |c: &Cause| matches!(c, Cause::Lost { .. });
        let position = |f: &dyn Fn(&Cause) -> bool| self.causes.iter().position(f);
        position(&real)
            .or_else(|| position(&lost))
            .or(if self.causes.is_empty() {
                None
            } else {
                Some(0)
            })
    }

    fn first_failure(&self) -> Option<&Failure> {
        match &self.causes[self.first()?] {
            Cause::Failed { failure, .. } => Some(failure),
            Cause::Lost { .. } => None,
        }
    }

    fn was_lost(&self) -> bool {
        let first = self.first().map(|i| &self.causes[i]);
        matches!(first, Some(Cause::Lost { .. }))
    }

    /// First cause, then whoever suffered from it.
    fn story(&self) -> String {
        let Some(first) = self.first() else {
            return "it was stopped".to_owned();
        };
        let mut story = self.causes[first].sentence();
        let others: Vec<String> = self
            .causes
            .iter()
            .enumerate()
            .filter(|(i, _)| *i != first)
            .map(|(_, c)| c.who().to_owned())
            .collect();
        if !others.is_empty() {
            story.push_str(&format!(" (in its wake: {})", others.join(", ")));
        }
        story
    }
}

impl Cause {
    fn who(&self) -> &str {
        match self {
            Cause::Lost { who } | Cause::Failed { who, .. } => who,
        }
    }

    fn sentence(&self) -> String {
        match self {
            Cause::Lost { who } => format!("{who} was lost: its process or host is gone"),
            Cause::Failed { who, failure } => {
                format!("{who} failed in {}: {}", failure.phase, failure.message)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        failures: 1,
        losses: 5,
    };

    fn job(name: &str, cost: f64, world: u32, after: Option<&str>) -> Job {
        Job {
            trial: TrialId(name.to_owned()),
            after: after.map(|a| TrialId(a.to_owned())),
            cost,
            world,
            done: false,
        }
    }

    fn joined(worker: u64) -> Event {
        Event::Joined {
            worker: WorkerId(worker),
            host: "h".into(),
            pid: worker as u32,
        }
    }

    fn finished(worker: u64, generation: u64) -> Event {
        Event::Finished {
            worker: WorkerId(worker),
            generation: Generation(generation),
            outcome: format!("outcome of {worker}"),
        }
    }

    /// Answers every Prepare at once and returns the trials that start, with their generation.
    fn answer(cluster: &mut Cluster, commands: Vec<Command>) -> Vec<(TrialId, Generation)> {
        let mut started = Vec::new();
        let mut queue: std::collections::VecDeque<Command> = commands.into();
        while let Some(command) = queue.pop_front() {
            match command {
                Command::Prepare { worker, generation } => {
                    queue.extend(cluster.handle(Event::Ready {
                        worker,
                        generation,
                        address: format!("a{}", worker.0),
                    }));
                }
                Command::Start {
                    rank: Rank(0),
                    trial,
                    generation,
                    ..
                } => started.push((trial, generation)),
                _ => {}
            }
        }
        started
    }

    #[test]
    fn costliest_first_and_starts_before_what_needs_them() {
        let jobs = vec![
            job("small", 1.0, 1, None),
            job("big", 9.0, 1, Some("start")),
            job("start", 2.0, 1, None),
        ];
        let mut cluster = Cluster::new(jobs, LIMITS);
        let commands = cluster.handle(joined(1));
        let started = answer(&mut cluster, commands);
        assert_eq!(started[0].0.0, "start");
        assert_eq!(
            cluster.statuses()[1].1,
            Status::Waiting("start must be done first".into())
        );
        let commands = cluster.handle(finished(1, 1));
        assert!(matches!(&commands[0], Command::Record { trial, .. } if trial.0 == "start"));
        let started = answer(&mut cluster, commands);
        assert_eq!(started[0].0.0, "big");
    }

    #[test]
    fn a_lost_worker_ends_the_generation_and_the_trial_is_regrouped() {
        let mut cluster = Cluster::new(vec![job("t", 1.0, 2, None)], LIMITS);
        cluster.handle(joined(1));
        let commands = cluster.handle(joined(2));
        answer(&mut cluster, commands);

        let commands = cluster.handle(Event::Left(WorkerId(2)));
        assert!(
            matches!(
                &commands[..],
                [Command::Abort {
                    worker: WorkerId(1),
                    ..
                }]
            ),
            "{commands:?}"
        );
        // Its collateral failure and its confirmation may both come; the trial is retried once.
        let failure = Failure {
            phase: "collective".into(),
            message: "peer lost".into(),
            collateral: true,
            retryable: true,
        };
        let commands = cluster.handle(Event::Failed {
            worker: WorkerId(1),
            generation: Generation(1),
            failure,
        });
        let [Command::Retry { story, .. }] = &commands[..] else {
            panic!("{commands:?}");
        };
        assert!(
            story.starts_with("rank 1 on worker 2 (h, pid 2) was lost"),
            "{story}"
        );
        assert!(story.contains("in its wake: rank 0"), "{story}");
        assert!(
            cluster
                .handle(Event::Stopped {
                    worker: WorkerId(1),
                    generation: Generation(1)
                })
                .is_empty()
        );

        let commands = cluster.handle(joined(3));
        let started = answer(&mut cluster, commands);
        assert_eq!(started, [(TrialId("t".into()), Generation(2))]);
        cluster.handle(finished(1, 2));
        let commands = cluster.handle(finished(3, 2));
        assert!(
            matches!(
                &commands[..],
                [Command::Record {
                    losses: 1,
                    failures: 0,
                    ..
                }]
            ),
            "{commands:?}"
        );
        assert!(cluster.is_complete());
    }

    #[test]
    fn what_can_not_help_is_not_tried_again_and_takes_its_dependents_along() {
        let jobs = vec![job("a", 1.0, 1, None), job("b", 1.0, 1, Some("a"))];
        let mut cluster = Cluster::new(jobs, LIMITS);
        let commands = cluster.handle(joined(1));
        answer(&mut cluster, commands);
        let commands = cluster.handle(Event::Failed {
            worker: WorkerId(1),
            generation: Generation(1),
            failure: Failure {
                phase: "compute".into(),
                message: "the loss is not finite".into(),
                collateral: false,
                retryable: false,
            },
        });
        let given_up: Vec<&str> = commands
            .iter()
            .filter_map(|c| match c {
                Command::GiveUp { trial, .. } => Some(trial.0.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(given_up, ["a", "b"]);
        assert!(cluster.is_complete());
    }

    #[test]
    fn failures_are_counted_apart_from_losses() {
        let mut cluster = Cluster::new(vec![job("t", 1.0, 1, None)], LIMITS);
        let mut worker = 0;
        let mut generation = 0;
        let mut lose = |cluster: &mut Cluster| {
            worker += 1;
            generation += 1;
            let commands = cluster.handle(joined(worker));
            answer(cluster, commands);
            cluster.handle(Event::Left(WorkerId(worker)))
        };
        for _ in 0..LIMITS.losses {
            assert!(matches!(lose(&mut cluster)[..], [Command::Retry { .. }]));
        }
        assert!(matches!(lose(&mut cluster)[..], [Command::GiveUp { .. }]));
    }
}
