//! A record beside the mapping that is used on it.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::answer::{self, answers};
use super::columns::{Column, Failure};
use super::compiled::{DEFAULT_SAMPLE, Mapping, Source, Variant};
use super::row::{
    Problem, Row, SampleLabel, label, listed, prompt, sample_label, with_system, wrong,
};
use crate::assemble::COLUMN_SEPARATOR;
use crate::schema::Prompt;

/// The records that the items of a list are, with the columns beside it.
pub(super) fn items(
    fields: &Map<String, Value>,
    list: &Value,
    column: &Column,
) -> Result<Vec<Map<String, Value>>, Problem> {
    let inner = match list {
        Value::String(text) => super::path::inner_json(text),
        _ => None,
    };
    let list = inner.as_ref().unwrap_or(list);
    let beside = |more: Map<String, Value>| {
        let mut all = fields.clone();
        // The list itself is large, and no item needs it.
        if let Some(root) = column.paths().first() {
            all.remove(root);
        }
        all.extend(more);
        all
    };
    let item = |key: Option<&String>, value: &Value| {
        let mut more = match value {
            Value::Object(fields) => fields.clone(),
            _ => Map::new(),
        };
        more.insert("item".into(), value.clone());
        more.extend(key.map(|key| ("key".to_owned(), Value::from(key.clone()))));
        beside(more)
    };
    match list {
        Value::Array(items) => Ok(items.iter().map(|value| item(None, value)).collect()),
        Value::Object(fields) => Ok(fields
            .iter()
            .map(|(key, value)| item(Some(key), value))
            .collect()),
        other => Err(wrong(
            column,
            "a list of records, or an object of them, is needed",
            other,
        )),
    }
}

/// A record beside the mapping that is used on it.
#[derive(Clone, Copy)]
pub(super) struct Record<'a> {
    pub(super) fields: &'a Map<String, Value>,
    pub(super) mapping: &'a Mapping,
}

/// An answer's text; `None` where it is null.
pub(super) type Answer = Option<String>;

/// One policy's answers in a record.
struct Cell<'a> {
    policy: Vec<String>,
    response: Cow<'a, Value>,
    column: Column,
}

