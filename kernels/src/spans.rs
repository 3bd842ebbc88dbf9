//! Who sees whom: a pack's tokens as a forest of spans.
//!
//! A packed triplet is one tree: the shared prefix is the root, each candidate a child.
//!
//! ```text
//! tokens   0 ........ 399 | 400 .. 499 | 500 .. 619 | 620 ....
//! spans    prefix           candidate 1  candidate 2  next triplet's prefix
//! parent   -                0            0            -
//! ```

use polestar_core::Span;
use std::ops::Range;
use std::sync::Arc;

/// A forest of token spans; a token sees its ancestors' spans whole and its own span causally.
///
/// Cloning shares the forest.
#[derive(Clone, Debug)]
pub struct Spans(Arc<Forest>);

#[derive(Debug)]
struct Forest {
    spans: Vec<Span>,
    /// Per span, its ancestors from the root down, itself left out.
    ancestors: Vec<Vec<u32>>,
    /// Smallest runs of spans that are closed under `parent`: the trees, where trees do not interleave.
    trees: Vec<Range<usize>>,
}

/// Why a list of spans is not a forest over `0..T`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpansError {
    /// No span at all.
    #[error("a pack needs at least one span")]
    Empty,
    /// A span without tokens.
    #[error("span {span} has no tokens: leave it out")]
    NoTokens {
        /// Index of the span.
        span: usize,
    },
    /// A span that does not start where the one before it ended.
    #[error(
        "span {span} starts at token {start}, but the spans before it end at {expected}: list them in token order, without gaps"
    )]
    NotContiguous {
        /// Index of the span.
        span: usize,
        /// Where it starts.
        start: u32,
        /// Where it should start.
        expected: u32,
    },
    /// A span whose parent is itself or comes later.
    #[error(
        "span {span} names span {parent} as its parent: a parent must come before its children"
    )]
    ParentNotBefore {
        /// Index of the span.
        span: usize,
        /// The parent it names.
        parent: u32,
    },
    /// More tokens than `u32` counts.
    #[error(
        "span {span} ends beyond the {} tokens a pack can hold: make smaller packs",
        u32::MAX
    )]
    TooManyTokens {
        /// Index of the span.
        span: usize,
    },
}

impl Spans {
    /// Checks that `spans` cover `0..T` in order without gaps and that parents precede their children.
    ///
    /// # Errors
    /// The first span that breaks one of these rules.
    pub fn new(spans: Vec<Span>) -> Result<Spans, SpansError> {
        if spans.is_empty() {
            return Err(SpansError::Empty);
        }
        let mut end = 0u32;
        let mut ancestors: Vec<Vec<u32>> = Vec::with_capacity(spans.len());
        for (index, span) in spans.iter().enumerate() {
            if span.len == 0 {
                return Err(SpansError::NoTokens { span: index });
            }
            if span.start != end {
                return Err(SpansError::NotContiguous {
                    span: index,
                    start: span.start,
                    expected: end,
                });
            }
            end = end
                .checked_add(span.len)
                .ok_or(SpansError::TooManyTokens { span: index })?;
            ancestors.push(match span.parent {
                None => Vec::new(),
                Some(parent) if (parent as usize) < index => {
                    let mut path = ancestors[parent as usize].clone();
                    path.push(parent);
                    path
                }
                Some(parent) => {
                    return Err(SpansError::ParentNotBefore {
                        span: index,
                        parent,
                    });
                }
            });
        }
        let trees = closed_runs(&spans);
        Ok(Spans(Arc::new(Forest {
            spans,
            ancestors,
            trees,
        })))
    }

    /// Independent sequences one after the other: the plain causal layout.
    ///
    /// # Errors
    /// As [`Spans::new`].
    pub fn sequences(lengths: impl IntoIterator<Item = u32>) -> Result<Spans, SpansError> {
        let mut start = 0u32;
        let spans = lengths.into_iter().map(|len| {
            let span = Span {
                start,
                len,
                parent: None,
            };
            start = start.saturating_add(len);
            span
        });
        Spans::new(spans.collect())
    }

