use super::super::{Optimal, budgets};
use super::*;
use crate::fits::planted;

const EXPONENT: f64 = 0.5;

/// Which runs share their noise.
#[derive(Clone, Copy, PartialEq)]
enum Shared {
    /// None: every run is a training of its own.
    Nothing,
    /// Those of one size, which are checkpoints of one training.
    BySize,
}

/// Four budgets by nine sizes around the best one of each, which grows as a power of compute; losses and best sizes
/// with noise.
struct Planted {
    of_losses: f64,
    of_best: f64,
    shared: Shared,
}

impl Planted {
    fn runs(&self, stream: u64) -> Vec<(f64, Run, usize)> {
        let mut random = planted::Noise::new(stream);
        let of_size: Vec<f64> = (0..15).map(|_| random.normal()).collect();
        let mut runs = Vec::new();
        for budget in 0..4 {
            let flops = 1e18 * 4f64.powi(budget);
            let best = EXPONENT * f64::from(budget) * 4f64.ln() + self.of_best * random.normal();
            for size in budget..budget + 9 {
                let x = (f64::from(size) - 4.0) * 2f64.ln();
                let noise = match self.shared {
                    Shared::Nothing => random.normal(),
                    Shared::BySize => of_size[size as usize],
                };
                let n = 1e7 * x.exp();
                let run = Run {
                    n,
                    d: flops / (6.0 * n),
                    loss: 2.0 + 0.03 * (x - best).powi(2) + self.of_losses * noise,
                };
                let training = match self.shared {
                    Shared::Nothing => runs.len(),
                    Shared::BySize => size as usize,
                };
                runs.push((flops, run, training));
            }
        }
        runs
    }

    /// In how many of 100 cases the interval holds the exponent, runs being taken for trainings as `seen` says.
    fn covered(&self, seen: impl Fn(usize, usize) -> usize) -> usize {
        let is_covered = |stream: &u64| {
            let runs = self.runs(*stream).into_iter().enumerate();
            let runs = runs.map(|(at, (flops, run, training))| (flops, run, seen(at, training)));
            let bootstrap = Bootstrap {
                resamples: 200,
                seed: *stream,
            };
            let laws = Optimal::of(&budgets(runs), Method::Parabola, bootstrap).unwrap();
            assert!(laws.knows_noise);
            laws.size.exponent_interval.unwrap().contains(EXPONENT)
        };
        (0..100).filter(is_covered).count()
    }
}

#[test]
fn intervals_of_best_sizes_hold_a_planted_exponent_as_often_as_they_claim() {
    let as_it_is = |_: usize, training: usize| training;
    let of_runs = Planted {
        of_losses: 0.004,
        of_best: 0.0,
        shared: Shared::Nothing,
    };
    // Something that no run knows of moves whole budgets.
    let of_budgets = Planted {
        of_best: 0.1,
        ..of_runs
    };
    let of_checkpoints = Planted {
        shared: Shared::BySize,
        ..of_runs
    };
    let hits = [
        of_runs.covered(as_it_is),
        of_budgets.covered(as_it_is),
        of_checkpoints.covered(as_it_is),
    ];
    assert!(hits.iter().all(|&hits| hits >= 86), "{hits:?}");
}

#[test]
fn runs_that_a_curve_goes_through_say_nothing_of_their_noise() {
    let noisy = Planted {
        of_losses: 0.004,
        of_best: 0.0,
        shared: Shared::Nothing,
    };
    let all = budgets(noisy.runs(0));
    assert!(Noise::of(&all, Method::Parabola).is_some());
    // Akima's curve goes through every size, and each has one run.
    assert!(Noise::of(&all, Method::Akima).is_none());
    let laws = Optimal::of(&all, Method::Akima, Bootstrap::default()).unwrap();
    assert!(!laws.knows_noise && laws.size.exponent_interval.is_some());
    // Two seeds of a size say it.
    let seeds = [0, 1].into_iter().flat_map(|seed| noisy.runs(seed));
    let seeds = seeds
        .enumerate()
        .map(|(at, (flops, run, _))| (flops, run, at));
    assert!(Noise::of(&budgets(seeds), Method::Akima).is_some());
}
