//! Metrics of a trial as Parquet files in the store, one a checkpoint interval.
//!
//! `trials/<recipe>/metrics/<measurement>/<first step>-<last step>.parquet`. A generation that repeats
//! an interval writes the same file again, so every step is there once. Runs that measure the same
//! trial differently keep apart what they measured, and share the losses of its steps.

use crate::{RewardSpread, SetScore, Trial};
use arrow_array::{
    Array, ArrayRef, Float64Array, RecordBatch, UInt64Array,
    cast::AsArray,
    types::{Float64Type, UInt64Type},
};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    errors::ParquetError,
};
use polestar_core::Step;
use polestar_store::Store;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// One step's figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Steps done, this one included.
    pub step: Step,
    /// Triplets seen so far.
    pub triplets: u64,
    /// Tokens of the plain layout so far.
    pub plain_tokens: u64,
    /// FLOPs so far, convention `6ND`.
    pub flops_6nd: f64,
    /// Mean loss of the batch, before the update.
    pub loss: f64,
    /// Fraction ranked rightly; none for language models.
    pub accuracy: Option<f64>,
    /// Mean reward of the batch's positives minus that of its negatives; none for language models, and in files of
    /// versions that didn't keep it.
    #[serde(default)]
    pub margin: Option<f64>,
    /// Learning rate of the update.
    pub lr: f64,
    /// Norm of the global gradient, before clipping.
    pub grad_norm: f64,
    /// Wall-clock seconds so far.
    pub seconds: f64,
    /// Held-out scores after the update, by set, if this step was validated: of a set's first triplets, the same
    /// ones at every step, so that they make a curve. What a larger set says of the last step is in the outcome.
    pub validation: BTreeMap<String, SetScore>,
}

/// Why metrics could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] polestar_store::Error),
    /// The table can't be built.
    #[error("{key}: metrics table")]
    Table {
        /// The object.
        key: String,
        /// Why.
        #[source]
        source: ArrowError,
    },
    /// Not a Parquet file.
    #[error("{key}: not a readable Parquet file; remove it to let the trial write it again")]
    Parquet {
        /// The object.
        key: String,
        /// Why.
        #[source]
        source: ParquetError,
    },
    /// Written by another version.
    #[error(
        "{key} has format {found}, this Polestar reads up to {expected}; use the version that wrote it"
    )]
    Format {
        /// The object.
        key: String,
        /// Its format.
        found: String,
        /// The newest that is understood.
        expected: u32,
    },
    /// A column is missing or of another type.
    #[error("{key}: column `{column}` is missing or has another type")]
    Column {
        /// The object.
        key: String,
        /// The column.
        column: String,
    },
}

