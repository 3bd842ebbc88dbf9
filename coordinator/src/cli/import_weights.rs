//! `import-weights`: whether weights from elsewhere can be started from, and the tokenizer that a corpus needs for it.

use super::{Error, table::si};
use clap::Args;
use polestar_core::ByteCount;
use polestar_hf::{
    Head, Weights,
    tokenizer::{Extended, Vocabulary, with_polar_tokens},
};
use polestar_model::{HeadKind, count};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct ImportWeightsArgs {
    /// Folder or URL with config.json and safetensors of a Llama, Mistral or InternLM2 model
    weights: String,
    /// Write its tokenizer.json there, with the two tokens that POLAR's layout needs if it hasn't got them, for
    /// `corpus import --tokenizer`
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
}

/// Looks at weights, and writes the tokenizer if that is asked for.
pub(super) async fn run(args: &ImportWeightsArgs) -> Result<(), Error> {
    let weights = Weights::open(&args.weights).await?;
    print!("{}", described(&weights));
    let digest = weights.manifest().await?.digest();
    println!("digest      {digest}");
    tokenizer(&weights, args).await?;
    println!(
        "to start from them, in a sweep file:\n\n[start]\nweights = {:?}\n\n[sweep]\nsizes = [\"start\"]",
        weights.url()
    );
    Ok(())
}

fn described(weights: &Weights) -> String {
    let architecture = weights.architecture();
    let model = &architecture.model;
    let size: u64 = weights.files().map(|(_, bytes)| bytes).sum();
    let dtypes: Vec<String> = weights.dtypes().iter().map(ToString::to_string).collect();
    let count = count::parameters(model);
    let mut text = format!(
        "weights     {}: {}, {} in {} of {}\n",
        weights.url(),
        architecture.family,
        ByteCount(size),
        match weights.files().count() {
            1 => "1 file".to_owned(),
            files => format!("{files} files"),
        },
        dtypes.join(" and "),
    );
    text += &format!(
        "model       {} wide, {} layers, {} heads ({} of keys and values), FFN {}, vocabulary {}, RoPE base {:e}\n",
        model.hidden_size,
        model.num_hidden_layers,
        model.num_attention_heads,
        model.num_key_value_heads,
        model.intermediate_size,
        model.vocab_size,
        model.rope_theta,
    );
    text += &format!(
        "parameters  {} as a reward model, {} without the embedding\n",
        si(count.total as f64),
        si(count.non_embedding as f64)
    );
    let reward = match weights.head(HeadKind::Reward) {
        Head::Stored => "taken from the file",
        Head::Tied | Head::Fresh => "starts at zero",
    };
    let language = match weights.head(HeadKind::Language) {
        Head::Stored => "there, for a warm start with objective = \"lm\"",
        Head::Tied => "the embedding, for a warm start with objective = \"lm\"",
        Head::Fresh => "not there; a warm start with objective = \"lm\" begins with a fresh one",
    };
    text += &format!("heads       reward head {reward}; language head {language}\n");
    if let Some(limit) = &architecture.limit {
        text += &format!("length      up to {} tokens: {}\n", limit.tokens, limit.why);
    }
    if !weights.unused().is_empty() {
        text += &format!("left out    {}\n", weights.unused().join(", "));
    }
    text
}

async fn tokenizer(weights: &Weights, args: &ImportWeightsArgs) -> Result<(), Error> {
    let file = format!("{}/tokenizer.json", weights.url());
    let Some(bytes) = weights.beside("tokenizer.json").await? else {
        println!("tokenizer   {file} is missing; a trial can't start from weights without it");
        return match &args.tokenizer {
            None => Ok(()),
            Some(_) => Err(format!("{file} is missing, so there is none to write").into()),
        };
    };
    let vocabulary = Vocabulary::parse(&file, &bytes)?;
    let Extended { json, added } = with_polar_tokens(&file, &bytes)?;
    let named: Vec<String> = added
        .iter()
        .map(|(token, id)| format!("{token} ({id})"))
        .collect();
    let tokens = vocabulary.len();
    match (&named[..], &args.tokenizer) {
        ([], _) => println!("tokenizer   {tokens} tokens, POLAR's two among them"),
        (_, None) => println!(
            "tokenizer   {tokens} tokens; it lacks {}, --tokenizer FILE writes one that has them",
            named.join(" and ")
        ),
        (_, Some(_)) => println!(
            "tokenizer   {tokens} tokens, and {} added",
            named.join(" and ")
        ),
    }
    if let Some(path) = &args.tokenizer {
        std::fs::write(path, json).map_err(|e| format!("{}: {e}", path.display()))?;
        println!("            written to {}", path.display());
    }
    Ok(())
}
