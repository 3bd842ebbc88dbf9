//! Minimum of a smooth function of a few variables: BFGS with a line search.

/// Where the search ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Minimum<const N: usize> {
    /// The point.
    pub at: [f64; N],
    /// The function's value there.
    pub value: f64,
}

/// Steps after which a search that still moves is stopped.
const STEPS: usize = 500;

/// Searches downhill from `start`. `f` returns value and gradient; `inverse_hessian` is a first guess
/// of how far to go along it, and makes variables of different scales alike.
///
/// Not finite values are walls. The result is never worse than the start.
pub fn minimize<const N: usize>(
    start: [f64; N],
    mut inverse_hessian: [[f64; N]; N],
    f: impl Fn(&[f64; N]) -> (f64, [f64; N]),
) -> Minimum<N> {
    let guess = inverse_hessian;
    let mut at = start;
    let (mut value, mut gradient) = f(&at);
    let mut fresh = true;
    for _ in 0..STEPS {
        let mut direction = apply(&inverse_hessian, &gradient).map(|d| -d);
        let mut slope = dot(&direction, &gradient);
        if slope >= 0.0 || !slope.is_finite() {
            direction = apply(&guess, &gradient).map(|d| -d);
            slope = dot(&direction, &gradient);
            inverse_hessian = guess;
            fresh = true;
        }
        if !slope.is_finite() || slope >= 0.0 {
            break;
        }
        // Half the distance until the step is worth its length (Armijo).
        let mut length = 1.0;
        let found = loop {
            let next = std::array::from_fn(|i| at[i] + length * direction[i]);
            let (v, g) = f(&next);
            if v.is_finite() && v <= value + 1e-4 * length * slope {
                break Some((next, v, g));
            }
            length *= 0.5;
            if length < 1e-14 {
                break None;
            }
        };
        let Some((next, next_value, next_gradient)) = found else {
            if fresh {
                break;
            }
            // The curvature that was learnt leads nowhere: forget it once.
            inverse_hessian = guess;
            fresh = true;
            continue;
        };
        let step: [f64; N] = std::array::from_fn(|i| next[i] - at[i]);
        let change: [f64; N] = std::array::from_fn(|i| next_gradient[i] - gradient[i]);
        let gained = value - next_value;
        (at, value, gradient) = (next, next_value, next_gradient);
        learn(&mut inverse_hessian, &step, &change);
        if gained <= 1e-16 * value.abs() {
            if fresh {
                break;
            }
            inverse_hessian = guess;
            fresh = true;
        } else {
            fresh = false;
        }
    }
    Minimum { at, value }
}

/// The BFGS update, left out where the curvature along the step isn't positive.
fn learn<const N: usize>(inverse: &mut [[f64; N]; N], step: &[f64; N], change: &[f64; N]) {
    let along = dot(step, change);
    if along <= 1e-300 || !along.is_finite() {
        return;
    }
    let pushed = apply(inverse, change);
    let factor = (1.0 + dot(change, &pushed) / along) / along;
    for i in 0..N {
        for j in 0..N {
            inverse[i][j] +=
                factor * step[i] * step[j] - (pushed[i] * step[j] + step[i] * pushed[j]) / along;
        }
    }
}

/// Solves `matrix · x = right` by elimination with pivots; `None` if it determines nothing.
pub fn solve<const N: usize>(mut matrix: [[f64; N]; N], mut right: [f64; N]) -> Option<[f64; N]> {
    for column in 0..N {
        let pivot = (column..N)
            .max_by(|&a, &b| matrix[a][column].abs().total_cmp(&matrix[b][column].abs()))?;
        if matrix[pivot][column].abs() < 1e-300 {
            return None;
        }
        matrix.swap(column, pivot);
        right.swap(column, pivot);
        for row in column + 1..N {
            let factor = matrix[row][column] / matrix[column][column];
            let pivot = matrix[column];
            for (cell, above) in matrix[row].iter_mut().zip(pivot).skip(column) {
                *cell -= factor * above;
            }
            right[row] -= factor * right[column];
        }
    }
    let mut x = [0.0; N];
    for row in (0..N).rev() {
        let known: f64 = (row + 1..N).map(|k| matrix[row][k] * x[k]).sum();
        x[row] = (right[row] - known) / matrix[row][row];
    }
    x.iter().all(|v| v.is_finite()).then_some(x)
}

/// The x that brings `row · x` closest to the value of each row, by squares.
pub fn least_squares<const N: usize>(
    rows: impl Iterator<Item = ([f64; N], f64)>,
) -> Option<[f64; N]> {
    let (mut matrix, mut right) = ([[0.0; N]; N], [0.0; N]);
    for (row, value) in rows {
        for i in 0..N {
            right[i] += row[i] * value;
            for j in 0..N {
                matrix[i][j] += row[i] * row[j];
            }
        }
    }
    solve(matrix, right)
}

fn apply<const N: usize>(matrix: &[[f64; N]; N], vector: &[f64; N]) -> [f64; N] {
    std::array::from_fn(|i| dot(&matrix[i], vector))
}

fn dot<const N: usize>(a: &[f64; N], b: &[f64; N]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_bent_valley_is_followed_to_its_end() {
        // Rosenbrock's function.
        let f = |&[x, y]: &[f64; 2]| {
            let (a, b) = (1.0 - x, y - x * x);
            (a * a + 100.0 * b * b, [-2.0 * a - 400.0 * x * b, 200.0 * b])
        };
        let found = minimize([-1.2, 1.0], [[0.01, 0.0], [0.0, 0.01]], f);
        assert!((found.at[0] - 1.0).abs() < 1e-7 && (found.at[1] - 1.0).abs() < 1e-7);
    }

    #[test]
    fn a_system_is_solved_and_a_singular_one_refused() {
        let solved = solve([[0.0, 2.0], [3.0, 1.0]], [4.0, 5.0]);
        assert_eq!(solved, Some([1.0, 2.0]));
        assert_eq!(solve([[1.0, 2.0], [2.0, 4.0]], [1.0, 2.0]), None);
    }
}
