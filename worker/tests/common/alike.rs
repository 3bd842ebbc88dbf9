//! Generations whose ranks are alike: processes that have just been started.

use crate::{
    common::connect,
    small::{Seat, run_seated},
};
use polestar_core::Step;
use polestar_run::{Event, Outcome, Trial};
use polestar_store::Store;
use polestar_worker::{
    collective::Locality,
    engine::{Failure, Kept},
};
use std::sync::{Arc, Mutex};
use tokio::runtime::Runtime;

/// What every rank came to, and where the generation began.
pub(crate) struct Generation {
    pub(crate) ends: Vec<Result<Outcome, Failure>>,
    pub(crate) begun: Option<Step>,
}

/// One generation; each rank has a store of its own to look through.
pub(crate) fn run(runtime: &Runtime, trial: &Trial, stores: Vec<Store>) -> Generation {
    let begun = Arc::new(Mutex::new(None));
    let told = Arc::clone(&begun);
    let hear = move |event| {
        if let Event::Begun { step, .. } = event {
            *told.lock().expect("no panic") = Some(step);
        }
    };
    let transports = connect(runtime, &vec![Locality::Machine; stores.len()]);
    let seats = transports.into_iter().zip(stores);
    let seats = seats.map(|(transport, store)| Seat {
        transport,
        store,
        kept: Kept::default(),
    });
    let ends = run_seated(runtime, trial, seats.collect(), hear);
    let begun = *begun.lock().expect("no panic");
    Generation { ends, begun }
}
