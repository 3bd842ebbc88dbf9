//! Noise for laws planted in tests.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// Normal deviates that repeat with their stream.
pub(crate) struct Noise(ChaCha8Rng);

impl Noise {
    pub(crate) fn new(stream: u64) -> Noise {
        Noise(ChaCha8Rng::seed_from_u64(stream))
    }

    /// One of mean 0 and deviation 1, by Box and Muller.
    pub(crate) fn normal(&mut self) -> f64 {
        let mut uniform = || ((self.0.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos()
    }
}
