//! From ranked answers to pairs, as the paper's fine-tuning makes them: the best one is the reference, and of
//! any two others the better one is chosen.

/// An answer and its score.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scored<'a> {
    pub(crate) response: &'a str,
    /// The higher the better.
    pub(crate) score: f64,
}

/// A pair of ranked answers, by their positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ranked {
    pub(crate) reference: Option<usize>,
    pub(crate) chosen: usize,
    pub(crate) rejected: usize,
}

/// All pairs of answers to one prompt. With `best` the best answer is their reference, and the first of
/// several that are best; answers of equal scores or texts make no pair.
pub(crate) fn ranked(answers: &[Scored<'_>], best: bool) -> Vec<Ranked> {
    let mut order: Vec<usize> = (0..answers.len()).collect();
    // Stable: of equals the one that came first stays first.
    order.sort_by(|&a, &b| answers[b].score.total_cmp(&answers[a].score));
    let (reference, candidates) = match (best, order.split_first()) {
        (true, Some((&first, rest))) => (Some(first), rest),
        _ => (None, &order[..]),
    };
    let mut pairs = Vec::new();
    for (at, &chosen) in candidates.iter().enumerate() {
        for &rejected in &candidates[at + 1..] {
            let (better, worse) = (&answers[chosen], &answers[rejected]);
            if better.score > worse.score && better.response != worse.response {
                pairs.push(Ranked {
                    reference,
                    chosen,
                    rejected,
                });
            }
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(scores: &[f64], best: bool) -> Vec<(Option<usize>, usize, usize)> {
        const TEXTS: [&str; 4] = ["a", "b", "c", "d"];
        let answers = scores.iter().zip(TEXTS);
        let answers: Vec<Scored<'_>> = answers
            .map(|(&score, response)| Scored { response, score })
            .collect();
        let pairs = ranked(&answers, best).into_iter();
        pairs
            .map(|pair| (pair.reference, pair.chosen, pair.rejected))
            .collect()
    }

    #[test]
    fn the_best_is_the_reference_of_all_strict_pairs_among_the_others() {
        assert_eq!(pairs(&[1.0, 3.0, 2.0], true), [(Some(1), 2, 0)]);
        assert_eq!(
            pairs(&[4.0, 3.0, 2.0, 2.0], true),
            [(Some(0), 1, 2), (Some(0), 1, 3)]
        );
        assert_eq!(pairs(&[1.0, 2.0], true), []);
        assert_eq!(pairs(&[1.0, 2.0], false), [(None, 1, 0)]);
        assert_eq!(pairs(&[1.0, 1.0, 1.0], false), []);
        assert_eq!(pairs(&[], true), []);
    }
}
