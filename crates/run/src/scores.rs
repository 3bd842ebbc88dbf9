//! What a finished trial made of every held-out triplet, as one Parquet file in the store:
//! `trials/<recipe>/scores/<measurement>.parquet`. Means hide which pairs of policies are hard and whether length
//! alone decides; this doesn't. Each row names its prompt and its answers as the corpus does, so that scores can be
//! taken together by prompt, and those of two models triplet by triplet.
//!
//! The file's metadata have its format under `polestar.scores`. Files of format 1 have no such entry and say neither
//! prompts nor samples; those of format 2 don't say which prompt a reference answers that has another one. They are
//! read all the same, without.

use crate::{Trial, metrics};
use arrow_array::{
    Array, ArrayRef, Float32Array, RecordBatch, StringArray, UInt32Array,
    cast::AsArray,
    types::{Float32Type, UInt32Type},
};
use arrow_schema::{Field, Schema};
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    file::{metadata::KeyValue, properties::WriterProperties},
};
use polestar_dataset::{AnswerSource, TokenTriplet, TripletSource};
use polestar_store::Store;
use std::sync::Arc;

mod paired;

pub use paired::{Paired, paired};

/// Version of the file that this build writes.
const FORMAT: u32 = 3;
/// Where a file says its version.
const FORMAT_KEY: &str = "polestar.scores";

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
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Which texts of the corpus they are; unknown in files of format 1.
    pub source: Option<TripletSource>,
}

