//! Which mapping fits: a recipe whose columns are all there, or columns that are called as such columns
//! mostly are.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::columns::{Column, ColumnMapping};
use super::compiled::Mapping;
use super::labelled::{CHOSEN, REFERENCES, REJECTED, SCORES, SUBSETS};
use super::labels::ReferenceFrom;
use super::path::Path;
use super::recipe::{MappingRecipe, recipes};

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Detected {
    /// Why: a sentence for each thing that was chosen.
    pub why: Vec<String>,
    /// The mapping, as far as it could be found.
    pub columns: ColumnMapping,
    /// What has to be given with --join.
    pub join: Option<String>,
}

/// Usual names of columns, the most telling ones first.
const PROMPTS: [&str; 14] = [
    "prompt",
    "instruction",
    "question",
    "problem",
    "query",
    "input",
    "messages",
    "conversation",
    "conversations",
    "chat",
    "chat_history",
    "user_prompt",
    "prompt_text",
    "context",
];
const POLICIES: [&str; 10] = [
    "policy",
    "model",
    "model_name",
    "model_id",
    "generator",
    "llm_name",
    "llm",
    "engine",
    "model_key",
    "source_model",
];
const RESPONSES: [&str; 20] = [
    "response",
    "responses",
    "output",
    "outputs",
    "completion",
    "completions",
    "answer",
    "answers",
    "generation",
    "generations",
    "generated_text",
    "model_output",
    "model_answer",
    "model_response",
    "prediction",
    "predictions",
    "reply",
    "solution",
    "text",
    "code",
];

/// Share of the first records in which a recipe's columns have to be.
const MOST: f64 = 0.8;

/// What a recipe says, if all columns of one are there.
fn by_recipe(
    records: &[Map<String, Value>],
    given: &ColumnMapping,
    labelled: bool,
) -> Option<Detected> {
    let fits = |recipe: &&MappingRecipe| {
        let all = |fields: &&Map<String, Value>| recipe.detect.iter().all(|c| is_there(c, fields));
        let having = records.iter().filter(all).count();
        recipe.labelled == labelled && having > 0 && having as f64 >= MOST * records.len() as f64
    };
    let recipe = recipes().iter().find(fits)?;
    let columns: Vec<String> = recipe.detect.iter().map(Column::to_string).collect();
    Some(Detected {
        why: vec![format!(
            "recipe {}, for {}: the records have {}",
            recipe.name,
            recipe.about,
            columns.join(", ")
        )],
        columns: given.clone().or(&recipe.columns),
        join: recipe.join.clone(),
    })
}

/// The mapping that fits the first records of labelled data, where `given` says some of it already.
pub(crate) fn detect_labelled(records: &[Map<String, Value>], given: &ColumnMapping) -> Detected {
    let usual = |names: &[&str]| -> Option<Column> {
        let name = names.iter().find(|name| {
            let having = records.iter().filter(|fields| fields.contains_key(**name));
            let having = having.count();
            having > 0 && having as f64 >= MOST * records.len() as f64
        });
        name.map(|name| Column::from(*name))
    };
    let (chosen, rejected) = (usual(&CHOSEN), usual(&REJECTED));
    let by_pairs = given.chosen.is_some() || (chosen.is_some() && rejected.is_some());
    if !by_pairs && let Some(detected) = by_recipe(records, given, true) {
        return detected;
    }
    let mut found = ColumnMapping {
        // Without a prompt of its own a conversation is asked by its first turns.
        prompt: usual(&PROMPTS).or_else(|| chosen.clone()),
        subset: usual(&SUBSETS),
        ..ColumnMapping::default()
    };
    match by_pairs && given.score.is_none() {
        true => {
            let reference = usual(&REFERENCES);
            found.reference = reference.map(ReferenceFrom::Column);
            (found.chosen, found.rejected) = (chosen, rejected);
        }
        false => {
            found.response = usual(&RESPONSES);
            found.score = usual(&SCORES);
        }
    }
    let told = [
        ("prompt", &found.prompt, &given.prompt, "prompt"),
        ("chosen answer", &found.chosen, &given.chosen, "chosen"),
        (
            "rejected answer",
            &found.rejected,
            &given.rejected,
            "rejected",
        ),
        ("subset", &found.subset, &given.subset, ""),
        ("score", &found.score, &given.score, ""),
    ];
    let mut why: Vec<String> = Vec::new();
    for (what, found, given, usual) in told {
        if let (Some(column), None) = (found, given)
            && !column.is(usual)
        {
            why.push(format!("the column {column} as the {what}"));
        }
    }
    if let (Some(from), None) = (&found.reference, &given.reference) {
        why.push(format!("the column {from} as the reference"));
    }
    Detected {
        why,
        columns: given.clone().or(&found),
        join: None,
    }
}

