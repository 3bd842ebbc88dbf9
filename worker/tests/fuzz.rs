//! Fuzz target of the checkpoint reader: whatever lies in a store ends as an error or as the numbers
//! that were saved.

#[path = "../../tests/common/mutate.rs"]
mod mutate;

use mutate::{fuzz, mutate, mutate_json};
use polestar_core::{Digest, Rank, RecipeId, Step, WorldSize, tree::shard};
use polestar_model::{HeadKind, ModelLayout, Preset};
use polestar_run::{
    Consumed,
    checkpoint::{self, Error, FORMAT, Kind, Manifest, PAGE, Shape, Staging, Wanted},
};
use polestar_store::Store;
use rand::RngExt;
use std::sync::Arc;
use tokio::runtime::Runtime;

const WORLD: WorldSize = WorldSize(2);

fn layout() -> ModelLayout {
    let config = polestar_model::ModelConfig {
        hidden_size: 16,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        intermediate_size: 32,
        ..Preset::Nano.config(300)
    };
    ModelLayout::new(&config, HeadKind::Reward)
}

/// Values that tell where they belong.
fn value(segment: usize, kind: Kind, element: usize) -> f32 {
    (segment * 100_000 + element) as f32 * 10.0 + kind as usize as f32
}

fn save(runtime: &Runtime, store: &Store, layout: &ModelLayout, page: u64) -> Manifest {
    let (trial, step) = (RecipeId::of(b"fuzz"), Step(7));
    let mut objects = Vec::new();
    let mut segments = Vec::new();
    for rank in (0..WORLD.0).map(Rank) {
        let shape = Shape::new(layout, WORLD, rank);
        segments = shape.segments().to_vec();
        let mut staging = Staging::new(shape);
        for (i, segment) in layout.segments.iter().enumerate() {
            let owned = shard(segment.elements, WORLD, rank);
            let state =
                Kind::ALL.map(|kind| owned.clone().map(|e| value(i, kind, e)).collect::<Vec<_>>());
            staging.fill(i, |kind, into| into.copy_from_slice(&state[kind as usize]));
        }
        let staging = Arc::new(staging);
        let place = checkpoint::place(&trial, step);
        let uploaded = runtime.block_on(checkpoint::upload(store, &place, Arc::clone(&staging)));
        let mut object = uploaded.expect("memory").object;
        // Small pages, so that a small checkpoint has many.
        let bytes: &[u8] = (*staging).as_ref();
        object.pages = bytes
            .chunks(page as usize)
            .map(|p| blake3::hash(p).to_hex().to_string())
            .collect();
        objects.push(object);
    }
    let manifest = Manifest {
        format: FORMAT,
        recipe: trial,
        step,
        digest: Digest::of(b"fuzz"),
        consumed: Consumed::default(),
        segments,
        objects,
        page,
        numerics: None,
        transport: None,
    };
    runtime
        .block_on(checkpoint::commit(store, &manifest))
        .expect("memory");
    manifest
}

/// A folder, in memory where there is a place for it.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a folder")
}

/// Reads a random range of a random segment as a rank of some other world would; checks it.
fn read(
    runtime: &Runtime,
    store: &Store,
    manifest: &Manifest,
    random: &mut impl rand::Rng,
) -> Result<(), Error> {
    let segment = random.random_range(0..manifest.segments.len());
    let elements = manifest.segments[segment].elements as usize;
    let start = random.random_range(0..elements);
    let end = random.random_range(start..elements) + 1;
    let mut sinks = Kind::ALL.map(|_| vec![0.0; end - start]);
    let wanted = Kind::ALL
        .into_iter()
        .zip(&mut sinks)
        .map(|(kind, sink)| Wanted {
            segment,
            kind,
            start,
            sink,
        });
    runtime.block_on(checkpoint::read(store, manifest, wanted.collect()))?;
    for (kind, sink) in Kind::ALL.into_iter().zip(&sinks) {
        for (i, found) in sink.iter().enumerate() {
            assert_eq!(
                *found,
                value(segment, kind, start + i),
                "{segment} {kind:?} {i}"
            );
        }
    }
    Ok(())
}

