use super::*;
use crate::fits::planted::Noise;

const PLANTED: Coefficients = Coefficients {
    e: 1.7,
    a: 400.0,
    b: 1500.0,
    alpha: 0.34,
    beta: 0.37,
};

/// A law whose floor is hard to see in small tables: E is half of the lowest loss, and exponents are small.
const LOW_FLOOR: Coefficients = Coefficients {
    e: 0.6,
    a: 45.0,
    b: 325.0,
    alpha: 0.23,
    beta: 0.3,
};

fn measured(law: Coefficients, places: &[(f64, f64)], noise: f64, stream: u64) -> Vec<Run> {
    let mut random = Noise::new(stream);
    let run = |&(n, d): &(f64, f64)| Run {
        n,
        d,
        loss: law.predict(n, d) * (noise * random.normal()).exp(),
    };
    places.iter().map(run).collect()
}

/// As many sizes as lengths, over two and a half decades each.
fn square(sizes: i32) -> Vec<(f64, f64)> {
    let at = |i: i32| 250f64.powf(f64::from(i) / f64::from(sizes - 1));
    (0..sizes * sizes)
        .map(|i| (3e7 * at(i / sizes), 1e9 * at(i % sizes)))
        .collect()
}

/// Four sizes, each at 20 to 200 tokens a parameter.
fn ladder() -> Vec<(f64, f64)> {
    let sizes = [1.9e8, 3.71e8, 7.58e8, 1.28e9];
    let ratios = [20.0, 40.0, 100.0, 200.0];
    let of = |n: f64| ratios.map(|ratio| (n, ratio * n));
    sizes.into_iter().flat_map(of).collect()
}

/// Sizes of which each is trained on `ratio(size)` tokens a parameter.
fn in_step(sizes: i32, ratio: impl Fn(i32) -> f64) -> Vec<(f64, f64)> {
    (0..sizes)
        .map(|i| {
            let n = 1e7 * 1e3f64.powf(f64::from(i) / f64::from(sizes - 1));
            (n, ratio(i) * n)
        })
        .collect()
}

fn planted(sizes: i32, noise: f64, stream: u64) -> Vec<Run> {
    measured(PLANTED, &square(sizes), noise, stream)
}

fn bootstrap(resamples: usize, seed: u64) -> Bootstrap {
    Bootstrap { resamples, seed }
}

/// How many tables of a law have intervals that hold its numbers.
#[derive(Debug, Default)]
struct Coverage {
    tables: usize,
    determined: usize,
    /// E, α, β, exponent of the best N.
    all: [usize; 4],
    /// Tables whose best E is zero, and of those the same counts.
    at_zero: usize,
    of_those: [usize; 4],
}

fn coverage(law: Coefficients, places: &[(f64, f64)], noise: f64, tables: u64) -> Coverage {
    let mut found = Coverage::default();
    for stream in 0..tables {
        let runs = measured(law, places, noise, stream);
        let fit = Parametric::fit(&runs, bootstrap(200, stream)).unwrap();
        let i = fit.intervals;
        let holds = [
            (i.e, law.e),
            (i.alpha, law.alpha),
            (i.beta, law.beta),
            (fit.optimal_exponent_interval, law.optimal_exponent()),
        ]
        .map(|(interval, planted)| usize::from(interval.is_none_or(|i| i.contains(planted))));
        let is_zero = usize::from(fit.law.e < 1e-3);
        found.tables += 1;
        found.determined += usize::from(fit.determined);
        found.at_zero += is_zero;
        for (at, held) in holds.into_iter().enumerate() {
            found.all[at] += held;
            found.of_those[at] += is_zero * held;
        }
    }
    found
}

