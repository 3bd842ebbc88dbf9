//! Records of other files, found by a key: what was asked in a batch, the questions of a benchmark.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::compiled::{JOINED, Mapping};
use super::row::{Outcome, Problem};

/// The records of the joined files by their keys. In memory: prompts are few beside their answers.
#[derive(Debug, Default)]
pub(crate) struct Joined(HashMap<String, Vec<Value>>);

impl Joined {
    /// Takes a record of a joined file.
    pub(crate) fn add(
        &mut self,
        mapping: &Mapping,
        fields: Map<String, Value>,
    ) -> Result<(), Problem> {
        if let Some(key) = mapping.joined_key(&fields)? {
            let known = self.0.entry(key).or_default();
            let record = Value::Object(fields);
            if !known.contains(&record) {
                known.push(record);
            }
        }
        Ok(())
    }

    /// What a record holds, with what is joined to it.
    pub(crate) fn rows(
        &self,
        mapping: &Mapping,
        mut fields: Map<String, Value>,
        of_path: Option<&str>,
    ) -> Result<Outcome, Problem> {
        let Some(join) = &mapping.join else {
            return mapping.rows(&fields, of_path);
        };
        let key = mapping.key(join, &fields)?;
        let own = mapping.policy_in(&fields);
        let candidates = self.0.get(&key).map_or(&[][..], Vec::as_slice);
        let mut found: Vec<Outcome> = Vec::new();
        for candidate in candidates {
            // Several models' batches often have the same keys: an answer belongs to its model's request.
            if candidates.len() > 1 {
                let alone = Map::from_iter([(JOINED.to_owned(), candidate.clone())]);
                match (&own, mapping.policy_in(&alone)) {
                    (Some(own), Some(asked)) if *own != asked => continue,
                    _ => {}
                }
            }
            fields.insert(JOINED.into(), candidate.clone());
            let outcome = mapping.rows(&fields, of_path)?;
            if !found.contains(&outcome) {
                found.push(outcome);
            }
        }
        match found.len() {
            0 => Err(Problem::Unjoined { key }),
            1 => Ok(found.remove(0)),
            _ => Err(Problem::Ambiguous { key }),
        }
    }
}
