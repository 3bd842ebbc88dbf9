//! What scores rest on: which triplets make a curve, and what of their texts a model is shown.

use super::number;
use serde::{Deserialize, Serialize};

/// Which triplets the points of training curves are scored on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CurveScores {
    /// Triplets of every point: the first of the set.
    pub triplets: u64,
    /// Prompts that they are of; unknown of what older versions scored.
    pub prompts: Option<u64>,
    /// Triplets of the final losses, which are the laws'; those of the curves are among them.
    pub final_triplets: u64,
    /// Trials whose last step was scored on other triplets only, so that it is no point of their curve.
    pub without_end: Vec<String>,
}

impl CurveScores {
    /// What a reader of the curves has to know, in sentences.
    pub fn text(&self) -> String {
        let on = self.basis();
        let mut text = match self.final_triplets == self.triplets {
            true => {
                format!("Every point of a curve is scored on the same {on}, as final losses are.")
            }
            false => format!(
                "Every point of a curve, the last one included, is scored on the same {on}: the first of the {} that final \
                 losses, the laws' own, are measured on. A curve's end and a final loss differ by these triplets, not by training.",
                number::grouped(self.final_triplets)
            ),
        };
        if !self.without_end.is_empty() {
            text += &format!(
                " Without a last point, as an older version scored it on other triplets: {}.",
                self.without_end.join(", ")
            );
        }
        text
    }

    fn basis(&self) -> String {
        let triplets = number::grouped(self.triplets);
        match self.prompts {
            Some(prompts) => format!(
                "{triplets} triplets of {} prompts",
                number::grouped(prompts)
            ),
            None => format!("{triplets} triplets"),
        }
    }
}

/// So many of all are shown in part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutShare {
    /// These are cut.
    pub cut: u64,
    /// Of these.
    pub all: u64,
}

impl CutShare {
    /// As a share, 0..=1; 0 of none.
    pub fn share(self) -> f64 {
        self.cut as f64 / self.all.max(1) as f64
    }

    /// What the lengths of answers still show when so many of them are cut; `None` if none is.
    pub fn of_lengths(self) -> Option<String> {
        let shows = match self.share() {
            0.0 => return None,
            most if most >= 0.5 => "so the length probe can see little",
            _ => "and to the length probe these are as long as the limit",
        };
        let cut = number::percent(self.share());
        Some(format!(
            "lengths are compared after cutting: {cut} of answers are cut, {shows}"
        ))
    }
}

impl std::fmt::Display for CutShare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cut, all } = self;
        write!(f, "{} ({cut} of {all})", number::percent(self.share()))
    }
}

/// What is cut of texts before a model is shown them, measured on triplets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cutting {
    /// Most tokens of a prompt; its last are kept.
    pub max_prompt: u64,
    /// Most tokens of an answer; its first are kept.
    pub max_response: u64,
    /// For training and each held-out set.
    pub texts: Vec<CutTexts>,
}

/// What is cut of the texts of some triplets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutTexts {
    /// What the triplets are for: training, or the name of a set.
    pub data: String,
    /// Prompts, each once.
    pub prompts: CutShare,
    /// Answers, each once.
    pub answers: CutShare,
    /// Triplets that were looked at.
    pub triplets: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cutting_leaves_of_lengths_is_said() {
        let of = |cut, all| CutShare { cut, all }.of_lengths();
        assert_eq!(of(0, 900), None);
        assert_eq!(
            of(499, 500).unwrap(),
            "lengths are compared after cutting: 99.8% of answers are cut, so the length probe can see little"
        );
        assert!(of(1, 10).unwrap().contains("10.0% of answers are cut, and"));
    }

    #[test]
    fn curves_say_which_triplets_they_are_of() {
        let mut scores = CurveScores {
            triplets: 512,
            prompts: Some(50),
            final_triplets: 2048,
            without_end: vec![],
        };
        let text = scores.text();
        assert!(text.contains("512 triplets of 50 prompts"), "{text}");
        assert!(text.contains("differ by these triplets"), "{text}");
        scores.final_triplets = 512;
        scores.without_end = vec!["s-c1".into()];
        let text = scores.text();
        assert!(text.contains("as final losses are") && text.ends_with("other triplets: s-c1."));
    }
}