impl<'a> Record<'a> {
    /// The first value of a column that isn't null, in the record and then in its scopes.
    pub(super) fn get(self, source: &Source) -> Result<Cow<'a, Value>, Problem> {
        let mut null = false;
        let mut found = |value: Option<Cow<'a, Value>>| {
            null |= matches!(value.as_deref(), Some(Value::Null));
            value.filter(|value| !value.is_null())
        };
        for path in &source.paths {
            if let Some(value) = found(path.find(self.fields)) {
                return Ok(value);
            }
        }
        for scope in self.mapping.scopes.iter().flat_map(|scope| &scope.paths) {
            let Some(scope) = scope.find(self.fields) else {
                continue;
            };
            for path in &source.paths {
                let within = match &scope {
                    Cow::Borrowed(scope) => path.find_in(scope),
                    Cow::Owned(scope) => path.find_in(scope).map(|v| Cow::Owned(v.into_owned())),
                };
                if let Some(value) = found(within) {
                    return Ok(value);
                }
            }
        }
        let column = source.column.to_string();
        match null {
            true => Err(Problem::Null { column }),
            false => Err(Problem::Missing {
                column,
                available: listed(self.fields),
            }),
        }
    }

    fn failed(self, source: &Source, failure: &Failure) -> bool {
        match self.get(source) {
            Err(Problem::Null { .. }) => failure.if_null,
            Err(_) => false,
            Ok(value) if !failure.unless.is_empty() => {
                label(&failure.column, &value).is_ok_and(|held| !failure.unless.contains(&held))
            }
            Ok(_) => !failure.if_null,
        }
    }

    /// The names in some columns.
    fn labels(self, sources: &[Source]) -> Result<Vec<String>, Problem> {
        let names = sources.iter();
        names
            .map(|source| label(&source.column, &*self.get(source)?))
            .collect()
    }

    /// Whether it holds a failure instead of an answer.
    pub(super) fn has_failed(self) -> bool {
        let mut failures = self.mapping.failed.iter();
        failures.any(|(source, failure)| self.failed(source, failure))
    }

    /// What is asked; and the answer behind it, where `answer` names the same conversation.
    pub(super) fn asked(
        self,
        answer: Option<&Source>,
    ) -> Result<(Prompt, Option<Answer>), Problem> {
        let mapping = self.mapping;
        let value = self.get(&mapping.prompt)?;
        let mut split = None;
        let same_column = answer.is_some_and(|answer| answer.column == mapping.prompt.column);
        let mut prompt = match same_column {
            true => {
                let halves = answer::split(&value, mapping.reasoning);
                let expected = "a list of messages, of which the last are the answer, is needed";
                let halves =
                    halves.ok_or_else(|| wrong(&mapping.prompt.column, expected, &value))?;
                split = Some(halves.1);
                halves.0
            }
            false => prompt(&mapping.prompt.column, &value)?,
        };
        if let Some(system) = &mapping.system {
            match self.get(system) {
                Ok(text) => with_system(&mut prompt, &system.column, &text)?,
                // Not every record needs one.
                Err(Problem::Null { .. } | Problem::Missing { .. }) => {}
                Err(other) => return Err(other),
            }
        }
        Ok((prompt, split))
    }

    /// What the record calls its prompt.
    pub(super) fn prompt_id(self) -> Result<Option<String>, Problem> {
        let prompt_id = self.mapping.prompt_id.as_ref();
        prompt_id
            .map(|source| label(&source.column, &*self.get(source)?))
            .transpose()
    }

    /// A row for every answer; for every preference in labelled records.
    pub(super) fn rows(self, of_path: Option<&str>) -> Result<Vec<Row>, Problem> {
        let mapping = self.mapping;
        if let Some(labelled) = &mapping.labelled {
            return labelled.row(self).map(|row| vec![row]);
        }
        let (prompt, split) = self.asked(mapping.response.as_ref())?;
        let prompt_id = self.prompt_id()?;
        let sample = self.sample()?;
        let meta = self.meta();
        let mut rows = Vec::new();
        for cell in self.cells(of_path)? {
            let found = match &split {
                Some(answer) => vec![answer.clone()],
                None => answers(&cell.response, &prompt, mapping.reasoning)
                    .map_err(|why| wrong(&cell.column, why.sentence(), &cell.response))?,
            };
            let policy = cell.policy.join(COLUMN_SEPARATOR);
            let alone = found.len() == 1;
            rows.extend(found.into_iter().map(|response| Row {
                prompt: prompt.clone(),
                prompt_id: prompt_id.clone(),
                policy: policy.clone(),
                // Several are told apart by their order.
                sample: match alone {
                    true => sample.clone(),
                    false => SampleLabel::Order,
                },
                response,
                meta: meta.clone(),
            }));
        }
        Ok(rows)
    }

    fn sample(self) -> Result<SampleLabel, Problem> {
        let column = Column::from(DEFAULT_SAMPLE);
        match &self.mapping.sample {
            Some(source) => sample_label(&source.column, &*self.get(source)?),
            None => match self.fields.get(DEFAULT_SAMPLE) {
                None | Some(Value::Null) => Ok(SampleLabel::Order),
                Some(value) => sample_label(&column, value),
            },
        }
    }

    pub(super) fn meta(self) -> Option<String> {
        let names = &self.mapping.meta;
        let kept = names.iter();
        let kept = kept.filter_map(|name| Some((name.clone(), self.fields.get(name)?.clone())));
        (!names.is_empty()).then(|| Value::Object(kept.collect()).to_string())
    }

    /// The policies that answer in this record, with their answers.
    fn cells(self, of_path: Option<&str>) -> Result<Vec<Cell<'a>>, Problem> {
        let mapping = self.mapping;
        let shared = |own: Vec<String>| -> Result<Vec<String>, Problem> {
            let mut parts = own;
            parts.extend(self.labels(&mapping.policy)?);
            parts.extend(mapping.policy_name.clone());
            parts.extend(of_path.map(str::to_owned));
            Ok(parts)
        };
        let mut cells = Vec::new();
        for (name, column) in self.policy_columns() {
            let response = self.fields.get(&column).filter(|value| !value.is_null());
            cells.push(Cell {
                policy: shared(vec![name])?,
                // Not every policy answered every prompt: counted as no answer.
                response: Cow::Borrowed(response.unwrap_or(&Value::Null)),
                column: Column::from(column.as_str()),
            });
        }
        for variant in &mapping.answers {
            self.variant(variant, &shared, &mut cells)?;
        }
        if let (true, Some(response)) = (cells.is_empty(), &mapping.response) {
            cells.push(Cell {
                policy: shared(vec![])?,
                response: self.get(response)?,
                column: response.column.clone(),
            });
        }
        Ok(cells)
    }

    /// Appends the cells of one of several answers.
    fn variant(
        self,
        variant: &Variant,
        shared: &dyn Fn(Vec<String>) -> Result<Vec<String>, Problem>,
        cells: &mut Vec<Cell<'a>>,
    ) -> Result<(), Problem> {
        let Some(response) = variant.response.as_ref().or(self.mapping.response.as_ref()) else {
            return Ok(());
        };
        let Some(each) = &variant.each else {
            // A record may have fewer answers than the recipe knows.
            if let Err(Problem::Missing { .. }) = self.get(response) {
                return Ok(());
            }
            cells.push(Cell {
                policy: shared(self.labels(&variant.policy)?)?,
                response: self.get(response)?,
                column: response.column.clone(),
            });
            return Ok(());
        };
        let list = match self.get(each) {
            Ok(list) => list,
            Err(Problem::Missing { .. }) => return Ok(()),
            Err(other) => return Err(other),
        };
        for fields in items(self.fields, &list, &each.column)? {
            let item = Record {
                fields: &fields,
                ..self
            };
            cells.push(Cell {
                policy: shared(item.labels(&variant.policy)?)?,
                response: Cow::Owned(item.get(response)?.into_owned()),
                column: response.column.clone(),
            });
        }
        Ok(())
    }

    /// Names and columns of policies that have a column each.
    fn policy_columns(self) -> Vec<(String, String)> {
        let named = |column: &String| (column.clone(), column.clone());
        let mut found = Vec::new();
        for given in &self.mapping.policy_columns {
            match given.split_once("{policy}") {
                None => found.push(named(given)),
                Some((before, after)) => found.extend(self.fields.keys().filter_map(|column| {
                    let name = column.strip_prefix(before)?.strip_suffix(after)?;
                    (!name.is_empty()).then(|| (name.to_owned(), column.clone()))
                })),
            }
        }
        found
    }
}
