//! Two reports side by side: whether they may be compared, and what differs.

use super::{Report, ScalingLaw, figures, number, page};
use polestar_core::Clustered;
use serde::{Deserialize, Serialize};

/// A line of the comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What is compared.
    pub what: String,
    /// In the first run.
    pub first: String,
    /// In the second.
    pub second: String,
    /// What follows; empty if nothing does.
    pub verdict: String,
}

/// How one model differs from another on triplets that both scored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairedDifference {
    /// Name of the set.
    pub set: String,
    /// Names of the two trials.
    pub trials: [String; 2],
    /// Loss of the first less that of the second, by prompt.
    pub loss: Clustered,
    /// Accuracy of the first less that of the second, by prompt.
    pub accuracy: Clustered,
    /// Triplets that only one of the two scored.
    pub alone: usize,
}

/// Two runs compared.
#[derive(Clone, Debug)]
pub struct RunComparison<'a> {
    reports: [&'a Report; 2],
    /// Line by line.
    pub differences: Vec<Difference>,
    /// What stands in the way of comparing, in sentences.
    pub cautions: Vec<String>,
}

impl<'a> RunComparison<'a> {
    /// Compares two reports.
    pub fn of(a: &'a Report, b: &'a Report) -> RunComparison<'a> {
        let (one, two) = (a.input(), b.input());
        let mut differences = Vec::new();
        let mut row = |what: &str, [first, second]: [String; 2], verdict: &str| {
            differences.push(Difference {
                what: what.to_owned(),
                first,
                second,
                verdict: verdict.to_owned(),
            });
        };
        let corpora = [one, two].map(|input| input.corpus.fingerprint.as_str());
        let same_corpus = corpora[0] == corpora[1];
        let short = |text: &str| text.chars().take(12).collect::<String>();
        let verdict = if same_corpus { "same" } else { "DIFFERENT" };
        row("corpus", corpora.map(short), verdict);
        let done = |report: &Report| {
            let input = report.input();
            let all = input.finished.len() + input.failed.len() + input.missing.len();
            format!("{} of {all}", input.finished.len())
        };
        row("trials", [a, b].map(done), "");
        for (name, laws) in [
            ("law in N", [a.by_params(), b.by_params()]),
            ("law in C", [a.by_compute(), b.by_compute()]),
        ] {
            row(name, laws.map(exponent), overlap(laws));
        }
        let best = |report: &Report| {
            let losses = report.input().finished.iter().map(|trial| trial.loss);
            losses
                .min_by(f64::total_cmp)
                .map_or_else(|| "none".to_owned(), |loss| format!("{loss:.4}"))
        };
        row("lowest loss", [a, b].map(best), "");
        let shared: Vec<bool> = one
            .digests
            .iter()
            .filter_map(|(trial, digest)| {
                let (_, theirs) = two.digests.iter().find(|(name, _)| name == trial)?;
                Some(digest == theirs)
            })
            .collect();
        let equal = shared.iter().filter(|same| **same).count();
        let verdict = format!("{equal} of {} have equal weights", shared.len());
        row(
            "trials of one name",
            [String::new(), String::new()],
            &verdict,
        );
        let mut cautions = Vec::new();
        if !same_corpus {
            cautions.push(
                "The corpora differ, and with them the held-out triplets: compare slopes, not losses."
                    .to_owned(),
            );
        }
        if one.conventions != two.conventions {
            cautions.push("The conventions differ; see the header of each report.".to_owned());
        }
        RunComparison {
            reports: [a, b],
            differences,
            cautions,
        }
    }

    /// Adds what two of their models make of the same triplets.
    pub fn add_paired(&mut self, found: PairedDifference) {
        let PairedDifference {
            set,
            trials: [first, second],
            loss,
            accuracy,
            alone,
        } = found;
        let alone = match alone {
            0 => String::new(),
            _ => format!(", {alone} that only one of them scored left out"),
        };
        let basis = format!(
            "{} triplets of {} prompts{alone}",
            loss.observations, loss.clusters
        );
        for (what, difference) in [("loss", loss), ("accuracy", accuracy)] {
            self.differences.push(Difference {
                what: format!("{what} on {set}, paired"),
                first: first.clone(),
                second: second.clone(),
                verdict: format!("{}, {basis}", apart(difference)),
            });
        }
    }

    /// What the runs are called.
    pub fn names(&self) -> [&'a str; 2] {
        self.reports.map(|report| report.input().run_id.as_str())
    }

    /// The comparison as one page, with both runs' laws in one figure each.
    pub fn page(&self) -> String {
        page::comparison(self, &figures::compared(self.reports))
    }
}

