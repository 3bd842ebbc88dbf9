//! What the core's commands do to the world, and what comes of it: the real one, behind a trait so that a virtual
//! one can stand in.

use super::{
    core::{Command, Event, Fact, LeaseEvent, Moment, Order, StoreTrouble, Ticket, WorkerEvent},
    journal::{Journal, JournalEntry},
    lead::Lead,
    server::Server,
    trace::Traces,
};
use crate::{
    launcher::Launcher,
    run::{Run, RunError},
};
use polestar_core::{Generation, TrialId, WorkerId, chain};
use polestar_run::{
    lease::{self, Lease, Renewal},
    proto::{self, to_worker::Body},
    protocol::TRIAL_FORMAT,
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use tracing::Instrument;

/// The world as the loop sees it.
pub trait Effects: Send {
    /// The time. It never goes back.
    fn now(&self) -> Moment;

    /// Begins what a command says, and waits for nothing: what comes of it is an event.
    fn perform(&mut self, command: Command);

    /// The next event. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When there can be none any more.
    fn next(&mut self) -> impl Future<Output = Result<Event, EffectError>> + Send;
}

/// Why the world gives no events any more.
#[derive(Debug, thiserror::Error)]
pub enum EffectError {
    /// The service that workers talk to is gone.
    #[error("the pool service ended; workers can't be heard any more")]
    ServerEnded(#[source] Option<tonic::transport::Error>),
}

/// Workers over gRPC, facts in the store, processes by a launcher.
pub(super) struct World<L> {
    began: Instant,
    server: Server,
    launcher: L,
    run: Run,
    /// What workers are sent of each trial.
    trials: BTreeMap<TrialId, Vec<u8>>,
    /// A collective that waits longer fails.
    collective_deadline: Duration,
    /// The secret of the generation that was last started. The core starts all ranks of one in a row.
    secret: Option<(Generation, [u8; 32])>,
    puts: JoinSet<(Ticket, Result<(), StoreTrouble>)>,
    /// None while it is being renewed.
    lease: Option<Lease>,
    renewals: JoinSet<(Lease, LeaseEvent)>,
    wake: Option<Moment>,
    journal: Journal,
    traces: Traces,
}

impl<L: Launcher> World<L> {
    pub(super) fn new(
        server: Server,
        launcher: L,
        run: Run,
        collective_deadline: Duration,
        journal: Journal,
        lead: Lead,
    ) -> Result<World<L>, serde_json::Error> {
        let mut trials = BTreeMap::new();
        for planned in &run.record.plan.trials {
            let bytes = serde_json::to_vec(&planned.config)?;
            trials.insert(planned.config.id.clone(), bytes);
        }
        Ok(World {
            traces: Traces::new(run.folder.url(), lead.epoch()),
            // The lease counts from here.
            began: lead.asked.into_std(),
            server,
            launcher,
            run,
            trials,
            collective_deadline,
            secret: None,
            puts: JoinSet::new(),
            lease: Some(lead.lease),
            renewals: JoinSet::new(),
            wake: None,
            journal,
        })
    }

    /// Ends workers in order, lets what is on its way to the store arrive, and gives the lease back.
    pub(super) async fn close(mut self, grace: Duration) {
        self.end_workers(grace).await;
        let release = async {
            // It is where it was left, unless it is being renewed.
            let renewed = async {
                self.renewals
                    .join_next()
                    .await?
                    .ok()
                    .map(|(lease, _)| lease)
            };
            let lease = match self.lease {
                Some(lease) => Some(lease),
                None => renewed.await,
            };
            match lease {
                Some(lease) => lease.release().await,
                None => Ok(()),
            }
        };
        let released = tokio::time::timeout(grace, release).await;
        if !matches!(released, Ok(Ok(()))) {
            // All that comes of it is that the next launch waits for a while.
            tracing::warn!("the lease of the run could not be given back");
        }
    }

    async fn end_workers(&mut self, grace: Duration) {
        self.server.broadcast(&Body::Shutdown(proto::Shutdown {}));
        let puts = async { while self.puts.join_next().await.is_some() {} };
        let (killed, stored, ()) = tokio::join!(
            self.launcher.close(grace),
            tokio::time::timeout(grace, puts),
            self.server.drain(grace)
        );
        if killed > 0 {
            tracing::warn!("{killed} workers did not end in time and were killed");
        }
        if stored.is_err() {
            tracing::warn!("the store did not answer in time; something may not have been stored");
        }
    }

    fn send(&mut self, worker: WorkerId, order: Order) {
        self.traces.ordered(&order);
        let body = match order {
            Order::Prepare { generation } => Body::Prepare(proto::Prepare {
                generation: Some(generation.into()),
            }),
            Order::Drain { generation } => Body::Drain(proto::Drain {
                generation: Some(generation.into()),
            }),
            Order::Abort { generation, cause } => Body::Abort(proto::Abort {
                generation: Some(generation.into()),
                cause: cause.map(Into::into),
            }),
            Order::Start {
                generation,
                rank,
                peers,
                trial,
            } => {
                let json = self.trials.get(&trial);
                let json = json.expect("the core's trials are the plan's").clone();
                let format = TRIAL_FORMAT;
                Body::Start(proto::Start {
                    generation: Some(generation.into()),
                    rank: rank.0,
                    peers: peers.iter().map(ToString::to_string).collect(),
                    secret: self.secret_of(generation).to_vec(),
                    run: self.run.store.url().to_owned(),
                    trial: Some(proto::Trial { format, json }),
                    deadline_seconds: self.collective_deadline.as_secs_f64(),
                    traceparent: self.traces.place(&trial, generation).to_string(),
                })
            }
        };
        self.server.send(worker, body);
    }

    fn renew(&mut self) {
        let asked = self.now();
        let mut lease = self
            .lease
            .take()
            .expect("the core asks for one renewal at a time");
        self.renewals.spawn(async move {
            let event = match lease.renew().await {
                Ok(Renewal::Renewed) => LeaseEvent::Renewed { asked },
                Ok(Renewal::Lost(Some(record))) => LeaseEvent::Lost {
                    leader: record.leader.to_string(),
                },
                Ok(Renewal::Lost(None)) => LeaseEvent::Lost {
                    leader: format!("nobody: somebody removed {}", lease::KEY),
                },
                Err(error) => LeaseEvent::Trouble {
                    message: chain(&error),
                },
            };
            (lease, event)
        });
    }

    fn secret_of(&mut self, generation: Generation) -> [u8; 32] {
        match self.secret {
            Some((of, secret)) if of == generation => secret,
            _ => {
                let secret = rand::random();
                self.secret = Some((generation, secret));
                secret
            }
        }
    }
}

impl<L: Launcher> Effects for World<L> {
    fn now(&self) -> Moment {
        Moment(self.began.elapsed())
    }

    fn perform(&mut self, command: Command) {
        match command {
            Command::Send(worker, order) => self.send(worker, order),
            Command::Persist(ticket, fact) => {
                let (run, span) = (self.run.clone(), self.traces.persists(&fact));
                let put = async move { (ticket, store(&run, &fact).await) };
                self.puts.spawn(put.instrument(span));
            }
            Command::Scale(workers) => self.launcher.scale(workers),
            Command::Retire {
                worker,
                launch,
                ending,
                ..
            } => {
                if let Some(worker) = worker {
                    self.server.disconnect(worker);
                }
                if let Some(launch) = launch {
                    self.launcher.retire(&launch, ending);
                }
            }
            Command::Renew => self.renew(),
            Command::Dismiss(worker) => {
                self.server.send(worker, Body::Shutdown(proto::Shutdown {}));
            }
            Command::WakeAt(moment) => self.wake = Some(moment),
            Command::Publish(entry) => {
                self.traces.published(&entry);
                let at = self.now();
                self.journal.publish(&JournalEntry { at, entry });
            }
        }
    }

    async fn next(&mut self) -> Result<Event, EffectError> {
        let wake = self.wake.map(|moment| self.began + moment.0);
        let alarm = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            said = self.server.next() => {
                let (worker, event) = said.map_err(EffectError::ServerEnded)?;
                if event == WorkerEvent::Left {
                    self.server.disconnect(worker);
                }
                Ok(Event::Worker(worker, event))
            }
            event = self.launcher.next() => Ok(Event::Launcher(event)),
            Some(put) = self.puts.join_next() => match put {
                Ok((ticket, result)) => Ok(Event::Stored(ticket, result)),
                // Its ticket is lost with it: this is a bug, and nothing to go on from.
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            },
            Some(renewal) = self.renewals.join_next() => match renewal {
                Ok((lease, event)) => {
                    self.lease = Some(lease);
                    Ok(Event::Lease(event))
                }
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            },
            () = alarm => {
                self.wake = None;
                Ok(Event::Tick)
            }
        }
    }
}

async fn store(run: &Run, fact: &Fact) -> Result<(), StoreTrouble> {
    let stored = match fact {
        Fact::Done(result) => run.record_result(result).await,
        Fact::Abandoned(record) => run.record_abandoned(record).await,
        Fact::Ended(setback) => run.record_setback(setback).await,
    };
    stored.map_err(|error| StoreTrouble {
        message: chain(&error),
        // Only the store itself can think better of it.
        retryable: matches!(error, RunError::Store(_)),
    })
}
