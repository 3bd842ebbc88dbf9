//! The report as one page: no network, light or dark as the reader prefers, and fit for print. Without scripts
//! all that is lost are the figures to explore.

use super::{Law, Outcome, Quantity, Report, interactive, number, paper};
use crate::fits::{Comparison, Excluded, Interval, PowerLaw, compare};

const STYLE: &str = include_str!("style.css");

/// report.html.
pub(super) fn page(report: &Report, figures: &[(&str, String)]) -> String {
    let input = &report.input;
    let mut title = escape(&input.title);
    if report.is_provisional() {
        title += " (provisional)";
    }
    let mut body = format!("<header>\n<h1>{title}</h1>\n");
    body += &match input.run_id.as_str() {
        "" => format!(
            "<p class=\"muted\">Scaling laws of a table · {}</p>\n</header>\n",
            escape(&input.created)
        ),
        run => format!(
            "<p class=\"muted\">POLAR scaling laws · run <code>{}</code> · corpus {} · {}</p>\n</header>\n",
            escape(run),
            escape(&input.corpus.name),
            escape(&input.created)
        ),
    };
    body += &provisional(report);
    body += &format!(
        "<div class=\"laws\">\n{}{}</div>\n",
        card(&report.by_params),
        card(&report.by_compute)
    );
    // The others stand further down, to point at.
    for (name, svg) in figures.iter().filter(|(name, _)| !caption(name).is_empty()) {
        body += &figure(svg, caption(name));
    }
    body += &analysis(report);
    body += &interactive::section(report);
    if input.chance.is_some() {
        body += &comparison();
    }
    body += &validation(report);
    body += &trials(report);
    body += &left_out(report);
    body += &method(report);
    document(&title, &body)
}

/// A whole page around a body; both are HTML already.
pub(super) fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )
}

/// What is said under a figure that the page begins with.
fn caption(figure: &str) -> &'static str {
    match figure {
        "loss-vs-params" => {
            "Each size at its lowest final loss. Solid marks enter the fit, hollow ones do not; the band is where the law itself lies with 95% \
             confidence, not where single runs fall."
        }
        "loss-vs-compute" => {
            "Each compute budget with its best size. Thin lines, where there are any, are the training curves: validation loss against the \
             FLOPs spent so far."
        }
        "curves" => {
            "Validation loss along training; training loss, averaged over neighbouring steps, lies behind it."
        }
        _ => "",
    }
}

/// Text made safe for HTML and XML, in elements and attributes.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

fn provisional(report: &Report) -> String {
    let Some(progress) = report.progress() else {
        return String::new();
    };
    format!(
        "<div class=\"provisional\"><strong>Provisional:</strong> {progress}. Every number below can still change.\
         <br><span class=\"muted\">Not finished: {}</span></div>\n",
        escape(&report.input.missing.join(", "))
    )
}

/// A law, what it predicts, and what to know before trusting it.
fn card(law: &Law) -> String {
    let name = match law.quantity {
        Quantity::Parameters => "Loss against model parameters N",
        Quantity::Compute => "Loss against training compute C",
    };
    let mut html = format!("<section class=\"law\"><h3>{name}</h3>\n");
    html += &match &law.outcome {
        Outcome::Fitted(fit) => fitted(law.quantity, fit),
        Outcome::Refused(reason) => format!(
            "<p class=\"formula\">No law yet</p>\n<p>{}.</p>\n",
            escape(&capitalized(reason))
        ),
    };
    html += &law.comparison.as_ref().map_or_else(String::new, forms);
    if !law.selection.cautions.is_empty() {
        html += &list(law.selection.cautions.iter().map(|caution| escape(caution)));
    }
    html + "</section>\n"
}

