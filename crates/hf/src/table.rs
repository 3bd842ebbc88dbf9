//! The tables of safetensors files: what lies where, read by ranges.

use crate::{Dtype, Error};
use polestar_store::Store;
use safetensors::tensor::Metadata;
use std::{collections::BTreeMap, ops::Range};

/// Longest table that is read.
const LONGEST: u64 = 100 << 20;

/// A tensor in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Located {
    /// Number of the file.
    pub(crate) file: usize,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// Its bytes in the file.
    pub(crate) bytes: Range<u64>,
}

/// A file of weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WeightFile {
    pub(crate) name: String,
    pub(crate) bytes: u64,
}

/// Reads the table of one file into `tensors`.
///
/// # Errors
/// [`Error::File`] for what is no safetensors file or cut short, naming what isn't whole; [`Error::Tensor`] for
/// types that aren't read, and tensors that another file has too.
pub(crate) async fn read_table(
    store: &Store,
    number: usize,
    file: &WeightFile,
    tensors: &mut BTreeMap<String, Located>,
) -> Result<(), Error> {
    let place = format!("{}/{}", store.url(), file.name);
    let broken = |what: String| Error::File {
        file: place.clone(),
        what,
    };
    if file.bytes < 8 {
        return Err(broken(format!(
            "has {} bytes, which hold no tensor",
            file.bytes
        )));
    }
    let length = store.get_range(&file.name, 0..8).await?;
    let length = u64::from_le_bytes(
        length[..]
            .try_into()
            .map_err(|_| broken("is cut short".to_owned()))?,
    );
    if length > LONGEST || 8 + length > file.bytes {
        return Err(broken(format!(
            "is no safetensors file, or cut short: {} bytes hold no table of {length}",
            file.bytes
        )));
    }
    let table = store.get_range(&file.name, 8..8 + length).await?;
    let metadata: Metadata = serde_json::from_slice(&table)
        .map_err(|error| broken(format!("has a table that can't be read ({error})")))?;
    let begin = 8 + length;
    let names = metadata.offset_keys();
    let end = begin + metadata.data_len() as u64;
    if end != file.bytes {
        let cut = names.iter().find(|name| {
            let info = metadata.info(name);
            info.is_some_and(|info| begin + info.data_offsets.1 as u64 > file.bytes)
        });
        let what = match cut {
            Some(tensor) => format!("; tensor {tensor} isn't whole"),
            None => String::new(),
        };
        return Err(broken(format!(
            "has {} bytes, and its table speaks of {end}{what}",
            file.bytes
        )));
    }
    for name in names {
        let Some(info) = metadata.info(&name) else {
            continue;
        };
        let wrong = |what: String| Error::Tensor {
            file: place.clone(),
            tensor: name.clone(),
            what,
        };
        let Some(dtype) = Dtype::of(info.dtype) else {
            // Tables of integers are no weights: old files have positions and masks.
            if name.ends_with(".weight") {
                return Err(wrong(format!(
                    "is stored as {:?}; F32, BF16 and F16 are read",
                    info.dtype
                )));
            }
            continue;
        };
        let located = Located {
            file: number,
            dtype,
            shape: info.shape.clone(),
            bytes: begin + info.data_offsets.0 as u64..begin + info.data_offsets.1 as u64,
        };
        if tensors.insert(name.clone(), located).is_some() {
            return Err(wrong("is in another file as well".to_owned()));
        }
    }
    Ok(())
}
