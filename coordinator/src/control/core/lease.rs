//! The right to lead: without it no generation is formed.
//!
//! A lease lasts for a while from the moment at which it was asked for. When the store can't be reached for longer,
//! the loop pauses: what trains goes on, nothing new begins, and when the store answers again it is either still
//! ours, or somebody else's, and then this loop is over.

use super::{Command, LeaseEvent, Moment, Verdict, state::Core, timers::Timer};
use crate::control::journal::Entry;
use std::time::Duration;

/// Renewals in the time of a lease: two may fail before it ends.
const RENEWALS: u32 = 3;
/// How long after a renewal that failed the next is asked for.
const AGAIN: Duration = Duration::from_secs(1);

/// Where the lease stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LeaseState {
    /// Whether it has run out, as far as is known.
    pub(super) paused: bool,
    /// Whether a renewal is under way.
    asked: bool,
    /// Whether the last one came to nothing.
    troubled: bool,
}

impl Core {
    /// The lease is ours from a moment on.
    pub(super) fn lease_from(&mut self, asked: Moment) {
        let time = self.options.lease;
        self.timers.set(Timer::LeaseEnd, asked.after(time));
        let next = asked.after(time / RENEWALS).max(self.now);
        self.timers.set(Timer::Renewal, next);
    }

    pub(super) fn renew(&mut self) {
        if !self.lease.asked {
            self.lease.asked = true;
            self.commands.push(Command::Renew);
        }
    }

    /// The lease's time is over and no renewal has come through.
    pub(super) fn lease_is_over(&mut self) {
        // A renewal that came too late runs out at once.
        if !std::mem::replace(&mut self.lease.paused, true) {
            self.publish(Entry::Paused);
        }
    }

    pub(super) fn lease_event(&mut self, event: LeaseEvent) {
        self.lease.asked = false;
        match event {
            LeaseEvent::Renewed { asked } => {
                self.lease_from(asked);
                let over = asked.after(self.options.lease) <= self.now;
                if self.lease.paused && !over {
                    self.lease.paused = false;
                    self.publish(Entry::Resumed);
                }
                self.lease.troubled = false;
            }
            LeaseEvent::Trouble { message } => {
                if !std::mem::replace(&mut self.lease.troubled, true) {
                    self.publish(Entry::NotStored {
                        fact: "the lease".to_owned(),
                        message,
                        again_in: Some(AGAIN.as_secs()),
                    });
                }
                self.timers.set(Timer::Renewal, self.now.after(AGAIN));
            }
            LeaseEvent::Lost { leader } => self.conclude_with(Verdict::Fenced { leader }),
        }
    }
}
