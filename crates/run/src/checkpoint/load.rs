//! Reading checkpoints: ranges, in whole pages, checked before use.

use super::{
    Error, Kind, Manifest,
    direct::{Files, Run, disjoint},
    manifest_key,
    parts::{Object, overlap},
    place,
};
use crate::StartFrom;
use futures::{StreamExt, TryStreamExt, stream};
use polestar_core::{RecipeId, Step};
use polestar_model::SegmentLayout;
use polestar_store;
use polestar_store::Store;
use std::{collections::BTreeMap, ops::Range};

/// Most bytes of one request.
const SPAN: u64 = 16 << 20;
/// Requests at a time: with [`SPAN`] the bound on memory.
const AT_A_TIME: usize = 8;

/// A committed checkpoint of this very recipe.
///
/// # Errors
/// [`Error::OtherRecipe`] when another recipe's lies there; what is wrong with the manifest;
/// the store's.
pub async fn open(store: &Store, recipe: &RecipeId, step: Step) -> Result<Manifest, Error> {
    let key = manifest_key(recipe, step);
    let manifest = Manifest::parse(&key, &store.get(&key).await?)?;
    if manifest.recipe != *recipe {
        return Err(Error::OtherRecipe { key });
    }
    Ok(manifest)
}

/// Elements of a segment, and where they go.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// The segment.
    pub segment: usize,
    /// Weights or moments.
    pub kind: Kind,
    /// First element in the segment.
    pub start: usize,
    /// Takes them.
    pub sink: &'a mut [f32],
}

/// Reads ranges of a checkpoint. Returns the bytes that were fetched.
///
/// # Errors
/// [`Error::Damaged`] when something of it is missing or altered; the sinks are then of no use. The
/// store's errors.
pub async fn read(
    store: &Store,
    manifest: &Manifest,
    mut wanted: Vec<Wanted<'_>>,
) -> Result<u64, Error> {
    let mut runs = runs(manifest, &mut wanted);
    if disjoint(&mut runs) {
        let mut objects: Vec<usize> = runs.iter().map(|run| run.object).collect();
        objects.dedup();
        if let Some(files) = Files::open(store, manifest, objects.into_iter()).await? {
            return files.read(manifest, runs);
        }
    }
    read_through(store, manifest, wanted).await
}

/// Where the bytes of each sink lie.
fn runs<'a>(manifest: &Manifest, wanted: &'a mut [Wanted<'_>]) -> Vec<Run<'a>> {
    let mut runs = Vec::new();
    for wanted in wanted {
        let range = wanted.start as u64..(wanted.start + wanted.sink.len()) as u64;
        let mut reads = manifest.reads(wanted.segment, wanted.kind, range);
        reads.sort_by_key(|(_, read)| read.sink);
        let mut rest: &mut [u8] = bytemuck::cast_slice_mut(wanted.sink);
        for (object, read) in reads {
            let length = (read.bytes.end - read.bytes.start) as usize;
            let (sink, later) = rest.split_at_mut(length);
            rest = later;
            let start = read.bytes.start;
            runs.push(Run {
                object,
                start,
                sink,
            });
        }
    }
    runs
}

/// [`read`] by requests to the store.
async fn read_through(
    store: &Store,
    manifest: &Manifest,
    mut wanted: Vec<Wanted<'_>>,
) -> Result<u64, Error> {
    let place = place(&manifest.recipe, manifest.step);
    // By object: bytes, which of the wanted they are for, first element there.
    let mut reads: BTreeMap<usize, Vec<(Range<u64>, usize, usize)>> = BTreeMap::new();
    for (number, wanted) in wanted.iter().enumerate() {
        let range = wanted.start as u64..(wanted.start + wanted.sink.len()) as u64;
        for (object, read) in manifest.reads(wanted.segment, wanted.kind, range) {
            let entry = (read.bytes, number, read.sink);
            reads.entry(object).or_default().push(entry);
        }
    }
    let spans = reads.iter().flat_map(|(&object, reads)| {
        let spans = spans(
            manifest,
            &manifest.objects[object],
            reads.iter().map(|r| &r.0),
        );
        spans.into_iter().map(move |span| (object, span))
    });
    let fetches: Vec<_> = spans
        .map(|(object, span)| {
            let (store, place) = (store.clone(), place.clone());
            let (entry, page) = (manifest.objects[object].clone(), manifest.page);
            async move {
                let bytes = fetch(&store, &place, &entry, page, span.clone()).await?;
                Ok::<_, Error>((object, span, bytes))
            }
        })
        .collect();
    let mut fetched = stream::iter(fetches).buffer_unordered(AT_A_TIME);
    let mut total = 0;
    while let Some((object, span, bytes)) = fetched.try_next().await? {
        total += bytes.len() as u64;
        for (range, number, first) in &reads[&object] {
            let Some(both) = overlap(range, &span) else {
                continue;
            };
            let source =
                &bytes[(both.start - span.start) as usize..(both.end - span.start) as usize];
            let at = first + ((both.start - range.start) / 4) as usize;
            let sink = &mut wanted[*number].sink[at..at + source.len() / 4];
            bytemuck::cast_slice_mut(sink).copy_from_slice(source);
        }
    }
    Ok(total)
}

/// The pages that ranges of an object lie in, as byte ranges of at most [`SPAN`] bytes, or of a page.
fn spans<'a>(
    manifest: &Manifest,
    object: &Object,
    ranges: impl Iterator<Item = &'a Range<u64>>,
) -> Vec<Range<u64>> {
    let page = manifest.page;
    let mut pages: Vec<u64> = ranges
        .flat_map(|range| range.start / page..range.end.div_ceil(page))
        .collect();
    pages.sort_unstable();
    pages.dedup();
    let joined = pages.chunk_by(|a, b| a + 1 == *b);
    let limited = joined.flat_map(|pages| pages.chunks((SPAN / page).max(1) as usize));
    let bytes = limited.map(|pages| {
        let first = pages[0] * page;
        first..((first / page + pages.len() as u64) * page).min(object.bytes)
    });
    bytes.collect()
}

