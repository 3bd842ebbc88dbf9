//! The benchmarks' own files, record by record.
//!
//! A format is known by the keys of a record, or named by the user. Every record becomes tasks, or is set aside and
//! counted with the reason; one that isn't what its format says is an error with its place.

mod field;
mod judge_bench;
mod pairs;
mod ppe;
mod reward_bench2;
mod rm_bench;
mod rmb;

use crate::{
    judge::TieRule,
    question::{Bench, Builder},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{fmt, str::FromStr};

pub use field::Wrong;
pub(crate) use rm_bench::DIFFICULTIES;

/// Whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Lines of `prompt`, `chosen`, `rejected` and, where there are, `reference` and `category` or `subset`.
    Pairs,
    /// RMB: pairs and best-of-N lists.
    Rmb,
    /// RMB's pairs as POLAR's paper asks them: of three ranked answers the best is the reference.
    RmbRanked,
    /// RM-Bench: three styles of right and of wrong answers.
    RmBench,
    /// JudgeBench.
    JudgeBench,
    /// RewardBench 2: best of four, and ties.
    #[serde(rename = "rewardbench2")]
    RewardBench2,
    /// PPE: human preferences, and best-of-K lists whose answers are right or wrong.
    Ppe,
}

/// All formats, with their names.
const FORMATS: [(Format, &str); 7] = [
    (Format::Pairs, "pairs"),
    (Format::Rmb, "rmb"),
    (Format::RmbRanked, "rmb-ranked"),
    (Format::RmBench, "rm-bench"),
    (Format::JudgeBench, "judge-bench"),
    (Format::RewardBench2, "rewardbench2"),
    (Format::Ppe, "ppe"),
];

/// What is averaged to one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overall {
    /// All tasks alike.
    Micro,
    /// All tasks below one category alike.
    MicroOf(&'static str),
    /// Categories of this depth alike.
    Macro(usize),
}

impl Format {
    /// Names of all formats.
    pub fn names() -> impl Iterator<Item = &'static str> {
        FORMATS.iter().map(|(_, name)| *name)
    }

    /// The format of a record with these keys; none if no benchmark has such.
    pub fn detect(fields: &Map<String, Value>) -> Option<Format> {
        let has = |keys: &[&str]| keys.iter().all(|key| fields.contains_key(*key));
        let is_list = |key: &str| {
            let list = fields.get(key).and_then(Value::as_array);
            list.is_some_and(|list| list.iter().all(Value::is_string))
        };
        if has(&["conversation_input", "chosen", "reject"])
            || has(&["conversation_input", "bon_best", "loser_list"])
        {
            Some(Format::Rmb)
        } else if has(&["question", "response_A", "response_B", "label"]) {
            Some(Format::JudgeBench)
        } else if has(&["prompt", "chosen", "rejected", "num_correct"]) {
            Some(Format::RewardBench2)
        } else if has(&["prompt", "response_1", "response_2", "winner"])
            || has(&["prompt", "response_1", "scores"])
        {
            Some(Format::Ppe)
        } else if has(&["prompt", "chosen", "rejected"]) {
            let styles = is_list("chosen") && is_list("rejected");
            Some(if styles {
                Format::RmBench
            } else {
                Format::Pairs
            })
        } else {
            None
        }
    }

    /// What equal rewards are worth in it.
    pub fn ties(self) -> TieRule {
        match self {
            // Their scripts compare with `>`.
            Format::Rmb | Format::RmbRanked | Format::RmBench | Format::JudgeBench => {
                TieRule::Wrong
            }
            Format::RewardBench2 | Format::Pairs | Format::Ppe => TieRule::Shared,
        }
    }

    pub(crate) fn overall(self) -> Overall {
        match self {
            Format::Pairs | Format::JudgeBench | Format::RmbRanked => Overall::Micro,
            Format::Rmb => Overall::Macro(2),
            Format::RmBench | Format::RewardBench2 => Overall::Macro(1),
            Format::Ppe => Overall::MicroOf(ppe::PAIRS),
        }
    }

    /// How its one number comes about, in words.
    pub fn averaging(self) -> &'static str {
        match self {
            Format::Pairs | Format::JudgeBench | Format::RmbRanked => {
                "all pairs alike (micro average)"
            }
            Format::Rmb => "mean of helpfulness and harmlessness, pairs and best-of-N",
            Format::RmBench => "mean of the domains",
            Format::RewardBench2 => "mean of the subsets",
            Format::Ppe => "all pairs alike (micro average), best-of-K lists apart",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut known = FORMATS.iter().filter(|(format, _)| format == self);
        f.write_str(known.next().map_or("?", |(_, name)| name))
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Format, String> {
        let mut known = FORMATS.iter().filter(|(_, known)| *known == name);
        let known = known.next().map(|(format, _)| *format);
        known.ok_or_else(|| {
            let all: Vec<&str> = Format::names().collect();
            format!("no format is called '{name}'; there are {}", all.join(", "))
        })
    }
}

