//! A process that stops at any operation of its store loses nothing that was committed, and what goes
//! on from there ends with the same weights.

#[path = "common/alike.rs"]
mod alike;
mod common;
#[path = "common/small.rs"]
mod small;

use alike::run;
use polestar_run::{
    Trial,
    checkpoint::{self, committed},
    failure::Phase,
    placement::Zero,
};
use polestar_store::{
    Store,
    faults::{FaultLog, Faults, Stop},
};
use polestar_worker::engine::Failure;
use small::{store, trial};
use std::{sync::Arc, time::Instant};
use tokio::runtime::Runtime;

/// Bytes of a part: the tests' objects have a few of them.
const PART: usize = 16 << 10;

/// The operations of an undisturbed run on an empty store, and its digest.
fn undisturbed(
    runtime: &Runtime,
    trial: &Trial,
    base: &Store,
    world: u32,
) -> (Vec<Vec<String>>, polestar_core::Digest) {
    let watched: Vec<(Store, Arc<FaultLog>)> = (0..world)
        .map(|_| base.with_faults(Faults::default()))
        .collect();
    let stores = watched.iter().map(|(store, _)| store.clone()).collect();
    let mut ends = run(runtime, trial, stores).ends;
    let outcome = ends.remove(0).expect("nothing disturbs it");
    assert!(
        ends.into_iter()
            .all(|end| end.is_ok_and(|o| o.digest == outcome.digest))
    );
    let operations = watched.iter().map(|(_, log)| log.operations()).collect();
    (operations, outcome.digest)
}

/// Stops each rank before and after each of its operations. Where there are `parts`, objects go up in
/// parts of so many bytes.
fn enumerate(zero: Zero, world: u32, parts: Option<usize>) {
    let runtime = Runtime::new().expect("a runtime");
    let trial = trial(&runtime, zero);
    let place = |what: &str| {
        let kind = parts.unwrap_or_default();
        let base = store(&format!("{what}-{world}-{}-{kind}", u8::from(zero)));
        match parts {
            Some(bytes) => base.with_parts_of(bytes),
            None => base,
        }
    };
    let (operations, expected) = undisturbed(&runtime, &trial, &place("undisturbed"), world);
    let in_parts = operations
        .iter()
        .flatten()
        .filter(|o| o.starts_with("put part"));
    assert_eq!(in_parts.count() > 0, parts.is_some());
    let mut went_on_from = Vec::new();
    for (rank, of_rank) in operations.iter().enumerate() {
        for operation in 0..of_rank.len() as u64 {
            for after in [false, true] {
                let what = format!(
                    "rank {rank} stops at {operation} ({}), after: {after}",
                    of_rank[operation as usize]
                );
                let base = place(&format!("{rank}-{operation}-{after}"));
                let stop = Faults {
                    stop: Some(Stop { operation, after }),
                    ..Faults::default()
                };
                let (stopping, log) = base.with_faults(stop);
                let mut stores = vec![base.clone(); world as usize];
                stores[rank] = stopping;
                let died = run(&runtime, &trial, stores);
                if !log.has_stopped() {
                    // Which operations there are depends a little on who is faster.
                    continue;
                }
                // The very last answer may be one that nobody waits for.
                if let Err(failure) = &died.ends[rank] {
                    assert_eq!(failure.phase(), Phase::Storage, "{what}: {failure}");
                }
                let newest = runtime
                    .block_on(committed(&base, &trial.recipe_id()))
                    .expect("a listing")
                    .pop();
                let resumed = run(&runtime, &trial, vec![base.clone(); 1 + world as usize % 2]);
                assert_eq!(resumed.begun, Some(newest.unwrap_or_default()), "{what}");
                went_on_from.push(newest.unwrap_or_default().0);
                for end in resumed.ends {
                    assert_eq!(end.expect("nothing disturbs it").digest, expected, "{what}");
                }
                let listed = runtime
                    .block_on(checkpoint::list(&base, &trial.recipe_id()))
                    .expect("a listing");
                let whole: Vec<u64> = listed
                    .iter()
                    .filter(|l| l.manifest.is_some())
                    .map(|l| l.step.0)
                    .collect();
                assert_eq!(whole, [8, 6, 4], "{what}");
                assert_eq!(listed.len(), 3, "{what}: nothing half written stays");
            }
        }
    }
    went_on_from.sort_unstable();
    went_on_from.dedup();
    assert_eq!(
        went_on_from,
        [0, 2, 4, 6, 8],
        "stops fell before, between and after all saves"
    );
}

#[test]
fn one_process_may_stop_at_any_operation() {
    enumerate(Zero::None, 1, None);
}

#[test]
fn a_process_may_stop_inside_an_upload_in_parts() {
    enumerate(Zero::None, 1, Some(PART));
}

/// An upload whose parts arrive and are never joined is sent again; it leaves nothing that a reader takes
/// for a checkpoint.
#[test]
fn uploads_that_are_torn_change_nothing() {
    let runtime = Runtime::new().expect("a runtime");
    let trial = trial(&runtime, Zero::Optimizer);
    let (_, expected) = undisturbed(&runtime, &trial, &store("not-torn"), 2);
    let base = store("torn").with_parts_of(PART);
    let (torn, logs): (Vec<Store>, Vec<Arc<FaultLog>>) = (0..2)
        .map(|seed| {
            base.with_faults(Faults {
                seed,
                one_in: 2,
                torn_multiparts: 3,
                ..Faults::default()
            })
        })
        .unzip();
    for end in run(&runtime, &trial, torn).ends {
        assert_eq!(end.expect("it is tried again").digest, expected);
    }
    for log in &logs {
        assert!(log.fired("torn multipart") > 0, "{:?}", log.operations());
    }
    let listed = runtime
        .block_on(checkpoint::list(&base, &trial.recipe_id()))
        .expect("a listing");
    assert_eq!(listed.len(), 3);
    for listed in listed {
        let manifest = listed.manifest.expect("a commit").expect("a manifest");
        let check = runtime.block_on(checkpoint::check(&base, &manifest));
        assert!(check.expect("a store").damage.is_empty());
    }
}

#[test]
fn either_of_two_sharded_ranks_may_stop_at_any_operation() {
    enumerate(Zero::Optimizer, 2, None);
}

#[test]
fn storage_trouble_of_one_rank_is_told_as_its_own_and_at_once() {
    let runtime = Runtime::new().expect("a runtime");
    let trial = trial(&runtime, Zero::Weights);
    let base = store("trouble");
    let (operations, _) = undisturbed(&runtime, &trial, &store("no-trouble"), 3);
    let second = operations[2]
        .iter()
        .position(|o| o.starts_with("put"))
        .expect("it saves");
    let (bad, log) = base.with_faults(Faults {
        stop: Some(Stop {
            operation: second as u64,
            after: false,
        }),
        ..Faults::default()
    });
    let begun = Instant::now();
    let ended = run(&runtime, &trial, vec![base.clone(), base, bad]);
    assert!(log.has_stopped());
    let failures: Vec<Failure> = ended
        .ends
        .into_iter()
        .map(|end| end.expect_err("it can't go on"))
        .collect();
    assert_eq!(failures[2].phase(), Phase::Storage);
    assert!(!failures[2].is_collateral());
    let told = polestar_core::chain(&failures[2]);
    assert!(
        told.contains("00003-of-00003.safetensors") && told.contains("memory://trouble"),
        "{told}"
    );
    assert!(
        failures[..2].iter().all(Failure::is_collateral),
        "{failures:?}"
    );
    assert!(begun.elapsed() < common::DEADLINE / 2);
}
