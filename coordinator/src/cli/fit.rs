//! `coordinator fit`: laws of any table of runs.

use super::Error;
use clap::ValueEnum;
use polestar_core::chain;
use polestar_laws::{
    fits::{
        Bootstrap, Fit, FormComparison, Interval, Parametric, PowerLaw,
        isoflop::{Method, Valley},
        parametric::{DESCRIPTION, UNDETERMINED},
    },
    report::{Fitting, Report, build_with},
    table::{self, Fits, IsoFlop, LawChoice, Quantity, Reading, RunColumn, Table, report_input},
};
use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

#[derive(Debug, clap::Args)]
pub(super) struct FitArgs {
    /// Table with a header (CSV, or with tabs or semicolons): columns N (parameters), D (tokens), C (FLOP), loss, as
    /// far as there are; - reads standard input
    table: PathBuf,
    /// A column that goes by another name, as in N=param_count; sigma=… weighs N by its error in ln N
    #[arg(long = "column", value_name = "WHAT=NAME", value_parser = column)]
    columns: Vec<(Quantity, String)>,
    /// The column that says which run a row is a checkpoint of: intervals then come from drawing runs. Unasked, a column
    /// such as run or name is taken if its rows are checkpoints; "none" takes every row for a run
    #[arg(long, value_name = "COLUMN")]
    run: Option<String>,
    /// The law to fit
    #[arg(long, value_enum, default_value_t = LawName::Auto)]
    law: LawName,
    /// How the best size of a budget is found
    #[arg(long, value_enum, default_value_t = ValleyName::Parabola)]
    valley: ValleyName,
    /// Only rows in which a column has a value
    #[arg(long = "where", value_name = "COLUMN=VALUE", value_parser = filter)]
    filters: Vec<(String, String)>,
    /// Leave out rows that lack a number: empty, NaN, None, null, N/A, -, inf
    #[arg(long)]
    skip_missing: bool,
    /// Resamples that intervals rest on; 0 gives estimates without intervals
    #[arg(long, default_value_t = 2000, value_parser = resamples)]
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

/// The words of `--law`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum LawName {
    /// What the columns allow
    Auto,
    /// L = E + A / N^α + B / D^β
    Parametric,
    /// The best size of each budget, and how it grows
    Isoflop,
    /// N = c · C^e, for rows that are the best sizes of their budgets
    Optima,
    /// L = c · x^e, x being C, else N, else D
    Power,
}

impl From<LawName> for LawChoice {
    fn from(name: LawName) -> Self {
        match name {
            LawName::Auto => Self::Auto,
            LawName::Parametric => Self::Parametric,
            LawName::Isoflop => Self::Isoflop,
            LawName::Optima => Self::Optima,
            LawName::Power => Self::Power,
        }
    }
}

/// The words of `--valley`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ValleyName {
    /// A parabola in ln N through the lowest losses: wobbles average out
    Parabola,
    /// Akima's interpolation in ln N: no shape is assumed
    Akima,
}

impl From<ValleyName> for Method {
    fn from(name: ValleyName) -> Self {
        match name {
            ValleyName::Parabola => Self::Parabola,
            ValleyName::Akima => Self::Akima,
        }
    }
}

fn column(text: &str) -> Result<(Quantity, String), String> {
    let (what, name) = filter(text)?;
    Ok((what.parse()?, name))
}

fn filter(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("an = is missing")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// More say nothing new, and would be kept in memory all the same.
const MOST_RESAMPLES: usize = 1_000_000;

fn resamples(text: &str) -> Result<usize, String> {
    let found = text.parse().map_err(|_| "is no whole number".to_owned())?;
    match found {
        0..=MOST_RESAMPLES => Ok(found),
        _ => Err(format!(
            "at most {MOST_RESAMPLES} are drawn; the ends of a 95% interval are steady from a few thousand on"
        )),
    }
}

pub(super) fn run(args: FitArgs) -> Result<(), Error> {
    let is_input = args.table == Path::new("-");
    let name = match is_input {
        true => "standard input".to_owned(),
        false => args.table.display().to_string(),
    };
    let named = |error: &dyn std::error::Error| format!("{name}: {}", chain(error));
    let mut columns = std::collections::BTreeMap::new();
    for (what, column) in args.columns {
        if let Some(other) = columns.insert(what, column) {
            return Err(format!("--column {what} is given twice, once as {other}").into());
        }
    }
    let reading = Reading {
        columns,
        filters: args.filters,
        skip_missing: args.skip_missing,
        run: match args.run {
            None => RunColumn::Detect,
            Some(none) if none == "none" => RunColumn::None,
            Some(column) => RunColumn::Named(column),
        },
    };
    let source: Box<dyn Read> = match is_input {
        true => Box::new(io::stdin()),
        false => Box::new(File::open(&args.table).map_err(|e| named(&e))?),
    };
    let table = Table::read(source, &reading).map_err(|e| named(&e))?;
    let options = table::Options {
        law: args.law.into(),
        valley: args.valley.into(),
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
        let title = match args.table.file_name() {
            Some(file) if !is_input => file.to_string_lossy().into_owned(),
            _ => name.clone(),
        };
        let input = report_input(&title, &table).map_err(|needs| format!("{name}: {needs}"))?;
        let fitting = Fitting {
            bootstrap: options.bootstrap,
            valley: options.valley,
        };
        let report = build_with(&input, fitting);
        if !args.json {
            print_report(&report);
        }
        let failed = |e: io::Error| format!("{}: {e}", folder.display());
        std::fs::create_dir_all(folder).map_err(failed)?;
        for (name, bytes) in report.files()? {
            std::fs::write(folder.join(name), bytes).map_err(failed)?;
        }
        eprintln!("report {}", folder.join("report.html").display());
    }
    Ok(())
}

/// The laws that the page has besides, with what it says of them.
fn print_report(report: &Report) {
    for (name, law) in [("N", report.by_params()), ("C", report.by_compute())] {
        println!("\non the page, law in {name}: {}", law.text());
        for caution in &law.selection.cautions {
            println!("  {caution}");
        }
        if !law.selection.excluded.is_empty() {
            let count = law.selection.excluded.len();
            println!("  {count} rows are not in it; the page says why");
        }
    }
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
    for (name, text) in table.facts() {
        println!("{}: {text}", name.to_lowercase());
    }
    for note in &fits.notes {
        println!("note: {note}");
    }
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
    if let Some(reason) = &law.reason {
        println!("  {UNDETERMINED}: {reason}. {DESCRIPTION}.");
    }
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

/// A number with its interval, as far as there is one.
fn with(value: f64, interval: Option<Interval>) -> String {
    let number = |x: f64| match x.abs() {
        1e5.. => format!("{x:.4e}"),
        10.0..1e5 => format!("{x:.2}"),
        _ => format!("{x:.4}"),
    };
    match interval {
        None => format!("{} (95% not known)", number(value)),
        Some(Interval { lo, hi }) => {
            format!("{} ({} to {})", number(value), number(lo), number(hi))
        }
    }
}
