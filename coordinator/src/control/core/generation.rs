//! A generation's way: its ranks get ready, run, fail or stop, and what that means for its trial.

use super::{
    Command, Fact, Order, RetireReason,
    group::{Group, stopped_unasked},
    state::{Core, Standing},
    timers::Timer,
};
use crate::{control::journal::Entry, run::Setback};
use polestar_core::{Generation, WorkerId};
use polestar_run::{
    Cause, Event, Outcome,
    failure::{Stage, Trouble},
};
use std::{net::SocketAddr, time::Duration};

impl Core {
    /// A generation is in a stage from now on, or shows a sign of life in it.
    pub(super) fn enter(&mut self, generation: Generation, stage: Stage) {
        if let Some(group) = self.groups.get_mut(&generation) {
            group.stage = stage;
            let limit = self.options.deadlines.of_stage(stage);
            let timer = Timer::Generation(generation);
            self.timers.set(timer, self.now.after(limit));
        }
    }

    pub(super) fn ready(&mut self, worker: WorkerId, generation: Generation, endpoint: SocketAddr) {
        let Some(group) = self.groups.get_mut(&generation) else {
            return;
        };
        if group.stage != Stage::Preparing {
            return;
        }
        let trial = self.trials[group.trial].job.trial.clone();
        let Some(roster) = group.ready(worker, endpoint) else {
            return;
        };
        self.enter(generation, Stage::Connecting);
        for (rank, worker) in roster.members {
            let (peers, trial) = (roster.endpoints.clone(), trial.clone());
            let order = Order::Start {
                generation,
                rank,
                peers,
                trial,
            };
            self.commands.push(Command::Send(worker, order));
        }
    }

    pub(super) fn progress(&mut self, worker: WorkerId, generation: Generation, event: Event) {
        let Some(group) = self.groups.get(&generation) else {
            return;
        };
        if group.member(worker).is_none() {
            return;
        }
        if matches!(
            group.stage,
            Stage::Connecting | Stage::Running | Stage::Draining
        ) {
            let drains = group.stage == Stage::Draining;
            let trial = &mut self.trials[group.trial];
            trial.step = event.step().unwrap_or(trial.step);
            if matches!(event, Event::Saved { .. }) {
                // The store has answered.
                trial.outages = 0;
            }
            let trial = trial.job.trial.clone();
            // A drain has one deadline, however much is heard meanwhile.
            if !drains {
                self.enter(generation, Stage::Running);
            }
            if let Some(step) = event.step() {
                self.note_pace(generation, step);
            }
            self.publish(Entry::Progress {
                trial,
                generation,
                event,
            });
        }
    }

    pub(super) fn finished(&mut self, worker: WorkerId, generation: Generation, outcome: Outcome) {
        let Some(group) = self.groups.get_mut(&generation) else {
            return;
        };
        group.finished(worker, outcome);
        if !matches!(group.stage, Stage::Stopping | Stage::Draining) {
            // The others have as long as for a step from here on.
            self.enter(generation, Stage::Running);
        }
        self.settle(generation);
    }

    pub(super) fn stopped(&mut self, worker: WorkerId, generation: Generation) {
        let Some(group) = self.groups.get_mut(&generation) else {
            return;
        };
        if matches!(group.stage, Stage::Stopping | Stage::Draining) {
            group.released(worker);
            self.settle(generation);
        } else if group.busy().contains(&worker) {
            self.trouble(worker, generation, stopped_unasked());
        }
    }

    /// Something is wrong with a member: the whole generation has to end.
    pub(super) fn trouble(&mut self, worker: WorkerId, generation: Generation, trouble: Trouble) {
        let Some(group) = self.groups.get_mut(&generation) else {
            return;
        };
        group.released(worker);
        let trial = self.trials[group.trial].job.trial.clone();
        let members = group.members().cloned().collect();
        let failed = matches!(trouble, Trouble::Failed { .. });
        if let Some(blame) = group.blame(worker, trouble)
            && failed
        {
            // At once: what follows may have to wait for somebody who doesn't answer.
            let blame = blame.clone();
            self.publish(Entry::RankFailed {
                trial,
                generation,
                blame,
                members,
            });
        }
        self.stop(generation);
    }

