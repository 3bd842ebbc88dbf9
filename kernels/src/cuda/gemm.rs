//! Matrix products by cuBLASLt: of each shape the library's first choice among those that add in one place.
//!
//! The choice is a function of the library's version, the device and the shape. No product is split over its inner
//! dimension (the sums of the parts would be added in whatever order they come), and the workspace is ours.

use super::{
    CudaError,
    context::Context,
    device::{Device, Which},
    memory::{Bf16, Element, View},
};
use cudarc::{
    cublaslt::{result, sys},
    driver,
};
use std::{
    collections::HashMap,
    ffi::c_void,
    sync::{Arc, Mutex, PoisonError},
};

/// Bytes that a product may use for itself.
pub const WORKSPACE: usize = 32 << 20;

/// Addresses and rows of operands begin on a multiple of so many bytes.
const OPERAND_ALIGNMENT: u32 = 16;

/// Choices that are remembered: one for each shape, and a pack's tokens are part of it.
const REMEMBERED: usize = 1 << 14;

/// A matrix of bf16 numbers, row after row.
#[derive(Clone, Copy, Debug)]
pub struct Operand {
    view: View<Bf16>,
    rows: usize,
    columns: usize,
}

impl Operand {
    /// A matrix of so many rows and columns.
    ///
    /// # Panics
    /// When the view has another number of elements.
    pub fn new(view: View<Bf16>, rows: usize, columns: usize) -> Operand {
        assert_eq!(view.len(), rows * columns, "a matrix of {rows} x {columns}");
        Operand {
            view,
            rows,
            columns,
        }
    }
}

/// Which of the three products of a linear layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Product {
    /// `y = x wᵀ`: x `[t, in]`, w `[out, in]`.
    Forward,
    /// `dx = dy w`: dy `[t, out]`, w `[out, in]`.
    Input,
    /// `dw = dyᵀ x`: dy `[t, out]`, x `[t, in]`.
    Weight,
}

/// A shape, as the library sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Shape {
    product: Product,
    m: usize,
    n: usize,
    k: usize,
    /// Whether the result is f32, and not bf16.
    wide: bool,
    /// Whether something is added to it.
    adds: bool,
}

impl Shape {
    fn new(product: Product, a: &Operand, b: &Operand, wide: bool, adds: bool) -> Shape {
        // The library counts columns first: a matrix of ours, row after row, is its transpose to it. The first operand
        // is the second one's columns.
        let (m, n, k, inner) = match product {
            Product::Forward => (b.rows, a.rows, a.columns, b.columns),
            Product::Input => (b.columns, a.rows, a.columns, b.rows),
            Product::Weight => (b.columns, a.columns, a.rows, b.rows),
        };
        assert_eq!(k, inner, "{product:?}: {a:?} and {b:?} don't fit together");
        Shape {
            product,
            m,
            n,
            k,
            wide,
            adds,
        }
    }
}

impl Device {
    /// `d = product(a, b) + c`. `c` may be `d`.
    ///
    /// # Panics
    /// When shapes don't fit together, or the library fails.
    pub fn product(
        &self,
        product: Product,
        a: Operand,
        b: Operand,
        c: Option<View<Bf16>>,
        d: View<Bf16>,
    ) {
        let shape = Shape::new(product, &a, &b, false, c.is_some());
        self.multiply(shape, [a, b], c.unwrap_or(d), d);
    }

    /// `d += product(a, b)`, in f32.
    ///
    /// # Panics
    /// As [`Device::product`].
    pub fn accumulate(&self, product: Product, a: Operand, b: Operand, d: View<f32>) {
        let shape = Shape::new(product, &a, &b, true, true);
        self.multiply(shape, [a, b], d, d);
    }

    /// `d = product(a, b)`, in f32.
    ///
    /// # Panics
    /// As [`Device::product`].
    pub fn product_wide(&self, product: Product, a: Operand, b: Operand, d: View<f32>) {
        let shape = Shape::new(product, &a, &b, true, false);
        self.multiply(shape, [a, b], d, d);
    }

    fn multiply<T: Element>(&self, shape: Shape, [a, b]: [Operand; 2], c: View<T>, d: View<T>) {
        assert_eq!(d.len(), shape.m * shape.n, "the result of {shape:?}");
        assert_eq!(c.len(), d.len(), "what is added to the result of {shape:?}");
        if shape.m * shape.n == 0 {
            return;
        }
        self.context().enter();
        let done = self
            .products()
            .run(shape, [a.view, b.view], c, d, self.stream(Which::Compute));
        if let Err(error) = done {
            panic!("{self:?}: {shape:?}: {error}");
        }
    }

