//! What a scorer promises: the trainer's own numbers, and the same reward in whatever company.

use crate::{
    served::noisy,
    trained::{trained, trial},
};
use polestar_core::{Precision, random::Stream};
use polestar_dataset::{
    Corpus, Layout, SampleConfig, Split, TokenTree, TokenTriplet, TreePacker, Wrapper,
};
use polestar_model::{ModelConfig, Preset};
use polestar_run::scores;
use polestar_serve::{Checkpoint, Group, OpenError, Scorer, Texts};
use polestar_store::Store;
use polestar_worker::engine::VALIDATION_SEED;
use tokio::runtime::Runtime;

/// The texts of a triplet that wasn't cut.
fn texts(corpus: &Corpus, triplet: &TokenTriplet) -> Group {
    let text = |ids: &Vec<u32>| corpus.tokenizer().decode(ids).expect("a text");
    Group {
        prompt: text(&triplet.prompt),
        reference: Some(text(&triplet.reference)),
        reference_prompt: triplet.reference_prompt.as_ref().map(text),
        candidates: vec![text(&triplet.positive), text(&triplet.negative)],
    }
}

#[test]
fn held_out_texts_score_what_the_trainer_recorded_bit_for_bit() {
    let runtime = Runtime::new().expect("a runtime");
    for (name, layout, wrapper) in [
        ("shared", Layout::Shared, Wrapper::Pretrain),
        ("plain", Layout::Plain, Wrapper::Sft),
    ] {
        let samples = SampleConfig {
            max_prompt: 200,
            max_response: 200,
            layout,
            wrapper,
        };
        let trial = trial(&runtime, &format!("memory://serve-{name}"), samples);
        let store = Store::open(&format!("memory://serve-{name}-runs")).expect("a store");
        let checkpoint = trained(&runtime, &trial, &store);
        let corpus = runtime.block_on(checkpoint.corpus(None)).expect("a corpus");
        let recorded = runtime.block_on(scores::read(&store, &trial));
        let recorded = recorded.expect("scores");
        assert_eq!(recorded.len(), 48, "two sets of 24");

        let loaded = runtime.block_on(Scorer::load(&checkpoint));
        let scorer = loaded.expect("a scorer");
        let reading = runtime.block_on(checkpoint.texts(None)).expect("texts");
        let mut recorded = recorded.iter();
        for split in Split::ALL {
            let samples = &trial.recipe.data.samples;
            let triplets = corpus.validation(split, 24, VALIDATION_SEED, samples);
            let triplets = runtime.block_on(triplets).expect("triplets");
            let groups = triplets.iter().map(|triplet| {
                let read = reading.group(&texts(&corpus, triplet)).expect("tokens");
                assert_eq!(read.cuts.texts(), 0);
                read.tree
            });
            let groups: Vec<TokenTree> = groups.collect();
            let rewards = scorer.score(&groups).expect("rewards");
            for (rewards, recorded) in rewards.iter().zip(recorded.by_ref()) {
                let margin = rewards[0] - rewards[1];
                assert_eq!(margin.to_bits(), recorded.margin.to_bits(), "{split:?}");
                assert!(margin != 0.0, "training moved the head");
            }
        }
    }
}

#[test]
fn a_checkpoint_is_found_by_run_trial_and_folder_and_what_is_wrong_is_said() {
    let runtime = Runtime::new().expect("a runtime");
    let samples = SampleConfig {
        max_prompt: 4,
        max_response: 6,
        ..SampleConfig::default()
    };
    let trial = trial(&runtime, "memory://serve-found", samples);
    let store = Store::open("memory://serve-found-runs").expect("a store");
    let checkpoint = trained(&runtime, &trial, &store);
    let open = |url: &str| runtime.block_on(Checkpoint::open(url));
    let folder = trial.recipe_id().folder();
    for way in [
        format!("{}/{folder}", store.url()),
        format!("{}/{folder}/checkpoints", store.url()),
        format!("{}/{folder}/checkpoints/00000006", store.url()),
        format!("{}/a-run", store.url()),
        format!("{}/a-run#small@6", store.url()),
    ] {
        let found = open(&way).expect("a checkpoint");
        assert_eq!(found.manifest(), checkpoint.manifest(), "{way}");
        runtime.block_on(found.corpus(None)).expect("a corpus");
    }
    let said = |url: String| open(&url).expect_err("nothing there").to_string();
    assert!(said(format!("{}/a-run#large", store.url())).contains("it has small"));
    assert!(said(format!("{}/a-run#small@x", store.url())).contains("'x' is no step"));
    assert!(said(store.url().to_owned()).contains("RUN#TRIAL"));
    let other = runtime.block_on(checkpoint.corpus(Some("memory://serve-nowhere")));
    let other = other.expect_err("no corpus");
    assert!(matches!(other, OpenError::Corpus(_)), "{other}");

    // Cut as training cuts, and told.
    let corpus = runtime.block_on(checkpoint.corpus(None)).expect("a corpus");
    let texts = Texts::new(corpus.clone(), trial.recipe.data.samples);
    let long = "one two three four five six seven eight nine ten";
    let group = Group {
        prompt: long.to_owned(),
        reference: Some(long.to_owned()),
        candidates: vec![long.to_owned(), "a".to_owned()],
        ..Group::default()
    };
    let tokens = corpus.tokenizer().encode(long).expect("tokens");
    let read = texts.group(&group).expect("a tree");
    assert_eq!(read.cuts.prompt, tokens.len() - 4);
    assert_eq!(read.cuts.reference, tokens.len() - 6);
    assert_eq!(read.cuts.candidates, [tokens.len() - 6, 0]);
    assert!(read.tree.prefix.ends_with(&tokens[tokens.len() - 4..]));
    assert_eq!(read.tree.branches[0][..6], tokens[..6]);

    // A whole sequence is tokenized at once, and nothing of it is cut.
    let sequence = texts
        .sequence("a b<|reward|>a c[UNUSED_TOKEN_130]")
        .expect("a tree");
    assert_eq!(sequence.prefix.last(), Some(&corpus.tokenizer().split()));
    assert_eq!(
        sequence.branches[0].last(),
        Some(&corpus.tokenizer().reward())
    );
    assert_eq!(
        sequence,
        texts.sequence("a b<|reward|>a c").expect("a tree")
    );
    let refused = |text: &str| texts.sequence(text).expect_err("refused").to_string();
    assert!(refused("a b c").contains("has 0 `<|reward|>`"));
    assert!(refused("a<|reward|>b<|reward|>c").contains("has 2 `<|reward|>`"));
    assert!(refused(&format!("{long} {long}<|reward|>{long} {long}")).contains("are the most"));
    let nothing = texts.group(&Group {
        candidates: vec!["a".to_owned(), String::new()],
        ..Group::default()
    });
    assert!(
        nothing
            .expect_err("refused")
            .to_string()
            .contains("candidate 1")
    );
}

