//! A heat map.

use super::{
    Drawn, Format,
    pen::{self, Anchor, TextFormat},
};
use crate::report::figures::{
    labels::{Rect, text_width},
    model::Grid,
    palette::{GRID, INK, MUTED},
};
use maud::html;

/// The cells, with names or numbers beside them.
pub(super) fn draw(grid: &Grid, format: &Format) -> Drawn {
    let count = grid.names.len() as f64;
    let [largest, cell] = format.grid;
    let side = (largest / count).min(cell);
    let text = (0.85 * format.text).min(0.8 * side);
    let row_title = match format.names > 0.0 {
        true => format.names + 40.0,
        false => 2.2 * text,
    };
    let left = match format.class {
        None => row_title + 40.0,
        Some(_) => row_title,
    };
    let top = match format.class {
        None => format.plot.top,
        Some(_) => 2.2 * text,
    };
    let plot = Rect {
        left,
        top,
        width: side * count,
        height: side * count,
    };
    let number = TextFormat::plain(text, MUTED).anchored(Anchor::Middle);
    let name = TextFormat::plain(text, INK).anchored(Anchor::End);
    let named = |at: usize| match format.names > 0.0 {
        true => format!(
            "{}  {}",
            shortened(&grid.names[at], format.names, text),
            at + 1
        ),
        false => (at + 1).to_string(),
    };
    let middle = |at: usize| (at as f64 + 0.5) * side;
    let gap = if side > 20.0 { 1.0 } else { 0.5 };
    let field = |row: usize, column: usize| Rect {
        left: left + column as f64 * side,
        top: top + row as f64 * side,
        width: side - gap,
        height: side - gap,
    };
    Drawn {
        markup: html! {
            @for at in 0..grid.names.len() {
                (pen::text((left - 0.6 * text, top + middle(at)), &named(at), name))
                (pen::text((left + middle(at), top - 0.9 * text), &(at + 1).to_string(), number))
            }
            @for (row, cells) in grid.cells.iter().enumerate() {
                @for (column, cell) in cells.iter().enumerate() {
                    @match cell {
                        Some(cell) => { (pen::rect(field(row, column), cell.color, 1.0)) }
                        None => { (pen::rect(field(row, column), GRID, 0.4)) }
                    }
                }
            }
        },
        height: top + plot.height + 4.0,
        plot,
    }
}

/// A name that stays beside the map.
fn shortened(name: &str, width: f64, size: f64) -> String {
    let mut short: String = name.to_owned();
    while text_width(&short, size) > width && short.pop().is_some() {}
    if short.len() < name.len() {
        short.push('…');
    }
    short
}
