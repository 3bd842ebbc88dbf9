//! Workers of an earlier coordinator come back, in the middle of their work.
//!
//! A generation of a lower epoch is taken over when all its ranks are back, under its old name. Until then it is
//! *rejoining*, and what its ranks say is kept. If one stays away, the others are stopped and the trial is
//! regrouped, which counts as the loss of a worker.

use super::{
    Command, Inventory, Order, WorkerEvent,
    group::Group,
    state::{Core, Standing},
    timers::Timer,
};
use crate::control::journal::Entry;
use polestar_core::{Generation, Rank, WorkerId};
use polestar_run::{
    Cause,
    failure::{Member, Stage},
    protocol::Membership,
};
use std::collections::BTreeMap;

/// A generation some of whose ranks are back.
#[derive(Clone, Debug)]
pub(super) struct Rejoining {
    /// Index of its trial.
    trial: usize,
    world: u32,
    back: BTreeMap<Rank, Member>,
    /// What those said meanwhile.
    said: Vec<(WorkerId, WorkerEvent)>,
}

impl Core {
    /// Waits for workers of an earlier coordinator before others take up their trials.
    pub(super) fn expect_workers_back(&mut self) {
        let limit = self.options.deadlines.of_stage(Stage::Rejoining);
        self.settling = true;
        self.timers.set(Timer::Settled, self.now.after(limit));
    }

    pub(super) fn settled(&mut self) {
        self.settling = false;
        self.scale();
    }

    pub(super) fn rejoined(
        &mut self,
        worker: WorkerId,
        inventory: Inventory,
        membership: Membership,
    ) {
        self.joined(worker, inventory);
        let generation = membership.generation;
        match self.seat_of(&membership) {
            Some(trial) => self.take_back(worker, trial, membership),
            None => self.commands.push(Command::Send(
                worker,
                Order::Abort {
                    generation,
                    cause: None,
                },
            )),
        }
    }

    /// The trial that a rank which is back goes on with; `None` if nobody wants its work any more.
    fn seat_of(&self, membership: &Membership) -> Option<usize> {
        let generation = membership.generation;
        if generation.epoch >= self.options.epoch || membership.rank.0 >= membership.world {
            return None;
        }
        let trial = self.index_of(&membership.trial)?;
        if self.draining {
            return None;
        }
        match self.rejoining.get(&generation) {
            Some(rejoining) => (rejoining.trial == trial
                && rejoining.world == membership.world
                && !rejoining.back.contains_key(&membership.rank))
            .then_some(trial),
            None => (self.trials[trial].standing == Standing::Waiting).then_some(trial),
        }
    }

    fn take_back(&mut self, worker: WorkerId, trial: usize, membership: Membership) {
        let Membership {
            generation,
            rank,
            world,
            step,
            ..
        } = membership;
        self.idle.remove(&worker);
        let entry = self.workers.get_mut(&worker).expect("it has just joined");
        entry.generation = Some(generation);
        let member = Member {
            rank,
            worker,
            host: entry.inventory.host.clone(),
            pid: entry.inventory.pid,
        };
        let limit = self.options.deadlines.of_stage(Stage::Rejoining);
        let until = self.now.after(limit);
        if !self.rejoining.contains_key(&generation) {
            self.stand(trial, Standing::Running(generation));
            self.timers.set(Timer::Generation(generation), until);
        }
        let rejoining = self
            .rejoining
            .entry(generation)
            .or_insert_with(|| Rejoining {
                trial,
                world,
                back: BTreeMap::new(),
                said: Vec::new(),
            });
        rejoining.back.insert(rank, member);
        let complete = rejoining.back.len() == world as usize;
        let trial = &mut self.trials[trial];
        trial.step = trial.step.max(step);
        if complete {
            self.take_over(generation);
        }
    }

    /// All ranks are back.
    fn take_over(&mut self, generation: Generation) {
        let rejoining = self
            .rejoining
            .remove(&generation)
            .expect("its last rank has just come back");
        let trial = rejoining.trial;
        let members: Vec<Member> = rejoining.back.into_values().collect();
        self.publish(Entry::TakenOver {
            trial: self.trials[trial].job.trial.clone(),
            generation,
            members: members.clone(),
        });
        self.groups.insert(generation, Group::new(trial, members));
        self.enter(generation, Stage::Running);
        for (worker, event) in rejoining.said {
            self.worker(worker, event);
        }
    }

    /// What a rank says whose generation isn't complete yet is kept; anything else is given back.
    pub(super) fn keep_while_rejoining(
        &mut self,
        worker: WorkerId,
        event: WorkerEvent,
    ) -> Option<WorkerEvent> {
        let generation = self.workers.get(&worker).and_then(|w| w.generation);
        let rejoining = generation.and_then(|g| self.rejoining.get_mut(&g));
        match (rejoining, &event) {
            (Some(_), WorkerEvent::Left) | (None, _) => Some(event),
            (Some(rejoining), _) => {
                rejoining.said.push((worker, event));
                None
            }
        }
    }

    /// A generation won't be complete: its ranks stop, and its trial is regrouped.
    pub(super) fn give_up_rejoining(&mut self, generation: Generation) {
        let Some(rejoining) = self.rejoining.remove(&generation) else {
            return;
        };
        self.timers.clear(&Timer::Generation(generation));
        for member in rejoining.back.into_values() {
            let worker = member.worker;
            let Some(entry) = self.workers.get_mut(&worker) else {
                continue;
            };
            entry.generation = None;
            // It obeys in order: whatever it is to do next, this comes first.
            let order = Order::Abort {
                generation,
                cause: None,
            };
            self.commands.push(Command::Send(worker, order));
            self.free(worker);
        }
        let cause = Cause::Stalled {
            stage: Stage::Rejoining,
            seconds: self.options.deadlines.rejoining_seconds,
        };
        self.setback(rejoining.trial, generation, cause);
    }
}
