//! A simulated world: a heap of what will happen, coordinators, and the connections between them and their workers.

use super::{
    agents::{DataPlane, Process},
    store::VirtualStore,
    *,
};
use crate::control::{core::state::Standing, lead::Watch};

/// Something that will happen.
#[derive(Debug)]
pub(super) enum Happening {
    /// A coordinator learns something.
    Tell(u64, Event),
    /// Something arrives at a coordinator over a stream.
    Up(u64, WorkerEvent),
    /// Something arrives at a worker over a stream; no order means that it is to end.
    Down(u64, Option<Order>),
    /// A worker notices that its stream is broken.
    LostByWorker(u64),
    /// A coordinator's alarm.
    Wake(u64, Moment),
    /// A candidate looks at the lease.
    Look(u64),
    /// Somebody sees to it that there is a coordinator.
    Relaunch,
    /// A process has its turn in the queue.
    Start(u64),
    /// A worker looks for a coordinator.
    Seek(u64),
    /// A rank speaks.
    Say(u64, WorkerEvent),
    /// A generation trains.
    Train(Generation),
    /// Ranks that wait for others give up.
    MeshIsDue(Generation),
    /// A fact reaches the store.
    Persist(u64, Ticket, Box<Fact>),
    /// A renewal reaches the store.
    Renew(u64, Moment),
    /// A fault.
    Fault(Fault),
    /// A preempted process is gone.
    Preempted(u64),
}

/// A coordinator's process.
#[derive(Debug)]
pub(super) struct Coordinator {
    pub(super) core: Option<Core>,
    pub(super) epoch: Epoch,
    pub(super) watch: Watch,
    /// When its clock began.
    pub(super) began: Millis,
    /// Stands still until then.
    pub(super) still_until: Millis,
    pub(super) wake: Option<Moment>,
    pub(super) next_worker: u64,
}

impl Coordinator {
    pub(super) fn suspend_until(&mut self, until: Millis) {
        self.still_until = until;
    }

    pub(super) fn stands_still(&self, now: Millis) -> bool {
        now < self.still_until
    }
}

/// A worker's connection to a coordinator.
#[derive(Debug)]
struct Connection {
    process: u64,
    coordinator: u64,
    worker: WorkerId,
    /// When the last message of each direction arrives: they arrive in order.
    up: Millis,
    down: Millis,
}

pub(super) struct World {
    pub(super) random: Stream,
    pub(super) now: Millis,
    coming: BTreeMap<(Millis, u64), Happening>,
    number: u64,
    pub(super) store: VirtualStore,
    pub(super) coordinators: BTreeMap<u64, Coordinator>,
    pub(super) next_coordinator: u64,
    pub(super) processes: BTreeMap<u64, Process>,
    pub(super) next_process: u64,
    /// Processes that wait for their turn, and whose they will be.
    pub(super) queue: BTreeMap<u64, u64>,
    /// Whether their turn comes late.
    pub(super) has_queue: bool,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    pub(super) planes: BTreeMap<Generation, DataPlane>,
    pub(super) jobs: Vec<Job>,
    pub(super) workers: u32,
    /// Trials whose loss stops being finite.
    pub(super) diverging: BTreeSet<TrialId>,
    /// Whether dead coordinators are seen to be dead, as on one machine.
    pub(super) sees_death: bool,
    /// The highest epoch that has begun a generation.
    leads: Epoch,
    /// Generations that have begun, and with which workers.
    begun: BTreeSet<(Generation, WorkerId)>,
    pub(super) is_over: bool,
    pub(super) flaw: Flaw,
    /// Everything that coordinators said.
    pub(super) said: Vec<Command>,
    /// How often each kind of fault has struck.
    pub(super) struck: BTreeMap<&'static str, u32>,
}

impl World {
    pub(super) fn new(seed: u64, flaw: Flaw) -> World {
        let mut random = Stream::new("simulated pool", &[seed]);
        let workers = 1 + random.below(4) as u32;
        let trials = 1 + random.below(5);
        let mut diverging = BTreeSet::new();
        let jobs = (0..trials).map(|i| {
            let world = 1 + random.below(u64::from(workers)) as u32;
            let after = (i > 0 && random.below(3) == 0).then(|| format!("t{}", random.below(i)));
            if random.below(12) == 0 {
                diverging.insert(named(&format!("t{i}")));
            }
            let mut job = job(
                &format!("t{i}"),
                random.below(9) as f64,
                world,
                after.as_deref(),
            );
            job.least_world = 1;
            job.work.steps = 0..STEPS;
            job
        });
        let jobs = jobs.collect();
        let mut world = World {
            jobs,
            now: 0,
            coming: BTreeMap::new(),
            number: 0,
            store: VirtualStore::default(),
            coordinators: BTreeMap::new(),
            next_coordinator: 1,
            processes: BTreeMap::new(),
            next_process: 1,
            queue: BTreeMap::new(),
            has_queue: random.below(2) == 0,
            connections: BTreeMap::new(),
            next_connection: 1,
            planes: BTreeMap::new(),
            workers,
            diverging,
            sees_death: random.below(2) == 0,
            leads: Epoch(0),
            begun: BTreeSet::new(),
            is_over: false,
            flaw,
            said: Vec::new(),
            struck: BTreeMap::new(),
            random,
        };
        world.schedule(0, Happening::Relaunch);
        world
    }

