//! What a fitted law shows of itself that the runs don't determine it.

use super::{
    Coefficients, Intervals, Spread,
    search::{HUBER, STEEPEST},
};
use crate::fits::{Interval, Run};

/// Exponents are known if their interval's ends are within this factor of each other.
const FACTOR: f64 = 5.0;

/// A tenth of a percent, in relative numbers: an estimate so far outside of what resamples say disagrees with them.
const OUTSIDE: f64 = 1e-3;

/// Why the runs don't determine the law, as clauses; `None` if they do.
pub(super) fn doubts(runs: &[Run], spread: &Spread, intervals: &Intervals) -> Option<String> {
    if spread.laws.is_empty() {
        return Some("no resample was fitted, so nothing is known of how sure it is".to_owned());
    }
    let law = &spread.law;
    let mut found = Vec::new();
    for part in [
        Part {
            quantity: "N",
            symbol: "α",
            exponent: law.alpha,
            interval: intervals.alpha,
            falls: falls(runs, |r| law.a * r.n.powf(-law.alpha)),
        },
        Part {
            quantity: "D",
            symbol: "β",
            exponent: law.beta,
            interval: intervals.beta,
            falls: falls(runs, |r| law.b * r.d.powf(-law.beta)),
        },
    ] {
        found.extend(part.doubt());
    }
    if found.is_empty() {
        found.extend(disagreement(runs, spread));
    }
    (!found.is_empty()).then(|| found.join("; "))
}

/// One of the law's two parts.
struct Part {
    quantity: &'static str,
    symbol: &'static str,
    exponent: f64,
    interval: Option<Interval>,
    /// How much of the loss it is from its largest place to its smallest, as a share.
    falls: f64,
}

impl Part {
    fn doubt(&self) -> Option<String> {
        let Self {
            quantity, symbol, ..
        } = self;
        if self.falls < HUBER {
            return Some(format!(
                "{quantity} makes a difference of less than a tenth of a percent"
            ));
        }
        if self.exponent >= STEEPEST * 0.98 {
            return Some(format!(
                "{symbol} went to {STEEPEST}, the steepest that is looked for"
            ));
        }
        let Some(Interval { lo, hi }) = self.interval else {
            return Some(format!("resamples say nothing of {symbol}"));
        };
        if hi >= STEEPEST * 0.98 {
            return Some(format!("{symbol} may be anything from {lo:.2} on"));
        }
        // Zero divides nothing: the least that is seen is as good.
        (hi >= FACTOR * lo).then(|| format!("{symbol} may be anything from {lo:.2} to {hi:.2}"))
    }
}

fn falls(runs: &[Run], part: impl Fn(&Run) -> f64) -> f64 {
    let ends = runs.iter().fold((f64::INFINITY, 0.0_f64), |(lo, hi), run| {
        let part = part(run);
        (lo.min(part), hi.max(part))
    });
    let loss = runs.iter().map(|run| run.loss).sum::<f64>() / runs.len() as f64;
    (ends.1 - ends.0) / loss
}

/// A number of a law: its name, how it is read, and what it is measured against.
type Number = (&'static str, fn(&Coefficients) -> f64, f64);

/// A number that 95% of its own resamples lie to one side of.
fn disagreement(runs: &[Run], spread: &Spread) -> Option<String> {
    let lowest = runs.iter().map(|r| r.loss).fold(f64::INFINITY, f64::min);
    let law = &spread.law;
    let numbers: [Number; 3] = [
        ("E", |law| law.e, lowest),
        ("α", |law| law.alpha, law.alpha),
        ("β", |law| law.beta, law.beta),
    ];
    numbers.into_iter().find_map(|(name, of, scale)| {
        let interval = spread.percentile(of)?;
        let (at, allowed) = (of(law), OUTSIDE * scale);
        let is_inside = interval.lo - allowed <= at && at <= interval.hi + allowed;
        (!is_inside).then(|| {
            format!("nearly all resamples put {name} to one side of where all runs together put it")
        })
    })
}
