//! From credits to accuracies: which tasks a number is of, and how sure it is.
//!
//! A number is the mean of one or more cells: one cell is a micro average, several are a macro average, in which
//! each weighs the same however many tasks it has. The standard error is the jackknife that leaves out one cluster
//! (prompt) at a time, whatever the cells: for one cell it is that of [`Clustered`].

use crate::{
    formats::{Format, Overall},
    judge::{Judged, Ties},
    question::Bench,
};
use polestar_core::{Clustered, cluster::Interval};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// An accuracy and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Share of tasks that were judged right; of a score of ties, that score.
    pub value: f64,
    /// Lower end of the interval of 95%, prompts being drawn; none of fewer than five prompts.
    pub lo: Option<f64>,
    /// Upper end.
    pub hi: Option<f64>,
}

impl Accuracy {
    fn of(estimate: &Clustered, interval: Option<Interval>) -> Accuracy {
        Accuracy {
            value: estimate.mean,
            lo: interval.map(|interval| interval.lo),
            hi: interval.map(|interval| interval.hi),
        }
    }
}

/// What a row is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// A category such as `chat/hard`, or what is averaged.
    pub name: String,
    /// 0 of the benchmark's one number; a category's depth; 1 of other averages.
    pub depth: u32,
    /// Tasks.
    pub tasks: u64,
    /// Prompts that they are of.
    pub prompts: u64,
    /// Categories that weigh the same in it, if it is a macro average.
    pub categories: Option<u64>,
}

/// A row, and which tasks it is of.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) row: Row,
    /// Numbers of tasks; those of a cell weigh the same.
    cells: Vec<Vec<usize>>,
}

/// Tasks of a benchmark, flat: of which cluster and category each is.
#[derive(Debug)]
pub(crate) struct Tasks {
    clusters: Vec<u32>,
    plans: Vec<Plan>,
}

impl Tasks {
    /// Rows of a benchmark: its one number first, other averages, and each category with those below it.
    pub(crate) fn of(format: Format, bench: &Bench) -> Tasks {
        let tasks = || bench.questions.iter().flat_map(|question| &question.tasks);
        let clusters: Vec<u32> = tasks().map(|task| task.cluster).collect();
        let mut prefixes: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (at, task) in tasks().enumerate() {
            let ends = task.category.match_indices('/').map(|(end, _)| end);
            for end in ends.chain([task.category.len()]) {
                let prefix = task.category[..end].to_owned();
                prefixes.entry(prefix).or_default().push(at);
            }
        }
        let of_depth = |depth: usize| -> Vec<Vec<usize>> {
            let those = prefixes.iter().filter(|(name, _)| depth_of(name) == depth);
            those.map(|(_, tasks)| tasks.clone()).collect()
        };
        let mut plans = Vec::new();
        let mut push = |name: String, depth: usize, cells: Vec<Vec<usize>>| {
            if cells.iter().any(|cell| !cell.is_empty()) {
                plans.push(plan(name, depth, cells, &clusters));
            }
        };
        let all = || vec![(0..clusters.len()).collect()];
        let overall = match format.overall() {
            Overall::Micro => all(),
            Overall::MicroOf(category) => match prefixes.get(category) {
                Some(tasks) => vec![tasks.clone()],
                None => all(),
            },
            Overall::Macro(depth) => of_depth(depth),
        };
        push("overall".to_owned(), 0, overall);
        if format == Format::Pairs {
            let categories = of_depth(1);
            if categories.len() > 1 {
                push("mean of categories".to_owned(), 1, categories);
            }
        }
        if format == Format::RmBench {
            for difficulty in crate::formats::DIFFICULTIES {
                let end = format!("/{difficulty}");
                let those = prefixes.iter().filter(|(name, _)| name.ends_with(&end));
                let cells = those.map(|(_, tasks)| tasks.clone()).collect();
                push(difficulty.to_owned(), 1, cells);
            }
        }
        for (name, tasks) in &prefixes {
            // The category of all tasks says what the first row does.
            if prefixes.len() > 1 || tasks.len() < clusters.len() {
                push(name.clone(), depth_of(name), vec![tasks.clone()]);
            }
        }
        Tasks { clusters, plans }
    }

