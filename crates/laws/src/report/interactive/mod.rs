//! Figures to point at: hover for a trial's numbers, drag to zoom, click the legend to hide. The page
//! carries the plotting library with it and asks no network.

mod traces;

use super::{Report, html::escape};
use plotly::{
    Configuration, Layout, Plot,
    color::NamedColor,
    common::{Font, Title},
    configuration::{ImageButtonFormats, ToImageButtonOptions},
    layout::{Axis, AxisType, Legend, Margin},
};

/// A section with every figure that there is something to show in.
pub(super) fn section(report: &Report) -> String {
    shown(traces::all(report))
}

/// The laws of two runs, each pair in one figure.
pub(super) fn compared(reports: [&Report; 2]) -> String {
    shown(traces::compared(reports))
}

fn shown(figures: Vec<Figure>) -> String {
    if figures.is_empty() {
        return String::new();
    }
    let mut html = format!(
        "<h2>Figures to explore</h2>\n<p class=\"muted\">Point at a mark for its trial, drag to enlarge, \
         double-click to go back; the camera saves an SVG.</p>\n{}\n",
        library()
    );
    for figure in figures {
        // The sheet may be read in the dark: the plots take its background and a grey that both bear.
        let inline = figure.plot.to_inline_html(Some(figure.id));
        html += &format!(
            "<figure class=\"plot\">\n<h3>{}</h3>\n<div class=\"plot-frame\">{inline}</div>\n<figcaption>{}</figcaption>\n</figure>\n",
            escape(&figure.title),
            escape(&figure.caption)
        );
    }
    html
}

/// A plot and what is said about it.
struct Figure {
    /// Of its element, and name of what the camera saves.
    id: &'static str,
    title: String,
    caption: String,
    plot: Plot,
}

/// plotly.js in a script element: the first of the two scripts that the crate embeds; the other typesets
/// formulas, and there are none.
fn library() -> String {
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
