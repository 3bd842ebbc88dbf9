//! What happened, for whoever listens: a terminal, a log, a page.
//!
//! The loop never waits for a listener. One that is slow loses steps in between, which later ones supersede, and
//! nothing else.

use super::core::{Inventory, Moment, RetireReason, Warmth};
use crate::launcher::LaunchId;
use polestar_core::{Digest, Epoch, Generation, Step, TrialId, WorkerId};
use polestar_run::{
    Cause, Event,
    failure::{Blame, Member},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};
use tokio::sync::mpsc;

/// Entries that a listener may be behind before it loses steps.
const MAX_BEHIND: usize = 1024;

/// One thing that happened, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JournalEntry {
    /// When.
    pub at: Moment,
    /// What.
    pub entry: Entry,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub enum Entry {
    /// A coordinator leads from here on.
    Began {
        /// In which epoch.
        epoch: Epoch,
        /// Who, for people.
        leader: String,
        /// Trials that it found unfinished.
        trials: usize,
    },
    /// It ended in order.
    Ended {
        /// How, in a sentence.
        verdict: String,
        /// What warm workers saved under it.
        #[serde(default)]
        warmth: Warmth,
    },
    /// A worker joined the pool.
    Joined {
        /// Its number.
        worker: WorkerId,
        /// What it is.
        inventory: Inventory,
    },
    /// A worker's stream broke.
    Left {
        /// Its number.
        worker: WorkerId,
    },
    /// A worker was put out of the pool.
    Retired {
        /// Its number, if it had joined.
        worker: Option<WorkerId>,
        /// Its process, if a launcher started it.
        launch: Option<LaunchId>,
        /// Why.
        reason: RetireReason,
    },
    /// A worker process ended.
    ProcessEnded {
        /// Which.
        launch: LaunchId,
        /// How.
        status: String,
        /// The end of what it logged.
        log_tail: String,
    },
    /// A worker process could not be started.
    SpawnFailed {
        /// Why.
        message: String,
    },
    /// A rank failed; its generation ends.
    RankFailed {
        /// What it trained.
        trial: TrialId,
        /// Its generation.
        generation: Generation,
        /// Who, and what was wrong.
        blame: Blame,
        /// All members, by rank.
        members: Vec<Member>,
    },
    /// A trial's engine reports.
    Progress {
        /// The trial.
        trial: TrialId,
        /// Its generation.
        generation: Generation,
        /// What.
        event: Event,
    },
    /// A trial's result is stored.
    Done {
        /// Which.
        trial: TrialId,
        /// Of its weights.
        digest: Digest,
    },
    /// A trial had a setback and is tried again.
    Retried {
        /// Which.
        trial: TrialId,
        /// The generation that ended.
        generation: Generation,
        /// Why.
        cause: Cause,
    },
    /// A trial is not tried again.
    Abandoned {
        /// Which.
        trial: TrialId,
        /// Why.
        cause: Cause,
    },
    /// Somebody asked for an abandoned trial to be tried again.
    Reopened {
        /// Which.
        trial: TrialId,
    },
    /// A worker will be gone soon.
    Leaving {
        /// Its number.
        worker: WorkerId,
    },
    /// A worker was let go: what is left can't use it.
    LetGo {
        /// Its number.
        worker: WorkerId,
    },
    /// A generation saved a checkpoint and ended, as it was asked to.
    Drained {
        /// What it trained.
        trial: TrialId,
        /// The generation.
        generation: Generation,
        /// Steps done.
        step: Step,
    },
    /// A generation of an earlier coordinator goes on under this one.
    TakenOver {
        /// What it trains.
        trial: TrialId,
        /// The generation.
        generation: Generation,
        /// Its ranks.
        members: Vec<Member>,
    },
    /// The lease ran out and the store doesn't answer: nothing new begins.
    Paused,
    /// The lease is renewed.
    Resumed,
    /// The store didn't take something.
    NotStored {
        /// What, as in "the result of …".
        fact: String,
        /// Why.
        message: String,
        /// Seconds until it is tried again; none when it isn't.
        again_in: Option<u64>,
    },
}

impl Entry {
    /// Whether a later one says as much, or the store does: rows of metrics are there with the next checkpoint.
    pub fn is_superseded(&self) -> bool {
        matches!(self, Entry::Progress { event, .. } if event.is_superseded())
    }
}

/// Hands entries to all who listen. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Journal {
    listeners: Arc<Mutex<Listeners>>,
}

#[derive(Debug, Default)]
struct Listeners {
    senders: Vec<Sender>,
    closed: bool,
}

#[derive(Debug)]
struct Sender {
    queue: mpsc::UnboundedSender<JournalEntry>,
    behind: Arc<AtomicUsize>,
}

impl Journal {
    /// Every entry from now on.
    pub(super) fn subscribe(&self) -> Subscription {
        let (queue, receiver) = mpsc::unbounded_channel();
        let behind = Arc::<AtomicUsize>::default();
        let sender = Sender {
            queue,
            behind: Arc::clone(&behind),
        };
        let mut listeners = self.lock();
        if !listeners.closed {
            listeners.senders.push(sender);
        }
        Subscription { receiver, behind }
    }

    pub(super) fn publish(&self, entry: &JournalEntry) {
        self.lock().senders.retain(|sender| {
            let behind = sender.behind.fetch_add(1, Ordering::Relaxed);
            if behind >= MAX_BEHIND && entry.entry.is_superseded() {
                sender.behind.fetch_sub(1, Ordering::Relaxed);
                return true;
            }
            sender.queue.send(entry.clone()).is_ok()
        });
    }

    /// Ends all subscriptions, present and to come.
    pub(super) fn close(&self) {
        let mut listeners = self.lock();
        listeners.closed = true;
        listeners.senders.clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Listeners> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream of entries that ends when the service does.
#[derive(Debug)]
pub struct Subscription {
    receiver: mpsc::UnboundedReceiver<JournalEntry>,
    behind: Arc<AtomicUsize>,
}

impl tokio_stream::Stream for Subscription {
    type Item = JournalEntry;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.receiver.poll_recv(context);
        if let Poll::Ready(Some(_)) = polled {
            self.behind.fetch_sub(1, Ordering::Relaxed);
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use polestar_core::Step;
    use tokio_stream::StreamExt;

    #[tokio::test]
    async fn a_slow_listener_loses_steps_and_nothing_else() {
        let journal = Journal::default();
        let mut listener = journal.subscribe();
        let publish = |entry| {
            let at = Moment::default();
            journal.publish(&JournalEntry { at, entry });
        };
        for step in 0..2 * MAX_BEHIND as u64 {
            publish(Entry::Progress {
                trial: TrialId("t".to_owned()),
                generation: Generation::default(),
                event: Event::Stepped {
                    step: Step(step),
                    loss: 1.0,
                    accuracy: None,
                    triplets_per_second: 1.0,
                },
            });
        }
        let last = Entry::Left {
            worker: WorkerId(1),
        };
        publish(last.clone());
        journal.close();
        let mut seen = Vec::new();
        while let Some(entry) = listener.next().await {
            seen.push(entry.entry);
        }
        assert_eq!(seen.len(), MAX_BEHIND + 1);
        assert_eq!(seen.last(), Some(&last));
        assert!(journal.subscribe().next().await.is_none());
    }
}
