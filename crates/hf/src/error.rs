//! Why weights can't be read or written, by file and tensor.

use std::path::PathBuf;

/// Why weights can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] polestar_store::Error),
    /// There are no weights, or weights in another format.
    #[error("{url} holds no safetensors: {found}; {remedy}")]
    NoWeights {
        /// The folder.
        url: String,
        /// What is there.
        found: String,
        /// What to do.
        remedy: String,
    },
    /// A file that is needed isn't there.
    #[error("{file} is missing; {remedy}")]
    Missing {
        /// The file.
        file: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A JSON file is something else.
    #[error("{file} can't be read as {what}; download it again")]
    Json {
        /// The file.
        file: String,
        /// What it should be.
        what: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A key of a configuration is missing or of another type.
    #[error("{file}: `{key}` is missing or no {what}")]
    Key {
        /// The file.
        file: String,
        /// The key.
        key: &'static str,
        /// What it should be.
        what: &'static str,
    },
    /// The model computes something that this one doesn't.
    #[error("{file}: {what}")]
    Unsupported {
        /// The file.
        file: String,
        /// What, and why it can't be left out.
        what: String,
    },
    /// The sizes of a configuration don't fit each other.
    #[error("{file} describes no model that can be trained here")]
    Model {
        /// The file.
        file: String,
        /// Why.
        #[source]
        source: polestar_model::ModelError,
    },
    /// A safetensors file is no such file, or cut short.
    #[error("{file} {what}; download it again")]
    File {
        /// The file.
        file: String,
        /// What is wrong with it.
        what: String,
    },
    /// A tensor is missing, or another one than it should be.
    #[error("{file}: tensor {tensor} {what}")]
    Tensor {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// What is wrong with it.
        what: String,
    },
    /// The files aren't those that a trial's recipe speaks of.
    #[error(
        "{url}: {what}; this trial starts from the weights with digest {digest}. Put the old files back, or launch again for a run that starts from the new ones"
    )]
    Changed {
        /// The folder.
        url: String,
        /// What differs.
        what: String,
        /// Digest of the files that are wanted.
        digest: String,
    },
    /// The record of the files is gone or altered.
    #[error(
        "{key} is {what}, and this trial starts from the weights that it records; launch again to have it written anew"
    )]
    Record {
        /// The object.
        key: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A tokenizer lacks what an export needs.
    #[error("the tokenizer has no token with id {id}, which is its {role} token")]
    Token {
        /// The id.
        id: u32,
        /// What it is for.
        role: &'static str,
    },
    /// A weight that can't be written in the type that was asked for.
    #[error("tensor {tensor} holds {value}, which {dtype} can't hold; use --dtype bf16 or f32")]
    Range {
        /// The tensor.
        tensor: String,
        /// The value.
        value: f32,
        /// The type.
        dtype: &'static str,
    },
    /// A weight that is no number.
    #[error("tensor {tensor} holds a number that is not finite; take an earlier checkpoint")]
    NotFinite {
        /// The tensor.
        tensor: String,
    },
    /// A file can't be written.
    #[error("{} can't be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There is something where an export should go.
    #[error("{} is not empty; give --output a new folder, or remove what is there", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// The elements to write couldn't be had.
    #[error("tensor {tensor} can't be had")]
    Elements {
        /// The tensor.
        tensor: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// Whether the same may succeed later: the store's trouble, and nothing that files say.
    pub fn is_passing(&self) -> bool {
        matches!(self, Error::Store(_))
    }
}
