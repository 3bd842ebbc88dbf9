//! Text to token ids and back, by a byte-level BPE trained on the corpus or by any Hugging Face
//! `tokenizer.json` with POLAR's special tokens.

use serde_json::Value;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, TokenizerBuilder};

use crate::sample::SpecialTokens;

/// Begins every sequence, under the names that tokenizers give it.
const BOS: [&str; 4] = ["<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>"];
/// Separates the reference from the second prompt.
const SPLIT: &str = "<|reward|>";
/// Ends every sequence; the reward is read there.
const REWARD: &str = "[UNUSED_TOKEN_130]";

/// Why text could not be tokenized, or a tokenizer not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are no tokenizer.
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
        "the tokenizer gives the same id to two of <s>, {SPLIT} and {REWARD}; they must differ"
    )]
    Ambiguous,
    /// Text came out as a special token.
    #[error(
        "the tokenizer turns plain text into the special token {token}, so a response could \
         forge it; use another tokenizer"
    )]
    Forgeable {
        /// The token's id.
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

/// A tokenizer that never adds special tokens, and never reads any in text: a response may spell
/// `<|reward|>` without becoming a split token.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    special: SpecialTokens,
    vocab_size: u32,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`. It must have a BOS token, `<|reward|>` (split) and
    /// `[UNUSED_TOKEN_130]` (reward).
    ///
    /// # Errors
    /// [`Error::Parse`] for what is no tokenizer; [`Error::Missing`], [`Error::Ambiguous`] and
    /// [`Error::Forgeable`] where special tokens are absent or not special.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut json: Value = serde_json::from_slice(bytes).map_err(|e| Error::Parse(e.into()))?;
        // Lengths are clipped by the sample configuration, and only tokens marked special can be
        // kept out of the text.
        json["truncation"] = Value::Null;
        json["padding"] = Value::Null;
        for token in json["added_tokens"].as_array_mut().into_iter().flatten() {
            let ours = token["content"]
                .as_str()
                .is_some_and(|text| BOS.contains(&text) || text == SPLIT || text == REWARD);
            if ours {
                token["special"] = Value::Bool(true);
            }
        }
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
        // Ids may have gaps, so the number of tokens would be too small a bound.
        let vocab_size = inner
            .get_vocab(true)
            .into_values()
            .max()
            .map_or(0, |id| id + 1);
        let special = SpecialTokens {
            bos,
            split,
            reward,
            newline: vec![],
        };
        let mut tokenizer = Self {
            inner,
            special,
            vocab_size,
        };
        for text in BOS.into_iter().chain([SPLIT, REWARD]) {
            tokenizer.encode(text)?;
        }
        tokenizer.special.newline = tokenizer.encode("\n")?;
        Ok(tokenizer)
    }

    /// Trains a byte-level BPE with at most `vocab_size` tokens, 259 of them fixed, and returns its
    /// `tokenizer.json`. The same texts in any order give the same bytes.
    ///
    /// # Errors
    /// [`Error::Vocabulary`] where not even all bytes fit; [`Error::Train`].
    pub fn train<S: AsRef<str> + Send>(
        texts: impl Iterator<Item = S> + Send,
        vocab_size: u32,
    ) -> Result<Vec<u8>, Error> {
        let special = [BOS[0], SPLIT, REWARD].map(|text| AddedToken::from(text, true));
        let least = 256 + special.len() as u32;
        if vocab_size < least {
            return Err(Error::Vocabulary {
                asked: vocab_size,
                least,
            });
        }
        let mut trainer = BpeTrainer::builder()
            .vocab_size(vocab_size as usize)
            .min_frequency(2)
            .show_progress(false)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .special_tokens(special.to_vec())
            .build();
        // The pre-tokenizer's expression splits letters from punctuation, so no merge can ever
        // spell a special token.
        let mut tokenizer = TokenizerBuilder::new()
            .with_model(BPE::default())
            .with_normalizer(None::<NormalizerWrapper>)
            .with_pre_tokenizer(Some(ByteLevel::new(false, false, true)))
            .with_post_processor(None::<ByteLevel>)
            .with_decoder(Some(ByteLevel::default()))
            .build()
            .map_err(Error::Train)?;
        tokenizer.train(&mut trainer, texts).map_err(Error::Train)?;
        tokenizer
            .to_string(false)
            .map(String::into_bytes)
            .map_err(Error::Train)
    }

    /// The ids of a text: no special tokens added, none recognized.
    ///
    /// # Errors
    /// [`Error::Encode`]; [`Error::Forgeable`] if the text came out as a special token.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        let encoding = self.inner.encode_fast(text, false);
        let encoding = encoding.map_err(|source| Error::Encode {
            bytes: text.len(),
            source,
        })?;
        let ids = encoding.get_ids().to_vec();
        let forged =
            |id: &&u32| [self.special.bos, self.special.split, self.special.reward].contains(id);
        match ids.iter().find(forged) {
            Some(&token) => Err(Error::Forgeable { token }),
            None => Ok(ids),
        }
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts() -> Vec<String> {
        (0..400)
            .map(|i| {
                format!(
                    "<s>the {} reward</s> <|reward|> [UNUSED_TOKEN_130] naïve\n\n{}",
                    i % 17,
                    i % 5
                )
            })
            .collect()
    }

    #[test]
    fn training_is_deterministic_in_content_and_order() {
        let bytes = Tokenizer::train(texts().into_iter(), 400).unwrap();
        assert_eq!(bytes, Tokenizer::train(texts().into_iter(), 400).unwrap());
        assert_eq!(
            bytes,
            Tokenizer::train(texts().into_iter().rev(), 400).unwrap()
        );
    }

    #[test]
    fn any_text_survives_and_none_forges_a_special_token() {
        let tokenizer =
            Tokenizer::from_bytes(&Tokenizer::train(texts().into_iter(), 400).unwrap()).unwrap();
        let ids = [tokenizer.bos(), tokenizer.split(), tokenizer.reward()];
        assert_eq!(ids, [0, 1, 2]);
        for text in [
            "a<|reward|>b",
            "<s>",
            "[UNUSED_TOKEN_130][UNUSED_TOKEN_130]",
            " \u{0}日本\r\n ",
            "",
            "<s><|reward|>",
        ] {
            let encoded = tokenizer.encode(text).unwrap();
            assert!(
                encoded
                    .iter()
                    .all(|id| !ids.contains(id) && *id < tokenizer.vocab_size()),
                "{text}"
            );
            assert_eq!(tokenizer.decode(&encoded).unwrap(), text);
        }
        assert_eq!(
            tokenizer.decode(&ids).unwrap(),
            "<s><|reward|>[UNUSED_TOKEN_130]"
        );
    }

    #[test]
    fn a_tokenizer_without_the_special_tokens_names_them() {
        let bytes = Tokenizer::train(texts().into_iter(), 300).unwrap();
        let renamed = String::from_utf8(bytes)
            .unwrap()
            .replace("<|reward|>", "<|other|>");
        let error = Tokenizer::from_bytes(renamed.as_bytes()).unwrap_err();
        assert!(
            matches!(&error, Error::Missing { missing } if missing == &["<|reward|>"]),
            "{error}"
        );
        assert!(matches!(Tokenizer::from_bytes(b"{}"), Err(Error::Parse(_))));
        assert!(matches!(
            Tokenizer::train(texts().into_iter(), 100),
            Err(Error::Vocabulary { least: 259, .. })
        ));
    }
}
