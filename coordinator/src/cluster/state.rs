//! The state and its transitions.

use super::{
    Command, Event, Failure, Job, Status, WorkerId,
    group::{Cause, Group, Member, Phase},
};
use polestar_core::{Generation, Rank, TrialId};
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

    /// The workers of a generation by rank, each as `rank 0 is worker 3 (host, pid 77)`.
    pub fn ranks_of(&self, generation: Generation) -> Vec<String> {
        let members = self.groups.get(&generation).map(|g| &g.members[..]);
        let each = members.unwrap_or_default().iter().enumerate();
        each.map(|(rank, member)| format!("rank {rank} is {}", member.name))
            .collect()
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
            let Some(after) = &orphan.job.after else {
                return;
            };
            let story = format!("it starts from {after}, which was given up");
            orphan.state = TrialState::GivenUp(story.clone());
            commands.push(Command::GiveUp {
                trial: orphan.job.trial.clone(),
                story,
            });
        }
    }
}
