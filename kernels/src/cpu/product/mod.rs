//! Matrix products of operands rounded to bf16, summed in f32.

mod rounded;
#[cfg(target_arch = "x86_64")]
mod wide;

use super::matrix::Matrix;

/// `a b` in row order, where `shape` is `[rows of a, columns of a, columns of b]`. In each operand either rows or
/// columns lie side by side.
///
/// The bits depend on the shape and on the machine's instruction set, not on the number of threads.
///
/// # Panics
/// When an operand is too small for the shape.
pub(crate) fn bf16(a: Matrix<'_>, b: Matrix<'_>, shape: [usize; 3]) -> Vec<f32> {
    let [m, k, n] = shape;
    if m == 0 || k == 0 || n == 0 {
        return vec![0.0; m * n];
    }
    assert!(
        a.holds(m, k) && b.holds(k, n),
        "a product of {m}x{k} and {k}x{n} reaches beyond its operands"
    );
    #[cfg(target_arch = "x86_64")]
    if let Some(out) = wide::multiply(a, b, shape) {
        return out;
    }
    rounded::multiply(a, b, shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u32, len: usize) -> Vec<f32> {
        let mix = |i: u32| (i.wrapping_add(seed)).wrapping_mul(2_654_435_761) >> 8;
        let unit = |i: u32| (mix(i) % 20_011) as f32 / 10_005.0 - 1.0;
        (0..len as u32).map(unit).collect()
    }

    /// Both versions, on operands that lie either way, against each other: they round alike and only add up in another
    /// order.
    #[test]
    fn instructions_for_bf16_multiply_as_rounding_says() {
        #[cfg(target_arch = "x86_64")]
        if wide::multiply(Matrix::new(&[1.0], 1), Matrix::new(&[1.0], 1), [1; 3]).is_none() {
            eprintln!("skipped: this machine has no instructions for bf16");
            return;
        }
        // Remainders of rows, columns and pairs; several blocks of each.
        for shape in [[1, 1, 1], [12, 32, 32], [101, 77, 45], [150, 1300, 70]] {
            let [m, k, n] = shape;
            let (a, b) = (noise(1, m * k), noise(2, k * n));
            let a_rows = Matrix::new(&a, k);
            let a_columns = Matrix::new(&a, m).transposed();
            let b_rows = Matrix::new(&b, n);
            let b_columns = Matrix::new(&b, k).transposed();
            for (a, b) in [
                (a_rows, b_rows),
                (a_rows, b_columns),
                (a_columns, b_rows),
                (a_columns, b_columns),
            ] {
                let (ours, plain) = (bf16(a, b, shape), rounded::multiply(a, b, shape));
                for (ours, plain) in ours.iter().zip(&plain) {
                    assert!(
                        (ours - plain).abs() < 1e-3,
                        "{shape:?}: {ours}, not {plain}"
                    );
                }
            }
        }
    }
}
