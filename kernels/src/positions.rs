//! Token positions, and the table of rotations that rotary embedding reads.

use std::sync::{Arc, OnceLock};

/// One position per token of a pack. Cloning shares them, and the rotations computed from them.
#[derive(Clone, Debug)]
pub struct Positions(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    ids: Arc<[u32]>,
    /// The first (base, width) asked for: one model asks for one only, in every layer.
    rotations: OnceLock<Arc<Rotations>>,
}

impl Positions {
    /// Positions in token order.
    pub fn new(ids: impl Into<Arc<[u32]>>) -> Self {
        Self(Arc::new(Shared {
            ids: ids.into(),
            rotations: OnceLock::new(),
        }))
    }

    /// The positions in token order.
    pub fn ids(&self) -> &[u32] {
        &self.0.ids
    }

    /// Cosine and sine of every angle, for heads of width `width`.
    pub(crate) fn rotations(&self, base: f32, width: usize) -> Arc<Rotations> {
        let fresh = || Arc::new(Rotations::new(&self.0.ids, base, width));
        let first = self.0.rotations.get_or_init(fresh);
        if first.base.to_bits() == base.to_bits() && first.width == width {
            Arc::clone(first)
        } else {
            fresh()
        }
    }
}

/// Cosines and sines of position x frequency, both `[T, width / 2]`.
#[derive(Debug)]
pub(crate) struct Rotations {
    base: f32,
    width: usize,
    pub(crate) cos: Vec<f32>,
    pub(crate) sin: Vec<f32>,
}

impl Rotations {
    /// Number of angles per token.
    pub(crate) fn half_width(&self) -> usize {
        self.width / 2
    }

    fn new(ids: &[u32], base: f32, width: usize) -> Self {
        assert!(
            width > 0 && width.is_multiple_of(2),
            "rotary embedding turns pairs: head width {width} must be even"
        );
        let frequencies: Vec<f32> = (0..width / 2)
            .map(|pair| f64::from(base).powf(-2.0 * pair as f64 / width as f64) as f32)
            .collect();
        // The angle is rounded to f32, as the method's models do it; its sine and cosine are then taken in f64,
        // so that the table doesn't depend on a platform's f32 routines.
        let (cos, sin) = ids
            .iter()
            .flat_map(|&id| frequencies.iter().map(move |&f| f64::from(id as f32 * f)))
            .map(|angle| (angle.cos() as f32, angle.sin() as f32))
            .unzip();
        Self {
            base,
            width,
            cos,
            sin,
        }
    }
}
