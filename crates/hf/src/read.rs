//! Elements of our tensors out of their files: a few ranges at a time, whole pages, checked before use.

use crate::{Dtype, Error, Run, Weights, mapping::Assembly, pages::PAGE};
use futures::{StreamExt, TryStreamExt, stream};
use polestar_model::{ModelLayout, SegmentLayout};
use std::{collections::BTreeMap, ops::Range};

/// Most bytes of a request, but for the pages that they begin and end in.
const SPAN: u64 = 8 << 20;
/// Requests at a time: with [`SPAN`] the bound on memory.
const AT_A_TIME: usize = 4;

/// Some elements of a file, and where they go.
#[derive(Clone, Debug)]
struct Piece {
    file: usize,
    dtype: Dtype,
    /// Bytes of the file.
    bytes: Range<u64>,
    /// First element in the sink.
    sink: usize,
    tensor: String,
}

/// Pieces that are read at once.
struct Fetch {
    file: usize,
    /// Whole pages.
    bytes: Range<u64>,
    pieces: Vec<Piece>,
}

impl Weights {
    /// Overwrites elements of a segment, from its element `start` on, with those that these weights have. Rows
    /// of tokens that they don't have, and a head that they don't bring, stay as they are.
    ///
    /// # Errors
    /// The store's; [`Error::Changed`] for bytes that aren't those on record; [`Error::NotFinite`].
    pub async fn overwrite(
        &self,
        segment: &SegmentLayout,
        start: usize,
        sink: &mut [f32],
    ) -> Result<(), Error> {
        let assemblies = self.assemblies();
        let mine = start..start + sink.len();
        let mut pieces = Vec::new();
        for tensor in &segment.tensors {
            let Some(assembly) = assemblies.get(&tensor.name) else {
                continue;
            };
            let covered = self.covered(segment, tensor);
            let (from, to) = (
                mine.start.max(tensor.offset),
                mine.end.min(tensor.offset + covered),
            );
            if from < to {
                let wanted = from - tensor.offset..to - tensor.offset;
                self.pieces(assembly, wanted, from - start, &mut pieces);
            }
        }
        let fetches = fetches(
            pieces,
            &self.files.iter().map(|file| file.bytes).collect::<Vec<_>>(),
        );
        let reads = fetches.into_iter().map(|fetch| async move {
            let bytes = self.fetch(&fetch).await?;
            Ok::<_, Error>((fetch, bytes))
        });
        let mut reads = stream::iter(reads).buffer_unordered(AT_A_TIME);
        while let Some((fetch, bytes)) = reads.try_next().await? {
            for piece in fetch.pieces {
                let from = (piece.bytes.start - fetch.bytes.start) as usize;
                let length = (piece.bytes.end - piece.bytes.start) as usize;
                let elements = length / piece.dtype.size();
                let values = &mut sink[piece.sink..piece.sink + elements];
                piece.dtype.decode(&bytes[from..from + length], values);
                if values.iter().any(|value| !value.is_finite()) {
                    let tensor = piece.tensor;
                    return Err(Error::NotFinite { tensor });
                }
            }
        }
        Ok(())
    }

    /// How our tensors are made of those that are there, by our names; both heads.
    fn assemblies(&self) -> BTreeMap<String, Assembly> {
        use polestar_model::HeadKind::{Language, Reward};
        let layouts =
            [Reward, Language].map(|head| ModelLayout::new(&self.architecture.model, head));
        let all = layouts.iter().flat_map(|layout| self.naming().ours(layout));
        all.map(|assembly| (assembly.name.clone(), assembly))
            .collect()
    }

    /// Where elements of an assembled tensor lie.
    fn pieces(
        &self,
        assembly: &Assembly,
        wanted: Range<usize>,
        sink: usize,
        pieces: &mut Vec<Piece>,
    ) {
        let mut at = 0;
        for Run {
            tensor,
            start,
            elements,
        } in &assembly.runs
        {
            let (from, to) = (wanted.start.max(at), wanted.end.min(at + elements));
            if from < to
                && let Some(located) = self.tensors.get(self.stored_name(tensor))
            {
                let size = located.dtype.size() as u64;
                let byte =
                    |element: usize| located.bytes.start + (start + element - at) as u64 * size;
                pieces.push(Piece {
                    file: located.file,
                    dtype: located.dtype,
                    bytes: byte(from)..byte(to),
                    sink: sink + from - wanted.start,
                    tensor: tensor.clone(),
                });
            }
            at += elements;
        }
    }

    async fn fetch(&self, fetch: &Fetch) -> Result<bytes::Bytes, Error> {
        let file = &self.files[fetch.file];
        let bytes = self
            .store
            .get_range(&file.name, fetch.bytes.clone())
            .await?;
        if bytes.len() as u64 != fetch.bytes.end - fetch.bytes.start {
            return Err(Error::File {
                file: format!("{}/{}", self.url(), file.name),
                what: "became shorter while it was read".to_owned(),
            });
        }
        match &self.pages {
            Some(manifest) if !manifest.holds(fetch.file, fetch.bytes.start, &bytes) => {
                let Range { start, end } = fetch.bytes;
                Err(Error::Changed {
                    url: self.url().to_owned(),
                    what: format!(
                        "bytes {start} to {end} of {} aren't those on record",
                        file.name
                    ),
                    digest: manifest.digest().short(),
                })
            }
            _ => Ok(bytes),
        }
    }
}

/// Copies by the pages that they are in, cut where one would be too large.
fn fetches(pieces: Vec<Piece>, sizes: &[u64]) -> Vec<Fetch> {
    let mut small: Vec<Piece> = pieces.into_iter().flat_map(cut).collect();
    small.sort_by_key(|piece| (piece.file, piece.bytes.start));
    let mut fetches: Vec<Fetch> = Vec::new();
    for piece in small {
        let end = piece.bytes.end.div_ceil(PAGE) * PAGE;
        let pages = piece.bytes.start / PAGE * PAGE..end.min(sizes[piece.file]);
        match fetches.last_mut() {
            Some(last)
                if last.file == piece.file
                    && pages.start <= last.bytes.end
                    && pages.end - last.bytes.start <= SPAN + 2 * PAGE =>
            {
                last.bytes.end = last.bytes.end.max(pages.end);
                last.pieces.push(piece);
            }
            _ => fetches.push(Fetch {
                file: piece.file,
                bytes: pages,
                pieces: vec![piece],
            }),
        }
    }
    fetches
}

/// A piece in parts of at most [`SPAN`] bytes.
fn cut(piece: Piece) -> impl Iterator<Item = Piece> {
    let starts = piece.bytes.clone().step_by(SPAN as usize);
    let size = piece.dtype.size() as u64;
    starts.map(move |start| Piece {
        bytes: start..(start + SPAN).min(piece.bytes.end),
        sink: piece.sink + ((start - piece.bytes.start) / size) as usize,
        ..piece.clone()
    })
}
