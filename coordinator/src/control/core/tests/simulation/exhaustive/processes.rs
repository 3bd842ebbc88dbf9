//! Worker processes of a small pool, and their connections to coordinators.

use super::{pool::SmallPool, *};
use polestar_run::protocol::Membership;

/// A worker's connection to a coordinator.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) epoch: Epoch,
    pub(super) worker: WorkerId,
    pub(super) up: VecDeque<WorkerEvent>,
    /// No order means that the process is to end.
    pub(super) down: VecDeque<Option<Order>>,
}

/// A worker process.
#[derive(Clone, Debug)]
pub(super) struct Process {
    /// Whose launcher started it.
    pub(super) of: Epoch,
    /// The highest epoch in which it was welcomed.
    pub(super) welcomed: Epoch,
    pub(super) connection: Option<Connection>,
    pub(super) prepared: Option<Generation>,
    pub(super) running: Option<Membership>,
    /// How its rank ended, until there is another.
    pub(super) last_word: Option<WorkerEvent>,
}

pub(super) fn launch_of(process: u64) -> LaunchId {
    LaunchId(format!("p{process}"))
}

impl SmallPool {
    pub(super) fn start_process(&mut self, of: Epoch) -> u64 {
        let number = self.next_process;
        self.next_process += 1;
        let process = Process {
            of,
            welcomed: Epoch(0),
            connection: None,
            prepared: None,
            running: None,
            last_word: None,
        };
        self.processes.insert(number, process);
        number
    }

    pub(super) fn end_process(&mut self, number: u64) {
        self.break_connection(number);
        let Some(process) = self.processes.remove(&number) else {
            return;
        };
        self.broken.extend(process.running.map(|m| m.generation));
        let ended = LaunchEvent::Ended {
            launch: launch_of(number),
            status: "killed".to_owned(),
            log_tail: String::new(),
        };
        self.tell_later(process.of, Event::Launcher(ended));
    }

    pub(super) fn process_of(&self, epoch: Epoch, worker: WorkerId) -> Option<u64> {
        let of_it = |c: &Connection| (c.epoch, c.worker) == (epoch, worker);
        let mut processes = self.processes.iter();
        let found = processes.find(|(_, p)| p.connection.as_ref().is_some_and(of_it));
        found.map(|(&number, _)| number)
    }

    pub(super) fn send(&mut self, epoch: Epoch, worker: WorkerId, order: Option<Order>) {
        let process = self.process_of(epoch, worker);
        let process = process.and_then(|number| self.processes.get_mut(&number));
        if let Some(connection) = process.and_then(|p| p.connection.as_mut()) {
            connection.down.push_back(order);
        }
    }

    /// Nothing comes through any more, also of what is on its way. Both ends notice, each at its own time.
    pub(super) fn break_connection(&mut self, number: u64) {
        let Some(process) = self.processes.get_mut(&number) else {
            return;
        };
        let Some(connection) = process.connection.take() else {
            return;
        };
        // Whoever doesn't hear that it begins never connects to the others.
        self.broken.extend(process.prepared.take());
        let never_begun = connection
            .down
            .iter()
            .flatten()
            .filter_map(|order| match order {
                Order::Prepare { generation } | Order::Start { generation, .. } => {
                    Some(*generation)
                }
                _ => None,
            });
        self.broken.extend(never_begun);
        let left = Event::Worker(connection.worker, WorkerEvent::Left);
        self.tell_later(connection.epoch, left);
    }

    /// Who leads, as a process finds it.
    pub(super) fn leader_for(&self, process: &Process) -> Option<Epoch> {
        let epoch = self.newest()?;
        let is_led = self.store.lease.as_ref().is_some_and(|l| !l.released);
        (is_led && !self.is_superseded(epoch) && epoch >= process.welcomed).then_some(epoch)
    }

    pub(super) fn seek(&mut self, number: u64) {
        let process = &self.processes[&number];
        let Some(epoch) = self.leader_for(process) else {
            return;
        };
        let leader = self.coordinators.get_mut(&epoch).expect("it leads");
        let worker = WorkerId(leader.next_worker);
        leader.next_worker += 1;
        let inventory = Inventory {
            launch: Some(launch_of(number)),
            ..inventory(number)
        };
        let mut up = VecDeque::from([match process.running.clone() {
            Some(membership) => WorkerEvent::Rejoined(inventory, membership),
            None => WorkerEvent::Joined(inventory),
        }]);
        up.extend(process.last_word.clone());
        let process = self.processes.get_mut(&number).expect("it seeks");
        process.welcomed = epoch;
        process.connection = Some(Connection {
            epoch,
            worker,
            up,
            down: VecDeque::new(),
        });
    }

    /// How a rank ended is kept for the next coordinator.
    pub(super) fn say(&mut self, number: u64, event: WorkerEvent) {
        let process = self.processes.get_mut(&number).expect("it speaks");
        let is_end = matches!(
            event,
            WorkerEvent::Finished { .. } | WorkerEvent::Failed { .. }
        );
        if is_end {
            process.last_word = Some(event.clone());
        }
        if let Some(connection) = &mut process.connection {
            connection.up.push_back(event);
        }
    }

    pub(super) fn obey(&mut self, number: u64, order: Order) {
        let process = self.processes.get_mut(&number).expect("it was told");
        match order {
            Order::Prepare { generation } => {
                process.prepared = Some(generation);
                let endpoint = ([127, 0, 0, 1], 1).into();
                self.say(
                    number,
                    WorkerEvent::Ready {
                        generation,
                        endpoint,
                    },
                );
            }
            Order::Start {
                generation,
                rank,
                peers,
                trial,
            } => {
                assert_eq!(process.prepared.take(), Some(generation));
                process.last_word = None;
                process.running = Some(Membership {
                    generation,
                    trial,
                    rank,
                    world: peers.len() as u32,
                    step: Step(0),
                });
            }
            Order::Drain { .. } => {}
            Order::Abort { generation, .. } => {
                if process.prepared == Some(generation) {
                    process.prepared = None;
                }
                let runs = process.running.as_ref().map(|m| m.generation);
                if runs == Some(generation) {
                    process.running = None;
                    process.last_word = None;
                    self.broken.insert(generation);
                }
                self.say(number, WorkerEvent::Stopped { generation });
            }
        }
    }

    /// Ranks that train in a generation and haven't ended.
    pub(super) fn ranks(&self, generation: Generation) -> Vec<u64> {
        let trains = |p: &Process| {
            let of = p.running.as_ref().map(|m| m.generation);
            of == Some(generation) && p.last_word.is_none()
        };
        let ranks = self.processes.iter().filter(|(_, p)| trains(p));
        ranks.map(|(&number, _)| number).collect()
    }

    pub(super) fn train(&mut self, generation: Generation) {
        let ranks = self.ranks(generation);
        let running = self.processes[&ranks[0]].running.as_ref();
        let trial = running.expect("it trains").trial.clone();
        *self.trained.entry(trial.clone()).or_default() += 1;
        let text = match self.flaw {
            StoreFlaw::Replaces => generation.to_string(),
            _ => trial.0.clone(),
        };
        let outcome = Outcome {
            digest: Digest::of(text.as_bytes()),
            ..outcome(&trial)
        };
        for rank in ranks {
            let outcome = outcome.clone();
            self.say(
                rank,
                WorkerEvent::Finished {
                    generation,
                    outcome,
                },
            );
        }
    }
}
