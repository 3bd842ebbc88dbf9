//! A rank that dies at any moment costs its trial at most one step, and nothing of its answer: not a bit of the
//! weights, not a row, not a score.

mod common;
#[path = "common/dying.rs"]
mod dying;
#[path = "common/small.rs"]
mod small;

use common::connect;
use dying::{Dying, Fault, Log};
use polestar_core::Step;
use polestar_run::{
    Event, MemoryTier, Outcome, ResumedFrom, Trial, checkpoint,
    config::CheckpointConfig,
    metrics::{self, Row},
    placement::Zero,
};
use polestar_store::Store;
use polestar_worker::{collective::Locality, engine::Kept};
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use small::{STEPS, Seat, run_seated, store, trial};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};
use tokio::runtime::Runtime;

const STAGES: [Zero; 4] = [Zero::None, Zero::Optimizer, Zero::Gradient, Zero::Weights];

/// What a rank is to go through: what happens, and at which of its operations.
type Fate = Option<(Fault, usize)>;

/// What a generation came to.
struct Ended {
    /// Every rank's outcome, if it had one.
    outcomes: Vec<Option<Outcome>>,
    /// What the others reported.
    failures: Vec<Option<polestar_run::Failure>>,
    /// Where it began, and from what.
    begun: Option<(Step, ResumedFrom)>,
    logs: Vec<Arc<Mutex<Log>>>,
}

impl Ended {
    fn fired(&self, rank: usize) -> bool {
        self.logs[rank].lock().expect("no panic").fired
    }

    fn operations(&self) -> Vec<&'static str> {
        self.logs[0].lock().expect("no panic").operations.clone()
    }

    /// Steps that some rank is known to have done.
    fn done(&self) -> u64 {
        let begun = self
            .logs
            .iter()
            .map(|log| log.lock().expect("no panic").step.0);
        begun.max().unwrap_or(0).saturating_sub(1)
    }
}

/// One generation, each rank with what its process has kept and what happens to it.
fn generation(runtime: &Runtime, trial: &Trial, store: &Store, ranks: Vec<(Kept, Fate)>) -> Ended {
    let transports = connect(runtime, &vec![Locality::Machine; ranks.len()]);
    let mut logs = Vec::new();
    let seats = transports
        .into_iter()
        .zip(ranks)
        .map(|(inner, (kept, fate))| {
            let transport = Dying::new(inner, fate);
            logs.push(transport.log());
            Seat {
                transport,
                store: store.clone(),
                kept,
            }
        });
    let seats = seats.collect();
    let begun = Arc::new(Mutex::new(None));
    let told = Arc::clone(&begun);
    let ends = run_seated(runtime, trial, seats, move |event| {
        if let Event::Begun { step, from, .. } = event {
            *told.lock().expect("no panic") = Some((step, from));
        }
    });
    let begun = *begun.lock().expect("no panic");
    let failures = ends.iter().map(|end| Some(end.as_ref().err()?.report()));
    Ended {
        failures: failures.collect(),
        outcomes: ends.into_iter().map(Result::ok).collect(),
        begun,
        logs,
    }
}

/// As a process that has just been started.
fn fresh() -> (Kept, Fate) {
    (Kept::default(), None)
}

/// The trial, which stores nothing before its end and measures on the way.
fn measured(runtime: &Runtime, zero: Zero) -> Trial {
    let mut trial = trial(runtime, zero);
    trial.measurement.every = 2;
    trial.execution.checkpoint = CheckpointConfig {
        every: 0,
        ..CheckpointConfig::default()
    };
    trial
}

/// All that must be the same, whatever happened.
#[derive(Debug, PartialEq)]
struct Answer {
    outcome: Outcome,
    rows: Vec<Row>,
}

fn answer(runtime: &Runtime, trial: &Trial, store: &Store, outcome: Outcome) -> Answer {
    let rows = runtime.block_on(metrics::read(store, trial));
    let mut rows = rows.expect("rows");
    // But for the time that it took.
    rows.iter_mut().for_each(|row| row.seconds = 0.0);
    let mut outcome = outcome;
    outcome.consumed.seconds = 0.0;
    Answer { outcome, rows }
}

/// The answer of a run that nobody disturbs, and the operations of its ranks.
fn undisturbed(runtime: &Runtime, trial: &Trial, world: usize) -> (Answer, Vec<&'static str>) {
    // Tests of one process share what is in memory.
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let place = store(&format!("kept-undisturbed-{run}"));
    let ranks = (0..world).map(|_| fresh()).collect();
    let mut ended = generation(runtime, trial, &place, ranks);
    let operations = ended.operations();
    let outcome = ended.outcomes.swap_remove(0).expect("nothing disturbs it");
    let answer = answer(runtime, trial, &place, outcome);
    assert_eq!(answer.rows.len() as u64, STEPS);
    let points = answer.rows.iter().filter(|row| !row.validation.is_empty());
    assert_eq!(points.count() as u64, STEPS / 2);
    (answer, operations)
}

