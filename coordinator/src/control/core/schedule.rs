//! Which waiting trial gets which workers.
//!
//! The costliest trial goes first. One that needs more workers than are free is overtaken by smaller ones, so
//! that no worker idles; but only for so long: then it is next, and what gets free is kept for it.

use super::{
    Command, Order,
    group::Group,
    state::{Core, Standing},
    timers::Timer,
};
use polestar_core::{Generation, Rank, WorkerId};
use polestar_run::failure::{Member, Stage};
use std::time::Duration;

impl Core {
    /// Groups idle workers around waiting trials.
    pub(super) fn schedule(&mut self) {
        if self.verdict().is_some() {
            return;
        }
        let patience = Duration::from_secs(self.options.deadlines.overtaking_seconds);
        let mut waiting: Vec<usize> = Vec::new();
        let mut from = 0;
        while !self.idle.is_empty()
            && let Some((&place, &index)) = self.ready.range(from..).next()
        {
            from = place + 1;
            let world = self.trials[index].job.world as usize;
            if self.idle.len() >= world {
                for &larger in &waiting {
                    self.trials[larger].overtaken.get_or_insert(self.now);
                }
                self.form(index, world);
                continue;
            }
            let overtaken = self.trials[index].overtaken;
            if overtaken.is_some_and(|since| self.now.since(since) >= patience) {
                return;
            }
            waiting.push(index);
        }
    }

    /// Makes a generation of the first idle workers.
    fn form(&mut self, index: usize, world: usize) {
        let generation = Generation {
            epoch: self.options.epoch,
            number: self.next_generation,
        };
        self.next_generation += 1;
        let chosen: Vec<WorkerId> = self.idle.iter().copied().take(world).collect();
        let mut members = Vec::with_capacity(world);
        for (rank, worker) in chosen.into_iter().enumerate() {
            self.idle.remove(&worker);
            let entry = self
                .workers
                .get_mut(&worker)
                .expect("idle workers are in the pool");
            entry.generation = Some(generation);
            members.push(Member {
                rank: Rank(rank as u32),
                worker,
                host: entry.inventory.host.clone(),
                pid: entry.inventory.pid,
            });
            let order = Order::Prepare { generation };
            self.commands.push(Command::Send(worker, order));
        }
        self.trials[index].overtaken = None;
        self.stand(index, Standing::Running(generation));
        self.groups.insert(generation, Group::new(index, members));
        let limit = self.options.deadlines.of_stage(Stage::Preparing);
        self.timers
            .set(Timer::Generation(generation), self.now.after(limit));
    }
}