fn fitted(quantity: Quantity, fit: &PowerLaw) -> String {
    let symbol = quantity.symbol();
    let (exponent, coefficient) = (fit.exponent_interval, fit.coefficient_interval);
    let largest = fit.points.iter().map(|point| point.x).fold(0.0, f64::max);
    let ahead = 10.0 * largest;
    let (predicted, band) = (fit.predict(ahead), fit.band(ahead));
    format!(
        "<p class=\"formula\">L = {} {symbol}<sup>{}</sup></p>\n\
         <p>Exponent {} to {}, coefficient {} to {} (95%); R² {:.3} over {} points.</p>\n\
         <p class=\"muted\">Ten times beyond the data, at {symbol} = {}, it gives {predicted:.3} ({:.3} to {:.3}).</p>\n",
        number::significant(fit.coefficient, 3),
        minus(&format!("{:.4}", fit.exponent)),
        minus(&format!("{:.4}", exponent.lo)),
        minus(&format!("{:.4}", exponent.hi)),
        number::significant(coefficient.lo, 3),
        number::significant(coefficient.hi, 3),
        fit.r2,
        fit.points.len(),
        quantity.value(ahead),
        band.lo,
        band.hi,
    )
}

/// The law with a floor, and which of the two the points speak for.
fn forms(compared: &Comparison) -> String {
    let mut text = match (&compared.saturating, &compared.refused) {
        (Some(law), _) => format!(
            "With a floor it is {} ({} to {}), exponent {} ({} to {}).",
            number::significant(law.floor, 3),
            number::significant(law.floor_interval.lo, 3),
            number::significant(law.floor_interval.hi, 3),
            minus(&format!("{:.3}", law.exponent)),
            minus(&format!("{:.3}", law.exponent_interval.lo)),
            minus(&format!("{:.3}", law.exponent_interval.hi)),
        ),
        (None, Some(reason)) => format!("With a floor: {}.", escape(reason)),
        (None, None) => String::new(),
    };
    if let Some((best, weight)) = compared
        .standings
        .first()
        .and_then(|s| Some((s, s.weight?)))
    {
        let form = match best.form {
            compare::FLOOR => "with",
            _ => "without",
        };
        text += &format!(" Akaike's criterion speaks for the law {form} it (weight {weight:.2}).");
    }
    format!("<p class=\"muted\">{text}</p>\n")
}

fn figure(svg: &str, caption: &str) -> String {
    format!("<figure>\n{svg}<figcaption>{caption}</figcaption>\n</figure>\n")
}

fn comparison() -> String {
    let [params, compute] = [paper::BY_PARAMS.text("N"), paper::BY_COMPUTE.text("C")]
        .map(|text| escape(text.trim_start_matches("POLAR paper: ")));
    format!(
        "<section class=\"note\">\n<h3>Before comparing with the POLAR paper</h3>\n\
         <p>The paper (arXiv 2507.05197) states L = {params} and L = {compute}.</p>\n{}</section>\n",
        list(paper::WARNING.iter().map(|sentence| escape(sentence)))
    )
}

