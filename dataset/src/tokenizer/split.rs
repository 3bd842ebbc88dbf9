//! Cutting a text into the pieces that a model tokenizes one by one, by automata instead of a
//! backtracking engine.

use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::{Anchored, Input, MatchKind};

/// The expression of GPT-2: what `ByteLevel` cuts by, and so the tokenizers that imports train.
pub(super) const GPT2: &str =
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// What all expressions of this family end with: of spaces before a word the last one is the word's.
const SPACES: &str = r"|\s+(?!\S)|\s+";

/// Bytes of spaces in a row up to which a backtracking engine surely comes to an end.
const MOST_SPACES: usize = 10_000;

/// Stands for a space in the vocabularies that come from SentencePiece.
pub(super) const META: char = '▁';

/// How texts are cut.
pub(super) enum Splitter {
    Expression(Box<Expression>),
    Words(Words),
}

/// Where words begin that carry their spaces as [`META`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Words {
    /// At every one of them.
    AtEach,
    /// At the first of several in a row.
    AtRuns,
}

impl Splitter {
    /// Working memory, for one thread at a time.
    pub(super) fn scratch(&self) -> Option<Cache> {
        match self {
            Self::Expression(expression) => Some(expression.dfa.create_cache()),
            Self::Words(_) => None,
        }
    }

    /// Gives the pieces of a text in order, all of them; `false` if it can't be cut here, after any
    /// number of pieces.
    pub(super) fn split<'t, E>(
        &self,
        scratch: &mut Option<Cache>,
        text: &'t str,
        mut take: impl FnMut(&'t str) -> Result<(), E>,
    ) -> Result<bool, E> {
        match (self, scratch) {
            (Self::Expression(expression), Some(cache)) => expression.split(cache, text, take),
            (Self::Expression(_), None) => Ok(false),
            (Self::Words(words), _) => {
                for piece in words.split(text) {
                    take(piece)?;
                }
                Ok(true)
            }
        }
    }
}

/// An expression that ends in [`SPACES`], without any look-around: the tail is one pattern of two, and what
/// its look-ahead does is done by hand.
pub(super) struct Expression {
    dfa: DFA,
    /// Whether it cuts words and numbers as [`GPT2`] does, which most of a text in ASCII is made of.
    has_plain_words: bool,
}

impl Expression {
    /// `None` for an expression of another form: it may mean something else to another engine.
    pub(super) fn new(expression: &str) -> Option<Self> {
        let head = expression.strip_suffix(SPACES)?;
        if possessive(head) {
            return None;
        }
        let config = DFA::config().match_kind(MatchKind::LeftmostFirst);
        let dfa = DFA::builder().configure(config).build_many(&[head, r"\s+"]);
        dfa.ok().map(|dfa| Self {
            dfa,
            has_plain_words: expression == GPT2,
        })
    }

    /// Working memory, for one thread at a time.
    pub(super) fn scratch(&self) -> Cache {
        self.dfa.create_cache()
    }

    /// As [`Splitter::split`].
    pub(super) fn split<'t, E>(
        &self,
        cache: &mut Cache,
        text: &'t str,
        mut take: impl FnMut(&'t str) -> Result<(), E>,
    ) -> Result<bool, E> {
        let mut at = 0;
        while at < text.len() {
            let Some(end) = self.end(cache, text, at) else {
                return Ok(false);
            };
            take(&text[at..end])?;
            at = end;
        }
        Ok(true)
    }

    /// Where the piece ends that begins at a place; `None` if none begins there, or one that the backtracking
    /// engine would give up on.
    fn end(&self, cache: &mut Cache, text: &str, at: usize) -> Option<usize> {
        if self.has_plain_words
            && let Some(end) = plain_word(text.as_bytes(), at)
        {
            return Some(end);
        }
        let input = Input::new(text).range(at..).anchored(Anchored::Yes);
        let found = self.dfa.try_search_fwd(cache, &input).ok()??;
        let end = found.offset();
        if end == at {
            return None;
        }
        if found.pattern().as_usize() == 0 {
            return Some(end);
        }
        if end - at > MOST_SPACES {
            return None;
        }
        // `\s+(?!\S)` leaves the last space to what follows, unless it is the only one or nothing follows.
        let last = text[at..end].char_indices().next_back()?.0;
        match end < text.len() && last > 0 {
            true => Some(at + last),
            false => Some(end),
        }
    }
}