/// The mapping that fits the first records of a dump, where `given` says some of it already.
pub(crate) fn detect(records: &[Map<String, Value>], given: &ColumnMapping) -> Detected {
    if let Some(detected) = by_recipe(records, given, false) {
        return detected;
    }
    let mut found = ColumnMapping::default();
    let mut why = Vec::new();
    let mut choose = |what: &str, names: &[&str], taken: &[&str]| {
        let column = names.iter().find(|name| {
            let having = records
                .iter()
                .filter(|fields| fields.contains_key(**name))
                .count();
            having as f64 >= MOST * records.len() as f64 && having > 0 && !taken.contains(name)
        });
        column.map(|name| {
            if *name != names[0] {
                why.push(format!("the column {name} as the {what}"));
            }
            Column::from(*name)
        })
    };
    if given.prompt.is_none() {
        found.prompt = choose("prompt", &PROMPTS, &[]);
    }
    let prompt = given.prompt.as_ref().or(found.prompt.as_ref());
    let prompt = prompt
        .map(|column| column.paths().to_vec())
        .unwrap_or_default();
    let prompt: Vec<&str> = prompt.iter().map(String::as_str).collect();
    if given.response.is_none() {
        found.response = choose("response", &RESPONSES, &prompt);
    }
    if !given.names_policy() {
        found.policy = choose("policy", &POLICIES, &[]).into_iter().collect();
    }
    Detected {
        why,
        columns: given.clone().or(&found),
        join: None,
    }
}

/// The name of the recipe that a record fits.
pub(crate) fn recipe_of(fields: &Map<String, Value>) -> Option<&'static str> {
    let fits = |recipe: &&MappingRecipe| {
        !recipe.labelled && recipe.detect.iter().all(|c| is_there(c, fields))
    };
    recipes()
        .iter()
        .find(fits)
        .map(|recipe| recipe.name.as_str())
}

/// Whether a record is a request of a batch: it asks, and holds no answer.
pub(crate) fn is_request(fields: &Map<String, Value>) -> bool {
    let asks = fields.contains_key("body") || fields.contains_key("params");
    let answered = fields.contains_key("response") || fields.contains_key("result");
    fields.contains_key("custom_id") && asks && !answered
}

/// Names of columns that any mapping may look at.
pub(crate) fn usual_columns() -> BTreeSet<String> {
    let usual = PROMPTS.iter().chain(&POLICIES).chain(&RESPONSES);
    let usual = usual.chain(&CHOSEN).chain(&REJECTED).chain(&REFERENCES);
    let usual = usual.chain(&SCORES).chain(&SUBSETS);
    let mut names: BTreeSet<String> = usual.map(|name| (*name).to_owned()).collect();
    for recipe in recipes() {
        let paths = recipe.detect.iter().flat_map(Column::paths);
        let paths = paths.filter_map(|path| Path::parse(path).ok());
        for path in paths {
            names.extend(path.roots().map(str::to_owned));
        }
        let mapping = match recipe.labelled {
            true => Mapping::labelled(&recipe.columns).ok(),
            false => Mapping::new(&recipe.columns).ok(),
        };
        names.extend(
            mapping
                .and_then(|mapping| mapping.roots())
                .into_iter()
                .flatten(),
        );
    }
    names
}

fn is_there(column: &Column, fields: &Map<String, Value>) -> bool {
    let paths = column
        .paths()
        .iter()
        .filter_map(|path| Path::parse(path).ok());
    // A null is there: a failed request has a null response.
    paths.into_iter().any(|path| path.find(fields).is_some())
}