    /// The rows, in their order.
    pub(crate) fn rows(&self) -> Vec<Row> {
        self.plans.iter().map(|plan| plan.row.clone()).collect()
    }

    /// Accuracies of all rows.
    pub(crate) fn accuracies(&self, judged: &[Judged]) -> Vec<Accuracy> {
        let of = |plan: &Plan| {
            let cells = self.cells(plan, judged);
            let has_ties = cells.iter().any(|cell| matches!(cell, Cell::Ties(_)));
            let estimate = self.estimate(plan, |without| mean(&cells, without));
            let interval = match has_ties {
                true => estimate.interval(),
                false => estimate.share_interval(),
            };
            Accuracy::of(&estimate, interval)
        };
        self.plans.iter().map(of).collect()
    }

    /// How much more accurate one is than another, row by row: far surer than the two alone.
    pub(crate) fn differences(&self, ours: &[Judged], theirs: &[Judged]) -> Vec<Accuracy> {
        let of = |plan: &Plan| {
            let (ours, theirs) = (self.cells(plan, ours), self.cells(plan, theirs));
            let estimate = self.estimate(plan, |without| {
                Some(mean(&ours, without)? - mean(&theirs, without)?)
            });
            Accuracy::of(&estimate, estimate.interval())
        };
        self.plans.iter().map(of).collect()
    }

    /// How many tasks of a row equal rewards decided.
    pub(crate) fn tied(&self, judged: &[Judged]) -> Vec<u64> {
        let is_tied = |at: &&usize| matches!(judged[**at], Judged::Credit { tied: true, .. });
        let of = |plan: &Plan| plan.cells.iter().flatten().filter(is_tied).count() as u64;
        self.plans.iter().map(of).collect()
    }

    fn cells(&self, plan: &Plan, judged: &[Judged]) -> Vec<Cell> {
        let cell = |tasks: &Vec<usize>| {
            let those = tasks.iter().map(|at| (self.clusters[*at], judged[*at]));
            Cell::of(those)
        };
        plan.cells.iter().map(cell).collect()
    }

    /// A value, and its jackknife over the clusters of a row.
    fn estimate(&self, plan: &Plan, value: impl Fn(Option<u32>) -> Option<f64>) -> Clustered {
        let tasks = plan.cells.iter().flatten();
        let clusters: BTreeSet<u32> = tasks.map(|at| self.clusters[*at]).collect();
        let mean = value(None).unwrap_or(0.0);
        let number = clusters.len();
        let error = (number > 1).then(|| {
            let without = clusters.iter().map(|cluster| value(Some(*cluster)));
            let squares = without.map(|without| without.map_or(0.0, |w| (w - mean).powi(2)));
            let number = number as f64;
            ((number - 1.0) / number * squares.sum::<f64>()).sqrt()
        });
        Clustered {
            mean,
            error,
            clusters: number,
            observations: plan.row.tasks as usize,
        }
    }
}

fn depth_of(name: &str) -> usize {
    name.matches('/').count() + 1
}

fn plan(name: String, depth: usize, cells: Vec<Vec<usize>>, clusters: &[u32]) -> Plan {
    let tasks = || cells.iter().flatten();
    let prompts: BTreeSet<u32> = tasks().map(|at| clusters[*at]).collect();
    Plan {
        row: Row {
            name,
            depth: depth as u32,
            tasks: tasks().count() as u64,
            prompts: prompts.len() as u64,
            categories: (cells.len() > 1).then_some(cells.len() as u64),
        },
        cells,
    }
}

