//! How the operands of matrix products are rounded.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the operands of a matrix product are rounded. Tensors are f32 before and after, and so are the sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Not at all.
    #[default]
    F32,
    /// To 8 bits of mantissa. Fast where the processor multiplies such numbers, and as slow as f32 elsewhere.
    Bf16,
}
