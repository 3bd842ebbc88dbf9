//! Weights in a folder: written, read by ranges, and refused where something is wrong with them.

use polestar_hf::{
    Dtype, Elements, Error, Exported, Head, Naming, Run, Weights,
    config::Tokens,
    record, recorded,
    write::{self, FILE_BYTES},
};
use polestar_model::{HeadKind, ModelConfig, ModelLayout, Preset, init::initial_weights};
use polestar_store::Store;
use serde_json::{Value, json};
use std::{convert::Infallible, fs, path::Path};

fn model() -> ModelConfig {
    ModelConfig {
        hidden_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        intermediate_size: 48,
        initializer_range: None,
        ..Preset::Nano.config(50)
    }
}

/// A model in memory.
struct InMemory {
    layout: ModelLayout,
    values: Vec<f32>,
}

impl InMemory {
    fn new(head: HeadKind) -> InMemory {
        let layout = ModelLayout::new(&model(), head);
        let mut values = initial_weights(&layout, 3);
        // A head that isn't all zeros.
        let count = values.len();
        for (i, value) in values[count - 32..].iter_mut().enumerate() {
            *value = i as f32 / 7.0 - 2.0;
        }
        InMemory { layout, values }
    }
}

impl Elements for InMemory {
    type Error = Infallible;

    async fn read(&mut self, run: &Run, sink: &mut [f32]) -> Result<(), Infallible> {
        for segment in &self.layout.segments {
            for tensor in segment.tensors.iter().filter(|t| t.name == run.tensor) {
                let start = segment.offset + tensor.offset + run.start;
                sink.copy_from_slice(&self.values[start..start + run.elements]);
            }
        }
        Ok(())
    }
}

async fn save(folder: &Path, naming: Naming, dtype: Dtype, head: HeadKind, file_bytes: u64) {
    let mut model = InMemory::new(head);
    let tensors = naming.theirs(&model.layout);
    write::prepare(folder).unwrap();
    write::write(folder, &tensors, dtype, file_bytes, &mut model)
        .await
        .unwrap();
    let exported = Exported {
        model: &model.layout.config,
        head,
        naming,
        dtype,
        tokens: Tokens {
            bos: 0,
            eos: 0,
            pad: 0,
            reward: 49,
        },
        positions: 64,
    };
    write::write_json(&folder.join("config.json"), &exported.json()).unwrap();
}

/// All elements, read in three ranges a segment, as three ranks would.
async fn load(weights: &Weights, layout: &ModelLayout) -> Vec<f32> {
    let mut all = vec![f32::NAN; layout.elements()];
    for segment in &layout.segments {
        for rank in 0..3 {
            let from = segment.elements * rank / 3;
            let to = segment.elements * (rank + 1) / 3;
            let sink = &mut all[segment.offset + from..segment.offset + to];
            weights.overwrite(segment, from, sink).await.unwrap();
        }
    }
    all
}

async fn refused(folder: &Path) -> String {
    let opened = Weights::open(folder.to_str().unwrap()).await;
    polestar_core::chain(&opened.expect_err("there is something wrong with it"))
}

