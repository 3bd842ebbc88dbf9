//! What lies behind a mean accuracy: which policies are distinguished, and whether length decides.

use super::CutShare;
use crate::fits::Interval;
use polestar_core::Clustered;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One held-out triplet and what the model made of it.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredTriplet {
    /// Policy of reference and positive.
    pub policy: String,
    /// Policy of the negative.
    pub other: String,
    /// Lengths of reference, positive and negative in tokens, as clipped.
    pub lengths: [u32; 3],
    /// Reward of the positive less that of the negative.
    pub margin: f64,
    /// Id of the prompt; unknown of what older versions scored.
    pub prompt: Option<String>,
    /// How many of the three answers are cut; unknown likewise.
    pub cut_answers: Option<u32>,
}

/// A finished trial on one held-out set, looked at closely.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Discrimination {
    /// Name of the trial.
    pub trial: String,
    /// Name of the set.
    pub set: String,
    /// By pair of policies, or of their families where there are too many policies to show.
    pub pairs: Vec<Pair>,
    /// Whether the pairs are of families: what stands before the first `@` or ` | ` of a policy's name,
    /// which is how several columns are joined.
    pub by_family: bool,
    /// Whether length decides.
    pub length: LengthProbe,
}

/// Triplets of one pair.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// Whose answers reference and positive are.
    pub policy: String,
    /// Whose answer the negative is.
    pub other: String,
    /// How many.
    pub triplets: u64,
    /// Prompts that they are of, where known.
    #[serde(default)]
    pub prompts: Option<u64>,
    /// Mean loss in nats.
    pub loss: f64,
    /// Share ranked correctly; ties count half.
    pub accuracy: f64,
}

/// Accuracy by what length alone would say: that the candidate is of the reference's policy whose length
/// is nearer to the reference's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LengthProbe {
    /// What length alone reaches on these triplets; ties count half.
    pub alone: f64,
    /// Its 95% interval, clustered by prompt; none where prompts are unknown or too few.
    #[serde(default)]
    pub alone_95: Option<Interval>,
    /// Where length is right, wrong, and says nothing.
    pub bands: Vec<LengthBand>,
    /// Pearson's correlation of the margin with how much nearer the positive's length is.
    pub correlation: f64,
    /// Answers that are cut, counted once a triplet; where known.
    #[serde(default)]
    pub cut: Option<CutShare>,
}

/// The triplets on which length says one thing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LengthBand {
    /// `right`, `wrong` or `silent`.
    pub length: String,
    /// How many.
    pub triplets: u64,
    /// Prompts that they are of, where known.
    #[serde(default)]
    pub prompts: Option<u64>,
    /// The model's accuracy on them.
    pub accuracy: f64,
    /// Its 95% interval, clustered by prompt; none where prompts are unknown or too few.
    #[serde(default)]
    pub accuracy_95: Option<Interval>,
}

/// Rows of a heat map that can still be read.
const SHOWN: usize = 24;

impl Discrimination {
    /// Looks at the triplets of one set; none, nothing to see.
    pub fn of(trial: &str, set: &str, triplets: &[ScoredTriplet]) -> Option<Discrimination> {
        if triplets.is_empty() {
            return None;
        }
        let (pairs, by_family) = pairs(triplets);
        Some(Discrimination {
            trial: trial.to_owned(),
            set: set.to_owned(),
            pairs,
            by_family,
            length: probe(triplets),
        })
    }
}

impl Discrimination {
    /// Every policy of the pairs, by name.
    pub fn policies(&self) -> Vec<&str> {
        let pairs = self.pairs.iter();
        let mut policies: Vec<&str> = pairs
            .flat_map(|p| [p.policy.as_str(), p.other.as_str()])
            .collect();
        policies.sort_unstable();
        policies.dedup();
        policies
    }
}

fn credit(margin: f64) -> f64 {
    match margin.total_cmp(&0.0) {
        std::cmp::Ordering::Greater => 1.0,
        _ if margin == 0.0 => 0.5,
        _ => 0.0,
    }
}

fn family(policy: &str) -> &str {
    let model = policy.split(" | ").next().unwrap_or(policy);
    model.split('@').next().unwrap_or(model)
}