/// The trial goes on from what processes kept, on so many ranks, and comes to the answer.
fn goes_on(
    runtime: &Runtime,
    trial: &Trial,
    place: &Store,
    ranks: Vec<(Kept, Fate)>,
    expected: &Answer,
    what: &str,
) -> (Step, ResumedFrom) {
    let mut ended = generation(runtime, trial, place, ranks);
    let outcome = ended.outcomes.swap_remove(0);
    let outcome = outcome.unwrap_or_else(|| panic!("{what}: it ends early"));
    let found = answer(runtime, trial, place, outcome);
    assert_eq!(found.outcome, expected.outcome, "{what}");
    assert_eq!(found.rows, expected.rows, "{what}");
    ended.begun.expect("it begins")
}

#[test]
fn any_other_world_goes_on_at_most_one_step_before() {
    let runtime = Runtime::new().expect("a runtime");
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let (expected, _) = undisturbed(&runtime, &measured(&runtime, Zero::None), 2);
    let (mut from_memory, mut runs) = (0, 0);
    for zero in STAGES {
        for world in [2, 3, 4] {
            let trial = measured(&runtime, zero);
            let (answer, operations) = undisturbed(&runtime, &trial, world);
            assert_eq!(answer, expected);
            for next in [1, 2, 3, 4] {
                let fault = [Fault::DieBefore, Fault::DieAfter][random.random_range(0..2)];
                let at = random.random_range(0..operations.len());
                let victim = random.random_range(0..world);
                let stage = STAGES[random.random_range(0..4)];
                let what = format!(
                    "{zero}, rank {victim} of {world}: {fault:?} {at} ({}), then {next} at {stage}",
                    operations[at]
                );
                let place = store(&format!("kept-{runs}"));
                runs += 1;
                let kept: Vec<Kept> = (0..world).map(|_| Kept::default()).collect();
                let ranks = kept.iter().cloned().enumerate();
                let ranks = ranks.map(|(r, kept)| (kept, (r == victim).then_some((fault, at))));
                let died = generation(&runtime, &trial, &place, ranks.collect());
                assert!(died.fired(victim), "{what}");
                let mut survivors: Vec<Kept> = kept;
                survivors.remove(victim);
                survivors.shuffle(&mut random);
                let newest = survivors.iter().flat_map(Kept::steps).max();
                let all = next >= survivors.len() || zero == Zero::None;
                survivors.resize_with(next, Kept::default);
                survivors.shuffle(&mut random);
                let mut trial = trial.clone();
                trial.execution.zero = stage;
                let ranks = survivors.into_iter().map(|kept| (kept, None)).collect();
                let (step, from) = goes_on(&runtime, &trial, &place, ranks, &expected, &what);
                if all {
                    assert!(step.0 >= died.done(), "{what}: from {step:?}");
                    assert!(
                        Some(step) >= newest,
                        "{what}: from {step:?}, not {newest:?}"
                    );
                }
                from_memory += usize::from(from == ResumedFrom::Memory);
            }
        }
    }
    assert_eq!(runs, 48);
    assert!(
        from_memory > 24,
        "{from_memory} of {runs} runs were resumed from memory"
    );
}

/// One rank dies at any operation of a step, and another one doesn't hear what came of that operation.
#[test]
fn no_step_is_torn_at_any_operation() {
    let runtime = Runtime::new().expect("a runtime");
    for zero in STAGES {
        let trial = measured(&runtime, zero);
        let (expected, operations) = undisturbed(&runtime, &trial, 3);
        // Beginning and end are the same in every run; so are two steps, one of which is measured.
        let middle = operations.len() * 2 / 5..operations.len() * 7 / 10;
        let mut apart = 0;
        for at in middle {
            let what = format!("{zero}, operation {at} ({})", operations[at]);
            let place = store(&format!("torn-{}-{at}", u8::from(zero)));
            let kept: Vec<Kept> = (0..3).map(|_| Kept::default()).collect();
            let fates = [None, Some((Fault::DieAfter, at)), Some((Fault::Deaf, at))];
            let ranks = kept.iter().cloned().zip(fates).collect();
            let died = generation(&runtime, &trial, &place, ranks);
            assert!(died.fired(1) && died.fired(2), "{what}");
            let steps = [0, 2].map(|rank: usize| kept[rank].steps());
            apart += usize::from(steps[0] != steps[1]);
            let newest = steps.iter().flatten().copied().max();
            let ranks = vec![fresh(), (kept[2].clone(), None), (kept[0].clone(), None)];
            let (step, from) = goes_on(&runtime, &trial, &place, ranks, &expected, &what);
            assert_eq!((Some(step), from), (newest, ResumedFrom::Memory), "{what}");
        }
        assert!(apart > 0, "{zero}: survivors were at different steps");
    }
}

