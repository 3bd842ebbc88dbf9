//! Mutations of good input, for readers that must refuse bad input in order.
//!
//! A fuzz target is a test: it runs for a second, or for as many as POLESTAR_FUZZ_SECONDS says, from
//! another seed each time if POLESTAR_FUZZ_SEED says so. What once broke a reader stays as a test of
//! its own.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Calls `target` with a random generator until the time is over; tells which input was at fault when it
/// panics, and how many there were.
pub(crate) fn fuzz(name: &str, mut target: impl FnMut(&mut ChaCha8Rng)) {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let seconds = number("POLESTAR_FUZZ_SECONDS").unwrap_or(1);
    let seed = number("POLESTAR_FUZZ_SEED").unwrap_or(0);
    let begun = Instant::now();
    let mut inputs = 0_u64;
    while begun.elapsed() < Duration::from_secs(seconds) {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(inputs);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| target(&mut random)));
        if let Err(panic) = result {
            eprintln!("{name}: input {inputs} of seed {seed}");
            std::panic::resume_unwind(panic);
        }
        inputs += 1;
    }
    println!("{name}: {inputs} inputs in {seconds} s");
}

/// Changes bytes: flips, overwrites, removes, repeats, truncates, a few times.
pub(crate) fn mutate(bytes: &[u8], random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..random.random_range(1..6) {
        if bytes.is_empty() {
            break;
        }
        let at = random.random_range(0..bytes.len());
        let end = (at + random.random_range(1..40)).min(bytes.len());
        match random.random_range(0..7) {
            0 => bytes[at] ^= 1 << random.random_range(0..8),
            1 => bytes[at] = random.random(),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            4 => bytes.truncate(at),
            5 => bytes[at..end].fill(random.random()),
            _ => {
                let words = [0, 1, u32::MAX, i32::MAX as u32, random.next_u32()];
                let word = words[random.random_range(0..words.len())].to_le_bytes();
                let width = word.len().min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&word[..width]);
            }
        }
    }
    bytes
}

/// Changes values of a JSON document and leaves it one; now and then it doesn't even.
pub(crate) fn mutate_json(bytes: &[u8], random: &mut ChaCha8Rng) -> Vec<u8> {
    fn values(value: &Value) -> usize {
        1 + match value {
            Value::Array(items) => items.iter().map(values).sum(),
            Value::Object(fields) => fields.values().map(values).sum(),
            _ => 0,
        }
    }
    if random.random_range(0..4) == 0 {
        return mutate(bytes, random);
    }
    let mut document: Value = serde_json::from_slice(bytes).expect("good input");
    for _ in 0..random.random_range(1..4) {
        let mut countdown = random.random_range(0..values(&document));
        change(&mut document, &mut countdown, random);
    }
    serde_json::to_vec(&document).expect("it is JSON")
}

/// Changes the value that is `countdown` values further on.
fn change(value: &mut Value, countdown: &mut usize, random: &mut ChaCha8Rng) -> bool {
    if *countdown == 0 {
        *value = match (random.random_range(0..8), &*value) {
            (0, _) => Value::Null,
            (1, Value::Array(items)) if !items.is_empty() => {
                let mut items = items.clone();
                let at = random.random_range(0..items.len());
                match random.random_range(0..3) {
                    0 => drop(items.remove(at)),
                    1 => items.push(items[at].clone()),
                    _ => items.swap(0, at),
                }
                Value::Array(items)
            }
            (1 | 2, Value::Object(fields)) if !fields.is_empty() => {
                let mut fields = fields.clone();
                let name = fields
                    .keys()
                    .nth(random.random_range(0..fields.len()))
                    .cloned();
                name.map(|name| fields.remove(&name));
                Value::Object(fields)
            }
            (_, Value::Number(number)) => {
                let was = number.as_u64().unwrap_or(0);
                let near = [
                    0,
                    1,
                    was.wrapping_add(1),
                    was.wrapping_sub(1),
                    was / 2,
                    u64::MAX,
                    1 << 40,
                    was ^ 4096,
                ];
                json!(near[random.random_range(0..near.len())])
            }
            (_, Value::String(text)) => {
                let texts = [
                    String::new(),
                    format!("{text}x"),
                    "../../x".to_owned(),
                    "0".repeat(64),
                    text.chars().rev().collect(),
                ];
                json!(texts[random.random_range(0..texts.len())])
            }
            (_, other) => other.clone(),
        };
        return true;
    }
    *countdown -= 1;
    match value {
        Value::Array(items) => items.iter_mut().any(|item| change(item, countdown, random)),
        Value::Object(fields) => fields
            .values_mut()
            .any(|field| change(field, countdown, random)),
        _ => false,
    }
}
