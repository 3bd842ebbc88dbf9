//! Writing a folder of safetensors, run by run.

use crate::{Assembly, Dtype, Error, Run};
use serde_json::{Map, Value, json};
use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

/// Most elements of a run that are in memory at once.
const ELEMENTS: usize = 4 << 20;
/// Most bytes of a file of weights, unless one tensor has more.
pub const FILE_BYTES: u64 = 5_000_000_000;

/// Where the elements of our tensors come from.
pub trait Elements {
    /// Why they can't be had.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Elements of one of our tensors.
    fn read(
        &mut self,
        run: &Run,
        sink: &mut [f32],
    ) -> impl Future<Output = Result<(), Self::Error>>;
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Files of weights, with their bytes.
    pub files: Vec<(String, u64)>,
}

/// A file of weights before it is written.
struct Planned<'a> {
    name: String,
    tensors: Vec<&'a Assembly>,
}

/// Makes sure that a folder is there and empty.
///
/// # Errors
/// [`Error::Occupied`]; [`Error::Write`].
pub fn prepare(folder: &Path) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(|source| failed(folder, source))?;
    let mut entries = fs::read_dir(folder).map_err(|source| failed(folder, source))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(Error::Occupied {
            path: folder.to_owned(),
        }),
    }
}

/// Writes tensors into a folder, in files of at most `file_bytes`, with an index if there are several.
///
/// # Errors
/// [`Error::Elements`] with the source's error; [`Error::NotFinite`] and [`Error::Range`]; [`Error::Write`].
pub async fn write<E: Elements>(
    folder: &Path,
    tensors: &[Assembly],
    dtype: Dtype,
    file_bytes: u64,
    elements: &mut E,
) -> Result<Written, Error> {
    let planned = plan(tensors, dtype, file_bytes);
    let mut written = Vec::new();
    let mut map = Map::new();
    for file in &planned {
        let bytes = write_file(folder, file, dtype, elements).await?;
        written.push((file.name.clone(), bytes));
        let names = file.tensors.iter().map(|tensor| tensor.name.clone());
        map.extend(names.map(|name| (name, Value::from(file.name.clone()))));
    }
    if planned.len() > 1 {
        let all: usize = tensors.iter().map(Assembly::elements).sum();
        let index = json!({
            "metadata": {"total_size": all * dtype.size()},
            "weight_map": map,
        });
        write_json(&folder.join("model.safetensors.index.json"), &index)?;
    }
    Ok(Written { files: written })
}

/// Writes a JSON file as people read it.
///
/// # Errors
/// [`Error::Write`].
pub fn write_json(path: &Path, value: &Value) -> Result<(), Error> {
    write_text(path, &format!("{value:#}\n"))
}

/// Writes a text file.
///
/// # Errors
/// [`Error::Write`].
pub fn write_text(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(|source| failed(path, source))
}

fn plan(tensors: &[Assembly], dtype: Dtype, file_bytes: u64) -> Vec<Planned<'_>> {
    let mut groups: Vec<Vec<&Assembly>> = vec![Vec::new()];
    let mut filled = 0;
    for tensor in tensors {
        let bytes = (tensor.elements() * dtype.size()) as u64;
        let is_full = filled > 0 && filled + bytes > file_bytes;
        if is_full {
            groups.push(Vec::new());
            filled = 0;
        }
        filled += bytes;
        if let Some(group) = groups.last_mut() {
            group.push(tensor);
        }
    }
    let count = groups.len();
    let name = |number: usize| match count {
        1 => "model.safetensors".to_owned(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
    };
    let files = groups.into_iter().enumerate();
    files
        .map(|(number, tensors)| Planned {
            name: name(number),
            tensors,
        })
        .collect()
}

/// Length and table of a file.
fn header(tensors: &[&Assembly], dtype: Dtype) -> Vec<u8> {
    let mut table = Map::new();
    table.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut end = 0;
    for tensor in tensors {
        let start = end;
        end += tensor.elements() * dtype.size();
        let entry = json!({
            "dtype": dtype.tag(), "shape": tensor.shape, "data_offsets": [start, end],
        });
        table.insert(tensor.name.clone(), entry);
    }
    let mut text = Value::Object(table).to_string().into_bytes();
    // The format lets the table end in spaces; elements are then aligned.
    text.resize(text.len().next_multiple_of(64) + 56, b' ');
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.append(&mut text);
    header
}

async fn write_file<E: Elements>(
    folder: &Path,
    file: &Planned<'_>,
    dtype: Dtype,
    elements: &mut E,
) -> Result<u64, Error> {
    let path = folder.join(&file.name);
    let cannot = |source| failed(&path, source);
    let mut out = BufWriter::new(File::create(&path).map_err(cannot)?);
    let header = header(&file.tensors, dtype);
    out.write_all(&header).map_err(cannot)?;
    let mut written = header.len() as u64;
    let (mut values, mut bytes) = (Vec::new(), Vec::new());
    for tensor in &file.tensors {
        for part in tensor.runs.iter().flat_map(parts) {
            values.clear();
            values.resize(part.elements, 0.0);
            let read = elements.read(&part, &mut values).await;
            read.map_err(|source| Error::Elements {
                tensor: part.tensor.clone(),
                source: Box::new(source),
            })?;
            bytes.clear();
            dtype.encode(&tensor.name, &values, &mut bytes)?;
            out.write_all(&bytes).map_err(cannot)?;
            written += bytes.len() as u64;
        }
    }
    let out = out
        .into_inner()
        .map_err(|error| cannot(error.into_error()))?;
    out.sync_all().map_err(cannot)?;
    Ok(written)
}

/// A run in parts that fit into memory.
fn parts(run: &Run) -> impl Iterator<Item = Run> {
    let starts = (0..run.elements).step_by(ELEMENTS);
    starts.map(|at| Run {
        tensor: run.tensor.clone(),
        start: run.start + at,
        elements: ELEMENTS.min(run.elements - at),
    })
}

fn failed(path: &Path, source: std::io::Error) -> Error {
    Error::Write {
        path: PathBuf::from(path),
        source,
    }
}
