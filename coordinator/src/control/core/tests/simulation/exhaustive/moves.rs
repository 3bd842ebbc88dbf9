//! What can happen in a small pool, and what must not have come of it.

use super::{pool::SmallPool, *};
use crate::control::explore::World;

/// By then no deadline is left that could matter.
const END: Moment = Moment(Duration::from_secs(100_000));

/// Something that happens.
#[derive(Clone, Debug)]
pub(super) enum Move {
    /// A message arrives at a coordinator.
    Up(u64),
    /// A message arrives at a worker process.
    Down(u64),
    /// A coordinator takes in the next of what it has yet to learn.
    Learn(Epoch),
    /// A process finds the coordinator that leads.
    Seek(u64),
    /// A generation reaches its end.
    Train(Generation),
    /// A rank notices that it lacks another.
    MissPeer(u64),
    /// A request reaches the store.
    Store(usize),
    /// A coordinator hears that another one leads.
    Fence(Epoch),
    /// A coordinator is launched. Beside another it is a fault.
    Launch,
    /// A coordinator's next deadline.
    Wake(Epoch),
    /// Fault: a coordinator's process is killed.
    KillCoordinator(Epoch),
    /// Fault: a worker process is killed.
    KillProcess(u64),
    /// Fault: a connection breaks, with all that is on its way.
    Break(u64),
    /// Fault: a request does what it should and seems to have failed.
    LoseAnswer(usize),
    /// A request of a coordinator that is gone doesn't arrive.
    LoseRequest(usize),
}

impl SmallPool {
    /// What happens sooner or later by itself.
    fn due(&self) -> Vec<Move> {
        let mut due = Vec::new();
        for (&number, process) in &self.processes {
            match &process.connection {
                Some(connection) => {
                    due.extend((!connection.up.is_empty()).then_some(Move::Up(number)));
                    due.extend((!connection.down.is_empty()).then_some(Move::Down(number)));
                }
                None => due.extend(self.leader_for(process).map(|_| Move::Seek(number))),
            }
            let Some(running) = process
                .running
                .as_ref()
                .filter(|_| process.last_word.is_none())
            else {
                continue;
            };
            if self.broken.contains(&running.generation) {
                due.push(Move::MissPeer(number));
            } else if running.rank == Rank(0)
                && self.ranks(running.generation).len() == running.world as usize
            {
                due.push(Move::Train(running.generation));
            }
        }
        for (&epoch, leader) in &self.coordinators {
            due.extend((!leader.inbox.is_empty()).then_some(Move::Learn(epoch)));
            due.extend(self.is_superseded(epoch).then_some(Move::Fence(epoch)));
        }
        for (number, request) in self.requests.iter().enumerate() {
            due.push(Move::Store(number));
            let is_gone = !self.coordinators.contains_key(&request.from);
            due.extend(is_gone.then_some(Move::LoseRequest(number)));
        }
        if self.coordinators.is_empty() && !self.is_over {
            due.push(Move::Launch);
        }
        due
    }

    fn faults(&self) -> Vec<Move> {
        let mut faults = Vec::new();
        if self.faults == 0 || self.is_over {
            return faults;
        }
        faults.extend(
            self.coordinators
                .keys()
                .map(|&epoch| Move::KillCoordinator(epoch)),
        );
        for (&number, process) in &self.processes {
            faults.push(Move::KillProcess(number));
            faults.extend(process.connection.as_ref().map(|_| Move::Break(number)));
        }
        faults.extend((0..self.requests.len()).map(Move::LoseAnswer));
        faults.extend((self.coordinators.len() == 1).then_some(Move::Launch));
        faults
    }

    /// Deadlines that pass when nothing else happens.
    fn deadlines(&self) -> Vec<Move> {
        let leaders = self.coordinators.iter();
        let alarms = leaders.filter(|(_, leader)| leader.wake.is_some() && leader.now < END);
        alarms.map(|(&epoch, _)| Move::Wake(epoch)).collect()
    }
}

impl World for SmallPool {
    type Move = Move;

    fn moves(&self) -> Vec<Move> {
        let mut moves = self.due();
        if moves.is_empty() {
            moves = self.deadlines();
        }
        moves.extend(self.faults());
        moves
    }

    fn make(&mut self, next: &Move) {
        let is_fault = match next {
            Move::Launch => !self.coordinators.is_empty(),
            Move::KillCoordinator(_)
            | Move::KillProcess(_)
            | Move::Break(_)
            | Move::LoseAnswer(_) => true,
            _ => false,
        };
        self.faults -= u32::from(is_fault);
        match *next {
            Move::Up(number) => {
                let process = self.processes.get_mut(&number);
                let connection = process.and_then(|p| p.connection.as_mut());
                let connection = connection.expect("it is connected");
                let (epoch, worker) = (connection.epoch, connection.worker);
                if let Some(event) = connection.up.pop_front() {
                    self.tell(epoch, Event::Worker(worker, event));
                }
            }
            Move::Down(number) => {
                let process = self.processes.get_mut(&number);
                let connection = process.and_then(|p| p.connection.as_mut());
                match connection.and_then(|c| c.down.pop_front()).flatten() {
                    Some(order) => self.obey(number, order),
                    None => self.end_process(number),
                }
            }
            Move::Learn(epoch) => {
                let leader = self.coordinators.get_mut(&epoch);
                if let Some(event) = leader.and_then(|leader| leader.inbox.pop_front()) {
                    self.tell(epoch, event);
                }
            }
            Move::Seek(number) => self.seek(number),
            Move::Train(generation) => self.train(generation),
            Move::MissPeer(number) => {
                let running = self.processes[&number].running.as_ref();
                let generation = running.expect("it has peers").generation;
                let failure = failure("a peer is lost", true, true);
                self.say(
                    number,
                    WorkerEvent::Failed {
                        generation,
                        failure,
                    },
                );
            }
            Move::Store(number) => self.store(number, None),
            Move::LoseAnswer(number) => self.store(
                number,
                Some(StoreTrouble {
                    message: "timeout".to_owned(),
                    retryable: true,
                }),
            ),
            Move::LoseRequest(number) => {
                self.requests.remove(number);
            }
            Move::Fence(epoch) => {
                let leader = "another".to_owned();
                self.tell(epoch, Event::Lease(LeaseEvent::Lost { leader }));
            }
            Move::Launch => self.launch(),
            Move::Wake(epoch) => {
                if let Some(leader) = self.coordinators.get_mut(&epoch) {
                    let wake = leader.wake.take();
                    leader.now = leader.now.max(wake.unwrap_or(leader.now));
                }
                self.tell(epoch, Event::Tick);
            }
            Move::KillCoordinator(epoch) => self.end_coordinator(epoch),
            Move::KillProcess(number) => self.end_process(number),
            Move::Break(number) => self.break_connection(number),
        }
    }

    fn fault(&self, is_end: bool) -> Option<String> {
        for (trial, said) in &self.said {
            let Some(stored) = self.store.results.get(trial) else {
                return Some(format!("{trial} is called done and has no result"));
            };
            if said.iter().any(|digest| digest != stored) {
                return Some(format!("{trial} has two results"));
            }
        }
        let lost = (0..self.size.trials).map(|number| named(&format!("t{number}")));
        let lost = lost
            .filter(|trial| !self.store.results.contains_key(trial))
            .count();
        (is_end && lost > 0)
            .then(|| format!("nothing can happen, and {lost} trials have no result"))
    }
}
