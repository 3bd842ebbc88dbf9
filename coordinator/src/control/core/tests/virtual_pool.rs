//! Whole pools in virtual time: workers that are lost, fail, hang and come back, a store that is down now and
//! then. The seed decides everything, so a history that breaks a promise can be looked at again.

use super::*;
use polestar_core::random::Stream;
use std::collections::BTreeSet;

/// What a virtual worker does about its generation.
#[derive(Clone, Debug)]
struct VirtualWorker {
    launch: LaunchId,
    /// Never answers again; only its launcher can end it.
    hangs: bool,
}

struct World {
    random: Stream,
    core: Core,
    now: u64,
    /// What will happen: by moment, then by number.
    coming: BTreeMap<(u64, u64), Event>,
    number: u64,
    workers: BTreeMap<WorkerId, VirtualWorker>,
    next_worker: u64,
    next_launch: u64,
    wake: Option<u64>,
    log: Vec<(Moment, Event)>,
    said: Vec<Command>,
    done: BTreeSet<TrialId>,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Stream::new("virtual pool", &[seed]);
        let workers = 1 + random.below(5) as u32;
        let trials = 1 + random.below(6);
        let jobs = (0..trials).map(|i| {
            let world = 1 + random.below(u64::from(workers)) as u32;
            let after = (i > 0 && random.below(3) == 0).then(|| format!("t{}", random.below(i)));
            let cost = random.below(10) as f64;
            job(&format!("t{i}"), cost, world, after.as_deref())
        });
        let jobs = jobs.collect();
        World {
            core: Core::new(options(workers), jobs).expect("jobs that fit"),
            random,
            now: 0,
            coming: BTreeMap::new(),
            number: 0,
            workers: BTreeMap::new(),
            next_worker: 1,
            next_launch: 1,
            wake: None,
            log: Vec::new(),
            said: Vec::new(),
            done: BTreeSet::new(),
        }
    }

    fn later(&mut self, within: u64, event: Event) {
        let at = self.now + self.random.below(within + 1);
        self.number += 1;
        self.coming.insert((at, self.number), event);
    }

    fn say(&mut self, worker: WorkerId, within: u64, event: WorkerEvent) {
        self.later(within, Event::Worker(worker, event));
    }

    fn perform(&mut self, commands: Vec<Command>) {
        for command in commands {
            match command.clone() {
                Command::Send(worker, order) => self.order(worker, order),
                Command::Persist(ticket, fact) => {
                    let down = self.random.below(4) == 0;
                    let trouble = StoreTrouble {
                        message: "down".to_owned(),
                        retryable: true,
                    };
                    if let (Fact::Done(result), false) = (&fact, down) {
                        let first = self.done.insert(result.outcome.trial.clone());
                        assert!(first, "one result a trial");
                    }
                    let result = if down { Err(trouble) } else { Ok(()) };
                    self.later(3, Event::Stored(ticket, result));
                }
                Command::Scale(count) => {
                    while self.workers.len() < count as usize {
                        self.start();
                    }
                }
                Command::Retire { worker, .. } => {
                    let worker = worker.expect("virtual processes join at once");
                    self.end(worker);
                }
                Command::WakeAt(moment) => self.wake = Some(moment.0.as_secs()),
                Command::Publish(_) => {}
            }
            self.said.push(command);
        }
    }

    fn start(&mut self) {
        let launch = LaunchId(format!("l{}", self.next_launch));
        self.next_launch += 1;
        let worker = WorkerId(self.next_worker);
        self.next_worker += 1;
        let virtual_worker = VirtualWorker {
            launch: launch.clone(),
            hangs: false,
        };
        self.workers.insert(worker, virtual_worker);
        self.later(
            0,
            Event::Launcher(LaunchEvent::Started {
                launch: launch.clone(),
            }),
        );
        let inventory = Inventory {
            host: "h".to_owned(),
            pid: worker.0 as u32,
            launch: Some(launch),
            machine: Default::default(),
        };
        self.say(worker, 5, WorkerEvent::Joined(inventory));
    }

    /// A process ends: its stream breaks, its launcher notices, and nothing more is heard of it.
    fn end(&mut self, worker: WorkerId) {
        let Some(gone) = self.workers.remove(&worker) else {
            return;
        };
        let of_it = |event: &Event| matches!(event, Event::Worker(w, e) if *w == worker && !matches!(e, WorkerEvent::Joined(_)));
        self.coming.retain(|_, event| !of_it(event));
        // After its greeting, if that is still to come.
        self.number += 1;
        let left = Event::Worker(worker, WorkerEvent::Left);
        self.coming.insert((self.now + 6, self.number), left);
        let ended = LaunchEvent::Ended {
            launch: gone.launch,
            status: "killed".to_owned(),
            log_tail: String::new(),
        };
        self.number += 1;
        let key = (self.now + 7, self.number);
        self.coming.insert(key, Event::Launcher(ended));
    }

    fn order(&mut self, worker: WorkerId, order: Order) {
        if self.workers.get(&worker).is_none_or(|w| w.hangs) {
            return;
        }
        let fate = self.random.below(40);
        match order {
            Order::Prepare { generation } => {
                let endpoint = ([127, 0, 0, 1], 1).into();
                let ready = WorkerEvent::Ready {
                    generation,
                    endpoint,
                };
                match fate {
                    0 => self.end(worker),
                    1 => self.hang(worker),
                    _ => self.say(worker, 10, ready),
                }
            }
            Order::Start {
                generation, trial, ..
            } => {
                let outcome = outcome(&trial);
                let finished = WorkerEvent::Finished {
                    generation,
                    outcome,
                };
                let failed = |retryable| WorkerEvent::Failed {
                    generation,
                    failure: failure("virtual", retryable, retryable),
                };
                match fate {
                    0 => self.end(worker),
                    1 => self.hang(worker),
                    2 => self.say(worker, 100, failed(true)),
                    3 if self.random.below(4) == 0 => self.say(worker, 100, failed(false)),
                    _ => self.say(worker, 100, finished),
                }
            }
            Order::Abort { generation, .. } => {
                let of_it = |event: &Event| matches!(event, Event::Worker(w, e) if *w == worker && !matches!(e, WorkerEvent::Joined(_) | WorkerEvent::Left));
                self.coming.retain(|_, event| !of_it(event));
                match fate {
                    0 => self.end(worker),
                    1 => self.hang(worker),
                    _ => self.say(worker, 5, WorkerEvent::Stopped { generation }),
                }
            }
        }
    }

    fn hang(&mut self, worker: WorkerId) {
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.hangs = true;
        }
    }

    /// Runs to the end and returns it.
    fn run(&mut self) -> Verdict {
        let first = self.core.begin(Moment::default());
        self.perform(first);
        for _ in 0..100_000 {
            if let Some(verdict) = self.core.verdict() {
                return verdict.clone();
            }
            let event = self.coming.first_key_value().map(|((at, _), _)| *at);
            let event = match (event, self.wake) {
                (Some(at), wake) if wake.is_none_or(|wake| at <= wake) => {
                    self.now = self.now.max(at);
                    self.coming.pop_first().expect("just seen").1
                }
                (_, Some(wake)) => {
                    self.now = self.now.max(wake);
                    self.wake = None;
                    Event::Tick
                }
                (_, None) => panic!("nothing is to come, and it is not over"),
            };
            let now = Moment(Duration::from_secs(self.now));
            self.log.push((now, event.clone()));
            let commands = self.core.handle(now, event);
            self.perform(commands);
            self.check();
        }
        panic!("no end: {}", self.core.status());
    }

    /// What holds at every moment.
    fn check(&self) {
        let mut seen = BTreeSet::new();
        for group in self.core.groups.values() {
            for member in group.members() {
                assert!(seen.insert(member.worker), "a worker is in one generation");
                assert!(!self.core.idle.contains(&member.worker));
            }
        }
    }
}

