//! A law of points that were themselves measured: each is the result of a fit to runs, and what the noise of these
//! makes of it is known.

use super::{Line, PowerLaw, Weighted, least_squares, residual};

/// What the noise of their runs makes of a law's points.
pub(in crate::fits) struct PointNoise {
    /// ln y of every point, for each resample of the runs.
    pub(in crate::fits) draws: Vec<Vec<f64>>,
    /// Factor by which resamples understate the noise, few runs being what they are.
    pub(in crate::fits) spread: f64,
}

impl PowerLaw {
    /// The law with intervals that rest on the runs behind its points.
    ///
    /// Runs know of their own noise only. Where the points lie further off the law than that noise takes them, something
    /// else moves them, point by point, and then the wider of both intervals is the true one: that of runs, or that of
    /// points, which the law has so far.
    pub(in crate::fits) fn of_measured(self, noise: &PointNoise) -> Self {
        let x: Vec<f64> = self.points.iter().map(|point| point.x.ln()).collect();
        let y: Vec<f64> = self.points.iter().map(|point| point.loss.ln()).collect();
        let weighted = |y: &[f64]| -> Vec<Weighted> {
            let pairs = x.iter().zip(y);
            pairs.map(|(&x, &y)| (x, y, 1.0)).collect()
        };
        let fit = |logs: &[Weighted]| least_squares(logs.iter().copied());
        let Some(line) = fit(&weighted(&y)) else {
            return self;
        };
        let (mut of_runs, mut explained) = (Vec::new(), 0.0);
        for drawn in &noise.draws {
            let Some(found) = fit(&weighted(drawn)) else {
                continue;
            };
            of_runs.push(line.spread(found, noise.spread));
            // How far the noise alone takes points off a line.
            let moved: Vec<f64> = drawn.iter().zip(&y).map(|(a, b)| a - b).collect();
            let moved = weighted(&moved);
            explained += fit(&moved).map_or(0.0, |line| residual(&moved, line));
        }
        if of_runs.is_empty() {
            return self;
        }
        explained *= noise.spread.powi(2) / of_runs.len() as f64;
        let is_explained = self.residual <= explained;
        match is_explained || variance(&of_runs) >= variance(&self.draws) {
            true => self.drawn(line, of_runs),
            false => self,
        }
    }
}

/// Variance of the exponent.
fn variance(draws: &[Line]) -> f64 {
    let count = draws.len().max(1) as f64;
    let mean = draws.iter().map(|draw| draw.slope).sum::<f64>() / count;
    let squares = draws.iter().map(|draw| (draw.slope - mean).powi(2));
    squares.sum::<f64>() / count
}
