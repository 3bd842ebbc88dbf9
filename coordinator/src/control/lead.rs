//! Taking the lead of a run: at once where nobody leads it, after a while where somebody seems to have died.

use super::core::Moment;
use crate::run::{Facts, RunError};
use polestar_core::Epoch;
use polestar_run::lease::{self, Leader, Lease, LeaseRecord};
use polestar_store::Store;
use std::time::Duration;
use tokio::time::Instant;

/// Between two looks at somebody else's lease.
const PAUSE: Duration = Duration::from_millis(500);

/// Why a run can't be led.
#[derive(Debug, thiserror::Error)]
pub enum LeadError {
    /// Somebody else does.
    #[error(
        "another coordinator leads this run: {}. Stop it first, or leave the run to it; one that is dead is replaced {} s after its last sign of life",
        record.leader,
        record.patience().as_secs()
    )]
    Led {
        /// Its lease.
        record: Box<LeaseRecord>,
    },
    /// The lease.
    #[error(transparent)]
    Lease(#[from] lease::Error),
    /// The epochs.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// The lead of a run.
#[derive(Debug)]
pub struct Lead {
    /// The right to it.
    pub lease: Lease,
    /// When it was asked for.
    pub asked: Instant,
    /// Whether the one before ended without giving it back, so that its workers may still be at work.
    pub takes_over: bool,
}

impl Lead {
    /// The leader's epoch.
    pub fn epoch(&self) -> Epoch {
        self.lease.record().epoch
    }
}

/// What a candidate makes of a lease, look by look.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    /// The lease as it was first seen, and when.
    first: Option<(LeaseRecord, Moment)>,
}

/// What a look at a lease leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is anybody's.
    Take,
    /// Its leader may be dead; look again.
    Wait,
    /// Its leader lives.
    Led,
}

impl Watch {
    /// A look. `is_free` says that nobody can be leading by what was seen.
    pub(super) fn look(
        &mut self,
        now: Moment,
        seen: Option<&LeaseRecord>,
        is_free: bool,
    ) -> Decision {
        let Some(seen) = seen.filter(|_| !is_free) else {
            return Decision::Take;
        };
        let (first, since) = self.first.get_or_insert_with(|| (seen.clone(), now));
        if first != seen {
            Decision::Led
        } else if now.since(*since) < seen.patience() {
            Decision::Wait
        } else {
            Decision::Take
        }
    }

    /// Whether nothing was looked at yet.
    fn is_new(&self) -> bool {
        self.first.is_none()
    }
}

/// How long a lease lasts, and how its leader introduces itself.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Who wants to lead.
    pub leader: Leader,
    /// For how long a renewal is to last.
    pub time: Duration,
}

/// Takes the lead. While it isn't known whether another leader lives, `waits` is told of it, once.
///
/// # Errors
/// [`LeadError::Led`] when it does; the store's.
pub async fn take(
    run: &Store,
    facts: &Facts,
    candidate: &Candidate,
    mut waits: impl FnMut(&LeaseRecord),
) -> Result<Lead, LeadError> {
    let (mut watch, began) = (Watch::default(), Instant::now());
    loop {
        let seen = lease::read(run).await?;
        let record = seen.as_ref().map(|seen| &seen.record);
        let takes_over = record.is_some_and(|record| !record.released);
        let is_first = watch.is_new();
        let is_free = record.is_some_and(LeaseRecord::is_free);
        match (watch.look(Moment(began.elapsed()), record, is_free), record) {
            (Decision::Led, Some(record)) => {
                let record = Box::new(record.clone());
                return Err(LeadError::Led { record });
            }
            (Decision::Wait, Some(record)) => {
                if is_first {
                    waits(record);
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            _ => {}
        }
        // Epochs grow from claim to claim, so this one is higher than that of whoever led before. If somebody is
        // quicker from here on, a later round claims another.
        let epoch = facts.claim_epoch().await?;
        let asked = Instant::now();
        let leader = candidate.leader.clone();
        if let Some(lease) = Lease::take(run, seen, epoch, leader, candidate.time).await? {
            return Ok(Lead {
                lease,
                asked,
                takes_over,
            });
        }
    }
}

#[cfg(test)]
mod exhaustive;
#[cfg(test)]
mod tests {
    use super::*;
    use polestar_run::lease::Renewal;

    fn candidate(address: &str, seconds: u64) -> Candidate {
        let began = "2026-01-01 00:00 UTC".to_owned();
        let mut leader = Leader::this_process(began, address.to_owned());
        // As on another machine, where nobody can see whether it lives.
        leader.machine = String::new();
        Candidate {
            leader,
            time: Duration::from_secs(seconds),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_of_two_says_who_leads_and_a_dead_leader_is_replaced() {
        let store = Store::open("memory://").expect("memory");
        let facts = Facts::new(store.clone());
        let mut waited = Vec::new();
        let mut first = take(&store, &facts, &candidate("http://a", 2), |_| {})
            .await
            .expect("nobody leads");
        assert!(!first.takes_over);

        let begun = Instant::now();
        let wants = candidate("http://b", 2);
        let (looked, sees) = tokio::sync::oneshot::channel();
        let mut looked = Some(looked);
        let second = take(&store, &facts, &wants, |record| {
            waited.push(record.clone());
            looked.take().map(|looked| looked.send(()));
        });
        let lives = async {
            sees.await.expect("it looks");
            first.lease.renew().await.expect("a store")
        };
        let (second, renewal) = tokio::join!(second, lives);
        assert_eq!(renewal, Renewal::Renewed);
        let refused = second.expect_err("the first lives").to_string();
        assert!(refused.contains("http://a"), "{refused}");

        // From here on nothing is heard of the first.
        let second = take(&store, &facts, &wants, |record| waited.push(record.clone()))
            .await
            .expect("the first is silent");
        assert!(second.takes_over && second.epoch() > first.epoch());
        assert!(begun.elapsed() >= Duration::from_secs(3), "too hasty");
        let fenced = first.lease.renew().await.expect("a store");
        assert!(
            matches!(fenced, Renewal::Lost(Some(record)) if record.leader.address == "http://b")
        );
        assert_eq!(waited.len(), 2);

        second.lease.release().await.expect("a store");
        let wants = candidate("http://c", 2);
        let third = take(&store, &facts, &wants, |_| panic!("it is free")).await;
        assert!(!third.expect("it was given back").takes_over);
    }
}