/// A column of whole numbers: its name, and what of a row stands in it.
pub type Whole = (&'static str, fn(&Row) -> u64);
/// A column of real numbers of a row, empty where there is none.
pub type Real = (&'static str, fn(&Row) -> Option<f64>);
/// A column of a set's scores: what its name ends with, after the set's, and what of a score stands in it.
pub type Scores = (&'static str, fn(&SetScore) -> Option<f64>);

/// Columns of every table of metrics, first.
pub const WHOLE: [Whole; 3] = [
    ("step", |r| r.step.0),
    ("triplets", |r| r.triplets),
    ("plain_tokens", |r| r.plain_tokens),
];
/// Columns of every table of metrics, next.
pub const REAL: [Real; 7] = [
    ("flops_6nd", |r| Some(r.flops_6nd)),
    ("loss", |r| Some(r.loss)),
    ("accuracy", |r| r.accuracy),
    ("lr", |r| Some(r.lr)),
    ("grad_norm", |r| Some(r.grad_norm)),
    ("seconds", |r| Some(r.seconds)),
    ("margin", |r| r.margin),
];
/// Columns of every set that was scored.
pub const SCORES: [Scores; 11] = [
    ("_loss", |s| Some(s.loss)),
    ("_accuracy", |s| s.accuracy),
    ("_triplets", |s| Some(s.triplets as f64)),
    ("_prompts", |s| Some(s.prompts? as f64)),
    ("_loss_error", |s| s.loss_error),
    ("_accuracy_error", |s| s.accuracy_error),
    ("_margin", |s| s.margin),
    ("_reward_mean", |s| Some(s.rewards?.mean)),
    ("_reward_deviation", |s| Some(s.rewards?.deviation)),
    ("_reward_min", |s| Some(s.rewards?.min)),
    ("_reward_max", |s| Some(s.rewards?.max)),
];
/// Files of all versions have so many of [`SCORES`].
const ALWAYS: usize = 3;

/// Folder of all metrics of a trial.
fn shared(trial: &Trial) -> String {
    format!("{}/metrics", trial.recipe_id().folder())
}

/// Folder of what this measurement wrote.
fn folder(trial: &Trial) -> String {
    format!("{}/{}", shared(trial), trial.measurement.id())
}

/// The last step of an object's interval.
fn last_step(key: &str) -> Option<Step> {
    let interval = key.rsplit('/').next()?.strip_suffix(".parquet")?;
    Some(Step(interval.split('-').nth(1)?.parse().ok()?))
}

/// Writes the rows since the last checkpoint. No rows, no file.
///
/// # Errors
/// The store's or the encoder's, naming the object.
pub async fn write(store: &Store, trial: &Trial, rows: &[Row]) -> Result<(), Error> {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
        return Ok(());
    };
    let key = format!(
        "{}/{:08}-{:08}.parquet",
        folder(trial),
        first.step.0,
        last.step.0
    );
    let bytes = encode(&key, rows)?;
    Ok(store.put(&key, bytes.into()).await?)
}

/// All rows of a trial, in order of steps. Steps that were taken under another measurement are there
/// without held-out scores.
///
/// # Errors
/// The store's, or the object that can't be read.
pub async fn read(store: &Store, trial: &Trial) -> Result<Vec<Row>, Error> {
    read_after(store, trial, Step(0)).await
}

/// As [`read`], of the steps after one; asks only for objects that have any.
///
/// # Errors
/// As [`read`].
pub async fn read_after(store: &Store, trial: &Trial, after: Step) -> Result<Vec<Row>, Error> {
    let own = format!("{}/", folder(trial));
    let mut objects = store.list(&shared(trial)).await?;
    // Own ones last, so that they win. Other intervals may overlap; their rows are the same.
    objects.sort_by_key(|object| object.key.starts_with(&own));
    let mut rows = BTreeMap::new();
    // One whose name says nothing is read, and named if it is no table.
    objects.retain(|object| last_step(&object.key).is_none_or(|last| last > after));
    for object in objects {
        let bytes = store.get(&object.key).await?;
        for mut row in decode(&object.key, bytes)? {
            if !object.key.starts_with(&own) {
                row.validation.clear();
            }
            if row.step > after {
                rows.insert(row.step, row);
            }
        }
    }
    Ok(rows.into_values().collect())
}

/// The last step that this trial's own measurement has on record; step 0 if none.
///
/// # Errors
/// The store's.
pub async fn measured_until(store: &Store, trial: &Trial) -> Result<Step, Error> {
    let objects = store.list(&folder(trial)).await?;
    let last = objects.iter().filter_map(|object| last_step(&object.key));
    Ok(last.max().unwrap_or_default())
}

/// Rows as a Parquet file. `key` names it in errors.
///
/// # Errors
/// The encoder's.
pub fn encode(key: &str, rows: &[Row]) -> Result<Vec<u8>, Error> {
    let mut columns: Vec<(String, ArrayRef)> = Vec::new();
    let whole = |f: &dyn Fn(&Row) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(f)))
    };
    let real = |f: &dyn Fn(&Row) -> Option<f64>| -> ArrayRef {
        Arc::new(rows.iter().map(f).collect::<Float64Array>())
    };
    columns.extend(WHOLE.map(|(name, of)| (name.to_owned(), whole(&of))));
    columns.extend(REAL.map(|(name, of)| (name.to_owned(), real(&of))));
    // Only sets that were scored in this interval have columns.
    let sets: BTreeSet<&String> = rows.iter().flat_map(|row| row.validation.keys()).collect();
    for set in sets {
        columns.extend(SCORES.map(|(end, of)| {
            let values = real(&|r| of(r.validation.get(set)?));
            (format!("{set}{end}"), values)
        }));
    }
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, array)| {
            Field::new(
                name,
                array.data_type().clone(),
                array.data_type() == &DataType::Float64,
            )
        })
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    let batch =
        RecordBatch::try_new(Arc::clone(&schema), arrays).map_err(|source| Error::Table {
            key: key.to_owned(),
            source,
        })?;
    let parquet = |source| Error::Parquet {
        key: key.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, schema, None).map_err(parquet)?;
    writer.write(&batch).map_err(parquet)?;
    writer.close().map_err(parquet)?;
    Ok(bytes)
}

