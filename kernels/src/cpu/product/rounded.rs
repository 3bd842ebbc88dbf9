//! The product for machines without instructions for bf16: operands are rounded and kept as f32.

use rayon::prelude::*;

use crate::cpu::matrix::{Matrix, MatrixMut, Write, multiply as multiply_f32};

/// Rows of a task: decided by nothing but taste, so that every thread count cuts alike.
const ROWS: usize = 64;

pub(super) fn multiply(a: Matrix<'_>, b: Matrix<'_>, [m, k, n]: [usize; 3]) -> Vec<f32> {
    let (rounded_a, rounded_b) = (round_all(a.values()), round_all(b.values()));
    let (a, b) = (a.with_values(&rounded_a), b.with_values(&rounded_b));
    let mut out = vec![0.0; m * n];
    out.par_chunks_mut(ROWS * n)
        .enumerate()
        .for_each(|(task, out)| {
            let rows = out.len() / n;
            multiply_f32(
                MatrixMut::new(out, n),
                a.rows_from(task * ROWS),
                b,
                [rows, k, n],
                Write::Replace,
            );
        });
    out
}

fn round_all(values: &[f32]) -> Vec<f32> {
    values.par_iter().map(|&value| round(value)).collect()
}

/// The nearest bf16, ties to even, as an f32.
fn round(value: f32) -> f32 {
    let bits = value.to_bits();
    if value.is_nan() {
        return value;
    }
    let half = 0x7fff + ((bits >> 16) & 1);
    f32::from_bits(bits.wrapping_add(half) & 0xffff_0000)
}

#[cfg(test)]
mod tests {
    use super::round;

    #[test]
    fn rounds_to_nearest_and_ties_to_even() {
        // bf16 keeps 7 bits after the point: above 1, steps of 1/128.
        assert_eq!(round(1.0), 1.0);
        assert_eq!(round(1.0 + 1.0 / 512.0), 1.0);
        assert_eq!(round(1.0 + 3.0 / 512.0), 1.0 + 1.0 / 128.0);
        assert_eq!(round(1.0 + 1.0 / 256.0), 1.0);
        assert_eq!(round(1.0 + 3.0 / 256.0), 1.0 + 2.0 / 128.0);
        assert_eq!(round(-1.0 - 3.0 / 512.0), -1.0 - 1.0 / 128.0);
        assert_eq!(round(f32::MAX), f32::INFINITY);
        assert!(round(f32::NAN).is_nan());
    }
}
