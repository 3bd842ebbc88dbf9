//! From rewards to credits.

use crate::question::Kind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What equal rewards are worth. The benchmarks differ in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TieRule {
    /// Nothing.
    Wrong,
    /// What a draw of lots among them would be worth: a half for two.
    Shared,
}

impl fmt::Display for TieRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TieRule::Wrong => "equal rewards count as wrong",
            TieRule::Shared => "equal rewards count as a draw of lots",
        })
    }
}

/// What a task came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Judged {
    /// From 0, wrong, to 1, right.
    Credit {
        credit: f64,
        /// Whether equal rewards decided it.
        tied: bool,
    },
    /// What the score of ties is made of.
    Ties(Ties),
}

/// A prompt of RewardBench 2's ties.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ties {
    /// The version with one right answer.
    pub(crate) reference: bool,
    /// From the lowest right answer to the highest; none of one.
    pub(crate) spread: Option<f64>,
    /// From the highest wrong answer up to the lowest right one.
    pub(crate) gap: f64,
}

/// Judges a task by the rewards of its question's answers.
pub(crate) fn judge(kind: &Kind, rewards: &[f64], ties: TieRule) -> Judged {
    match kind {
        Kind::Pair { better, worse } => pair(rewards[*better], rewards[*worse], ties),
        Kind::Best { right, wrong } => best(rewards, right, wrong, ties),
        Kind::Ties {
            right,
            wrong,
            reference,
        } => {
            let of = |at: &usize| rewards[*at];
            let low = right.iter().map(of).fold(f64::INFINITY, f64::min);
            let high = right.iter().map(of).fold(f64::NEG_INFINITY, f64::max);
            let best_wrong = wrong.iter().map(of).fold(f64::NEG_INFINITY, f64::max);
            Judged::Ties(Ties {
                reference: *reference,
                spread: (right.len() > 1).then_some(high - low),
                gap: low - best_wrong,
            })
        }
    }
}

fn pair(better: f64, worse: f64, ties: TieRule) -> Judged {
    let tied = better == worse;
    let credit = match (tied, ties) {
        (true, TieRule::Wrong) => 0.0,
        (true, TieRule::Shared) => 0.5,
        (false, _) => f64::from(u8::from(better > worse)),
    };
    Judged::Credit { credit, tied }
}

fn best(rewards: &[f64], right: &[usize], wrong: &[usize], ties: TieRule) -> Judged {
    let all = || right.iter().chain(wrong).map(|at| rewards[*at]);
    let highest = all().fold(f64::NEG_INFINITY, f64::max);
    let top = |of: &[usize]| of.iter().filter(|at| rewards[**at] == highest).count();
    let (right, wrong) = (top(right), top(wrong));
    let tied = right > 0 && wrong > 0;
    let credit = match ties {
        TieRule::Wrong if tied => 0.0,
        _ => right as f64 / (right + wrong) as f64,
    };
    Judged::Credit { credit, tied }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credit(kind: &Kind, rewards: &[f64], ties: TieRule) -> f64 {
        match judge(kind, rewards, ties) {
            Judged::Credit { credit, .. } => credit,
            Judged::Ties(_) => panic!("no credit"),
        }
    }

    #[test]
    fn equal_rewards_are_worth_what_the_rule_says() {
        let pair = Kind::Pair {
            better: 1,
            worse: 0,
        };
        assert_eq!(credit(&pair, &[0.0, 1.0], TieRule::Wrong), 1.0);
        assert_eq!(credit(&pair, &[1.0, 1.0], TieRule::Wrong), 0.0);
        assert_eq!(credit(&pair, &[1.0, 1.0], TieRule::Shared), 0.5);
        let best = Kind::Best {
            right: vec![0],
            wrong: vec![1, 2, 3],
        };
        assert_eq!(
            credit(&best, &[2.0, 2.0, 2.0, 0.0], TieRule::Shared),
            1.0 / 3.0
        );
        assert_eq!(credit(&best, &[2.0, 2.0, 2.0, 0.0], TieRule::Wrong), 0.0);
        assert_eq!(credit(&best, &[2.0, 2.1, 0.0, 0.0], TieRule::Shared), 0.0);
        // Right answers among themselves may be equal.
        let many = Kind::Best {
            right: vec![0, 1],
            wrong: vec![2],
        };
        assert_eq!(credit(&many, &[2.0, 2.0, 1.0], TieRule::Wrong), 1.0);
    }
}
