//! Tokenizing piece by piece: the model of the library is asked for every piece once, and what it said is
//! remembered. So the tokens are the library's; what is our own is how a text is prepared and cut.

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};

use ahash::AHashMap;
use regex_automata::hybrid::dfa::Cache;
use serde_json::{Value, json};
use tokenizers::{Model, NormalizedString, Normalizer};

use super::split::{Expression, GPT2, META, Splitter, Words, byte_letters};

/// Pieces that a thread remembers before it begins anew.
const MOST_PIECES: usize = 1 << 16;
/// Longer pieces seldom come twice.
const LONGEST_PIECE: usize = 64;
/// Added words that are looked for in every text, one after the other.
const MOST_WORDS: usize = 64;

/// Texts on which the tokens are compared with the library's, of what makes tokenizers differ: contractions,
/// spaces of all kinds, numbers, scripts, marks, special tokens spelled out.
const SAMPLE: [&str; 12] = [
    "It's what they'd've said: I'LL go, we're done 'S '\u{17f} don't  y'all",
    " leading, trailing  \ttabs\t \tand   many    spaces     here ",
    "def f(x: int) -> str:\n    return f\"{x:>8}\"  # 12345678 1,234.50 3\u{bd} \u{2167} \u{b2}\r\n\r\n  end",
    "na\u{ef}ve cafe\u{301} A\u{30a}ngstro\u{308}m \u{fb01}ne \u{212b} \u{212a} \u{1e9e} \u{130} \u{131} \u{e7}",
    "\u{41f}\u{440}\u{438}\u{432}\u{435}\u{442} \u{3b1}\u{3b2}\u{3b3}, \u{5e9}\u{5dc}\u{5d5}\u{5dd} \u{663}\u{664} \u{939}\u{93f}\u{928}\u{94d}\u{926}\u{940} \u{e44}\u{e17}\u{e22}",
    "\u{65e5}\u{672c}\u{8a9e}\u{3002}\u{4e2d}\u{6587}\u{ff0c}\u{d55c}\u{ad6d}\u{c5b4} \u{3000}\u{ff21}\u{ff11}\u{3000}",
    "\u{1f980}\u{1f980} \u{1f469}\u{200d}\u{1f467} \u{1f1e9}\u{1f1ea} \u{2764}\u{fe0f} \u{2026} \u{201c}a\u{201d} \u{20ac}1",
    "a\u{a0}b\u{202f}c\u{2009} d\u{200b}e \u{feff}f\u{ad}g\u{0}h\u{85}\u{2028} \u{85} i",
    "<s> </s><unk> a<|reward|>b [UNUSED_TOKEN_130] <|endoftext|> \u{2581} \u{2581}\u{2581}a \u{2581}b\u{2581}c",
    "... !!! ??? === /// \\\\ @@@ $$$ ((())) [[]] {{}} <<>> -- #1 http://example.org/a_b?c=d&e#f",
    "\n\n\n\t\t\n \n  \n",
    "A sentence, and another one. The model tokenizes words like these every day of the year.",
];

/// Why the library does it alone.
pub(super) type Reason = &'static str;

/// A tokenizer's way of doing it piece by piece.
pub(super) struct Pieces {
    prepare: Prepare,
    splitter: Splitter,
    /// The letters of bytes, where the model knows these.
    letters: Option<Box<[char; 256]>>,
    /// Added tokens that are recognized in texts: one that has any of them is left to the library.
    words: Vec<String>,
    /// Of threads that are not tokenizing now.
    memories: Mutex<Vec<Memory>>,
}

/// What becomes of a text before it is cut.
struct Prepare {
    normal: Normal,
    spaces: Spaces,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Normal {
    /// There is no normalizer.
    Nothing,
    /// One that changes no ASCII text.
    Unicode,
    /// Another one.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spaces {
    Keep,
    /// One more in front of a text that begins with none.
    Prefix,
    /// [`META`] for each.
    Meta(Front),
}

/// Whether a [`META`] more begins the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Front {
    Never,
    IfNone,
    Always,
}

