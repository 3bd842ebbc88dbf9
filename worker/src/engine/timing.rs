//! Where the time of a step goes, as the thread that trains sees it.

use polestar_run::StepParts;
use std::time::{Duration, Instant};

/// Seconds between looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopwatch(Instant);

impl Stopwatch {
    pub(super) fn start() -> Stopwatch {
        Stopwatch(Instant::now())
    }

    /// Seconds since the look before.
    pub(super) fn lap(&mut self) -> f64 {
        let now = Instant::now();
        let lap = now - std::mem::replace(&mut self.0, now);
        lap.as_secs_f64()
    }
}

/// A pass through the model: forward until the first gradient is asked for, then back.
#[derive(Clone, Copy, Debug)]
pub(super) struct PassClock {
    began: Instant,
    /// When it turned back, and how long it had waited for other ranks by then.
    turned: Option<(Instant, Duration)>,
}

impl PassClock {
    pub(super) fn start() -> PassClock {
        PassClock {
            began: Instant::now(),
            turned: None,
        }
    }

    /// A gradient is asked for.
    pub(super) fn turn(&mut self, waited: Duration) {
        self.turned.get_or_insert_with(|| (Instant::now(), waited));
    }

    /// It is over, and has waited so long for other ranks.
    pub(super) fn end(self, waited: Duration, parts: &mut StepParts) {
        let end = Instant::now();
        let (turned, before) = self.turned.unwrap_or((end, waited));
        let forward = (turned - self.began).saturating_sub(before);
        let backward = (end - turned).saturating_sub(waited.saturating_sub(before));
        parts.forward += forward.as_secs_f64();
        parts.backward += backward.as_secs_f64();
        parts.reduce += waited.as_secs_f64();
    }
}