#[tokio::test]
async fn what_is_written_is_read_by_ranges_bit_for_bit_under_either_naming_in_one_file_or_many() {
    for naming in [Naming::Llama, Naming::InternLm2] {
        for (dtype, file_bytes) in [
            (Dtype::F32, FILE_BYTES),
            (Dtype::Bf16, 4_000),
            (Dtype::F16, 9_000),
        ] {
            let folder = tempfile::tempdir().unwrap();
            save(folder.path(), naming, dtype, HeadKind::Reward, file_bytes).await;
            let weights = Weights::open(folder.path().to_str().unwrap())
                .await
                .unwrap();
            assert_eq!(weights.files().count() > 1, file_bytes < FILE_BYTES);
            assert_eq!(weights.head(HeadKind::Reward), Head::Stored);
            let InMemory { layout, values } = InMemory::new(HeadKind::Reward);
            let read = load(&weights, &layout).await;
            match dtype {
                Dtype::F32 => assert!(read == values),
                _ => {
                    let worst = read.iter().zip(&values).map(|(a, b)| (a - b).abs());
                    assert!(worst.fold(0.0, f32::max) < 0.02);
                }
            }
            // Written again from what was read: the same files.
            let again = tempfile::tempdir().unwrap();
            let mut model = InMemory {
                layout,
                values: read,
            };
            let tensors = naming.theirs(&model.layout);
            write::write(again.path(), &tensors, dtype, file_bytes, &mut model)
                .await
                .unwrap();
            for (name, _) in weights.files() {
                let [a, b] = [&folder, &again].map(|f| fs::read(f.path().join(name)).unwrap());
                assert!(a == b, "{naming:?} {dtype} {name}");
            }
        }
    }
}

#[tokio::test]
async fn rows_of_new_tokens_and_a_head_that_is_not_there_stay_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    save(
        folder.path(),
        Naming::Llama,
        Dtype::F32,
        HeadKind::Language,
        FILE_BYTES,
    )
    .await;
    let weights = Weights::open(folder.path().to_str().unwrap())
        .await
        .unwrap();
    assert_eq!(weights.head(HeadKind::Reward), Head::Fresh);
    let larger = ModelConfig {
        vocab_size: 53,
        ..model()
    };
    let layout = ModelLayout::new(&larger, HeadKind::Reward);
    let read = load(&weights, &layout).await;
    let InMemory {
        layout: theirs,
        values,
    } = InMemory::new(HeadKind::Language);
    assert!(read[..50 * 32] == values[..50 * 32]);
    assert!(
        read[50 * 32..53 * 32].iter().all(|v| v.is_nan()),
        "left to whoever began them"
    );
    let [head, their_head] = [&layout, &theirs].map(|l| l.segments.last().unwrap().clone());
    let norm = |l: &polestar_model::SegmentLayout| l.offset..l.offset + 32;
    assert!(read[norm(&head)] == values[norm(&their_head)]);
    assert!(read[head.offset + 32..].iter().all(|v| v.is_nan()));
    // A tied head is the embedding.
    edit(&folder.path().join("config.json"), |config| {
        config["tie_word_embeddings"] = json!(true)
    });
    rename(
        &folder.path().join("model.safetensors"),
        "lm_head.weight",
        "xx_head.weight",
    );
    let tied = Weights::open(folder.path().to_str().unwrap())
        .await
        .unwrap();
    assert_eq!(tied.head(HeadKind::Language), Head::Tied);
    assert_eq!(tied.unused(), ["xx_head.weight"]);
    let read = load(&tied, &theirs).await;
    assert!(read[their_head.offset + 32..] == values[..50 * 32]);
}

