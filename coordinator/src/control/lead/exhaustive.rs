//! All that can happen to a lease between two coordinators, in every order: requests and answers that are late,
//! coordinators that stand still, deaths. Time goes in steps; a lease lasts two of them.

use super::*;
use polestar_core::Epoch;
use std::collections::HashSet;

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

impl World {
    /// Everything that a coordinator, or the store for it, can do next. Doing nothing is left to time.
    fn moves_of(&self, number: usize) -> Vec<World> {
        let mut next = Vec::new();
        let mut to = |change: &dyn Fn(&mut World)| {
            let mut world = self.clone();
            change(&mut world);
            next.push(world);
        };
        match &self.coordinators[number] {
            Role::Gone => {}
            Role::Candidate(watch) => to(&|world| {
                let mut watch = watch.clone();
                let seen = world.lease.clone();
                let decision = watch.look(moment(world.now), seen.as_ref(), false);
                world.coordinators[number] = match decision {
                    Decision::Take => Role::Taking {
                        seen,
                        asked: world.now,
                    },
                    Decision::Wait => Role::Candidate(watch),
                    Decision::Led => Role::Gone,
                };
            }),
            Role::Taking { seen, asked } => to(&|world| {
                world.epochs += 1;
                let epoch = Epoch(world.epochs);
                world.coordinators[number] = match world.lease == *seen {
                    true => {
                        world.lease = Some(record(epoch, number));
                        Role::Taken {
                            epoch,
                            asked: *asked,
                        }
                    }
                    false => Role::Candidate(Watch::default()),
                };
            }),
            Role::Taken { epoch, asked } => to(&|world| {
                world.coordinators[number] = Role::Leader {
                    epoch: *epoch,
                    until: asked + LASTS,
                    renewal: None,
                };
            }),
            Role::Leader {
                epoch,
                until,
                renewal,
            } => {
                let (epoch, until) = (*epoch, *until);
                let leader = |renewal, until| Role::Leader {
                    epoch,
                    until,
                    renewal,
                };
                match *renewal {
                    None => to(&|world| {
                        let renewal = Renewing {
                            asked: world.now,
                            granted: None,
                        };
                        world.coordinators[number] = leader(Some(renewal), until);
                    }),
                    Some(Renewing {
                        asked,
                        granted: None,
                    }) => to(&|world| {
                        let ours = world.lease.as_mut().filter(|lease| lease.epoch == epoch);
                        let granted = ours.map(|lease| lease.renewals += 1).is_some();
                        let renewal = Renewing {
                            asked,
                            granted: Some(granted),
                        };
                        world.coordinators[number] = leader(Some(renewal), until);
                    }),
                    Some(Renewing {
                        asked,
                        granted: Some(granted),
                    }) => to(&|world| {
                        world.coordinators[number] = match granted {
                            true => leader(None, asked + LASTS),
                            false => Role::Gone,
                        };
                    }),
                }
                // Its process may die at any moment.
                to(&|world| world.coordinators[number] = Role::Gone);
            }
        }
        next
    }

    fn next(&self) -> Vec<World> {
        let mut next: Vec<World> = (0..2).flat_map(|number| self.moves_of(number)).collect();
        if self.now < STEPS {
            let mut later = self.clone();
            later.now += 1;
            next.push(later);
        }
        let few = |world: &World| {
            let renewals = world.lease.as_ref().map_or(0, |lease| lease.renewals);
            renewals <= RENEWALS && world.epochs <= EPOCHS
        };
        next.retain(few);
        next
    }

    /// Coordinators that may give orders.
    fn leaders(&self) -> usize {
        let leads = |role: &&Role| matches!(role, Role::Leader { until, .. } if self.now < *until);
        self.coordinators.iter().filter(leads).count()
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
    let (mut known, mut open) = (HashSet::new(), vec![begin]);
    let (mut led, mut followed) = (0, 0);
    while let Some(world) = open.pop() {
        assert!(world.leaders() <= 1, "{world:#?}");
        led += usize::from(world.leaders() == 1);
        followed += usize::from(world.leaders() == 1 && world.epochs > 1);
        for next in world.next() {
            if known.insert(format!("{next:?}")) {
                open.push(next);
            }
        }
    }
    println!("{} worlds", known.len());
    // The worlds that this is about are among them.
    assert!(led > 1000 && followed > 1000, "{led}, {followed}");
}