    /// What the library chooses for these shapes, as a digest: alike on two devices exactly if they multiply alike.
    ///
    /// # Errors
    /// When it has no choice for one of them.
    pub fn choices(
        &self,
        shapes: &[(Product, [usize; 2], [usize; 2], bool)],
    ) -> Result<String, CudaError> {
        self.context().enter();
        let mut digest = blake3::Hasher::new();
        for &(product, [rows, columns], [others, width], wide) in shapes {
            let operand = |rows, columns| Operand {
                view: View::new(0, rows * columns),
                rows,
                columns,
            };
            let (a, b) = (operand(rows, columns), operand(others, width));
            let choice = self
                .products()
                .choice(Shape::new(product, &a, &b, wide, wide))?;
            digest.update(choice.describe()?.as_bytes());
        }
        Ok(digest.finalize().to_hex()[..16].to_owned())
    }
}

/// The library, and its choices.
pub(super) struct Products {
    handle: sys::cublasLtHandle_t,
    workspace: u64,
    choices: Mutex<HashMap<Shape, Arc<Choice>>>,
    context: Arc<Context>,
}

// SAFETY: the handle may be used from any thread; the choices are behind a lock.
unsafe impl Send for Products {}
// SAFETY: as above.
unsafe impl Sync for Products {}

impl Products {
    pub(super) fn new(context: &Arc<Context>) -> Result<Products, CudaError> {
        let handle = result::create_handle().map_err(CudaError::products("cublasLtCreate"))?;
        // SAFETY: nothing of it is read before a product writes it.
        let workspace = unsafe { driver::result::malloc_sync(WORKSPACE) };
        Ok(Products {
            handle,
            workspace: workspace.map_err(CudaError::driver("cuMemAlloc"))?,
            choices: Mutex::default(),
            context: Arc::clone(context),
        })
    }

    pub(super) fn version(&self) -> String {
        // SAFETY: it only tells a number.
        format!("cuBLASLt {}", unsafe { sys::cublasLtGetVersion() })
    }

    fn choice(&self, shape: Shape) -> Result<Arc<Choice>, CudaError> {
        let mut choices = self.choices.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(choice) = choices.get(&shape) {
            return Ok(Arc::clone(choice));
        }
        if choices.len() >= REMEMBERED {
            choices.clear();
        }
        let choice = Arc::new(Choice::of(self.handle, shape)?);
        choices.insert(shape, Arc::clone(&choice));
        Ok(choice)
    }

    fn run<T: Element>(
        &self,
        shape: Shape,
        [a, b]: [View<Bf16>; 2],
        c: View<T>,
        d: View<T>,
        stream: driver::sys::CUstream,
    ) -> Result<(), CudaError> {
        let choice = self.choice(shape)?;
        let (one, added) = (1.0_f32, if shape.adds { 1.0_f32 } else { 0.0 });
        // Ours are the other way round: see `Shape::new`.
        let (first, second) = (b, a);
        // SAFETY: descriptors and layouts are alive and of this shape, views as long as it says (checked by the caller),
        // and the workspace is used by one stream only. Both factors are read before the call returns.
        unsafe {
            result::matmul(
                self.handle,
                choice.description.0,
                (&raw const one).cast(),
                (&raw const added).cast(),
                first.address() as *const c_void,
                choice.first.0,
                second.address() as *const c_void,
                choice.second.0,
                c.address() as *const c_void,
                choice.result.0,
                d.address() as *mut c_void,
                choice.result.0,
                &raw const choice.algorithm,
                self.workspace as *mut c_void,
                WORKSPACE,
                stream.cast(),
            )
        }
        .map_err(CudaError::products("cublasLtMatmul"))
    }
}

impl Drop for Products {
    fn drop(&mut self) {
        self.context.enter();
        // SAFETY: both were made when this was, and no product is under way: streams are waited for as a device closes.
        unsafe {
            let _ = result::destroy_handle(self.handle);
            let _ = driver::result::free_sync(self.workspace);
        }
    }
}