    /// T, the number of tokens of the pack.
    pub fn tokens(&self) -> usize {
        self.spans().last().map_or(0, |span| span.range().end)
    }

    /// The spans in token order.
    pub fn spans(&self) -> &[Span] {
        &self.0.spans
    }

    /// Ancestors of a span from the root down, itself left out.
    pub(crate) fn ancestors(&self, span: usize) -> impl Iterator<Item = &Span> {
        self.ancestor_indices(span)
            .map(|ancestor| &self.0.spans[ancestor])
    }

    /// As [`ancestors`](Spans::ancestors), as places in the list.
    pub(crate) fn ancestor_indices(&self, span: usize) -> impl Iterator<Item = usize> {
        self.0.ancestors[span]
            .iter()
            .map(|&ancestor| ancestor as usize)
    }

    /// Runs of spans that see nothing outside themselves, in token order.
    pub(crate) fn trees(&self) -> &[Range<usize>] {
        &self.0.trees
    }

    /// T x T in row order: true where the row's token must not see the column's.
    pub(crate) fn hidden(&self) -> Vec<bool> {
        let tokens = self.tokens();
        let mut hidden = vec![true; tokens * tokens];
        for (index, span) in self.spans().iter().enumerate() {
            for query in span.range() {
                let row = &mut hidden[query * tokens..][..tokens];
                for ancestor in self.ancestors(index) {
                    row[ancestor.range()].fill(false);
                }
                row[span.range().start..=query].fill(false);
            }
        }
        hidden
    }
}

/// Cuts the list before every span from which on no parent lies before the cut.
fn closed_runs(spans: &[Span]) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let mut end = spans.len();
    let mut oldest_parent = usize::MAX;
    for (index, span) in spans.iter().enumerate().rev() {
        oldest_parent = oldest_parent.min(span.parent.map_or(usize::MAX, |parent| parent as usize));
        if oldest_parent >= index {
            runs.push(index..end);
            end = index;
            oldest_parent = usize::MAX;
        }
    }
    runs.reverse();
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: u32, len: u32, parent: Option<u32>) -> Span {
        Span { start, len, parent }
    }

    #[test]
    fn rules_are_enforced_with_the_span_named() {
        assert_eq!(Spans::new(vec![]).unwrap_err(), SpansError::Empty);
        let gap = Spans::new(vec![span(0, 2, None), span(3, 1, None)]);
        assert_eq!(
            gap.unwrap_err(),
            SpansError::NotContiguous {
                span: 1,
                start: 3,
                expected: 2
            }
        );
        let own_parent = Spans::new(vec![span(0, 2, Some(0))]);
        assert_eq!(
            own_parent.unwrap_err(),
            SpansError::ParentNotBefore { span: 0, parent: 0 }
        );
        let empty = Spans::new(vec![span(0, 1, None), span(1, 0, None)]);
        assert_eq!(empty.unwrap_err(), SpansError::NoTokens { span: 1 });
        let long = Spans::sequences([u32::MAX, 1]);
        assert_eq!(long.unwrap_err(), SpansError::TooManyTokens { span: 1 });
    }

    #[test]
    fn trees_are_closed_and_as_small_as_possible() {
        let forest = Spans::new(vec![
            span(0, 1, None),
            span(1, 1, Some(0)),
            span(2, 1, None),
            span(3, 1, None),
            span(4, 1, Some(2)),
            span(5, 1, None),
        ])
        .unwrap();
        assert_eq!(forest.trees(), [0..2, 2..5, 5..6]);
    }

    #[test]
    fn a_token_sees_its_ancestors_and_its_own_past() {
        let forest = Spans::new(vec![
            span(0, 2, None),
            span(2, 2, Some(0)),
            span(4, 1, Some(0)),
        ])
        .unwrap();
        let seen: Vec<String> = forest
            .hidden()
            .chunks(5)
            .map(|row| row.iter().map(|&h| if h { '.' } else { 'x' }).collect())
            .collect();
        assert_eq!(seen, ["x....", "xx...", "xxx..", "xxxx.", "xx..x"]);
    }
}
