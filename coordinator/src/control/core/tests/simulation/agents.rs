//! Worker processes of a simulated world, and what they train.

use super::*;
use polestar_run::{failure::Phase, protocol::Membership};

/// A worker process. It does what the agent of a real one does.
#[derive(Debug)]
pub(super) struct Process {
    /// Who started it, and under which name.
    pub(super) launch: (u64, LaunchId),
    pub(super) stream: Option<u64>,
    /// Never answers again, nor trains.
    pub(super) hangs: bool,
    /// The highest epoch in which it was welcomed.
    pub(super) epoch: Epoch,
    pub(super) prepared: Option<Generation>,
    pub(super) running: Option<Membership>,
    /// How its last rank ended, until there is another.
    pub(super) last_word: Option<WorkerEvent>,
    /// When it lost its coordinator.
    pub(super) lost: Option<Millis>,
    pub(super) leaves: bool,
}

/// The ranks of one generation among themselves.
#[derive(Debug)]
pub(super) struct DataPlane {
    pub(super) trial: TrialId,
    pub(super) world: u32,
    pub(super) ranks: BTreeMap<Rank, u64>,
    pub(super) step: Option<u64>,
    /// Whether its ranks save after the next step and stop.
    pub(super) drains: bool,
}

impl World {
    /// Has so many processes: what is missing starts, where there is a queue at its turn; of what waits there, what is
    /// too many is withdrawn.
    pub(super) fn scale(&mut self, coordinator: u64, count: usize) {
        let of_it = |p: &&Process| p.launch.0 == coordinator;
        let running = self.processes.values().filter(of_it).count();
        let queued = self.queue.iter().filter(|(_, of)| **of == coordinator);
        let queued: Vec<u64> = queued.map(|(&number, _)| number).collect();
        for _ in running + queued.len()..count {
            let number = self.next_process;
            self.next_process += 1;
            self.queue.insert(number, coordinator);
            let waits = match self.has_queue {
                true => self.random.below(60_000),
                false => 0,
            };
            self.schedule(waits, Happening::Start(number));
        }
        let surplus = (running + queued.len()).saturating_sub(count);
        for number in queued.into_iter().rev().take(surplus) {
            self.queue.remove(&number);
        }
    }

    /// A process has its turn, unless it was withdrawn.
    pub(super) fn start_process(&mut self, number: u64) {
        let Some(coordinator) = self.queue.remove(&number) else {
            return;
        };
        let launch = LaunchId(format!("c{coordinator}-p{number}"));
        let process = Process {
            launch: (coordinator, launch.clone()),
            stream: None,
            hangs: false,
            epoch: Epoch(0),
            prepared: None,
            running: None,
            last_word: None,
            lost: None,
            leaves: false,
        };
        self.processes.insert(number, process);
        let started = Event::Launcher(LaunchEvent::Started { launch });
        self.tell(coordinator, 1, started);
        let boots = 200 + self.random.below(3000);
        self.schedule(boots, Happening::Seek(number));
    }

    /// A process is told that it isn't needed any more.
    pub(super) fn leave(&mut self, number: u64) {
        if self.processes.get(&number).is_some_and(|p| !p.hangs) {
            self.end_process(number);
        }
    }

    /// A process ends, and its connections with it.
    pub(super) fn end_process(&mut self, number: u64) {
        let Some(process) = self.processes.remove(&number) else {
            return;
        };
        if let Some(stream) = process.stream {
            self.break_stream(stream, 1);
        }
        let (coordinator, launch) = process.launch;
        let ended = LaunchEvent::Ended {
            launch,
            status: "killed".to_owned(),
            log_tail: String::new(),
        };
        let later = 1 + self.random.below(500);
        self.tell(coordinator, later, Event::Launcher(ended));
        self.planes_without(number);
    }

    /// The generation of a rank that is gone breaks for the others.
    fn planes_without(&mut self, number: u64) {
        let broken: Vec<Generation> = self
            .planes
            .iter()
            .filter(|(_, plane)| plane.ranks.values().any(|&process| process == number))
            .map(|(&generation, _)| generation)
            .collect();
        for generation in broken {
            self.break_plane(generation, number);
        }
    }

