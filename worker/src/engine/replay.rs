//! Training a slice of a trial again, to compare the answer.

use super::{Environment, Failure, Kept, run_on_mesh};
use crate::collective::{Locality, MeshTransport, local_world};
use polestar_core::{Digest, Step, WorldSize};
use polestar_run::Trial;
use polestar_store::Store;
use std::{sync::Arc, thread, time::Duration};
use tokio::runtime::Handle;

/// Longer than any step of a slice that somebody waits for.
const DEADLINE: Duration = Duration::from_secs(600);

/// Some steps of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The checkpoint to begin from; 0 for the beginning.
    pub from: Step,
    /// The last step.
    pub until: Step,
}

/// Trains a slice on `world` ranks in threads of this process, writes nothing, and returns the digest
/// of the weights after it. To be called from a thread that may block.
///
/// # Errors
/// The first rank's failure; [`Failure::Data`] when the checkpoint to begin from is damaged.
pub fn replay(
    trial: &Trial,
    store: &Store,
    slice: Slice,
    world: WorldSize,
    runtime: &Handle,
) -> Result<Digest, Failure> {
    let collectives = runtime.block_on(connect(world))?;
    let threads = thread::available_parallelism().map_or(1, |n| n.get());
    let threads = (threads / world.0.max(1) as usize).max(1);
    let ranks: Vec<_> = collectives
        .into_iter()
        .map(|collective| {
            let env = Environment {
                collective,
                run: store.clone(),
                runtime: runtime.clone(),
                abort: Arc::default(),
                drain: Arc::default(),
                events: Box::new(|_| {}),
                slice: Some(slice),
                kept: Kept::default(),
            };
            let trial = trial.clone();
            // A rank that waits for another must not hold a thread that the other one needs.
            let train = move || {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                let pool = pool.map_err(|e| Failure::Config(e.to_string()))?;
                pool.install(|| run_on_mesh(&trial, env))
            };
            thread::spawn(train)
        })
        .collect();
    let mut ended: Vec<_> = ranks
        .into_iter()
        .map(|rank| {
            let panicked = |_| {
                Err(Failure::Config(
                    "a rank panicked; please report it".to_owned(),
                ))
            };
            rank.join().unwrap_or_else(panicked)
        })
        .collect();
    // What began elsewhere explains less than what began here.
    ended.sort_by_key(|end| end.as_ref().map_or_else(Failure::is_collateral, |_| true));
    ended.swap_remove(0).map(|outcome| outcome.digest)
}

async fn connect(world: WorldSize) -> Result<Vec<MeshTransport>, Failure> {
    let localities = vec![Locality::Machine; world.0 as usize];
    let meshes = local_world(&localities, DEADLINE).await.map_err(|error| {
        let reason = polestar_core::chain::chain(&error);
        Failure::Config(format!("ranks of this process can't connect: {reason}"))
    })?;
    let transports = meshes
        .into_iter()
        .map(|mesh| MeshTransport::new(mesh, DEADLINE));
    Ok(transports.collect())
}