#[test]
fn a_law_without_noise_is_recovered() {
    let fit = Parametric::fit(&planted(7, 0.0, 0), bootstrap(20, 0)).unwrap();
    for (found, planted) in [
        (fit.law.e, PLANTED.e),
        (fit.law.a, PLANTED.a),
        (fit.law.b, PLANTED.b),
        (fit.law.alpha, PLANTED.alpha),
        (fit.law.beta, PLANTED.beta),
    ] {
        assert!((found / planted - 1.0).abs() < 1e-4, "{:?}", fit.law);
    }
    // What the fit leaves over is the search's last digit: no run stands out by it.
    assert!(fit.determined && fit.outliers.is_empty(), "{fit:?}");
}

#[test]
fn intervals_hold_planted_exponents_about_as_often_as_they_claim() {
    // A hundred runs. Half as many leave intervals a little wider than they claim: 97 of 100.
    let found = coverage(PLANTED, &square(10), 0.003, 150);
    assert_eq!(found.determined, 150);
    for (held, name) in found.all.into_iter().zip(["E", "α", "β", "exponent"]) {
        assert!((138..=148).contains(&held), "{name}: {held} of 150");
    }
}

/// Where the best E is zero, resamples must be able to find another: an interval of 0 to 0 would shut out the floor
/// that was planted.
#[test]
fn intervals_at_the_bound_of_the_floor_are_wide() {
    let found = coverage(LOW_FLOOR, &ladder(), 0.005, 80);
    assert!(found.at_zero >= 5, "{found:?}");
    for (held, name) in found.all.into_iter().zip(["E", "α", "β", "exponent"]) {
        assert!(10 * held >= 9 * found.tables, "{name}: {found:?}");
    }
    for held in &found.of_those[..2] {
        assert!(10 * held >= 7 * found.at_zero, "{found:?}");
    }
}

/// The same over more tables and designs, 300 each. Of 100 intervals 95 to 97 hold the planted numbers with 100 runs, 97 to
/// 99 with 9 to 36; where E is hard to see they are wider than they claim, and most tables are called undetermined.
/// `cargo test --release -p polestar-laws -- --ignored coverage`
#[test]
#[ignore = "minutes of fitting; prints what it finds"]
fn coverage_of_many_designs() {
    let spread = |i: i32| 20.0 * 2f64.powi([-2, 1, 0, 2, -1][(i % 5) as usize]);
    for (name, law, places, noise) in [
        ("ladder, low floor", LOW_FLOOR, ladder(), 0.005),
        ("3 x 3", PLANTED, square(3), 0.003),
        ("4 x 4", PLANTED, square(4), 0.003),
        ("6 x 6", PLANTED, square(6), 0.003),
        ("10 x 10", PLANTED, square(10), 0.003),
        ("24 sizes around 20 N", PLANTED, in_step(24, spread), 0.003),
    ] {
        println!("{name}: {:?}", coverage(law, &places, noise, 300));
    }
}

#[test]
fn what_can_not_be_fitted_is_said() {
    let refusal = |runs: &[Run]| {
        let fit = Parametric::fit(runs, Bootstrap::default());
        fit.unwrap_err().to_string()
    };
    let runs = planted(7, 0.0, 0);
    assert!(refusal(&runs[..7]).contains("at least 8"));
    let one_size: Vec<Run> = runs.iter().map(|r| Run { n: 1e8, ..*r }).collect();
    assert!(refusal(&one_size).contains("the same N"));
    let one_length: Vec<Run> = runs.iter().map(|r| Run { d: 1e9, ..*r }).collect();
    let said = refusal(&one_length);
    assert!(said.contains("the same D") && said.contains("against N alone with `fit --law power`"));
    let mut broken = runs.clone();
    broken[3].loss = f64::NAN;
    assert!(refusal(&broken).contains("row 4"));
    broken[3] = Run {
        d: -1.0,
        loss: 2.0,
        n: 1e8,
    };
    assert!(refusal(&broken).contains("D = -1"));
    // Two sizes: E and A and α are three numbers, whatever the lengths say.
    let sizes = [runs[0].n, runs[0].n * 1.001, runs[14].n];
    let two: Vec<Run> = runs
        .iter()
        .filter(|r| sizes.contains(&r.n))
        .copied()
        .collect();
    assert!(refusal(&two).contains("only 2 different N"));
    let flat: Vec<Run> = runs.iter().map(|r| Run { loss: 2.5, ..*r }).collect();
    assert!(refusal(&flat).contains("all losses are 2.5"));
    for places in [
        in_step(10, |_| 20.0),
        in_step(24, |i| 20.0 + f64::from(i % 2)),
    ] {
        let said = refusal(&measured(PLANTED, &places, 0.003, 1));
        assert!(said.contains("D follows N"), "{said}");
    }
}

