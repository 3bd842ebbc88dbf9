//! The tokens are the library's, however they are found.

use super::*;
use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng as Rng;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, NormalizerWrapper, TokenizerBuilder};

/// A text of fragments that tokenizers cut in different ways, and of any characters.
fn random_text(rng: &mut Rng) -> String {
    const FRAGMENTS: [&str; 28] = [
        "the",
        " the",
        "The",
        "'s",
        "'S",
        "'\u{17f}",
        "'ll",
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "\u{3000}",
        "\u{a0}",
        "12",
        "3456",
        "\u{bd}",
        "<s>",
        SPLIT,
        REWARD,
        "the re",
        "K",
        "\u{212a}",
        "\u{e9}",
        "e\u{301}",
        "日本",
        "▁",
        "\u{1f980}",
    ];
    (0..rng.random_range(0..40))
        .map(|_| match rng.random_range(0..4) {
            0 => char::from_u32(rng.random_range(0..0x11_0000)).map_or(String::new(), String::from),
            1 => char::from(rng.random_range(0..128_u8)).into(),
            _ => FRAGMENTS.choose(rng).unwrap().to_string(),
        })
        .collect()
}

/// What the library's own trainer makes of texts.
fn trained_by_library(texts: &[String], vocab_size: usize) -> String {
    let special = [BOS[0], SPLIT, REWARD].map(|text| AddedToken::from(text, true));
    let mut trainer = BpeTrainer::builder()
        .vocab_size(vocab_size)
        .min_frequency(2)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(special.to_vec())
        .build();
    let mut library = TokenizerBuilder::new()
        .with_model(BPE::default())
        .with_normalizer(None::<NormalizerWrapper>)
        .with_pre_tokenizer(Some(ByteLevel::new(false, false, true)))
        .with_post_processor(None::<ByteLevel>)
        .with_decoder(Some(ByteLevel::default()))
        .build()
        .unwrap();
    library.train(&mut trainer, texts.iter()).unwrap();
    library.to_string(false).unwrap()
}

#[test]
fn pieces_give_the_library_s_tokens() {
    let mut rng = Rng::seed_from_u64(1);
    for (name, json) in known() {
        let tokenizer = made(&json);
        assert_eq!(tokenizer.pieces.as_ref().err(), None, "{name}");
        for _ in 0..2000 {
            let text = random_text(&mut rng);
            let ours = tokenizer.encode(&text).unwrap();
            assert_eq!(
                ours,
                tokenizer.by_library(&text).unwrap(),
                "{name}: {text:?}"
            );
        }
    }
}

#[test]
fn real_texts_get_the_library_s_tokens() {
    use std::io::BufRead;
    let Some(folder) = std::env::var_os("POLESTAR_DATA") else {
        println!("skipped: POLESTAR_DATA is not set");
        return;
    };
    // A repeated text asks nothing new; by default some of each file is enough.
    let every: usize = std::env::var("POLESTAR_EVERY").map_or(50, |every| every.parse().unwrap());
    let mut texts = std::collections::BTreeSet::new();
    for name in [
        "traj_oasst_model_eval.jsonl.zst",
        "traj_alpaca_eval.jsonl.zst",
    ] {
        let file = std::fs::File::open(Path::new(&folder).join(name)).unwrap();
        let lines = std::io::BufReader::new(zstd::Decoder::new(file).unwrap()).lines();
        for line in lines.step_by(every) {
            let row: Value = serde_json::from_str(&line.unwrap()).unwrap();
            for column in ["prompt", "response"] {
                texts.extend(row[column].as_str().map(str::to_owned));
            }
        }
    }
    use rayon::prelude::*;
    let texts: Vec<String> = texts.into_iter().collect();
    let some = &texts[..texts.len() / 4];
    let own = Tokenizer::train(some, 4096).unwrap();
    let theirs = trained_by_library(some, 4096);
    assert_eq!(std::str::from_utf8(&own).unwrap(), theirs);
    let own = Tokenizer::from_bytes(&own).unwrap();
    let tokenizers = [
        own,
        made(&cutting_by(LLAMA3)),
        made(&llama()),
        made(&metaspace("first", false)),
    ];
    let tokens: usize = texts
        .par_iter()
        .map(|text| {
            let each = tokenizers.iter().map(|tokenizer| {
                let ours = tokenizer.encode(text).unwrap();
                assert_eq!(ours, tokenizer.by_library(text).unwrap(), "{text}");
                ours.len()
            });
            each.sum::<usize>()
        })
        .sum();
    println!("{} texts, {tokens} tokens", texts.len());
    assert!(tokens > texts.len());
}

#[test]
fn training_finds_what_the_library_finds() {
    let mut rng = Rng::seed_from_u64(2);
    let random = (0..500).map(|_| random_text(&mut rng));
    // Spaces that the automaton leaves to the library.
    let texts: Vec<String> = random.chain(texts()).chain([" ".repeat(12_000)]).collect();
    let ours = Tokenizer::train(&texts, 700).unwrap();
    let theirs = trained_by_library(&texts, 700);
    assert_eq!(String::from_utf8(ours).unwrap(), theirs);
}

#[test]
fn training_is_deterministic_in_content_and_order() {
    let bytes = Tokenizer::train(&texts(), 400).unwrap();
    assert_eq!(bytes, Tokenizer::train(&texts(), 400).unwrap());
    let backwards: Vec<String> = texts().into_iter().rev().collect();
    assert_eq!(bytes, Tokenizer::train(&backwards, 400).unwrap());
}

#[test]
fn any_text_survives_and_none_forges_a_special_token() {
    let tokenizer = made(&trained());
    let ids = [tokenizer.bos(), tokenizer.split(), tokenizer.reward()];
    assert_eq!(ids, [0, 1, 2]);
    for text in [
        "a<|reward|>b",
        "<s>",
        "[UNUSED_TOKEN_130][UNUSED_TOKEN_130]",
        " \u{0}日本\r\n ",
        "",
        "<s><|reward|>",
    ] {
        let encoded = tokenizer.encode(text).unwrap();
        assert!(
            encoded
                .iter()
                .all(|id| !ids.contains(id) && *id < tokenizer.vocab_size()),
            "{text}"
        );
        assert_eq!(tokenizer.decode(&encoded).unwrap(), text);
    }
    assert_eq!(
        tokenizer.decode(&ids).unwrap(),
        "<s><|reward|>[UNUSED_TOKEN_130]"
    );
}

#[test]
fn a_tokenizer_of_an_unknown_kind_is_slow_and_says_so() {
    let tokenizer = given(words("[UNK]").to_string()).unwrap().tokenizer;
    assert_eq!(tokenizer.encode("the big reward").unwrap(), [0, 1, 2]);
    let notes = tokenizer.notes().join("\n");
    assert!(notes.contains("by the library alone"), "{notes}");
    let mut joined = llama();
    let next = joined["model"]["vocab"].as_object().unwrap().len();
    joined["model"]["vocab"]["s▁"] = json!(next);
    joined["model"]["merges"]
        .as_array_mut()
        .unwrap()
        .push(json!("s ▁"));
    joined["added_tokens"][3]["id"] = json!(next + 1);
    joined["added_tokens"][4]["id"] = json!(next + 2);
    let notes = given(joined.to_string())
        .unwrap()
        .tokenizer
        .notes()
        .join("\n");
    assert!(notes.contains("from one word into the next"), "{notes}");
}
