//! What a benchmark asks, whatever its file looks like.

use ahash::AHashMap;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A prompt, the answers to it, and what is known of their order. Each answer is scored once, however many tasks
/// it is part of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Question {
    /// Messages are joined by line breaks, as POLAR's clients do.
    pub prompt: String,
    /// The answer that the others are compared with, if the benchmark has one.
    pub reference: Option<String>,
    /// Distinct answers.
    pub answers: Vec<String>,
    /// What is to be judged by their rewards.
    pub tasks: Vec<Task>,
}

/// One judgement about the answers of a question, which are named by their numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Task {
    /// What is asked.
    pub kind: Kind,
    /// Where it counts: a path such as `chat/hard`.
    pub category: String,
    /// Tasks of one cluster share a prompt, and with it how hard that is.
    pub cluster: u32,
}

/// What a task asks of the rewards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Kind {
    /// That one is above the other.
    Pair {
        /// The preferred answer.
        better: usize,
        /// The other one.
        worse: usize,
    },
    /// That the highest of all is a right one.
    Best {
        /// Right answers.
        right: Vec<usize>,
        /// Wrong answers.
        wrong: Vec<usize>,
    },
    /// As RewardBench 2 scores its ties: right answers above wrong ones, and closer to each other than to those.
    Ties {
        /// Right answers.
        right: Vec<usize>,
        /// Wrong answers.
        wrong: Vec<usize>,
        /// Whether it is the version of the prompt that has one right answer.
        reference: bool,
    },
}

/// A benchmark as it was read.
#[derive(Clone, Debug, Default)]
pub struct Bench {
    /// In the order in which their prompts came.
    pub questions: Vec<Question>,
    /// What became of its records.
    pub account: Account,
}

/// What became of every record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Records that were read.
    pub records: u64,
    /// Judgements that were made of them.
    pub tasks: u64,
    /// Distinct prompts.
    pub prompts: u64,
    /// Answers that a reward is needed for.
    pub answers: u64,
    /// Questions with a reference.
    pub references: u64,
    /// Of what was not judged: why, how often, and where first.
    pub aside: BTreeMap<String, Aside>,
}

/// What was set aside for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aside {
    /// How often.
    pub count: u64,
    /// Where first: `FILE line 3`.
    pub first: String,
}

/// Collects tasks into questions.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    questions: Vec<Question>,
    /// Of each question, by prompt and reference.
    known: AHashMap<(String, Option<String>), usize>,
    clusters: AHashMap<String, u32>,
    account: Account,
}

impl Builder {
    pub(crate) fn count_record(&mut self) {
        self.account.records += 1;
    }

    /// Counts something that can't be judged.
    pub(crate) fn set_aside(&mut self, reason: &str, place: &str) {
        let first = || Aside {
            count: 0,
            first: place.to_owned(),
        };
        let entry = self.account.aside.entry(reason.to_owned());
        entry.or_insert_with(first).count += 1;
    }

    /// The question of a prompt and reference.
    pub(crate) fn question(&mut self, prompt: &str, reference: Option<&str>) -> usize {
        let key = (prompt.to_owned(), reference.map(str::to_owned));
        let questions = &mut self.questions;
        *self.known.entry(key).or_insert_with(|| {
            questions.push(Question {
                prompt: prompt.to_owned(),
                reference: reference.map(str::to_owned),
                answers: Vec::new(),
                tasks: Vec::new(),
            });
            questions.len() - 1
        })
    }

    /// The number of an answer among those of its question.
    pub(crate) fn answer(&mut self, question: usize, text: &str) -> usize {
        let answers = &mut self.questions[question].answers;
        let known = answers.iter().position(|answer| answer == text);
        known.unwrap_or_else(|| {
            answers.push(text.to_owned());
            answers.len() - 1
        })
    }

    /// Adds a task whose cluster is its prompt.
    pub(crate) fn task(&mut self, question: usize, category: String, kind: Kind) {
        let cluster = format!("prompt {}", self.questions[question].prompt);
        self.task_of(question, category, kind, cluster);
    }

    /// Adds a task of a named cluster.
    pub(crate) fn task_of(
        &mut self,
        question: usize,
        category: String,
        kind: Kind,
        cluster: String,
    ) {
        let next = self.clusters.len() as u32;
        let cluster = *self.clusters.entry(cluster).or_insert(next);
        self.questions[question].tasks.push(Task {
            kind,
            category,
            cluster,
        });
    }

    pub(crate) fn finish(self) -> Bench {
        let mut account = self.account;
        let asked = |question: &Question| !question.tasks.is_empty();
        let questions: Vec<Question> = self.questions.into_iter().filter(asked).collect();
        let sum = |of: fn(&Question) -> usize| questions.iter().map(of).sum::<usize>() as u64;
        account.tasks = sum(|question| question.tasks.len());
        account.answers = sum(|question| question.answers.len());
        account.references = sum(|question| usize::from(question.reference.is_some()));
        let prompts = questions.iter().map(|question| question.prompt.as_str());
        account.prompts = prompts.collect::<ahash::AHashSet<&str>>().len() as u64;
        Bench { questions, account }
    }
}