/// Where a word of ASCII letters ends that begins at a place, or a number of ASCII digits, perhaps behind a space; `None`
/// if there is none, or if what comes next may belong to it.
fn plain_word(text: &[u8], at: usize) -> Option<usize> {
    let begin = at + usize::from(text[at] == b' ');
    let first = text.get(begin)?;
    let mut rest = text[begin..].iter();
    let length = match first.is_ascii_digit() {
        true => rest.position(|byte| !byte.is_ascii_digit()),
        false => rest.position(|byte| !byte.is_ascii_alphabetic()),
    };
    let end = length.map_or(text.len(), |length| begin + length);
    // Letters and digits beyond ASCII go on with it.
    let goes_on = text.get(end).is_some_and(|next| !next.is_ascii());
    (end > begin && !goes_on).then_some(end)
}

/// Whether an expression has repetitions that never give back: another `+` behind them, which reads here as
/// one more repetition.
fn possessive(expression: &str) -> bool {
    let counted = |rest: &str| rest.ends_with(|last: char| last.is_ascii_digit() || last == ',');
    expression.match_indices('+').any(|(at, _)| {
        let before = &expression[..at];
        before.ends_with(['?', '*', '+']) || before.strip_suffix('}').is_some_and(counted)
    })
}

impl Words {
    /// The pieces of a text in order, all of them.
    fn split(self, text: &str) -> impl Iterator<Item = &str> {
        let begins = move |&at: &usize| match self {
            Self::AtEach => at > 0,
            Self::AtRuns => at > 0 && !text[..at].ends_with(META),
        };
        let cuts = text.match_indices(META).map(|(at, _)| at).filter(begins);
        let mut from = 0;
        cuts.chain([text.len()])
            .map(move |to| &text[std::mem::replace(&mut from, to)..to])
            .filter(|piece| !piece.is_empty())
    }
}

/// The letters that byte-level models write for the 256 bytes: printable ones for themselves, others from
/// U+0100 on.
pub(super) fn byte_letters() -> [char; 256] {
    let mut unprintable = '\u{100}'..;
    std::array::from_fn(|byte| match byte {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte as u8),
        _ => unprintable.next().unwrap_or(char::REPLACEMENT_CHARACTER),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    fn cut(expression: &str, text: &str) -> Option<Vec<String>> {
        let expression = Expression::new(expression).unwrap();
        let mut pieces = Vec::new();
        let whole: Result<bool, Infallible> =
            expression.split(&mut expression.scratch(), text, |piece| {
                pieces.push(piece.to_owned());
                Ok(())
            });
        whole.unwrap().then_some(pieces)
    }

    #[test]
    fn the_last_space_belongs_to_the_word() {
        assert_eq!(
            cut(GPT2, "it's  two\u{3000}\u{3000}三 3 \n\n end  ").unwrap(),
            [
                "it", "'s", " ", " two", "\u{3000}", "\u{3000}", "三", " 3", " \n\n", " end", "  "
            ]
        );
    }

    #[test]
    fn what_another_engine_would_read_otherwise_is_not_cut() {
        assert!(Expression::new(r"\p{L}+|\s+").is_none());
        for possessive in [r"\p{L}++", r"\p{L}*+", r"a?+", r"\p{N}{1,3}+", r"a{2,}+b"] {
            assert!(Expression::new(&format!(r"{possessive}|\s+(?!\S)|\s+")).is_none());
        }
        assert!(Expression::new(r"(?<=a)b|\s+(?!\S)|\s+").is_none());
        assert_eq!(cut(r"\p{L}+|\s+(?!\S)|\s+", "a 1"), None);
        assert_eq!(cut(GPT2, &" ".repeat(MOST_SPACES + 1)), None);
    }

    #[test]
    fn plain_words_are_cut_as_the_automaton_cuts_them() {
        let by_automaton = Expression {
            has_plain_words: false,
            ..Expression::new(GPT2).unwrap()
        };
        let plain = Expression::new(GPT2).unwrap();
        // Every sequence of four of these.
        let letters = [" ", "a", "Z", "7", "'", "s", "\n", "é", "٣", "\u{301}", "-"];
        let mut texts = vec![String::new()];
        for _ in 0..4 {
            let longer = texts
                .iter()
                .flat_map(|text| letters.map(|letter| text.clone() + letter));
            texts = longer.collect();
        }
        let (mut one, mut other) = (by_automaton.scratch(), plain.scratch());
        for text in texts {
            let mut at = 0;
            while at < text.len() {
                let end = by_automaton.end(&mut one, &text, at).unwrap();
                assert_eq!(plain.end(&mut other, &text, at), Some(end), "{text:?} {at}");
                at = end;
            }
        }
    }

    #[test]
    fn words_begin_with_their_spaces() {
        let cut = |words: Words, text| words.split(text).collect::<Vec<_>>();
        assert_eq!(cut(Words::AtRuns, "a▁▁b▁"), ["a", "▁▁b", "▁"]);
        assert_eq!(cut(Words::AtEach, "▁a▁▁b"), ["▁a", "▁", "▁b"]);
        assert_eq!(cut(Words::AtEach, "ab"), ["ab"]);
    }
}
