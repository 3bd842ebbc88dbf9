//! One generation: its members, how far it is, and why it ends.

use super::pace::Course;
use polestar_core::{Rank, WorkerId};
use polestar_run::{
    Cause, Failure, Outcome,
    failure::{Blame, Member, Stage, Trouble},
};
use std::net::SocketAddr;

#[derive(Clone, Debug)]
pub(super) struct Group {
    /// Index of its trial.
    pub(super) trial: usize,
    pub(super) stage: Stage,
    seats: Vec<Seat>,
    /// What is known to have gone wrong, in the order in which it became known.
    blames: Vec<Blame>,
    /// The stage in which nobody came further, and how long that took.
    stalled: Option<(Stage, u64)>,
    /// How fast it goes, once it has said how far it is.
    pub(super) course: Option<Course>,
}

/// A rank and what is known of it.
#[derive(Clone, Debug)]
struct Seat {
    member: Member,
    endpoint: Option<SocketAddr>,
    outcome: Option<Outcome>,
    /// Whether its engine may still run.
    busy: bool,
}

/// Where the members of a group are.
pub(super) struct Roster {
    /// Addresses of all data ports, by rank.
    pub(super) endpoints: Vec<SocketAddr>,
    /// The members, by rank.
    pub(super) members: Vec<(Rank, WorkerId)>,
}

impl Group {
    pub(super) fn new(trial: usize, members: Vec<Member>) -> Group {
        let seat = |member| Seat {
            member,
            endpoint: None,
            outcome: None,
            busy: true,
        };
        Group {
            trial,
            stage: Stage::Preparing,
            seats: members.into_iter().map(seat).collect(),
            blames: Vec::new(),
            stalled: None,
            course: None,
        }
    }

    fn seat(&mut self, worker: WorkerId) -> Option<&mut Seat> {
        self.seats.iter_mut().find(|s| s.member.worker == worker)
    }

    /// By rank.
    pub(super) fn members(&self) -> impl Iterator<Item = &Member> {
        self.seats.iter().map(|seat| &seat.member)
    }

    /// How many they are.
    pub(super) fn world(&self) -> u32 {
        self.seats.len() as u32
    }

    pub(super) fn member(&self, worker: WorkerId) -> Option<&Member> {
        self.members().find(|member| member.worker == worker)
    }

    /// Workers whose engine may still run, by rank.
    pub(super) fn busy(&self) -> Vec<WorkerId> {
        let busy = self.seats.iter().filter(|seat| seat.busy);
        busy.map(|seat| seat.member.worker).collect()
    }

    /// Workers that haven't opened their port.
    pub(super) fn without_endpoint(&self) -> Vec<WorkerId> {
        let waiting = self.seats.iter().filter(|seat| seat.endpoint.is_none());
        waiting.map(|seat| seat.member.worker).collect()
    }

    /// A member opened its port. Returns where all of them are, once that is known.
    pub(super) fn ready(&mut self, worker: WorkerId, endpoint: SocketAddr) -> Option<Roster> {
        self.seat(worker)?.endpoint = Some(endpoint);
        let endpoints: Option<Vec<_>> = self.seats.iter().map(|seat| seat.endpoint).collect();
        Some(Roster {
            endpoints: endpoints?,
            members: self.members().map(|m| (m.rank, m.worker)).collect(),
        })
    }

    /// A member reached the end.
    pub(super) fn finished(&mut self, worker: WorkerId, outcome: Outcome) {
        if let Some(seat) = self.seat(worker) {
            seat.outcome = Some(outcome);
            seat.busy = false;
        }
    }

    /// A member's engine has ended.
    pub(super) fn released(&mut self, worker: WorkerId) {
        if let Some(seat) = self.seat(worker) {
            seat.busy = false;
        }
    }

    /// Something went wrong with a member that had not done its part yet. Returns whose it is.
    pub(super) fn blame(&mut self, worker: WorkerId, trouble: Trouble) -> Option<&Blame> {
        let seat = self.seat(worker).filter(|seat| seat.outcome.is_none())?;
        seat.busy = false;
        let member = seat.member.clone();
        self.blames.push(Blame { member, trouble });
        self.blames.last()
    }

    /// Nobody came further in a stage.
    pub(super) fn stall(&mut self, seconds: u64) {
        self.stalled = Some((self.stage, seconds));
    }

    pub(super) fn has_trouble(&self) -> bool {
        !self.blames.is_empty() || self.stalled.is_some()
    }

    pub(super) fn is_over(&self) -> bool {
        self.seats.iter().all(|seat| !seat.busy)
    }

    /// The outcome of rank 0, if every rank reached the end.
    pub(super) fn outcome(&self) -> Option<&Outcome> {
        let all = self.seats.iter().all(|seat| seat.outcome.is_some());
        self.seats.first().filter(|_| all)?.outcome.as_ref()
    }

    /// Why it ends. Trouble that is somebody's own explains more than a stall, a stall more than those who
    /// only suffered from it.
    pub(super) fn cause(&self) -> Cause {
        let own = self.blames.iter().any(|blame| !blame.is_collateral());
        match self.stalled {
            Some((stage, seconds)) if !own => Cause::Stalled { stage, seconds },
            _ => Cause::of_ranks(self.blames.clone())
                .expect("a generation ends early only for trouble of a member, or a stall"),
        }
    }
}

/// A rank that stopped although nobody had asked it to.
pub(super) fn stopped_unasked() -> Trouble {
    let failure = Failure {
        phase: polestar_run::failure::Phase::Abort,
        message: "it stopped without being asked".to_owned(),
        collateral: false,
        retryable: true,
        last_operation: None,
    };
    Trouble::Failed { failure }
}
