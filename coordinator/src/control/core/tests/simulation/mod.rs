//! Whole pools in virtual time: coordinators that die, stand still and are replaced, workers that are lost, hang,
//! are preempted and come back, connections that break, a store that is away. The core is the real one; so is the
//! decision when a lease may be taken.
//!
//! A history is a seed and a list of faults, so one that breaks a promise can be played again:
//! `POLESTAR_SIMULATE=SEED cargo test --workspace --lib simulation`. Its list of faults is made as short as it can be.

mod agents;
mod coordinators;
mod exhaustive;
mod store;
mod world;

use super::*;
use polestar_core::random::Stream;
use std::collections::BTreeSet;
use world::{Happening, World};

/// Milliseconds of virtual time.
type Millis = u64;

/// Steps of every trial, a second each.
const STEPS: u64 = 60;
/// How long a worker looks for a coordinator.
const GRACE: Millis = 120_000;
/// How long a rank waits for the others.
const COLLECTIVE: Millis = 60_000;
/// Faults happen until then.
const TROUBLED: Millis = 200_000;
/// What workers are let go is counted under, beside the faults.
const LET_GO: &str = "let go";
/// By then everything is over, whatever happened.
const END: Millis = 40_000_000;

/// What is wrong with a world, to see that it is noticed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Flaw {
    None,
    /// A leader goes on past its lease.
    IgnoredLease,
    /// Every generation of a trial comes to something else.
    ManyAnswers,
}

/// A fault, and when it strikes.
#[derive(Clone, Copy, Debug)]
struct Fault {
    at: Millis,
    kind: FaultKind,
}

#[derive(Clone, Copy, Debug)]
enum FaultKind {
    /// A worker process is killed.
    KillWorker,
    /// All of them are.
    KillAllWorkers,
    /// A worker never answers again, and doesn't die.
    HangWorker,
    /// A worker is told that it will be gone in half a minute.
    Preempt,
    /// The coordinator's process is killed.
    KillCoordinator,
    /// It stands still, and goes on as if nothing had happened.
    SuspendCoordinator,
    /// Another one is launched beside it.
    SecondCoordinator,
    /// A user stops it, and launches it again later.
    Drain,
    /// A worker and the coordinator don't hear each other any more.
    CutStream,
    /// All workers and the coordinator don't.
    CutAllStreams,
    /// The store is away.
    StoreOutage,
}

impl FaultKind {
    const ALL: [FaultKind; 11] = [
        FaultKind::KillWorker,
        FaultKind::KillAllWorkers,
        FaultKind::HangWorker,
        FaultKind::Preempt,
        FaultKind::KillCoordinator,
        FaultKind::SuspendCoordinator,
        FaultKind::SecondCoordinator,
        FaultKind::Drain,
        FaultKind::CutStream,
        FaultKind::CutAllStreams,
        FaultKind::StoreOutage,
    ];

    fn name(self) -> &'static str {
        match self {
            FaultKind::KillWorker => "kill worker",
            FaultKind::KillAllWorkers => "kill all workers",
            FaultKind::HangWorker => "hang worker",
            FaultKind::Preempt => "preempt",
            FaultKind::KillCoordinator => "kill coordinator",
            FaultKind::SuspendCoordinator => "suspend coordinator",
            FaultKind::SecondCoordinator => "second coordinator",
            FaultKind::Drain => "drain",
            FaultKind::CutStream => "cut stream",
            FaultKind::CutAllStreams => "cut all streams",
            FaultKind::StoreOutage => "store outage",
        }
    }
}

impl World {
    /// A fault strikes, if there is something for it to strike.
    fn strike(&mut self, fault: Fault) {
        let struck = match fault.kind {
            FaultKind::KillWorker => self.any_process().map(|p| self.end_process(p)),
            FaultKind::KillAllWorkers => {
                let all: Vec<u64> = self.processes.keys().copied().collect();
                let some = (!all.is_empty()).then_some(());
                all.into_iter()
                    .for_each(|process| self.end_process(process));
                some
            }
            FaultKind::HangWorker => self.any_process().map(|number| {
                if let Some(process) = self.processes.get_mut(&number) {
                    process.hangs = true;
                }
            }),
            FaultKind::Preempt => self.any_process().map(|process| self.preempt(process)),
            FaultKind::KillCoordinator => self
                .any_coordinator()
                .map(|c| self.end_coordinator(c, false)),
            FaultKind::SuspendCoordinator => self.any_coordinator().map(|c| self.suspend(c)),
            FaultKind::SecondCoordinator => (!self.is_over).then(|| self.launch()),
            FaultKind::Drain => {
                let coordinator = self.any_coordinator();
                coordinator.map(|coordinator| self.tell(coordinator, 1, Event::Drain))
            }
            FaultKind::CutStream => {
                let stream = self.any_stream();
                stream.map(|stream| self.break_stream(stream, 20_000))
            }
            FaultKind::CutAllStreams => {
                let mut some = None;
                while let Some(stream) = self.any_stream() {
                    self.break_stream(stream, 20_000);
                    some = Some(());
                }
                some
            }
            FaultKind::StoreOutage => {
                self.store.down_until = self.now + self.random.below(60_000);
                Some(())
            }
        };
        if struck.is_some() {
            *self.struck.entry(fault.kind.name()).or_default() += 1;
        }
    }

    fn any_process(&mut self) -> Option<u64> {
        let count = self.processes.len() as u64;
        let chosen = (count > 0).then(|| self.random.below(count))?;
        self.processes.keys().nth(chosen as usize).copied()
    }

