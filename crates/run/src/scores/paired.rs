//! Two models on the triplets that both scored.
//!
//! What is hard for one is hard for the other, so the difference of two means is far surer than either of them:
//! differences are taken triplet by triplet, and their mean is [clustered](Clustered) by prompt.

use super::Scored;
use polestar_core::Clustered;
use std::collections::{BTreeMap, BTreeSet};

/// How a first model differs from a second one on a set.
#[derive(Clone, Debug, PartialEq)]
pub struct Paired {
    /// Name of the set.
    pub set: String,
    /// Loss of the first less that of the second, in nats.
    pub loss: Clustered,
    /// Accuracy of the first less that of the second; ties count half.
    pub accuracy: Clustered,
    /// Triplets that only one of them scored.
    pub alone: usize,
}

/// Where a triplet's texts are from: set, prompt, the reference's prompt where it is another one, policies and samples.
type Key<'a> = (&'a str, &'a str, Option<&'a str>, [u32; 5]);

fn key(scored: &Scored) -> Option<Key<'_>> {
    let triplet = &scored.triplet;
    let source = triplet.source.as_ref()?;
    let answers = [
        triplet.policy,
        source.reference.sample,
        source.positive.sample,
        triplet.other,
        source.negative.sample,
    ];
    let elsewhere = source.reference_prompt_id.as_deref();
    Some((&scored.set, &source.prompt_id, elsewhere, answers))
}

/// Differences on every set of which both models scored some of the same triplets. Both must have been scored on one
/// corpus: policies and samples are its numbers. Scores that don't say their prompts pair with none.
pub fn paired(first: &[Scored], second: &[Scored]) -> Vec<Paired> {
    let (ours, theirs) = (margins(first), margins(second));
    let sets: BTreeSet<&str> = ours.keys().map(|(set, ..)| *set).collect();
    let on = |set: &str| {
        let of_set = |margins: &BTreeMap<Key<'_>, f32>| {
            let keys = margins.keys();
            keys.filter(|(of, ..)| *of == set).count()
        };
        let both: Vec<(&str, [f64; 2])> = ours
            .iter()
            .filter(|((of, ..), _)| *of == set)
            .filter_map(|(key, &margin)| Some((key.1, [margin, *theirs.get(key)?].map(f64::from))))
            .collect();
        let mean = |of: fn(f64) -> f64| {
            let differences = both.iter();
            Clustered::of(differences.map(|&(prompt, [a, b])| (prompt, of(a) - of(b))))
        };
        (!both.is_empty()).then(|| Paired {
            set: set.to_owned(),
            loss: mean(loss),
            accuracy: mean(credit),
            alone: of_set(&ours) + of_set(&theirs) - 2 * both.len(),
        })
    };
    sets.into_iter().filter_map(on).collect()
}

fn margins(scores: &[Scored]) -> BTreeMap<Key<'_>, f32> {
    let known = scores.iter();
    known.filter_map(|s| Some((key(s)?, s.margin))).collect()
}

/// -ln σ(margin), without overflow on either side.
fn loss(margin: f64) -> f64 {
    (-margin.abs()).exp().ln_1p() + (-margin).max(0.0)
}

/// One for a correct ranking, a half for a tie.
fn credit(margin: f64) -> f64 {
    match margin {
        m if m > 0.0 => 1.0,
        0.0 => 0.5,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scores::Compared;
    use polestar_core::random::Stream;
    use polestar_dataset::{AnswerSource, TripletSource};

    /// Margins on ten triplets of each of twelve prompts, some of which are far harder than others; `better` is what
    /// this model is better by.
    fn scores(better: f32) -> Vec<Scored> {
        let mut stream = Stream::new("paired", &[]);
        let mut scores = Vec::new();
        for prompt in 0..12 {
            let hard = 2.0 * stream.normal() as f32;
            for sample in 0..10 {
                let own = stream.normal() as f32;
                scores.push(Scored {
                    set: "s".to_owned(),
                    triplet: Compared {
                        policy: 0,
                        other: 1,
                        reference: 1,
                        positive: 1,
                        negative: 1,
                        source: Some(TripletSource {
                            prompt_id: prompt.to_string(),
                            reference: AnswerSource { sample, tokens: 1 },
                            ..TripletSource::default()
                        }),
                    },
                    margin: hard + own + better,
                });
            }
        }
        scores
    }

    #[test]
    fn pairs_show_what_two_intervals_would_hide() {
        let (one, mut other) = (scores(0.1), scores(0.0));
        let [found] = &paired(&one, &other)[..] else {
            panic!("one set");
        };
        assert_eq!((found.loss.observations, found.loss.clusters), (120, 12));
        let difference = found.loss.interval().unwrap();
        assert!(
            difference.hi < 0.0,
            "the better one loses less: {difference:?}"
        );
        let alone = |scores: &[Scored]| {
            let losses = scores.iter().map(|s| {
                let prompt = s.triplet.source.as_ref().unwrap().prompt_id.clone();
                (prompt, loss(f64::from(s.margin)))
            });
            Clustered::of(losses).interval().unwrap()
        };
        assert!(alone(&one).hi > alone(&other).lo, "their intervals overlap");

        // In another order, one of them scored on fewer, and one without sources.
        other.reverse();
        other.truncate(100);
        other[0].triplet.source = None;
        let [found] = &paired(&one, &other)[..] else {
            panic!("one set");
        };
        assert_eq!((found.loss.observations, found.alone), (99, 21));
    }
}
