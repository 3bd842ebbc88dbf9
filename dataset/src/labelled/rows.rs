//! The form of a labelled corpus in Arrow: one row a pair.

use std::sync::{Arc, LazyLock};

use arrow_array::builder::{StringBuilder, StringDictionaryBuilder, UInt32Builder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, UInt32Type};
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};

use super::LabelledPair;
use crate::manifest::Manifest;
use crate::reader::PromptSamples;
use crate::schema::{Error, PromptColumn, Prompts, prompt_field};
use crate::triplet::PolicySamples;

/// The Arrow schema of a file of pairs.
pub(crate) fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![
            Field::new("prompt_id", DataType::Utf8, false),
            prompt_field(),
            Field::new_dictionary("subset", DataType::Int32, DataType::Utf8, false),
            Field::new("pair", DataType::UInt32, false),
            Field::new("reference", DataType::Utf8, true),
            Field::new("chosen", DataType::Utf8, false),
            Field::new("rejected", DataType::Utf8, false),
            Field::new("meta", DataType::Utf8, true),
        ]))
    });
    Arc::clone(&SCHEMA)
}

/// Encodes pairs, one row each, in order.
pub(crate) fn encode(pairs: &[LabelledPair]) -> Result<RecordBatch, Error> {
    let mut prompts = PromptColumn::default();
    let mut subsets = StringDictionaryBuilder::<Int32Type>::new();
    let mut numbers = UInt32Builder::new();
    let texts = StringBuilder::new;
    let (mut ids, mut references, mut metas) = (texts(), texts(), texts());
    let (mut chosen, mut rejected) = (texts(), texts());
    for pair in pairs {
        ids.append_value(&pair.prompt_id);
        prompts.push(&pair.prompt)?;
        subsets.append(&pair.subset).map_err(Error::Assemble)?;
        numbers.append_value(pair.number);
        references.append_option(pair.reference.as_deref());
        chosen.append_value(&pair.chosen);
        rejected.append_value(&pair.rejected);
        metas.append_option(pair.meta.as_deref());
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(ids.finish()),
        prompts.finish(),
        Arc::new(subsets.finish()),
        Arc::new(numbers.finish()),
        Arc::new(references.finish()),
        Arc::new(chosen.finish()),
        Arc::new(rejected.finish()),
        Arc::new(metas.finish()),
    ];
    RecordBatch::try_new(schema(), columns).map_err(Error::Assemble)
}

/// Every pair as a prompt of its own that gives one triplet: reference and chosen answer stand as the first
/// one's samples, the rejected one as the other's, both under the subset's number. Without a reference its
/// place is an empty text. Fails with the contradiction to the manifest.
pub(crate) fn pair_samples(
    batches: &[RecordBatch],
    manifest: &Manifest,
) -> Result<Vec<PromptSamples>, String> {
    let mut pairs = Vec::new();
    for batch in batches {
        let prompts = Prompts::new(batch).map_err(|error| error.to_string())?;
        let text = |column: &str| -> Result<&StringArray, String> {
            let found = batch.column_by_name(column);
            let found = found.and_then(|array| array.as_string_opt::<i32>());
            found.ok_or_else(|| format!("the column '{column}' is not of type text"))
        };
        let (ids, references) = (text("prompt_id")?, text("reference")?);
        let (chosen, rejected) = (text("chosen")?, text("rejected")?);
        let subsets = batch.column_by_name("subset");
        let subsets = subsets.and_then(|array| array.as_dictionary_opt::<Int32Type>());
        let subsets =
            subsets.and_then(|array| Some((array.keys(), array.values().as_string_opt::<i32>()?)));
        let (keys, names) =
            subsets.ok_or("the column 'subset' is not of type dictionary of text")?;
        let numbers = batch.column_by_name("pair");
        let numbers = numbers.and_then(|array| array.as_primitive_opt::<UInt32Type>());
        let numbers = numbers.ok_or("the column 'pair' is not of type unsigned 32-bit integer")?;
        for row in 0..batch.num_rows() {
            let name = names.value(keys.value(row) as usize);
            let policies = &manifest.policies;
            let subset = policies.binary_search_by(|policy| policy.name.as_str().cmp(name));
            let subset = subset.map_err(|_| format!("the subset '{name}' is not in its table"))?;
            let reference = match references.is_valid(row) {
                true => references.value(row),
                false => "",
            };
            let samples = |samples: Vec<String>| PolicySamples {
                policy: subset as u32,
                samples,
            };
            pairs.push(PromptSamples {
                id: ids.value(row).to_owned(),
                text: prompts.get(row).text(),
                policies: vec![
                    samples(vec![reference.to_owned(), chosen.value(row).to_owned()]),
                    samples(vec![rejected.value(row).to_owned()]),
                ],
                numbers: vec![numbers.value(row); 3],
                cluster: None,
                tokens: vec![],
            });
        }
    }
    Ok(pairs)
}
