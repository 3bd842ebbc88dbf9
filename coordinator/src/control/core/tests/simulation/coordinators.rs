//! Coordinators of a simulated world: they look at the lease, lead, do what their core says, and end.

use super::{
    agents::Process,
    world::{Coordinator, Happening, World},
    *,
};
use crate::control::lead::{Decision, Watch};

impl World {
    /// Starts a coordinator if there is none, until the run is over.
    pub(super) fn relaunch(&mut self) {
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

    pub(super) fn moment(&self, coordinator: &Coordinator) -> Moment {
        Moment(Duration::from_millis(self.now - coordinator.began))
    }

    /// A candidate looks whether it can lead.
    pub(super) fn look(&mut self, number: u64) {
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

    pub(super) fn lead(&mut self, number: u64, epoch: Epoch, takes_over: bool) {
        let jobs = self.jobs.iter().map(|job| Job {
            history: self.store.history(&job.trial),
            ..job.clone()
        });
        let options = Options {
            epoch,
            takes_over,
            lease: match self.flaw {
                Flaw::IgnoredLease => Duration::from_secs(1 << 30),
                _ => LEASE,
            },
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

    pub(super) fn event(&mut self, number: u64, event: Event) {
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

    pub(super) fn wake(&mut self, number: u64, moment: Moment) {
        if self
            .coordinators
            .get(&number)
            .is_some_and(|c| c.wake == Some(moment))
        {
            self.event(number, Event::Tick);
        }
    }

    pub(super) fn end_if_over(&mut self, number: u64) {
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
        self.queue.retain(|_, of| *of != number);
    }

    pub(super) fn renew(&mut self, number: u64, asked: Moment) {
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

    pub(super) fn perform(&mut self, number: u64, commands: Vec<Command>) {
        for command in commands {
            self.said.push(command.clone());
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
                Command::Scale(count) => self.scale(number, count as usize),
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
                Command::Publish(Entry::LetGo { .. }) => {
                    *self.struck.entry(LET_GO).or_default() += 1;
                    self.check_nobody_is_missed(number);
                }
                Command::Publish(_) => {}
            }
        }
    }
}