#[derive(Default)]
struct Memory {
    scratch: Option<Cache>,
    /// Where in `ids` the tokens of a piece are.
    known: AHashMap<Box<str>, (u32, u32)>,
    ids: Vec<u32>,
    /// A piece in the model's letters.
    piece: String,
}

impl std::fmt::Debug for Pieces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pieces").finish_non_exhaustive()
    }
}

impl Pieces {
    /// For a tokenizer whose `tokenizer.json` this is, without truncation, padding and dropout.
    pub(super) fn of(json: &Value, inner: &tokenizers::Tokenizer) -> Result<Self, Reason> {
        if !adds_nothing(&json["post_processor"]) {
            return Err("its post-processor may change the tokens");
        }
        let (prepare, splitter) = cutting(json)?;
        let byte_level = matches!(splitter, Splitter::Expression(_));
        let pieces = Self {
            words: words(json, prepare.normal)?,
            prepare,
            splitter,
            letters: byte_level.then(|| Box::new(byte_letters())),
            memories: Mutex::default(),
        };
        match pieces.agrees(inner) {
            true => Ok(pieces),
            false => Err("its tokens differ from the library's on a sample"),
        }
    }

    /// Whether a sample of what texts hold gets the library's tokens.
    fn agrees(&self, inner: &tokenizers::Tokenizer) -> bool {
        let alike = |text: &str| {
            let theirs = inner.encode_fast(text, false);
            match (self.encode(inner, text), theirs) {
                (Ok(Some(ours)), Ok(theirs)) => ours == theirs.get_ids(),
                (Ok(None), _) | (Err(_), Err(_)) => true,
                _ => false,
            }
        };
        SAMPLE.into_iter().all(alike) && alike(&SAMPLE.join("\n"))
    }

    /// The library's tokens of a text; `None` where only the library itself knows them.
    pub(super) fn encode(
        &self,
        inner: &tokenizers::Tokenizer,
        text: &str,
    ) -> Result<Option<Vec<u32>>, tokenizers::Error> {
        if text.is_empty() || self.words.iter().any(|word| text.contains(word)) {
            return Ok(None);
        }
        let normal = self.prepare.normalize(inner, text)?;
        if normal != text && self.words.iter().any(|word| normal.contains(word)) {
            return Ok(None);
        }
        let ready = self.prepare.space(&normal);
        let mut memory = self.memory();
        let Memory {
            scratch,
            known,
            ids,
            piece: buffer,
        } = &mut memory;
        let mut tokens = Vec::with_capacity(ready.len() / 4);
        let whole = self.splitter.split(scratch, &ready, |piece| {
            if let Some(&(from, to)) = known.get(piece) {
                tokens.extend_from_slice(&ids[from as usize..to as usize]);
                return Ok(());
            }
            let letters = match &self.letters {
                None => piece,
                Some(letters) => {
                    buffer.clear();
                    buffer.extend(piece.bytes().map(|byte| letters[usize::from(byte)]));
                    &buffer[..]
                }
            };
            let begun = tokens.len();
            let found = inner.get_model().tokenize(letters)?;
            tokens.extend(found.into_iter().map(|token| token.id));
            if piece.len() <= LONGEST_PIECE {
                if known.len() >= MOST_PIECES {
                    known.clear();
                    ids.clear();
                }
                let from = ids.len() as u32;
                ids.extend_from_slice(&tokens[begun..]);
                known.insert(piece.into(), (from, ids.len() as u32));
            }
            Ok::<_, tokenizers::Error>(())
        })?;
        self.memories().push(memory);
        Ok(whole.then_some(tokens))
    }

    /// What some thread left, or an empty one.
    fn memory(&self) -> Memory {
        let left = self.memories().pop();
        left.unwrap_or_else(|| Memory {
            scratch: self.splitter.scratch(),
            ..Memory::default()
        })
    }

