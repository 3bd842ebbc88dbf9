//! A pool as small as can be: coordinators, worker processes, the streams between them, and requests on their way to
//! the store. Time passes only when nothing else can happen.

use super::{
    processes::{Process, launch_of},
    *,
};

/// A coordinator that leads, or believes so.
#[derive(Clone, Debug)]
pub(super) struct Leader {
    pub(super) core: Core,
    pub(super) now: Moment,
    pub(super) wake: Option<Moment>,
    pub(super) next_worker: u64,
    /// What it is about to learn, in order: of processes, of streams that broke, of the store.
    pub(super) inbox: VecDeque<Event>,
}

/// A fact on its way to the store.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) from: Epoch,
    pub(super) ticket: Ticket,
    pub(super) fact: Fact,
}

#[derive(Clone, Debug)]
pub(super) struct SmallPool {
    pub(super) size: Size,
    pub(super) flaw: StoreFlaw,
    pub(super) faults: u32,
    pub(super) store: VirtualStore,
    pub(super) coordinators: BTreeMap<Epoch, Leader>,
    pub(super) processes: BTreeMap<u64, Process>,
    pub(super) next_process: u64,
    pub(super) requests: Vec<Request>,
    /// Generations that lack a rank.
    pub(super) broken: BTreeSet<Generation>,
    /// Whether a coordinator has said that nothing is left to do.
    pub(super) is_over: bool,
    /// How often each trial reached its end.
    pub(super) trained: BTreeMap<TrialId, u32>,
    /// Who has written each result.
    pub(super) stored_by: BTreeMap<TrialId, BTreeSet<Epoch>>,
    /// What coordinators said that trials came to.
    pub(super) said: BTreeMap<TrialId, BTreeSet<Digest>>,
    pub(super) fenced: bool,
}

impl SmallPool {
    pub(super) fn new(size: Size, flaw: StoreFlaw) -> SmallPool {
        SmallPool {
            size,
            flaw,
            faults: size.faults,
            store: VirtualStore::default(),
            coordinators: BTreeMap::new(),
            processes: BTreeMap::new(),
            next_process: 1,
            requests: Vec::new(),
            broken: BTreeSet::new(),
            is_over: false,
            trained: BTreeMap::new(),
            stored_by: BTreeMap::new(),
            said: BTreeMap::new(),
            fenced: false,
        }
    }

    /// Whether a generation goes on under a coordinator that didn't begin it.
    pub(super) fn has_taken_over(&self) -> bool {
        let mut leaders = self.coordinators.iter();
        leaders.any(|(&epoch, leader)| leader.core.groups.keys().any(|g| g.epoch < epoch))
    }

    pub(super) fn newest(&self) -> Option<Epoch> {
        self.coordinators.keys().next_back().copied()
    }

    /// Whether it doesn't lead any more.
    pub(super) fn is_superseded(&self, epoch: Epoch) -> bool {
        epoch.0 < self.store.epochs
    }

    // Coordinators.

    pub(super) fn launch(&mut self) {
        let takes_over = self.store.lease.as_ref().is_some_and(|l| !l.released);
        let seen = self.store.lease.clone();
        let address = self.store.epochs + 1;
        let epoch = self.store.take_lease(seen.as_ref(), address);
        let epoch = epoch.expect("nobody else takes it at the same moment");
        let jobs = (0..self.size.trials).map(|number| {
            let mut job = job(&format!("t{number}"), 1.0, self.size.world, None);
            job.history = self.store.history(&job.trial);
            job
        });
        let options = Options {
            epoch,
            takes_over,
            // Renewals that succeed are nothing new.
            lease: Duration::from_secs(1 << 40),
            ..options(self.size.workers)
        };
        let leader = Leader {
            core: Core::new(options, jobs.collect()).expect("jobs that fit"),
            now: Moment::default(),
            wake: None,
            next_worker: 1,
            inbox: VecDeque::new(),
        };
        self.coordinators.insert(epoch, leader);
        self.with_core(epoch, |core, now| core.begin(now));
    }

    pub(super) fn tell(&mut self, epoch: Epoch, event: Event) {
        self.with_core(epoch, |core, now| core.handle(now, event));
    }

