//! A tokenizer's files, in and out. Pure.

use crate::{Error, config::Tokens};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Separates the reference from the second prompt.
pub const SPLIT: &str = "<|reward|>";
/// Ends every sequence.
pub const REWARD: &str = "[UNUSED_TOKEN_130]";

/// Tokens that may end a text, the likeliest first.
const ENDS: [&str; 6] = [
    "</s>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<eos>",
    "<|im_end|>",
    "<|eot_id|>",
];
/// Tokens that may fill a batch, the likeliest first.
const PADS: [&str; 4] = ["<pad>", "[PAD]", "<|pad|>", "<|finetune_right_pad_id|>"];

/// A tokenizer's tokens by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vocabulary(BTreeMap<u32, String>);

/// Two tokenizers that mean different tokens by one id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The id.
    pub id: u32,
    /// What the weights were trained with.
    pub theirs: String,
    /// What the corpus has, if anything.
    pub ours: Option<String>,
}

fn parse(file: &str, bytes: &[u8]) -> Result<Map<String, Value>, Error> {
    serde_json::from_slice(bytes).map_err(|source| Error::Json {
        file: file.to_owned(),
        what: "a tokenizer.json",
        source,
    })
}

impl Vocabulary {
    /// Reads a `tokenizer.json`; `file` is its name in messages.
    ///
    /// # Errors
    /// [`Error::Json`].
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Vocabulary, Error> {
        Ok(Vocabulary::of(&parse(file, bytes)?))
    }

    fn of(json: &Map<String, Value>) -> Vocabulary {
        let mut tokens = BTreeMap::new();
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        match json.get("model").and_then(|model| model.get("vocab")) {
            Some(Value::Object(vocab)) => {
                let all = vocab
                    .iter()
                    .filter_map(|(token, at)| Some((id(at)?, token.clone())));
                tokens.extend(all);
            }
            // Unigram's: pairs of token and score, in order.
            Some(Value::Array(vocab)) => {
                let names = vocab
                    .iter()
                    .map(|entry| entry[0].as_str().unwrap_or_default());
                tokens.extend((0..).zip(names.map(str::to_owned)));
            }
            _ => {}
        }
        let added = json.get("added_tokens").and_then(Value::as_array);
        for token in added.into_iter().flatten() {
            if let (Some(at), Some(text)) = (id(&token["id"]), token["content"].as_str()) {
                tokens.insert(at, text.to_owned());
            }
        }
        Vocabulary(tokens)
    }

    /// A bound on all ids: every id is below it.
    pub fn bound(&self) -> u32 {
        self.0.keys().next_back().map_or(0, |last| last + 1)
    }

    /// How many tokens there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The id of a token.
    pub fn id(&self, token: &str) -> Option<u32> {
        let found = self.0.iter().find(|(_, text)| *text == token);
        found.map(|(&id, _)| id)
    }

    /// The first id below `rows` by which this vocabulary, that of some weights, means another token than a
    /// corpus'. A token that became one of ours is no other: reserved ones are there to be renamed.
    pub fn mismatch(&self, corpus: &Vocabulary, rows: u32) -> Option<Mismatch> {
        let own = self.0.iter().filter(|(id, _)| **id < rows);
        own.map(|(&id, theirs)| (id, theirs, corpus.0.get(&id)))
            .find(|(_, theirs, ours)| match ours {
                Some(ours) => ours != theirs && *ours != SPLIT && *ours != REWARD,
                None => true,
            })
            .map(|(id, theirs, ours)| Mismatch {
                id,
                theirs: theirs.clone(),
                ours: ours.cloned(),
            })
    }

    /// The tokens that a configuration names. `bos` and `reward` are given; what ends and fills texts is looked
    /// for by its usual names, and is the first token where there is none: a server never needs it, and it is
    /// not the reward token.
    pub fn tokens(&self, bos: u32, split: u32, reward: u32) -> Tokens {
        let find = |names: &[&str]| {
            let found = names.iter().find_map(|name| self.id(name));
            found.filter(|id| ![split, reward].contains(id))
        };
        let eos = find(&ENDS);
        Tokens {
            bos,
            eos: eos.unwrap_or(bos),
            pad: find(&PADS).or(eos).unwrap_or(bos),
            reward,
        }
    }
}

