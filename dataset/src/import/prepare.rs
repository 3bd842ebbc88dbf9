//! Before the reading: which inputs there are, and which columns hold what.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value};

use super::read::{self, Input, Skipped, Wanted};
use super::{Error, ImportOptions};
use crate::labelled::Label;
use crate::mapping::detect::{detect, detect_labelled, is_request, recipe_of, usual_columns};
use crate::mapping::join::Joined;
use crate::mapping::{self, ColumnMapping, Mapping, MappingRecipe, Outcome};
use crate::schema::Trajectory;

/// Records at the start of an input that are looked at.
const LOOKED_AT: usize = 200;
/// Inputs of which some are looked at.
const INPUTS_LOOKED_AT: usize = 3;
/// Trajectories that are shown.
const SHOWN: usize = 3;

/// An import that knows what to read and how, and has read none of it yet.
#[derive(Debug)]
pub struct Prepared {
    pub(super) options: ImportOptions,
    pub(super) inputs: Vec<Input>,
    /// Files that are joined to them, and their records by their keys.
    pub(super) joined: Vec<Input>,
    pub(super) joined_records: Option<Joined>,
    pub(super) mapping: Mapping,
    pub(super) wanted: Wanted,
    detection: Detection,
    /// What was copied to be read twice; removed with this.
    _copies: tempfile::TempDir,
}

/// What was found in the inputs before they are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detection {
    /// Files to read.
    pub inputs: Vec<String>,
    /// Files beside them that hold no data, and why.
    pub skipped: Vec<String>,
    /// What was chosen for the columns, and why; nothing where all were given.
    pub why: Vec<String>,
    /// Which columns hold what, complete.
    pub columns: ColumnMapping,
    /// The first few trajectories.
    pub rows: Vec<Trajectory>,
    /// The first few labels, in place of trajectories, where records are labelled.
    pub labels: Vec<LabelView>,
    /// Why the first records give none, if they give none.
    pub trouble: Option<String>,
}

/// A label as it was found: its texts under their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelView {
    /// Its subset.
    pub subset: String,
    /// The prompt.
    pub prompt: String,
    /// Names and texts: "reference", "chosen", "rejected"; or "response" and "score".
    pub texts: Vec<(&'static str, String)>,
}

impl LabelView {
    fn of(row: mapping::Row) -> Option<Self> {
        let texts = match Label::from_json(&row.response?).ok()? {
            Label::Pair {
                reference,
                chosen,
                rejected,
            } => {
                let reference = reference.map(|text| ("reference", text));
                let pair = [("chosen", chosen), ("rejected", rejected)];
                reference.into_iter().chain(pair).collect()
            }
            Label::Scored { response, score } => {
                vec![("response", response), ("score", score.to_string())]
            }
        };
        Some(Self {
            subset: row.policy,
            prompt: row.prompt.text(),
            texts,
        })
    }
}

