//! Files of tokenizers: what is read, and what is given by mistake.

use serde_json::{Map, Value};
use std::io;
use std::path::Path;

use super::Error;

/// What others write in front of UTF-8, and a JSON parser does not take.
const BOM: &[u8] = "\u{feff}".as_bytes();
const FILE: &str = "tokenizer.json";

const CONVERT: &str = "convert it with transformers, \
     AutoTokenizer.from_pretrained(FOLDER).save_pretrained(OUT), and give the tokenizer.json of OUT";
const BESIDE: &str = "give the tokenizer.json beside it";
const FAST: &str = "give the tokenizer.json of a fast tokenizer";

/// The bytes of a `tokenizer.json`, or of the one in a folder, without a byte order mark.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Read {
        path: path.into(),
        source,
    };
    let read = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
            match std::fs::read(path.join(FILE)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(without(path).unwrap_or_else(failed));
                }
                read => read,
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::Absent { path: path.into() });
        }
        read => read,
    };
    let mut bytes = read.map_err(failed)?;
    if bytes.starts_with(BOM) {
        bytes.drain(..BOM.len());
    }
    Ok(bytes)
}

/// A folder that has no tokenizer.
fn without(folder: &Path) -> io::Result<Error> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    let has = |name: &str| names.iter().any(|it| it == name);
    let instead = match has("tokenizer.model") || has("spiece.model") || has("vocab.json") {
        true => CONVERT,
        false => "give the folder of a fast tokenizer, or its tokenizer.json",
    };
    let more = names.len().saturating_sub(5);
    names.truncate(5);
    let holds = match (names.is_empty(), more) {
        (true, _) => "nothing".into(),
        (false, 0) => names.join(", "),
        (false, more) => format!("{} and {more} more", names.join(", ")),
    };
    Ok(Error::Folder {
        path: folder.into(),
        holds,
        instead,
    })
}

/// The object that is in the bytes.
pub(super) fn parse(bytes: &[u8]) -> Result<Map<String, Value>, Error> {
    if let Some(error) = foreign(bytes) {
        return Err(error);
    }
    let what = match serde_json::from_slice(bytes) {
        Ok(Value::Object(object)) => {
            return match object.contains_key("model") {
                true => Ok(object),
                false => Err(other(&object)),
            };
        }
        Ok(Value::Array(_)) => "a JSON array",
        Ok(Value::String(_)) => "a JSON string",
        Ok(_) => "a single JSON value",
        Err(error) => return Err(Error::Json(error)),
    };
    Err(mistaken(what, FAST))
}

fn mistaken(what: &'static str, instead: &'static str) -> Error {
    Error::Mistaken { what, instead }
}

/// Files that are no JSON at all, by their first bytes.
fn foreign(bytes: &[u8]) -> Option<Error> {
    let start = &bytes[..bytes.len().min(256)];
    let text = String::from_utf8_lossy(start).trim_start().to_lowercase();
    let begins = |magic: &[u8]| start.starts_with(magic);
    let what = if bytes.trim_ascii().is_empty() {
        ("an empty file", "download it again")
    } else if text.starts_with("version https://git-lfs.github.com/spec/") {
        (
            "a Git LFS pointer",
            "fetch the file itself with `git lfs pull`",
        )
    } else if text.starts_with("<!doctype html") || text.starts_with("<html") {
        (
            "an HTML page",
            "download the file itself, logged in if it needs that",
        )
    } else if begins(b"\xff\xfe") || begins(b"\xfe\xff") {
        ("text in UTF-16", "save it as UTF-8")
    } else if begins(b"\x1f\x8b") || begins(b"PK\x03\x04") || begins(b"\x28\xb5\x2f\xfd") {
        ("a compressed file", "unpack it first")
    } else if begins(b"\n") && start.contains(&0) {
        // A protocol buffer: the first field is a list of pieces.
        ("a SentencePiece model", CONVERT)
    } else if begins(b"#version") {
        ("a list of merges (merges.txt)", CONVERT)
    } else if text
        .split_once(['\n', ' '])
        .is_some_and(|(first, rest)| first == "iq==" && rest.starts_with('0'))
    {
        ("a tiktoken vocabulary", CONVERT)
    } else {
        return None;
    };
    Some(mistaken(what.0, what.1))
}

/// Objects of other files that lie beside a tokenizer.
fn other(object: &Map<String, Value>) -> Error {
    let has = |key: &str| object.contains_key(key);
    if has("tokenizer_class") || has("added_tokens_decoder") {
        mistaken("a tokenizer_config.json", BESIDE)
    } else if has("architectures") || has("hidden_size") || has("model_type") {
        mistaken("the configuration of a model (config.json)", BESIDE)
    } else if !object.is_empty() && object.values().all(Value::is_u64) {
        mistaken("a vocabulary (vocab.json)", BESIDE)
    } else if has("bos_token") || has("eos_token") || has("additional_special_tokens") {
        mistaken("a special_tokens_map.json", BESIDE)
    } else {
        mistaken("a JSON object without a model", FAST)
    }
}