    fn break_plane(&mut self, generation: Generation, without: u64) {
        let Some(plane) = self.planes.remove(&generation) else {
            return;
        };
        for process in plane.ranks.into_values().filter(|&p| p != without) {
            let event = WorkerEvent::Failed {
                generation,
                failure: failure("a peer is lost", true, true),
            };
            // Some notice by the broken connection, others by their deadline.
            let later = 10 + self.random.below(20_000);
            self.schedule(later, Happening::Say(process, event));
        }
    }

    /// Looks for the coordinator that leads, and joins it.
    pub(super) fn seek(&mut self, number: u64) {
        let Some(process) = self.processes.get(&number) else {
            return;
        };
        if process.hangs || process.stream.is_some() {
            return;
        }
        let lost = *self
            .processes
            .get_mut(&number)
            .map(|p| p.lost.get_or_insert(self.now))
            .expect("it is there");
        if self.now - lost > GRACE {
            self.end_process(number);
            return;
        }
        let leader = match self.store.is_down(self.now) {
            true => None,
            false => self.leader_for(number),
        };
        match leader {
            Some(leader) => self.join(number, leader),
            None => self.schedule(2000, Happening::Seek(number)),
        }
    }

    fn leader_for(&self, number: u64) -> Option<u64> {
        let lease = self.store.lease.as_ref().filter(|lease| !lease.released)?;
        let leader: u64 = lease.leader.address.parse().expect("a number of ours");
        let coordinator = self.coordinators.get(&leader)?;
        let accepts = coordinator.core.is_some() && !coordinator.stands_still(self.now);
        (accepts && lease.epoch >= self.processes[&number].epoch).then_some(leader)
    }

    fn join(&mut self, number: u64, leader: u64) {
        let stream = self.open_stream(number, leader);
        let epoch = self.coordinators[&leader].epoch;
        let process = self.processes.get_mut(&number).expect("it seeks");
        process.stream = Some(stream);
        process.lost = None;
        process.epoch = epoch;
        let inventory = Inventory {
            host: "h".to_owned(),
            pid: number as u32,
            launch: Some(process.launch.1.clone()),
            machine: Default::default(),
        };
        let mut says = vec![match process.running.clone() {
            Some(mut membership) => {
                let plane = self.planes.get(&membership.generation);
                membership.step = Step(plane.and_then(|p| p.step).unwrap_or(0));
                WorkerEvent::Rejoined(inventory, membership)
            }
            None => WorkerEvent::Joined(inventory),
        }];
        says.extend(process.last_word.clone());
        says.extend(process.leaves.then_some(WorkerEvent::Leaving));
        for event in says {
            self.send_up(stream, event);
        }
    }

    /// A process has something to say. How a rank ended is kept for the next coordinator.
    pub(super) fn say(&mut self, number: u64, event: WorkerEvent) {
        let Some(process) = self.processes.get_mut(&number) else {
            return;
        };
        let of = match &event {
            WorkerEvent::Finished { generation, .. }
            | WorkerEvent::Failed { generation, .. }
            | WorkerEvent::Stopped { generation } => Some(*generation),
            _ => None,
        };
        if let Some(generation) = of {
            let is_answer = matches!(event, WorkerEvent::Stopped { .. });
            let runs = process
                .running
                .as_ref()
                .is_some_and(|r| r.generation == generation);
            if process.hangs || (!runs && !is_answer) {
                return;
            }
            if runs {
                process.last_word = Some(event.clone());
            }
        }
        if let Some(stream) = process.stream {
            self.send_up(stream, event);
        }
    }

