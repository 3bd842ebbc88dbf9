//! Types of weights on disk, and the way to and from f32.

use crate::Error;
use half::{bf16, f16};

/// How weights are written. Reading any of them into f32 and writing it again keeps every bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// 32 bits, as they are trained.
    F32,
    /// 16 bits with f32's range.
    Bf16,
    /// 16 bits with more digits and less range.
    F16,
}

impl Dtype {
    /// Of a safetensors file, if it is one that is read.
    pub(crate) fn of(stored: safetensors::Dtype) -> Option<Dtype> {
        match stored {
            safetensors::Dtype::F32 => Some(Dtype::F32),
            safetensors::Dtype::BF16 => Some(Dtype::Bf16),
            safetensors::Dtype::F16 => Some(Dtype::F16),
            _ => None,
        }
    }

    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::Bf16 | Dtype::F16 => 2,
        }
    }

    /// In a safetensors table.
    pub(crate) fn tag(self) -> &'static str {
        match self {
            Dtype::F32 => "F32",
            Dtype::Bf16 => "BF16",
            Dtype::F16 => "F16",
        }
    }

    /// In a config.json.
    pub fn torch(self) -> &'static str {
        match self {
            Dtype::F32 => "float32",
            Dtype::Bf16 => "bfloat16",
            Dtype::F16 => "float16",
        }
    }

    /// Elements as f32. `bytes` are whole elements, as many as `sink` takes.
    pub(crate) fn decode(self, bytes: &[u8], sink: &mut [f32]) {
        match self {
            Dtype::F32 => {
                for (value, bytes) in sink.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *value = f32::from_le_bytes(*bytes);
                }
            }
            Dtype::Bf16 => {
                for (value, bytes) in sink.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *value = bf16::from_le_bytes(*bytes).to_f32();
                }
            }
            Dtype::F16 => {
                for (value, bytes) in sink.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *value = f16::from_le_bytes(*bytes).to_f32();
                }
            }
        }
    }

    /// Appends f32 elements of a tensor, rounded to the nearest, ties to even.
    ///
    /// # Errors
    /// [`Error::NotFinite`]; [`Error::Range`] for what would become infinite.
    pub(crate) fn encode(
        self,
        tensor: &str,
        values: &[f32],
        bytes: &mut Vec<u8>,
    ) -> Result<(), Error> {
        if values.iter().any(|value| !value.is_finite()) {
            let tensor = tensor.to_owned();
            return Err(Error::NotFinite { tensor });
        }
        let too_large = |value: f32, dtype| Error::Range {
            tensor: tensor.to_owned(),
            value,
            dtype,
        };
        bytes.reserve(values.len() * self.size());
        for &value in values {
            match self {
                Dtype::F32 => bytes.extend_from_slice(&value.to_le_bytes()),
                Dtype::Bf16 => {
                    let rounded = bf16::from_f32(value);
                    if !rounded.is_finite() {
                        return Err(too_large(value, "bf16"));
                    }
                    bytes.extend_from_slice(&rounded.to_le_bytes());
                }
                Dtype::F16 => {
                    let rounded = f16::from_f32(value);
                    if !rounded.is_finite() {
                        return Err(too_large(value, "f16"));
                    }
                    bytes.extend_from_slice(&rounded.to_le_bytes());
                }
            }
        }
        Ok(())
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Dtype::F32 => "f32",
            Dtype::Bf16 => "bf16",
            Dtype::F16 => "f16",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finite_pattern_of_sixteen_bits_survives_the_way_through_f32() {
        for dtype in [Dtype::Bf16, Dtype::F16] {
            for bits in 0..=u16::MAX {
                let bytes = bits.to_le_bytes();
                let mut value = [0.0];
                dtype.decode(&bytes, &mut value);
                if !value[0].is_finite() {
                    continue;
                }
                let mut again = Vec::new();
                dtype.encode("t", &value, &mut again).unwrap();
                assert_eq!(again, bytes, "{dtype} {bits:04x}");
            }
        }
    }

    #[test]
    fn what_a_type_cannot_hold_is_refused_by_the_tensors_name() {
        let mut bytes = Vec::new();
        let refused = Dtype::F16.encode("score.weight", &[1.0, 70_000.0], &mut bytes);
        let said = refused.unwrap_err().to_string();
        assert!(
            said.contains("score.weight") && said.contains("70000"),
            "{said}"
        );
        let refused = Dtype::F32.encode("score.weight", &[f32::NAN], &mut bytes);
        assert!(matches!(refused, Err(Error::NotFinite { .. })));
    }
}
