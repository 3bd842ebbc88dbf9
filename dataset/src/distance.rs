//! How far apart policies write, measured on the corpus alone: the Hellinger distance between the
//! distributions of three-letter sequences in their answers. It needs no model, takes seconds, and says
//! what a reader would: two settings of one model lie close together, a terse and a chatty one far apart.
//!
//! Only additions and square roots in a fixed order are taken, so every machine finds the same numbers.

use std::collections::BTreeMap;

use crate::corpus::{Corpus, Error};
use crate::manifest::{FileSplit, RowGroupRef};
use polestar_core::random::Stream;

/// Buckets that sequences are counted in.
const BUCKETS: usize = 4096;
/// Prompts whose answers are read.
const PROMPTS: usize = 4_000;
/// Answers below which a policy's counts are too few to place it.
const ANSWERS: u64 = 30;

/// Distances between the training policies of a corpus.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyDistances {
    names: Vec<String>,
    /// By row and column; 0 for alike, 1 for nothing in common.
    rows: Vec<Vec<f64>>,
}

impl Corpus {
    /// Measures how far apart training policies write, on the answers to some thousand training prompts.
    /// Aliases, and policies with fewer than 30 answers among those, are left out.
    ///
    /// # Errors
    /// A row group that can't be read.
    pub async fn policy_distances(&self) -> Result<PolicyDistances, Error> {
        let manifest = self.manifest();
        let mut groups: Vec<RowGroupRef> = manifest
            .row_groups(FileSplit::Train)
            .filter(|(_, group)| group.prompts > 0)
            .map(|(place, _)| place)
            .collect();
        Stream::new("policy distance", &[]).shuffle(&mut groups);
        let mut counts: BTreeMap<u32, (u64, Vec<u64>)> = BTreeMap::new();
        let mut prompts = 0;
        for place in groups {
            let group = self.row_group(place).await?;
            for given in group.prompts.iter().flat_map(|prompt| &prompt.policies) {
                let (answers, buckets) = counts
                    .entry(self.trained().identity(given.policy))
                    .or_insert_with(|| (0, vec![0; BUCKETS]));
                for text in &given.samples {
                    *answers += 1;
                    count(text, buckets);
                }
            }
            prompts += group.prompts.len();
            if prompts >= PROMPTS {
                break;
            }
        }
        let policies = &manifest.policies;
        let placed = counts.into_iter().filter(|(policy, (answers, _))| {
            *answers >= ANSWERS && !policies[*policy as usize].held_out
        });
        let placed =
            placed.map(|(policy, (_, buckets))| (policies[policy as usize].name.clone(), buckets));
        Ok(PolicyDistances::of(placed.collect()))
    }
}

