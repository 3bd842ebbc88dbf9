//! What it costs that a reward doesn't depend on its company: packs filled up to whole multiples of rows, against the
//! same packs as they are, by turns. Prints one line of JSON: for each case the medians in seconds.

use polestar_core::{Precision, random::Stream};
use polestar_dataset::{Layout, TokenTree, TreePacker};
use polestar_model::{HeadKind, ModelConfig, ModelLayout, Preset, init};
use polestar_run::config::Backend;
use polestar_serve::Scorer;
use polestar_worker::{device::device, engine::BurnEngine};
use std::{error::Error, time::Instant};

const VOCAB: u64 = 4096;
const ROUNDS: usize = 25;

fn scorer(rows: usize) -> Result<Scorer, Box<dyn Error>> {
    let config = ModelConfig {
        vocab_size: VOCAB as u32,
        hidden_size: 256,
        num_hidden_layers: 6,
        num_attention_heads: 4,
        num_key_value_heads: 4,
        intermediate_size: 688,
        ..Preset::Nano.config(0)
    };
    let layout = ModelLayout::new(&config, HeadKind::Reward);
    let device = device(Backend::Flex)?;
    let engine = BurnEngine::new(layout.clone(), &device, false, Precision::F32);
    let packer = TreePacker {
        rows,
        ..TreePacker::new(Layout::Shared, 4096)
    };
    let mut scorer = Scorer::empty(engine, packer);
    for segment in &layout.segments {
        let mut weights = vec![0.0; segment.elements];
        init::initial_segment(segment, 1, &mut weights);
        scorer.push(weights);
    }
    Ok(scorer)
}

/// Groups of that many candidates, prefix and candidates of about these lengths.
fn groups(count: usize, candidates: usize, prefix: u64, candidate: u64) -> Vec<TokenTree> {
    let mut stream = Stream::new("bench serve", &[]);
    let mut tokens = |about: u64| -> Vec<u32> {
        let len = about - about / 4 + stream.below(about / 2);
        (0..len).map(|_| stream.below(VOCAB) as u32).collect()
    };
    (0..count)
        .map(|_| TokenTree {
            prefix: tokens(prefix),
            branches: (0..candidates).map(|_| tokens(candidate)).collect(),
        })
        .collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let (filled, bare) = (scorer(TreePacker::ROWS)?, scorer(1)?);
    let mut cases = serde_json::Map::new();
    for (name, trees) in [
        ("8 candidates", groups(1, 8, 256, 128)),
        ("32 groups of 8", groups(32, 8, 256, 128)),
        ("1 short candidate", groups(1, 1, 40, 20)),
    ] {
        let mut seconds = [const { Vec::new() }; 2];
        for round in 0..=ROUNDS {
            for (scorer, seconds) in [&filled, &bare].into_iter().zip(&mut seconds) {
                let begun = Instant::now();
                scorer.score(&trees)?;
                // The first round warms up.
                if round > 0 {
                    seconds.push(begun.elapsed().as_secs_f64());
                }
            }
        }
        let [with, without] = seconds.map(|mut seconds| {
            seconds.sort_by(f64::total_cmp);
            seconds[ROUNDS / 2]
        });
        let case = serde_json::json!({ "with": with, "without": without });
        cases.insert(name.to_owned(), case);
    }
    println!("{}", serde_json::Value::Object(cases));
    Ok(())
}