/// Whole pages of an object, checked.
async fn fetch(
    store: &Store,
    place: &str,
    object: &Object,
    page: u64,
    span: Range<u64>,
) -> Result<bytes::Bytes, Error> {
    let key = format!("{place}/{}", object.name);
    let damaged = |what: String| Error::Damaged {
        key: key.clone(),
        what,
    };
    let bytes = match store.get_range(&key, span.clone()).await {
        Ok(bytes) => bytes,
        Err(polestar_store::Error::Missing { .. }) => {
            return Err(damaged("it is missing".to_owned()));
        }
        // Is it the store, or is there nothing to be had at that place?
        Err(error) => match store.size(&key).await {
            Ok(size) if size != object.bytes => {
                return Err(damaged(format!("{size} bytes instead of {}", object.bytes)));
            }
            _ => return Err(error.into()),
        },
    };
    if bytes.len() as u64 != span.end - span.start {
        let size = store.size(&key).await?;
        return Err(damaged(format!("{size} bytes instead of {}", object.bytes)));
    }
    let first = (span.start / page) as usize;
    let hashes = object.pages[first..].to_vec();
    let checked = tokio::task::spawn_blocking(move || {
        let mut pages = bytes.chunks(page as usize).zip(hashes);
        let bad = pages.position(|(page, hash)| blake3::hash(page).to_hex().as_str() != hash);
        (bad, bytes)
    });
    let (bad, bytes) = checked
        .await
        .map_err(|_| Error::Panicked { key: key.clone() })?;
    match bad {
        Some(bad) => Err(damaged(format!(
            "bytes {} to {} don't have the manifest's digest",
            (first + bad) as u64 * page,
            ((first + bad + 1) as u64 * page).min(object.bytes),
        ))),
        None => Ok(bytes),
    }
}

/// How a whole checkpoint looks.
#[derive(Debug, Default)]
pub struct Check {
    /// Bytes read.
    pub bytes: u64,
    /// What is wrong, each a sentence that names the object.
    pub damage: Vec<String>,
}

/// Reads all of a checkpoint and compares every page with its hash.
///
/// # Errors
/// The store's. Damage is no error here.
pub async fn check(store: &Store, manifest: &Manifest) -> Result<Check, Error> {
    let place = place(&manifest.recipe, manifest.step);
    let mut check = Check::default();
    for object in &manifest.objects {
        let all = 0..object.bytes;
        for span in spans(manifest, object, std::iter::once(&all)) {
            match fetch(store, &place, object, manifest.page, span).await {
                Ok(bytes) => check.bytes += bytes.len() as u64,
                Err(error) if error.is_damage() => {
                    check.damage.push(error.to_string());
                    break;
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(check)
}

/// Another trial's checkpoint, to start from.
#[derive(Debug)]
pub struct Origin {
    store: Store,
    manifest: Manifest,
}

impl Origin {
    /// Finds it.
    ///
    /// # Errors
    /// [`Error::NoStart`] when that checkpoint isn't there, or what is wrong with it. No other one
    /// is taken in its place.
    pub async fn open(store: &Store, start: &StartFrom) -> Result<Origin, Error> {
        let key = manifest_key(&start.recipe, start.step);
        let Some(bytes) = store.get_opt(&key).await? else {
            return Err(Error::NoStart { key });
        };
        let manifest = Manifest::parse(&key, &bytes)?;
        if manifest.recipe != start.recipe {
            return Err(Error::OtherRecipe { key });
        }
        Ok(Origin {
            store: store.clone(),
            manifest,
        })
    }

    /// Overwrites weights of a segment, from its element `start` on, where a tensor's name and number of
    /// elements match; the rest (a head, say) stays as it is.
    ///
    /// # Errors
    /// When an object is damaged, or the store's.
    pub async fn overwrite(
        &self,
        segment: &SegmentLayout,
        start: usize,
        weights: &mut [f32],
    ) -> Result<(), Error> {
        let mine = start as u64..(start + weights.len()) as u64;
        let mut wanted = Vec::new();
        let mut rest = weights;
        let mut next = mine.start;
        for tensor in &segment.tensors {
            let range = tensor.range();
            let Some(both) = overlap(&(range.start as u64..range.end as u64), &mine) else {
                continue;
            };
            let (_, after) = rest.split_at_mut((both.start - next) as usize);
            let (sink, after) = after.split_at_mut((both.end - both.start) as usize);
            (rest, next) = (after, both.end);
            let theirs = self
                .manifest
                .segments
                .iter()
                .enumerate()
                .find_map(|(i, s)| {
                    let found = s.tensors.iter().find(|t| t.name == tensor.name)?;
                    let alike = found.range().end - found.start == tensor.elements() as u64;
                    alike.then_some((i, found.start as usize))
                });
            if let Some((segment, first)) = theirs {
                wanted.push(Wanted {
                    segment,
                    kind: Kind::Weight,
                    start: first + (both.start as usize - range.start),
                    sink,
                });
            }
        }
        read(&self.store, &self.manifest, wanted).await.map(drop)
    }
}
