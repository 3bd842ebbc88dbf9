//! A figure's SVG as PNG, at twice its size, with a font that travels with the program.

use std::fmt::Write as _;

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree};

use super::FigureError;
use super::draw::{HEIGHT, WIDTH};
use super::palette::{ALERT, INK, MUTED};

/// Pixels of the picture a pixel of the figure.
const ZOOM: u32 = 2;
const FONT_FAMILY: &str = "Ubuntu";

/// Renders `svg`, as the figures draw it.
pub(in crate::report) fn png(svg: &str) -> Result<Vec<u8>, FigureError> {
    let mut options = Options {
        style_sheet: Some(weights()),
        ..Options::default()
    };
    let fonts = options.fontdb_mut();
    fonts.load_font_data(epaint_default_fonts::UBUNTU_LIGHT.to_vec());
    fonts.set_sans_serif_family(FONT_FAMILY);
    let tree = Tree::from_str(svg, &options).map_err(FigureError::Parse)?;
    let (width, height) = (WIDTH * ZOOM, HEIGHT * ZOOM);
    let mut picture = Pixmap::new(width, height).ok_or(FigureError::Allocate { width, height })?;
    let zoom = ZOOM as f32;
    resvg::render(
        &tree,
        Transform::from_scale(zoom, zoom),
        &mut picture.as_mut(),
    );
    picture
        .encode_png()
        .map_err(|error| FigureError::Encode(Box::new(error)))
}

/// The font at hand is a light one: a stroke of the text's own colour gives it regular weight, and a wider one bold.
fn weights() -> String {
    let mut css = String::new();
    for (color, bold) in [(INK, 1.1), (MUTED, 0.7), (ALERT, 0.7)] {
        for (selector, width) in [("", 0.35), ("[font-weight=\"bold\"]", bold)] {
            let _ = writeln!(
                css,
                "text[fill=\"{color}\"]{selector} {{ stroke: {color}; stroke-width: {width} }}"
            );
        }
    }
    css
}
