//! Where labels go: beside what they name, on nothing else.

/// A rectangle in pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::report) struct Rect {
    /// Left edge.
    pub left: f64,
    /// Upper edge.
    pub top: f64,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
}

impl Rect {
    /// A square of side 2 · `radius`.
    pub(in crate::report) fn around(x: f64, y: f64, radius: f64) -> Self {
        Self {
            left: x - radius,
            top: y - radius,
            width: 2.0 * radius,
            height: 2.0 * radius,
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.left < other.left + other.width
            && other.left < self.left + self.width
            && self.top < other.top + other.height
            && other.top < self.top + self.height
    }

    fn inside(&self, other: &Self) -> bool {
        self.left >= other.left
            && self.top >= other.top
            && self.left + self.width <= other.left + other.width
            && self.top + self.height <= other.top + other.height
    }
}

/// Width in pixels that `text` takes at most in the fonts a figure is shown in.
pub(in crate::report) fn text_width(text: &str, size: f64) -> f64 {
    text.chars().count() as f64 * size * 0.56
}

/// Places labels one after another within `bounds`, off each other and off the obstacles.
#[derive(Debug)]
pub(in crate::report) struct Placer {
    bounds: Rect,
    taken: Vec<Rect>,
}

impl Placer {
    /// An empty plane.
    pub(in crate::report) fn new(bounds: Rect) -> Self {
        Self {
            bounds,
            taken: Vec::new(),
        }
    }

    /// Keeps labels off `rect`.
    pub(in crate::report) fn block(&mut self, rect: Rect) {
        self.taken.push(rect);
    }

    /// The first of `places` that is free.
    pub(in crate::report) fn place_at(&mut self, places: &[Rect]) -> Option<Rect> {
        let free = |rect: &&Rect| {
            rect.inside(&self.bounds) && !self.taken.iter().any(|taken| taken.overlaps(rect))
        };
        let place = *places.iter().find(free)?;
        self.taken.push(place);
        Some(place)
    }

    /// A free place for a `width` × `height` label beside the point (x, y); `None` when there is none near enough.
    pub(in crate::report) fn place(
        &mut self,
        x: f64,
        y: f64,
        width: f64,
        height: f64,
    ) -> Option<Rect> {
        // Above first: scaling curves fall to the right, so above right is the emptiest side.
        const SIDES: [(f64, f64); 8] = [
            (0.5, -1.0),
            (0.0, -1.0),
            (1.0, -0.3),
            (0.0, 1.0),
            (1.0, 0.3),
            (-0.5, 1.0),
            (-1.0, 0.3),
            (-0.5, -1.0),
        ];
        const DISTANCES: [f64; 3] = [13.0, 22.0, 34.0];
        let places: Vec<Rect> = DISTANCES
            .iter()
            .flat_map(|distance| SIDES.iter().map(move |side| (*distance, *side)))
            .map(|(distance, (dx, dy))| Rect {
                left: x + dx * (width / 2.0 + distance) - width / 2.0,
                top: y + dy * (height / 2.0 + distance) - height / 2.0,
                width,
                height,
            })
            .collect();
        self.place_at(&places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_crowded_points_stay_apart_or_stay_away() {
        let bounds = Rect {
            left: 0.0,
            top: 0.0,
            width: 300.0,
            height: 200.0,
        };
        let mut placer = Placer::new(bounds);
        let points: Vec<(f64, f64)> = (0..12)
            .map(|at| (100.0 + 9.0 * f64::from(at), 100.0))
            .collect();
        for (x, y) in &points {
            placer.block(Rect::around(*x, *y, 7.0));
        }
        let placed: Vec<Rect> = points
            .iter()
            .filter_map(|(x, y)| placer.place(*x, *y, 60.0, 18.0))
            .collect();
        assert!((3..12).contains(&placed.len()), "{}", placed.len());
        for (at, rect) in placed.iter().enumerate() {
            assert!(rect.inside(&bounds));
            assert!(placed[..at].iter().all(|other| !other.overlaps(rect)));
            assert!(
                points
                    .iter()
                    .all(|(x, y)| !Rect::around(*x, *y, 7.0).overlaps(rect))
            );
        }
    }
}
