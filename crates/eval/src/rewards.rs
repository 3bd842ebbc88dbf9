//! Whatever gives rewards to answers.

use crate::Question;

/// Why there are no rewards: the scorer's own error.
pub type RewardError = Box<dyn std::error::Error + Send + Sync>;

/// Answers to one prompt that are scored together.
#[derive(Clone, Debug)]
pub struct Group<'a> {
    /// What was asked.
    pub prompt: &'a str,
    /// The answer that the others are compared with.
    pub reference: Option<&'a str>,
    /// The answers to score.
    pub answers: &'a [String],
}

impl<'a> Group<'a> {
    /// The answers of a question, with its reference or without.
    pub fn of(question: &'a Question, with_reference: bool) -> Group<'a> {
        let reference = question.reference.as_deref();
        Group {
            prompt: &question.prompt,
            reference: reference.filter(|_| with_reference),
            answers: &question.answers,
        }
    }
}

/// A reward model, or anything that may stand in for one.
pub trait Rewards {
    /// A reward of every answer of every group, in their order; more is better, and only differences within a group
    /// matter.
    ///
    /// # Errors
    /// The scorer's.
    fn rewards(&mut self, groups: &[Group<'_>]) -> Result<Vec<Vec<f64>>, RewardError>;

    /// What compares texts by this model's own embeddings of them, a baseline beside its rewards; `None` of what has no
    /// embeddings.
    fn embedding(&mut self) -> Option<&mut dyn Rewards> {
        None
    }
}
