//! From a figure to SVG: as a file, for a wide page, and for a phone. All three are drawn from one model, and differ in
//! their room only.

mod chart;
mod grid;
mod key;
mod pen;
mod rows;
mod sheet;

use super::{
    labels::Rect,
    model::{Body, Figure},
};
use maud::{Markup, html};

pub(super) use chart::usable;
pub(in crate::report) use key::swatch;
pub(super) use sheet::file;

/// Width of a figure in a file, in pixels.
pub(super) const WIDTH: u32 = 1200;
/// Height of a figure in a file, in pixels.
pub(super) const HEIGHT: u32 = 750;

/// The room that a figure has.
#[derive(Clone, Copy, Debug)]
pub(in crate::report) struct Format {
    /// What the page's style calls it; none of a file, which has no parts to hide.
    pub class: Option<&'static str>,
    /// Of everything.
    width: f64,
    /// Of a chart's data; a heat map and rows begin at its top.
    plot: Rect,
    /// Size of text.
    text: f64,
    /// Of markers and strokes, in those of a file.
    scale: f64,
    /// Most ticks of the axes.
    ticks: [usize; 2],
    /// Room for names beside a heat map; without any there are numbers only.
    names: f64,
    /// Side of the largest heat map, and of its largest cell.
    grid: [f64; 2],
    /// Room for names beside rows.
    row_names: f64,
}

impl Format {
    /// A file, for slides and print.
    pub(super) const FILE: Self = Self {
        class: None,
        width: WIDTH as f64,
        plot: Rect {
            left: 84.0,
            top: 158.0,
            width: 872.0,
            height: 474.0,
        },
        text: 16.0,
        scale: 1.0,
        ticks: [10, 9],
        names: 300.0,
        grid: [520.0, 56.0],
        row_names: 200.0,
    };
    /// A page in a window.
    pub(in crate::report) const PAGE: Self = Self {
        class: Some("wide"),
        width: 1020.0,
        plot: Rect {
            left: 64.0,
            top: 34.0,
            width: 944.0,
            height: 430.0,
        },
        text: 15.0,
        scale: 0.95,
        ticks: [10, 8],
        names: 300.0,
        grid: [560.0, 56.0],
        row_names: 170.0,
    };
    /// A page on a phone: as wide as what it is seen on, so that its text is as large as the page's.
    pub(in crate::report) const PHONE: Self = Self {
        class: Some("narrow"),
        width: 372.0,
        plot: Rect {
            left: 42.0,
            top: 26.0,
            width: 322.0,
            height: 270.0,
        },
        text: 12.0,
        scale: 0.7,
        ticks: [5, 6],
        names: 0.0,
        grid: [340.0, 44.0],
        row_names: 88.0,
    };
}

/// What is drawn, and where the data lie in it.
struct Drawn {
    markup: Markup,
    height: f64,
    /// From end to end of both axes.
    plot: Rect,
}

fn body(figure: &Figure, format: &Format) -> Drawn {
    match &figure.body {
        Body::Chart(chart) => chart::draw(chart, format),
        Body::Rows(rows) => rows::draw(rows, format),
        Body::Grid(grid) => grid::draw(grid, format),
    }
}

/// A figure as part of a page, without the words around it.
pub(in crate::report) fn inline(figure: &Figure, format: &Format) -> Markup {
    let Drawn {
        markup,
        height,
        plot,
    } = body(figure, format);
    let corners = [plot.left, plot.top, plot.width, plot.height].map(pen::pixels);
    let view = format!("0 0 {} {}", format.width, pen::pixels(height));
    html! {
        svg class=[format.class] viewBox=(view) data-plot=(corners.join(" ")) role="img" aria-label=(name(figure)) { (markup) }
    }
}

/// What a figure is called where it can't be seen.
fn name(figure: &Figure) -> String {
    format!("{}. {}", figure.title, figure.finding)
}

/// Elements that a page's legend hides.
fn grouped(groups: &[usize], format: &Format, markup: &Markup) -> Markup {
    if groups.is_empty() || format.class.is_none() {
        return markup.clone();
    }
    let groups: Vec<String> = groups.iter().map(ToString::to_string).collect();
    html! { g data-in=(groups.join(" ")) { (markup) } }
}
