//! AdamW on flat host buffers.

use rayon::prelude::*;

/// Hyper-parameters of AdamW (decoupled weight decay).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step.
    pub lr: f32,
    /// Decay of the mean of gradients.
    pub beta1: f32,
    /// Decay of the mean of squared gradients.
    pub beta2: f32,
    /// Added to the root of the mean square.
    pub eps: f32,
    /// The parameter loses `lr * weight_decay` of itself each step.
    pub weight_decay: f32,
}

/// What one step changes: buffers of one length, element by element.
#[derive(Debug)]
pub struct Parameters<'a> {
    /// The parameters.
    pub param: &'a mut [f32],
    /// Their gradients' means so far.
    pub m: &'a mut [f32],
    /// Their squared gradients' means so far.
    pub v: &'a mut [f32],
}

/// Elements that one task updates. Fixed, so that work is split alike on any number of threads.
const BLOCK: usize = 4096;

/// One step, number `t` counted from 1, in place. Every gradient is multiplied by `scale` first (the clip factor).
///
/// Elements don't meet: a shard of the buffers, updated alone, gets the bits that the whole would.
///
/// # Panics
/// When the four buffers differ in length or `t` is 0.
pub fn step(config: &AdamW, t: u64, scale: f32, parameters: Parameters<'_>, grad: &[f32]) {
    let Parameters { param, m, v } = parameters;
    let len = param.len();
    assert!(
        m.len() == len && v.len() == len && grad.len() == len,
        "adamw: {len} parameters, {} and {} moments and {} gradients don't fit together",
        m.len(),
        v.len(),
        grad.len(),
    );
    assert!(t > 0, "adamw: steps count from 1");
    let update = Constants::new(config, t, scale);
    param
        .par_chunks_mut(BLOCK)
        .zip_eq(m.par_chunks_mut(BLOCK))
        .zip_eq(v.par_chunks_mut(BLOCK))
        .zip_eq(grad.par_chunks(BLOCK))
        .for_each(|(((param, m), v), grad)| update.run(param, m, v, grad));
}

/// A step's constants, on any device.
pub(crate) struct Constants {
    pub(crate) keep: f32,
    pub(crate) beta1: f32,
    pub(crate) beta2: f32,
    pub(crate) eps: f32,
    pub(crate) scale: f32,
    /// lr / (1 - beta1^t).
    pub(crate) rate: f32,
    /// 1 / sqrt(1 - beta2^t).
    pub(crate) root_correction: f32,
}

impl Constants {
    pub(crate) fn new(config: &AdamW, t: u64, scale: f32) -> Self {
        // In f64: 1 - beta^t loses most of its digits in f32 while t is small.
        let correction = |beta: f32| 1.0 - f64::from(beta).powf(t as f64);
        Self {
            keep: 1.0 - config.lr * config.weight_decay,
            beta1: config.beta1,
            beta2: config.beta2,
            eps: config.eps,
            scale,
            rate: (f64::from(config.lr) / correction(config.beta1)) as f32,
            root_correction: correction(config.beta2).sqrt().recip() as f32,
        }
    }

    /// Plain multiplications, additions, roots and divisions: the same bits on every instruction set.
    fn run(&self, param: &mut [f32], m: &mut [f32], v: &mut [f32], grad: &[f32]) {
        for (((param, m), v), grad) in param.iter_mut().zip(m).zip(v).zip(grad) {
            let grad = grad * self.scale;
            *m = self.beta1 * *m + (1.0 - self.beta1) * grad;
            *v = self.beta2 * *v + (1.0 - self.beta2) * (grad * grad);
            let denominator = v.sqrt() * self.root_correction + self.eps;
            *param = self.keep * *param - self.rate * (*m / denominator);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: AdamW = AdamW {
        lr: 1e-2,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
    };

    fn wave(len: usize, phase: f32) -> Vec<f32> {
        (0..len).map(|i| (i as f32 * 0.37 + phase).sin()).collect()
    }

    #[test]
    fn ten_steps_follow_the_definition() {
        let len = BLOCK + 3;
        let (mut param, mut m, mut v) = (wave(len, 0.0), vec![0.0; len], vec![0.0; len]);
        let mut expected: Vec<[f64; 3]> = param.iter().map(|&p| [f64::from(p), 0.0, 0.0]).collect();
        for t in 1..=10u64 {
            let grad = wave(len, t as f32);
            let [param, m, v] = [&mut param, &mut m, &mut v].map(Vec::as_mut_slice);
            step(&CONFIG, t, 0.5, Parameters { param, m, v }, &grad);
            for ([p, m, v], g) in expected.iter_mut().zip(&grad) {
                let g = 0.5 * f64::from(*g);
                *m = 0.9 * *m + 0.1 * g;
                *v = 0.95 * *v + 0.05 * g * g;
                let (m, v) = (
                    *m / (1.0 - 0.9f64.powf(t as f64)),
                    *v / (1.0 - 0.95f64.powf(t as f64)),
                );
                *p -= 1e-2 * (0.1 * *p + m / (v.sqrt() + 1e-8));
            }
        }
        for (p, [e, ..]) in param.iter().zip(&expected) {
            assert!((f64::from(*p) - e).abs() < 1e-5, "{p} is not {e}");
        }
    }

    #[test]
    fn a_shard_gets_the_bits_of_the_whole() {
        let (len, cut) = (3 * BLOCK, 1000);
        let grad = wave(len, 1.0);
        let run = |range: std::ops::Range<usize>| {
            let mut shard = wave(len, 0.0)[range.clone()].to_vec();
            let (mut m, mut v) = (vec![0.0; shard.len()], vec![0.0; shard.len()]);
            let [param, m, v] = [&mut shard, &mut m, &mut v].map(Vec::as_mut_slice);
            step(&CONFIG, 1, 1.0, Parameters { param, m, v }, &grad[range]);
            shard
        };
        assert_eq!(run(0..len), [run(0..cut), run(cut..len)].concat());
    }
}
