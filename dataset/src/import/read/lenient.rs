//! JSON as careless programs write it: NaN and infinities, halves of surrogate pairs, whole numbers of any
//! length. Only for records that are no JSON as they stand.

use serde_json::{Map, Value};

use super::Wanted;
use super::json::{self, Names};
use super::record::{Fields, Malformed};

/// The wanted columns of a text that is one object but for what can be repaired.
pub(super) fn fields(text: &[u8], wanted: &Wanted) -> Result<Fields, Malformed> {
    let broken = || Malformed::new("is not JSON");
    let mut at = Cursor { text, at: 0 };
    let mut names = Names::default();
    let (mut values, mut repairs) = (Map::new(), 0);
    at.expect(b'{').ok_or_else(broken)?;
    if at.peek() == Some(b'}') {
        at.at += 1;
    } else {
        loop {
            let (name, value) = at.pair().ok_or_else(broken)?;
            let repaired = repair(value);
            let text = repaired.as_ref().map_or(value, |(text, _)| text);
            names.push(&name);
            if wanted.has(&name) {
                let value = root(text).ok_or_else(broken)?;
                values.insert(name, value);
                repairs += repaired.map_or(0, |(_, count)| count);
            } else if !json::is_value(text) {
                return Err(broken());
            }
            match at.next() {
                Some(b',') => {}
                Some(b'}') => break,
                _ => return Err(broken()),
            }
        }
    }
    match at.peek() {
        None => Ok(Fields {
            values,
            columns: names.shared(),
            repairs,
        }),
        Some(_) => Err(broken()),
    }
}

/// A column's value. A whole number keeps its digits: where 64 bits don't, as text.
fn root(text: &[u8]) -> Option<Value> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let value = json::value(text)?;
    match &value {
        Value::Number(number) if number.is_f64() && digits.iter().all(u8::is_ascii_digit) => {
            Some(Value::String(std::str::from_utf8(text).ok()?.to_owned()))
        }
        _ => Some(value),
    }
}

struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// The next byte that is no white space, without taking it.
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.text[self.at..];
        let blank = rest.iter().take_while(|b| b.is_ascii_whitespace()).count();
        self.at += blank;
        self.text.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek();
        self.at += usize::from(byte.is_some());
        byte
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    /// A name, and the text of its value.
    fn pair(&mut self) -> Option<(String, &'a [u8])> {
        self.peek()?;
        let name = self.string()?;
        let repaired = repair(name);
        let name = repaired.as_ref().map_or(name, |(text, _)| text);
        let name = serde_json::from_slice(name).ok()?;
        self.expect(b':')?;
        self.peek()?;
        Some((name, self.skip()?))
    }

    /// The text of a string, with its quotes.
    fn string(&mut self) -> Option<&'a [u8]> {
        let begin = self.at;
        if self.text.get(begin) != Some(&b'"') {
            return None;
        }
        self.at = string_end(self.text, begin + 1)?;
        Some(&self.text[begin..self.at])
    }

    /// The text of a value, whatever is in it; brackets are only counted.
    fn skip(&mut self) -> Option<&'a [u8]> {
        let (begin, mut depth) = (self.at, 0_usize);
        loop {
            match self.text.get(self.at)? {
                b'"' => self.at = string_end(self.text, self.at + 1)?,
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' | b',' if depth == 0 => break,
                b'}' | b']' => {
                    depth -= 1;
                    self.at += 1;
                }
                _ => self.at += 1,
            }
        }
        Some(self.text[begin..self.at].trim_ascii())
    }
}

/// Where a string ends that has begun before: past its closing quote.
fn string_end(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// The text with nulls for NaN and infinities and U+FFFD for halves of pairs, and how many there were;
/// `None` if there were none.
fn repair(text: &[u8]) -> Option<(Vec<u8>, u32)> {
    let mut repaired: Option<(Vec<u8>, u32)> = None;
    let (mut at, mut copied, mut in_string) = (0, 0, false);
    while at < text.len() {
        let rest = &text[at..];
        let (length, by): (usize, &[u8]) = match in_string {
            true if rest[0] == b'\\' => match escape(rest) {
                Escape::Whole(length) => {
                    at += length;
                    continue;
                }
                Escape::Half => (6, b"\\ufffd"),
            },
            _ if rest[0] == b'"' => {
                in_string = !in_string;
                at += 1;
                continue;
            }
            true => {
                at += 1;
                continue;
            }
            false => match literal(rest) {
                Some(length) => (length, b"null"),
                None => {
                    at += 1;
                    continue;
                }
            },
        };
        let (to, count) = repaired.get_or_insert_with(|| (Vec::with_capacity(text.len()), 0));
        to.extend_from_slice(&text[copied..at]);
        to.extend_from_slice(by);
        *count += 1;
        at += length;
        copied = at;
    }
    if let Some((to, _)) = &mut repaired {
        to.extend_from_slice(&text[copied..]);
    }
    repaired
}

enum Escape {
    /// An escape of so many bytes, right or wrong.
    Whole(usize),
    /// Half of a surrogate pair.
    Half,
}

fn escape(rest: &[u8]) -> Escape {
    match unit(rest) {
        Some(0xd800..=0xdbff) => match rest.get(6..).and_then(unit) {
            Some(0xdc00..=0xdfff) => Escape::Whole(12),
            _ => Escape::Half,
        },
        Some(0xdc00..=0xdfff) => Escape::Half,
        _ => Escape::Whole(2),
    }
}

/// The UTF-16 unit of a `\uXXXX`.
fn unit(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    let digits = std::str::from_utf8(digits).ok()?;
    u16::from_str_radix(digits, 16).ok()
}

/// How long a number is that no JSON can hold.
fn literal(rest: &[u8]) -> Option<usize> {
    let words: [&[u8]; 4] = [b"NaN", b"Infinity", b"-Infinity", b"-NaN"];
    let word = words.iter().find(|word| rest.starts_with(word))?;
    let ended = rest
        .get(word.len())
        .is_none_or(|b| !b.is_ascii_alphanumeric());
    ended.then_some(word.len())
}
