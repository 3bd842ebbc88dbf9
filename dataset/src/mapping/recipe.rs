//! Mappings of known dumps by name: small TOML files, which users can copy and change.

use std::path::PathBuf;
use std::sync::LazyLock;

use serde::Deserialize;

use super::columns::{Column, ColumnMapping};

/// How the dumps of one program or dataset are mapped.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MappingRecipe {
    /// Its name.
    pub name: String,
    /// Whose dumps these are, in a sentence.
    pub about: String,
    /// Whether its records are labelled.
    #[serde(default)]
    pub labelled: bool,
    /// Columns that all records of such a dump have.
    pub detect: Vec<Column>,
    /// What has to be given with --join, where something has.
    pub join: Option<String>,
    /// Which columns hold what.
    pub columns: ColumnMapping,
}

/// Why there is no such recipe.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// It has no such name, and no file is called so.
    #[error("there is no recipe '{name}'; there are {known}, or give the path of a .toml file")]
    Unknown {
        /// What was given.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// The file can't be read.
    #[error("could not read the recipe {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The file is no recipe.
    #[error("{} is no recipe; copy one of the ready ones and change it", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: Box<toml::de::Error>,
    },
}

/// The ready ones, in the order in which they are tried: what asks for more columns comes first.
const READY: [&str; 13] = [
    include_str!("../../recipes/lm-eval.toml"),
    include_str!("../../recipes/mt-bench.toml"),
    include_str!("../../recipes/helm.toml"),
    include_str!("../../recipes/rmb.toml"),
    include_str!("../../recipes/arena.toml"),
    include_str!("../../recipes/livecodebench.toml"),
    include_str!("../../recipes/wildbench.toml"),
    include_str!("../../recipes/alpaca-eval.toml"),
    include_str!("../../recipes/anthropic-batch.toml"),
    include_str!("../../recipes/openai-batch.toml"),
    include_str!("../../recipes/vllm-batch.toml"),
    include_str!("../../recipes/ultrafeedback.toml"),
    include_str!("../../recipes/helpsteer.toml"),
];

/// The recipes that come with the program.
pub fn recipes() -> &'static [MappingRecipe] {
    static RECIPES: LazyLock<Vec<MappingRecipe>> = LazyLock::new(|| {
        let parsed = READY.iter().map(|text| toml::from_str(text));
        parsed
            .collect::<Result<_, _>>()
            .expect("the recipes of the program are checked by its tests")
    });
    &RECIPES
}

impl MappingRecipe {
    /// The file of the ready recipe of this name.
    pub fn text(name: &str) -> Option<&'static str> {
        let mut all = recipes().iter().zip(READY);
        all.find(|(recipe, _)| recipe.name == name)
            .map(|(_, text)| text)
    }

    /// The ready recipe of this name, or the one in the file of this path.
    ///
    /// # Errors
    /// [`RecipeError`] if there is neither, or the file is no recipe.
    pub fn load(name: &str) -> Result<Self, RecipeError> {
        if let Some(ready) = recipes().iter().find(|recipe| recipe.name == name) {
            return Ok(ready.clone());
        }
        let path = PathBuf::from(name);
        if !name.ends_with(".toml") && !path.exists() {
            let known: Vec<&str> = recipes()
                .iter()
                .map(|recipe| recipe.name.as_str())
                .collect();
            return Err(RecipeError::Unknown {
                name: name.into(),
                known: known.join(", "),
            });
        }
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(source) => return Err(RecipeError::Read { path, source }),
        };
        toml::from_str(&text).map_err(|source| RecipeError::Parse {
            path,
            source: Box::new(source),
        })
    }
}
