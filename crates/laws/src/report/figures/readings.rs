//! What a page's script reads out of a figure: the numbers of its model, and the scales to find their places by.

use super::{
    draw::usable,
    model::{Body, Chart, Figure, Grid, Layer, Row, Shape},
};
use serde::Serialize;

/// All of a figure.
#[derive(Debug, PartialEq, Serialize)]
struct Readings {
    x: Scale,
    y: Scale,
    tracks: Vec<Track>,
}

/// An axis: its ends, and whether it is logarithmic.
#[derive(Debug, PartialEq, Serialize)]
struct Scale(f64, f64, bool);

/// Points that one goes along.
#[derive(Debug, PartialEq, Serialize)]
struct Track {
    /// What stands above each reading; empty where readings say it themselves.
    name: String,
    /// Entries of the legend that hide it.
    #[serde(rename = "in")]
    groups: Vec<usize>,
    /// Place and reading.
    at: Vec<(f64, f64, String)>,
}

/// The readings as JSON that can stand in a script element.
pub(in crate::report) fn json(figure: &Figure) -> String {
    let readings = match &figure.body {
        Body::Chart(chart) => of_chart(chart),
        Body::Rows(rows) => of_rows(rows),
        Body::Grid(grid) => of_grid(grid),
    };
    let json = serde_json::to_string(&readings).expect("finite numbers and text have a JSON form");
    json.replace('<', "\\u003c")
}

fn of_chart(chart: &Chart) -> Readings {
    let mut tracks: Vec<Track> = Vec::new();
    for Layer { groups, shape } in &chart.layers {
        match shape {
            Shape::Line {
                points,
                name: Some(name),
                ..
            } => {
                let within = usable(chart, points).into_iter();
                let within = within.filter(|at| chart.y.axis.contains(at.1));
                tracks.push(Track {
                    name: name.clone(),
                    groups: groups.clone(),
                    at: within
                        .map(|at| (short(at.0), short(at.1), chart.read(at)))
                        .collect(),
                });
            }
            Shape::Mark(mark) => {
                let (x, y) = mark.at;
                if !chart.x.axis.contains(x) || !chart.y.axis.contains(y) {
                    continue;
                }
                let at = (short(x), short(y), mark.reading.clone());
                match tracks.last_mut() {
                    Some(last) if last.name.is_empty() && last.groups == *groups => {
                        last.at.push(at)
                    }
                    _ => tracks.push(Track {
                        name: String::new(),
                        groups: groups.clone(),
                        at: vec![at],
                    }),
                }
            }
            Shape::Line { name: None, .. } | Shape::Band { .. } | Shape::Reference { .. } => {}
        }
    }
    tracks.retain(|track| !track.at.is_empty());
    for track in &mut tracks {
        track.at.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    let (x, y) = (chart.x.axis, chart.y.axis);
    Readings {
        x: Scale(x.lo, x.hi, true),
        y: Scale(y.lo, y.hi, true),
        tracks,
    }
}

fn of_rows(rows: &[Row]) -> Readings {
    let tracks = rows.iter().enumerate().filter_map(|(row, of)| match of {
        Row::Heading(_) => None,
        Row::Share(share) => Some(Track {
            name: String::new(),
            groups: share.groups.clone(),
            at: vec![(short(share.value), row as f64 + 0.5, share.reading.clone())],
        }),
    });
    Readings {
        x: Scale(0.0, 1.0, false),
        // Rows go down, axes go up.
        y: Scale(rows.len() as f64, 0.0, false),
        tracks: tracks.collect(),
    }
}

fn of_grid(grid: &Grid) -> Readings {
    let rows = grid.cells.iter().enumerate().map(|(row, cells)| Track {
        name: String::new(),
        groups: Vec::new(),
        at: cells
            .iter()
            .enumerate()
            .filter_map(|(column, cell)| {
                let reading = cell.as_ref()?.reading.clone();
                Some((column as f64 + 0.5, row as f64 + 0.5, reading))
            })
            .collect(),
    });
    let count = grid.names.len() as f64;
    Readings {
        x: Scale(0.0, count, false),
        y: Scale(count, 0.0, false),
        tracks: rows.filter(|row| !row.at.is_empty()).collect(),
    }
}

/// Six digits: more than a place on a screen has.
fn short(value: f64) -> f64 {
    let text = format!("{value:.5e}");
    text.parse().expect("what was printed is a number")
}
