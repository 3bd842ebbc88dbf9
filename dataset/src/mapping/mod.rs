//! From the records of a dump to trajectories: which columns hold what, by name or by recipe.
//!
//! A [`ColumnMapping`] says where prompt, policy and answers are, in the form in which users write it;
//! `recipe` has ready ones for known dumps; `detect` finds the one that fits; `Mapping` is it,
//! compiled, and turns records into rows.

mod answer;
mod columns;
mod compiled;
pub(crate) mod detect;
pub(crate) mod join;
pub(crate) mod labelled;
mod labels;
mod message;
mod path;
mod path_pattern;
pub(crate) mod recipe;
mod record;
mod row;
#[cfg(test)]
mod tests;

pub use columns::{AnswerColumns, Column, ColumnMapping, Failure, Reasoning};
pub(crate) use compiled::Mapping;
pub use compiled::Unusable;
pub use labels::ReferenceFrom;
pub use path::PathError;
pub use recipe::{MappingRecipe, RecipeError, recipes};
pub(crate) use row::{Outcome, Problem, Row, SampleLabel};
