//! What a trajectory is, and its form in Arrow: one row a trajectory, prompts as lists of messages,
//! policies as a dictionary.

use std::sync::{Arc, LazyLock};

use arrow_array::builder::{
    ListBuilder, StringBuilder, StringDictionaryBuilder, StructBuilder, UInt32Builder,
};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, UInt32Type};
use arrow_array::{
    Array, ArrayRef, DictionaryArray, ListArray, RecordBatch, StringArray, UInt32Array,
};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use serde::{Deserialize, Serialize};

/// One message of a prompt.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks ("user", "assistant", "system"); none in a plain text prompt.
    pub role: Option<String>,
    /// What is said.
    pub content: String,
}

/// What a policy is asked: a chat, or plain text as a single message without a role.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Prompt(pub Vec<Message>);

impl Prompt {
    /// A plain text prompt.
    pub fn plain(text: impl Into<String>) -> Self {
        Self(vec![Message {
            role: None,
            content: text.into(),
        }])
    }

    /// The text that a reward model reads: the contents joined with newlines, roles dropped, as
    /// POLAR does.
    pub fn text(&self) -> String {
        let contents: Vec<&str> = self
            .0
            .iter()
            .map(|message| message.content.as_str())
            .collect();
        contents.join("\n")
    }
}

/// One response of one policy to one prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trajectory {
    /// Names the prompt: equal for all trajectories that answer the same one.
    pub prompt_id: String,
    /// The prompt.
    pub prompt: Prompt,
    /// The policy that answered, decoding settings included.
    pub policy: String,
    /// Which of the policy's answers to this prompt this is.
    pub sample: u32,
    /// The answer.
    pub response: String,
    /// Anything else worth keeping, as a JSON object.
    pub meta: Option<String>,
}

/// Why a record batch is not a batch of trajectories.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A column is absent or of another type.
    #[error("the column '{column}' is not of type {expected}; import the data anew")]
    Column {
        /// The column.
        column: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// The columns do not form a batch.
    #[error("could not assemble a batch of trajectories")]
    Assemble(#[source] arrow_schema::ArrowError),
}

/// The tokens of some trajectories, for the columns that spare the loader the tokenizer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TokenRows {
    /// Of a prompt's first row the prompt's tokens, of its other rows none.
    pub(crate) prompts: Vec<Option<Vec<u32>>>,
    /// Every row's response.
    pub(crate) responses: Vec<Vec<u32>>,
}

/// The Arrow schema of a corpus file.
pub fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![
            Field::new("prompt_id", DataType::Utf8, false),
            prompt_field(),
            Field::new_dictionary("policy", DataType::Int32, DataType::Utf8, false),
            Field::new("sample", DataType::UInt32, false),
            Field::new("response", DataType::Utf8, false),
            Field::new("meta", DataType::Utf8, true),
        ]))
    });
    Arc::clone(&SCHEMA)
}

/// The schema of a corpus file with tokens.
pub(crate) fn token_schema() -> SchemaRef {
    let mut fields = schema().fields().to_vec();
    fields.push(Arc::new(Field::new(PROMPT_TOKENS, token_list(), true)));
    fields.push(Arc::new(Field::new(RESPONSE_TOKENS, token_list(), false)));
    Arc::new(Schema::new(fields))
}

/// Column of the prompts' tokens.
pub(crate) const PROMPT_TOKENS: &str = "prompt_tokens";
/// Column of the responses' tokens.
pub(crate) const RESPONSE_TOKENS: &str = "response_tokens";

fn token_list() -> DataType {
    DataType::List(Arc::new(token()))
}

fn token() -> Field {
    Field::new("item", DataType::UInt32, false)
}

/// The column of prompts: lists of messages.
pub(crate) fn prompt_field() -> Field {
    let message = Field::new_struct("item", message_fields(), false);
    Field::new_list("prompt", message, false)
}

/// A column of prompts under construction.
pub(crate) struct PromptColumn(ListBuilder<StructBuilder>);

impl Default for PromptColumn {
    fn default() -> Self {
        let message = StructBuilder::from_fields(message_fields(), 0);
        let item = Field::new_struct("item", message_fields(), false);
        Self(ListBuilder::new(message).with_field(item))
    }
}

impl PromptColumn {
    pub(crate) fn push(&mut self, prompt: &Prompt) -> Result<(), Error> {
        let messages = self.0.values();
        let column = |column| Error::Column {
            column,
            expected: "text",
        };
        for message in &prompt.0 {
            let roles = messages.field_builder::<StringBuilder>(0);
            roles
                .ok_or_else(|| column("role"))?
                .append_option(message.role.as_deref());
            let contents = messages.field_builder::<StringBuilder>(1);
            contents
                .ok_or_else(|| column("content"))?
                .append_value(&message.content);
            messages.append(true);
        }
        self.0.append(true);
        Ok(())
    }