    /// It learns this later.
    pub(super) fn tell_later(&mut self, epoch: Epoch, event: Event) {
        if let Some(leader) = self.coordinators.get_mut(&epoch) {
            leader.inbox.push_back(event);
        }
    }

    pub(super) fn with_core(
        &mut self,
        epoch: Epoch,
        act: impl FnOnce(&mut Core, Moment) -> Vec<Command>,
    ) {
        let Some(leader) = self.coordinators.get_mut(&epoch) else {
            return;
        };
        for command in act(&mut leader.core, leader.now) {
            self.obey_core(epoch, command);
        }
        self.end_if_over(epoch);
    }

    pub(super) fn obey_core(&mut self, epoch: Epoch, command: Command) {
        match command {
            Command::Send(worker, order) => self.send(epoch, worker, Some(order)),
            Command::Dismiss(worker) => self.send(epoch, worker, None),
            Command::Persist(ticket, fact) => {
                if self.flaw == StoreFlaw::AnswersFirst {
                    self.tell_later(epoch, Event::Stored(ticket, Ok(())));
                }
                self.requests.push(Request {
                    from: epoch,
                    ticket,
                    fact,
                });
            }
            Command::Renew => {}
            Command::Scale(count) => {
                let there = self.processes.values().filter(|p| p.of == epoch).count();
                for _ in there..count as usize {
                    let launch = launch_of(self.start_process(epoch));
                    self.tell(epoch, Event::Launcher(LaunchEvent::Started { launch }));
                }
            }
            Command::Retire { worker, launch, .. } => {
                if let Some(process) = worker.and_then(|worker| self.process_of(epoch, worker)) {
                    self.break_connection(process);
                }
                let named = |number: &u64| launch == Some(launch_of(*number));
                let process = self.processes.keys().copied().find(named);
                if let Some(process) = process.filter(|p| self.processes[p].of == epoch) {
                    self.end_process(process);
                }
            }
            Command::WakeAt(moment) => {
                if let Some(leader) = self.coordinators.get_mut(&epoch) {
                    leader.wake = Some(moment);
                }
            }
            Command::Publish(Entry::Done { trial, digest }) => {
                self.said.entry(trial).or_default().insert(digest);
            }
            Command::Publish(_) => {}
        }
    }

    pub(super) fn end_if_over(&mut self, epoch: Epoch) {
        let Some(leader) = self.coordinators.get(&epoch) else {
            return;
        };
        match leader.core.verdict() {
            None => return,
            Some(Verdict::Fenced { .. }) => self.fenced = true,
            Some(verdict) => {
                self.is_over |= *verdict == Verdict::Complete;
                let own = self.processes.iter().filter(|(_, p)| p.of == epoch);
                for process in own.map(|(&number, _)| number).collect::<Vec<_>>() {
                    self.end_process(process);
                }
                if let Some(lease) = self.store.lease_of(epoch) {
                    lease.released = true;
                }
            }
        }
        self.end_coordinator(epoch);
    }

    pub(super) fn end_coordinator(&mut self, epoch: Epoch) {
        self.coordinators.remove(&epoch);
        let connected = |p: &Process| p.connection.as_ref().is_some_and(|c| c.epoch == epoch);
        let of_it = self.processes.iter().filter(|(_, p)| connected(p));
        for process in of_it.map(|(&number, _)| number).collect::<Vec<_>>() {
            self.break_connection(process);
        }
    }

    // The store.

    pub(super) fn store(&mut self, number: usize, says: Option<StoreTrouble>) {
        let Request { from, ticket, fact } = self.requests.remove(number);
        if let Fact::Done(result) = &fact {
            let Outcome { trial, digest, .. } = &result.outcome;
            if self.flaw == StoreFlaw::Replaces {
                self.store.results.remove(trial);
            }
            let there = self.store.results.get(trial);
            assert!(there.is_none_or(|there| there == digest), "{trial} differs");
            let by = self.stored_by.entry(trial.clone()).or_default();
            by.insert(from);
        }
        let stored = self.store.persist(0, fact);
        let answer = says.map_or(stored, Err);
        if self.flaw != StoreFlaw::AnswersFirst {
            self.tell_later(from, Event::Stored(ticket, answer));
        }
    }
}
