//! The scaling laws published for POLAR (arXiv 2507.05197, section 4.4), for comparison only.

/// A published law L = coefficient · x^exponent and where it was measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct PaperLaw {
    /// Factor.
    pub coefficient: f64,
    /// Exponent.
    pub exponent: f64,
    /// Smallest and largest x of the published measurements.
    pub measured: (f64, f64),
}

/// Validation loss against parameters, measured from 50M to 1B.
pub(super) const BY_PARAMS: PaperLaw = PaperLaw {
    coefficient: 0.9,
    exponent: -0.0425,
    measured: (5e7, 1e9),
};

/// Validation loss against the best use of a compute budget.
pub(super) const BY_COMPUTE: PaperLaw = PaperLaw {
    coefficient: 2.4,
    exponent: -0.0342,
    measured: (1e18, 1e21),
};

/// What a reader must know before comparing with these laws.
pub(super) const WARNING: [&str; 3] = [
    "The two published laws do not agree with each other: for the largest run of the study (1B parameters, 54B tokens) the law in \
     parameters gives a loss of 0.373 and the law in compute 0.477. They cannot be the same measurement.",
    "How the paper counts FLOPs is not stated. Read as raw parameters and raw FLOPs the laws match the plotted ranges; the axis \
     label of the compute figure (FLOP/s-days) does not.",
    "They were measured on another corpus, with other policies and another validation set. Levels are therefore not comparable \
     with this run; at most the slopes are.",
];

impl PaperLaw {
    /// Loss at `x`.
    pub(super) fn loss(&self, x: f64) -> f64 {
        self.coefficient * x.powf(self.exponent)
    }

    /// The law as its paper writes it, for the variable `symbol`.
    pub(super) fn text(&self, symbol: &str) -> String {
        format!(
            "POLAR paper: {} {symbol}^{}",
            self.coefficient, self.exponent
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warning_states_what_the_laws_give() {
        let largest_run = 6.0 * 1e9 * 54e9;
        assert!(WARNING[0].contains(&format!("{:.3}", BY_PARAMS.loss(1e9))));
        assert!(WARNING[0].contains(&format!("{:.3}", BY_COMPUTE.loss(largest_run))));
    }
}
