//! Numbers that others have published, for context. None is measured here, and protocols differ: each says whose it is
//! and what it is of.

use crate::formats::Format;
use serde::{Deserialize, Serialize};

/// A published number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// Which model.
    pub model: String,
    /// Its accuracy, from 0 to 1.
    pub accuracy: f64,
    /// Where it stands, and what it is of.
    pub source: String,
}

/// POLAR's paper (arXiv 2507.05197v2) on RMB: 3,162 questions, the best answer as reference, the second above the third;
/// models that take no reference with it in the prompt or without, whichever was better.
const POLAR: [(&str, f64, &str); 9] = [
    ("POLAR-7B", 0.763, "Table 13"),
    ("POLAR-1.8B", 0.740, "Table 7"),
    ("POLAR-7B without pre-training", 0.765, "Table 13"),
    ("POLAR-1.8B without pre-training", 0.726, "Table 13"),
    (
        "POLAR-1.8B without pre-training and reference",
        0.633,
        "Table 13",
    ),
    ("Skywork-Reward-27B without reference", 0.724, "Table 7"),
    ("Skywork-Reward-27B with reference", 0.706, "Table 7"),
    ("InternLM2-Reward-20B without reference", 0.667, "Table 7"),
    ("InternLM2-Reward-20B with reference", 0.645, "Table 7"),
];

/// What is known of a benchmark.
pub fn published(format: Format) -> Vec<Published> {
    match format {
        Format::Rmb | Format::RmbRanked => {
            let rows = POLAR.iter().map(|(model, accuracy, table)| Published {
                model: (*model).to_owned(),
                accuracy: *accuracy,
                source: format!("POLAR's paper, {table}, average over its categories of RMB"),
            });
            rows.collect()
        }
        _ => Vec::new(),
    }
}
