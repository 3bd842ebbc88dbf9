//! What is due when.

use super::{Moment, Ticket};
use crate::launcher::LaunchId;
use polestar_core::{Generation, WorkerId};
use std::collections::{BTreeMap, BTreeSet};

/// What a deadline is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The stage of a generation.
    Generation(Generation),
    /// A fact on its way to the store.
    Fact(Ticket),
    /// A process that hasn't joined.
    Joining(LaunchId),
    /// A worker that was let go and hasn't left.
    LetGo(WorkerId),
    /// Another attempt to have enough processes.
    Scaling,
    /// The lease is to be renewed.
    Renewal,
    /// The lease's time is over.
    LeaseEnd,
    /// Workers of an earlier coordinator had their time to come back.
    Settled,
    /// A trial may be tried again.
    Retry(usize),
    /// The pool had its time to become as large as a trial wants.
    Shrinking,
    /// Workers that nobody needs had their time to be needed.
    Growing,
}

/// At most one moment for each timer.
#[derive(Clone, Debug, Default)]
pub(super) struct Timers {
    due: BTreeSet<(Moment, Timer)>,
    set: BTreeMap<Timer, Moment>,
}

impl Timers {
    /// Sets a timer, in place of what it was set to.
    pub(super) fn set(&mut self, timer: Timer, at: Moment) {
        self.clear(&timer);
        self.set.insert(timer.clone(), at);
        self.due.insert((at, timer));
    }

    pub(super) fn is_set(&self, timer: &Timer) -> bool {
        self.set.contains_key(timer)
    }

    pub(super) fn clear(&mut self, timer: &Timer) {
        if let Some(at) = self.set.remove(timer) {
            self.due.remove(&(at, timer.clone()));
        }
    }

    /// Takes out a timer that is due.
    pub(super) fn pop(&mut self, now: Moment) -> Option<Timer> {
        let (at, _) = self.due.first()?;
        if *at > now {
            return None;
        }
        let (_, timer) = self.due.pop_first()?;
        self.set.remove(&timer);
        Some(timer)
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Moment> {
        self.due.first().map(|(at, _)| *at)
    }
}
