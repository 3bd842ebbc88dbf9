//! The two runs of the POLAR paper (arXiv 2507.05197) that it gives hours for.

use polestar_model::Preset;

/// A run as the paper tells of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PaperRun {
    /// The model.
    pub preset: Preset,
    /// The paper's name for its number of parameters.
    pub parameters: f64,
    /// GPUs; they were H800.
    pub gpus: u32,
    /// Hours.
    pub hours: f64,
    /// Tokens.
    pub tokens: f64,
    /// Triplets of a batch.
    pub batch: u32,
}

/// Both.
pub const PAPER_RUNS: [PaperRun; 2] = [
    PaperRun {
        preset: Preset::Polar1B8,
        parameters: 1.8e9,
        gpus: 320,
        hours: 57.0,
        tokens: 0.94e12,
        batch: 1940,
    },
    PaperRun {
        preset: Preset::Polar7B,
        parameters: 7e9,
        gpus: 912,
        hours: 175.0,
        tokens: 3.6e12,
        batch: 4343,
    },
];

impl PaperRun {
    /// FLOPs a second of each GPU by `6ND`, if the run takes so many hours.
    pub fn flops_6nd(&self, hours: f64) -> f64 {
        6.0 * self.parameters * self.tokens / (hours * 3600.0 * f64::from(self.gpus))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_papers_hours_are_155_and_263_teraflops_a_gpu() {
        let rates = PAPER_RUNS.map(|run| (run.flops_6nd(run.hours) / 1e12).round());
        assert_eq!(rates, [155.0, 263.0]);
    }
}
