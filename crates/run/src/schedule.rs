//! Learning rate as a pure function of the step.

use polestar_core::Step;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Warm-up to the peak, then a shape. Fractions are of all steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// The same, given in steps: up to its decay it is the same whatever the length, so that trials of
    /// several lengths have a trunk in common.
    WsdSteps {
        /// Steps spent rising linearly from zero.
        #[schemars(extend("unit" = "steps"), example = 100)]
        warmup: u64,
        /// Steps spent falling at the end; 0 for a trunk.
        #[schemars(extend("unit" = "steps"), example = 400)]
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

/// Why a learning rate can't be followed.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ScheduleError {
    /// A parameter that is no fraction.
    #[error("{key} is {value}; it is a fraction between 0 and 1")]
    Fraction {
        /// Which.
        key: &'static str,
        /// Its value.
        value: f32,
    },
    /// The rate would fall before it has risen.
    #[error(
        "warmup = {warmup} and decay = {decay} are more than all steps together; lower one until their sum is at most 1"
    )]
    Overlap {
        /// Fraction of the steps that the rate rises.
        warmup: f32,
        /// Fraction of the steps that it falls.
        decay: f32,
    },
    /// The same, given in steps.
    #[error(
        "warmup = {warmup} and decay = {decay} are more than the trial's {steps} steps; lower one, or train longer"
    )]
    OverlapInSteps {
        /// Steps that the rate rises.
        warmup: u64,
        /// Steps that it falls.
        decay: u64,
        /// Steps of the trial.
        steps: u64,
    },
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

    /// Checks what serde can't, whatever the number of steps.
    ///
    /// # Errors
    /// [`ScheduleError`] names the parameter.
    pub fn validate(&self) -> Result<(), ScheduleError> {
        let (warmup, decay, floor) = match *self {
            Schedule::Cosine { warmup, floor } => (warmup, 0.0, floor),
            Schedule::Constant { warmup } => (warmup, 0.0, 0.0),
            Schedule::Wsd {
                warmup,
                decay,
                floor,
            } => (warmup, decay, floor),
            Schedule::WsdSteps { floor, .. } => (0.0, 0.0, floor),
        };
        for (key, value) in [("warmup", warmup), ("decay", decay), ("floor", floor)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(ScheduleError::Fraction { key, value });
            }
        }
        // In f64, where 0.3 + 0.7 of an f32 may be a hair above 1.
        if f64::from(warmup) + f64::from(decay) > 1.0 + 1e-6 {
            return Err(ScheduleError::Overlap { warmup, decay });
        }
        Ok(())
    }

    /// [`Schedule::validate`] for a trial of so many steps.
    ///
    /// # Errors
    /// [`ScheduleError`] names the parameter.
    pub fn validate_for(&self, steps: u64) -> Result<(), ScheduleError> {
        self.validate()?;
        match *self {
            Schedule::WsdSteps { warmup, decay, .. } if warmup.saturating_add(decay) > steps => {
                Err(ScheduleError::OverlapInSteps {
                    warmup,
                    decay,
                    steps,
                })
            }
            _ => Ok(()),
        }
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
    fn a_rate_that_falls_before_it_has_risen_is_refused() {
        let wsd = |warmup, decay| Schedule::Wsd {
            warmup,
            decay,
            floor: 0.0,
        };
        let refused = wsd(0.6, 0.6).validate().unwrap_err().to_string();
        assert!(
            refused.starts_with("warmup = 0.6 and decay = 0.6 are more than all steps"),
            "{refused}"
        );
        wsd(0.3, 0.7).validate().unwrap();
        assert!(
            wsd(0.1, 1.5)
                .validate()
                .unwrap_err()
                .to_string()
                .starts_with("decay is 1.5")
        );

        let in_steps = Schedule::WsdSteps {
            warmup: 30,
            decay: 80,
            floor: 0.0,
        };
        in_steps.validate_for(110).unwrap();
        let refused = in_steps.validate_for(100).unwrap_err().to_string();
        assert!(
            refused.contains("more than the trial's 100 steps"),
            "{refused}"
        );
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
