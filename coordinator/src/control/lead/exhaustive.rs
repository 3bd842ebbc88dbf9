//! All that can happen to a lease between two coordinators, in every order: requests and answers that are late,
//! coordinators that stand still, deaths. Time goes in steps; a lease lasts two of them.

use super::*;
use crate::control::explore;
use polestar_core::Epoch;

const LASTS: u64 = 2;
/// Steps of time that are looked at.
const STEPS: u64 = 9;
const RENEWALS: u64 = 2;
const EPOCHS: u64 = 4;

#[derive(Clone, Debug)]
enum Role {
    /// Looks at the lease, now and then.
    Candidate(Watch),
    /// Has seen that it may take the lease, and has asked for it.
    Taking {
        seen: Option<LeaseRecord>,
        asked: u64,
    },
    /// The store has given it the lease; the answer is on its way.
    Taken {
        epoch: Epoch,
        asked: u64,
    },
    Leader {
        epoch: Epoch,
        /// It leads until then.
        until: u64,
        renewal: Option<Renewing>,
    },
    Gone,
}

/// A renewal, and whether the store has had it.
#[derive(Clone, Copy, Debug)]
struct Renewing {
    asked: u64,
    granted: Option<bool>,
}

#[derive(Clone, Debug)]
struct World {
    now: u64,
    lease: Option<LeaseRecord>,
    epochs: u64,
    coordinators: [Role; 2],
}

fn moment(now: u64) -> Moment {
    Moment(Duration::from_secs(now))
}

fn record(epoch: Epoch, leader: usize) -> LeaseRecord {
    LeaseRecord {
        format: 1,
        epoch,
        leader: Leader {
            host: "h".to_owned(),
            pid: leader as u32,
            machine: String::new(),
            began: String::new(),
            address: String::new(),
        },
        renewals: 0,
        seconds: LASTS,
        released: false,
    }
}

/// Something that happens.
#[derive(Clone, Debug)]
enum Move {
    /// A coordinator, or the store for it, does what is next. Doing nothing is left to time.
    Act(usize),
    /// A coordinator's process dies.
    Die(usize),
    /// Time passes.
    Later,
}

impl World {
    fn act(&mut self, number: usize) {
        let now = self.now;
        self.coordinators[number] = match self.coordinators[number].clone() {
            Role::Gone => Role::Gone,
            Role::Candidate(mut watch) => {
                let seen = self.lease.clone();
                match watch.look(moment(now), seen.as_ref(), false) {
                    Decision::Take => Role::Taking { seen, asked: now },
                    Decision::Wait => Role::Candidate(watch),
                    Decision::Led => Role::Gone,
                }
            }
            Role::Taking { seen, asked } => {
                self.epochs += 1;
                let epoch = Epoch(self.epochs);
                match self.lease == seen {
                    true => {
                        self.lease = Some(record(epoch, number));
                        Role::Taken { epoch, asked }
                    }
                    false => Role::Candidate(Watch::default()),
                }
            }
            Role::Taken { epoch, asked } => Role::Leader {
                epoch,
                until: asked + LASTS,
                renewal: None,
            },
            Role::Leader {
                epoch,
                until,
                renewal,
            } => self.renew(epoch, until, renewal),
        };
    }

    /// A renewal is asked for, or reaches the store, or its answer comes.
    fn renew(&mut self, epoch: Epoch, until: u64, renewal: Option<Renewing>) -> Role {
        let leader = |until, renewal| Role::Leader {
            epoch,
            until,
            renewal,
        };
        let Some(Renewing { asked, granted }) = renewal else {
            let renewal = Renewing {
                asked: self.now,
                granted: None,
            };
            return leader(until, Some(renewal));
        };
        match granted {
            None => {
                let ours = self.lease.as_mut().filter(|lease| lease.epoch == epoch);
                let granted = Some(ours.map(|lease| lease.renewals += 1).is_some());
                leader(until, Some(Renewing { asked, granted }))
            }
            Some(true) => leader(asked + LASTS, None),
            Some(false) => Role::Gone,
        }
    }

    /// Coordinators that may give orders.
    fn leaders(&self) -> usize {
        let leads = |role: &&Role| matches!(role, Role::Leader { until, .. } if self.now < *until);
        self.coordinators.iter().filter(leads).count()
    }
}

impl explore::World for World {
    type Move = Move;

    fn moves(&self) -> Vec<Move> {
        let renewals = self.lease.as_ref().map_or(0, |lease| lease.renewals);
        if renewals > RENEWALS || self.epochs > EPOCHS {
            return Vec::new();
        }
        let mut moves = Vec::new();
        for (number, role) in self.coordinators.iter().enumerate() {
            moves.extend((!matches!(role, Role::Gone)).then_some(Move::Act(number)));
            moves.extend(matches!(role, Role::Leader { .. }).then_some(Move::Die(number)));
        }
        moves.extend((self.now < STEPS).then_some(Move::Later));
        moves
    }

    fn make(&mut self, next: &Move) {
        match *next {
            Move::Act(number) => self.act(number),
            Move::Die(number) => self.coordinators[number] = Role::Gone,
            Move::Later => self.now += 1,
        }
    }

    fn fault(&self, _: bool) -> Option<String> {
        (self.leaders() > 1).then(|| format!("two lead: {self:#?}"))
    }
}

#[test]
fn two_never_lead_at_once_in_any_order_of_events() {
    let begin = World {
        now: 0,
        lease: None,
        epochs: 0,
        coordinators: [
            Role::Candidate(Watch::default()),
            Role::Candidate(Watch::default()),
        ],
    };
    let (mut led, mut followed) = (0, 0);
    let explored = explore::explore(begin, |world| {
        led += usize::from(world.leaders() == 1);
        followed += usize::from(world.leaders() == 1 && world.epochs > 1);
    });
    match explored {
        Ok(count) => println!("{count} worlds"),
        Err(broken) => panic!("{}, after\n{}", broken.fault, broken.story),
    }
    // The worlds that this is about are among them.
    assert!(led > 1000 && followed > 1000, "{led}, {followed}");
}