/// A tokenizer as it lies beside exported weights.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenizerFiles {
    /// `tokenizer.json`: begins every text with BOS, ends none, and reads the split and reward tokens in it.
    pub tokenizer: Value,
    /// `tokenizer_config.json`
    pub config: Value,
    /// `special_tokens_map.json`
    pub special: Value,
}

/// The files of a corpus' tokenizer for servers, which tokenize whole sequences: what a corpus never reads in
/// text, they must.
///
/// # Errors
/// [`Error::Json`]; [`Error::Token`] for an id that no token has.
pub fn exported(
    bytes: &[u8],
    tokens: Tokens,
    split: u32,
    positions: u64,
) -> Result<TokenizerFiles, Error> {
    let mut json = parse("tokenizer.json", bytes)?;
    let vocabulary = Vocabulary::of(&json);
    let name = |id: u32, role: &'static str| {
        let name = vocabulary.0.get(&id).cloned();
        name.ok_or(Error::Token { id, role })
    };
    let bos = name(tokens.bos, "BOS")?;
    let (eos, pad) = (name(tokens.eos, "EOS")?, name(tokens.pad, "padding")?);
    let (split_name, reward) = (name(split, "split")?, name(tokens.reward, "reward")?);
    for (id, text) in [
        (tokens.bos, &bos),
        (split, &split_name),
        (tokens.reward, &reward),
    ] {
        add(&mut json, id, text);
    }
    json.insert("truncation".into(), Value::Null);
    json.insert("padding".into(), Value::Null);
    json.insert("post_processor".into(), begin_with(&bos, tokens.bos));
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": bos,
        "eos_token": eos,
        "pad_token": pad,
        "additional_special_tokens": [split_name, reward],
        "model_max_length": positions,
        "padding_side": "right",
        "clean_up_tokenization_spaces": false,
        "model_input_names": ["input_ids", "attention_mask"],
    });
    let special = json!({
        "bos_token": bos,
        "eos_token": eos,
        "pad_token": pad,
        "additional_special_tokens": [split_name, reward],
    });
    Ok(TokenizerFiles {
        tokenizer: Value::Object(json),
        config,
        special,
    })
}

/// Adds a token, or marks one that is there, as special: it is then read in texts, and by nothing else.
fn add(json: &mut Map<String, Value>, id: u32, text: &str) {
    let entry = json!({
        "id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true,
    });
    let added = json.entry("added_tokens").or_insert_with(|| json!([]));
    let Some(added) = added.as_array_mut() else {
        return;
    };
    match added.iter_mut().find(|token| token["id"] == id) {
        Some(there) => *there = entry,
        None => {
            added.push(entry);
            added.sort_by_key(|token| token["id"].as_u64());
        }
    }
}

/// A post-processor that puts one token before each text and nothing behind it.
fn begin_with(bos: &str, id: u32) -> Value {
    let special = json!({"SpecialToken": {"id": bos, "type_id": 0}});
    let sequence = |name: &str| json!({"Sequence": {"id": name, "type_id": 0}});
    let tokens: Map<String, Value> = [(
        bos.to_owned(),
        json!({"id": bos, "ids": [id], "tokens": [bos]}),
    )]
    .into_iter()
    .collect();
    json!({
        "type": "TemplateProcessing",
        "single": [special, sequence("A")],
        "pair": [special, sequence("A"), sequence("B")],
        "special_tokens": tokens,
    })
}

/// A tokenizer with POLAR's two tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extended {
    /// The text of its `tokenizer.json`.
    pub json: String,
    /// What was added to it, with its ids.
    pub added: Vec<(&'static str, u32)>,
}