    pub(super) fn obey(&mut self, number: u64, order: Order) {
        let Some(process) = self.processes.get_mut(&number).filter(|p| !p.hangs) else {
            return;
        };
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
                    trial: trial.clone(),
                    rank,
                    world: peers.len() as u32,
                    step: Step(0),
                });
                self.enter_plane(number, generation, rank, peers.len() as u32, trial);
            }
            Order::Drain { generation } => match self.planes.get_mut(&generation) {
                Some(plane) => plane.drains = true,
                None => self.say(number, WorkerEvent::Stopped { generation }),
            },
            Order::Abort { generation, .. } => {
                if process
                    .running
                    .as_ref()
                    .is_some_and(|r| r.generation == generation)
                {
                    process.running = None;
                    process.last_word = None;
                    self.planes_without(number);
                }
                self.say(number, WorkerEvent::Stopped { generation });
            }
        }
    }

    fn enter_plane(
        &mut self,
        number: u64,
        generation: Generation,
        rank: Rank,
        world: u32,
        trial: TrialId,
    ) {
        let plane = self.planes.entry(generation).or_insert(DataPlane {
            trial,
            world,
            ranks: BTreeMap::new(),
            step: None,
            drains: false,
        });
        assert_eq!(plane.ranks.insert(rank, number), None, "{rank} twice");
        if plane.ranks.len() == plane.world as usize {
            self.schedule(1000, Happening::Train(generation));
        } else if plane.ranks.len() == 1 {
            self.schedule(COLLECTIVE, Happening::MeshIsDue(generation));
        }
    }

    /// Whoever waits for ranks that never came fails.
    pub(super) fn mesh_is_due(&mut self, generation: Generation) {
        let incomplete =
            |plane: &DataPlane| plane.ranks.len() < plane.world as usize && plane.step.is_none();
        if self.planes.get(&generation).is_some_and(incomplete) {
            self.break_plane(generation, u64::MAX);
        }
    }

    /// Rank 0 of a generation fails.
    fn first_fails(
        &mut self,
        generation: Generation,
        ranks: &BTreeMap<Rank, u64>,
        failure: Failure,
    ) {
        let (_, &first) = ranks.first_key_value().expect("it has ranks");
        let event = WorkerEvent::Failed {
            generation,
            failure,
        };
        self.say(first, event);
    }

    /// A step of a generation, all its ranks together.
    pub(super) fn train(&mut self, generation: Generation) {
        let Some(plane) = self.planes.get_mut(&generation) else {
            return;
        };
        let hangs = |process: &u64| self.processes.get(process).is_none_or(|p| p.hangs);
        if plane.ranks.values().any(hangs) {
            let without = *plane.ranks.values().find(|p| hangs(p)).expect("one does");
            // Their collective's deadline.
            self.break_plane(generation, without);
            return;
        }
        let (trial, ranks) = (plane.trial.clone(), plane.ranks.clone());
        let saved = self.store.checkpoints.get(&trial).copied().unwrap_or(0);
        let step = match plane.step {
            None => saved,
            Some(step) => step + 1,
        };
        plane.step = Some(step);
        let drains = plane.drains && step < STEPS;
        if step == STEPS / 2 && self.diverging.contains(&trial) {
            let failure = failure("the loss is not finite", false, false);
            return self.first_fails(generation, &ranks, failure);
        }
        if step.is_multiple_of(4) || drains {
            if self.store.is_down(self.now) {
                let failure = Failure {
                    phase: Phase::Storage,
                    ..failure("503", false, true)
                };
                return self.first_fails(generation, &ranks, failure);
            }
            let newest = self.store.checkpoints.entry(trial.clone()).or_default();
            *newest = step.max(*newest);
        }
        if step >= STEPS || drains {
            self.planes.remove(&generation);
            for process in ranks.into_values() {
                let event = match drains {
                    true => WorkerEvent::Stopped { generation },
                    false => WorkerEvent::Finished {
                        generation,
                        outcome: self.answer(&trial, generation),
                    },
                };
                self.say(process, event);
            }
            return;
        }
        let (_, &first) = ranks.first_key_value().expect("it has ranks");
        let event = polestar_run::Event::Stepped {
            step: Step(step),
            loss: 1.0,
            accuracy: None,
            triplets_per_second: 1.0,
        };
        self.say(first, WorkerEvent::Progress { generation, event });
        self.schedule(1000, Happening::Train(generation));
    }
}
