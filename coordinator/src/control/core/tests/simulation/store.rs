//! The store of a simulated world: facts that are put if absent, a lease that is compared and swapped, checkpoints.

use super::*;
use polestar_run::lease::{Leader, LeaseRecord};

#[derive(Clone, Debug, Default)]
pub(super) struct VirtualStore {
    /// Digest of each result.
    pub(super) results: BTreeMap<TrialId, Digest>,
    pub(super) abandoned: BTreeMap<TrialId, AbandonedTrial>,
    pub(super) setbacks: Vec<Setback>,
    /// Steps of the newest checkpoint.
    pub(super) checkpoints: BTreeMap<TrialId, u64>,
    pub(super) lease: Option<LeaseRecord>,
    pub(super) epochs: u64,
    /// Nothing is read or written before this moment.
    pub(super) down_until: Millis,
}

/// What a write came to.
pub(super) type Written = Result<(), StoreTrouble>;

impl VirtualStore {
    pub(super) fn is_down(&self, now: Millis) -> bool {
        now < self.down_until
    }

    /// Writes a fact.
    ///
    /// # Panics
    /// When a trial would have two answers.
    pub(super) fn persist(&mut self, now: Millis, fact: Fact) -> Written {
        if self.is_down(now) {
            return Err(StoreTrouble {
                message: "503".to_owned(),
                retryable: true,
            });
        }
        match fact {
            Fact::Done(result) => {
                let Outcome { trial, digest, .. } = result.outcome;
                let there = *self.results.entry(trial.clone()).or_insert(digest);
                assert_eq!(there, digest, "{trial} has two answers");
            }
            Fact::Abandoned(record) => {
                self.abandoned.insert(record.trial.clone(), record);
            }
            Fact::Ended(setback) => {
                let is_new = self
                    .setbacks
                    .iter()
                    .all(|s| (s.generation, &s.trial) != (setback.generation, &setback.trial));
                if is_new {
                    self.setbacks.push(setback);
                }
            }
        }
        Ok(())
    }

    /// What a coordinator finds of a trial when it begins.
    pub(super) fn history(&self, trial: &TrialId) -> History {
        if self.results.contains_key(trial) {
            return History::Done;
        }
        match self.abandoned.get(trial) {
            Some(record) if !record.cause.is_retryable() => {
                History::Abandoned(record.cause.clone())
            }
            record => {
                let mut spent = Spent::default();
                for setback in self.setbacks.iter().filter(|s| s.trial == *trial) {
                    if record.is_none_or(|a| setback.generation.epoch > a.epoch) {
                        spent.add(&setback.cause);
                    }
                }
                History::Missing(spent)
            }
        }
    }

    /// Takes the lease in place of what was seen of it. Returns the epoch.
    pub(super) fn take_lease(
        &mut self,
        seen: Option<&LeaseRecord>,
        coordinator: u64,
    ) -> Option<Epoch> {
        self.epochs += 1;
        let epoch = Epoch(self.epochs);
        if self.lease.as_ref() != seen {
            return None;
        }
        self.lease = Some(LeaseRecord {
            format: 1,
            epoch,
            leader: Leader {
                host: "h".to_owned(),
                pid: 1,
                machine: String::new(),
                began: String::new(),
                address: coordinator.to_string(),
            },
            renewals: 0,
            seconds: LEASE.as_secs(),
            released: false,
        });
        Some(epoch)
    }

    /// The lease, if it is that of an epoch.
    pub(super) fn lease_of(&mut self, epoch: Epoch) -> Option<&mut LeaseRecord> {
        self.lease.as_mut().filter(|lease| lease.epoch == epoch)
    }
}
