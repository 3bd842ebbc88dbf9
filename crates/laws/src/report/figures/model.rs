//! What a figure shows, without where on a page it stands: drawn as a file, on a wide and on a narrow page, and read out
//! by the page's script, all from this.

use super::{
    axis::Axis,
    palette::{Color, MarkerStyle, Stroke},
};
use crate::{
    fits::Interval,
    report::{figures::data::Sizes, number},
};

/// A figure.
#[derive(Clone, Debug)]
pub(in crate::report) struct Figure {
    /// Name of its file without the ending, and of its element on a page.
    pub name: &'static str,
    /// Heading.
    pub title: String,
    /// What qualifies all of it ("3 of 16 trials have not finished").
    pub badge: Option<String>,
    /// The finding, in one or two lines.
    pub finding: String,
    /// How to read it, in sentences; on pages only.
    pub caption: String,
    /// What is drawn.
    pub body: Body,
    /// From the top.
    pub legend: Legend,
    /// What could not be drawn, and other remarks; one line each.
    pub notes: Vec<String>,
    /// Run, corpus and date.
    pub source: String,
}

/// The kinds of figures.
#[derive(Clone, Debug)]
pub(in crate::report) enum Body {
    /// Marks and lines over two logarithmic axes.
    Chart(Chart),
    /// Shares in rows, over an axis from 0 to 1.
    Rows(Vec<Row>),
    /// A heat map.
    Grid(Grid),
}

/// Marks and lines over two logarithmic axes.
#[derive(Clone, Debug)]
pub(in crate::report) struct Chart {
    /// Horizontally.
    pub x: Dimension,
    /// Vertically.
    pub y: Dimension,
    /// From the bottom.
    pub layers: Vec<Layer>,
}

/// An axis with its name.
#[derive(Clone, Debug)]
pub(in crate::report) struct Dimension {
    /// Beside the axis.
    pub title: &'static str,
    /// Before a value that is read out.
    pub short: &'static str,
    /// What it spans.
    pub axis: Axis,
    /// How its values are printed.
    pub format: fn(f64) -> String,
}

/// How much of its colour a band has.
pub(in crate::report) const BAND_OPACITY: f64 = 0.13;

/// Something that is drawn.
#[derive(Clone, Debug)]
pub(in crate::report) struct Layer {
    /// Entries of the legend that it belongs to: hidden with each of them.
    pub groups: Vec<usize>,
    /// What it is.
    pub shape: Shape,
}

/// What is drawn, in values of the axes. What lies outside of these is cut off.
#[derive(Clone, Debug)]
pub(in crate::report) enum Shape {
    /// Between two lines: (x, lower, upper).
    Band {
        points: Vec<(f64, f64, f64)>,
        color: Color,
    },
    /// A polyline.
    Line {
        points: Vec<(f64, f64)>,
        stroke: Stroke,
        /// What is read out of its points; none of a line that says nothing by itself.
        name: Option<String>,
        /// What stands beside it.
        label: Option<String>,
    },
    /// A level to compare with, from end to end.
    Reference { y: f64, label: String },
    /// One measurement.
    Mark(Mark),
}

/// One measurement.
#[derive(Clone, Debug)]
pub(in crate::report) struct Mark {
    pub at: (f64, f64),
    pub style: MarkerStyle,
    /// Solid, or an outline.
    pub solid: bool,
    /// Where y lies with 95% confidence.
    pub interval: Option<Interval>,
    /// What stands beside it, where there is room.
    pub label: Option<String>,
    /// Its numbers, lines apart.
    pub reading: String,
}

impl Mark {
    /// A solid one.
    pub(in crate::report) fn new(at: (f64, f64), style: MarkerStyle, reading: String) -> Self {
        Self {
            at,
            style,
            solid: true,
            interval: None,
            label: None,
            reading,
        }
    }
}

impl Layer {
    /// Something that belongs to some entries of the legend.
    pub(in crate::report) fn new(groups: Vec<usize>, shape: Shape) -> Self {
        Self { groups, shape }
    }
}

