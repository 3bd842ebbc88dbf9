//! Published tables of runs give the laws that were published for them.
//!
//! The tables are real data and not part of this repository: `POLESTAR_DATA` names the folder whose
//! `scaling/` holds them. Without it these tests say that they are skipped.

use polestar_laws::{
    fits::{Bootstrap, isoflop::Method},
    table::{Fits, LawChoice, Options, Quantity, Reading, Table, fit},
};
use std::{collections::BTreeMap, fs::File, path::PathBuf};

fn scaling(name: &str) -> Option<PathBuf> {
    let Some(folder) = std::env::var_os("POLESTAR_DATA") else {
        println!("skipped: POLESTAR_DATA doesn't name a folder with scaling/{name}");
        return None;
    };
    Some(PathBuf::from(folder).join("scaling").join(name))
}

fn fits(
    path: &PathBuf,
    law: LawChoice,
    columns: &[(Quantity, &str)],
    filters: &[(&str, &str)],
    resamples: usize,
) -> Fits {
    let options = Options {
        law,
        bootstrap: Bootstrap { resamples, seed: 1 },
        ..Options::default()
    };
    fit(&read(path, columns, filters), options).expect("a law")
}

fn read(path: &PathBuf, columns: &[(Quantity, &str)], filters: &[(&str, &str)]) -> Table {
    let own = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
    let reading = Reading {
        columns: columns
            .iter()
            .map(|(q, name)| (*q, (*name).to_owned()))
            .collect(),
        filters: filters.iter().map(own).collect(),
        skip_missing: true,
        ..Reading::default()
    };
    Table::read(File::open(path).expect("the table"), &reading).expect("a table")
}

fn close(found: f64, published: f64, tolerance: f64) {
    let error = (found / published - 1.0).abs();
    assert!(error < tolerance, "{found}, published {published}");
}

/// Optimum and intervals of Besiroglu and others, 2024, for Chinchilla's runs.
#[test]
fn chinchilla_has_its_published_optimum_and_intervals() {
    let Some(path) = scaling("chinchilla_besiroglu.csv") else {
        return;
    };
    let fits = fits(
        &path,
        LawChoice::Auto,
        &[],
        &[("excluded_outlier", "0")],
        4_000,
    );
    assert_eq!(fits.rows, 240);
    let law = fits.parametric.expect("columns N, D and loss");
    close(law.law.a, 477.826, 1e-4);
    close(law.law.b, 2143.42, 1e-4);
    close(law.law.e, 1.817218, 1e-6);
    close(law.law.alpha, 0.3473105, 1e-6);
    close(law.law.beta, 0.3671724, 1e-6);
    assert!(
        (law.objective - 0.001018274018).abs() < 1e-11,
        "{}",
        law.objective
    );
    close(law.optimal_exponent, 0.514, 1e-3);
    // Bootstraps differ by their draws.
    for (interval, lo, hi, tolerance) in [
        (law.intervals.e, 1.769, 1.871, 0.01),
        (law.intervals.alpha, 0.317, 0.373, 0.02),
        (law.intervals.beta, 0.331, 0.415, 0.03),
        (law.intervals.a, 285.0, 744.0, 0.12),
        (law.intervals.b, 1042.0, 5810.0, 0.25),
        (law.optimal_exponent_interval, 0.481, 0.556, 0.02),
    ] {
        let interval = interval.expect("resamples were fitted");
        close(interval.lo, lo, tolerance);
        close(interval.hi, hi, tolerance);
    }
}

/// With the five outliers in, β is another one: they are named.
#[test]
fn outliers_of_chinchilla_are_named() {
    let Some(path) = scaling("chinchilla_besiroglu.csv") else {
        return;
    };
    let law = fits(&path, LawChoice::Auto, &[], &[], 50)
        .parametric
        .expect("a law");
    close(law.law.beta, 0.453, 2e-3);
    // The table lists them first.
    let named: Vec<usize> = law.outliers.iter().map(|&(at, _)| at).collect();
    assert!((0..5).all(|at| named.contains(&at)), "{named:?}");
}

/// Least squares of Porian and others, 2024, over the optima of each of their settings.
#[test]
fn porians_exponents_are_found_in_all_settings() {
    let (Some(pairs), Some(published)) = (
        scaling("porian_optimal_pairs.csv"),
        scaling("porian_published_fits.csv"),
    ) else {
        return;
    };
    const SETTING: [&str; 6] = [
        "dataset",
        "hparams",
        "warmup",
        "decay",
        "param_count",
        "val",
    ];
    let mut rows = csv::Reader::from_path(published).expect("the table");
    let mut checked = 0;
    for row in rows.deserialize::<BTreeMap<String, String>>() {
        let row = row.expect("a row");
        let filters: Vec<(&str, &str)> = SETTING
            .iter()
            .map(|&key| (key, row[key].as_str()))
            .collect();
        let columns = [
            (Quantity::C, "flops"),
            (Quantity::N, "n"),
            (Quantity::D, "t"),
            (Quantity::Sigma, "n_star_std"),
        ];
        let law = fits(&pairs, LawChoice::Optima, &columns, &filters, 50)
            .power
            .expect("N against C");
        let exponent: f64 = row["weighted.n_exponent"].parse().expect("a number");
        close(law.law.exponent, exponent, 5e-4);
        checked += 1;
    }
    assert_eq!(checked, 15);
}