    pub(super) fn schedule(&mut self, later: Millis, happening: Happening) {
        self.at(self.now + later, happening);
    }

    pub(super) fn at(&mut self, at: Millis, happening: Happening) {
        self.number += 1;
        self.coming.insert((at, self.number), happening);
    }

    pub(super) fn tell(&mut self, coordinator: u64, later: Millis, event: Event) {
        self.schedule(later, Happening::Tell(coordinator, event));
    }

    /// The next thing happens. `false` when nothing will.
    pub(super) fn step(&mut self) -> bool {
        let Some(((at, _), happening)) = self.coming.pop_first() else {
            return false;
        };
        self.now = self.now.max(at);
        match happening {
            Happening::Tell(coordinator, event) => self.event(coordinator, event),
            Happening::Up(stream, event) => {
                if let Some(c) = self.connections.get(&stream) {
                    let (coordinator, worker) = (c.coordinator, c.worker);
                    self.event(coordinator, Event::Worker(worker, event));
                }
            }
            Happening::Down(stream, order) => {
                if let Some(process) = self.connections.get(&stream).map(|c| c.process) {
                    match order {
                        Some(order) => self.obey(process, order),
                        None => self.leave(process),
                    }
                }
            }
            Happening::LostByWorker(process) => self.seek(process),
            Happening::Wake(coordinator, moment) => self.wake(coordinator, moment),
            Happening::Look(coordinator) => self.look(coordinator),
            Happening::Relaunch => self.relaunch(),
            Happening::Start(process) => self.start_process(process),
            Happening::Seek(process) => self.seek(process),
            Happening::Say(process, event) => self.say(process, event),
            Happening::Train(generation) => self.train(generation),
            Happening::MeshIsDue(generation) => self.mesh_is_due(generation),
            Happening::Persist(coordinator, ticket, fact) => {
                let written = self.store.persist(self.now, *fact);
                let later = self.random.below(500);
                self.tell(coordinator, later, Event::Stored(ticket, written));
            }
            Happening::Renew(coordinator, asked) => self.renew(coordinator, asked),
            Happening::Fault(fault) => self.strike(fault),
            Happening::Preempted(process) => self.end_process(process),
        }
        self.check();
        true
    }

    pub(super) fn open_stream(&mut self, process: u64, number: u64) -> u64 {
        let coordinator = self.coordinators.get_mut(&number).expect("it accepts");
        let worker = WorkerId(coordinator.next_worker);
        coordinator.next_worker += 1;
        let stream = self.next_connection;
        self.next_connection += 1;
        let connection = Connection {
            process,
            coordinator: number,
            worker,
            up: self.now,
            down: self.now,
        };
        self.connections.insert(stream, connection);
        stream
    }

    pub(super) fn stream_of(&self, number: u64, worker: WorkerId) -> Option<u64> {
        let of_it = |c: &&Connection| c.coordinator == number && c.worker == worker;
        let mut streams = self.connections.iter();
        streams.find(|(_, c)| of_it(c)).map(|(&stream, _)| stream)
    }

    pub(super) fn streams_of(&self, number: u64) -> Vec<u64> {
        let of_it = self
            .connections
            .iter()
            .filter(|(_, c)| c.coordinator == number);
        of_it.map(|(&stream, _)| stream).collect()
    }

    pub(super) fn send_up(&mut self, stream: u64, event: WorkerEvent) {
        let latency = self.random.below(50);
        if let Some(connection) = self.connections.get_mut(&stream) {
            connection.up = connection.up.max(self.now + latency);
            let at = connection.up;
            self.at(at, Happening::Up(stream, event));
        }
    }

    pub(super) fn send_down(&mut self, stream: u64, order: Option<Order>) {
        let latency = self.random.below(50);
        if let Some(connection) = self.connections.get_mut(&stream) {
            connection.down = connection.down.max(self.now + latency);
            let at = connection.down;
            self.at(at, Happening::Down(stream, order));
        }
    }

    /// Nothing comes through any more, also of what is on its way. Both ends notice, each at its own time.
    pub(super) fn break_stream(&mut self, stream: u64, within: Millis) {
        let Some(connection) = self.connections.remove(&stream) else {
            return;
        };
        let Connection {
            process,
            coordinator,
            worker,
            ..
        } = connection;
        let later = self.random.below(within);
        let left = Event::Worker(worker, WorkerEvent::Left);
        self.tell(coordinator, later, left);
        if let Some(process) = self.processes.get_mut(&process) {
            process.stream = None;
        }
        let later = self.random.below(within);
        self.schedule(later, Happening::LostByWorker(process));
    }

    pub(super) fn any_stream(&mut self) -> Option<u64> {
        let count = self.connections.len() as u64;
        let chosen = (count > 0).then(|| self.random.below(count))?;
        self.connections.keys().nth(chosen as usize).copied()
    }