/// Reads what [`encode`] wrote, every bit of it.
///
/// # Errors
/// [`Error::Parquet`] or [`Error::Column`] when it is something else.
pub fn decode(key: &str, bytes: bytes::Bytes) -> Result<Vec<Row>, Error> {
    let parquet = |source| Error::Parquet {
        key: key.to_owned(),
        source,
    };
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)
        .and_then(ParquetRecordBatchReaderBuilder::build)
        .map_err(parquet)?;
    let mut rows = Vec::new();
    for batch in reader {
        let batch = batch.map_err(|source| Error::Table {
            key: key.to_owned(),
            source,
        })?;
        let missing = |column: &str| Error::Column {
            key: key.to_owned(),
            column: column.to_owned(),
        };
        let whole = |name: &str| {
            let column = batch.column_by_name(name);
            column
                .and_then(|c| c.as_primitive_opt::<UInt64Type>())
                .ok_or_else(|| missing(name))
        };
        let real = |name: &str| {
            let column = batch.column_by_name(name);
            column
                .and_then(|c| c.as_primitive_opt::<Float64Type>())
                .ok_or_else(|| missing(name))
        };
        let (step, triplets, tokens) = (whole("step")?, whole("triplets")?, whole("plain_tokens")?);
        let (flops, loss, accuracy) = (real("flops_6nd")?, real("loss")?, real("accuracy")?);
        let (lr, norm, seconds) = (real("lr")?, real("grad_norm")?, real("seconds")?);
        let margin = real("margin").ok();
        let mut sets = Vec::new();
        let schema = batch.schema();
        let losses = schema.fields().iter().map(|field| field.name());
        for set in losses.filter_map(|name| name.strip_suffix(SCORES[0].0)) {
            let columns = SCORES.map(|(end, _)| real(&format!("{set}{end}")));
            sets.push(SetColumns::of(set, columns)?);
        }
        for i in 0..batch.num_rows() {
            let scored = sets.iter();
            let scored = scored.filter_map(|of| Some((of.set.to_owned(), of.score(i)?)));
            rows.push(Row {
                step: Step(step.value(i)),
                triplets: triplets.value(i),
                plain_tokens: tokens.value(i),
                flops_6nd: flops.value(i),
                loss: loss.value(i),
                accuracy: value(accuracy, i),
                margin: margin.and_then(|margin| value(margin, i)),
                lr: lr.value(i),
                grad_norm: norm.value(i),
                seconds: seconds.value(i),
                validation: scored.collect(),
            });
        }
    }
    Ok(rows)
}

/// A set's columns, in the order of [`SCORES`]; none where an older version didn't write one.
struct SetColumns<'a> {
    set: &'a str,
    columns: [Option<&'a Float64Array>; SCORES.len()],
}

impl<'a> SetColumns<'a> {
    fn of(
        set: &'a str,
        found: [Result<&'a Float64Array, Error>; SCORES.len()],
    ) -> Result<SetColumns<'a>, Error> {
        let mut columns = [None; SCORES.len()];
        for (at, (column, found)) in columns.iter_mut().zip(found).enumerate() {
            *column = match found {
                Ok(found) => Some(found),
                Err(error) if at < ALWAYS => return Err(error),
                Err(_) => None,
            };
        }
        Ok(SetColumns { set, columns })
    }

    /// The score of a row, if it has one.
    fn score(&self, row: usize) -> Option<SetScore> {
        let [
            loss,
            accuracy,
            triplets,
            prompts,
            loss_error,
            accuracy_error,
            margin,
            mean,
            deviation,
            min,
            max,
        ] = self.columns.map(|column| value(column?, row));
        let rewards = || {
            Some(RewardSpread {
                mean: mean?,
                deviation: deviation?,
                min: min?,
                max: max?,
            })
        };
        Some(SetScore {
            loss: loss?,
            accuracy,
            triplets: triplets? as usize,
            prompts: prompts.map(|prompts| prompts as usize),
            loss_error,
            accuracy_error,
            margin,
            rewards: rewards(),
        })
    }
}

fn value(column: &Float64Array, row: usize) -> Option<f64> {
    column.is_valid(row).then(|| column.value(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_survive_the_file() {
        let score = SetScore {
            loss: 0.5,
            accuracy: Some(0.75),
            triplets: 64,
            prompts: Some(8),
            loss_error: Some(0.02),
            accuracy_error: None,
            margin: Some(0.25),
            rewards: RewardSpread::of(&[1.0, -2.0, 0.5]),
        };
        let rows = [
            Row {
                step: Step(1),
                loss: 0.69,
                ..Row::default()
            },
            Row {
                step: Step(2),
                accuracy: Some(0.5),
                margin: Some(-0.125),
                validation: BTreeMap::from([("heldout_prompts".to_owned(), score)]),
                ..Row::default()
            },
        ];
        let bytes = encode("x", &rows).unwrap();
        assert_eq!(decode("x", bytes.into()).unwrap(), rows);
        let none = encode("x", &[]).unwrap();
        assert_eq!(decode("x", none.into()).unwrap(), []);
    }
}