/// A difference, where it lies, and whether it is one.
fn apart(difference: Clustered) -> String {
    let mean = difference.mean;
    match difference.interval() {
        None => format!("{mean:+.4}, too few prompts to say how sure"),
        Some(i) => {
            let sure = match i.lo > 0.0 || i.hi < 0.0 {
                true => "differ",
                false => "may be equal",
            };
            format!("{mean:+.4} ({:+.4} to {:+.4}): {sure}", i.lo, i.hi)
        }
    }
}

fn exponent(law: &ScalingLaw) -> String {
    match law.fitted() {
        Some(fit) => {
            let interval = number::bracketed(fit.exponent_interval, 4);
            format!("{:.4}{interval}", fit.exponent)
        }
        None => "none".to_owned(),
    }
}

/// Whether the intervals of the exponents overlap.
fn overlap(laws: [&ScalingLaw; 2]) -> &'static str {
    match laws.map(|law| law.fitted()?.exponent_interval) {
        [Some(a), Some(b)] => {
            if a.hi < b.lo || b.hi < a.lo {
                "differ"
            } else {
                "overlap"
            }
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{build, demo::demo_input};

    #[test]
    fn what_may_not_be_compared_is_said_and_both_laws_are_drawn() {
        let input = demo_input();
        let mut other = input.clone();
        other.run_id = "other".into();
        other.corpus.fingerprint = "b3:elsewhere".into();
        other.digests[0].1 = "b3:another".into();
        let (a, b) = (build(&input), build(&other));
        let compared = RunComparison::of(&a, &b);
        let verdict = |what: &str| {
            let row = compared.differences.iter().find(|row| row.what == what);
            row.unwrap().verdict.as_str()
        };
        assert_eq!(verdict("corpus"), "DIFFERENT");
        assert_eq!(verdict("law in N"), "overlap");
        let all = input.digests.len();
        let expected = format!("{} of {all} have equal weights", all - 1);
        assert_eq!(verdict("trials of one name"), expected);
        let page = compared.page();
        assert!(page.contains("compare slopes, not losses") && page.contains("law of other"));
        assert!(RunComparison::of(&a, &a).cautions.is_empty());
    }

    #[test]
    fn paired_differences_say_whether_they_are_any() {
        let input = demo_input();
        let (a, b) = (build(&input), build(&input));
        let verdict = |prompts: u32, spread: f64| {
            let each = (0..6 * prompts).map(|i| {
                let prompt = i % prompts;
                (prompt, -0.1 + spread * (f64::from(prompt % 2) - 0.5))
            });
            let loss = Clustered::of(each);
            let mut compared = RunComparison::of(&a, &b);
            compared.add_paired(PairedDifference {
                set: "held-out prompts".into(),
                trials: ["one", "other"].map(str::to_owned),
                loss,
                accuracy: loss,
                alone: 0,
            });
            let page = compared.page();
            let [.., row, _] = &compared.differences[..] else {
                panic!("two rows");
            };
            assert!(page.contains(&row.what), "{}", row.what);
            row.verdict.clone()
        };
        let sure = verdict(20, 0.1);
        assert!(
            sure.contains(": differ, 120 triplets of 20 prompts"),
            "{sure}"
        );
        assert!(verdict(20, 2.0).contains(": may be equal"));
        assert!(verdict(4, 0.1).contains("too few prompts"));
    }
}
