//! Splitting text into JSON values that stand in a list, one after the other, or over several lines.

use std::io::Read;

use bytes::Bytes;

use super::lines::Blocks;
use super::record::{Place, Raw, RawRecord, Unit};
use super::{RECORD_BYTES, Sink, open::Fault};

/// Where a search for the end of a value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between values.
    Between,
    /// In a value, so many brackets deep; at no depth it is a text or a number.
    Within { depth: usize },
    /// In a text, likewise.
    Text { depth: usize },
}

/// Hands over the values at the top of a text; those of lists at the top, one by one.
pub(super) fn objects(source: impl Read, sink: Sink<'_>) -> Result<(), Fault> {
    let mut blocks = Blocks::new(source);
    let mut number = 0;
    // Of a value that is longer than a block: how much of it is searched, and in which state that ends.
    let mut resume = Search::default();
    loop {
        let block = Bytes::from(blocks.next());
        let mut records = vec![];
        let mut search = resume;
        while let Some(value) = search.next(&block) {
            number += 1;
            records.push(record(Raw::Json(block.slice(value.0..value.1)), number));
        }
        let rest = search.begin;
        if blocks.whole() && search.state != State::Between {
            leftover(&block, rest, &mut number, &mut records);
        } else if blocks.whole() && search.lists > 0 {
            // Its values are whole, but there may have been more of them.
            records.push(record(Raw::Cut(Bytes::new()), number + 1));
        }
        if !records.is_empty() && !sink(records) {
            return Ok(());
        }
        if blocks.ended() {
            return blocks.finish(&format!("after object {number}"));
        }
        if block.len() - rest > RECORD_BYTES {
            return Err(Fault::Long(format!("object {}", number + 1)));
        }
        blocks.keep(&block[rest..]);
        resume = Search {
            begin: 0,
            at: search.at - rest,
            ..search
        };
    }
}

fn record(raw: Raw, number: u64) -> RawRecord {
    let place = Place {
        unit: Unit::Object,
        number,
        member: None,
    };
    RawRecord { place, raw }
}

/// What is left at the end: a number, or a value that is not closed. Where a line below it begins with a
/// bracket, the values from there on are taken for good ones again.
fn leftover(block: &Bytes, mut begin: usize, number: &mut u64, records: &mut Vec<RawRecord>) {
    loop {
        let again = memchr::memmem::find(&block[begin..], b"\n{").map(|at| begin + at + 1);
        *number += 1;
        let Some(again) = again else {
            records.push(record(Raw::Cut(block.slice(begin..)), *number));
            return;
        };
        records.push(record(Raw::Json(block.slice(begin..again)), *number));
        let mut search = Search::at(again);
        while let Some(value) = search.next(block) {
            *number += 1;
            records.push(record(Raw::Json(block.slice(value.0..value.1)), *number));
        }
        if search.state == State::Between {
            return;
        }
        begin = search.begin;
    }
}

#[derive(Debug, Clone, Copy)]
struct Search {
    /// Where the value begins that the search is in.
    begin: usize,
    at: usize,
    state: State,
    /// Lists at the top that are open.
    lists: usize,
}

impl Default for Search {
    fn default() -> Self {
        Self::at(0)
    }
}

impl Search {
    fn at(at: usize) -> Self {
        Self {
            begin: at,
            at,
            state: State::Between,
            lists: 0,
        }
    }

    /// Begin and end of the next value that ends in the text.
    fn next(&mut self, text: &[u8]) -> Option<(usize, usize)> {
        while let Some(&byte) = text.get(self.at) {
            match self.state {
                State::Between => self.enter(byte, text),
                State::Text { depth } => {
                    // The byte after a backslash is none of the text's end.
                    match memchr::memchr2(b'"', b'\\', &text[self.at..]) {
                        Some(found) if text[self.at + found] == b'"' => {
                            self.at += found + 1;
                            self.state = State::Within { depth };
                            if depth == 0 {
                                return Some(self.leave());
                            }
                        }
                        Some(found) if self.at + found + 1 < text.len() => self.at += found + 2,
                        // The backslash is the last byte: it is looked at again.
                        Some(found) => {
                            self.at += found;
                            return None;
                        }
                        None => self.at = text.len(),
                    }
                }
                State::Within { depth: 0 } => match byte {
                    b',' | b']' | b'{' | b'[' | 0x1e => return Some(self.leave()),
                    _ if byte.is_ascii_whitespace() => return Some(self.leave()),
                    _ => self.at += 1,
                },
                State::Within { depth } => {
                    self.at += 1;
                    match byte {
                        b'"' => self.state = State::Text { depth },
                        b'{' | b'[' => self.state = State::Within { depth: depth + 1 },
                        b'}' | b']' if depth == 1 => return Some(self.leave()),
                        b'}' | b']' => self.state = State::Within { depth: depth - 1 },
                        _ => {}
                    }
                }
            }
        }
        if self.state == State::Between {
            self.begin = self.at;
        }
        None
    }

    fn leave(&mut self) -> (usize, usize) {
        let value = (self.begin, self.at);
        self.begin = self.at;
        self.state = State::Between;
        value
    }

    /// Goes over what stands between values, into the next one.
    fn enter(&mut self, byte: u8, text: &[u8]) {
        self.begin = self.at;
        let mark = super::json::BOM;
        match byte {
            // The brackets of a list at the top, and what separates its items.
            b'[' => {
                self.at += 1;
                self.lists += 1;
            }
            b']' => {
                self.at += 1;
                self.lists = self.lists.saturating_sub(1);
            }
            b',' | 0x1e => self.at += 1,
            _ if byte.is_ascii_whitespace() => self.at += 1,
            b'{' => {
                self.at += 1;
                self.state = State::Within { depth: 1 };
            }
            b'"' => {
                self.at += 1;
                self.state = State::Text { depth: 0 };
            }
            _ if text[self.at..].starts_with(mark) => self.at += mark.len(),
            _ => {
                self.at += 1;
                self.state = State::Within { depth: 0 };
            }
        }
    }
}
