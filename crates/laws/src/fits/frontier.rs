//! Which points enter a law, and why the others don't.
//!
//! A trial's *cell* is its size and budget; the runs of a cell differ in their seed and enter or stay out together.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::power::Observation;

/// The outcome of one finished trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Name of the trial.
    pub trial: String,
    /// Name of the model size.
    pub size: String,
    /// Parameters, as the sweep's conventions count them.
    pub params: u64,
    /// FLOPs spent in training, as the sweep's conventions count them.
    pub flops: f64,
    /// Tokens trained on.
    pub tokens: f64,
    /// Compute budget in FLOPs that sizes compete at; `None` where the sweep has none.
    pub budget: Option<f64>,
    /// Policies that it was trained on, where the sweep varies them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policies: Option<u32>,
    /// Mean distance between them, where they were chosen by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distance: Option<f64>,
    /// Seed of the run.
    pub seed: u64,
    /// Final validation loss in nats per triplet.
    pub loss: f64,
}

impl Point {
    /// What sizes compete at: the budget, or what was spent where there is none.
    pub fn compute(&self) -> f64 {
        self.budget.unwrap_or(self.flops)
    }

    /// Its name without the seed: the same for trials that differ in nothing else.
    pub fn cell(&self) -> &str {
        let seed = format!("-s{}", self.seed);
        self.trial.strip_suffix(&seed).unwrap_or(&self.trial)
    }
}

/// A trial that ended without a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedTrial {
    /// Name of the trial.
    pub trial: String,
    /// The first cause.
    pub reason: String,
}

/// A trial that stays out of a law.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excluded {
    /// Name of the trial.
    pub trial: String,
    /// Why, as a clause a person can read.
    pub reason: String,
}

/// The points of one law.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Selection {
    /// What the law is fitted to.
    pub chosen: Vec<Observation>,
    /// What it is not fitted to; every trial is in one of the two lists.
    pub excluded: Vec<Excluded>,
    /// What a reader should know before trusting the choice, one sentence each.
    pub cautions: Vec<String>,
}

/// Points of the law in parameters, leaving out what is no better than `chance`: for each size the cell of lowest loss, which is its largest budget unless training
/// longer stopped helping.
pub fn by_params(points: &[Point], failed: &[FailedTrial], chance: Option<f64>) -> Selection {
    let (cells, mut selection) = usable_cells(points, failed, chance);
    // A table may not say how large its models are.
    let cells: Vec<Cell> = cells.into_iter().filter(|cell| cell.params > 0).collect();
    let mut sizes: BTreeMap<(u64, &str), Vec<&Cell>> = BTreeMap::new();
    for cell in &cells {
        sizes
            .entry((cell.params, cell.size))
            .or_default()
            .push(cell);
    }
    for ((params, size), cells) in sizes {
        let Some(best) = lowest(&cells) else { continue };
        for cell in &cells {
            if std::ptr::eq(*cell, best) {
                selection.choose(cell, params as f64);
                continue;
            }
            let (loss, best_loss) = (cell.loss, best.loss);
            selection.exclude(
                cell,
                &format!(
                    "not the lowest loss of size {size}: {loss:.4} here, {best_loss:.4} at its best"
                ),
            );
        }
        if cells.iter().any(|cell| cell.compute() > best.compute()) {
            selection.cautions.push(format!(
                "Size {size} did best at {:.2e} FLOPs, not at its largest compute: longer training stopped helping.",
                best.flops
            ));
        }
    }
    selection
}

/// Points of the law in compute: for each budget the size of lowest loss. Trials without a budget enter when no other
/// trial reached a loss as low with no more compute.
pub fn by_compute(points: &[Point], failed: &[FailedTrial], chance: Option<f64>) -> Selection {
    let (cells, mut selection) = usable_cells(points, failed, chance);
    // Positive floats sort as their bits do.
    let mut budgets: BTreeMap<u64, Vec<&Cell>> = BTreeMap::new();
    for cell in &cells {
        if let Some(budget) = cell.budget {
            budgets.entry(budget.to_bits()).or_default().push(cell);
            continue;
        }
        let better = cells
            .iter()
            .filter(|other| other.flops <= cell.flops && other.loss <= cell.loss)
            // Strictly better in one of the two: a cell does not beat itself, nor an equal one.
            .filter(|other| other.flops < cell.flops || other.loss < cell.loss)
            .min_by(|a, b| a.loss.total_cmp(&b.loss));
        match better {
            None => selection.choose(cell, cell.flops),
            Some(other) => selection.exclude(
                cell,
                &format!(
                    "size {} reached {:.4} with no more compute, this one {:.4}",
                    other.size, other.loss, cell.loss
                ),
            ),
        }
    }
    for (bits, cells) in budgets {
        let budget = f64::from_bits(bits);
        let Some(best) = lowest(&cells) else { continue };
        for cell in &cells {
            if std::ptr::eq(*cell, best) {
                selection.choose(cell, cell.flops);
                continue;
            }
            selection.exclude(
                cell,
                &format!(
                    "not the best size at its budget of {budget:.2e} FLOPs: {} reached {:.4}, this one {:.4}",
                    best.size, best.loss, cell.loss
                ),
            );
        }
        selection
            .cautions
            .extend(edge_caution(budget, best, &cells));
    }
    selection
}

