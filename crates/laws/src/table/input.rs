//! The report of a table: the same pages, figures and files as a run's.

use super::{Quantity, Table, repeats};
use crate::{
    Coordinates, Length,
    fits::FinishedTrial,
    report::{ReportInput, size_name},
};

/// What a report can be made from: rows with a loss, and with C, or with N and D.
///
/// # Errors
/// A sentence that says which column is missing.
pub fn report_input(name: &str, table: &Table) -> Result<ReportInput, String> {
    let column = |quantity| table.column(quantity);
    let loss = column(Quantity::Loss).ok_or("a report needs a column loss")?;
    let [n, d, c] = [Quantity::N, Quantity::D, Quantity::C].map(column);
    let finished = match (n, d, c) {
        (_, _, Some(c)) => {
            let is_budget = repeats(c);
            let row = |row: usize| Row {
                n: n.map(|n| n[row]),
                d: d.map(|d| d[row]),
                flops: c[row],
                is_budget,
                loss: loss[row],
            };
            trials(table, row)
        }
        (Some(n), Some(d), None) => {
            let row = |row: usize| Row {
                n: Some(n[row]),
                d: Some(d[row]),
                flops: 6.0 * n[row] * d[row],
                is_budget: false,
                loss: loss[row],
            };
            trials(table, row)
        }
        _ => {
            return Err("a report needs a column C, or N and D from which C = 6ND follows".into());
        }
    };
    let fact = |what: &str, text: &str| (what.to_owned(), text.to_owned());
    let mut conventions = vec![fact("N, D, C and loss", "as the table's columns have them")];
    if c.is_none() {
        conventions.push(fact("C", "6 × N × D: the table has none"));
    } else if d.is_none() && n.is_some() {
        conventions.push(fact("D", "C / 6N: the table has none"));
    }
    for (rows, why) in [
        (table.filtered, "left out by a filter"),
        (table.skipped, "left out because a number is missing"),
    ] {
        if rows > 0 {
            conventions.push((format!("{rows} rows"), why.to_owned()));
        }
    }
    Ok(ReportInput {
        title: name.to_owned(),
        created: format!("Polestar {}", env!("CARGO_PKG_VERSION")),
        conventions,
        finished,
        ..ReportInput::default()
    })
}

/// The numbers of one row, as far as the table has them.
struct Row {
    n: Option<f64>,
    d: Option<f64>,
    flops: f64,
    is_budget: bool,
    loss: f64,
}

fn trials(table: &Table, row: impl Fn(usize) -> Row) -> Vec<FinishedTrial> {
    let trial = |(at, line): (usize, &u64)| {
        let row = row(at);
        FinishedTrial {
            name: format!("line {line}"),
            at: Coordinates {
                size: row.n.map_or_else(|| "all".to_owned(), size_name),
                length: match row.is_budget {
                    true => Length::Budget(row.flops),
                    false => Length::Flops(row.flops),
                },
                batch: None,
                lr: None,
                policies: None,
                // Rows that say the same of themselves are repeats, and which is which doesn't matter.
                seed: 0,
            },
            params: row.n,
            flops: row.flops,
            tokens: row.d.or_else(|| Some(row.flops / (6.0 * row.n?))),
            distance: None,
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
        assert_eq!(sizes.finished[0].flops, 1.5);
        let budgets = input("C,N,loss\n6e18,1e9,3\n6e18,2e9,2.9\n").unwrap();
        assert_eq!(budgets.finished[1].at.budget(), Some(6e18));
        assert_eq!(budgets.finished[1].tokens, Some(5e8));
        assert!(input("N,loss\n1e9,3\n").unwrap_err().contains("column C"));
    }
}
