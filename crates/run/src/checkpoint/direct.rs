//! Reading a checkpoint that lies in files of this machine: from the page cache into the place where the
//! elements belong, without a copy between, several pages at a time.

use super::{Error, Manifest, place};
use polestar_store;
use polestar_store::Store;
use rayon::prelude::*;
use std::{collections::BTreeMap, fs::File, os::unix::fs::FileExt};

/// Bytes of an object and where they belong.
pub(super) struct Run<'a> {
    /// Number of the object.
    pub(super) object: usize,
    /// First byte in it.
    pub(super) start: u64,
    /// Takes them.
    pub(super) sink: &'a mut [u8],
}

/// A page: what lies in it one after the other, wanted or not.
struct Page<'a> {
    object: usize,
    number: u64,
    pieces: Vec<Piece<'a>>,
}

enum Piece<'a> {
    Wanted(&'a mut [u8]),
    /// So many bytes that are only hashed.
    Other(u64),
}

/// The files of a checkpoint's objects that something is wanted of.
pub(super) struct Files(BTreeMap<usize, File>);

/// Whether no two runs share a byte: a manifest can say otherwise, and still all be true.
pub(super) fn disjoint(runs: &mut [Run<'_>]) -> bool {
    runs.sort_by_key(|run| (run.object, run.start));
    runs.is_sorted_by(|a, b| a.object != b.object || a.start + a.sink.len() as u64 <= b.start)
}

impl Files {
    /// Opens them; `None` if the store has no files.
    pub(super) async fn open(
        store: &Store,
        manifest: &Manifest,
        objects: impl Iterator<Item = usize>,
    ) -> Result<Option<Files>, Error> {
        let place = place(&manifest.recipe, manifest.step);
        let mut files = BTreeMap::new();
        for number in objects {
            let object = &manifest.objects[number];
            let key = format!("{place}/{}", object.name);
            let damaged = |what| Error::Damaged {
                key: key.clone(),
                what,
            };
            let file = match store.file(&key).await {
                Ok(Some(file)) => file,
                Ok(None) => return Ok(None),
                Err(polestar_store::Error::Missing { .. }) => {
                    return Err(damaged("it is missing".to_owned()));
                }
                Err(error) => return Err(error.into()),
            };
            files.insert(number, file);
        }
        Ok(Some(Files(files)))
    }

    /// Fills the sinks of runs that are sorted and [`disjoint`]. Returns the bytes that were read.
    pub(super) fn read(&self, manifest: &Manifest, runs: Vec<Run<'_>>) -> Result<u64, Error> {
        let read = |mut page: Page<'_>| self.page(manifest, &mut page);
        let read: Vec<Result<u64, Error>> =
            pages(manifest, runs).into_par_iter().map(read).collect();
        // Of several that are damaged, the first is the one to tell.
        read.into_iter().sum()
    }

    fn page(&self, manifest: &Manifest, page: &mut Page<'_>) -> Result<u64, Error> {
        let object = &manifest.objects[page.object];
        let mut at = page.number * manifest.page;
        let end = at.saturating_add(manifest.page).min(object.bytes);
        let key = || format!("{}/{}", place(&manifest.recipe, manifest.step), object.name);
        let damaged = |what| Error::Damaged { key: key(), what };
        let file = &self.0[&page.object];
        let failed = |source| Error::Read { key: key(), source };
        // A manifest may speak of more than there is, and of more than memory holds.
        let size = file.metadata().map_err(failed)?.len();
        if size < end {
            return Err(damaged(format!("{size} bytes instead of {}", object.bytes)));
        }
        let mut hasher = blake3::Hasher::new();
        let mut others = Vec::new();
        for piece in &mut page.pieces {
            let bytes = match piece {
                Piece::Wanted(sink) => &mut **sink,
                Piece::Other(length) => {
                    others.resize(*length as usize, 0);
                    &mut others
                }
            };
            file.read_exact_at(bytes, at).map_err(failed)?;
            hasher.update(bytes);
            at += bytes.len() as u64;
        }
        let expected = &object.pages[page.number as usize];
        if hasher.finalize().to_hex().as_str() != expected {
            let start = page.number * manifest.page;
            return Err(damaged(format!(
                "bytes {start} to {end} don't have the manifest's digest"
            )));
        }
        Ok(end - page.number * manifest.page)
    }
}

/// The pages that the runs lie in, each with what lies in it.
fn pages<'a>(manifest: &Manifest, runs: Vec<Run<'a>>) -> Vec<Page<'a>> {
    let mut pages: Vec<Page<'a>> = Vec::new();
    // Where the last page is filled to.
    let mut filled = 0;
    let end_of = |page: &Page<'_>| {
        let end = (page.number + 1).saturating_mul(manifest.page);
        end.min(manifest.objects[page.object].bytes)
    };
    let close = |pages: &mut Vec<Page<'a>>, filled: u64| {
        if let Some(page) = pages.last_mut() {
            let rest = end_of(page) - filled;
            if rest > 0 {
                page.pieces.push(Piece::Other(rest));
            }
        }
    };
    for Run {
        object,
        mut start,
        mut sink,
    } in runs
    {
        while !sink.is_empty() {
            let number = start / manifest.page;
            let same = |page: &Page<'_>| (page.object, page.number) == (object, number);
            if !pages.last().is_some_and(same) {
                close(&mut pages, filled);
                filled = number * manifest.page;
                pages.push(Page {
                    object,
                    number,
                    pieces: Vec::new(),
                });
            }
            let Some(page) = pages.last_mut() else { break };
            if start > filled {
                page.pieces.push(Piece::Other(start - filled));
            }
            let take = sink.len().min((end_of(page) - start) as usize);
            let (now, later) = sink.split_at_mut(take);
            page.pieces.push(Piece::Wanted(now));
            start += take as u64;
            (sink, filled) = (later, start);
        }
    }
    close(&mut pages, filled);
    pages
}