/// How products of a shape are computed.
struct Choice {
    description: Description,
    first: Layout,
    second: Layout,
    result: Layout,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

// SAFETY: descriptors are not changed after they were made, and may be read from any thread.
unsafe impl Send for Choice {}
// SAFETY: as above.
unsafe impl Sync for Choice {}

struct Description(sys::cublasLtMatmulDesc_t);
struct Layout(sys::cublasLtMatrixLayout_t);
struct Preference(sys::cublasLtMatmulPreference_t);

impl Drop for Description {
    fn drop(&mut self) {
        // SAFETY: it was created once and is used no more.
        let _ = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: it was created once and is used no more.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: it was created once and is used no more.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}

impl Choice {
    fn of(handle: sys::cublasLtHandle_t, shape: Shape) -> Result<Choice, CudaError> {
        use sys::{cublasComputeType_t as Compute, cudaDataType_t as Type};
        let Shape {
            product,
            m,
            n,
            k,
            wide,
            ..
        } = shape;
        let description = result::create_matmul_desc(Compute::CUBLAS_COMPUTE_32F, Type::CUDA_R_32F);
        let description =
            Description(description.map_err(CudaError::products("cublasLtMatmulDescCreate"))?);
        let transposed = match product {
            Product::Forward => [true, false],
            Product::Input => [false, false],
            Product::Weight => [false, true],
        };
        description.set_transposed(transposed)?;
        let sides = |transposed: bool, outer: usize, inner: usize| match transposed {
            true => (inner, outer),
            false => (outer, inner),
        };
        let (rows, columns) = sides(transposed[0], m, k);
        let first = Layout::new(Type::CUDA_R_16BF, rows, columns)?;
        let (columns, rows) = sides(transposed[1], n, k);
        let second = Layout::new(Type::CUDA_R_16BF, rows, columns)?;
        let kind = if wide {
            Type::CUDA_R_32F
        } else {
            Type::CUDA_R_16BF
        };
        let result = Layout::new(kind, m, n)?;
        let preference = Preference::new()?;
        // SAFETY: everything was made above and is alive.
        let found = unsafe {
            result::get_matmul_algo_heuristic(
                handle,
                description.0,
                first.0,
                second.0,
                result.0,
                result.0,
                preference.0,
            )
        };
        let found = found.map_err(CudaError::products("cublasLtMatmulAlgoGetHeuristic"))?;
        Ok(Choice {
            description,
            first,
            second,
            result,
            algorithm: found.algo,
        })
    }

    /// What the algorithm is, as text.
    fn describe(&self) -> Result<String, CudaError> {
        use sys::cublasLtMatmulAlgoConfigAttributes_t as Attribute;
        let mut text = String::new();
        for attribute in [
            Attribute::CUBLASLT_ALGO_CONFIG_ID,
            Attribute::CUBLASLT_ALGO_CONFIG_TILE_ID,
            Attribute::CUBLASLT_ALGO_CONFIG_SPLITK_NUM,
            Attribute::CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME,
            Attribute::CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING,
            Attribute::CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION,
            Attribute::CUBLASLT_ALGO_CONFIG_STAGES_ID,
        ] {
            let (mut value, mut written) = (0_u32, 0_usize);
            // SAFETY: each of these has four bytes, which are there to be written.
            let told = unsafe {
                sys::cublasLtMatmulAlgoConfigGetAttribute(
                    &raw const self.algorithm,
                    attribute,
                    (&raw mut value).cast(),
                    size_of::<u32>(),
                    &raw mut written,
                )
            };
            told.result()
                .map_err(CudaError::products("cublasLtMatmulAlgoConfigGetAttribute"))?;
            text += &format!("{value} ");
        }
        Ok(text)
    }
}

impl Description {
    fn set_transposed(&self, [first, second]: [bool; 2]) -> Result<(), CudaError> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        for (attribute, transposed) in [
            (Attribute::CUBLASLT_MATMUL_DESC_TRANSA, first),
            (Attribute::CUBLASLT_MATMUL_DESC_TRANSB, second),
        ] {
            // CUBLAS_OP_T and CUBLAS_OP_N.
            let value = i32::from(transposed);
            // SAFETY: both attributes are read as four bytes.
            let set = unsafe {
                result::set_matmul_desc_attribute(
                    self.0,
                    attribute,
                    (&raw const value).cast(),
                    size_of::<i32>(),
                )
            };
            set.map_err(CudaError::products("cublasLtMatmulDescSetAttribute"))?;
        }
        Ok(())
    }
}

impl Layout {
    fn new(kind: sys::cudaDataType_t, rows: usize, columns: usize) -> Result<Layout, CudaError> {
        let layout = result::create_matrix_layout(kind, rows as u64, columns as u64, rows as i64);
        Ok(Layout(layout.map_err(CudaError::products(
            "cublasLtMatrixLayoutCreate",
        ))?))
    }
}

impl Preference {
    fn new() -> Result<Preference, CudaError> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
        let preference = result::create_matmul_pref();
        let preference =
            Preference(preference.map_err(CudaError::products("cublasLtMatmulPreferenceCreate"))?);
        let workspace = WORKSPACE as u64;
        preference.set(
            Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
            &workspace,
        )?;
        let none = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_NONE as u32;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &none)?;
        for attribute in [
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
        ] {
            preference.set(attribute, &OPERAND_ALIGNMENT)?;
        }
        Ok(preference)
    }

    fn set<V>(
        &self,
        attribute: sys::cublasLtMatmulPreferenceAttributes_t,
        value: &V,
    ) -> Result<(), CudaError> {
        // SAFETY: the preference is alive, and the value has the attribute's size.
        let set = unsafe {
            result::set_matmul_pref_attribute(
                self.0,
                attribute,
                (&raw const *value).cast(),
                size_of::<V>(),
            )
        };
        set.map_err(CudaError::products("cublasLtMatmulPreferenceSetAttribute"))
    }
}
