//! Every order of events in pools of one or two workers and trials, with a few faults wherever they can strike:
//! each trial comes to one result, which whoever calls it done finds in the store, and every way leads to it.
//!
//! Unlike in the histories of [`super`], when a lease may be taken isn't asked here: a second coordinator takes it at
//! any moment, and the first goes on until it learns of that. So a result is stored once even if leases failed.

mod moves;
mod pool;
mod processes;

use super::{store::VirtualStore, *};
use crate::control::explore::{self, Broken};
use pool::SmallPool;

/// What there is to do and to do it with, and how much may go wrong.
#[derive(Clone, Copy, Debug)]
struct Size {
    trials: u32,
    /// Ranks of each trial.
    world: u32,
    workers: u32,
    faults: u32,
}

/// What is wrong with a world, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq)]
enum StoreFlaw {
    None,
    /// It says that it has what it has yet to write.
    AnswersFirst,
    /// What is there is replaced, and generations of a trial come to different things.
    Replaces,
}

/// Situations that the worlds are about, and in how many of them each is.
#[derive(Debug, Default)]
struct Met {
    /// A trial was trained to its end twice.
    trained_twice: usize,
    /// Two coordinators have written its result.
    stored_by_two: usize,
    /// A generation goes on under a coordinator that didn't begin it.
    taken_over: usize,
    /// Two coordinators act as if they led.
    two_act: usize,
    /// A coordinator had to hear that it leads no longer.
    fenced: usize,
}

fn explore(size: Size, flaw: StoreFlaw, met: &mut Met) -> Result<usize, Broken> {
    explore::explore(SmallPool::new(size, flaw), |pool| {
        let by = |found: bool| usize::from(found);
        met.trained_twice += by(pool.trained.values().any(|&times| times > 1));
        met.stored_by_two += by(pool.stored_by.values().any(|by| by.len() > 1));
        met.taken_over += by(pool.has_taken_over());
        met.two_act += by(pool.coordinators.len() > 1);
        met.fenced += by(pool.fenced);
    })
}

/// The sizes that are explored, or that of `POLESTAR_EXPLORE`: trials, ranks of each, workers, faults. Few more of
/// anything take hours.
fn sizes() -> Vec<Size> {
    let given = std::env::var("POLESTAR_EXPLORE").ok().map(|text| {
        let number = |text: &str| text.parse().expect("POLESTAR_EXPLORE is four numbers");
        let numbers: Vec<u32> = text.split(',').map(number).collect();
        <[u32; 4]>::try_from(numbers).expect("POLESTAR_EXPLORE is four numbers")
    });
    let sizes = match given {
        Some(size) => vec![size],
        None => vec![[1, 1, 1, 2], [1, 1, 2, 1], [1, 2, 2, 1], [2, 1, 1, 1]],
    };
    let size = |[trials, world, workers, faults]: [u32; 4]| Size {
        trials,
        world,
        workers,
        faults,
    };
    sizes.into_iter().map(size).collect()
}

#[test]
fn in_every_order_of_events_each_trial_has_one_result() {
    let mut met = Met::default();
    for size in sizes() {
        match explore(size, StoreFlaw::None, &mut met) {
            Ok(count) => println!("{size:?}: {count} worlds"),
            Err(broken) => panic!("{size:?}: {}, after\n{}", broken.fault, broken.story),
        }
    }
    println!("{met:?}");
    let Met {
        trained_twice,
        stored_by_two,
        taken_over,
        two_act,
        fenced,
    } = met;
    let all = [trained_twice, stored_by_two, taken_over, two_act, fenced];
    assert!(all.iter().all(|&met| met > 100), "{met:?}");
}

#[test]
fn a_store_with_a_flaw_is_found_out() {
    let size = Size {
        trials: 1,
        world: 1,
        workers: 1,
        faults: 2,
    };
    for (flaw, says) in [
        (StoreFlaw::AnswersFirst, "no result"),
        (StoreFlaw::Replaces, "two results"),
    ] {
        let broken = explore(size, flaw, &mut Met::default()).expect_err("it goes unnoticed");
        assert!(broken.fault.contains(says), "{broken:?}");
    }
}