impl Prepared {
    /// Finds the inputs and looks at their first records. Blocks its thread.
    ///
    /// # Errors
    /// Inputs that are not there or can't be read; columns that are neither given nor found.
    pub fn new(mut options: ImportOptions) -> Result<Self, Error> {
        if options.inputs.is_empty() {
            return Err(Error::NoInput);
        }
        if let Some(flag) = options.of_labels().filter(|_| !options.labelled) {
            return Err(Error::Unlabelled(flag));
        }
        let copies = copies(options.temp_dir.as_deref())?;
        let found = read::expand(&options.inputs, copies.path())?;
        let joined = read::expand(&options.join, copies.path())?;
        let first = first_records(&found.inputs)?;
        if first.records.is_empty() {
            let inputs: Vec<&str> = found.inputs.iter().map(|input| &*input.shown).collect();
            return Err(Error::NoRecords {
                inputs: inputs.join(", "),
            });
        }
        let recipe = options
            .recipe
            .as_deref()
            .map(MappingRecipe::load)
            .transpose();
        let recipe = recipe.map_err(Error::Recipe)?;
        if recipe.as_ref().is_some_and(|recipe| recipe.labelled) && !options.labelled {
            return Err(Error::Unlabelled("this --recipe"));
        }
        let (columns, why, needs) = chosen(&options, recipe, &first)?;
        let mut columns = columns.split_policy(&first.columns);
        // What a row says of its prompt's cluster is kept with it.
        columns.meta.extend(
            options
                .cluster
                .clone()
                .filter(|name| !columns.meta.contains(name)),
        );
        let available = || first.columns.join(", ");
        let mapping = match options.labelled {
            true => Mapping::labelled(&columns),
            false => Mapping::new(&columns),
        };
        let mapping = mapping.map_err(|what| Error::Mapping {
            available: available(),
            what,
        })?;
        if let Some(what) = needs.filter(|_| joined.inputs.is_empty() && mapping.joins()) {
            return Err(Error::NeedsJoin { what });
        }
        if !joined.inputs.is_empty() && !mapping.joins() {
            return Err(Error::JoinKey {
                available: available(),
            });
        }
        let wanted = match mapping.roots() {
            Some(roots) => Wanted::Columns(roots),
            None => Wanted::All,
        };
        options.columns = columns.clone();
        let named = |skipped: &Skipped| format!("{} ({})", skipped.name, skipped.reason);
        let mut prepared = Self {
            detection: Detection {
                inputs: found
                    .inputs
                    .iter()
                    .map(|input| input.shown.clone())
                    .collect(),
                skipped: found
                    .skipped
                    .iter()
                    .chain(&joined.skipped)
                    .map(named)
                    .collect(),
                why,
                columns,
                rows: vec![],
                labels: vec![],
                trouble: None,
            },
            options,
            inputs: found.inputs,
            joined_records: read_joined(&joined.inputs, &mapping)?,
            joined: joined.inputs,
            mapping,
            wanted,
            _copies: copies,
        };
        prepared.show(&first);
        Ok(prepared)
    }

    /// What was found.
    pub fn detection(&self) -> &Detection {
        &self.detection
    }

    /// The first trajectories, as the mapping gives them.
    fn show(&mut self, first: &First) {
        for (record, path) in first.records.iter().zip(&first.paths) {
            let of_path = self.mapping.policy_of_path(path);
            let outcome = of_path.and_then(|of_path| match &self.joined_records {
                Some(joined) => joined.rows(&self.mapping, record.clone(), of_path.as_deref()),
                None => self.mapping.rows(record, of_path.as_deref()),
            });
            match outcome {
                Ok(Outcome::Failed) => {}
                Ok(Outcome::Rows(rows)) if self.options.labelled => {
                    let labels = rows.into_iter().filter_map(LabelView::of);
                    self.detection.labels.extend(labels);
                }
                Ok(Outcome::Rows(rows)) => {
                    self.detection
                        .rows
                        .extend(rows.into_iter().filter_map(|row| {
                            Some(Trajectory {
                                prompt_id: row.prompt_id.unwrap_or_default(),
                                prompt: row.prompt,
                                policy: row.policy,
                                sample: 0,
                                response: row.response?,
                                meta: None,
                            })
                        }));
                }
                Err(problem) => {
                    let trouble = || format!("{path}: {problem}");
                    self.detection.trouble.get_or_insert_with(trouble);
                }
            }
            if self.detection.rows.len().max(self.detection.labels.len()) >= SHOWN {
                break;
            }
        }
        self.detection.rows.truncate(SHOWN);
        self.detection.labels.truncate(SHOWN);
        if !self.detection.rows.is_empty() || !self.detection.labels.is_empty() {
            self.detection.trouble = None;
        }
    }
}

