//! Logarithmic axes: what range they span, where their ticks stand, and what of a line lies within them.

/// Ratio that an axis spans at least, so that nearly equal values don't turn rounding into a landscape.
const MIN_RATIO: f64 = 1.15;

/// Share of an axis that its data keep when it reaches out to a line of reference.
const DATA_SHARE: f64 = 0.28;

/// A logarithmic axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::report) struct Axis {
    /// Lower end, above zero.
    pub lo: f64,
    /// Upper end.
    pub hi: f64,
    /// ln(hi / lo) of the data alone.
    data: f64,
}

impl Axis {
    /// From `lo` to `hi`, both above zero.
    pub(in crate::report) fn new(lo: f64, hi: f64) -> Self {
        Self {
            lo,
            hi,
            data: (hi / lo).ln(),
        }
    }

    /// Spans `values` with `margin` of its length beyond them on both sides; `None` without a value to span.
    pub(in crate::report) fn around(
        values: impl IntoIterator<Item = f64>,
        margin: f64,
    ) -> Option<Self> {
        let usable = values
            .into_iter()
            .filter(|value| value.is_finite() && *value > 0.0);
        let (lo, hi) = usable.fold((f64::INFINITY, 0.0f64), |(lo, hi), value| {
            (lo.min(value), hi.max(value))
        });
        (hi > 0.0).then(|| {
            let stretch = (MIN_RATIO / (hi / lo)).max(1.0).sqrt();
            let pad = stretch * (hi / lo * stretch * stretch).powf(margin);
            Self::new(lo / pad, hi * pad)
        })
    }

    /// Reaches out to `value` if the data then still fill a fair share of it; whether `value` lies within.
    pub(in crate::report) fn reach(&mut self, value: f64) -> bool {
        let lo = self.lo.min(value / 1.03);
        let hi = self.hi.max(value * 1.03);
        let fits = self.data >= DATA_SHARE * (hi / lo).ln();
        if fits {
            (self.lo, self.hi) = (lo, hi);
        }
        fits
    }

    /// Whether `value` lies within.
    pub(in crate::report) fn contains(&self, value: f64) -> bool {
        self.lo <= value && value <= self.hi
    }

    /// `count` values from end to end, evenly spaced as drawn.
    pub(in crate::report) fn steps(self, count: usize) -> impl Iterator<Item = f64> {
        let at =
            move |at: usize| self.lo * (self.hi / self.lo).powf(at as f64 / (count - 1) as f64);
        // Rounding must not put the last one beyond the end.
        (0..count).map(move |step| at(step).clamp(self.lo, self.hi))
    }

