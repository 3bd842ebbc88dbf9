//! What a step took.

use super::Trainer;
use crate::{
    collective::Transport,
    engine::{Engine, observe::StepWork},
};
use polestar_model::count;
use std::time::Instant;
use tracing::Span;

/// Seconds of this generation, on top of those before it.
pub(super) struct Clock {
    pub(super) since: Instant,
    pub(super) before: f64,
}

impl Clock {
    pub(super) fn seconds(&self) -> f64 {
        self.before + self.since.elapsed().as_secs_f64()
    }
}

impl<E: Engine, T: Transport<E>> Trainer<'_, E, T> {
    /// What a step of so many tokens took, told to its span, too.
    pub(super) fn work(&mut self, tokens: u64, span: &Span) -> StepWork {
        let work = StepWork {
            tokens,
            flops_6nd: count::flops_6nd(&self.trial.recipe.model, tokens),
            parts: std::mem::take(&mut self.stepper.parts),
            world: self.sharding.world.0,
            sent: self.env.collective.sent(),
        };
        if !span.is_disabled() {
            span.record("polestar.seconds.forward", work.parts.forward);
            span.record("polestar.seconds.backward", work.parts.backward);
            span.record("polestar.seconds.reduce", work.parts.reduce);
            span.record("polestar.tokens", tokens as i64);
            span.record("polestar.sent_bytes", work.sent.iter().sum::<u64>() as i64);
        }
        work
    }
}