#[test]
fn any_checkpoint_gives_its_numbers_or_an_error() {
    let runtime = Runtime::new().expect("a runtime");
    let layout = layout();
    const { assert!(PAGE > 4096) };
    let folder = folder();
    for (page, in_files) in [(4096, false), (PAGE, false), (4096, true), (PAGE, true)] {
        // Files are read in another way.
        let url = match in_files {
            true => folder.path().join(page.to_string()).display().to_string(),
            false => format!("memory://fuzz-{page}"),
        };
        let store = Store::open(&url).expect("a store");
        let manifest = save(&runtime, &store, &layout, page);
        let place = checkpoint::place(&manifest.recipe, manifest.step);
        let keys: Vec<String> = manifest
            .objects
            .iter()
            .map(|o| format!("{place}/{}", o.name))
            .collect();
        let good: Vec<_> = keys
            .iter()
            .map(|key| runtime.block_on(store.get(key)).expect("it is there"))
            .collect();
        let (mut whole, mut refused) = (0, 0);
        fuzz("checkpoint objects", |random| {
            let which = random.random_range(0..keys.len());
            let bytes = mutate(&good[which], random);
            let same = bytes == good[which];
            runtime
                .block_on(store.put(&keys[which], bytes.into()))
                .expect("memory");
            match read(&runtime, &store, &manifest, random) {
                Ok(()) => whole += 1,
                Err(error) => {
                    assert!(!same && error.is_damage(), "{error}");
                    refused += 1;
                }
            }
            runtime
                .block_on(store.put(&keys[which], good[which].clone()))
                .expect("memory");
        });
        assert!(whole > 0 && refused > 0, "{whole} {refused}");
    }
}

/// One page may be said to be larger than any memory.
#[test]
fn an_object_that_is_said_to_be_enormous_is_damaged() {
    let runtime = Runtime::new().expect("a runtime");
    let folder = folder();
    for url in ["memory://fuzz-large", &folder.path().display().to_string()] {
        let store = Store::open(url).expect("a store");
        let mut manifest = save(&runtime, &store, &layout(), PAGE);
        let large = 1 << 60;
        manifest.page = large;
        for object in &mut manifest.objects {
            object.bytes = large;
            object.pages.truncate(1);
        }
        let bytes = serde_json::to_vec(&manifest).expect("JSON");
        let manifest = Manifest::parse("manifest.json", &bytes).expect("it is sound in itself");
        let mut sink = vec![0.0; manifest.segments[0].elements as usize];
        let wanted = vec![Wanted {
            segment: 0,
            kind: Kind::Weight,
            start: 0,
            sink: &mut sink,
        }];
        let read = runtime.block_on(checkpoint::read(&store, &manifest, wanted));
        let error = read.expect_err("there is not so much");
        assert!(error.is_damage(), "{url}: {error}");
    }
}

/// What once broke the reader.
#[test]
fn pages_and_parts_that_cut_elements_are_refused() {
    let runtime = Runtime::new().expect("a runtime");
    let store = Store::open("memory://fuzz-cut").expect("a store");
    let good = save(&runtime, &store, &layout(), 4096);
    let refused = |change: &dyn Fn(&mut Manifest)| {
        let mut bad = good.clone();
        change(&mut bad);
        let bytes = serde_json::to_vec(&bad).expect("JSON");
        Manifest::parse("manifest.json", &bytes)
            .expect_err("it can't be read")
            .to_string()
    };
    let pages = refused(&|m| m.page = 4095);
    assert!(pages.contains("4095"), "{pages}");
    let part = refused(&|m| m.objects[0].parts[0].offset += 1);
    assert!(part.contains("lies outside"), "{part}");
}

#[test]
fn any_checkpoint_manifest_is_sound_or_refused() {
    let runtime = Runtime::new().expect("a runtime");
    let layout = layout();
    let folder = folder();
    let urls = [
        "memory://fuzz-checkpoint-manifest",
        &folder.path().display().to_string(),
    ];
    let stores = urls.map(|url| Store::open(url).expect("a store"));
    let manifest = save(&runtime, &stores[0], &layout, 4096);
    save(&runtime, &stores[1], &layout, 4096);
    let good = serde_json::to_vec(&manifest).expect("JSON");
    let (mut parsed, mut refused) = (0, 0);
    fuzz("checkpoint manifest", |random| {
        let bytes = mutate_json(&good, random);
        match Manifest::parse("manifest.json", &bytes) {
            Err(error) => {
                assert!(error.to_string().contains("manifest.json"), "{error}");
                refused += 1;
            }
            // What it says is possible, if not true: reading it may fail, but only in order.
            Ok(manifest) => {
                parsed += 1;
                let total: u64 = manifest.segments.iter().map(|s| s.elements).sum();
                if manifest.segments.is_empty()
                    || total > 1 << 20
                    || manifest.segments.iter().any(|s| s.elements == 0)
                {
                    return;
                }
                let segment = random.random_range(0..manifest.segments.len());
                let elements = manifest.segments[segment].elements as usize;
                let ends = stores.each_ref().map(|store| {
                    let mut sink = vec![0.0; elements];
                    let wanted = vec![Wanted {
                        segment,
                        kind: Kind::Second,
                        start: 0,
                        sink: &mut sink,
                    }];
                    let read = runtime.block_on(checkpoint::read(store, &manifest, wanted));
                    read.is_ok().then_some(sink)
                });
                assert!(ends[0] == ends[1], "files and objects tell the same");
            }
        }
    });
    assert!(parsed > 0 && refused > 0, "{parsed} {refused}");
}
