//! What became of every record of an import, and of every answer in them: nothing is lost in silence.

use std::{fmt, ops::AddAssign};

use serde::{Deserialize, Serialize};

use crate::normal::Changes;

/// The account of one input.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputAccount {
    /// The input.
    pub name: String,
    /// What became of it.
    pub account: Account,
}

/// What became of records and answers. Every record is used, failed or bad; every answer of a used record
/// is null, blank, a repeat, similar to another, or kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Records that were read.
    pub records: u64,
    /// Records that gave answers.
    pub used: u64,
    /// Outputs of requests that failed.
    pub failed: u64,
    /// Records that were left out because they could not be parsed.
    pub malformed: u64,
    /// Records that were left out because a column was null, absent or of another type.
    pub unmapped: u64,
    /// Answers in the used records.
    pub answers: u64,
    /// Answers that are null.
    pub null: u64,
    /// Answers, or answers to prompts, of white space alone.
    pub blank: u64,
    /// Answers that repeat one of the same policy to the same prompt.
    pub repeats: u64,
    /// Answers that resemble one of the same policy to the same prompt, where that was asked for.
    pub similar: u64,
    /// Labelled answers that no pair came of: equal texts, equal scores, or one answer alone.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unpaired: u64,
    /// Answers in the corpus; of labelled records their pairs, or the ranked answers that pairs are made of.
    pub kept: u64,
    /// Values that no JSON may hold (NaN, halves of surrogate pairs) and that were replaced.
    pub repaired: u64,
    /// What was written in another form.
    pub changes: Changes,
}

impl Account {
    /// Whether every record and every answer is accounted for.
    pub fn is_balanced(&self) -> bool {
        let records = self.used + self.failed + self.malformed + self.unmapped;
        let left_out = self.null + self.blank + self.repeats + self.similar + self.unpaired;
        let answers = left_out + self.kept;
        self.records == records && self.answers == answers
    }

    /// Records that were left out as `--bad-rows` says.
    pub fn bad(&self) -> u64 {
        self.malformed + self.unmapped
    }
}

impl AddAssign for Account {
    fn add_assign(&mut self, other: Self) {
        // Named one by one: a new count has to be added up too.
        let Self {
            records,
            used,
            failed,
            malformed,
            unmapped,
            answers,
            null,
            blank,
            repeats,
            similar,
            unpaired,
            kept,
            repaired,
            changes,
        } = other;
        self.records += records;
        self.used += used;
        self.failed += failed;
        self.malformed += malformed;
        self.unmapped += unmapped;
        self.answers += answers;
        self.null += null;
        self.blank += blank;
        self.repeats += repeats;
        self.similar += similar;
        self.unpaired += unpaired;
        self.kept += kept;
        self.repaired += repaired;
        self.changes += changes;
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Files that are listed one by one.
const MOST_LISTED: usize = 20;

/// Accounts as lines of text: a file each, and all of them together.
#[derive(Debug, Clone, Copy)]
pub struct Accounts<'a>(pub &'a [InputAccount]);

impl Accounts<'_> {
    /// All of them together.
    pub fn total(&self) -> Account {
        let mut total = Account::default();
        for input in self.0 {
            total += input.account;
        }
        total
    }
}

impl fmt::Display for Accounts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [input] = self.0 {
            return write!(
                f,
                "{}",
                Line {
                    name: &input.name,
                    account: input.account
                }
            );
        }
        for input in self.0.iter().take(MOST_LISTED) {
            write!(
                f,
                "{}",
                Line {
                    name: &input.name,
                    account: input.account
                }
            )?;
        }
        if self.0.len() > MOST_LISTED {
            writeln!(f, "... and {} more files", self.0.len() - MOST_LISTED)?;
        }
        write!(
            f,
            "{}",
            Line {
                name: "all files",
                account: self.total()
            }
        )
    }
}

struct Line<'a> {
    name: &'a str,
    account: Account,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Account {
            records,
            used: _,
            failed,
            malformed,
            unmapped,
            answers,
            null,
            blank,
            repeats,
            similar,
            unpaired,
            kept,
            repaired,
            changes,
        } = self.account;
        let mut parts = Vec::new();
        let mut count = |number: u64, what: &str| {
            if number > 0 {
                parts.push(format!("{number} {what}"));
            }
        };
        count(failed, "failed requests");
        count(malformed, "malformed records");
        count(unmapped, "records without a needed value");
        count(null, "null answers");
        count(blank, "blank");
        count(repeats, "repeats");
        count(similar, "near copies");
        count(unpaired, "of no preference");
        count(repaired, "values repaired");
        let rest = match parts.is_empty() {
            true => String::new(),
            false => format!("; {}", parts.join(", ")),
        };
        writeln!(
            f,
            "{}: {records} records, {answers} answers, {kept} kept{rest}",
            self.name
        )?;
        match changes.is_none() {
            true => Ok(()),
            false => writeln!(f, "  written in one form: {changes}"),
        }
    }
}