/// nanochat's optima under three ways of counting.
#[test]
fn nanochats_exponents_depend_on_how_is_counted() {
    let Some(path) = scaling("nanochat_isoflop_optima.csv") else {
        return;
    };
    for (convention, n, d) in [
        ("kaplan_style", 0.524, 0.479),
        ("chinchilla_style", 0.366, 0.490),
        ("transformer_only", 0.681, 0.397),
    ] {
        for (column, exponent) in [("N_opt", n), ("D_opt", d)] {
            // Either grows as a power of compute.
            let law = fits(
                &path,
                LawChoice::Optima,
                &[(Quantity::N, column)],
                &[("param_convention", convention)],
                50,
            );
            let found = law.power.expect("N against C").law.exponent;
            assert!(
                (found - exponent).abs() < 1e-3,
                "{convention} {column}: {found}"
            );
        }
    }
}

/// Runs of Porian's widest sweep: their valleys give the exponent that their optima do, within its error.
#[test]
fn porians_valleys_are_found_in_their_runs() {
    let Some(path) = scaling("porian_isoflop_points.csv") else {
        return;
    };
    let setting = [
        ("dataset", "rw"),
        ("hparams", "base"),
        ("warmup", "long"),
        ("decay", "kaplan"),
        ("param_count", "kaplan"),
        ("val", "train"),
    ];
    let fits = fits(&path, LawChoice::Isoflop, &[], &setting, 500);
    let isoflop = fits.isoflop.expect("columns C, N and loss");
    assert_eq!((isoflop.valleys.len(), isoflop.refused.len()), (11, 0));
    let law = &isoflop.laws.fitted().expect("eleven budgets").size;
    let exponents = law.exponent_interval.expect("resamples were fitted");
    assert!(exponents.contains(0.8353), "{law:?}");

    // Their own bottoms come from interpolation by Akima's cubics.
    let Some(path) = scaling("porian_optimal_pairs.csv") else {
        return;
    };
    let published = read(&path, &[], &setting);
    let [published, sizes] =
        [Quantity::C, Quantity::N].map(|q| published.column(q).expect("a column").to_vec());
    let options = Options {
        law: LawChoice::Isoflop,
        valley: Method::Akima,
        ..Options::default()
    };
    let points = scaling("porian_isoflop_points.csv").expect("as above");
    let akima = fit(&read(&points, &[], &setting), options).expect("valleys");
    for valley in akima.isoflop.expect("columns C, N and loss").valleys {
        let at = published.iter().position(|c| *c == valley.flops);
        let off = (valley.n / sizes[at.expect("a published budget")]).ln();
        // Sizes are at least a sixth apart there; theirs are means over noise, which moves flat bottoms.
        assert!(off.abs() < 0.1, "{valley:?}");
    }
}

#[test]
fn a_table_that_says_nothing_is_refused_with_what_would_help() {
    let refusal = |csv: &str| {
        let table = Table::read(csv.as_bytes(), &Reading::default());
        match table.map(|table| fit(&table, Options::default())) {
            Err(error) => error.to_string(),
            Ok(fits) => fits.expect_err(csv).to_string(),
        }
    };
    for (csv, says) in [
        ("N,N,loss\n1,2,3\n", "two columns are named `N`"),
        ("N,params,loss\n1,2,3\n", "say which with --column N=N"),
        (
            "N,D,loss\n1e6,1e9,3\n1e6,2e9,NaN\n",
            "line 3: loss is `NaN`",
        ),
        ("N,D,loss\n1e6,-5,3\n", "line 2: D is `-5`"),
        ("N,D,loss\n1e6,1e9,3\n", "at least 8"),
        ("a,b\n1,2\n", "found none of N, D, C, loss"),
        (
            "C,loss\n1e18,3\n1e18,3.1\n",
            "at least 3 different values of C",
        ),
        ("N,D,loss\n", "no row is left"),
    ] {
        let found = refusal(csv);
        assert!(found.contains(says), "{csv:?}: {found}");
    }
    let one = |n: &str, d: &str| {
        let rows = (0..9).map(|i| {
            let n = n.replace('i', &format!("{i}"));
            let d = d.replace('i', &format!("{i}"));
            format!("{n},{d},{}\n", 3.0 - 0.1 * f64::from(i))
        });
        refusal(&format!("N,D,loss\n{}", rows.collect::<String>()))
    };
    assert!(one("1e6", "1ie9").contains("all points have the same N"));
    assert!(one("1ie6", "1e9").contains("all points have the same D"));
    assert!(one("1ie6", "2ie9").contains("D follows N"));
}