#[test]
fn every_pool_comes_to_an_end_and_equal_histories_to_equal_commands() {
    let (mut abandoned, mut retired) = (0, 0);
    for seed in 0..300 {
        let mut world = World::new(seed);
        assert_eq!(world.run(), Verdict::Complete, "seed {seed}");
        let given_up = world.core.abandoned();
        for trial in world.core.status().trials {
            assert_ne!(
                world.done.contains(&trial.trial),
                given_up.contains_key(&trial.trial),
                "seed {seed}: {trial}"
            );
        }
        abandoned += given_up.len();
        let stuck = |c: &&Command| matches!(c, Command::Retire { reason, .. } if *reason != RetireReason::Left);
        retired += world.said.iter().filter(stuck).count();

        // Each generation is named once.
        let mut named = BTreeSet::new();
        for command in &world.said {
            if let Command::Send(worker, Order::Prepare { generation }) = command {
                assert!(named.insert((*generation, *worker)), "seed {seed}");
            }
        }

        let mut again = World::new(seed).core;
        let mut said = again.begin(Moment::default());
        for (now, event) in world.log {
            said.extend(again.handle(now, event));
        }
        assert_eq!(said, world.said, "seed {seed}");
    }
    // The faults that these histories are for have happened.
    assert!(abandoned > 5 && retired > 20, "{abandoned}, {retired}");
}