    fn any_coordinator(&mut self) -> Option<u64> {
        let count = self.coordinators.len() as u64;
        let chosen = (count > 0).then(|| self.random.below(count))?;
        self.coordinators.keys().nth(chosen as usize).copied()
    }

    fn preempt(&mut self, number: u64) {
        if let Some(process) = self.processes.get_mut(&number) {
            process.leaves = true;
        }
        self.say(number, WorkerEvent::Leaving);
        self.schedule(30_000, Happening::Preempted(number));
    }

    fn suspend(&mut self, number: u64) {
        let time = self.random.below(60_000);
        if let Some(coordinator) = self.coordinators.get_mut(&number) {
            coordinator.suspend_until(self.now + time);
        }
    }
}

/// The faults of a seed.
fn faults(seed: u64) -> Vec<Fault> {
    let mut random = Stream::new("faults", &[seed]);
    let count = random.below(14);
    let fault = |_| Fault {
        at: random.below(TROUBLED),
        kind: FaultKind::ALL[random.below(FaultKind::ALL.len() as u64) as usize],
    };
    (0..count).map(fault).collect()
}

/// Plays a history to its end. Returns what the world has become.
///
/// # Panics
/// When a promise is broken.
fn play(seed: u64, faults: &[Fault], flaw: Flaw) -> World {
    let mut world = World::new(seed, flaw);
    for &fault in faults {
        world.schedule(fault.at, Happening::Fault(fault));
    }
    while !world.is_over {
        assert!(world.step(), "nothing is to come, and it is not over");
        assert!(world.now < END, "no end: {}", world.describe());
    }
    // What can be trained is trained, and what isn't has a reason.
    for job in &world.jobs {
        let trial = &job.trial;
        let mut start = Some(trial.clone());
        let mut diverges = false;
        while let Some(at) = start {
            diverges |= world.diverging.contains(&at);
            let job = world.jobs.iter().find(|job| job.trial == at);
            start = job.and_then(|job| job.after.clone());
        }
        let is_done = world.store.results.contains_key(trial);
        let abandoned = world.store.abandoned.get(trial);
        assert!(is_done || abandoned.is_some(), "{trial} is lost");
        assert!(!(is_done && diverges), "{trial} can't be done");
        if !is_done && !diverges {
            let cause = &abandoned.expect("it is not done").cause;
            let spent = match world.store.history(trial) {
                History::Missing(_) => true,
                _ => cause.is_retryable(),
            };
            assert!(spent, "{trial} is abandoned without need: {cause}");
        }
    }
    world
}

/// The first few faults that still break a promise.
fn shrunk(seed: u64, mut faults: Vec<Fault>) -> Vec<Fault> {
    let breaks =
        |faults: &[Fault]| std::panic::catch_unwind(|| play(seed, faults, Flaw::None)).is_err();
    let mut i = 0;
    while i < faults.len() {
        let mut fewer = faults.clone();
        fewer.remove(i);
        match breaks(&fewer) {
            true => faults = fewer,
            false => i += 1,
        }
    }
    faults
}

#[test]
fn ten_thousand_histories_keep_every_promise() {
    if let Ok(seed) = std::env::var("POLESTAR_SIMULATE") {
        let seed = seed.parse().expect("POLESTAR_SIMULATE is a seed");
        let faults = shrunk(seed, faults(seed));
        println!("seed {seed}, {faults:#?}");
        play(seed, &faults, Flaw::None);
        return;
    }
    const HISTORIES: u64 = 10_000;
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let struck = std::thread::scope(|scope| {
        let part = |thread| {
            scope.spawn(move || {
                let mut struck = BTreeMap::<&str, u32>::new();
                for seed in (thread..HISTORIES).step_by(threads as usize) {
                    let Ok(of_it) =
                        std::panic::catch_unwind(|| play(seed, &faults(seed), Flaw::None).struck)
                    else {
                        panic!("POLESTAR_SIMULATE={seed} plays this again");
                    };
                    for (fault, count) in of_it {
                        *struck.entry(fault).or_default() += count;
                    }
                }
                struck
            })
        };
        let parts: Vec<_> = (0..threads).map(part).collect();
        let mut all = BTreeMap::<&str, u32>::new();
        for part in parts {
            let part = part
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            for (fault, count) in part {
                *all.entry(fault).or_default() += count;
            }
        }
        all
    });
    println!("{struck:?}");
    for kind in FaultKind::ALL {
        let count = struck.get(kind.name()).copied().unwrap_or(0);
        assert!(count > 2000, "{} struck {count} times", kind.name());
    }
    assert!(struck[LET_GO] > 2000, "workers were let go");
}

#[test]
fn equal_histories_are_played_alike() {
    for seed in 0..20 {
        let once = || play(seed, &faults(seed), Flaw::None).said;
        assert_eq!(once(), once());
    }
}

#[test]
fn worlds_with_a_flaw_are_found_out() {
    for (flaw, says) in [
        (Flaw::IgnoredLease, "has led since"),
        (Flaw::ManyAnswers, "has two answers"),
    ] {
        let panics = |seed| {
            let panic = std::panic::catch_unwind(|| play(seed, &faults(seed), flaw)).err()?;
            panic.downcast_ref::<String>().cloned()
        };
        let found = (0..2000).filter_map(panics).any(|said| said.contains(says));
        assert!(found, "{flaw:?} goes unnoticed");
    }
}
