//! The report of a table: the same pages, figures and files as a run's.

use super::{Quantity, Table, budgets::Grid};
use crate::{
    Coordinates, Length,
    fits::FinishedTrial,
    report::{ReportInput, size_name},
};

/// What a report can be made from: rows with a loss, and with C or N.
///
/// # Errors
/// A sentence that says which column is missing.
pub fn report_input(name: &str, table: &Table) -> Result<ReportInput, String> {
    let column = |quantity| table.column(quantity);
    let loss = column(Quantity::Loss).ok_or_else(|| without_loss(table))?;
    let grid = Grid::of(table);
    let (n, d) = (grid.n.as_deref(), column(Quantity::D));
    let finished = match (n, d, grid.c.as_deref(), column(Quantity::C)) {
        (_, _, Some(budgets), Some(c)) => {
            let row = |row: usize| Row {
                n: n.map(|n| n[row]),
                d: d.map(|d| d[row]),
                flops: Some(c[row]),
                budget: grid.has_budgets.then(|| budgets[row]),
                loss: loss[row],
            };
            trials(table, row)
        }
        (Some(n), Some(d), _, _) => {
            let row = |row: usize| Row {
                n: Some(n[row]),
                d: Some(d[row]),
                flops: Some(6.0 * n[row] * d[row]),
                budget: None,
                loss: loss[row],
            };
            trials(table, row)
        }
        // Nothing is known of compute: what there is stands against loss all the same.
        (Some(n), None, _, _) => {
            let row = |row: usize| Row {
                n: Some(n[row]),
                d: None,
                flops: None,
                budget: None,
                loss: loss[row],
            };
            trials(table, row)
        }
        _ => {
            return Err(format!(
                "a report needs a column C, or N; the table has {}",
                table.header.join(", ")
            ));
        }
    };
    Ok(ReportInput {
        title: name.to_owned(),
        created: format!("Polestar {}", env!("CARGO_PKG_VERSION")),
        conventions: conventions(table, grid),
        finished,
        ..ReportInput::default()
    })
}

fn without_loss(table: &Table) -> String {
    match table.ambiguous.get(&Quantity::Loss) {
        Some(columns) => format!(
            "a report needs a column loss, and any of {} could be it; say which with --column loss={}",
            columns.join(", "),
            columns[0]
        ),
        None => format!(
            "a report needs a column loss; the table has {}",
            table.header.join(", ")
        ),
    }
}

/// What the numbers count, and what rows were taken for.
fn conventions(table: &Table, grid: Grid) -> Vec<(String, String)> {
    let has = |quantity| table.column(quantity).is_some();
    let fact = |what: &str, text: &str| (what.to_owned(), text.to_owned());
    let mut conventions = table.facts();
    match (has(Quantity::C), has(Quantity::D)) {
        (false, true) => conventions.push(fact("C", "6 × N × D: the table has none")),
        (true, false) if has(Quantity::N) => {
            conventions.push(fact("D", "C / 6N: the table has none"));
        }
        _ => {}
    }
    conventions.extend(
        grid.notes
            .into_iter()
            .map(|note| ("Taken for one".into(), note)),
    );
    for (rows, why) in [
        (table.filtered, "left out by a filter"),
        (table.skipped, "left out because a number is missing"),
    ] {
        if rows > 0 {
            conventions.push((format!("{rows} rows"), why.to_owned()));
        }
    }
    conventions
}

/// The numbers of one row, as far as the table has them.
struct Row {
    n: Option<f64>,
    d: Option<f64>,
    flops: Option<f64>,
    budget: Option<f64>,
    loss: f64,
}

fn trials(table: &Table, row: impl Fn(usize) -> Row) -> Vec<FinishedTrial> {
    let trial = |(at, line): (usize, &u64)| {
        let row = row(at);
        FinishedTrial {
            name: format!("line {line}"),
            at: Coordinates {
                size: row.n.map_or_else(|| "all".to_owned(), size_name),
                length: match (row.budget, row.flops) {
                    (Some(budget), _) => Length::Budget(budget),
                    // Rows that say nothing of compute are alike in it.
                    (None, flops) => Length::Flops(flops.unwrap_or_default()),
                },
                batch: None,
                lr: None,
                policies: None,
                // Rows that say the same of themselves are repeats, and which is which doesn't matter.
                seed: 0,
            },
            params: row.n,
            flops: row.flops,
            tokens: row.d.or_else(|| Some(row.flops? / (6.0 * row.n?))),
            distance: None,
            run: table.runs.as_ref().map(|runs| runs.names[at].clone()),
            loss: row.loss,
        }
    };
    table.lines.iter().enumerate().map(trial).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Reading;

    fn input(csv: &str) -> Result<ReportInput, String> {
        let table = Table::read(csv.as_bytes(), &Reading::default()).unwrap();
        report_input("t.csv", &table)
    }

    #[test]
    fn numbers_that_a_table_lacks_stay_unknown() {
        let only_compute = input("C,loss\n1e18,3\n1e19,2.9\n").unwrap();
        let trial = &only_compute.finished[0];
        assert_eq!((trial.params, trial.tokens), (None, None));
        assert_eq!((trial.at.size.as_str(), trial.at.budget()), ("all", None));
        // Parameters in billions are no whole numbers.
        let sizes = input("N,D,loss\n0.125,2,3\n0.25,2,2.9\n").unwrap();
        assert_eq!(sizes.finished[0].params, Some(0.125));
        assert_eq!(sizes.finished[0].flops, Some(1.5));
        let budgets = input("C,N,loss\n6e18,1e9,3\n6e18,2e9,2.9\n").unwrap();
        assert_eq!(budgets.finished[1].at.budget(), Some(6e18));
        assert_eq!(budgets.finished[1].tokens, Some(5e8));
        // Of compute nothing is known, and nothing is made up.
        let sizes = input("N,loss\n1e9,3\n2e9,2.9\n").unwrap();
        assert_eq!(
            (sizes.finished[1].flops, sizes.finished[1].tokens),
            (None, None)
        );
        let refusal = input("N,C\n1e9,3\n").unwrap_err();
        assert!(
            refusal.contains("column loss; the table has N, C"),
            "{refusal}"
        );
    }
}
