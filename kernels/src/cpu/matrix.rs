//! Small matrix products on views of flat buffers, each on the calling thread.

/// A read-only matrix somewhere in a buffer; its extent is given where it is used.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    values: &'a [f32],
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Rows `row_stride` apart, columns side by side.
    pub(crate) fn new(values: &'a [f32], row_stride: usize) -> Self {
        Self {
            values,
            row_stride,
            column_stride: 1,
        }
    }

    /// One head of tokens of `row` elements: a row per token.
    pub(crate) fn head(values: &'a [f32], row: usize, head: usize, width: usize) -> Self {
        Self::new(&values[head * width..], row)
    }

    pub(crate) fn rows_from(self, row: usize) -> Self {
        Self {
            values: &self.values[row * self.row_stride..],
            ..self
        }
    }

    /// The columns from one on.
    pub(crate) fn columns_from(self, column: usize) -> Self {
        self.transposed().rows_from(column).transposed()
    }

    /// Elements from the first on; others may lie between its rows.
    pub(crate) fn values(&self) -> &'a [f32] {
        self.values
    }

    /// As many other elements in the same places.
    pub(crate) fn with_values(self, values: &'a [f32]) -> Self {
        Self { values, ..self }
    }

    pub(crate) fn row_stride(&self) -> usize {
        self.row_stride
    }

    pub(crate) fn column_stride(&self) -> usize {
        self.column_stride
    }

    pub(crate) fn transposed(self) -> Self {
        Self {
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// Whether the last of `rows` x `columns` elements lies inside.
    pub(crate) fn holds(&self, rows: usize, columns: usize) -> bool {
        let last = (rows - 1) * self.row_stride + (columns - 1) * self.column_stride;
        last < self.values.len()
    }
}

/// A matrix to write to, with columns side by side.
pub(crate) struct MatrixMut<'a> {
    values: &'a mut [f32],
    row_stride: usize,
}

impl<'a> MatrixMut<'a> {
    /// Rows `row_stride` apart.
    pub(crate) fn new(values: &'a mut [f32], row_stride: usize) -> Self {
        Self { values, row_stride }
    }
}

/// What becomes of a product.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    Replace,
    Add,
}

/// `out (+)= a b`, where `shape` is `[rows of a, columns of a, columns of b]`.
///
/// # Panics
/// When an operand is too small for the shape.
pub(crate) fn multiply(
    out: MatrixMut<'_>,
    a: Matrix<'_>,
    b: Matrix<'_>,
    [m, k, n]: [usize; 3],
    write: Write,
) {
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    assert!(
        a.holds(m, k)
            && b.holds(k, n)
            && n <= out.row_stride
            && (m - 1) * out.row_stride + n <= out.values.len(),
        "a product of {m}x{k} and {k}x{n} reaches beyond its operands"
    );
    // SAFETY: by the assertion every element of the three operands lies inside its slice; `out` is borrowed mutably, so
    // it overlaps neither operand, and its rows don't overlap each other.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.values.as_mut_ptr(),
            1,
            out.row_stride as isize,
            write == Write::Add,
            a.values.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