    fn memories(&self) -> std::sync::MutexGuard<'_, Vec<Memory>> {
        let memories = self.memories.lock();
        // Nothing is ever left half done behind the lock.
        memories.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Prepare {
    fn normalize<'t>(
        &self,
        inner: &tokenizers::Tokenizer,
        text: &'t str,
    ) -> Result<Cow<'t, str>, tokenizers::Error> {
        let normalizer = match self.normal {
            Normal::Nothing => None,
            Normal::Unicode if text.is_ascii() => None,
            Normal::Unicode | Normal::Other => inner.get_normalizer(),
        };
        let Some(normalizer) = normalizer else {
            return Ok(text.into());
        };
        let mut normalized = NormalizedString::from(text);
        normalizer.normalize(&mut normalized)?;
        Ok(normalized.get().to_owned().into())
    }

    fn space<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self.spaces {
            Spaces::Prefix if !text.starts_with(' ') => format!(" {text}").into(),
            Spaces::Keep | Spaces::Prefix => text.into(),
            Spaces::Meta(front) => {
                let has = text.starts_with([' ', META]);
                let more = front == Front::Always || front == Front::IfNone && !has;
                let mut spaced = String::with_capacity(text.len() * 5 / 4 + META.len_utf8());
                spaced.extend(more.then_some(META));
                for (nth, word) in text.split(' ').enumerate() {
                    spaced.extend((nth > 0).then_some(META));
                    spaced.push_str(word);
                }
                spaced.into()
            }
        }
    }
}

/// How a tokenizer prepares and cuts texts.
fn cutting(json: &Value) -> Result<(Prepare, Splitter), Reason> {
    let normal = normal(&json["normalizer"]);
    match by_expression(&json["pre_tokenizer"]) {
        Some((expression, spaces)) => {
            let expression = Expression::new(expression);
            let expression =
                expression.ok_or("its pre-tokenizer's expression is of no known form")?;
            Ok((
                Prepare { normal, spaces },
                Splitter::Expression(Box::new(expression)),
            ))
        }
        None => by_words(json),
    }
}

fn normal(normalizer: &Value) -> Normal {
    match normalizer["type"].as_str() {
        Some("NFC" | "NFD" | "NFKC" | "NFKD") => Normal::Unicode,
        _ if normalizer.is_null() => Normal::Nothing,
        _ => Normal::Other,
    }
}

/// The expression that a byte-level pre-tokenizer cuts by.
fn by_expression(pre_tokenizer: &Value) -> Option<(&str, Spaces)> {
    let byte_level = |it: &Value, cuts: bool| {
        it["type"] == "ByteLevel" && it["use_regex"].as_bool().unwrap_or(true) == cuts
    };
    if byte_level(pre_tokenizer, true) {
        return match pre_tokenizer["add_prefix_space"].as_bool()? {
            true => Some((GPT2, Spaces::Prefix)),
            false => Some((GPT2, Spaces::Keep)),
        };
    }
    let steps = pre_tokenizer["pretokenizers"].as_array()?;
    match &steps[..] {
        [split, letters]
            if split["type"] == "Split"
                && split["behavior"] == "Isolated"
                && split["invert"] == false
                && byte_level(letters, false)
                && letters["add_prefix_space"] == false =>
        {
            Some((split["pattern"]["Regex"].as_str()?, Spaces::Keep))
        }
        _ => None,
    }
}