/// Adds the sequences of a text, in lower case.
fn count(text: &str, buckets: &mut [u64]) {
    let mut last = [' '; 3];
    for letter in text.chars().flat_map(char::to_lowercase) {
        last = [last[1], last[2], letter];
        let mixed = last.iter().fold(0_u64, |hash, &letter| {
            (hash ^ u64::from(letter)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
        });
        buckets[(mixed >> 52) as usize] += 1;
    }
}

impl PolicyDistances {
    fn of(policies: Vec<(String, Vec<u64>)>) -> PolicyDistances {
        let roots: Vec<Vec<f64>> = policies
            .iter()
            .map(|(_, counts)| {
                let all = counts.iter().sum::<u64>().max(1) as f64;
                counts.iter().map(|&n| (n as f64 / all).sqrt()).collect()
            })
            .collect();
        let distance = |a: &[f64], b: &[f64]| {
            let common: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
            (1.0 - common).max(0.0).sqrt()
        };
        let row = |a: &Vec<f64>| roots.iter().map(|b| distance(a, b)).collect();
        PolicyDistances {
            rows: roots.iter().map(row).collect(),
            names: policies.into_iter().map(|(name, _)| name).collect(),
        }
    }

    /// Policies that are placed.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// `count` policies that lie close together: the closest pair, then the policy that is on average closest to
    /// those chosen. A larger choice holds the smaller. `None` if there are not so many, or fewer than two
    /// are asked for.
    pub fn near(&self, count: usize) -> Option<Vec<String>> {
        self.grow(count, |mean, _| -mean)
    }

    /// `count` policies that lie far apart: the farthest pair, then the policy that is farthest from the nearest of
    /// those chosen.
    pub fn far(&self, count: usize) -> Option<Vec<String>> {
        self.grow(count, |_, nearest| nearest)
    }

    /// Adds the policy of the highest score, given its mean and its least distance to those chosen.
    fn grow(&self, count: usize, score: impl Fn(f64, f64) -> f64) -> Option<Vec<String>> {
        let all = self.names.len();
        if !(2..=all).contains(&count) {
            return None;
        }
        // The first of equals, so that the choice has one answer.
        let best = |candidates: &mut dyn Iterator<Item = (usize, f64)>| {
            candidates.reduce(|best, next| if next.1 > best.1 { next } else { best })
        };
        let pair = |at: usize| (at / all, at % all);
        let mut pairs = (0..all * all).filter_map(|at| {
            let (a, b) = pair(at);
            let distance = self.rows[a][b];
            (a < b).then(|| (at, score(distance, distance)))
        });
        let (a, b) = pair(best(&mut pairs)?.0);
        let mut chosen = vec![a, b];
        while chosen.len() < count {
            let mut others = (0..all).filter(|at| !chosen.contains(at)).map(|at| {
                let distances = || chosen.iter().map(|&c| self.rows[at][c]);
                let mean = distances().sum::<f64>() / chosen.len() as f64;
                (at, score(mean, distances().fold(f64::INFINITY, f64::min)))
            });
            let (next, _) = best(&mut others)?;
            chosen.push(next);
        }
        Some(
            chosen
                .into_iter()
                .map(|at| self.names[at].clone())
                .collect(),
        )
    }

    /// Mean distance between two of some policies; `None` if one of them isn't placed.
    pub fn mean(&self, policies: &[String]) -> Option<f64> {
        let places = policies
            .iter()
            .map(|name| self.names.iter().position(|n| n == name));
        let places: Vec<usize> = places.collect::<Option<_>>()?;
        let mut sum = 0.0;
        for (i, &a) in places.iter().enumerate() {
            sum += places[i + 1..]
                .iter()
                .map(|&b| self.rows[a][b])
                .sum::<f64>();
        }
        let pairs = places.len() * places.len().saturating_sub(1) / 2;
        (pairs > 0).then(|| sum / pairs as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policies(texts: &[(&str, &str)]) -> PolicyDistances {
        let counted = texts.iter().map(|(name, text)| {
            let mut buckets = vec![0; BUCKETS];
            count(text, &mut buckets);
            ((*name).to_owned(), buckets)
        });
        PolicyDistances::of(counted.collect())
    }

    #[test]
    fn near_ones_write_alike_and_far_ones_do_not() {
        let found = policies(&[
            ("terse", "Yes. No. Yes. No. Maybe."),
            ("terse-2", "Yes. No. No. Yes. Maybe."),
            (
                "chatty",
                "What a wonderful question, thank you so much for asking it today!",
            ),
            ("numbers", "1234 5678 91011 121314 151617"),
        ]);
        assert_eq!(found.near(2).unwrap(), ["terse", "terse-2"]);
        let far = found.far(3).unwrap();
        assert!(far.contains(&"numbers".to_owned()) && far.contains(&"chatty".to_owned()));
        assert_eq!(
            found.far(2).unwrap(),
            far[..2],
            "a larger choice holds the smaller"
        );
        let mean = |names: &[String]| found.mean(names).unwrap();
        assert!(mean(&found.near(2).unwrap()) < mean(&far));
        assert!(found.near(5).is_none() && found.near(1).is_none());
        assert_eq!(found.mean(&["terse".into(), "nobody".into()]), None);
    }
}