/// The runs of one size at one budget.
struct Cell<'a> {
    size: &'a str,
    params: u64,
    budget: Option<f64>,
    /// Mean over the runs, so that they share one x.
    flops: f64,
    /// Mean over the runs.
    loss: f64,
    runs: Vec<&'a Point>,
}

impl Cell<'_> {
    fn compute(&self) -> f64 {
        self.budget.unwrap_or(self.flops)
    }
}

impl Selection {
    fn choose(&mut self, cell: &Cell, x: f64) {
        let observations = cell.runs.iter().map(|run| Observation {
            label: run.trial.clone(),
            x,
            loss: run.loss,
        });
        self.chosen.extend(observations);
    }

    fn exclude(&mut self, cell: &Cell, reason: &str) {
        let excluded = cell.runs.iter().map(|run| Excluded {
            trial: run.trial.clone(),
            reason: reason.to_owned(),
        });
        self.excluded.extend(excluded);
    }

    fn drop_point(&mut self, trial: &str, reason: impl Into<String>) {
        self.excluded.push(Excluded {
            trial: trial.to_owned(),
            reason: reason.into(),
        });
    }
}

/// The cells that a law may choose from, by size and then compute, and a selection that already lists what can't enter any.
fn usable_cells<'a>(
    points: &'a [Point],
    failed: &[FailedTrial],
    chance: Option<f64>,
) -> (Vec<Cell<'a>>, Selection) {
    let mut selection = Selection::default();
    let positive = |value: f64| value.is_finite() && value > 0.0;
    // Several trials of one size, budget and seed differ in something else (a learning rate, say): the best stands for them.
    let mut runs: BTreeMap<(u64, &str, bool, u64), BTreeMap<u64, &Point>> = BTreeMap::new();
    for point in points {
        if !positive(point.loss) {
            selection.drop_point(
                &point.trial,
                format!("loss {} is not a finite number above zero", point.loss),
            );
        } else if !positive(point.flops) || !point.budget.is_none_or(positive) {
            selection.drop_point(&point.trial, "its FLOPs or budget are not above zero");
        } else if let Some(chance) = chance.filter(|chance| point.loss >= *chance) {
            selection.drop_point(
                &point.trial,
                format!("loss {:.4} is not below chance ({chance:.4})", point.loss),
            );
        } else {
            let compute = point.compute().to_bits();
            let cell = runs
                .entry((point.params, &point.size, point.budget.is_some(), compute))
                .or_default();
            let loser = match cell.get(&point.seed) {
                Some(held) if held.loss <= point.loss => Some(point),
                _ => cell.insert(point.seed, point),
            };
            if let Some(loser) = loser {
                let reason = "another trial of the same size, budget and seed reached a lower loss";
                selection.drop_point(&loser.trial, reason);
            }
        }
    }
    for trial in failed {
        selection.drop_point(&trial.trial, format!("trial failed: {}", trial.reason));
    }
    let cells = runs
        .into_iter()
        .map(|((params, size, _, _), runs)| {
            let runs: Vec<&Point> = runs.into_values().collect();
            let mean = |of: fn(&Point) -> f64| {
                runs.iter().map(|run| of(run)).sum::<f64>() / runs.len() as f64
            };
            Cell {
                size,
                params,
                budget: runs[0].budget,
                flops: mean(|run| run.flops),
                loss: mean(|run| run.loss),
                runs,
            }
        })
        .collect();
    (cells, selection)
}

/// The cell of lowest loss; the first of equals.
fn lowest<'a, 'b>(cells: &[&'a Cell<'b>]) -> Option<&'a Cell<'b>> {
    cells
        .iter()
        .copied()
        .min_by(|a, b| a.loss.total_cmp(&b.loss))
}

