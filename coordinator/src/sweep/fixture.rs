//! What unit tests read and plan.

use super::{CorpusFacts, Work};

/// A sweep file up to its axes.
const HEAD: &str = r#"name = "t"
store = "runs"
[corpus]
url = "c"
[train]
batch = 8
[train.optimizer]
lr = 1e-3
[sweep]
"#;

/// A sweep file of these axes, and of whatever tables follow them.
pub(crate) fn text(axes: &str) -> String {
    format!("{HEAD}{axes}")
}

/// A sweep file of one trial.
pub(crate) fn smallest() -> String {
    text("sizes = [\"nano\"]\nsteps = [10] # a comment\n")
}

/// A corpus of short texts.
pub(crate) fn facts() -> CorpusFacts {
    CorpusFacts {
        fingerprint: "f".into(),
        vocab: 300,
        tokens_per_triplet: 100.0,
        polar: Work {
            tokens: 70.0,
            pairs: 2000.0,
        },
        lm: Work {
            tokens: 60.0,
            pairs: 1500.0,
        },
        distances: None,
        starts: vec![],
        start: None,
    }
}
