//! `coordinator fit`: laws of a table that anybody made.

use super::Error;
use crate::{
    fit::{
        self, Fits, Law, Power,
        table::{Quantity, Reading, Table},
    },
    laws::{Bootstrap, Interval},
};
use std::{fs::File, path::PathBuf};

#[derive(Debug, clap::Args)]
pub(super) struct FitArgs {
    /// CSV with a header: columns N (parameters), D (tokens), C (FLOP), loss, as far as there are
    table: PathBuf,
    /// A column that goes by another name, as in N=param_count; sigma=… weighs N by its error in ln N
    #[arg(long = "column", value_name = "WHAT=NAME", value_parser = column)]
    columns: Vec<(Quantity, String)>,
    /// The law to fit
    #[arg(long, value_enum, default_value_t = Law::Auto)]
    law: Law,
    /// Only rows in which a column has a value
    #[arg(long = "where", value_name = "COLUMN=VALUE", value_parser = filter)]
    filters: Vec<(String, String)>,
    /// Leave out rows that lack a number
    #[arg(long)]
    skip_missing: bool,
    /// Resamples that intervals rest on
    #[arg(long, default_value_t = 2000)]
    resamples: usize,
    /// Seed of the resamples
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn column(text: &str) -> Result<(Quantity, String), String> {
    let (what, name) = filter(text)?;
    Ok((what.parse()?, name))
}

fn filter(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("an = is missing")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

pub(super) fn run(args: FitArgs) -> Result<(), Error> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", args.table.display());
    let reading = Reading {
        columns: args.columns.into_iter().collect(),
        filters: args.filters,
        skip_missing: args.skip_missing,
    };
    let file = File::open(&args.table).map_err(|e| named(&e))?;
    let table = Table::read(file, &reading).map_err(|e| named(&e))?;
    let bootstrap = Bootstrap {
        resamples: args.resamples,
        seed: args.seed,
    };
    let fits = fit::fit(&table, args.law, bootstrap).map_err(|e| named(&e))?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&fits)?);
    } else {
        print(&fits, &table);
    }
    Ok(())
}

fn print(fits: &Fits, table: &Table) {
    print!("{} rows", fits.rows);
    if fits.filtered > 0 {
        print!(", {} left out by --where", fits.filtered);
    }
    if fits.skipped > 0 {
        print!(", {} without a number", fits.skipped);
    }
    println!();
    if let Some(law) = &fits.parametric {
        println!(
            "\nL(N, D) = E + A / N^α + B / D^β, Huber loss of ln L, 95% of {} resamples",
            law.resamples
        );
        let (c, i) = (law.law, law.intervals);
        for (name, value, interval) in [
            ("E", c.e, i.e),
            ("A", c.a, i.a),
            ("B", c.b, i.b),
            ("α", c.alpha, i.alpha),
            ("β", c.beta, i.beta),
        ] {
            println!("  {name}  {}", with(value, interval));
        }
        let best = with(law.optimal_exponent, law.optimal_exponent_interval);
        println!("  best N grows as C^a, a = β / (α + β) = {best}   (for C proportional to N · D)");
        println!("  objective {:.12}", law.objective);
        for &(at, residual) in &law.outliers {
            let percent = 100.0 * (residual.exp() - 1.0);
            println!(
                "  line {} is far off the law: {percent:+.1}%; it took part",
                table.lines[at]
            );
        }
    }
    if let Some(held) = &fits.held_out {
        println!(
            "  the {} largest runs, predicted from the others: off by {:.2}% in the middle, {:.2}% at most",
            held.runs,
            100.0 * held.median_error,
            100.0 * held.largest_error
        );
    }
    if let Some(isoflop) = &fits.isoflop {
        println!("\nbest size of each budget (parabola in ln N)");
        println!("  {:>10}  {:>10}  {:>8}  sizes", "C", "N*", "loss");
        for v in &isoflop.valleys {
            println!(
                "  {:>10.3e}  {:>10.3e}  {:>8.4}  {}",
                v.flops, v.n, v.loss, v.sizes
            );
        }
        for without in &isoflop.refused {
            println!("  {:>10.3e}  none: {}", without.flops, without.reason);
        }
        isoflop.law.iter().for_each(print_power);
    }
    fits.power.iter().for_each(print_power);
    for refused in &fits.refused {
        println!("\nnot fitted: {refused}");
    }
}

fn print_power(law: &Power) {
    println!(
        "\n{} = {:.4e} · {}^e, e = {}, R² {:.4}, {} points",
        law.of,
        law.coefficient,
        law.by,
        with(law.exponent, law.exponent_interval),
        law.r2,
        law.points
    );
}

fn with(value: f64, interval: Interval) -> String {
    let number = |x: f64| match x.abs() {
        1e5.. => format!("{x:.4e}"),
        10.0..1e5 => format!("{x:.2}"),
        _ => format!("{x:.4}"),
    };
    if interval.lo == interval.hi {
        // Nothing was resampled: there is no interval to show.
        return number(value);
    }
    format!(
        "{} ({} to {})",
        number(value),
        number(interval.lo),
        number(interval.hi)
    )
}