/// A record of a file.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The file's name, without where it lies.
    pub file: &'a str,
    /// What errors call the place: `data/judge.jsonl line 3`.
    pub place: &'a str,
    /// Its keys.
    pub fields: &'a Map<String, Value>,
}

/// A record that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Its keys are of no benchmark.
    #[error(
        "{place} is of no known benchmark: it has the keys {keys}; name the format with --format ({}), or give each record \
         prompt, chosen and rejected",
        Format::names().collect::<Vec<_>>().join(", ")
    )]
    Unknown {
        /// Which record.
        place: String,
        /// What it has.
        keys: String,
    },
    /// It isn't what its format says.
    #[error("{place} is not a record of {format}: {wrong}")]
    Record {
        /// Which record.
        place: String,
        /// Whose it should be.
        format: Format,
        /// What is wrong with it.
        wrong: Wrong,
    },
    /// Records of two benchmarks.
    #[error(
        "{place} is of {found}, and the records before it are of {format}; evaluate them as two benchmarks"
    )]
    Mixed {
        /// Which record.
        place: String,
        /// The format of this one.
        found: Format,
        /// That of those before.
        format: Format,
    },
}

/// Reads the records of one benchmark.
#[derive(Debug, Default)]
pub struct Parser {
    format: Option<Format>,
    /// Whether the user said so: then keys decide nothing.
    is_given: bool,
    builder: Builder,
    ranked: rmb::Ranked,
}

impl Parser {
    /// With the format that the user named, or to find it out.
    pub fn new(format: Option<Format>) -> Parser {
        Parser {
            format,
            is_given: format.is_some(),
            ..Parser::default()
        }
    }

    /// Takes the next record.
    ///
    /// # Errors
    /// [`FormatError`], with its place.
    pub fn push(&mut self, record: Record<'_>) -> Result<(), FormatError> {
        let format = self.format_of(record)?;
        self.builder.count_record();
        let builder = &mut self.builder;
        let read = match format {
            Format::Pairs => pairs::read(builder, record),
            Format::Rmb => rmb::read(builder, record),
            Format::RmbRanked => self.ranked.read(builder, record),
            Format::RmBench => rm_bench::read(builder, record),
            Format::JudgeBench => judge_bench::read(builder, record),
            Format::RewardBench2 => reward_bench2::read(builder, record),
            Format::Ppe => ppe::read(builder, record),
        };
        read.map_err(|wrong| FormatError::Record {
            place: record.place.to_owned(),
            format,
            wrong,
        })
    }

    fn format_of(&mut self, record: Record<'_>) -> Result<Format, FormatError> {
        if let (Some(format), true) = (self.format, self.is_given) {
            return Ok(format);
        }
        let found = Format::detect(record.fields).ok_or_else(|| {
            let keys: Vec<&str> = record.fields.keys().map(String::as_str).collect();
            FormatError::Unknown {
                place: record.place.to_owned(),
                keys: keys.join(", "),
            }
        })?;
        match *self.format.get_or_insert(found) {
            format if format == found => Ok(format),
            format => Err(FormatError::Mixed {
                place: record.place.to_owned(),
                found,
                format,
            }),
        }
    }

    /// What was read; no format if there was no record and none was given.
    pub fn finish(mut self) -> (Option<Format>, Bench) {
        if self.format == Some(Format::RmbRanked) {
            self.ranked.finish(&mut self.builder);
        }
        (self.format, self.builder.finish())
    }
}

#[cfg(test)]
mod tests;