impl From<&TokenTriplet> for Compared {
    fn from(triplet: &TokenTriplet) -> Compared {
        Compared {
            policy: triplet.policy,
            other: triplet.other,
            reference: triplet.reference.len() as u32,
            positive: triplet.positive.len() as u32,
            negative: triplet.negative.len() as u32,
            source: Some(triplet.source.clone()),
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

/// Columns of a triplet's source, from format 2 on; `whole` is before cutting.
const SOURCES: [&str; 7] = [
    "prompt_whole_tokens",
    "reference_sample",
    "reference_whole_tokens",
    "positive_sample",
    "positive_whole_tokens",
    "negative_sample",
    "negative_whole_tokens",
];

/// The prompt that the reference answers, where it is another one; from format 3 on.
const REFERENCE_PROMPT: &str = "reference_prompt_id";

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
    let format = KeyValue::new(FORMAT_KEY.to_owned(), FORMAT.to_string());
    table(key, columns(scores), vec![format])
}

type Column = (&'static str, ArrayRef);

fn columns(scores: &[Scored]) -> Vec<Column> {
    let sets = scores.iter().map(|scored| &scored.set);
    let mut columns: Vec<Column> = vec![("set", Arc::new(StringArray::from_iter_values(sets)))];
    let whole = |of: fn(&Compared) -> u32| -> ArrayRef {
        let values = scores.iter().map(|scored| of(&scored.triplet));
        Arc::new(UInt32Array::from_iter_values(values))
    };
    let of: [fn(&Compared) -> u32; 5] = [
        |t| t.policy,
        |t| t.other,
        |t| t.reference,
        |t| t.positive,
        |t| t.negative,
    ];
    columns.extend(LENGTHS.into_iter().zip(of.map(whole)));
    let margins = scores.iter().map(|scored| scored.margin);
    columns.push(("margin", Arc::new(Float32Array::from_iter_values(margins))));
    let sources = || scores.iter().map(|scored| scored.triplet.source.as_ref());
    let prompts = sources().map(|source| source.map(|source| &source.prompt_id));
    columns.push(("prompt_id", Arc::new(prompts.collect::<StringArray>())));
    let others = sources().map(|source| source?.reference_prompt_id.as_ref());
    columns.push((REFERENCE_PROMPT, Arc::new(others.collect::<StringArray>())));
    let of: [fn(&TripletSource) -> u32; 7] = [
        |s| s.prompt_tokens,
        |s| s.reference.sample,
        |s| s.reference.tokens,
        |s| s.positive.sample,
        |s| s.positive.tokens,
        |s| s.negative.sample,
        |s| s.negative.tokens,
    ];
    let known = |of: fn(&TripletSource) -> u32| -> ArrayRef {
        Arc::new(sources().map(|s| s.map(of)).collect::<UInt32Array>())
    };
    columns.extend(SOURCES.into_iter().zip(of.map(known)));
    columns
}

fn table(
    key: &str,
    columns: Vec<Column>,
    metadata: Vec<KeyValue>,
) -> Result<Vec<u8>, metrics::Error> {
    let fields = columns.iter().map(|(name, array)| {
        let is_source = ["prompt_id", REFERENCE_PROMPT].contains(name) || SOURCES.contains(name);
        Field::new(*name, array.data_type().clone(), is_source)
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
    let properties = WriterProperties::builder().set_key_value_metadata(Some(metadata));
    let mut bytes = Vec::new();
    let mut writer =
        ArrowWriter::try_new(&mut bytes, schema, Some(properties.build())).map_err(parquet)?;
    writer.write(&batch).map_err(parquet)?;
    writer.close().map_err(parquet)?;
    Ok(bytes)
}

/// The format that a file says it has; 1 if it says none.
fn format(metadata: Option<&Vec<KeyValue>>) -> Result<u32, String> {
    let mut entries = metadata.into_iter().flatten();
    let entry = entries.find(|entry| entry.key == FORMAT_KEY);
    let Some(found) = entry.and_then(|entry| entry.value.clone()) else {
        return Ok(1);
    };
    let known = |format: &u32| (1..=FORMAT).contains(format);
    found.parse().ok().filter(known).ok_or(found)
}

fn decode(key: &str, bytes: bytes::Bytes) -> Result<Vec<Scored>, metrics::Error> {
    let parquet = |source| metrics::Error::Parquet {
        key: key.to_owned(),
        source,
    };
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(parquet)?;
    let metadata = builder.metadata().file_metadata().key_value_metadata();
    let format = format(metadata).map_err(|found| metrics::Error::Format {
        key: key.to_owned(),
        found,
        expected: FORMAT,
    })?;
    let mut scores = Vec::new();
    for batch in builder.build().map_err(parquet)? {
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
        let sources = match format {
            1 => None,
            _ => Some(Sources::of(&batch, format).map_err(missing)?),
        };
        scores.extend((0..batch.num_rows()).map(|row| Scored {
            set: sets.value(row).to_owned(),
            triplet: Compared {
                policy: policy.value(row),
                other: other.value(row),
                reference: reference.value(row),
                positive: positive.value(row),
                negative: negative.value(row),
                source: sources.as_ref().and_then(|sources| sources.source(row)),
            },
            margin: margins.value(row),
        }));
    }
    Ok(scores)
}

/// The columns that say which texts a triplet holds.
struct Sources<'a> {
    prompts: &'a StringArray,
    /// Where the file says it.
    reference_prompts: Option<&'a StringArray>,
    /// In the order of [`SOURCES`].
    numbers: [&'a UInt32Array; 7],
}

impl<'a> Sources<'a> {
    /// Fails with the name of a column that isn't there as it should be.
    fn of(batch: &'a RecordBatch, format: u32) -> Result<Sources<'a>, &'static str> {
        let ids = |name| {
            let column = batch.column_by_name(name);
            let column = column.and_then(|c| c.as_string_opt::<i32>());
            column.ok_or(name)
        };
        let number = |name| {
            let column = batch.column_by_name(name);
            let column = column.and_then(|c| c.as_primitive_opt::<UInt32Type>());
            column.ok_or(name)
        };
        let [a, b, c, d, e, f, g] = SOURCES.map(number);
        Ok(Sources {
            prompts: ids("prompt_id")?,
            reference_prompts: (format > 2).then(|| ids(REFERENCE_PROMPT)).transpose()?,
            numbers: [a?, b?, c?, d?, e?, f?, g?],
        })
    }

    fn source(&self, row: usize) -> Option<TripletSource> {
        if self.prompts.is_null(row) {
            return None;
        }
        let [prompt, numbers @ ..] = self.numbers.map(|column| column.value(row));
        let answer = |of: usize| AnswerSource {
            sample: numbers[2 * of],
            tokens: numbers[2 * of + 1],
        };
        Some(TripletSource {
            prompt_id: self.prompts.value(row).to_owned(),
            prompt_tokens: prompt,
            reference_prompt_id: self
                .reference_prompts
                .filter(|prompts| prompts.is_valid(row))
                .map(|prompts| prompts.value(row).to_owned()),
            reference: answer(0),
            positive: answer(1),
            negative: answer(2),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores() -> Vec<Scored> {
        let answer = |sample, tokens| AnswerSource { sample, tokens };
        let scored = |i| Scored {
            set: format!("set {}", i % 2),
            triplet: Compared {
                policy: i,
                other: i + 1,
                reference: 7 * i,
                positive: 3,
                negative: 2,
                source: Some(TripletSource {
                    prompt_id: format!("prompt {}", i / 2),
                    prompt_tokens: 40 + i,
                    reference_prompt_id: (i == 3).then(|| "another prompt".to_owned()),
                    reference: answer(i, 9 * i),
                    positive: answer(i + 1, 3),
                    negative: answer(0, 17),
                }),
            },
            margin: i as f32 - 2.5,
        };
        (0..5).map(scored).collect()
    }

    #[test]
    fn scores_survive_the_file_and_a_foreign_file_is_named() {
        let scores = scores();
        let bytes = encode("scores", &scores).unwrap();
        assert_eq!(decode("scores", bytes.into()).unwrap(), scores);
        let error = decode("scores", bytes::Bytes::from_static(b"PAR1")).unwrap_err();
        assert!(error.to_string().starts_with("scores"), "{error}");
    }

    #[test]
    fn files_of_former_formats_are_read_without_what_they_lack_and_newer_ones_refused() {
        let mut scores = scores();
        let mut of_then = columns(&scores);
        of_then.retain(|(name, _)| *name != REFERENCE_PROMPT);
        let second = KeyValue::new(FORMAT_KEY.to_owned(), "2".to_owned());
        let bytes = table("scores", of_then, vec![second]).unwrap();
        for scored in &mut scores {
            let source = scored.triplet.source.as_mut().unwrap();
            source.reference_prompt_id = None;
        }
        assert_eq!(decode("scores", bytes.into()).unwrap(), scores);
        let mut of_then = columns(&scores);
        of_then.truncate(1 + LENGTHS.len() + 1);
        let bytes = table("scores", of_then, vec![]).unwrap();
        scores.iter_mut().for_each(|s| s.triplet.source = None);
        assert_eq!(decode("scores", bytes.into()).unwrap(), scores);

        let newer = KeyValue::new(FORMAT_KEY.to_owned(), "4".to_owned());
        let bytes = table("scores", columns(&scores), vec![newer]).unwrap();
        let refused = decode("scores", bytes.into()).unwrap_err().to_string();
        assert!(
            refused.starts_with("scores has format 4") && refused.contains("up to 3"),
            "{refused}"
        );
    }
}
