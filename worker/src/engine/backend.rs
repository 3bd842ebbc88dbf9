//! Which engine trains a trial.

use super::{Environment, Failure, run};
use crate::collective::MeshTransport;
use polestar_run::{Outcome, Trial};

impl<T> Environment<T> {
    /// The same over another transport, made of this one's.
    ///
    /// # Errors
    /// As `transport`.
    #[cfg(feature = "cuda")]
    pub(super) fn over<U, E>(
        self,
        transport: impl FnOnce(T) -> Result<U, E>,
    ) -> Result<Environment<U>, E> {
        Ok(Environment {
            collective: transport(self.collective)?,
            run: self.run,
            runtime: self.runtime,
            abort: self.abort,
            drain: self.drain,
            events: self.events,
            slice: self.slice,
            kept: self.kept,
        })
    }
}

/// Trains a trial as [`run`] does, by the engine of its backend.
///
/// # Errors
/// As [`run`].
pub fn run_on_mesh(trial: &Trial, env: Environment<MeshTransport>) -> Result<Outcome, Failure> {
    #[cfg(feature = "cuda")]
    if trial.recipe.arithmetic.backend == polestar_run::config::Backend::Cuda {
        return super::cuda::run(trial, env);
    }
    run(trial, env)
}
