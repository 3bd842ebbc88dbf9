//! What is cut of a corpus's texts is counted, and triplets say which texts of the corpus they hold.

use std::collections::BTreeSet;
use std::sync::Arc;

use polestar_dataset::inspect::Share;
use polestar_dataset::{
    Corpus, Cuts, HeldOut, SampleConfig, Split, SynthOptions, TokenTriplet, synth,
};

/// A word is a token: answers of 30 to 50 tokens after prompts of 12.
async fn corpus() -> Arc<Corpus> {
    let options = SynthOptions {
        output: "memory://cuts".into(),
        policies: 4,
        families: 2,
        prompts: 40,
        heldout_prompts: HeldOut::Count(7),
        prompt_words: 12,
        response_words: 40,
        ..SynthOptions::default()
    };
    let url = options.output.clone();
    synth(options).await.unwrap();
    Corpus::open(&url).await.unwrap()
}

async fn triplets(corpus: &Corpus, samples: &SampleConfig) -> Vec<TokenTriplet> {
    let set = corpus.validation(Split::HeldoutPrompts, 60, 1, samples);
    set.await.unwrap()
}

#[tokio::test]
async fn cut_prompts_and_answers_are_counted_once_each() {
    let corpus = corpus().await;
    let roomy = SampleConfig::default();
    let whole = triplets(&corpus, &roomy).await;
    let none = Cuts::of(&whole);
    assert_eq!(
        (none.triplets, none.prompts),
        (60, Share { some: 0, all: 7 })
    );
    assert_eq!(none.answers.some, 0);
    let answers = |t: &TokenTriplet| {
        [
            (t.policy, t.source.reference.sample, t.reference.len()),
            (t.policy, t.source.positive.sample, t.positive.len()),
            (t.other, t.source.negative.sample, t.negative.len()),
        ]
        .map(|answer| (t.source.prompt_id.clone(), answer))
    };
    let distinct: BTreeSet<_> = whole.iter().flat_map(answers).collect();
    assert_eq!(none.answers.all, distinct.len() as u64);

    let lengths = distinct.iter().map(|(_, (_, _, length))| *length);
    for limit in [lengths.clone().min().unwrap() - 1, 40] {
        let tight = SampleConfig {
            max_prompt: 3,
            max_response: limit,
            ..roomy.clone()
        };
        let shown = triplets(&corpus, &tight).await;
        let found = Cuts::of(&shown);
        let longer = lengths.clone().filter(|&length| length > limit).count();
        assert!(longer > 0);
        assert_eq!((found.prompts.some, found.answers.some), (7, longer as u64));
        assert_eq!(found.answers.all, none.answers.all);
        // What is cut changes neither which triplets there are nor what is said of their texts.
        assert!(shown.iter().zip(&whole).all(|(a, b)| a.source == b.source));
    }
}