/// What was kept stays until every rank has its part of it.
#[test]
fn a_second_death_while_ranks_begin_again_loses_no_more() {
    let runtime = Runtime::new().expect("a runtime");
    for zero in [Zero::None, Zero::Gradient] {
        let trial = measured(&runtime, zero);
        let (expected, operations) = undisturbed(&runtime, &trial, 3);
        let mut at = 0;
        loop {
            let what = format!("{zero}, second death at operation {at}");
            let place = store(&format!("second-{}-{at}", u8::from(zero)));
            let kept: Vec<Kept> = (0..3).map(|_| Kept::default()).collect();
            let fate = |rank| (rank == 1).then_some((Fault::DieBefore, operations.len() / 2));
            let ranks = kept.iter().cloned().enumerate().map(|(r, k)| (k, fate(r)));
            let died = generation(&runtime, &trial, &place, ranks.collect());
            assert!(died.fired(1));
            // Whoever is left says what they had last done together.
            for rank in [0, 2] {
                let failure = died.failures[rank].as_ref().expect("it lost a rank");
                let last = failure.last_operation.as_ref().expect("an operation");
                assert!(failure.collateral && last.step >= died.done(), "{last}");
            }
            // The one that came instead dies as well.
            let second = Kept::default();
            let seats = [
                (&kept[0], None),
                (&second, Some((Fault::DieBefore, at))),
                (&kept[2], None),
            ];
            let ranks = seats.map(|(kept, fate)| (kept.clone(), fate)).into();
            let again = generation(&runtime, &trial, &place, ranks);
            assert!(again.fired(1), "{what}");
            let ranks = vec![(kept[2].clone(), None), (kept[0].clone(), None)];
            let (step, from) = goes_on(&runtime, &trial, &place, ranks, &expected, &what);
            assert_eq!(from, ResumedFrom::Memory, "{what}");
            assert!(step.0 >= died.done(), "{what}: from {step:?}");
            if again.done() > died.done() + 1 {
                // It had begun, and did steps.
                break;
            }
            at += 1;
        }
        assert!(at > 3, "{zero}: it died before it had begun, too");
    }
}

#[test]
fn a_checkpoint_that_others_begin_from_is_never_passed_by() {
    let runtime = Runtime::new().expect("a runtime");
    let mut trial = measured(&runtime, Zero::Optimizer);
    let (expected, operations) = undisturbed(&runtime, &trial, 2);
    // Its save takes a few steps, in which rank 1 dies.
    trial.execution.checkpoint.at = vec![Step(3)];
    let (mut lost, mut repeated) = (0, 0);
    for at in operations.len() / 4..operations.len() {
        let place = store(&format!("milestone-{at}"));
        let kept: Vec<Kept> = (0..2).map(|_| Kept::default()).collect();
        let fates = [None, Some((Fault::DieBefore, at))];
        let ranks = kept.iter().cloned().zip(fates).collect();
        let died = generation(&runtime, &trial, &place, ranks);
        if !died.fired(1) {
            // How many operations a save takes depends a little on who is faster.
            continue;
        }
        let committed = || {
            let recipe = trial.recipe_id();
            let found = checkpoint::committed(&place, &recipe);
            runtime.block_on(found).expect("a listing")
        };
        let before = committed().contains(&Step(3));
        let what = format!("dies at {at}, committed: {before}");
        let ranks = vec![(kept[0].clone(), None), fresh()];
        let (step, from) = goes_on(&runtime, &trial, &place, ranks, &expected, &what);
        assert!(committed().contains(&Step(3)), "{what}");
        if !before && died.done() > 3 {
            assert_eq!((step, from), (Step(0), ResumedFrom::Nothing), "{what}");
            lost += 1;
        } else if step == Step(3) && from == ResumedFrom::Memory {
            repeated += 1;
        }
    }
    println!("{lost} times the save was lost, {repeated} times it was due again at once");
    assert!(repeated > 0);
}

#[test]
fn nothing_is_kept_where_that_is_off() {
    let runtime = Runtime::new().expect("a runtime");
    let mut trial = measured(&runtime, Zero::Weights);
    let (expected, operations) = undisturbed(&runtime, &trial, 2);
    trial.execution.memory_tier = MemoryTier::Off;
    let place = store("kept-off");
    let kept: Vec<Kept> = (0..2).map(|_| Kept::default()).collect();
    let fates = [None, Some((Fault::DieBefore, operations.len() / 2))];
    let ranks = kept.iter().cloned().zip(fates).collect();
    let died = generation(&runtime, &trial, &place, ranks);
    assert!(died.fired(1) && kept[0].steps().is_empty());
    assert!(
        !died.operations().contains(&"pass-on"),
        "no copies, no traffic"
    );
    let ranks = vec![(kept[0].clone(), None), fresh()];
    let begun = goes_on(&runtime, &trial, &place, ranks, &expected, "off");
    assert_eq!(begun, (Step(0), ResumedFrom::Nothing));
}