    pub(crate) fn finish(mut self) -> ArrayRef {
        Arc::new(self.0.finish())
    }
}

fn message_fields() -> Fields {
    vec![
        Field::new("role", DataType::Utf8, true),
        Field::new("content", DataType::Utf8, false),
    ]
    .into()
}

/// Encodes trajectories, one row each, in order.
///
/// # Errors
/// [`Error::Assemble`] if the columns form no batch.
pub fn encode(trajectories: &[Trajectory]) -> Result<RecordBatch, Error> {
    let mut prompt_ids = StringBuilder::new();
    let mut prompts = PromptColumn::default();
    let mut policies = StringDictionaryBuilder::<Int32Type>::new();
    let mut samples = UInt32Builder::new();
    let mut responses = StringBuilder::new();
    let mut metas = StringBuilder::new();
    for trajectory in trajectories {
        prompt_ids.append_value(&trajectory.prompt_id);
        prompts.push(&trajectory.prompt)?;
        policies
            .append(&trajectory.policy)
            .map_err(Error::Assemble)?;
        samples.append_value(trajectory.sample);
        responses.append_value(&trajectory.response);
        metas.append_option(trajectory.meta.as_deref());
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(prompt_ids.finish()),
        prompts.finish(),
        Arc::new(policies.finish()),
        Arc::new(samples.finish()),
        Arc::new(responses.finish()),
        Arc::new(metas.finish()),
    ];
    RecordBatch::try_new(schema(), columns).map_err(Error::Assemble)
}

/// Encodes trajectories with their tokens.
pub(crate) fn encode_with_tokens(
    trajectories: &[Trajectory],
    tokens: &TokenRows,
) -> Result<RecordBatch, Error> {
    let list = || ListBuilder::new(UInt32Builder::new()).with_field(token());
    let (mut prompts, mut responses) = (list(), list());
    for prompt in &tokens.prompts {
        prompts
            .values()
            .append_slice(prompt.as_deref().unwrap_or_default());
        prompts.append(prompt.is_some());
    }
    for response in &tokens.responses {
        responses.values().append_slice(response);
        responses.append(true);
    }
    let mut columns = encode(trajectories)?.columns().to_vec();
    columns.push(Arc::new(prompts.finish()));
    columns.push(Arc::new(responses.finish()));
    RecordBatch::try_new(token_schema(), columns).map_err(Error::Assemble)
}

/// Decodes every row of a batch.
///
/// # Errors
/// [`Error::Column`] if a column is absent or of another type.
pub fn decode(batch: &RecordBatch) -> Result<Vec<Trajectory>, Error> {
    let rows = Rows::new(batch)?;
    Ok((0..rows.len())
        .map(|row| Trajectory {
            prompt_id: rows.prompt_id(row).to_owned(),
            prompt: rows.prompt(row),
            policy: rows.policy(row).to_owned(),
            sample: rows.sample(row),
            response: rows.response(row).to_owned(),
            meta: rows.meta(row).map(str::to_owned),
        })
        .collect())
}

/// The rows of a batch, read in place.
pub(crate) struct Rows<'a> {
    prompt_ids: &'a StringArray,
    prompts: Prompts<'a>,
    policy_keys: &'a DictionaryArray<Int32Type>,
    policy_names: &'a StringArray,
    samples: &'a UInt32Array,
    responses: &'a StringArray,
    metas: &'a StringArray,
    /// Of prompts and of responses, where the file has them.
    tokens: Option<[Tokens<'a>; 2]>,
}

/// A column of prompts, read in place.
pub(crate) struct Prompts<'a> {
    lists: &'a ListArray,
    roles: &'a StringArray,
    contents: &'a StringArray,
}

impl<'a> Prompts<'a> {
    pub(crate) fn new(batch: &'a RecordBatch) -> Result<Self, Error> {
        let not_messages = || Error::Column {
            column: "prompt",
            expected: "list of {role, content}",
        };
        let lists = batch.column_by_name("prompt");
        let lists = lists.and_then(|array| array.as_list_opt::<i32>());
        let lists = lists.ok_or_else(not_messages)?;
        let messages = lists.values().as_struct_opt().ok_or_else(not_messages)?;
        let part = |name: &str| {
            let part = messages
                .column_by_name(name)
                .and_then(|array| array.as_string_opt::<i32>());
            part.ok_or_else(not_messages)
        };
        Ok(Self {
            lists,
            roles: part("role")?,
            contents: part("content")?,
        })
    }

    pub(crate) fn get(&self, row: usize) -> Prompt {
        let offsets = self.lists.value_offsets();
        let messages = offsets[row] as usize..offsets[row + 1] as usize;
        let message = |at: usize| Message {
            role: (self.roles.is_valid(at)).then(|| self.roles.value(at).to_owned()),
            content: self.contents.value(at).to_owned(),
        };
        Prompt(messages.map(message).collect())
    }
}