/// A best size with no larger or no smaller one beside it may not be the best there is.
fn edge_caution(budget: f64, best: &Cell, cells: &[&Cell]) -> Option<String> {
    let smaller = cells.iter().any(|cell| cell.params < best.params);
    let larger = cells.iter().any(|cell| cell.params > best.params);
    let found = match (smaller, larger) {
        (true, true) => return None,
        (false, false) => format!("only size {} was tried", best.size),
        (false, true) => format!("the best size, {}, is the smallest tried", best.size),
        (true, false) => format!("the best size, {}, is the largest tried", best.size),
    };
    Some(format!(
        "At {budget:.2e} FLOPs {found}: the optimum may lie beyond it, and the law through it above the true one."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fits::CHANCE_LOSS;

    fn point(size: &str, params: u64, budget: Option<f64>, seed: u64, loss: f64) -> Point {
        let flops = budget.unwrap_or(params as f64 * 1e6);
        let trial = format!("{size}-{:.0e}-{seed}", flops);
        Point {
            trial,
            size: size.into(),
            params,
            flops,
            tokens: flops / params as f64,
            budget,
            policies: None,
            distance: None,
            seed,
            loss,
        }
    }

    fn chosen(selection: &Selection) -> Vec<&str> {
        selection
            .chosen
            .iter()
            .map(|observation| observation.label.as_str())
            .collect()
    }

    /// Three sizes at two budgets; the middle size wins the first budget, the largest the second.
    fn grid() -> Vec<Point> {
        let losses = [
            ("s", 10, 0.50, 0.49),
            ("m", 30, 0.48, 0.45),
            ("l", 90, 0.52, 0.43),
        ];
        losses
            .into_iter()
            .flat_map(|(size, params, small, large)| {
                [
                    point(size, params, Some(1e9), 0, small),
                    point(size, params, Some(1e10), 0, large),
                ]
            })
            .collect()
    }

    #[test]
    fn each_size_enters_at_its_best_and_each_budget_with_its_best_size() {
        let by_size = by_params(&grid(), &[], Some(CHANCE_LOSS));
        assert_eq!(chosen(&by_size), ["s-1e10-0", "m-1e10-0", "l-1e10-0"]);
        assert_eq!(by_size.chosen[1].x, 30.0);

        let by_budget = by_compute(&grid(), &[], Some(CHANCE_LOSS));
        assert_eq!(chosen(&by_budget), ["m-1e9-0", "l-1e10-0"]);
        assert_eq!(by_budget.chosen[1].x, 1e10);
        assert_eq!(by_budget.excluded.len(), 4);
        assert!(
            by_budget.excluded[0]
                .reason
                .starts_with("not the best size at its budget")
        );
        // The middle size is bracketed at the first budget; the largest is an edge at the second.
        assert_eq!(by_budget.cautions.len(), 1);
        assert!(
            by_budget.cautions[0].contains("l, is the largest tried"),
            "{:?}",
            by_budget.cautions
        );
    }

    #[test]
    fn seeds_of_a_cell_enter_together_and_compete_by_their_mean() {
        let mut points = grid();
        points.extend([
            point("s", 10, Some(1e9), 1, 0.40),
            point("m", 30, Some(1e9), 1, 0.60),
        ]);
        // Means at the first budget: s 0.45, m 0.54.
        assert_eq!(
            chosen(&by_compute(&points, &[], Some(CHANCE_LOSS)))[..2],
            ["s-1e9-0", "s-1e9-1"]
        );
    }

    #[test]
    fn what_can_not_enter_is_listed_with_its_reason() {
        let mut points = grid();
        points.push(point("s", 10, Some(1e10), 5, 0.70));
        points.push(point("s", 10, Some(1e10), 6, f64::NAN));
        let mut slower = point("s", 10, Some(1e10), 0, 0.60);
        slower.trial = "s-slow".into();
        points.push(slower);
        let failed = [FailedTrial {
            trial: "xl".into(),
            reason: "out of memory".into(),
        }];
        for selection in [
            by_params(&points, &failed, Some(CHANCE_LOSS)),
            by_compute(&points, &failed, Some(CHANCE_LOSS)),
        ] {
            assert_eq!(
                selection.chosen.len() + selection.excluded.len(),
                points.len() + failed.len()
            );
            let reason = |trial: &str| {
                &selection
                    .excluded
                    .iter()
                    .find(|out| out.trial == trial)
                    .unwrap()
                    .reason
            };
            assert!(reason("s-1e10-5").contains("not below chance"));
            assert!(reason("s-1e10-6").contains("not a finite number"));
            assert!(reason("s-slow").contains("same size, budget and seed"));
            assert_eq!(reason("xl"), "trial failed: out of memory");
        }
    }

    #[test]
    fn without_budgets_a_point_enters_unless_cheaper_training_did_better() {
        let points = [
            point("s", 10, None, 0, 0.50),
            point("m", 30, None, 0, 0.52),
            point("l", 90, None, 0, 0.45),
        ];
        let selection = by_compute(&points, &[], Some(CHANCE_LOSS));
        assert_eq!(chosen(&selection), ["s-1e7-0", "l-9e7-0"]);
        assert!(
            selection.excluded[0]
                .reason
                .contains("with no more compute")
        );
    }
}