/// Best sizes, the law in N and D, and predictions of what was held out.
fn analysis(report: &Report) -> String {
    let found = &report.analysis;
    let mut html = String::new();
    if !found.valleys.is_empty() || !found.no_valleys.is_empty() {
        html += "<h2>The best size of each budget</h2>\n";
        let bottoms = found.valleys.iter().map(|valley| {
            let (n, d) = (number::count(valley.n), number::count(valley.d));
            let loss = format!("{:.4}", valley.loss);
            (valley.flops, [n, d, loss, String::new()])
        });
        let without = found.no_valleys.iter().map(|without| {
            let none = || "–".to_owned();
            let reason = capitalized(&without.reason);
            (without.flops, [none(), none(), none(), reason])
        });
        let mut rows: Vec<_> = bottoms.chain(without).collect();
        rows.sort_by(|a, b| a.0.total_cmp(&b.0));
        let rows = rows
            .into_iter()
            .map(|(budget, [n, d, loss, reason])| vec![number::flops(budget), n, d, loss, reason]);
        let columns = [
            "#Budget (FLOPs)",
            "#Best N",
            "#Tokens",
            "#Loss there",
            "If none, why",
        ];
        html += &table(&columns, rows);
        html += &match (&found.optimal, &found.optimal_refused) {
            (Some(laws), _) => {
                let law = |name: &str, law: &PowerLaw| {
                    format!(
                        "{name} = {} C<sup>{}</sup>, exponent {} to {} (95%)",
                        number::significant(law.coefficient, 3),
                        minus(&format!("{:.3}", law.exponent)),
                        minus(&format!("{:.3}", law.exponent_interval.lo)),
                        minus(&format!("{:.3}", law.exponent_interval.hi)),
                    )
                };
                list([
                    law("N*", &laws.size),
                    law("D*", &laws.tokens),
                    law("L*", &laws.loss),
                ])
            }
            (None, Some(reason)) => {
                format!("<p>No law of the best size: {}.</p>\n", escape(reason))
            }
            (None, None) => String::new(),
        };
    }
    html += "<h2>The law in N and D</h2>\n";
    html += &match (&found.parametric, &found.parametric_refused) {
        (Some(fit), _) => {
            let (law, interval) = (fit.law, fit.intervals);
            let row = |name: &str, value: f64, interval: Interval| {
                let [value, lo, hi] = [value, interval.lo, interval.hi].map(|x| {
                    if x.is_finite() {
                        number::significant(x, 3)
                    } else {
                        "∞".to_owned()
                    }
                });
                vec![name.to_owned(), value, format!("{lo} to {hi}")]
            };
            let best = "β / (α + β), exponent of the best N";
            let rows = [
                row("E, irreducible", law.e, interval.e),
                row("A", law.a, interval.a),
                row("α", law.alpha, interval.alpha),
                row("B", law.b, interval.b),
                row("β", law.beta, interval.beta),
                row(best, fit.optimal_exponent, fit.optimal_exponent_interval),
            ];
            let mut text =
                "<p>L = E + A / N<sup>α</sup> + B / D<sup>β</sup>, D in tokens:</p>\n".to_owned();
            text += &table(&["Coefficient", "#Value", "#95%"], rows);
            if !fit.is_determined() {
                text += "<p><strong>These runs don't determine this law:</strong> an exponent may as well be five times as large. \
                         Take it as a description of them, and predict nothing by it.</p>\n";
            }
            let named = fit.outliers.iter();
            let named =
                named.filter_map(|(at, _)| Some(report.input.points.get(*at)?.trial.as_str()));
            let named: Vec<&str> = named.collect();
            if !named.is_empty() {
                let named = escape(&named.join(", "));
                text += &format!("<p>Far off it, and in it all the same: {named}.</p>\n");
            }
            text
        }
        (None, reason) => format!(
            "<p>Not fitted: {}.</p>\n",
            escape(reason.as_deref().unwrap_or_default())
        ),
    };
    html += &envelope(report);
    html += &policies(report);
    if !found.hold_out.is_empty() {
        html += "<h3>The largest compute, predicted without it</h3>\n";
        let rows = found.hold_out.iter().map(|held| {
            let band = held.band.map_or_else(String::new, |band| {
                format!("{:.4} to {:.4}", band.lo, band.hi)
            });
            let error = 100.0 * (held.predicted / held.measured - 1.0);
            vec![
                held.law.clone(),
                held.trial.clone(),
                format!("{:.4}", held.measured),
                format!("{:.4}", held.predicted),
                minus(&format!("{error:+.1}%")),
                band,
            ]
        });
        let columns = [
            "Law",
            "Trial",
            "#Measured",
            "#Predicted",
            "#Error",
            "#95% band of the law",
        ];
        html += &table(&columns, rows);
    }
    html
}

/// The law along training curves.
fn envelope(report: &Report) -> String {
    let found = &report.analysis;
    let text = match (&found.envelope, &found.envelope_refused) {
        (Some(law), _) => format!(
            "L = {} C<sup>{}</sup>, exponent {} to {} (95%, by drawing trials); {} trials are lowest somewhere. \
             Where learning rates fall at the end of a trial, its curve lies above what a shorter trial would reach.",
            number::significant(law.coefficient, 3),
            minus(&format!("{:.4}", law.exponent)),
            minus(&format!("{:.4}", law.exponent_interval.lo)),
            minus(&format!("{:.4}", law.exponent_interval.hi)),
            law.trials,
        ),
        (None, Some(reason)) => format!("Not fitted: {}.", escape(reason)),
        (None, None) => return String::new(),
    };
    format!("<h2>The law along training curves</h2>\n<p>{text}</p>\n")
}