/// A column of token lists.
struct Tokens<'a> {
    lists: &'a ListArray,
    ids: &'a UInt32Array,
}

impl<'a> Tokens<'a> {
    fn new(batch: &'a RecordBatch, column: &'static str) -> Result<Option<Self>, Error> {
        let Some(found) = batch.column_by_name(column) else {
            return Ok(None);
        };
        let lists = found.as_list_opt::<i32>();
        let ids = lists.and_then(|lists| Some((lists, lists.values().as_primitive_opt()?)));
        let (lists, ids) = ids.ok_or(Error::Column {
            column,
            expected: "list of unsigned 32-bit integers",
        })?;
        Ok(Some(Self { lists, ids }))
    }

    fn value(&self, row: usize) -> Option<&'a [u32]> {
        let offsets = self.lists.value_offsets();
        let range = offsets[row] as usize..offsets[row + 1] as usize;
        self.lists.is_valid(row).then(|| &self.ids.values()[range])
    }
}

impl<'a> Rows<'a> {
    pub(crate) fn new(batch: &'a RecordBatch) -> Result<Self, Error> {
        let any = |column, expected| {
            let found = batch.column_by_name(column);
            found.ok_or(Error::Column { column, expected })
        };
        let text = |column| {
            let expected = "text";
            any(column, expected)?
                .as_string_opt::<i32>()
                .ok_or(Error::Column { column, expected })
        };
        let (column, expected) = ("policy", "dictionary of text");
        let not_policies = || Error::Column { column, expected };
        let policies = any(column, expected)?.as_dictionary_opt::<Int32Type>();
        let policy_keys = policies.ok_or_else(not_policies)?;
        let (column, expected) = ("sample", "unsigned 32-bit integer");
        let samples = any(column, expected)?.as_primitive_opt::<UInt32Type>();
        let tokens = [PROMPT_TOKENS, RESPONSE_TOKENS].map(|column| Tokens::new(batch, column));
        let [prompt_tokens, response_tokens] = tokens;
        Ok(Self {
            tokens: prompt_tokens?.zip(response_tokens?).map(Into::into),
            prompt_ids: text("prompt_id")?,
            prompts: Prompts::new(batch)?,
            policy_keys,
            policy_names: policy_keys
                .values()
                .as_string_opt()
                .ok_or_else(not_policies)?,
            samples: samples.ok_or(Error::Column { column, expected })?,
            responses: text("response")?,
            metas: text("meta")?,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.responses.len()
    }

    pub(crate) fn prompt_id(&self, row: usize) -> &'a str {
        self.prompt_ids.value(row)
    }

    pub(crate) fn prompt(&self, row: usize) -> Prompt {
        self.prompts.get(row)
    }

    pub(crate) fn policy(&self, row: usize) -> &'a str {
        let key = self.policy_keys.keys().value(row);
        self.policy_names.value(key as usize)
    }

    pub(crate) fn sample(&self, row: usize) -> u32 {
        self.samples.value(row)
    }

    pub(crate) fn response(&self, row: usize) -> &'a str {
        self.responses.value(row)
    }

    /// The tokens of the prompt, if it is its first row, where the file has tokens.
    pub(crate) fn prompt_tokens(&self, row: usize) -> Option<&'a [u32]> {
        self.tokens.as_ref()?[0].value(row)
    }

    /// The tokens of the response, where the file has tokens.
    pub(crate) fn response_tokens(&self, row: usize) -> Option<&'a [u32]> {
        self.tokens.as_ref()?[1].value(row)
    }

    pub(crate) fn meta(&self, row: usize) -> Option<&'a str> {
        self.metas.is_valid(row).then(|| self.metas.value(row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trajectories_survive_the_round_trip() {
        let chat = Prompt(vec![
            Message {
                role: Some("system".into()),
                content: "Be kind.".into(),
            },
            Message {
                role: None,
                content: String::new(),
            },
        ]);
        let trajectory = |prompt: Prompt, policy: &str, sample, meta: Option<&str>| Trajectory {
            prompt_id: "p".into(),
            prompt,
            policy: policy.into(),
            sample,
            response: "línea\n\u{0}".into(),
            meta: meta.map(str::to_owned),
        };
        let rows = vec![
            trajectory(chat, "b", 0, None),
            trajectory(Prompt::plain("hi"), "a", u32::MAX, Some("{}")),
            trajectory(Prompt(vec![]), "b", 3, None),
        ];
        assert_eq!(decode(&encode(&rows).unwrap()).unwrap(), rows);
        assert_eq!(
            decode(&encode(&rows).unwrap().slice(1, 2)).unwrap(),
            rows[1..]
        );
        assert_eq!(rows[0].prompt.text(), "Be kind.\n");
    }
}
