//! Tokenizers made of a few lines of JSON, and what they are asked for.

mod refusals;
mod tokens;

use super::*;
use serde_json::json;

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const O200K: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

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

fn trained() -> Value {
    serde_json::from_slice(&Tokenizer::train(&texts(), 400).unwrap()).unwrap()
}

/// A token of `added_tokens`.
fn added(id: u64, content: &str, special: bool) -> Value {
    json!({
        "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": special,
    })
}

/// The trained one, with something changed.
fn changed(change: impl FnOnce(&mut Value)) -> Value {
    let mut json = trained();
    change(&mut json);
    json
}

/// One that cuts by an expression.
fn cutting_by(expression: &str) -> Value {
    changed(|json| {
        json["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        ]});
        json["model"]["ignore_merges"] = json!(true);
    })
}

/// Characters with spaces among them, unknown ones as bytes, as in SentencePiece.
fn llama() -> Value {
    let specials = ["<unk>", "<s>", "</s>"].map(str::to_owned);
    let bytes = (0..256).map(|byte| format!("<0x{byte:02X}>"));
    let letters = ('a'..='z').chain("▁0123<>|'.é日".chars()).map(String::from);
    let merges = [
        "▁ t",
        "h e",
        "▁t he",
        "▁ ▁",
        "▁▁ ▁▁",
        "a n",
        "an d",
        "▁ and",
    ];
    let merged = merges.iter().map(|merge| merge.replace(' ', ""));
    let names = specials
        .into_iter()
        .chain(bytes)
        .chain(letters)
        .chain(merged);
    let vocab: serde_json::Map<String, Value> =
        names.zip(0..).map(|(name, id)| (name, json!(id))).collect();
    let next = vocab.len() as u64;
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [
            added(0, "<unk>", true), added(1, "<s>", true), added(2, "</s>", true),
            added(next, SPLIT, true), added(next + 1, REWARD, true),
        ],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ]},
        "pre_tokenizer": null,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": null,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true,
            "vocab": vocab, "merges": merges,
        },
    })
}

fn metaspace(scheme: &str, split: bool) -> Value {
    let mut json = llama();
    json["normalizer"] = Value::Null;
    json["pre_tokenizer"] = json!({
        "type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split,
    });
    json
}

/// Whole words; others are unknown.
fn words(unk: &str) -> Value {
    let vocab = json!({"the": 0, "[UNK]": 1, "reward": 2});
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(3, "<s>", true), added(4, SPLIT, true), added(5, REWARD, true)],
        "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null,
        "decoder": null, "model": {"type": "WordLevel", "vocab": vocab, "unk_token": unk},
    })
}

fn made(json: &Value) -> Tokenizer {
    Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap()
}

fn given(bytes: impl AsRef<[u8]>) -> Result<GivenTokenizer, Error> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    Tokenizer::given(file.path())
}

fn refused(json: &Value) -> String {
    given(json.to_string()).unwrap_err().to_string()
}

/// Tokenizers of every kind that is tokenized piece by piece.
fn known() -> Vec<(&'static str, Value)> {
    vec![
        ("trained", trained()),
        ("llama3", cutting_by(LLAMA3)),
        ("o200k", cutting_by(O200K)),
        (
            "prefix space",
            changed(|json| json["pre_tokenizer"]["add_prefix_space"] = json!(true)),
        ),
        (
            "nfc, added words",
            changed(|json| {
                json["normalizer"] = json!({"type": "NFC"});
                let words = json["added_tokens"].as_array_mut().unwrap();
                words.push(added(0, "the re", false));
                words.push(added(0, "K", false));
            }),
        ),
        (
            "lowercase",
            changed(|json| json["normalizer"] = json!({"type": "Lowercase"})),
        ),
        ("llama", llama()),
        ("metaspace, words", metaspace("always", true)),
        ("metaspace, runs", metaspace("first", false)),
        ("metaspace, no front", metaspace("never", true)),
    ]
}
