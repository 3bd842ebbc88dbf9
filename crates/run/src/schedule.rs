//! Learning rate as a pure function of the step.

use polestar_core::Step;
use serde::{Deserialize, Serialize};

/// Warm-up to the peak, then a shape. Fractions are of all steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// Cosine from the peak to `floor` times the peak: what the published configuration uses.
    Cosine {
        /// Fraction of the steps spent rising linearly from zero.
        #[serde(default = "default_warmup")]
        warmup: f32,
        /// Last learning rate over the peak.
        #[serde(default = "default_floor")]
        floor: f32,
    },
    /// The peak until the end.
    Constant {
        /// Fraction of the steps spent rising linearly from zero.
        #[serde(default = "default_warmup")]
        warmup: f32,
    },
    /// Warm-up, stable, linear decay: a trunk that decay branches can start from.
    Wsd {
        /// Fraction of the steps spent rising linearly from zero.
        #[serde(default = "default_warmup")]
        warmup: f32,
        /// Fraction of the steps spent falling at the end.
        #[serde(default = "default_decay")]
        decay: f32,
        /// Last learning rate over the peak.
        #[serde(default)]
        floor: f32,
    },
    /// The same, told in steps: up to its decay it is the same whatever the length, so that trials of
    /// several lengths have a trunk in common.
    WsdSteps {
        /// Steps spent rising linearly from zero.
        warmup: u64,
        /// Steps spent falling at the end; 0 for a trunk.
        decay: u64,
        /// Last learning rate over the peak.
        #[serde(default)]
        floor: f32,
    },
}

fn default_warmup() -> f32 {
    0.03
}
fn default_floor() -> f32 {
    0.1
}
fn default_decay() -> f32 {
    0.1
}

impl Default for Schedule {
    fn default() -> Self {
        Schedule::Cosine {
            warmup: default_warmup(),
            floor: default_floor(),
        }
    }
}

impl Schedule {
    /// Factor on the peak learning rate for the update that leads from `step` to `step + 1`.
    pub fn factor(&self, step: Step, steps: u64) -> f32 {
        let (warmup, total) = (self.warmup_steps(steps), steps as f64);
        let now = (step.0 + 1) as f64;
        if now <= warmup {
            return (now / warmup) as f32;
        }
        let progress = ((now - warmup) / (total - warmup).max(1.0)).min(1.0);
        let factor = match *self {
            Schedule::Constant { .. } => 1.0,
            Schedule::Cosine { floor, .. } => {
                let floor = f64::from(floor);
                floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
            }
            Schedule::Wsd { decay, floor, .. } => {
                let decay = (f64::from(decay) * total).max(1.0);
                let left = ((total - now) / decay).clamp(0.0, 1.0);
                let floor = f64::from(floor);
                floor + (1.0 - floor) * left
            }
            // Outside of the decay the peak itself, not a sum that rounds to it.
            Schedule::WsdSteps { decay, .. } if step.0 + decay < steps => 1.0,
            Schedule::WsdSteps { decay, floor, .. } => {
                let left = ((total - now) / decay.max(1) as f64).clamp(0.0, 1.0);
                let floor = f64::from(floor);
                floor + (1.0 - floor) * left
            }
        };
        factor as f32
    }

    /// A parameter that is no fraction, if there is one.
    pub fn bad_fraction(&self) -> Option<f32> {
        let all = match *self {
            Schedule::Cosine { warmup, floor } => [warmup, floor, 0.0],
            Schedule::Constant { warmup } => [warmup, 0.0, 0.0],
            Schedule::Wsd {
                warmup,
                decay,
                floor,
            } => [warmup, decay, floor],
            Schedule::WsdSteps { floor, .. } => [floor, 0.0, 0.0],
        };
        all.into_iter().find(|f| !(0.0..=1.0).contains(f))
    }

    fn warmup_steps(&self, steps: u64) -> f64 {
        match *self {
            Schedule::Cosine { warmup, .. }
            | Schedule::Constant { warmup }
            | Schedule::Wsd { warmup, .. } => (f64::from(warmup) * steps as f64).round(),
            Schedule::WsdSteps { warmup, .. } => warmup as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors(schedule: &Schedule) -> Vec<f32> {
        (0..100).map(|s| schedule.factor(Step(s), 100)).collect()
    }

    #[test]
    fn cosine_rises_to_the_peak_and_ends_at_its_floor() {
        let f = factors(&Schedule::Cosine {
            warmup: 0.1,
            floor: 0.1,
        });
        assert!((f[0] - 0.1).abs() < 1e-6 && (f[9] - 1.0).abs() < 1e-6);
        assert!(f[10..].is_sorted_by(|a, b| a >= b));
        assert!((f[99] - 0.1).abs() < 1e-6);
    }

    #[test]
    fn wsd_is_flat_until_its_decay_and_ends_at_zero() {
        let f = factors(&Schedule::Wsd {
            warmup: 0.05,
            decay: 0.2,
            floor: 0.0,
        });
        assert!(f[5..80].iter().all(|&x| x == 1.0));
        assert!(f[80] < 1.0 && f[99] == 0.0);
    }

    #[test]
    fn trials_of_any_length_share_a_trunk_up_to_their_decay() {
        let schedule = |decay| Schedule::WsdSteps {
            warmup: 7,
            decay,
            floor: 0.1,
        };
        let trunk: Vec<f32> = (0..90).map(|s| schedule(0).factor(Step(s), 90)).collect();
        assert!(trunk[7..].iter().all(|&x| x == 1.0));
        for (steps, decay) in [(50, 10), (90, 18), (100, 33)] {
            let factor = |s| schedule(decay).factor(Step(s), steps);
            let shared = steps - decay;
            assert!((0..shared).all(|s| factor(s) == trunk[s as usize]));
            assert!(factor(shared) < 1.0 && (factor(steps - 1) - 0.1).abs() < 1e-6);
        }
    }
}