/// Loss against the number of policies.
fn policies(report: &Report) -> String {
    let found = &report.analysis.by_policies;
    if found.is_empty() {
        return String::new();
    }
    let rows = found.iter().map(|group| {
        let losses = group.losses.iter();
        let losses = losses.map(|(count, distance, loss)| {
            let apart = distance.map_or_else(String::new, |d| format!(" ({d:.3} apart)"));
            format!("{count}{apart}: {loss:.4}")
        });
        let law = match (&group.law, &group.refused) {
            (Some(law), _) => minus(&format!(
                "{:.3} ({:.3} to {:.3})",
                law.exponent, law.exponent_interval.lo, law.exponent_interval.hi
            )),
            (None, reason) => reason.clone().unwrap_or_default(),
        };
        vec![
            group.trials.clone(),
            losses.collect::<Vec<_>>().join(", "),
            law,
        ]
    });
    let columns = ["Trials", "Policies: loss", "Exponent in policies, 95%"];
    format!(
        "<h2>More policies</h2>\n<p>The same training on fewer and on more policies, scored on all of them.</p>\n{}",
        table(&columns, rows)
    )
}

fn validation(report: &Report) -> String {
    let input = &report.input;
    if input.validation.is_empty() && input.baselines.is_empty() {
        return String::new();
    }
    let mut html = "<h2>Validation</h2>\n".to_owned();
    if !input.validation.is_empty() {
        let rows = input.validation.iter().map(|row| {
            let interval = Interval::wilson(row.accuracy, row.triplets);
            vec![
                row.trial.clone(),
                row.set.clone(),
                format!("{:.4}", row.loss),
                number::percent(row.accuracy),
                format!(
                    "{} to {}",
                    number::percent(interval.lo),
                    number::percent(interval.hi)
                ),
                number::grouped(row.triplets),
            ]
        });
        html += &table(
            &[
                "Trial",
                "Set",
                "#Loss",
                "#Accuracy",
                "#95% (Wilson)",
                "#Triplets",
            ],
            rows,
        );
    }
    if !input.baselines.is_empty() {
        html += "<p>Discriminators without training, on the same task; chance is 50%:</p>\n";
        let rows = input
            .baselines
            .iter()
            .map(|(name, accuracy)| vec![name.clone(), number::percent(*accuracy)]);
        html += &table(&["Baseline", "#Accuracy"], rows);
    }
    html
}

fn trials(report: &Report) -> String {
    let input = &report.input;
    let mut html = "<h2>Trials</h2>\n".to_owned();
    if input.points.is_empty() {
        html += "<p>No trial has finished.</p>\n";
    } else {
        let rows = input.points.iter().map(|point| {
            let role = |law: &Law| {
                if law.place(&point.trial) == "in the fit" {
                    "●"
                } else {
                    ""
                }
                .to_owned()
            };
            vec![
                point.trial.clone(),
                point.size.clone(),
                number::count(point.params as f64),
                number::count(point.tokens),
                number::flops(point.flops),
                point.budget.map_or_else(|| "–".to_owned(), number::flops),
                point.seed.to_string(),
                format!("{:.4}", point.loss),
                role(&report.by_params),
                role(&report.by_compute),
            ]
        });
        let columns = [
            "Trial",
            "Size",
            "#N",
            "#Tokens",
            "#C (FLOPs)",
            "#Budget",
            "#Seed",
            "#Loss",
            "N-law",
            "C-law",
        ];
        html += &table(&columns, rows);
    }
    if !input.digests.is_empty() {
        html +=
            "<h3>Final parameters</h3>\n<p class=\"muted\">Equal runs have equal digests.</p>\n";
        let rows = input
            .digests
            .iter()
            .map(|(trial, digest)| vec![trial.clone(), digest.clone()]);
        html += &table(&["Trial", "`Digest"], rows);
    }
    html
}

