//! Values that mean one thing and differ in their digits: compute as it was achieved, parameters counted in two ways.

/// Values by which of them are taken for one.
#[derive(Clone, Debug, PartialEq)]
pub struct Buckets {
    /// For each value its bucket; buckets ascend.
    pub of: Vec<usize>,
    /// What each bucket stands for: the mean of its values, or the one value that all of them are.
    pub middles: Vec<f64>,
    /// The most that two values of one bucket differ by, as a share of the smaller one.
    pub spread: f64,
}

/// A bucket this many times as wide as the gaps that it bridges is a continuum and no bucket.
const WIDEST: f64 = 5.0;

impl Buckets {
    /// Values that are equal to the last digit share a bucket.
    pub fn exact(values: &[f64]) -> Self {
        Self::split(values, |before, value| value > before)
    }

    /// Neighbours no further apart than `gap`, a share of the smaller one, share a bucket. `None` where values lie so
    /// evenly that this would join what nobody calls one.
    pub fn near(values: &[f64], gap: f64) -> Option<Self> {
        let found = Self::split(values, |before, value| value > before * (1.0 + gap));
        (found.spread <= WIDEST * gap).then_some(found)
    }

    /// A new bucket begins where `is_apart` says so of two neighbours.
    fn split(values: &[f64], is_apart: impl Fn(f64, f64) -> bool) -> Self {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
        let mut found = Self {
            of: vec![0; values.len()],
            middles: Vec::new(),
            spread: 0.0,
        };
        for bucket in order.chunk_by(|&a, &b| !is_apart(values[a], values[b])) {
            let (first, last) = (values[bucket[0]], values[bucket[bucket.len() - 1]]);
            let sum: f64 = bucket.iter().map(|&at| values[at]).sum();
            for &at in bucket {
                found.of[at] = found.middles.len();
            }
            found.spread = found.spread.max(last / first - 1.0);
            // A mean of equal values isn't always equal to them.
            let middle = if first == last {
                first
            } else {
                sum / bucket.len() as f64
            };
            found.middles.push(middle);
        }
        found
    }

    /// What each value stands for.
    pub fn values(&self) -> Vec<f64> {
        self.of.iter().map(|&bucket| self.middles[bucket]).collect()
    }
}

/// For each value its class, those of one class lying no further apart than `tolerance`, a share of the smallest. Unlike
/// [`Buckets`] this cuts a continuum into pieces: it answers how many values really differ.
pub(super) fn classes(values: &[f64], tolerance: f64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut classes = vec![0; values.len()];
    let (mut class, mut first) = (0, None);
    for at in order {
        let smallest = *first.get_or_insert(values[at]);
        if values[at] > smallest * (1.0 + tolerance) {
            class += 1;
            first = Some(values[at]);
        }
        classes[at] = class;
    }
    classes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn achieved_compute_falls_into_its_budgets_and_a_continuum_into_none() {
        let achieved = [1.003e18, 2.99e19, 0.998e18, 3.01e19, 1e18];
        let found = Buckets::near(&achieved, 0.02).unwrap();
        assert_eq!(found.of, [0, 1, 0, 1, 0]);
        assert!((found.middles[1] / 3e19 - 1.0).abs() < 1e-9);
        assert!((found.spread - 0.02 / 2.99).abs() < 1e-4);
        let exact = Buckets::exact(&[3.0, 1.0, 3.0]);
        assert_eq!((exact.values(), exact.spread), (vec![3.0, 1.0, 3.0], 0.0));
        let even: Vec<f64> = (0..100).map(|i| 1.01f64.powi(i)).collect();
        assert_eq!(Buckets::near(&even, 0.02), None);
        assert_eq!(classes(&even, 0.02).last(), Some(&49));
    }
}
