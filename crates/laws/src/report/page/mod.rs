//! The report as one page: no network, light or dark as the reader prefers, as readable on a phone as in print. Without
//! scripts all that is lost are the figures' read-outs.

mod best;
mod elements;
mod facts;
mod figures;
mod findings;
mod laws;
mod preference;
mod scores;
mod tuned;

use super::{Report, RunComparison, figures::model::Figure};
use elements::{Column, list, table};
use figures::Figures;
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// Colours, tables and figures, as the live page has them, too.
pub const BASE_STYLE: &str = include_str!("base.css");
const STYLE: &str = include_str!("style.css");
/// Nothing is loaded: not even what a name in the data may ask for.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'";

/// report.html.
pub(super) fn page(report: &Report, figures: &[Figure]) -> String {
    let figures = Figures(figures);
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
        (best::best(input.best.as_ref()))
        div.laws {
            (laws::card(&report.by_params))
            (laws::card(&report.by_compute))
        }
        (figures.beginning("loss-vs-"))
        (figures.named("accuracy-vs-pretraining"))
        (figures.named("curves"))
        (findings::valleys(report))
        (figures.named("valleys"))
        (findings::parametric(report))
        (figures.named("residuals"))
        (findings::envelope(report))
        (findings::policies(report))
        (findings::predictions(report))
        @if input.chance.is_some() { (laws::paper()) }
        (tuned::table_of(report))
        (scores::validation(report))
        (figures.named("length"))
        (figures.beginning("pairs-"))
        (scores::cutting(report))
        (preference::preference(report))
        (figures.beginning("preference-"))
        (facts::trials(report))
        (facts::left_out(report))
        (facts::method(report))
        (figures.script())
    };
    document(&title, &body)
}

/// Two runs side by side, with both runs' laws in one figure each.
pub(super) fn comparison(compared: &RunComparison, figures: &[Figure]) -> String {
    let figures = Figures(figures);
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
        (figures.beginning("laws-"))
        (figures.script())
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
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                title { (title) }
                style { (PreEscaped(BASE_STYLE)) (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    };
    page.into_string()
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
