//! The report as one page: no network, light or dark as the reader prefers, and fit for print. Without
//! scripts all that is lost are the figures to explore.

mod elements;
mod facts;
mod findings;
mod laws;
mod preference;
mod scores;
mod tuned;

use super::{
    Report, RunComparison,
    figures::{
        plotly::{self, Figure},
        svg::Drawing,
    },
};
use elements::{Column, list, table};
use maud::{DOCTYPE, Markup, PreEscaped, html};

const STYLE: &str = include_str!("style.css");

/// report.html.
pub(super) fn page(report: &Report, drawings: &[Drawing], figures: &[Figure]) -> String {
    let input = &report.input;
    let mut title = input.title.clone();
    if report.is_provisional() {
        title += " (provisional)";
    }
    let body = html! {
        header {
            h1 { (title) }
            p.muted {
                @if input.run_id.is_empty() {
                    "Scaling laws of a table · " (input.created)
                } @else {
                    "POLAR scaling laws · run " code { (input.run_id) }
                    " · corpus " (input.corpus.name) " · " (input.created)
                }
            }
        }
        (provisional(report))
        div.laws {
            (laws::card(&report.by_params))
            (laws::card(&report.by_compute))
        }
        // The others stand further down, to point at.
        @for drawing in drawings {
            @if let Some(caption) = caption(report, drawing.name) {
                figure {
                    (PreEscaped(&drawing.svg))
                    figcaption { (caption) }
                }
            }
        }
        (findings::valleys(report))
        (findings::parametric(report))
        (findings::envelope(report))
        (findings::policies(report))
        (findings::predictions(report))
        (explore(figures))
        @if input.chance.is_some() { (laws::paper()) }
        (tuned::table_of(report))
        (scores::validation(report))
        (preference::preference(report))
        (facts::trials(report))
        (facts::left_out(report))
        (facts::method(report))
    };
    document(&title, &body)
}

/// Two runs side by side, with both runs' laws in one figure each.
pub(super) fn comparison(compared: &RunComparison, figures: &[Figure]) -> String {
    let [first, second] = compared.names();
    let title = format!("{first} and {second}");
    let columns = ["", first, second, ""].map(Column::text);
    let rows = compared.differences.iter().cloned();
    let rows = rows.map(|line| vec![line.what, line.first, line.second, line.verdict]);
    let body = html! {
        header {
            h1 { (title) }
            p.muted { "Two runs of Polestar compared" }
        }
        @if !compared.cautions.is_empty() {
            section.note { (list(&compared.cautions)) }
        }
        (table(&columns, rows))
        (explore(figures))
    };
    document(&title, &body)
}

/// A whole page around a body.
fn document(title: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    };
    page.into_string()
}

/// What is said under a figure that the page begins with.
fn caption(report: &Report, figure: &str) -> Option<String> {
    let caption = match figure {
        "loss-vs-params" => {
            "Each size at its lowest final loss. Solid marks enter the fit, hollow ones do not; the band is where the law itself lies with 95% \
             confidence, not where single runs fall."
        }
        "loss-vs-compute" => {
            "Each compute budget with its best size. Thin lines, where there are any, are the training curves: validation loss against the \
             FLOPs spent so far."
        }
        "accuracy-vs-pretraining" => {
            "Every fine-tuning, by the compute of the pre-training whose weights it started from."
        }
        "curves" => {
            "Validation loss along training; training loss, averaged over neighbouring steps, lies behind it."
        }
        _ => return None,
    };
    let scores = report.input.curve_scores.as_ref();
    let unlike = ["loss-vs-params", "accuracy-vs-pretraining"];
    let scores = scores.filter(|_| !unlike.contains(&figure));
    let scores = scores.map_or_else(String::new, |scores| format!(" {}", scores.text()));
    Some(format!("{caption}{scores}"))
}

fn provisional(report: &Report) -> Markup {
    html! {
        @if let Some(progress) = report.progress() {
            div.provisional {
                strong { "Provisional:" } " " (progress) ". Every number below can still change."
                br;
                span.muted { "Not finished: " (report.input.missing.join(", ")) }
            }
        }
    }
}

/// Figures to point at, with the library that draws them.
fn explore(figures: &[Figure]) -> Markup {
    html! {
        @if !figures.is_empty() {
            h2 { "Figures to explore" }
            p.muted {
                "Point at a mark for its trial, drag to enlarge, double-click to go back; the camera saves an SVG."
            }
            (PreEscaped(plotly::library()))
            @for figure in figures {
                figure.plot {
                    h3 { (figure.title) }
                    // The page may be read in the dark: plots take its background and a grey that both bear.
                    div.plot-frame { (PreEscaped(figure.html())) }
                    figcaption { (figure.caption) }
                }
            }
        }
    }
}