/// Tokenizers that come from SentencePiece: a space is a letter, at which a text may be cut if no token goes
/// on beyond one.
fn by_words(json: &Value) -> Result<(Prepare, Splitter), Reason> {
    const UNKNOWN: Reason = "its normalizer and pre-tokenizer are no known pair";
    let (normalizer, pre_tokenizer) = (&json["normalizer"], &json["pre_tokenizer"]);
    let meta = META.to_string();
    let prepend = json!({"type": "Prepend", "prepend": meta});
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": meta});
    let (front, cuts) = if pre_tokenizer.is_null() {
        if *normalizer == json!({"type": "Sequence", "normalizers": [prepend, replace]}) {
            (Front::Always, false)
        } else if *normalizer == replace {
            (Front::Never, false)
        } else {
            return Err(UNKNOWN);
        }
    } else {
        let known = pre_tokenizer["type"] == "Metaspace" && pre_tokenizer["replacement"] == meta;
        if !known || !normalizer.is_null() {
            return Err(UNKNOWN);
        }
        let front = match pre_tokenizer["prepend_scheme"].as_str() {
            // A text is prepared as a whole.
            Some("first" | "always") => Front::IfNone,
            Some("never") => Front::Never,
            _ => return Err(UNKNOWN),
        };
        (front, pre_tokenizer["split"].as_bool().unwrap_or(true))
    };
    let words = match cuts {
        true => Words::AtEach,
        false if keeps_words_apart(&json["model"]) => Words::AtRuns,
        false => return Err("its tokens may reach from one word into the next"),
    };
    let prepare = Prepare {
        normal: Normal::Nothing,
        spaces: Spaces::Meta(front),
    };
    Ok((prepare, Splitter::Words(words)))
}

/// Whether no merge ever joins the end of a word with the [`META`] behind it, so that words can be tokenized
/// one by one.
fn keeps_words_apart(model: &Value) -> bool {
    let apart = |left: &str, right: &str| {
        let joined = [left, right].concat();
        !joined.trim_start_matches(META).contains(META)
    };
    let merge = |merge: &Value| match merge {
        Value::String(both) => both.split_once(' ').is_some_and(|(a, b)| apart(a, b)),
        pair => match (pair[0].as_str(), pair[1].as_str()) {
            (Some(a), Some(b)) => apart(a, b),
            _ => false,
        },
    };
    let plain = ["continuing_subword_prefix", "end_of_word_suffix"];
    model["type"] == "BPE"
        && plain.iter().all(|affix| model[*affix].is_null())
        && model["ignore_merges"] != true
        && model["vocab"].get(META.to_string()).is_some()
        && model["merges"]
            .as_array()
            .is_some_and(|merges| merges.iter().all(merge))
}

/// The added tokens that are recognized in texts.
fn words(json: &Value, normal: Normal) -> Result<Vec<String>, Reason> {
    let added = json["added_tokens"].as_array().into_iter().flatten();
    let mut words = Vec::new();
    for token in added.filter(|token| token["special"] != true) {
        let word = token["content"].as_str().unwrap_or_default();
        // These are looked for as the normalizer leaves them.
        let plain = match normal {
            _ if json["normalizer"].is_null() => true,
            Normal::Unicode => word.is_ascii(),
            Normal::Nothing | Normal::Other => token["normalized"] == false,
        };
        if !plain {
            return Err("it has added words that its normalizer changes");
        }
        words.push(word.to_owned());
    }
    match words.len() <= MOST_WORDS {
        true => Ok(words),
        false => Err("it has many added words"),
    }
}

/// Whether a post-processor leaves the tokens as they are when no special ones are asked for.
fn adds_nothing(post_processor: &Value) -> bool {
    match post_processor["type"].as_str() {
        None => post_processor.is_null(),
        Some("ByteLevel" | "RobertaProcessing" | "BertProcessing") => true,
        Some("TemplateProcessing") => {
            let pieces = post_processor["single"].as_array();
            let sequences = pieces
                .into_iter()
                .flatten()
                .filter_map(|it| it.get("Sequence"));
            sequences.map(|it| &it["id"]).eq(["A"])
        }
        Some("Sequence") => {
            let steps = post_processor["processors"].as_array();
            steps.is_some_and(|steps| steps.iter().all(adds_nothing))
        }
        Some(_) => false,
    }
}
