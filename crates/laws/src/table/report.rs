//! The report of a table: the same pages, figures and files as a run's.

use super::{
    repeats,
    table::{Quantity, Table},
};
use crate::{
    fits::Point,
    report::{ReportInput, size_name},
};

/// What a report can be made from: rows with a loss, and with N or C.
///
/// # Errors
/// A sentence that says which column is missing.
pub fn report_input(name: &str, table: &Table) -> Result<ReportInput, String> {
    let column = |quantity| table.column(quantity);
    let loss = column(Quantity::Loss).ok_or("a report needs a column loss")?;
    let [n, d, c] = [Quantity::N, Quantity::D, Quantity::C].map(column);
    if c.is_none() && (n.is_none() || d.is_none()) {
        return Err("a report needs a column C, or N and D from which C = 6ND follows".into());
    }
    let of = |values: Option<&[f64]>, row: usize| values.map(|values| values[row]);
    let budgets = c.filter(|c| repeats(c));
    let points = loss.iter().enumerate().map(|(row, &loss)| {
        let (n, d, c) = (of(n, row), of(d, row), of(c, row));
        let spent = || Some(6.0 * n? * d?);
        let flops = c.or_else(spent).unwrap_or_default();
        Point {
            trial: format!("line {}", table.lines[row]),
            size: n.map_or_else(|| "all".to_owned(), size_name),
            params: n.unwrap_or_default().round() as u64,
            flops,
            tokens: d.or_else(|| Some(flops / (6.0 * n?))).unwrap_or_default(),
            budget: of(budgets, row),
            policies: None,
            distance: None,
            seed: 0,
            loss,
        }
    });
    let said = |what: &str, text: &str| (what.to_owned(), text.to_owned());
    let mut conventions = vec![said("N, D, C and loss", "as the table's columns have them")];
    if c.is_none() {
        conventions.push(said("C", "6 × N × D: the table has none"));
    } else if d.is_none() && n.is_some() {
        conventions.push(said("D", "C / 6N: the table has none"));
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
        points: points.collect(),
        ..ReportInput::default()
    })
}