    /// Begins to stop a generation that has a cause to; otherwise only looks whether it is over.
    fn stop(&mut self, generation: Generation) {
        if let Some(group) = self.groups.get(&generation)
            && group.has_trouble()
            && group.stage != Stage::Stopping
        {
            self.release(generation);
        }
        self.settle(generation);
    }

    /// Has all ranks of a generation that are at work stop.
    pub(super) fn release(&mut self, generation: Generation) {
        let Some(group) = self.groups.get(&generation) else {
            return;
        };
        let cause = group.has_trouble().then(|| group.cause());
        let busy = group.busy();
        self.enter(generation, Stage::Stopping);
        for worker in busy {
            let cause = cause.clone();
            let order = Order::Abort { generation, cause };
            self.commands.push(Command::Send(worker, order));
        }
    }

    /// Ends a generation none of whose members is busy any more.
    fn settle(&mut self, generation: Generation) {
        if !self.groups.get(&generation).is_some_and(Group::is_over) {
            return;
        }
        let group = self
            .groups
            .remove(&generation)
            .expect("it was there a line ago");
        self.timers.clear(&Timer::Generation(generation));
        self.trials[group.trial].survivors = group.members().map(|m| m.worker).collect();
        for member in group.members() {
            if let Some(worker) = self.workers.get_mut(&member.worker) {
                worker.generation = None;
                self.free(member.worker);
            }
        }
        match group.outcome() {
            Some(outcome) => {
                self.note_end(&group);
                self.complete(group.trial, outcome.clone());
            }
            None if group.has_trouble() => {
                self.setback(group.trial, generation, group.cause());
            }
            None => self.drained(group.trial, generation),
        }
    }

    /// A generation ended as asked: its trial goes on when there are workers for it.
    fn drained(&mut self, index: usize, generation: Generation) {
        let trial = &self.trials[index];
        let (name, step) = (trial.job.trial.clone(), trial.step);
        self.stand(index, Standing::Waiting);
        self.publish(Entry::Drained {
            trial: name,
            generation,
            step,
        });
    }

    /// A trial's generation ended before it: try it again, or not.
    pub(super) fn setback(&mut self, index: usize, generation: Generation, cause: Cause) {
        let limits = self.options.limits;
        let trial = &mut self.trials[index];
        trial.spent.add(&cause);
        let spent = trial.spent;
        let name = trial.job.trial.clone();
        let record = Setback::new(name.clone(), generation, cause.clone());
        self.persist(Fact::Ended(record));
        let too_often = spent.failures > limits.failures || spent.losses > limits.losses;
        if too_often || !cause.is_retryable() {
            self.abandon(index, cause);
        } else {
            if cause.is_store_outage() {
                self.back_off(index);
            }
            self.stand(index, Standing::Waiting);
            self.publish(Entry::Retried {
                trial: name,
                generation,
                cause,
            });
        }
    }

    /// While the store is away, trying again at once only makes more noise.
    fn back_off(&mut self, index: usize) {
        let trial = &mut self.trials[index];
        trial.outages = trial.outages.saturating_add(1);
        let wait = Duration::from_secs(1 << trial.outages.min(6));
        let until = self.now.after(wait);
        trial.not_before = Some(until);
        self.timers.set(Timer::Retry(index), until);
    }

    /// A generation's stage took too long.
    pub(super) fn late(&mut self, generation: Generation) {
        if self.rejoining.contains_key(&generation) {
            return self.give_up_rejoining(generation);
        }
        let Some(group) = self.groups.get_mut(&generation) else {
            return;
        };
        let stage = group.stage;
        let seconds = self.options.deadlines.of_stage(stage).as_secs();
        let culprits = match stage {
            Stage::Preparing => group.without_endpoint(),
            Stage::Stopping => group.busy(),
            // What can't be saved in time is trained again.
            Stage::Draining => return self.release(generation),
            Stage::Rejoining => unreachable!("a group is complete"),
            // Ranks wait for each other, so none can be told to be the one; the engines' own deadline, which
            // is shorter, names the rank where it can.
            Stage::Connecting | Stage::Running => {
                group.stall(seconds);
                Vec::new()
            }
        };
        for worker in culprits {
            self.retire(worker, RetireReason::Stuck { stage, seconds });
            if let Some(group) = self.groups.get_mut(&generation) {
                group.blame(worker, Trouble::Stuck { stage, seconds });
            }
        }
        self.stop(generation);
    }
}