/// Which columns hold what, by the recipe that is given or the one that fits; why; and what has to be joined.
fn chosen(
    options: &ImportOptions,
    recipe: Option<MappingRecipe>,
    first: &First,
) -> Result<(ColumnMapping, Vec<String>, Option<String>), Error> {
    let given = &options.columns;
    if let Some(recipe) = recipe {
        return Ok((given.clone().or(&recipe.columns), vec![], recipe.join));
    }
    let detected = match options.labelled {
        true => detect_labelled(&first.records, given),
        false => {
            first.check_kinds()?;
            detect(&first.records, given)
        }
    };
    Ok((detected.columns, detected.why, detected.join))
}

/// The records of the joined files by their keys.
fn read_joined(inputs: &[Input], mapping: &Mapping) -> Result<Option<Joined>, Error> {
    if inputs.is_empty() {
        return Ok(None);
    }
    let mut all = Joined::default();
    for input in inputs {
        read::read(input, &Wanted::All, &mut |batch| {
            for record in batch.records {
                let refused = |reason: String| Error::Joined {
                    path: input.shown.clone(),
                    place: record.place().to_string(),
                    reason,
                };
                let fields = record
                    .fields(&Wanted::All)
                    .map_err(|e| refused(e.to_string()))?;
                let added = all.add(mapping, fields.values);
                added.map_err(|problem| refused(problem.to_string()))?;
            }
            Ok(true)
        })?;
    }
    Ok(Some(all))
}

pub(super) fn copies(temp_dir: Option<&Path>) -> Result<tempfile::TempDir, Error> {
    let parent = match temp_dir {
        Some(folder) => folder.to_owned(),
        None => std::env::temp_dir(),
    };
    let made = tempfile::Builder::new()
        .prefix("polestar-read-")
        .tempdir_in(&parent);
    made.map_err(|source| Error::TempDir {
        folder: parent,
        given: temp_dir.is_some(),
        source,
    })
}

/// The first records of some inputs.
struct First {
    records: Vec<Map<String, Value>>,
    /// The input of each.
    paths: Vec<String>,
    /// All names of columns.
    columns: Vec<String>,
}

impl First {
    /// Refuses inputs of which some are the dumps of one program and some of another.
    fn check_kinds(&self) -> Result<(), Error> {
        let mut kinds: Vec<(Option<&str>, &str)> = Vec::new();
        for (record, path) in self.records.iter().zip(&self.paths) {
            if is_request(record) {
                let input = path.clone();
                return Err(Error::Requests { input });
            }
            let kind = recipe_of(record);
            if !kinds.iter().any(|(known, _)| *known == kind) {
                kinds.push((kind, path));
            }
        }
        // Records that fit no recipe beside some that do may be a few odd ones.
        kinds.retain(|(kind, _)| kind.is_some());
        if kinds.len() < 2 {
            return Ok(());
        }
        let kinds = kinds
            .iter()
            .map(|(kind, path)| format!("{path} ({})", kind.unwrap_or_default()));
        Err(Error::Mixed {
            kinds: kinds.collect::<Vec<_>>().join(", "),
        })
    }
}

fn first_records(inputs: &[Input]) -> Result<First, Error> {
    let mut first = First {
        records: vec![],
        paths: vec![],
        columns: vec![],
    };
    let usual = Wanted::Columns(usual_columns());
    let mut names = BTreeSet::new();
    for input in inputs.iter().take(INPUTS_LOOKED_AT) {
        let mut left = LOOKED_AT;
        read::read(input, &Wanted::All, &mut |batch| {
            for record in batch.records.into_iter().take(left) {
                left -= 1;
                // A column that nobody needs may be what can't be parsed. What is malformed in others is
                // reported where it is read for good.
                let fields = record
                    .fields(&Wanted::All)
                    .or_else(|_| record.fields(&usual));
                if let Ok(fields) = fields {
                    let new = fields
                        .columns
                        .iter()
                        .filter(|name| names.insert((*name).clone()));
                    first.columns.extend(new.cloned());
                    first.records.push(fields.values);
                    first.paths.push(input.shown.clone());
                }
            }
            Ok(left > 0)
        })?;
    }
    Ok(first)
}