    /// What a trial comes to: the same for everybody, unless that is the flaw.
    pub(super) fn answer(&self, trial: &TrialId, generation: Generation) -> Outcome {
        let text = match self.flaw {
            Flaw::ManyAnswers => format!("{trial} {generation}"),
            _ => trial.0.clone(),
        };
        Outcome {
            digest: Digest::of(text.as_bytes()),
            ..outcome(trial)
        }
    }

    pub(super) fn describe(&self) -> String {
        let status = |(number, c): (&u64, &Coordinator)| match &c.core {
            Some(core) => format!("coordinator {number}: {}", core.status()),
            None => format!("coordinator {number} is a candidate"),
        };
        let coordinators: Vec<String> = self.coordinators.iter().map(status).collect();
        format!("{}\n{:#?}", coordinators.join("\n"), self.processes)
    }

    // What holds at every moment.

    /// No two lead at once: whoever has begun a generation is followed by higher epochs only.
    pub(super) fn check_order(&mut self, number: u64, worker: WorkerId, order: &Order) {
        let epoch = self.coordinators[&number].epoch;
        if let Order::Prepare { generation } = order {
            assert_eq!(generation.epoch, epoch);
            assert!(
                epoch >= self.leads,
                "{epoch} begins {generation} although {} has led since",
                self.leads
            );
            self.leads = epoch;
            assert!(self.begun.insert((*generation, worker)), "begun twice");
        }
    }

    /// Workers that some of the trials can use at one time: the largest choice of those of which none starts from
    /// another.
    fn at_one_time(&self, of: &[usize]) -> usize {
        let start = |index: usize| {
            let after = self.jobs[index].after.as_ref()?;
            self.jobs.iter().position(|job| job.trial == *after)
        };
        let follows = |later: usize, earlier: usize| {
            std::iter::successors(start(later), |&at| start(at)).any(|at| at == earlier)
        };
        let choices = (0..1_u32 << of.len()).filter_map(|choice| {
            let chosen: Vec<usize> = (0..of.len())
                .filter(|bit| choice >> bit & 1 == 1)
                .map(|bit| of[bit])
                .collect();
            let apart = |&one: &usize| chosen.iter().all(|&other| !follows(one, other));
            let world = |&index: &usize| self.jobs[index].world as usize;
            chosen
                .iter()
                .all(apart)
                .then(|| chosen.iter().map(world).sum())
        });
        choices.max().unwrap_or(0)
    }

    /// Workers that a coordinator needs for what is left, and for spares.
    fn needed_by(&self, core: &Core) -> usize {
        let all: Vec<usize> = (0..self.jobs.len()).collect();
        let is_left = |&index: &usize| {
            let standing = &core.trials[index].standing;
            matches!(standing, Standing::Waiting | Standing::Running(_))
        };
        let left: Vec<usize> = all.iter().copied().filter(is_left).collect();
        let spares = (self.workers as usize).saturating_sub(self.at_one_time(&all));
        self.at_one_time(&left) + spares
    }

    /// Whoever lets workers go keeps as many as it needs.
    pub(super) fn check_nobody_is_missed(&self, number: u64) {
        let core = self.coordinators[&number].core.as_ref().expect("it leads");
        let (left, needed) = (core.workers.len() - core.leaving, self.needed_by(core));
        let needed = needed.min(self.workers as usize);
        assert!(
            left >= needed,
            "{left} are fewer than {needed}: {}",
            core.status()
        );
    }

    /// Nobody is kept who isn't needed any more.
    fn check_nobody_is_kept(&self, core: &Core) {
        let is_calm = core.verdict().is_none() && !core.lease.paused && !core.draining;
        let name = |worker: &WorkerId| core.workers[worker].inventory.launch.as_ref();
        // One that is back before its broken stream is noticed is two workers for a while.
        let is_one = |worker: &&WorkerId| {
            let of_it = core
                .workers
                .keys()
                .filter(|other| name(other) == name(worker));
            core.workers[worker].is_ours && of_it.count() == 1
        };
        let has_idle = core.idle.iter().any(|worker| is_one(&worker));
        if is_calm && !core.settling && core.has_work() && has_idle {
            let staying = core.workers.iter().filter(|(_, entry)| !entry.leaving);
            let processes: BTreeSet<_> = staying.map(|(worker, _)| name(worker)).collect();
            let (there, needed) = (processes.len(), self.needed_by(core));
            assert!(
                there <= needed,
                "{there} are more than {needed}: {}",
                core.status()
            );
        }
    }

    fn check(&self) {
        for coordinator in self.coordinators.values() {
            let Some(core) = &coordinator.core else {
                continue;
            };
            self.check_nobody_is_kept(core);
            let mut seen = BTreeSet::new();
            for group in core.groups.values() {
                for member in group.members() {
                    assert!(seen.insert(member.worker), "a worker is in one generation");
                    assert!(!core.idle.contains(&member.worker));
                }
            }
        }
    }
}