/// Pairs among the policies, or families, with the most triplets.
fn pairs(triplets: &[ScoredTriplet]) -> (Vec<Pair>, bool) {
    let mut policies: Vec<&str> = triplets
        .iter()
        .flat_map(|t| [t.policy.as_str(), t.other.as_str()])
        .collect();
    policies.sort_unstable();
    policies.dedup();
    let by_family = policies.len() > SHOWN;
    let name = |policy: &'_ str| match by_family {
        true => family(policy).to_owned(),
        false => policy.to_owned(),
    };
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    for triplet in triplets {
        for policy in [&triplet.policy, &triplet.other] {
            *seen.entry(name(policy)).or_default() += 1;
        }
    }
    let mut most: Vec<(u64, String)> = seen.into_iter().map(|(name, n)| (n, name)).collect();
    most.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    most.truncate(SHOWN);
    let shown = |policy: &String| most.iter().any(|(_, name)| name == policy);
    let mut of_pairs: BTreeMap<(String, String), Vec<&ScoredTriplet>> = BTreeMap::new();
    for triplet in triplets {
        let pair = (name(&triplet.policy), name(&triplet.other));
        if shown(&pair.0) && shown(&pair.1) {
            of_pairs.entry(pair).or_default().push(triplet);
        }
    }
    let pairs = of_pairs.into_iter().map(|((policy, other), of)| Pair {
        policy,
        other,
        triplets: of.len() as u64,
        prompts: prompts(&of),
        // -ln σ(margin), without overflow on either side.
        loss: mean(&of, |t| {
            (-t.margin.abs()).exp().ln_1p() + (-t.margin).max(0.0)
        }),
        accuracy: mean(&of, |t| credit(t.margin)),
    });
    (pairs.collect(), by_family)
}

/// The mean of something over triplets, by prompt; each counts as a prompt of its own where those are unknown.
fn clustered(triplets: &[&ScoredTriplet], of: impl Fn(&ScoredTriplet) -> f64) -> Clustered {
    let each = triplets.iter().enumerate();
    Clustered::of(each.map(|(at, triplet)| {
        let prompt = triplet.prompt.as_deref();
        (prompt.ok_or(at), of(triplet))
    }))
}

fn mean(triplets: &[&ScoredTriplet], of: impl Fn(&ScoredTriplet) -> f64) -> f64 {
    clustered(triplets, of).mean
}

/// Prompts that triplets are of, if all of them say so.
fn prompts(triplets: &[&ScoredTriplet]) -> Option<u64> {
    let known = triplets.iter().all(|triplet| triplet.prompt.is_some());
    known.then(|| clustered(triplets, |_| 0.0).clusters as u64)
}

/// Where a share of triplets lies, if their prompts are known and enough.
fn share_95(triplets: &[&ScoredTriplet], of: impl Fn(&ScoredTriplet) -> f64) -> Option<Interval> {
    prompts(triplets)?;
    clustered(triplets, of).share_interval().map(Interval::from)
}

