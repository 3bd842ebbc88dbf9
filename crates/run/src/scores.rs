//! What a finished trial made of every held-out triplet, as one Parquet file in the store:
//! `trials/<recipe>/scores/<measurement>.parquet`. Means hide which pairs of policies are hard and whether length
//! alone decides; this doesn't.

use crate::{Trial, metrics};
use arrow_array::{
    Array, ArrayRef, Float32Array, RecordBatch, StringArray, UInt32Array,
    cast::AsArray,
    types::{Float32Type, UInt32Type},
};
use arrow_schema::{Field, Schema};
use parquet::arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder};
use polestar_dataset::TokenTriplet;
use polestar_store::Store;
use std::sync::Arc;

/// One held-out triplet and its margin.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// Name of the held-out set.
    pub set: String,
    /// Who is compared, and how long their answers are.
    pub triplet: Compared,
    /// r(reference, positive) - r(reference, negative): above zero is right.
    pub margin: f32,
}

/// What of a triplet outlives its tokens. Lengths are in tokens, as clipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compared {
    /// Policy of reference and positive.
    pub policy: u32,
    /// Policy of the negative.
    pub other: u32,
    /// Length of the reference.
    pub reference: u32,
    /// Length of the positive.
    pub positive: u32,
    /// Length of the negative.
    pub negative: u32,
}

impl From<&TokenTriplet> for Compared {
    fn from(triplet: &TokenTriplet) -> Compared {
        Compared {
            policy: triplet.policy,
            other: triplet.other,
            reference: triplet.reference.len() as u32,
            positive: triplet.positive.len() as u32,
            negative: triplet.negative.len() as u32,
        }
    }
}

const LENGTHS: [&str; 5] = [
    "policy",
    "other",
    "reference_tokens",
    "positive_tokens",
    "negative_tokens",
];

fn key(trial: &Trial) -> String {
    let (recipe, measurement) = (trial.recipe_id(), trial.measurement.id());
    format!("{}/scores/{measurement}.parquet", recipe.folder())
}

/// Writes the scores of a trial. Its weights decide them, so to write them again changes nothing.
///
/// # Errors
/// The store's or the encoder's, naming the object.
pub async fn write(store: &Store, trial: &Trial, scores: &[Scored]) -> Result<(), metrics::Error> {
    let key = key(trial);
    let bytes = encode(&key, scores)?;
    Ok(store.put(&key, bytes.into()).await?)
}

/// The scores of a finished trial; none of one that ended before scores were kept, or ranks nothing.
///
/// # Errors
/// The store's, or the object that can't be read.
pub async fn read(store: &Store, trial: &Trial) -> Result<Vec<Scored>, metrics::Error> {
    let key = key(trial);
    match store.get_opt(&key).await? {
        Some(bytes) => decode(&key, bytes),
        None => Ok(Vec::new()),
    }
}

fn encode(key: &str, scores: &[Scored]) -> Result<Vec<u8>, metrics::Error> {
    let whole = |of: fn(&Compared) -> u32| -> ArrayRef {
        let values = scores.iter().map(|scored| of(&scored.triplet));
        Arc::new(UInt32Array::from_iter_values(values))
    };
    let sets = scores.iter().map(|scored| &scored.set);
    let margins = scores.iter().map(|scored| scored.margin);
    let mut columns: Vec<(&str, ArrayRef)> =
        vec![("set", Arc::new(StringArray::from_iter_values(sets)))];
    let of: [fn(&Compared) -> u32; 5] = [
        |t| t.policy,
        |t| t.other,
        |t| t.reference,
        |t| t.positive,
        |t| t.negative,
    ];
    columns.extend(LENGTHS.into_iter().zip(of.map(whole)));
    columns.push(("margin", Arc::new(Float32Array::from_iter_values(margins))));
    let fields = columns.iter().map(|(name, array)| {
        let data_type = array.data_type().clone();
        Field::new(*name, data_type, false)
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    let table = |source| metrics::Error::Table {
        key: key.to_owned(),
        source,
    };
    let parquet = |source| metrics::Error::Parquet {
        key: key.to_owned(),
        source,
    };
    let batch = RecordBatch::try_new(Arc::clone(&schema), arrays).map_err(table)?;
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, schema, None).map_err(parquet)?;
    writer.write(&batch).map_err(parquet)?;
    writer.close().map_err(parquet)?;
    Ok(bytes)
}

fn decode(key: &str, bytes: bytes::Bytes) -> Result<Vec<Scored>, metrics::Error> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)
        .and_then(ParquetRecordBatchReaderBuilder::build)
        .map_err(|source| metrics::Error::Parquet {
            key: key.to_owned(),
            source,
        })?;
    let mut scores = Vec::new();
    for batch in reader {
        let batch = batch.map_err(|source| metrics::Error::Table {
            key: key.to_owned(),
            source,
        })?;
        let missing = |column: &str| metrics::Error::Column {
            key: key.to_owned(),
            column: column.to_owned(),
        };
        let column = |name: &str| batch.column_by_name(name).filter(|c| c.null_count() == 0);
        let whole = |name: &str| {
            let column = column(name).and_then(|c| c.as_primitive_opt::<UInt32Type>());
            column.ok_or_else(|| missing(name))
        };
        let sets = column("set").and_then(|c| c.as_string_opt::<i32>());
        let sets = sets.ok_or_else(|| missing("set"))?;
        let margins = column("margin").and_then(|c| c.as_primitive_opt::<Float32Type>());
        let margins = margins.ok_or_else(|| missing("margin"))?;
        let [policy, other, reference, positive, negative] = LENGTHS.map(whole);
        let (policy, other) = (policy?, other?);
        let (reference, positive, negative) = (reference?, positive?, negative?);
        scores.extend((0..batch.num_rows()).map(|row| Scored {
            set: sets.value(row).to_owned(),
            triplet: Compared {
                policy: policy.value(row),
                other: other.value(row),
                reference: reference.value(row),
                positive: positive.value(row),
                negative: negative.value(row),
            },
            margin: margins.value(row),
        }));
    }
    Ok(scores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_survive_the_file_and_a_foreign_file_is_named() {
        let scores: Vec<Scored> = (0..5)
            .map(|i| Scored {
                set: format!("set {}", i % 2),
                triplet: Compared {
                    policy: i,
                    other: i + 1,
                    reference: 7 * i,
                    positive: 3,
                    negative: 2,
                },
                margin: i as f32 - 2.5,
            })
            .collect();
        let bytes = encode("scores", &scores).unwrap();
        assert_eq!(decode("scores", bytes.into()).unwrap(), scores);
        let error = decode("scores", bytes::Bytes::from_static(b"PAR1")).unwrap_err();
        assert!(error.to_string().starts_with("scores"), "{error}");
    }
}
