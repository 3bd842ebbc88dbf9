//! Finding weights in a folder, and making sure that they are what the configuration says.

use crate::{
    Architecture, Error, Naming,
    mapping::has_a_row_for_each_token,
    table::{Located, WeightFile, read_table},
};
use polestar_model::{HeadKind, ModelLayout, SegmentLayout, TensorLayout};
use polestar_store::Store;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";

/// A head that comes with weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// There is a tensor for it.
    Stored,
    /// It is the embedding table (`tie_word_embeddings`).
    Tied,
    /// There is none: it starts as a fresh model's does.
    Fresh,
}

/// The weights of a model in a folder.
#[derive(Clone, Debug)]
pub struct Weights {
    pub(crate) store: Store,
    pub(crate) architecture: Architecture,
    pub(crate) files: Vec<WeightFile>,
    /// By their names in full.
    pub(crate) tensors: BTreeMap<String, Located>,
    /// Bytes of config.json.
    pub(crate) config: Vec<u8>,
    /// What is read is compared with these.
    pub(crate) pages: Option<crate::Manifest>,
    /// Tensors that are in no use here.
    unused: Vec<String>,
}

/// What an index says.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Weights {
    /// Opens a folder with `config.json` and safetensors: reads the configuration and the files' tables, and
    /// checks that every tensor is there in the shape that the configuration asks for.
    ///
    /// # Errors
    /// [`Error`] names file and tensor.
    pub async fn open(url: &str) -> Result<Weights, Error> {
        let store = Store::open_existing(url)?;
        let names = names(&store).await?;
        let files = match names.get(INDEX) {
            Some(_) => indexed(&store, &names).await?,
            None => single(&store, &names)?,
        };
        let config = match names.get("config.json") {
            Some(_) => store.get("config.json").await?.to_vec(),
            None => {
                return Err(Error::Missing {
                    file: format!("{}/config.json", store.url()),
                    remedy: "it says what the tensors are; copy it from where the weights are from",
                });
            }
        };
        let config_file = format!("{}/config.json", store.url());
        let architecture = Architecture::parse(&config_file, &config)?;
        let mut tensors = BTreeMap::new();
        for (number, file) in files.iter().enumerate() {
            read_table(&store, number, file, &mut tensors).await?;
        }
        let mut weights = Weights {
            store,
            architecture,
            files,
            tensors: with_full_names(tensors),
            config,
            pages: None,
            unused: Vec::new(),
        };
        weights.check()?;
        Ok(weights)
    }

    /// The folder's URL.
    pub fn url(&self) -> &str {
        self.store.url()
    }

    /// What its configuration says.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Names and bytes of its files.
    pub fn files(&self) -> impl Iterator<Item = (&str, u64)> {
        self.files
            .iter()
            .map(|file| (file.name.as_str(), file.bytes))
    }

    /// Types that its tensors are stored as.
    pub fn dtypes(&self) -> Vec<crate::Dtype> {
        let mut found = Vec::new();
        for tensor in self.tensors.values() {
            if !found.contains(&tensor.dtype) {
                found.push(tensor.dtype);
            }
        }
        found
    }

    /// Whether it brings a head, and how.
    pub fn head(&self, head: HeadKind) -> Head {
        let name = self.naming().head(head);
        match head {
            _ if self.tensors.contains_key(name) => Head::Stored,
            HeadKind::Language if self.architecture.tied => Head::Tied,
            HeadKind::Language | HeadKind::Reward => Head::Fresh,
        }
    }

    /// Tensors that are in its files and that no model here has a place for.
    pub fn unused(&self) -> &[String] {
        &self.unused
    }

    /// A file beside the weights, such as `tokenizer.json`, if it is there.
    ///
    /// # Errors
    /// The store's.
    pub async fn beside(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.store.get_opt(name).await?.map(|bytes| bytes.to_vec()))
    }

    pub(crate) fn naming(&self) -> Naming {
        self.architecture.naming
    }

    /// The name of their tensor for one of theirs, as it is asked for: a tied head is the embedding table.
    pub(crate) fn stored_name<'a>(&self, name: &'a str) -> &'a str {
        let naming = self.naming();
        let is_tied =
            name == naming.head(HeadKind::Language) && self.head(HeadKind::Language) == Head::Tied;
        match is_tied {
            true => naming.embedding(),
            false => name,
        }
    }

    pub(crate) fn place(&self, located: Option<&Located>) -> String {
        let file = located.map_or(0, |located| located.file);
        match self.files.get(file) {
            Some(file) if located.is_some() || self.files.len() == 1 => {
                format!("{}/{}", self.url(), file.name)
            }
            _ => format!("{}/{INDEX}", self.url()),
        }
    }

    /// Every tensor of the model is there in its shape, and none whose absence would make it another model is
    /// left over.
    fn check(&mut self) -> Result<(), Error> {
        let mut known = BTreeSet::new();
        for head in [HeadKind::Reward, HeadKind::Language] {
            let layout = ModelLayout::new(&self.architecture.model, head);
            for assembly in self.naming().theirs(&layout) {
                let name = assembly.name;
                let is_head = name == self.naming().head(head);
                let wrong = |located, what: String| Error::Tensor {
                    file: self.place(located),
                    tensor: name.clone(),
                    what,
                };
                match self.tensors.get(&name) {
                    None if is_head => {}
                    None => {
                        return Err(wrong(
                            None,
                            "is missing, and the configuration has a place for it; download the weights again, \
                             all files"
                                .to_owned(),
                        ));
                    }
                    Some(found) if found.shape != assembly.shape => {
                        return Err(wrong(
                            Some(found),
                            format!(
                                "has shape {:?}, and {:?} by config.json; are both from one model?",
                                found.shape, assembly.shape
                            ),
                        ));
                    }
                    Some(_) => {}
                }
                known.insert(name);
            }
        }
        let others = self
            .tensors
            .iter()
            .filter(|(name, _)| !known.contains(*name));
        let (computed, unused): (Vec<_>, Vec<_>) =
            others.partition(|(name, _)| name.contains("layers.") && !name.contains("rotary_emb"));
        if let Some(&(name, located)) = computed.first() {
            return Err(Error::Tensor {
                file: self.place(Some(located)),
                tensor: name.clone(),
                what:
                    "has no place in this model, and without it the weights would be another model"
                        .to_owned(),
            });
        }
        self.unused = unused.into_iter().map(|(name, _)| name.clone()).collect();
        Ok(())
    }

    /// Elements of one of our tensors that these weights have: all, none of a fresh head, or those of the first
    /// rows where the model has more tokens than they.
    pub fn covered(&self, segment: &SegmentLayout, tensor: &TensorLayout) -> usize {
        match segment.kind {
            polestar_model::SegmentKind::Head(head)
                if !tensor.vector && self.head(head) == Head::Fresh =>
            {
                0
            }
            kind if has_a_row_for_each_token(kind, tensor) => {
                let rows = self.architecture.model.vocab_size as usize;
                rows.min(tensor.shape[0]) * tensor.shape[1]
            }
            _ => tensor.elements(),
        }
    }
}

