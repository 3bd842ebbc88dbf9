//! Training of a byte-level BPE: the words of the texts are counted on all cores, then pairs are merged.

use ahash::AHashMap;
use rayon::prelude::*;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    AddedToken, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, TokenizerBuilder,
};

use super::merges::{Vocabulary, Word};
use super::split::{Expression, GPT2, byte_letters};
use super::{BOS, Error, REWARD, SPLIT};

/// A pair is merged if it occurs at least so often.
const LEAST_COUNT: i64 = 2;
/// Parts that the texts are counted in, a core: some take longer than others.
const PARTS: usize = 8;

const SPECIAL: [&str; 3] = [BOS[0], SPLIT, REWARD];

/// How often each word occurs.
type Counts<'t> = AHashMap<&'t str, i64>;

/// Trains on texts; their `tokenizer.json`.
pub(super) fn train<S: AsRef<str> + Sync>(texts: &[S], vocab_size: u32) -> Result<Vec<u8>, Error> {
    let letters = byte_letters();
    // After the special tokens the bytes, in the order of their letters.
    let mut alphabet: Vec<u8> = (0..=255).collect();
    alphabet.sort_unstable_by_key(|&byte| letters[usize::from(byte)]);
    let special = SPECIAL.map(|text| text.as_bytes().to_vec());
    let least = (special.len() + alphabet.len()) as u32;
    if vocab_size < least {
        return Err(Error::Vocabulary {
            asked: vocab_size,
            least,
        });
    }
    let mut ids = [0; 256];
    for (&byte, id) in alphabet.iter().zip(special.len() as u32..) {
        ids[usize::from(byte)] = id;
    }
    let bytes = alphabet.into_iter().map(|byte| vec![byte]);
    let mut vocabulary = Vocabulary::new(special.into_iter().chain(bytes).collect());
    let mut words: Vec<(&str, i64)> = count(texts)?.into_iter().collect();
    words.sort_unstable();
    let words = words.into_iter().map(|(word, times)| Word {
        tokens: word.bytes().map(|byte| ids[usize::from(byte)]).collect(),
        times,
    });
    vocabulary.grow(words.collect(), vocab_size as usize, LEAST_COUNT);
    write(&vocabulary, &letters)
}

/// A vocabulary's `tokenizer.json`.
fn write(vocabulary: &Vocabulary, letters: &[char; 256]) -> Result<Vec<u8>, Error> {
    let name = |token: &Vec<u8>| -> String {
        token
            .iter()
            .map(|&byte| letters[usize::from(byte)])
            .collect()
    };
    let names: Vec<String> = vocabulary.tokens.iter().map(name).collect();
    let merges = vocabulary.merges.iter().map(|&(left, right)| {
        let name = |id: u32| names[id as usize].clone();
        (name(left), name(right))
    });
    let merges = merges.collect();
    let ids: AHashMap<String, u32> = names.into_iter().zip(0..).collect();
    let model = BPE::builder().vocab_and_merges(ids, merges).build();
    // The pre-tokenizer's expression splits letters from punctuation, so no merge can ever
    // spell a special token.
    let mut tokenizer = TokenizerBuilder::new()
        .with_model(model.map_err(Error::Train)?)
        .with_normalizer(None::<NormalizerWrapper>)
        .with_pre_tokenizer(Some(ByteLevel::new(false, false, true)))
        .with_post_processor(None::<ByteLevel>)
        .with_decoder(Some(ByteLevel::default()))
        .build()
        .map_err(Error::Train)?;
    let special = SPECIAL.map(|text| AddedToken::from(text, true));
    tokenizer
        .add_special_tokens(special)
        .map_err(Error::Train)?;
    let json = tokenizer.to_string(false);
    json.map(String::into_bytes).map_err(Error::Train)
}

/// The words of the texts.
fn count<S: AsRef<str> + Sync>(texts: &[S]) -> Result<Counts<'_>, Error> {
    let expression = Expression::new(GPT2).expect("it has the form that is asked for");
    let part = texts
        .len()
        .div_ceil(PARTS * rayon::current_num_threads())
        .max(1);
    let parts = texts.par_chunks(part).map(|texts| {
        let mut scratch = expression.scratch();
        let mut counts = Counts::new();
        for text in texts.iter().map(AsRef::as_ref) {
            // Counted when it is known that all of it can be cut here.
            let mut words = Vec::with_capacity(text.len() / 4);
            let whole = expression.split(&mut scratch, text, |word| {
                words.push(word);
                Ok::<_, Error>(())
            });
            if !whole? {
                words = by_library(text)?;
            }
            for word in words {
                *counts.entry(word).or_default() += 1;
            }
        }
        Ok(counts)
    });
    parts.try_reduce(Counts::new, |sum, more| {
        let (mut sum, more) = match sum.len() < more.len() {
            true => (more, sum),
            false => (sum, more),
        };
        for (word, times) in more {
            *sum.entry(word).or_default() += times;
        }
        Ok(sum)
    })
}

/// The words of a text that the automaton leaves to the library.
fn by_library(text: &str) -> Result<Vec<&str>, Error> {
    let mut cut = PreTokenizedString::from(text);
    let by = ByteLevel::new(false, false, true);
    by.pre_tokenize(&mut cut).map_err(Error::Train)?;
    let words = cut.get_splits(OffsetReferential::Original, OffsetType::Byte);
    let words = words.into_iter().map(|(_, (from, to), _)| &text[from..to]);
    Ok(words.collect())
}
