//! Labelled data: of two answers to a prompt the preferred one, mostly beside a reference. What
//! fine-tuning learns from.
//!
//! A labelled corpus has the manifest, the splits and the order of any other; its rows are pairs instead
//! of trajectories, and what the order visits is pairs instead of prompts. A pair is read as a prompt
//! that gives one triplet:
//!
//! ```text
//! [BOS] P REF <split> P | CHOSEN | REJECTED
//! ```
//! The subsets of the data stand where policies stand elsewhere, so that scores are told apart by subset.

mod inspect;
mod rank;
mod rows;

use serde::{Deserialize, Serialize};

use crate::across::{Place, Places};
use crate::schema::Prompt;

pub use inspect::{LabelledInspection, SubsetView, inspect_labelled};
pub(crate) use rank::{Scored, ranked};
pub(crate) use rows::{encode, pair_samples, schema};

/// What a record says of its prompt, on the way through an import.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Label {
    /// One answer is preferred to another.
    Pair {
        reference: Option<String>,
        chosen: String,
        rejected: String,
    },
    /// An answer is so good.
    Scored { response: String, score: f64 },
}

impl Label {
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("texts and finite numbers can be written as JSON")
    }

    pub(crate) fn from_json(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }
}

/// A row of a labelled corpus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LabelledPair {
    pub(crate) prompt_id: String,
    pub(crate) prompt: Prompt,
    pub(crate) subset: String,
    /// Which of its prompt's pairs it is.
    pub(crate) number: u32,
    pub(crate) reference: Option<String>,
    pub(crate) chosen: String,
    pub(crate) rejected: String,
    pub(crate) meta: Option<String>,
}

impl LabelledPair {
    /// The texts of its answers.
    pub(crate) fn answers(&self) -> impl Iterator<Item = &String> {
        [&self.chosen, &self.rejected]
            .into_iter()
            .chain(&self.reference)
    }
}

/// Where the three texts of the pair at a position are, as [`pair_samples`] lays them out.
pub(crate) fn places(at: usize) -> Places {
    let place = |policy, sample| Place {
        prompt: at,
        policy,
        sample,
    };
    Places {
        reference: place(0, 0),
        positive: place(0, 1),
        negative: place(1, 0),
    }
}