impl Chart {
    /// The numbers of a point on one line.
    pub(in crate::report) fn read(&self, (x, y): (f64, f64)) -> String {
        let [x, y] = [(&self.x, x), (&self.y, y)].map(|(of, value)| match of.short {
            "" => (of.format)(value),
            short => format!("{short} {}", (of.format)(value)),
        });
        format!("{x}, {y}")
    }
}

/// A row of shares.
#[derive(Clone, Debug)]
pub(in crate::report) enum Row {
    /// What the rows below are about.
    Heading(String),
    /// A share.
    Share(Share),
}

/// A share with its interval.
#[derive(Clone, Debug)]
pub(in crate::report) struct Share {
    /// Beside the row; short.
    pub label: String,
    pub value: f64,
    pub interval: Option<Interval>,
    pub style: MarkerStyle,
    pub solid: bool,
    /// Entries of the legend that it belongs to.
    pub groups: Vec<usize>,
    /// Its numbers, lines apart.
    pub reading: String,
}

/// A square of cells.
#[derive(Clone, Debug)]
pub(in crate::report) struct Grid {
    /// Of rows and columns alike.
    pub names: Vec<String>,
    /// By row and column; none where nothing was measured.
    pub cells: Vec<Vec<Option<Cell>>>,
}

/// A cell of a heat map.
#[derive(Clone, Debug)]
pub(in crate::report) struct Cell {
    pub color: Color,
    /// Its numbers, lines apart.
    pub reading: String,
}

/// What the marks and lines of a figure mean, from the top.
#[derive(Clone, Debug, Default)]
pub(in crate::report) struct Legend(pub Vec<Entry>);

/// An entry of a legend.
#[derive(Clone, Debug)]
pub(in crate::report) struct Entry {
    pub key: Key,
    pub text: String,
}

/// What stands before an entry's words.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::report) enum Key {
    /// Nothing: a heading.
    Heading,
    /// Nothing at all: room.
    Gap,
    /// A marker, solid or an outline.
    Marker(MarkerStyle, bool),
    /// A line.
    Line(Stroke),
    /// A shaded band.
    Band(Color),
    /// A cell of a heat map, which isn't hidden.
    Cell(Color),
}

/// Sizes a legend lists by name; further ones are counted.
const LEGEND_SIZES: usize = 12;

impl Legend {
    /// The model sizes in their order, whose entries are returned size by size: none for those without an entry.
    pub(super) fn of_sizes(sizes: &Sizes) -> (Self, Vec<Vec<usize>>) {
        let mut legend = Self::default();
        if sizes.0.is_empty() {
            return (legend, Vec::new());
        }
        legend.add(Key::Heading, "size · parameters");
        let entry = |(index, size): (usize, &crate::report::figures::data::Size)| {
            if index >= LEGEND_SIZES {
                return Vec::new();
            }
            let name: String = size.name.chars().take(12).collect();
            // In a table of runs a size has no other name than its number.
            let count = size.params.map(number::count);
            let text = match count.filter(|count| *count != name) {
                Some(count) => format!("{name} · {count}"),
                None => name,
            };
            vec![legend.add(Key::Marker(MarkerStyle::of(index), true), text)]
        };
        let entries = sizes.0.iter().enumerate().map(entry).collect();
        if sizes.0.len() > LEGEND_SIZES {
            legend.add(Key::Heading, "… and larger ones");
        }
        (legend, entries)
    }

    /// Adds an entry, and says which it is.
    pub(in crate::report) fn add(&mut self, key: Key, text: impl Into<String>) -> usize {
        self.0.push(Entry {
            key,
            text: text.into(),
        });
        self.0.len() - 1
    }

    /// Leaves room.
    pub(in crate::report) fn gap(&mut self) {
        if !self.0.is_empty() {
            self.add(Key::Gap, "");
        }
    }
}