/// Names and sizes of what lies in a folder itself.
async fn names(store: &Store) -> Result<BTreeMap<String, u64>, Error> {
    let objects = store.list("").await?.into_iter();
    let own = objects.filter(|object| !object.key.contains('/'));
    Ok(own.map(|object| (object.key, object.size)).collect())
}

/// The files that an index speaks of.
async fn indexed(store: &Store, names: &BTreeMap<String, u64>) -> Result<Vec<WeightFile>, Error> {
    let file = format!("{}/{INDEX}", store.url());
    let index: Index =
        serde_json::from_slice(&store.get(INDEX).await?).map_err(|source| Error::Json {
            file: file.clone(),
            what: "an index of safetensors",
            source,
        })?;
    let wanted: BTreeSet<&String> = index.weight_map.values().collect();
    let files = wanted.into_iter().map(|name| match names.get(name) {
        Some(&bytes) => Ok(WeightFile {
            name: name.clone(),
            bytes,
        }),
        None => Err(Error::Missing {
            file: format!("{}/{name}", store.url()),
            remedy: "the index speaks of it; download the weights again, all files",
        }),
    });
    files.collect()
}

/// The one file of a model that has no index.
fn single(store: &Store, names: &BTreeMap<String, u64>) -> Result<Vec<WeightFile>, Error> {
    let is_weights = |name: &str| name.ends_with(".safetensors");
    let found: Vec<(&String, &u64)> = match names.get_key_value(SINGLE) {
        Some(found) => vec![found],
        None => names.iter().filter(|(name, _)| is_weights(name)).collect(),
    };
    match found[..] {
        [(name, &bytes)] => Ok(vec![WeightFile {
            name: name.clone(),
            bytes,
        }]),
        [] => Err(no_safetensors(store, names)),
        _ => Err(Error::Missing {
            file: format!("{}/{INDEX}", store.url()),
            remedy: "it says which of several files has which tensor; download it as well",
        }),
    }
}

/// What there is instead of safetensors, and how to get some.
fn no_safetensors(store: &Store, names: &BTreeMap<String, u64>) -> Error {
    let with = |end: &str| names.keys().find(|name| name.ends_with(end));
    let pickle = with(".bin")
        .or_else(|| with(".pt"))
        .or_else(|| with(".pth"));
    let (found, remedy) = match (pickle, with(".gguf")) {
        (Some(file), _) => (
            format!("{file} is a pickle, which runs code when it is read"),
            "convert it where you trust it: python3 -c \"from transformers import AutoModel, AutoTokenizer as T; \
             i, o = 'IN', 'OUT'; AutoModel.from_pretrained(i, dtype='auto', trust_remote_code=True)\
             .save_pretrained(o); T.from_pretrained(i, trust_remote_code=True).save_pretrained(o)\"",
        ),
        (None, Some(file)) => (
            format!("{file} is quantized for llama.cpp"),
            "give the weights that it was made from",
        ),
        (None, None) => (
            match names.len() {
                0 => "there is nothing in it".to_owned(),
                _ => {
                    let some: Vec<&str> = names.keys().take(5).map(String::as_str).collect();
                    format!("it holds {}", some.join(", "))
                }
            },
            "give the folder of a model, with config.json and model.safetensors",
        ),
    };
    Error::NoWeights {
        url: store.url().to_owned(),
        found,
        remedy: remedy.to_owned(),
    }
}

/// A model that was saved without a head has names without their beginning.
fn with_full_names(tensors: BTreeMap<String, Located>) -> BTreeMap<String, Located> {
    let bare = |name: &str| {
        ["layers.", "embed_tokens.", "tok_embeddings.", "norm."]
            .iter()
            .any(|start| name.starts_with(start))
    };
    let full = |(name, located): (String, Located)| match bare(&name) {
        true => (format!("model.{name}"), located),
        false => (name, located),
    };
    tensors.into_iter().map(full).collect()
}
