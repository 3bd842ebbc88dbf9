//! A simulated world: a heap of what will happen, coordinators, and the connections between them and their workers.

use super::{
    agents::{DataPlane, Process},
    store::VirtualStore,
    *,
};
use crate::control::lead::{Decision, Watch};

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
    watch: Watch,
    /// When its clock began.
    began: Millis,
    /// Stands still until then.
    still_until: Millis,
    wake: Option<Moment>,
    next_worker: u64,
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
    next_coordinator: u64,
    pub(super) processes: BTreeMap<u64, Process>,
    pub(super) next_process: u64,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    pub(super) planes: BTreeMap<Generation, DataPlane>,
    pub(super) jobs: Vec<Job>,
    pub(super) workers: u32,
    /// Trials whose loss stops being finite.
    pub(super) diverging: BTreeSet<TrialId>,
    /// Whether dead coordinators are seen to be dead, as on one machine.
    sees_death: bool,
    /// The highest epoch that has begun a generation.
    leads: Epoch,
    /// Generations that have begun, and with which workers.
    begun: BTreeSet<(Generation, WorkerId)>,
    pub(super) is_over: bool,
    /// How often each kind of fault has struck.
    pub(super) struck: BTreeMap<&'static str, u32>,
}

impl World {
    pub(super) fn new(seed: u64) -> World {
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
            connections: BTreeMap::new(),
            next_connection: 1,
            planes: BTreeMap::new(),
            workers,
            diverging,
            sees_death: random.below(2) == 0,
            leads: Epoch(0),
            begun: BTreeSet::new(),
            is_over: false,
            struck: BTreeMap::new(),
            random,
        };
        world.schedule(0, Happening::Relaunch);
        world
    }

    pub(super) fn schedule(&mut self, later: Millis, happening: Happening) {
        self.at(self.now + later, happening);
    }

    fn at(&mut self, at: Millis, happening: Happening) {
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
                        None => self.end_process(process),
                    }
                }
            }
            Happening::LostByWorker(process) => self.seek(process),
            Happening::Wake(coordinator, moment) => self.wake(coordinator, moment),
            Happening::Look(coordinator) => self.look(coordinator),
            Happening::Relaunch => self.relaunch(),
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

    // Coordinators.

    /// Starts a coordinator if there is none, until the run is over.
    fn relaunch(&mut self) {
        if self.is_over {
            return;
        }
        if self.coordinators.is_empty() {
            self.launch();
        }
        self.schedule(30_000, Happening::Relaunch);
    }

    pub(super) fn launch(&mut self) {
        let number = self.next_coordinator;
        self.next_coordinator += 1;
        let coordinator = Coordinator {
            core: None,
            epoch: Epoch(0),
            watch: Watch::default(),
            began: self.now,
            still_until: 0,
            wake: None,
            next_worker: 1,
        };
        self.coordinators.insert(number, coordinator);
        self.schedule(1, Happening::Look(number));
    }

    fn moment(&self, coordinator: &Coordinator) -> Moment {
        Moment(Duration::from_millis(self.now - coordinator.began))
    }

    /// A candidate looks whether it can lead.
    fn look(&mut self, number: u64) {
        let Some(coordinator) = self.coordinators.get(&number) else {
            return;
        };
        if coordinator.stands_still(self.now) || self.store.is_down(self.now) {
            return self.schedule(1000, Happening::Look(number));
        }
        let now = self.moment(coordinator);
        let seen = self.store.lease.clone();
        let is_free = seen.as_ref().is_some_and(|lease| {
            let leader: u64 = lease.leader.address.parse().expect("a number of ours");
            lease.released || (self.sees_death && !self.coordinators.contains_key(&leader))
        });
        let coordinator = self.coordinators.get_mut(&number).expect("just seen");
        match coordinator.watch.look(now, seen.as_ref(), is_free) {
            Decision::Led => {
                self.coordinators.remove(&number);
            }
            Decision::Wait => self.schedule(500, Happening::Look(number)),
            Decision::Take => {
                let takes_over = seen.as_ref().is_some_and(|lease| !lease.released);
                match self.store.take_lease(seen.as_ref(), number) {
                    Some(epoch) => self.lead(number, epoch, takes_over),
                    None => self.schedule(1, Happening::Look(number)),
                }
            }
        }
    }

    fn lead(&mut self, number: u64, epoch: Epoch, takes_over: bool) {
        let jobs = self.jobs.iter().map(|job| Job {
            history: self.store.history(&job.trial),
            ..job.clone()
        });
        let options = Options {
            epoch,
            takes_over,
            ..options(self.workers)
        };
        let mut core = Core::new(options, jobs.collect()).expect("jobs that fit");
        let coordinator = self.coordinators.get_mut(&number).expect("it looked");
        coordinator.began = self.now;
        coordinator.epoch = epoch;
        let commands = core.begin(Moment::default());
        coordinator.core = Some(core);
        self.perform(number, commands);
        self.end_if_over(number);
    }

    fn event(&mut self, number: u64, event: Event) {
        let Some(coordinator) = self.coordinators.get_mut(&number) else {
            return;
        };
        if coordinator.stands_still(self.now) {
            let later = coordinator.still_until - self.now;
            return self.tell(number, later, event);
        }
        let now = Moment(Duration::from_millis(self.now - coordinator.began));
        let Some(core) = &mut coordinator.core else {
            return;
        };
        let commands = core.handle(now, event);
        self.perform(number, commands);
        self.end_if_over(number);
    }

    fn wake(&mut self, number: u64, moment: Moment) {
        if self
            .coordinators
            .get(&number)
            .is_some_and(|c| c.wake == Some(moment))
        {
            self.event(number, Event::Tick);
        }
    }

    fn end_if_over(&mut self, number: u64) {
        let Some(coordinator) = self.coordinators.get(&number) else {
            return;
        };
        let Some(verdict) = coordinator.core.as_ref().and_then(Core::verdict).cloned() else {
            return;
        };
        let epoch = coordinator.epoch;
        match verdict {
            Verdict::Fenced { .. } => return self.end_coordinator(number, true),
            Verdict::Complete => self.is_over = true,
            Verdict::Stopped | Verdict::NoWorkers { .. } => {}
        }
        for stream in self.streams_of(number) {
            self.send_down(stream, None);
        }
        let of_it = |process: &Process| process.launch.0 == number;
        let left: Vec<u64> = self
            .processes
            .iter()
            .filter(|(_, p)| of_it(p))
            .map(|(&n, _)| n)
            .collect();
        for process in left {
            self.end_process(process);
        }
        if !self.store.is_down(self.now)
            && let Some(lease) = self.store.lease_of(epoch)
        {
            lease.released = true;
        }
        self.end_coordinator(number, true);
    }

    /// A coordinator's process ends. If not in order, its workers notice at their own time.
    pub(super) fn end_coordinator(&mut self, number: u64, in_order: bool) {
        for stream in self.streams_of(number) {
            let within = if in_order { 10 } else { 12_000 };
            self.break_stream(stream, within);
        }
        self.coordinators.remove(&number);
    }

    fn renew(&mut self, number: u64, asked: Moment) {
        let Some(epoch) = self.coordinators.get(&number).map(|c| c.epoch) else {
            return;
        };
        let is_down = self.store.is_down(self.now);
        let event = match (is_down, self.store.lease_of(epoch)) {
            (true, _) => LeaseEvent::Trouble {
                message: "503".to_owned(),
            },
            (false, Some(lease)) => {
                lease.renewals += 1;
                LeaseEvent::Renewed { asked }
            }
            (false, None) => LeaseEvent::Lost {
                leader: "another".to_owned(),
            },
        };
        let later = self.random.below(if is_down { 20_000 } else { 300 });
        self.tell(number, later, Event::Lease(event));
    }

    fn perform(&mut self, number: u64, commands: Vec<Command>) {
        for command in commands {
            match command {
                Command::Send(worker, order) => {
                    self.check_order(number, worker, &order);
                    if let Some(stream) = self.stream_of(number, worker) {
                        self.send_down(stream, Some(order));
                    }
                }
                Command::Persist(ticket, fact) => {
                    let later = self.random.below(2000);
                    let fact = Box::new(fact);
                    self.schedule(later, Happening::Persist(number, ticket, fact));
                }
                Command::Renew => {
                    let asked = self.moment(&self.coordinators[&number]);
                    let later = self.random.below(300);
                    self.schedule(later, Happening::Renew(number, asked));
                }
                Command::Scale(count) => {
                    let ours = self
                        .processes
                        .values()
                        .filter(|p| p.launch.0 == number)
                        .count();
                    for _ in ours..count as usize {
                        self.start_process(number);
                    }
                }
                Command::Retire { worker, launch, .. } => {
                    if let Some(stream) = worker.and_then(|w| self.stream_of(number, w)) {
                        self.break_stream(stream, 100);
                    }
                    let process = launch.and_then(|launch| {
                        let of_it = |p: &Process| p.launch == (number, launch.clone());
                        self.processes
                            .iter()
                            .find(|(_, p)| of_it(p))
                            .map(|(&n, _)| n)
                    });
                    if let Some(process) = process {
                        self.end_process(process);
                    }
                }
                Command::Dismiss(worker) => {
                    if let Some(stream) = self.stream_of(number, worker) {
                        self.send_down(stream, None);
                    }
                }
                Command::WakeAt(moment) => {
                    let coordinator = self.coordinators.get_mut(&number).expect("it speaks");
                    coordinator.wake = Some(moment);
                    let at = coordinator.began + moment.0.as_millis() as Millis + 1;
                    self.at(at.max(self.now), Happening::Wake(number, moment));
                }
                Command::Publish(_) => {}
            }
        }
    }

    // Connections.

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

    fn stream_of(&self, number: u64, worker: WorkerId) -> Option<u64> {
        let of_it = |c: &&Connection| c.coordinator == number && c.worker == worker;
        let mut streams = self.connections.iter();
        streams.find(|(_, c)| of_it(c)).map(|(&stream, _)| stream)
    }

    fn streams_of(&self, number: u64) -> Vec<u64> {
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

    fn send_down(&mut self, stream: u64, order: Option<Order>) {
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
    fn check_order(&mut self, number: u64, worker: WorkerId, order: &Order) {
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

    fn check(&self) {
        for coordinator in self.coordinators.values() {
            let Some(core) = &coordinator.core else {
                continue;
            };
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