fn left_out(report: &Report) -> String {
    let mut html = String::new();
    for (law, name) in [
        (&report.by_params, "law in parameters"),
        (&report.by_compute, "law in compute"),
    ] {
        let excluded = &law.selection.excluded;
        if !excluded.is_empty() {
            html += &format!("<h3>Not in the {name}</h3>\n");
            let row = |out: &Excluded| vec![out.trial.clone(), capitalized(&out.reason)];
            html += &table(&["Trial", "Reason"], excluded.iter().map(row));
        }
    }
    if html.is_empty() {
        html
    } else {
        format!("<h2>What was left out, and why</h2>\n{html}")
    }
}

fn method(report: &Report) -> String {
    let input = &report.input;
    let corpus = &input.corpus;
    let fact = |name: &str, value: String| vec![name.to_owned(), value];
    let facts = [
        fact("Corpus", corpus.name.clone()),
        fact("Policies", number::grouped(corpus.policies)),
        fact("Prompts", number::grouped(corpus.prompts)),
        fact("Triplets trained on", number::grouped(corpus.triplets_seen)),
        fact("Tokens trained on", number::grouped(corpus.tokens_seen)),
    ];
    let is_run = !input.run_id.is_empty();
    let mut html = "<h2>How these numbers came about</h2>\n".to_owned();
    html += "<p>A law is the least-squares line of ln L on ln x. Its intervals come from 2,000 seeded bootstrap resamples of the points, \
             and of the seeds within a point where there are several, widened for the smallness of the sample. \
             The law in parameters takes each size at its lowest final loss and so assumes that data did not hold a size back; \
             the law in compute takes the best size of each budget.</p>\n";
    if !input.conventions.is_empty() {
        html += "<h3>What the numbers count</h3>\n";
        html += &table(
            &["Number", "Counts"],
            input
                .conventions
                .iter()
                .map(|(name, what)| fact(name, what.clone())),
        );
    }
    if !is_run {
        return html;
    }
    html += "<h3>Run and corpus</h3>\n";
    html += &table(&["Fact", "Value"], facts);
    let digests = [
        fact("Corpus fingerprint", corpus.fingerprint.clone()),
        fact("Configuration digest", input.config_digest.clone()),
        fact("Run", input.run_id.clone()),
    ];
    html + &table(&["Identity", "`Value"], digests)
}

/// A table. A heading that begins with `#` makes a column of numbers, one with a backtick a column of code.
pub(super) fn table(columns: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut html = "<div class=\"scroll\"><table>\n<thead><tr>".to_owned();
    for column in columns {
        html += &match column.strip_prefix('#') {
            Some(name) => format!("<th class=\"number\">{}</th>", escape(name)),
            None => format!("<th>{}</th>", escape(column.trim_start_matches('`'))),
        };
    }
    html += "</tr></thead>\n<tbody>\n";
    for row in rows {
        html += "<tr>";
        for (at, (column, value)) in columns.iter().zip(row).enumerate() {
            let value = escape(&value);
            html += &match column.chars().next() {
                Some('#') => format!("<td class=\"number\">{value}</td>"),
                Some('`') => format!("<td><code>{value}</code></td>"),
                _ if at == 0 => format!("<td class=\"name\">{value}</td>"),
                _ => format!("<td>{value}</td>"),
            };
        }
        html += "</tr>\n";
    }
    html + "</tbody>\n</table></div>\n"
}

/// A list of items that are HTML already.
pub(super) fn list(items: impl IntoIterator<Item = String>) -> String {
    let items: String = items
        .into_iter()
        .map(|item| format!("<li>{item}</li>\n"))
        .collect();
    format!("<ul>\n{items}</ul>\n")
}

/// A number with a true minus sign.
fn minus(number: &str) -> String {
    number.replace('-', "\u{2212}")
}

fn capitalized(sentence: &str) -> String {
    let mut chars = sentence.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(chars).collect()
    })
}