/// A tokenizer with POLAR's two tokens, for a corpus that is to be imported with it.
///
/// # Errors
/// [`Error::Json`].
pub fn with_polar_tokens(file: &str, bytes: &[u8]) -> Result<Extended, Error> {
    let mut json = parse(file, bytes)?;
    let vocabulary = Vocabulary::of(&json);
    let missing = [SPLIT, REWARD]
        .into_iter()
        .filter(|token| vocabulary.id(token).is_none());
    let added: Vec<(&str, u32)> = missing.zip(vocabulary.bound()..).collect();
    for &(token, id) in &added {
        add(&mut json, id, token);
    }
    let json = Value::Object(json).to_string();
    Ok(Extended { json, added })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenizer() -> Vec<u8> {
        let json = json!({
            "version": "1.0", "truncation": {"max_length": 4}, "padding": null,
            "added_tokens": [{"id": 0, "content": "<s>", "special": true}],
            "post_processor": {"type": "ByteLevel"},
            "model": {"type": "BPE", "vocab": {"a": 1, "b": 2, "</s>": 3}, "merges": []},
        });
        json.to_string().into_bytes()
    }

    #[test]
    fn a_tokenizer_gets_what_it_lacks_behind_its_last_id() {
        let Extended { json, added } = with_polar_tokens("t", &tokenizer()).unwrap();
        assert_eq!(added, [(SPLIT, 4), (REWARD, 5)]);
        let again = with_polar_tokens("t", json.as_bytes()).unwrap();
        assert_eq!((again.json, again.added), (json, vec![]));
    }

    #[test]
    fn servers_begin_texts_once_and_read_our_tokens_in_them() {
        let Extended { json, .. } = with_polar_tokens("t", &tokenizer()).unwrap();
        let tokens = Vocabulary::parse("t", json.as_bytes())
            .unwrap()
            .tokens(0, 4, 5);
        assert_eq!(
            (tokens.eos, tokens.pad),
            (3, 3),
            "what ends a text also fills a batch"
        );
        let files = exported(json.as_bytes(), tokens, 4, 128).unwrap();
        let single = &files.tokenizer["post_processor"]["single"];
        assert_eq!(
            single.as_array().unwrap().len(),
            2,
            "BOS, the text, and no EOS: {single}"
        );
        assert_eq!(single[0]["SpecialToken"]["id"], "<s>");
        assert_eq!(files.tokenizer["truncation"], Value::Null);
        assert_eq!(
            files.config["additional_special_tokens"],
            json!([SPLIT, REWARD])
        );
        let refused = exported(
            json.as_bytes(),
            Tokens {
                reward: 9,
                ..tokens
            },
            4,
            128,
        );
        assert!(matches!(refused, Err(Error::Token { id: 9, .. })));
    }

    #[test]
    fn another_vocabulary_is_told_by_the_first_token_that_differs() {
        let theirs = Vocabulary::parse("t", &tokenizer()).unwrap();
        let Extended { json, .. } = with_polar_tokens("t", &tokenizer()).unwrap();
        let corpus = Vocabulary::parse("t", json.as_bytes()).unwrap();
        assert_eq!(theirs.mismatch(&corpus, 100), None);
        let swapped = String::from_utf8(tokenizer()).unwrap();
        let swapped = swapped.replace("\"a\":1,\"b\":2", "\"a\":2,\"b\":1");
        let swapped = Vocabulary::parse("t", swapped.as_bytes()).unwrap();
        let found = theirs.mismatch(&swapped, 100).unwrap();
        assert_eq!(
            (found.id, found.theirs.as_str(), found.ours.as_deref()),
            (1, "a", Some("b"))
        );
        // A reserved token that became one of ours.
        let renamed = String::from_utf8(tokenizer())
            .unwrap()
            .replace("</s>", REWARD);
        let renamed = Vocabulary::parse("t", renamed.as_bytes()).unwrap();
        assert_eq!(theirs.mismatch(&renamed, 100), None);
    }
}
