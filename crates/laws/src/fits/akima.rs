//! Akima's interpolation (1970): piecewise cubics whose slope at a point is a mean of the slopes beside it,
//! weighted so that a straight stretch stays straight and a bend elsewhere is not felt.

/// A smooth curve through points.
#[derive(Clone, Debug)]
pub struct Akima {
    points: Vec<(f64, f64)>,
    slopes: Vec<f64>,
}

impl Akima {
    /// A curve through points that ascend in x. `None` if two share an x, or if there are fewer than two.
    pub fn through(points: Vec<(f64, f64)>) -> Option<Akima> {
        if points.len() < 2 || points.windows(2).any(|pair| pair[1].0 <= pair[0].0) {
            return None;
        }
        let between = points
            .windows(2)
            .map(|pair| (pair[1].1 - pair[0].1) / (pair[1].0 - pair[0].0));
        // Two more on each side, so that each point has two slopes on its left and two on its right.
        let mut chords = vec![0.0, 0.0];
        chords.extend(between);
        let last = chords.len() - 1;
        let (first, second) = (chords[2], chords[3.min(last)]);
        chords[1] = 2.0 * first - second;
        chords[0] = 2.0 * chords[1] - first;
        let step = chords[last]
            - if last > 2 {
                chords[last - 1]
            } else {
                chords[last]
            };
        chords.extend([chords[last] + step, chords[last] + 2.0 * step]);
        let slope = |m: &[f64]| {
            let (left, right) = ((m[3] - m[2]).abs(), (m[1] - m[0]).abs());
            match left + right {
                sum if sum > 1e-300 => (left * m[1] + right * m[2]) / sum,
                _ => (m[1] + m[2]) / 2.0,
            }
        };
        let slopes = chords.windows(4).map(slope).collect();
        Some(Akima { points, slopes })
    }

    /// a + b t + c t² + d t³, t from the left end of segment `at`.
    fn cubic(&self, at: usize) -> [f64; 4] {
        let ((x0, y0), (x1, y1)) = (self.points[at], self.points[at + 1]);
        let (s0, s1, h) = (self.slopes[at], self.slopes[at + 1], x1 - x0);
        let chord = (y1 - y0) / h;
        let c = (3.0 * chord - 2.0 * s0 - s1) / h;
        let d = (s0 + s1 - 2.0 * chord) / (h * h);
        [y0, s0, c, d]
    }

    /// The lowest place of some segments, and the curve's height there.
    pub fn lowest(&self, segments: std::ops::Range<usize>) -> (f64, f64) {
        let mut best = (f64::NAN, f64::INFINITY);
        for at in segments {
            let [a, b, c, d] = self.cubic(at);
            let h = self.points[at + 1].0 - self.points[at].0;
            let root = (c * c - 3.0 * b * d).max(0.0).sqrt();
            // Where the slope is zero, in the form that doesn't divide by a vanishing d.
            let flat = [-b / (c + root), -b / (c - root)];
            let inside = flat.into_iter().filter(|t| (0.0..=h).contains(t));
            for t in inside.chain([0.0, h]) {
                let y = a + t * (b + t * (c + t * d));
                if y < best.1 {
                    best = (self.points[at].0 + t, y);
                }
            }
        }
        best
    }

    /// How the slope changes at `x`.
    pub fn second_derivative(&self, x: f64) -> f64 {
        let at = self.points.partition_point(|p| p.0 <= x);
        let at = at.clamp(1, self.points.len() - 1) - 1;
        let [_, _, c, d] = self.cubic(at);
        2.0 * c + 6.0 * d * (x - self.points[at].0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_a_line_beside_a_step() {
        let heights = [0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0, 13.0];
        let points = heights.into_iter().enumerate().map(|(i, y)| (i as f64, y));
        let curve = Akima::through(points.collect()).unwrap();
        // A spline would swing here; this one knows nothing of the step.
        assert_eq!(curve.cubic(0), [0.0, 1.0, 0.0, 0.0]);
        assert_eq!(curve.cubic(6), [12.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn the_lowest_place_lies_between_the_points() {
        let parabola = |x: f64| (x, (x - 2.3).powi(2));
        let curve = Akima::through((0..6).map(|i| parabola(f64::from(i))).collect()).unwrap();
        let (x, y) = curve.lowest(1..3);
        assert!((x - 2.3).abs() < 0.02 && y.abs() < 0.01, "{x} {y}");
        assert!((curve.second_derivative(x) - 2.0).abs() < 0.3);
        assert!(Akima::through(vec![(1.0, 0.0), (1.0, 1.0)]).is_none());
    }
}