/// Trees of all sizes, down to a single token a branch.
fn forest(stream: &mut Stream, count: u64) -> Vec<TokenTree> {
    let tokens = |stream: &mut Stream, most: u64| -> Vec<u32> {
        let len = 1 + stream.below(most);
        (0..len).map(|_| stream.below(90) as u32).collect()
    };
    (0..count)
        .map(|number| TokenTree {
            prefix: tokens(stream, if number % 3 == 0 { 200 } else { 12 }),
            branches: (0..1 + number % 5).map(|_| tokens(stream, 70)).collect(),
        })
        .collect()
}

#[test]
fn a_reward_is_the_same_in_every_company_order_and_pack() {
    let shape = |hidden, intermediate, heads| ModelConfig {
        vocab_size: 90,
        hidden_size: hidden,
        num_hidden_layers: 2,
        num_attention_heads: heads,
        num_key_value_heads: 1,
        intermediate_size: intermediate,
        ..Preset::Nano.config(0)
    };
    // Tiny products, usual ones, and one whose inner dimension is cut differently by its number of rows.
    let models = [shape(16, 32, 2), shape(96, 200, 3), shape(64, 1100, 2)];
    for (model, precision) in models.iter().flat_map(|model| {
        let precisions = [Precision::F32, Precision::Bf16];
        precisions.map(|precision| (model, precision))
    }) {
        for layout in [Layout::Shared, Layout::Plain] {
            let scorer = |pack_tokens| {
                let packer = TreePacker::new(layout, pack_tokens);
                noisy(model, precision, packer)
            };
            let mut stream = Stream::new("companies", &[u64::from(model.hidden_size)]);
            let trees = forest(&mut stream, 23);
            let together = scorer(1500).score(&trees).expect("rewards");
            let smaller = scorer(90);
            for round in 0..3 {
                // Some of them, in another order, each with some of its branches, again in another order.
                let mut chosen: Vec<usize> = (0..trees.len()).collect();
                stream.shuffle(&mut chosen);
                chosen.truncate(if round == 0 { 1 } else { 9 });
                let parts: Vec<(usize, Vec<usize>)> = chosen
                    .into_iter()
                    .map(|tree| {
                        let mut branches: Vec<usize> = (0..trees[tree].branches.len()).collect();
                        stream.shuffle(&mut branches);
                        branches.truncate(1 + stream.below(4) as usize);
                        (tree, branches)
                    })
                    .collect();
                let parted = parts.iter().map(|(tree, branches)| TokenTree {
                    prefix: trees[*tree].prefix.clone(),
                    branches: branches
                        .iter()
                        .map(|&branch| trees[*tree].branches[branch].clone())
                        .collect(),
                });
                let parted: Vec<TokenTree> = parted.collect();
                let apart = smaller.score(&parted).expect("rewards");
                for ((tree, branches), rewards) in parts.iter().zip(&apart) {
                    for (&branch, reward) in branches.iter().zip(rewards) {
                        let expected = together[*tree][branch];
                        assert_eq!(
                            reward.to_bits(),
                            expected.to_bits(),
                            "{model:?} {precision:?}"
                        );
                    }
                }
            }
            let distinct = together.iter().flatten().any(|r| *r != together[0][0]);
            assert!(distinct && together.iter().flatten().all(|r| r.is_finite()));
        }
    }
}
