//! What can be wrong with a tokenizer.

use std::path::PathBuf;

use super::{BOS, REWARD, SPLIT};

/// Why text could not be tokenized, or a tokenizer not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such file.
    #[error("there is no {}; give the tokenizer.json of a fast tokenizer, or the folder it is in", path.display())]
    Absent {
        /// What was given.
        path: PathBuf,
    },
    /// The file can't be read.
    #[error("could not read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// A folder without a tokenizer.
    #[error("{} is a folder without a tokenizer.json; it holds {holds}: {instead}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Some of what is in it.
        holds: String,
        /// What to do.
        instead: &'static str,
    },
    /// Something else than a tokenizer.
    #[error("this is {what}, not a tokenizer.json; {instead}")]
    Mistaken {
        /// What it is.
        what: &'static str,
        /// What to do.
        instead: &'static str,
    },
    /// The bytes are no JSON.
    #[error("this is no JSON; give the tokenizer.json of a fast tokenizer")]
    Json(#[source] serde_json::Error),
    /// The JSON is no tokenizer.
    #[error("not a Hugging Face tokenizer.json; give the tokenizer.json of a fast tokenizer")]
    Parse(#[source] tokenizers::Error),
    /// Special tokens are absent.
    #[error(
        "the tokenizer has no {}; add what is missing as special tokens (added_tokens in \
         tokenizer.json), or let the import train a tokenizer",
        missing.join(", ")
    )]
    Missing {
        /// The absent tokens.
        missing: Vec<String>,
    },
    /// Two special tokens have one id.
    #[error(
        "the tokenizer gives the same id to two of {}, {SPLIT} and {REWARD}; they must differ", BOS[0]
    )]
    Ambiguous,
    /// An added token has another id than its place in the vocabulary.
    #[error(
        "the added token '{token}' has the id {id}, but its place in the vocabulary is {place}; number \
         the added tokens without gaps from there on: every id is a row of the embedding table"
    )]
    Id {
        /// The token.
        token: String,
        /// Its id in the file.
        id: u64,
        /// The id that follows from the vocabulary.
        place: u32,
    },
    /// Ids have a gap, or tokens have one id.
    #[error(
        "the token '{token}' has the id {id}, where {place} is the next one; ids must follow one another \
         without gaps and without repetition: every id is a row of the embedding table"
    )]
    Gap {
        /// The token.
        token: String,
        /// Its id.
        id: u32,
        /// The number of tokens with smaller ids.
        place: u32,
    },
    /// Characters vanish.
    #[error(
        "the tokenizer drops what its vocabulary lacks, such as {}, without a trace; give it an \
         unk_token or byte_fallback with all 256 bytes, or use another tokenizer",
        dropped.join(" ")
    )]
    Drops {
        /// Some that vanish.
        dropped: Vec<String>,
    },
    /// There is no token for unknown text.
    #[error(
        "the tokenizer has no token for text that its vocabulary lacks: {what}; add it to the \
         vocabulary, or use another tokenizer"
    )]
    Unknown {
        /// What is absent.
        what: String,
    },
    /// Text came out as a special token.
    #[error(
        "the tokenizer turns plain text into the special token {name} ({token}), so a response could \
         forge it; use another tokenizer"
    )]
    Forgeable {
        /// The token.
        name: &'static str,
        /// Its id.
        token: u32,
    },
    /// The vocabulary is too small.
    #[error(
        "a vocabulary of {asked} is too small: the 256 bytes and 3 special tokens need {least}; \
         raise vocab_size"
    )]
    Vocabulary {
        /// What was asked for.
        asked: u32,
        /// The least possible.
        least: u32,
    },
    /// Training failed.
    #[error("could not train the tokenizer")]
    Train(#[source] tokenizers::Error),
    /// A text could not be encoded.
    #[error("could not tokenize a text of {bytes} bytes")]
    Encode {
        /// Its length.
        bytes: usize,
        /// What went wrong.
        source: tokenizers::Error,
    },
    /// Ids could not be decoded.
    #[error("could not decode {count} token ids")]
    Decode {
        /// Their number.
        count: usize,
        /// What went wrong.
        source: tokenizers::Error,
    },
}