fn probe(triplets: &[ScoredTriplet]) -> LengthProbe {
    let all: Vec<&ScoredTriplet> = triplets.iter().collect();
    // How much nearer to the reference's length the positive's is.
    let nearer = |t: &ScoredTriplet| {
        let [reference, positive, negative] = t.lengths.map(f64::from);
        (negative - reference).abs() - (positive - reference).abs()
    };
    let verdict = |t: &ScoredTriplet| match nearer(t) {
        x if x > 0.0 => "right",
        x if x < 0.0 => "wrong",
        _ => "silent",
    };
    let right = |t: &ScoredTriplet| credit(t.margin);
    let bands = ["right", "wrong", "silent"].map(|length| {
        let of = all.iter().copied().filter(|t| verdict(t) == length);
        let of: Vec<&ScoredTriplet> = of.collect();
        LengthBand {
            length: length.to_owned(),
            triplets: of.len() as u64,
            prompts: prompts(&of),
            accuracy: mean(&of, right),
            accuracy_95: share_95(&of, right),
        }
    });
    let (x, y) = (mean(&all, nearer), mean(&all, |t| t.margin));
    let moments = triplets.iter().fold([0.0; 3], |[xx, xy, yy], t| {
        let (dx, dy) = (nearer(t) - x, t.margin - y);
        [xx + dx * dx, xy + dx * dy, yy + dy * dy]
    });
    let [xx, xy, yy] = moments;
    let by_length = |t: &ScoredTriplet| credit(nearer(t));
    let cut = triplets.iter().map(|t| t.cut_answers.map(u64::from));
    let cut: Option<u64> = cut.sum();
    LengthProbe {
        alone: mean(&all, by_length),
        alone_95: share_95(&all, by_length),
        bands: bands.into_iter().filter(|b| b.triplets > 0).collect(),
        correlation: if xx * yy > 0.0 {
            xy / (xx * yy).sqrt()
        } else {
            0.0
        },
        cut: cut.map(|cut| CutShare {
            cut,
            all: 3 * triplets.len() as u64,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(policy: &str, other: &str, lengths: [u32; 3], margin: f64) -> ScoredTriplet {
        ScoredTriplet {
            policy: policy.into(),
            other: other.into(),
            lengths,
            margin,
            prompt: None,
            cut_answers: None,
        }
    }

    #[test]
    fn a_model_that_only_measures_length_is_found_out() {
        let lengths = (0..60_u32).map(|i| [50_u32, 50 + (i * 7) % 31, 50 + (i * 11) % 37]);
        let triplets: Vec<ScoredTriplet> = lengths
            .map(|[r, p, n]| {
                let margin = f64::from(n.abs_diff(r)) - f64::from(p.abs_diff(r));
                scored("a", "b", [r, p, n], margin)
            })
            .collect();
        let length = Discrimination::of("t", "s", &triplets).unwrap().length;
        assert!((length.correlation - 1.0).abs() < 1e-12);
        let accuracy = |name: &str| {
            length
                .bands
                .iter()
                .find(|b| b.length == name)
                .unwrap()
                .accuracy
        };
        assert_eq!((accuracy("right"), accuracy("wrong")), (1.0, 0.0));
    }

    #[test]
    fn pairs_add_up_and_too_many_policies_become_families() {
        let few = [
            scored("a", "b", [1, 1, 1], 2.0),
            scored("a", "b", [1, 1, 1], 0.0),
            scored("b", "a", [1, 1, 1], -1.0),
        ];
        let found = Discrimination::of("t", "s", &few).unwrap();
        assert!(!found.by_family);
        assert_eq!(found.pairs.len(), 2);
        assert_eq!(
            (found.pairs[0].triplets, found.pairs[0].accuracy),
            (2, 0.75)
        );
        let loss = (f64::ln_1p((-2f64).exp()) + std::f64::consts::LN_2) / 2.0;
        assert!((found.pairs[0].loss - loss).abs() < 1e-12);
        assert!((found.pairs[1].loss - 1f64.exp().ln_1p()).abs() < 1e-12);

        let many: Vec<ScoredTriplet> = (0..90)
            .map(|i| scored(&format!("m{}@t | {i}", i % 3), "other | x", [1, 1, 1], 1.0))
            .collect();
        let found = Discrimination::of("t", "s", &many).unwrap();
        assert!(found.by_family);
        assert_eq!(found.pairs.iter().map(|p| p.triplets).sum::<u64>(), 90);
        assert_eq!(found.pairs.len(), 3);
    }

    #[test]
    fn intervals_go_by_prompts_and_cut_answers_are_counted() {
        let of = |prompts: u64, cut| {
            let triplets: Vec<ScoredTriplet> = (0..600)
                .map(|i| ScoredTriplet {
                    // Half of the prompts are ranked rightly as a whole, the others wrongly.
                    margin: if (i % prompts).is_multiple_of(2) {
                        1.0
                    } else {
                        -1.0
                    },
                    prompt: Some(format!("prompt {}", i % prompts)),
                    cut_answers: Some(cut),
                    ..scored("a", "b", [9, 9, 9], 0.0)
                })
                .collect();
            Discrimination::of("t", "s", &triplets).unwrap().length
        };
        let many = of(600, 0);
        let [band] = &many.bands[..] else {
            panic!("all are of one length");
        };
        let width = |band: &LengthBand| {
            let interval = band.accuracy_95.unwrap();
            interval.hi - interval.lo
        };
        assert_eq!((band.prompts, many.cut.unwrap().cut), (Some(600), 0));
        let few = of(10, 3);
        assert!(width(&few.bands[0]) > 5.0 * width(band), "{few:?}");
        let text = few.cut.unwrap().of_lengths().unwrap();
        assert!(text.contains("100.0% of answers"), "{text}");
        assert_eq!(of(4, 0).bands[0].accuracy_95, None, "too few");
        let unknown = [scored("a", "b", [1, 1, 1], 1.0)];
        let unknown = Discrimination::of("t", "s", &unknown).unwrap();
        assert_eq!((unknown.length.cut, unknown.pairs[0].prompts), (None, None));
    }
}
