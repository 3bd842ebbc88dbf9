//! Text to token ids and back, by a byte-level BPE trained on the corpus or by any Hugging Face
//! `tokenizer.json` with POLAR's special tokens.
//!
//! The tokens are always those of Hugging Face's library. Where a tokenizer cuts texts into pieces in a way
//! that is known here, its model is asked once for each distinct piece (`pieces`); where not, the library does
//! all of it, several times slower. Which of both is decided when a tokenizer is read.

mod check;
mod error;
mod file;
mod merges;
mod pieces;
mod split;
#[cfg(test)]
mod tests;
mod train;

use serde_json::{Map, Value};
use std::path::Path;

use crate::sample::SpecialTokens;
pub use error::Error;
use pieces::{Pieces, Reason};

/// Begins every sequence, under the names that tokenizers give it.
const BOS: [&str; 4] = ["<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>"];
/// Separates the reference from the second prompt.
const SPLIT: &str = "<|reward|>";
/// Ends every sequence; the reward is read there.
const REWARD: &str = "[UNUSED_TOKEN_130]";

/// A tokenizer that never adds special tokens, and never reads any in text: a response may spell
/// `<|reward|>` without becoming a split token.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    pieces: Result<Pieces, Reason>,
    special: SpecialTokens,
    vocab_size: u32,
    notes: Vec<String>,
}

/// A tokenizer that was given as a file.
#[derive(Debug)]
pub struct GivenTokenizer {
    /// Its `tokenizer.json`.
    pub bytes: Vec<u8>,
    /// What is in it.
    pub tokenizer: Tokenizer,
}

impl Tokenizer {
    /// Reads the `tokenizer.json` that a corpus is to be made with, or that of a folder. On top of what
    /// [`Tokenizer::from_bytes`] asks of it, its ids must have no gaps, and no text may get lost or forge a
    /// special token.
    ///
    /// # Errors
    /// By what is there instead, or by what is wrong with it, and what to do.
    pub fn given(path: &Path) -> Result<GivenTokenizer, Error> {
        let bytes = file::read(path)?;
        let json = file::parse(&bytes)?;
        let tokenizer = Self::of(json.clone())?;
        check::refuse(&json, &tokenizer)?;
        let tokenizer = tokenizer.tried()?;
        Ok(GivenTokenizer { bytes, tokenizer })
    }

    /// Reads a `tokenizer.json`. It must have a BOS token, `<|reward|>` (split) and
    /// `[UNUSED_TOKEN_130]` (reward).
    ///
    /// # Errors
    /// [`Error::Mistaken`], [`Error::Json`] and [`Error::Parse`] for what is no tokenizer; [`Error::Missing`],
    /// [`Error::Ambiguous`] and [`Error::Forgeable`] where special tokens are absent or not special.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        Self::of(file::parse(bytes)?)?.tried()
    }

    fn of(mut json: Map<String, Value>) -> Result<Self, Error> {
        let mut notes = check::adjust(&mut json);
        let json = Value::Object(json);
        let mut inner =
            tokenizers::Tokenizer::from_bytes(json.to_string()).map_err(Error::Parse)?;
        inner.set_encode_special_tokens(true);

        let bos = BOS.iter().find_map(|text| inner.token_to_id(text));
        let (split, reward) = (inner.token_to_id(SPLIT), inner.token_to_id(REWARD));
        let (Some(bos), Some(split), Some(reward)) = (bos, split, reward) else {
            let found = [(BOS[0], bos), (SPLIT, split), (REWARD, reward)];
            let missing = found
                .iter()
                .filter(|(_, id)| id.is_none())
                .map(|(text, _)| text.to_string());
            return Err(Error::Missing {
                missing: missing.collect(),
            });
        };
        if bos == split || bos == reward || split == reward {
            return Err(Error::Ambiguous);
        }
        // Ids may have gaps in a corpus that is there already: their number would be too small a bound.
        let vocab_size = inner
            .get_vocab(true)
            .into_values()
            .max()
            .map_or(0, |id| id.saturating_add(1));
        let special = SpecialTokens {
            bos,
            split,
            reward,
            newline: vec![],
        };
        let pieces = Pieces::of(&json, &inner);
        notes.extend(pieces.as_ref().err().map(|reason| {
            format!("tokenized by the library alone, several times slower: {reason}")
        }));
        Ok(Self {
            pieces,
            inner,
            special,
            vocab_size,
            notes,
        })
    }

    /// One that has tokenized the texts of all special tokens.
    fn tried(mut self) -> Result<Self, Error> {
        for text in BOS.into_iter().chain([SPLIT, REWARD]) {
            self.encode(text)?;
        }
        self.special.newline = self.encode("\n")?;
        Ok(self)
    }

    /// Trains a byte-level BPE with at most `vocab_size` tokens, 259 of them fixed, and returns its
    /// `tokenizer.json`. The same texts in any order give the same bytes.
    ///
    /// # Errors
    /// [`Error::Vocabulary`] where not even all bytes fit; [`Error::Train`].
    pub fn train<S: AsRef<str> + Sync>(texts: &[S], vocab_size: u32) -> Result<Vec<u8>, Error> {
        train::train(texts, vocab_size)
    }

    /// The ids of a text: no special tokens added, none recognized.
    ///
    /// # Errors
    /// [`Error::Encode`]; [`Error::Forgeable`] if the text came out as a special token.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        let failed = |source| Error::Encode {
            bytes: text.len(),
            source,
        };
        let by_pieces = match &self.pieces {
            Ok(pieces) => pieces.encode(&self.inner, text).map_err(failed)?,
            Err(_) => None,
        };
        let ids = match by_pieces {
            Some(ids) => ids,
            None => self.by_library(text).map_err(failed)?,
        };
        let SpecialTokens {
            bos, split, reward, ..
        } = self.special;
        let forged = ids.iter().find(|id| [bos, split, reward].contains(id));
        match forged {
            Some(&token) if token == split => Err(Error::Forgeable { name: SPLIT, token }),
            Some(&token) if token == reward => Err(Error::Forgeable {
                name: REWARD,
                token,
            }),
            Some(&token) => {
                let mut names = BOS.into_iter();
                let name = names.find(|name| self.inner.token_to_id(name) == Some(token));
                let name = name.unwrap_or(BOS[0]);
                Err(Error::Forgeable { name, token })
            }
            None => Ok(ids),
        }
    }

    fn by_library(&self, text: &str) -> Result<Vec<u32>, tokenizers::Error> {
        let encoding = self.inner.encode_fast(text, false)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of ids, special tokens spelled out.
    ///
    /// # Errors
    /// [`Error::Decode`].
    pub fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        self.inner
            .decode(ids, false)
            .map_err(|source| Error::Decode {
                count: ids.len(),
                source,
            })
    }

    /// The token that begins every sequence.
    pub fn bos(&self) -> u32 {
        self.special.bos
    }

    /// The token between the reference and the second prompt.
    pub fn split(&self) -> u32 {
        self.special.split
    }

    /// The token that ends every sequence.
    pub fn reward(&self) -> u32 {
        self.special.reward
    }

    /// All that the layout puts between the pieces.
    pub fn special(&self) -> &SpecialTokens {
        &self.special
    }

    /// A bound on all ids: every id is below it.
    pub fn vocab_size(&self) -> u32 {
        self.vocab_size
    }

    /// What of its file was switched off or taken otherwise, and what may surprise, such as that it is slow;
    /// a line each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}