#[tokio::test]
async fn files_that_changed_since_they_were_recorded_are_refused_before_a_weight_is_used() {
    let folder = tempfile::tempdir().unwrap();
    save(
        folder.path(),
        Naming::Llama,
        Dtype::F32,
        HeadKind::Reward,
        FILE_BYTES,
    )
    .await;
    let open = || async {
        Weights::open(folder.path().to_str().unwrap())
            .await
            .unwrap()
    };
    let manifest = open().await.manifest().await.unwrap();
    let store = Store::open("memory://recorded-weights").unwrap();
    record(&store, &manifest).await.unwrap();
    let recorded = recorded(&store, &manifest.digest()).await.unwrap();
    assert_eq!(recorded, manifest);
    let layout = ModelLayout::new(&model(), HeadKind::Reward);
    let weights = open().await.checked(recorded.clone()).unwrap();
    assert!(load(&weights, &layout).await == InMemory::new(HeadKind::Reward).values);

    let file = folder.path().join("model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 3;
    bytes[last] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let weights = open().await.checked(recorded.clone()).unwrap();
    let head = layout.segments.last().unwrap();
    let read = weights
        .overwrite(head, 0, &mut vec![0.0; head.elements])
        .await;
    let said = read.unwrap_err().to_string();
    assert!(
        said.contains("of model.safetensors aren't those on record"),
        "{said}"
    );
    assert_ne!(
        open().await.manifest().await.unwrap().digest(),
        manifest.digest()
    );

    edit(&folder.path().join("config.json"), |config| {
        config["rope_theta"] = json!(77.0)
    });
    let said = open().await.checked(recorded).unwrap_err().to_string();
    assert!(said.contains("config.json is another one"), "{said}");
}

#[tokio::test]
async fn what_is_wrong_is_told_with_file_and_tensor() {
    let fresh = || async {
        let folder = tempfile::tempdir().unwrap();
        save(
            folder.path(),
            Naming::Llama,
            Dtype::F32,
            HeadKind::Reward,
            FILE_BYTES,
        )
        .await;
        folder
    };
    let file = |folder: &tempfile::TempDir| folder.path().join("model.safetensors");

    let folder = fresh().await;
    let bytes = fs::read(file(&folder)).unwrap();
    fs::write(file(&folder), &bytes[..bytes.len() - 40]).unwrap();
    let said = refused(folder.path()).await;
    assert!(
        said.contains("model.safetensors has") && said.contains("tensor score.weight isn't whole"),
        "{said}"
    );
    fs::write(file(&folder), &bytes[..100]).unwrap();
    assert!(refused(folder.path()).await.contains("cut short"));

    let folder = fresh().await;
    rename(
        &file(&folder),
        "model.layers.1.mlp.up_proj.weight",
        "model.layers.1.mlp.up_prox.weight",
    );
    let said = refused(folder.path()).await;
    assert!(
        said.contains("tensor model.layers.1.mlp.up_proj.weight is missing"),
        "{said}"
    );

    let folder = fresh().await;
    rename(
        &file(&folder),
        "score.weight",
        "model.layers.0.self_attn.q_norm.weight",
    );
    let said = refused(folder.path()).await;
    assert!(
        said.contains("q_norm.weight has no place in this model"),
        "{said}"
    );

    let folder = fresh().await;
    edit(&folder.path().join("config.json"), |config| {
        config["intermediate_size"] = json!(64)
    });
    let said = refused(folder.path()).await;
    assert!(
        said.contains("gate_proj.weight has shape [48, 32], and [64, 32] by config.json"),
        "{said}"
    );

    let folder = fresh().await;
    fs::rename(file(&folder), folder.path().join("pytorch_model.bin")).unwrap();
    let said = refused(folder.path()).await;
    assert!(
        said.contains("pytorch_model.bin is a pickle") && said.contains("python3 -c"),
        "{said}"
    );

    let folder = fresh().await;
    fs::remove_file(folder.path().join("config.json")).unwrap();
    assert!(
        refused(folder.path())
            .await
            .contains("config.json is missing")
    );

    let occupied = write::prepare(folder.path());
    assert!(matches!(occupied, Err(Error::Occupied { .. })));
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut json: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut json);
    fs::write(path, json.to_string()).unwrap();
}

/// Gives a tensor another name in a file's table, whose length stays as it is.
fn rename(path: &Path, from: &str, to: &str) {
    let bytes = fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let table = String::from_utf8(bytes[8..8 + length].to_vec()).unwrap();
    let mut table = table
        .trim_end()
        .replace(&format!("\"{from}\""), &format!("\"{to}\""))
        .into_bytes();
    assert!(table.len() <= length + 64);
    table.resize(table.len().max(length), b' ');
    let mut renamed = (table.len() as u64).to_le_bytes().to_vec();
    renamed.extend(table);
    renamed.extend(&bytes[8 + length..]);
    fs::write(path, renamed).unwrap();
}
