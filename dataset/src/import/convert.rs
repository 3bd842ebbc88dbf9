//! From raw records to rows that are ready to be written: parsed, joined, mapped, written in one form and
//! counted. Pure work, for all cores.

use super::read::{RawRecord, Wanted};
use super::spill::{Encoded, Row};
use crate::account::Account;
use crate::mapping::{self, Mapping, Outcome, Problem, join::Joined};
use crate::normal;

/// Converts the records of one input.
#[derive(Debug)]
pub(super) struct Converter<'a> {
    pub(super) mapping: &'a Mapping,
    pub(super) joined: Option<&'a Joined>,
    pub(super) wanted: &'a Wanted,
    /// Partitions that rows are scattered over.
    pub(super) parts: usize,
    /// The policy that the input's path names.
    pub(super) policy: Option<String>,
}

/// What became of a record.
#[derive(Debug, Default)]
pub(super) struct Converted {
    pub(super) rows: Vec<Encoded>,
    pub(super) account: Account,
    /// Why it is none.
    pub(super) bad: Option<Bad>,
}

/// A record that can't be used.
#[derive(Debug)]
pub(super) struct Bad {
    /// "line 3".
    pub(super) place: String,
    pub(super) reason: String,
    /// As JSON where it is, as it was read elsewhere.
    pub(super) record: Vec<u8>,
}

impl Converter<'_> {
    pub(super) fn convert(&self, record: &RawRecord) -> Converted {
        let mut converted = Converted::default();
        converted.account.records = 1;
        let bad = |reason: String| {
            Some(Bad {
                place: record.place().to_string(),
                reason,
                record: record.to_json(),
            })
        };
        let fields = match record.fields(self.wanted) {
            Ok(fields) => fields,
            Err(malformed) => {
                converted.account.malformed = 1;
                converted.bad = bad(format!("it {malformed}"));
                return converted;
            }
        };
        converted.account.repaired = u64::from(fields.repairs);
        let outcome = match self.joined {
            Some(joined) => joined.rows(self.mapping, fields.values, self.policy.as_deref()),
            None => self.mapping.rows(&fields.values, self.policy.as_deref()),
        };
        let outcome = outcome.and_then(|outcome| match outcome {
            Outcome::Failed => Ok(None),
            Outcome::Rows(rows) => self.written(rows, &mut converted.account).map(Some),
        });
        match outcome {
            Ok(Some(rows)) => {
                converted.account.used = 1;
                converted.rows = rows;
            }
            Ok(None) => converted.account.failed = 1,
            Err(problem) => {
                // Half of a record is none of it.
                converted.account = Account {
                    records: 1,
                    unmapped: 1,
                    ..Account::default()
                };
                converted.bad = bad(in_words(problem, &fields.columns));
            }
        }
        converted
    }

    /// The rows in one form, without those that hold no answer.
    fn written(
        &self,
        rows: Vec<mapping::Row>,
        account: &mut Account,
    ) -> Result<Vec<Encoded>, Problem> {
        let mut kept = Vec::with_capacity(rows.len());
        // Answers of a record mostly share their prompt.
        let mut known: Option<(crate::schema::Prompt, crate::schema::Prompt)> = None;
        for row in rows {
            account.answers += 1;
            let prompt = match &known {
                Some((given, prompt)) if *given == row.prompt => prompt.clone(),
                _ => {
                    let (prompt, changes) = normal::prompt(row.prompt.clone());
                    account.changes += changes;
                    known = Some((row.prompt, prompt.clone()));
                    prompt
                }
            };
            let (policy, changes) = normal::policy(&row.policy);
            account.changes += changes;
            if policy.is_empty() {
                return Err(Problem::BlankPolicy);
            }
            let Some(response) = row.response else {
                account.null += 1;
                continue;
            };
            if response.trim().is_empty() || prompt.text().trim().is_empty() {
                account.blank += 1;
                continue;
            }
            let row = Row {
                prompt,
                prompt_id: row.prompt_id,
                policy,
                sample: row.sample,
                response,
                meta: row.meta,
            };
            kept.push(Encoded::of(&row, self.parts));
        }
        Ok(kept)
    }
}

/// A problem, with all columns that the record has: only those that were wanted were parsed.
fn in_words(problem: Problem, columns: &[String]) -> String {
    match problem {
        Problem::Missing { column, .. } => Problem::Missing {
            column,
            available: columns.join(", "),
        }
        .to_string(),
        other => other.to_string(),
    }
}
