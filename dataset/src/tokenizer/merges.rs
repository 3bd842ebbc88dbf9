//! Finding the merges of a byte-level BPE: again and again the most frequent pair of neighbours becomes a token.
//!
//! The order of merges is that of the library's trainer, down to its habits: of equally frequent pairs the one
//! with the smaller ids comes first, and a pair that turns up in further words after it was noticed is merged
//! there in a turn of its own.

use ahash::AHashMap;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

type Pair = (u32, u32);

/// A vocabulary under construction.
pub(super) struct Vocabulary {
    /// The bytes of every token.
    pub(super) tokens: Vec<Vec<u8>>,
    ids: AHashMap<Vec<u8>, u32>,
    /// Pairs of tokens, in the order in which they are merged.
    pub(super) merges: Vec<Pair>,
}

/// A distinct word, as the tokens that it is made of now.
pub(super) struct Word {
    pub(super) tokens: Vec<u32>,
    pub(super) times: i64,
}

/// A pair in a queue, the most frequent one first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    count: i64,
    pair: Reverse<Pair>,
    /// Words that it was noticed in.
    words: Vec<u32>,
}

/// Words in which pairs were noticed.
type Noticed = AHashMap<Pair, Vec<u32>>;

impl Vocabulary {
    /// Of tokens without merges.
    pub(super) fn new(tokens: Vec<Vec<u8>>) -> Self {
        let ids = tokens.iter().cloned().zip(0..).collect();
        Self {
            tokens,
            ids,
            merges: Vec::new(),
        }
    }

    /// Merges pairs that occur at least so often until there are `most` tokens.
    pub(super) fn grow(&mut self, mut words: Vec<Word>, most: usize, least_count: i64) {
        let mut counts: AHashMap<Pair, i64> = AHashMap::new();
        let mut noticed = Noticed::new();
        for (at, word) in (0..).zip(&words) {
            for pair in word.tokens.windows(2) {
                let pair = (pair[0], pair[1]);
                *counts.entry(pair).or_default() += word.times;
                notice(&mut noticed, pair, at);
            }
        }
        let mut queue = BinaryHeap::new();
        enqueue(&mut queue, &mut noticed, &counts);
        while self.ids.len() < most {
            let Some(mut top) = queue.pop() else {
                break;
            };
            let Reverse(pair) = top.pair;
            if top.count != counts[&pair] {
                top.count = counts[&pair];
                queue.push(top);
                continue;
            }
            if top.count < least_count.max(1) {
                break;
            }
            let merged = self.merge(pair);
            for at in top.words {
                let word = &mut words[at as usize];
                let times = word.times;
                word.merge(pair, merged, |pair, change| {
                    *counts.entry(pair).or_default() += change * times;
                    if change > 0 {
                        notice(&mut noticed, pair, at);
                    }
                });
            }
            enqueue(&mut queue, &mut noticed, &counts);
        }
    }

    /// The token of both, which may be there already.
    fn merge(&mut self, pair: Pair) -> u32 {
        self.merges.push(pair);
        let [left, right] = [pair.0, pair.1].map(|id| &self.tokens[id as usize][..]);
        let bytes = [left, right].concat();
        let next = self.tokens.len() as u32;
        let id = *self.ids.entry(bytes.clone()).or_insert(next);
        if id == next {
            self.tokens.push(bytes);
        }
        id
    }
}

impl Word {
    /// Replaces a pair by its token, and tells which pairs there are fewer and more of.
    fn merge(&mut self, pair: Pair, merged: u32, mut changed: impl FnMut(Pair, i64)) {
        let tokens = &mut self.tokens;
        let (mut read, mut written) = (0, 0);
        while read < tokens.len() {
            if tokens[read..].starts_with(&[pair.0, pair.1]) {
                if written > 0 {
                    let before = tokens[written - 1];
                    changed((before, pair.0), -1);
                    changed((before, merged), 1);
                }
                if let Some(&after) = tokens.get(read + 2) {
                    changed((pair.1, after), -1);
                    changed((merged, after), 1);
                }
                tokens[written] = merged;
                read += 2;
            } else {
                tokens[written] = tokens[read];
                read += 1;
            }
            written += 1;
        }
        tokens.truncate(written);
    }
}

/// Words come one after the other.
fn notice(noticed: &mut Noticed, pair: Pair, word: u32) {
    let words = noticed.entry(pair).or_default();
    if words.last() != Some(&word) {
        words.push(word);
    }
}

fn enqueue(queue: &mut BinaryHeap<Candidate>, noticed: &mut Noticed, counts: &AHashMap<Pair, i64>) {
    let candidates = noticed.drain().map(|(pair, words)| Candidate {
        count: counts[&pair],
        pair: Reverse(pair),
        words,
    });
    queue.extend(candidates.filter(|candidate| candidate.count > 0));
}
