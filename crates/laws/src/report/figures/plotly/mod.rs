//! Figures to point at: hover for a trial's numbers, drag to zoom, click the legend to hide. The page
//! carries the plotting library with it and asks no network.

mod discrimination;
mod laws;
mod preference;
mod trials;

use super::data::{PREFERENCES, summary};
use crate::{fits::FinishedTrial, report::Report};
use plotly::{
    Configuration, Layout, Plot, Scatter,
    color::NamedColor,
    common::{Font, Mode, Title},
    configuration::{ImageButtonFormats, ToImageButtonOptions},
    layout::{Axis, AxisType, Legend, Margin},
};

/// A plot and what is said about it.
pub(in crate::report) struct Figure {
    /// Of its element, and name of what the camera saves.
    pub id: &'static str,
    /// Heading, as plain text.
    pub title: String,
    /// What stands below it, as plain text.
    pub caption: String,
    plot: Plot,
}

impl Figure {
    /// Its element with the script that fills it, as HTML. The page must hold the [`library`] before it.
    pub(in crate::report) fn html(&self) -> String {
        self.plot.to_inline_html(Some(self.id))
    }
}

/// Every figure that there is something to show in.
pub(in crate::report) fn all(report: &Report) -> Vec<Figure> {
    let mut figures = Vec::new();
    if report.input.finished.is_empty() {
        return figures;
    }
    figures.push(laws::law(report, &report.by_params, "law-in-parameters"));
    figures.push(laws::law(report, &report.by_compute, "law-in-compute"));
    figures.extend(trials::valleys(report));
    figures.extend(trials::residuals(report));
    figures.extend(trials::curves(report));
    figures.extend(discrimination::length(report));
    let sets = report.input.discriminations.iter();
    for (found, id) in sets.zip(["pairs-1", "pairs-2"]) {
        figures.extend(discrimination::pairs(found, id));
    }
    for (set, id) in report.input.preferences.iter().zip(PREFERENCES) {
        figures.extend(preference::preference(report, set, id));
    }
    figures
}

pub(in crate::report) use laws::compared;

/// plotly.js in a script element: the first of the two scripts that the crate embeds; the other typesets
/// formulas, and there are none.
pub(in crate::report) fn library() -> String {
    const END: &str = "</script>";
    let mut sources = Plot::offline_js_sources();
    if let Some(end) = sources.find(END) {
        sources.truncate(end + END.len());
    }
    sources
}

/// An empty plot with the look that all have.
fn plot(id: &str, x: Axis, y: Axis) -> Plot {
    const CLEAR: NamedColor = NamedColor::Transparent;
    let mut plot = Plot::new();
    plot.set_layout(
        Layout::new()
            .paper_background_color(CLEAR)
            .plot_background_color(CLEAR)
            .font(Font::new().color(GREY).size(14))
            .margin(Margin::new().left(70).right(20).top(20).bottom(60))
            .legend(Legend::new().background_color(CLEAR))
            .height(480)
            .x_axis(x)
            .y_axis(y),
    );
    plot.set_configuration(
        Configuration::new()
            .responsive(true)
            .display_logo(false)
            .to_image_button_options(
                ToImageButtonOptions::new()
                    .format(ImageButtonFormats::Svg)
                    .filename(id),
            ),
    );
    plot
}

/// Readable on white and on black.
const GREY: &str = "#7b8490";
const LINE: &str = "rgba(123,132,144,0.25)";

fn linear(title: &str) -> Axis {
    Axis::new()
        .title(Title::with_text(title))
        .grid_color(LINE)
        .zero_line_color(LINE)
}

fn logarithmic(title: &str) -> Axis {
    linear(title).type_(AxisType::Log)
}

/// Marks of some trials at the places that `x` gives, each with its numbers.
fn markers<'a>(
    name: &str,
    trials: impl IntoIterator<Item = &'a FinishedTrial>,
    x: impl Fn(&FinishedTrial) -> Option<f64>,
) -> Box<Scatter<f64, f64>> {
    let placed = trials.into_iter();
    let placed: Vec<_> = placed.filter_map(|t| Some((x(t)?, t))).collect();
    Scatter::new(
        placed.iter().map(|(x, _)| *x).collect(),
        placed.iter().map(|(_, trial)| trial.loss).collect(),
    )
    .mode(Mode::Markers)
    .name(name)
    .hover_template("%{text}<extra></extra>")
    .text_array(placed.iter().map(|(_, trial)| hover(trial)).collect())
}

/// What is shown of a trial when it is pointed at.
fn hover(trial: &FinishedTrial) -> String {
    summary(trial).replace('\n', "<br>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_whole_and_alone() {
        let script = library();
        assert!(script.starts_with("<script") && script.ends_with("</script>"));
        assert_eq!(script.matches("<script").count(), 1);
        // Less would be a piece of it that ends at a string which looks like the element's end.
        assert!(script.len() > 3_000_000 && script.contains("Plotly"));
    }
}
