//! Facts on their way to the store: tried again with growing waits for as long as the store is away. One that it
//! refuses for good is told of.

use super::{
    Command, Fact, StoreTrouble, Ticket,
    state::{Core, Standing},
    timers::Timer,
};
use crate::{
    control::journal::Entry,
    run::{AbandonedTrial, TrialResult},
};
use polestar_run::{Cause, Outcome};
use std::time::Duration;

/// Longest wait between two attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A fact that isn't stored yet.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) fact: Fact,
    attempts: u32,
    /// Whether an attempt is under way, rather than a wait for the next.
    under_way: bool,
}

impl Core {
    /// Has a fact stored.
    pub(super) fn persist(&mut self, fact: Fact) {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let pending = Pending {
            fact,
            attempts: 0,
            under_way: false,
        };
        self.pending.insert(ticket, pending);
        self.attempt(ticket);
    }

    fn attempt(&mut self, ticket: Ticket) {
        let Some(pending) = self.pending.get_mut(&ticket) else {
            return;
        };
        pending.attempts += 1;
        pending.under_way = true;
        let fact = pending.fact.clone();
        let limit = Duration::from_secs(self.options.deadlines.saving_seconds);
        self.timers.set(Timer::Fact(ticket), self.now.after(limit));
        self.commands.push(Command::Persist(ticket, fact));
    }

    pub(super) fn fact_is_stored(&mut self, ticket: Ticket) {
        self.timers.clear(&Timer::Fact(ticket));
        let Some(pending) = self.pending.remove(&ticket) else {
            return;
        };
        if let Fact::Done(result) = pending.fact {
            let outcome = result.outcome;
            if let Some(index) = self.index_of(&outcome.trial) {
                self.done(index, outcome);
            }
        }
    }

    pub(super) fn fact_has_trouble(&mut self, ticket: Ticket, trouble: StoreTrouble) {
        let Some(pending) = self.pending.get_mut(&ticket) else {
            return;
        };
        pending.under_way = false;
        let doublings = (pending.attempts - 1).min(6);
        let wait = Duration::from_secs(1 << doublings).min(LONGEST_WAIT);
        let again = self.now.after(wait);
        if !trouble.retryable {
            self.lose(ticket, trouble);
            return;
        }
        let fact = pending.fact.to_string();
        self.timers.set(Timer::Fact(ticket), again);
        self.publish(Entry::NotStored {
            fact,
            message: trouble.message,
            again_in: Some(wait.as_secs()),
        });
    }

    /// The wait for another attempt is over, or the last attempt didn't come back.
    pub(super) fn fact_is_due(&mut self, ticket: Ticket) {
        let Some(pending) = self.pending.get(&ticket) else {
            return;
        };
        if !pending.under_way {
            return self.attempt(ticket);
        }
        let seconds = self.options.deadlines.saving_seconds;
        let fact = pending.fact.to_string();
        self.publish(Entry::NotStored {
            fact,
            message: format!("the store did not answer in {seconds} s"),
            again_in: Some(0),
        });
        // Written twice is written once: all facts are put if absent, or the same each time.
        self.attempt(ticket);
    }

    /// A fact can never be stored.
    fn lose(&mut self, ticket: Ticket, trouble: StoreTrouble) {
        self.timers.clear(&Timer::Fact(ticket));
        let Some(pending) = self.pending.remove(&ticket) else {
            return;
        };
        self.publish(Entry::NotStored {
            fact: pending.fact.to_string(),
            message: trouble.message.clone(),
            again_in: None,
        });
        // Other facts are for those who come after. Without its result a trial isn't done.
        if let Fact::Done(result) = &pending.fact
            && let Some(index) = self.index_of(&result.outcome.trial)
        {
            let cause = Cause::Store {
                message: trouble.message,
                retryable: trouble.retryable,
            };
            self.abandon(index, cause);
        }
    }

    /// All ranks of a trial reached its end.
    pub(super) fn complete(&mut self, index: usize, outcome: Outcome) {
        let spent = self.trials[index].spent;
        self.stand(index, Standing::Saving);
        self.persist(Fact::Done(TrialResult {
            outcome,
            failures: spent.failures,
            losses: spent.losses,
        }));
    }

    fn done(&mut self, index: usize, outcome: Outcome) {
        self.stand(index, Standing::Done);
        for dependent in self.trials[index].dependents.clone() {
            self.note_ready(dependent);
        }
        self.publish(Entry::Done {
            trial: outcome.trial,
            digest: outcome.digest,
        });
    }

    /// A trial is not tried again, and nor are those that start from it.
    pub(super) fn abandon(&mut self, index: usize, cause: Cause) {
        let trial = &self.trials[index];
        let (name, spent) = (trial.job.trial.clone(), trial.spent);
        self.stand(index, Standing::Abandoned(cause.clone()));
        let record = AbandonedTrial::new(name.clone(), cause.clone(), self.options.epoch, spent);
        self.persist(Fact::Abandoned(record));
        self.publish(Entry::Abandoned { trial: name, cause });
        self.abandon_dependents(index);
    }

    pub(super) fn abandon_dependents(&mut self, index: usize) {
        for dependent in self.trials[index].dependents.clone() {
            if self.trials[dependent].standing == Standing::Waiting {
                let trial = self.trials[index].job.trial.clone();
                self.abandon(dependent, Cause::Start { trial });
            }
        }
    }
}
