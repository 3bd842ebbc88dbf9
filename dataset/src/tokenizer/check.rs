//! What is asked of a tokenizer that comes from elsewhere before a corpus is made with it.

use serde_json::{Map, Value};
use std::collections::BTreeMap;
use tokenizers::{Model, ModelWrapper};

use super::split::byte_letters;
use super::{BOS, Error, REWARD, SPLIT, Tokenizer};

/// Names of tokens in a message.
const NAMED: usize = 5;

/// Switches off what a corpus has no use for, and marks our own tokens as special; says what was changed and
/// what may surprise.
pub(super) fn adjust(json: &mut Map<String, Value>) -> Vec<String> {
    let mut notes = Vec::new();
    let mut off = |value: Option<&mut Value>, note: &dyn Fn(&Value) -> String| {
        if let Some(value) = value.filter(|value| !value.is_null()) {
            notes.push(note(value));
            *value = Value::Null;
        }
    };
    off(json.get_mut("truncation"), &|it| {
        let most = &it["max_length"];
        format!("its truncation to {most} tokens is off: max_prompt and max_response cut texts")
    });
    off(json.get_mut("padding"), &|_| {
        "its padding is off: texts are packed without any".into()
    });
    let dropout = json
        .get_mut("model")
        .and_then(|model| model.get_mut("dropout"));
    off(
        dropout.filter(|dropout| dropout.as_f64() != Some(0.0)),
        &|it| format!("its dropout of {it} is off: a text always has the same tokens"),
    );

    let (mut unmarked, mut stripping, mut words) = (vec![], vec![], vec![]);
    let tokens = json.get_mut("added_tokens").and_then(Value::as_array_mut);
    for token in tokens.into_iter().flatten() {
        let name = token["content"].as_str().unwrap_or_default().to_owned();
        let ours = BOS.contains(&&*name) || name == SPLIT || name == REWARD;
        if ours && token["special"] != true {
            token["special"] = Value::Bool(true);
            unmarked.push(name.clone());
        }
        let strips = token["lstrip"] == true || token["rstrip"] == true;
        match token["special"] == true {
            false => words.push(name),
            true if strips => stripping.push(name),
            true => {}
        }
    }
    let mut note = |names: Vec<String>, what: &str| {
        if !names.is_empty() {
            notes.push(format!("{}: {what}", named(&names)));
        }
    };
    note(
        unmarked,
        "not marked as special in the file, and taken as special",
    );
    note(
        stripping,
        "would take the spaces beside them (lstrip, rstrip), but no text is ever read as a special token",
    );
    note(
        words,
        "added tokens that aren't special, and so are recognized in texts",
    );
    notes
}

/// Refuses a tokenizer that would give a model rows that no token has, lose text, or let text forge a special
/// token. `json` is what it was made from.
pub(super) fn refuse(json: &Map<String, Value>, tokenizer: &Tokenizer) -> Result<(), Error> {
    ids(json, tokenizer)?;
    unknown(json, tokenizer)?;
    for name in BOS.into_iter().chain([SPLIT, REWARD]) {
        for text in [
            format!("a{name}b"),
            format!(" {name} "),
            format!("\n{name}\n"),
            format!("{name}{name}"),
        ] {
            tokenizer.encode(&text)?;
        }
    }
    Ok(())
}

/// The library numbers added tokens itself, whatever the file says.
fn ids(json: &Map<String, Value>, tokenizer: &Tokenizer) -> Result<(), Error> {
    let added = json.get("added_tokens").and_then(Value::as_array);
    for token in added.into_iter().flatten() {
        let name = token["content"].as_str().unwrap_or_default();
        if let (Some(id), Some(place)) = (token["id"].as_u64(), tokenizer.inner.token_to_id(name))
            && id != u64::from(place)
        {
            let token = name.into();
            return Err(Error::Id { token, id, place });
        }
    }
    let by_id: BTreeMap<(u32, String), ()> = (tokenizer.inner.get_vocab(true).into_iter())
        .map(|(token, id)| ((id, token), ()))
        .collect();
    let misplaced = by_id
        .into_keys()
        .zip(0..)
        .find(|((id, _), place)| id != place);
    match misplaced {
        Some(((id, token), place)) => Err(Error::Gap { token, id, place }),
        None => Ok(()),
    }
}

/// What becomes of text that is not in the vocabulary.
fn unknown(json: &Map<String, Value>, tokenizer: &Tokenizer) -> Result<(), Error> {
    let model = tokenizer.inner.get_model();
    let lacks = |token: &str| model.token_to_id(token).is_none();
    let named = match model {
        ModelWrapper::BPE(bpe) => {
            if bpe.byte_fallback && (0..=255).all(|byte| !lacks(&format!("<0x{byte:02X}>"))) {
                return Ok(());
            }
            let dropped = match byte_level(json) {
                true => bytes_without_letter(&lacks),
                false => characters()
                    .filter(|c| lacks(&c.to_string()))
                    .map(|c| format!("'{c}'"))
                    .collect(),
            };
            match &bpe.unk_token {
                _ if byte_level(json) && dropped.is_empty() => return Ok(()),
                None => {
                    let dropped = dropped.into_iter().take(NAMED).collect();
                    return Err(Error::Drops { dropped });
                }
                Some(unk) => unk,
            }
        }
        ModelWrapper::WordPiece(model) => &model.unk_token,
        ModelWrapper::WordLevel(model) => &model.unk_token,
        ModelWrapper::Unigram(_) if json["model"]["unk_id"].is_null() => {
            let what = "its unk_id is not set".into();
            return Err(Error::Unknown { what });
        }
        ModelWrapper::Unigram(_) => return Ok(()),
    };
    match lacks(named) {
        true => {
            let what = format!("its unk_token '{named}' is not in it");
            Err(Error::Unknown { what })
        }
        false => Ok(()),
    }
}

/// Whether texts become letters of bytes.
fn byte_level(json: &Map<String, Value>) -> bool {
    let steps = ["pre_tokenizer", "normalizer"].map(|step| json.get(step).unwrap_or(&Value::Null));
    let is = |step: &Value| step["type"] == "ByteLevel";
    steps.into_iter().any(|step| {
        let inner = step["pretokenizers"]
            .as_array()
            .or_else(|| step["normalizers"].as_array());
        is(step) || inner.into_iter().flatten().any(is)
    })
}

/// Bytes that occur in UTF-8 and have no letter in the vocabulary.
fn bytes_without_letter(lacks: &dyn Fn(&str) -> bool) -> Vec<String> {
    let letters = byte_letters().into_iter().enumerate();
    let used = letters.filter(|(byte, _)| !matches!(byte, 0xC0 | 0xC1 | 0xF5..=0xFF));
    used.filter(|(_, letter)| lacks(&letter.to_string()))
        .map(|(byte, _)| format!("0x{byte:02X}"))
        .collect()
}

/// Some characters of many scripts, the commonest first.
fn characters() -> impl Iterator<Item = char> {
    let common = ('a'..='z')
        .chain('A'..='Z')
        .chain('0'..='9')
        .chain('!'..='/');
    common.chain("éßñøЖω中日한اע🦀".chars())
}

/// A few names of tokens.
fn named(names: &[String]) -> String {
    let mut text = names
        .iter()
        .take(NAMED)
        .map(|it| format!("'{it}'"))
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > NAMED {
        text += &format!(" and {} more", names.len() - NAMED);
    }
    text
}