/// Whatever the table: numbers are numbers, intervals hold their estimates, and what isn't known is called so.
#[test]
fn tables_that_say_little_are_called_undetermined_and_no_number_is_infinite() {
    let narrow: Vec<(f64, f64)> = square(4)
        .into_iter()
        .map(|(n, d)| (3e7 * (n / 3e7).powf(0.05), 1e9 * (d / 1e9).powf(0.05)))
        .collect();
    let nothing = Coefficients { a: 0.0, ..PLANTED };
    for (name, law, places, noise) in [
        ("three sizes, noisy", PLANTED, square(3), 0.03),
        ("a narrow range", PLANTED, narrow, 0.003),
        ("N without effect", nothing, square(5), 0.003),
        (
            "one budget",
            PLANTED,
            in_step(9, |i| 20.0 / 4f64.powi(i)),
            0.01,
        ),
    ] {
        for stream in 0..10 {
            let runs = measured(law, &places, noise, stream);
            let fit = Parametric::fit(&runs, bootstrap(200, stream)).unwrap();
            assert!(!fit.determined, "{name}, {stream}: {fit:?}");
            let i = fit.intervals;
            for (interval, at) in [
                (i.e, fit.law.e),
                (i.a, fit.law.a),
                (i.b, fit.law.b),
                (i.alpha, fit.law.alpha),
                (i.beta, fit.law.beta),
                (fit.optimal_exponent_interval, fit.optimal_exponent),
            ] {
                assert!(at.is_finite(), "{name}, {stream}: {fit:?}");
                assert!(
                    interval.is_none_or(|i| i.contains(at)),
                    "{name}, {stream}: {fit:?}"
                );
            }
        }
    }
    let unsampled = Parametric::fit(&planted(7, 0.0, 0), Bootstrap::NONE).unwrap();
    assert!(unsampled.intervals.e.is_none() && !unsampled.determined);
}

/// Checkpoints of a run share its luck: drawn one by one they would look like many witnesses.
#[test]
fn checkpoints_are_drawn_with_their_run() {
    let mut random = Noise::new(3);
    let (mut runs, mut groups) = (Vec::new(), Vec::new());
    for size in 0..5 {
        for _seed in 0..3 {
            let (n, luck) = (3e7 * 4f64.powi(size), (0.01 * random.normal()).exp());
            let checkpoints = (0..12).map(|at| (n, 1e9 * 1.6f64.powi(at)));
            let places: Vec<(f64, f64)> = checkpoints.collect();
            let first = runs.len();
            let of_run = measured(PLANTED, &places, 0.0, 0);
            runs.extend(of_run.into_iter().map(|run| Run {
                loss: run.loss * luck,
                ..run
            }));
            groups.push((first..runs.len()).collect());
        }
    }
    let width = |fit: Parametric| fit.intervals.alpha.map(|i| i.hi - i.lo).unwrap();
    let alone = width(Parametric::fit(&runs, bootstrap(300, 1)).unwrap());
    let groups = Groups::of_runs(groups);
    let together = width(Parametric::fit_grouped(&runs, &groups, bootstrap(300, 1)).unwrap());
    assert!(together > 1.5 * alone, "{together} {alone}");
}
