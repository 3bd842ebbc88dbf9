//! `coordinator fit`: laws of a table that anybody made.

use super::Error;
use polestar_core::chain;
use polestar_laws::{
    fits::{
        Bootstrap, Fit, FormComparison, Interval, Parametric, PowerLaw,
        isoflop::{Method, Valley},
    },
    report::{Fitting, build_with},
    table::{self, Fits, IsoFlop, LawChoice, Quantity, Reading, Table, report_input},
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
    #[arg(long, value_enum, default_value_t = LawChoice::Auto)]
    law: LawChoice,
    /// How the best size of a budget is found
    #[arg(long, value_enum, default_value_t = Method::Parabola)]
    valley: Method,
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
    /// Write report.html with figures, report.json, points.csv and pictures into this folder
    #[arg(long, value_name = "FOLDER")]
    report: Option<PathBuf>,
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
    let named =
        |error: &dyn std::error::Error| format!("{}: {}", args.table.display(), chain(error));
    let reading = Reading {
        columns: args.columns.into_iter().collect(),
        filters: args.filters,
        skip_missing: args.skip_missing,
    };
    let file = File::open(&args.table).map_err(|e| named(&e))?;
    let table = Table::read(file, &reading).map_err(|e| named(&e))?;
    let options = table::Options {
        law: args.law,
        valley: args.valley,
        bootstrap: Bootstrap {
            resamples: args.resamples,
            seed: args.seed,
        },
    };
    let fits = table::fit(&table, options).map_err(|e| named(&e))?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&fits)?);
    } else {
        print(&fits, &table);
    }
    if let Some(folder) = &args.report {
        let name = args.table.file_name().unwrap_or(args.table.as_os_str());
        let input = report_input(&name.to_string_lossy(), &table)
            .map_err(|needs| format!("{}: {needs}", args.table.display()))?;
        let fitting = Fitting {
            bootstrap: options.bootstrap,
            valley: options.valley,
        };
        let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
        std::fs::create_dir_all(folder).map_err(failed)?;
        for (name, bytes) in build_with(&input, fitting).files()? {
            std::fs::write(folder.join(name), bytes).map_err(failed)?;
        }
        eprintln!("report {}", folder.join("report.html").display());
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
        print_parametric(law, table);
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
        print_isoflop(isoflop);
    }
    if let Some(power) = &fits.power {
        print_power(&power.of, &power.by, &power.law);
        power.comparison.iter().for_each(print_comparison);
    }
    for refused in &fits.refused {
        println!("\nnot fitted: {refused}");
    }
}

fn print_parametric(law: &Parametric, table: &Table) {
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

fn print_isoflop(isoflop: &IsoFlop) {
    println!("\nbest size of each budget");
    println!(
        "  {:>10}  {:>10}  {:>10}  {:>8}  sizes",
        "C", "N*", "D*", "loss"
    );
    for v in &isoflop.valleys {
        let Valley { flops, n, d, .. } = v;
        println!(
            "  {flops:>10.3e}  {n:>10.3e}  {d:>10.3e}  {:>8.4}  {}",
            v.loss, v.sizes
        );
    }
    for without in &isoflop.refused {
        println!("  {:>10.3e}  none: {}", without.flops, without.reason);
    }
    if let Fit::Fitted(laws) = &isoflop.laws {
        print_power("N*", "C", &laws.size);
        print_power("D*", "C", &laws.tokens);
        print_power("L*", "C", &laws.loss);
    }
}

fn print_power(of: &str, by: &str, law: &PowerLaw) {
    println!(
        "\n{of} = {:.4e} · {by}^e, e = {}, R² {:.4}, {} points",
        law.coefficient,
        with(law.exponent, law.exponent_interval),
        law.r2,
        law.points.len()
    );
}

fn print_comparison(compared: &FormComparison) {
    match &compared.saturating {
        Fit::Fitted(law) => println!(
            "with a floor: E + {:.4e} · x^e, E = {}, e = {}",
            law.coefficient,
            with(law.floor, law.floor_interval),
            with(law.exponent, law.exponent_interval)
        ),
        Fit::Refused(reason) => println!("with a floor: {reason}"),
    }
    for standing in &compared.standings {
        let number = |x: Option<f64>| x.map_or_else(|| "-".to_owned(), |x| format!("{x:.2}"));
        let percent = |x: Option<f64>| number(x.map(|x| 100.0 * x));
        println!(
            "  {:<10} AICc {:>9}, weight {}, misses the largest x by {}% unseen",
            standing.form,
            number(standing.aicc),
            number(standing.weight),
            percent(standing.held_out)
        );
    }
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
