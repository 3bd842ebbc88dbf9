//! Handing a trained model on: a folder that Hugging Face's libraries and the servers built on them load.

mod calibrate;
mod describe;
mod elements;

use crate::{run::Chosen, sweep::longest_sequence};
use calibrate::Measured;
use elements::{ElementsError, OfTrial};
use polestar_dataset::Corpus;
use polestar_hf::{
    Dtype, Exported, Naming,
    config::Tokens,
    tokenizer::{self, Vocabulary},
    write::{self, FILE_BYTES},
};
use polestar_model::{HeadKind, ModelLayout};
use polestar_worker::engine::RewardError;
use std::{path::Path, sync::Arc};

/// Why a model can't be handed on.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Its files can't be written.
    #[error(transparent)]
    Files(#[from] polestar_hf::Error),
    /// Its corpus can't be read.
    #[error(transparent)]
    Corpus(#[from] polestar_dataset::corpus::Error),
    /// Its run can't be read.
    #[error(transparent)]
    Run(#[from] crate::run::RunError),
    /// The laws of its run can't be fitted.
    #[error(transparent)]
    Laws(#[from] Box<crate::run::ReportError>),
    /// Its weights can't be read.
    #[error(transparent)]
    Weights(#[from] ElementsError),
    /// It can't be calibrated.
    #[error("its rewards can't be measured")]
    Rewards(#[from] RewardError<ElementsError>),
    /// The program's own work came to a stop.
    #[error("measuring rewards ended in a panic; please report it")]
    Panicked,
}

/// How a model is handed on.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whose names its tensors get.
    pub naming: Naming,
    /// How its weights are stored.
    pub dtype: Dtype,
    /// Held-out triplets whose rewards are measured; 0 for none.
    pub calibrate: usize,
    /// Most bytes of a file of weights.
    pub file_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            naming: Naming::Llama,
            dtype: Dtype::F32,
            calibrate: 0,
            file_bytes: FILE_BYTES,
        }
    }
}

/// What was handed on.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Files of weights, with their bytes.
    pub files: Vec<(String, u64)>,
    /// The class that loads it.
    pub class: String,
    /// How its rewards are distributed, if that was measured.
    pub calibration: Option<polestar_hf::card::Calibration>,
}

/// Writes a model into an empty folder. Weights come first and `config.json` last, so that a folder that isn't
/// whole loads nowhere.
///
/// # Errors
/// [`ExportError`].
pub async fn export(
    chosen: &Chosen,
    corpus: &Arc<Corpus>,
    folder: &Path,
    options: &Options,
) -> Result<Summary, ExportError> {
    write::prepare(folder)?;
    let recipe = &chosen.trial.config.recipe;
    let layout = ModelLayout::new(&recipe.model, HeadKind::of(recipe.objective));
    let mut elements = OfTrial::open(chosen, &layout).await?;
    let tensors = options.naming.theirs(&layout);
    let (dtype, bytes) = (options.dtype, options.file_bytes);
    let written = write::write(folder, &tensors, dtype, bytes, &mut elements).await?;

    let longest = longest_sequence(&recipe.data.samples);
    let positions = longest.checked_next_power_of_two().unwrap_or(longest);
    let (tokens, names) = write_tokenizer(corpus, folder, positions).await?;
    let measured = match (options.calibrate, layout.head()) {
        (0, _) | (_, HeadKind::Language) => None,
        (count, HeadKind::Reward) => Some(Measured::of(chosen, corpus, count).await?),
    };
    if let Some(measured) = &measured {
        write::write_text(&folder.join("calibration.jsonl"), &measured.jsonl())?;
    }
    let calibration = measured.as_ref().and_then(Measured::calibration);
    let card = describe::card(chosen, options, names, longest, calibration).await?;
    write::write_text(&folder.join("README.md"), &card.text())?;
    let exported = Exported {
        model: &recipe.model,
        head: layout.head(),
        naming: options.naming,
        dtype,
        tokens,
        positions,
    };
    let config = exported.json();
    write::write_json(&folder.join("config.json"), &config)?;
    Ok(Summary {
        files: written.files,
        class: config["architectures"][0]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        calibration,
    })
}

/// Writes the tokenizer's files; the ids that a configuration names, and the names of the split and reward
/// tokens.
async fn write_tokenizer(
    corpus: &Corpus,
    folder: &Path,
    positions: u64,
) -> Result<(Tokens, [String; 2]), ExportError> {
    let json = corpus.tokenizer_json().await?;
    let special = corpus.tokenizer().special();
    let vocabulary = Vocabulary::parse("tokenizer.json", &json)?;
    let tokens = vocabulary.tokens(special.bos, special.split, special.reward);
    let files = tokenizer::exported(&json, tokens, special.split, positions)?;
    write::write_json(&folder.join("tokenizer.json"), &files.tokenizer)?;
    write::write_json(&folder.join("tokenizer_config.json"), &files.config)?;
    write::write_json(&folder.join("special_tokens_map.json"), &files.special)?;
    let names = [tokenizer::SPLIT, tokenizer::REWARD].map(str::to_owned);
    Ok((tokens, names))
}
