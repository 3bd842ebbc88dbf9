//! Preference accuracy: how often a reward model puts the better one of two answers first.
//!
//! ```text
//! records --formats--> questions: a prompt, its answers, what is known of their order
//! questions --Rewards: a model, or a baseline--> a reward of every answer
//! rewards --judge--> credits --summary--> accuracies with intervals, clustered by prompt
//! ```
//! Nothing here reads a file or runs a model: records come in, and whatever gives rewards is a trait.

pub mod baselines;
pub mod evaluation;
pub mod formats;
pub mod judge;
pub mod published;
pub mod question;
pub mod rewards;
pub mod summary;

pub use evaluation::{Evaluation, Evaluator, Options, Phase, Progress, ScorerResult};
pub use formats::{Format, FormatError, Parser, Record};
pub use question::{Account, Bench, Kind, Question, Task};
pub use rewards::{Group, RewardError, Rewards};
pub use summary::{Accuracy, Row};