    /// Ticks at round values, at most `most`: the densest of 1-2-5 series and their like that fits; evenly spaced values
    /// where a short axis would get too few of them.
    pub(in crate::report) fn ticks(&self, most: usize) -> Vec<f64> {
        const MANTISSAS: [&[f64]; 4] = [
            &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0],
            &[1.0, 2.0, 5.0],
            &[1.0, 3.0],
            &[1.0],
        ];
        let decades = (self.hi / self.lo).log10();
        let least = if decades < 1.0 { 5 } else { 3 };
        let within = |mantissas: &[f64], stride: i32| -> Vec<f64> {
            let exponents = self.lo.log10().floor() as i32..=self.hi.log10().ceil() as i32;
            exponents
                .filter(|exponent| exponent % stride == 0)
                .flat_map(|exponent| {
                    mantissas
                        .iter()
                        .map(move |mantissa| mantissa * 10f64.powi(exponent))
                })
                .filter(|tick| self.contains(*tick))
                .collect()
        };
        let mut series = MANTISSAS.iter().map(|mantissas| within(mantissas, 1));
        match series.find(|ticks| (least..=most).contains(&ticks.len())) {
            Some(ticks) => ticks,
            None if decades < 3.0 => self.linear_ticks(most),
            None => within(&[1.0], (decades / most as f64).ceil() as i32),
        }
    }

    fn linear_ticks(&self, most: usize) -> Vec<f64> {
        let rough = (self.hi - self.lo) / most as f64;
        let unit = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0]
            .map(|m| m * unit)
            .into_iter()
            .find(|step| *step >= rough)
            .unwrap_or(10.0 * unit);
        let first = (self.lo / step).ceil() as i64;
        // Dividing by the inverse keeps 0.35 from becoming 0.35000000000000003 wherever the step is a decimal fraction.
        (first..)
            .map(|at| at as f64 * step)
            .map(|tick| (tick * 1e12 / unit).round() * unit / 1e12)
            .take_while(|tick| *tick <= self.hi)
            .collect()
    }

    /// The pieces of the polyline `line` whose y lies within this axis, cut where it crosses the ends.
    pub(in crate::report) fn clip(&self, line: &[(f64, f64)]) -> Vec<Vec<(f64, f64)>> {
        let mut pieces: Vec<Vec<(f64, f64)>> = Vec::new();
        let mut open = false;
        for pair in line.windows(2) {
            let Some((from, to)) = self.clip_segment(pair[0], pair[1]) else {
                open = false;
                continue;
            };
            match pieces.last_mut().filter(|_| open) {
                Some(piece) => piece.push(to),
                None => pieces.push(vec![from, to]),
            }
            open = to == pair[1];
        }
        pieces
    }

    /// The part of a segment with y within the axis; straight in log-log space.
    fn clip_segment(&self, from: (f64, f64), to: (f64, f64)) -> Option<((f64, f64), (f64, f64))> {
        let at = |y: f64| {
            let share = (y / from.1).ln() / (to.1 / from.1).ln();
            (from.0 * (to.0 / from.0).powf(share), y)
        };
        if from.1.max(to.1) < self.lo || from.1.min(to.1) > self.hi {
            return None;
        }
        let inside = |point: (f64, f64)| {
            if self.contains(point.1) {
                point
            } else {
                at(point.1.clamp(self.lo, self.hi))
            }
        };
        Some((inside(from), inside(to)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_few_and_within() {
        let losses = Axis::new(0.29, 0.71).ticks(9);
        assert_eq!(losses, [0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7]);
        assert_eq!(
            Axis::new(8e3, 2e6).ticks(9),
            [1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 2e6]
        );
        assert_eq!(
            Axis::new(9e11, 2e18).ticks(9),
            [1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18]
        );
        assert_eq!(Axis::new(2.2e4, 1.15e5).ticks(9), [3e4, 4e4, 5e4, 7e4, 1e5]);
        for hi in [1.01, 1.2, 2.0, 5.0, 12.0, 40.0, 900.0, 1e5, 1e30] {
            let ticks = Axis::new(1.0, hi).ticks(9);
            assert!((3..=10).contains(&ticks.len()), "up to {hi}: {ticks:?}");
        }
    }

    #[test]
    fn an_axis_reaches_out_only_while_its_data_stay_readable() {
        let mut axis = Axis::around([0.36, 0.42], 0.06).unwrap();
        let before = axis;
        assert!(!axis.reach(0.69) && axis == before);
        assert!(axis.reach(0.45) && axis.contains(0.45));
        assert_eq!(Axis::around([f64::NAN, -1.0], 0.1), None);
        let single = Axis::around([0.5], 0.0).unwrap();
        assert!((single.hi / single.lo - MIN_RATIO).abs() < 1e-12);
    }

    #[test]
    fn a_line_is_cut_where_it_leaves_and_returns() {
        let axis = Axis::new(1.0, 10.0);
        let pieces = axis.clip(&[(1.0, 100.0), (100.0, 1.0), (1e4, 100.0), (1e5, 100.0)]);
        assert_eq!(pieces.len(), 1);
        let (first, last) = (pieces[0][0], pieces[0][pieces[0].len() - 1]);
        assert!((first.0 - 10.0).abs() < 1e-9 && first.1 == 10.0);
        assert!((last.0 - 1e3).abs() < 1e-6 && last.1 == 10.0);
    }
}