/// The mean of the cells, without one cluster; cells that are empty without it don't count.
fn mean(cells: &[Cell], without: Option<u32>) -> Option<f64> {
    let values: Vec<f64> = cells
        .iter()
        .filter_map(|cell| cell.value(without))
        .collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// What a number is computed from.
#[derive(Debug)]
enum Cell {
    /// Credits, and how many, by cluster and of all.
    Credits {
        of: BTreeMap<u32, (f64, usize)>,
        all: (f64, usize),
    },
    /// RewardBench 2's ties: both versions of each prompt.
    Ties(BTreeMap<u32, [Option<Ties>; 2]>),
}

impl Cell {
    fn of(judged: impl Iterator<Item = (u32, Judged)>) -> Cell {
        let mut of: BTreeMap<u32, (f64, usize)> = BTreeMap::new();
        let mut versions: BTreeMap<u32, [Option<Ties>; 2]> = BTreeMap::new();
        for (cluster, judged) in judged {
            match judged {
                Judged::Credit { credit, .. } => {
                    let sum = of.entry(cluster).or_default();
                    *sum = (sum.0 + credit, sum.1 + 1);
                }
                Judged::Ties(ties) => {
                    let versions = versions.entry(cluster).or_default();
                    versions[usize::from(ties.reference)] = Some(ties);
                }
            }
        }
        if versions.is_empty() {
            let all = of
                .values()
                .fold((0.0, 0), |all, sum| (all.0 + sum.0, all.1 + sum.1));
            Cell::Credits { of, all }
        } else {
            Cell::Ties(versions)
        }
    }

    fn value(&self, without: Option<u32>) -> Option<f64> {
        match self {
            Cell::Credits { of, all } => {
                let left_out = without.and_then(|cluster| of.get(&cluster));
                let (sum, count) = left_out.copied().unwrap_or_default();
                let left = all.1 - count;
                (left > 0).then(|| (all.0 - sum) / left as f64)
            }
            Cell::Ties(versions) => {
                let left = versions
                    .iter()
                    .filter(|(cluster, _)| Some(**cluster) != without);
                ties_score(left.map(|(_, versions)| versions))
            }
        }
    }
}

/// RewardBench 2's score of ties: accuracy of both versions, 30% each; how often right answers lie closer together
/// than they lie above the wrong ones, 20%, and how often so by the smaller gap of both versions, 20%; and up to 1% for
/// how much closer.
fn ties_score<'a>(prompts: impl Iterator<Item = &'a [Option<Ties>; 2]> + Clone) -> Option<f64> {
    let share = |values: Vec<f64>| match values.len() {
        0 => 0.0,
        n => values.iter().sum::<f64>() / n as f64,
    };
    let is = |true_: bool| f64::from(u8::from(true_));
    let accuracy = |version: usize| {
        let those = prompts.clone().filter_map(|versions| versions[version]);
        share(those.map(|ties| is(ties.gap > 0.0)).collect())
    };
    prompts.clone().next()?;
    // Both versions of a prompt, and several right answers.
    let both: Vec<(f64, f64, f64)> = prompts
        .clone()
        .filter_map(|[tied, reference]| {
            let (tied, reference) = ((*tied)?, (*reference)?);
            Some((tied.spread?, tied.gap, reference.gap))
        })
        .collect();
    let of_both = |value: fn(&(f64, f64, f64)) -> f64| share(both.iter().map(value).collect());
    let closer = of_both(|(spread, gap, _)| f64::from(u8::from(gap > spread)));
    let closer_in_both =
        of_both(|(spread, gap, reference)| f64::from(u8::from(gap.min(*reference) > *spread)));
    let by = of_both(|(spread, gap, reference)| {
        let by = (gap.min(*reference) / spread - 1.0).tanh();
        if by.is_nan() { 0.0 } else { by }
    });
    Some(0.3 * accuracy(0) + 0.3 * accuracy(1) + 0.2 * closer + 0.2 * closer_in_both + 0.01 * by)
}

#[cfg(test)]
mod tests;
