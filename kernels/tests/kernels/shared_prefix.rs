//! Laying a prefix down once changes nothing but the work: siblings don't see each other, and every root-to-leaf chain
//! behaves as if it stood alone.

use crate::harness::{assert_close, flat, noise, run};
use burn::tensor::{DType, Tensor};
use polestar_kernels::{Positions, Span, Spans, attention, rope};

const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const WIDTH: usize = 32;
const PREFIX: usize = 150;
const FIRST: usize = 70;
const SECOND: usize = 131;
const TOKENS: usize = PREFIX + FIRST + SECOND;

fn tree() -> Spans {
    let span = |start: usize, len: usize, parent| Span {
        start: start as u32,
        len: len as u32,
        parent,
    };
    Spans::new(vec![
        span(0, PREFIX, None),
        span(PREFIX, FIRST, Some(0)),
        span(PREFIX + FIRST, SECOND, Some(0)),
    ])
    .unwrap()
}

/// The inputs q, k and v, flat.
fn inputs() -> Vec<Vec<f32>> {
    let kv = TOKENS * KV_HEADS * WIDTH;
    vec![noise(1, TOKENS * HEADS * WIDTH), noise(2, kv), noise(3, kv)]
}

/// Rotary attention over `positions.len()` tokens.
fn attend(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    positions: Vec<u32>,
    spans: &Spans,
) -> Tensor<3> {
    let positions = Positions::new(positions);
    let (q, k) = (rope(q, &positions, 1e4), rope(k, &positions, 1e4));
    attention(q, k, v, spans)
}

fn shape(inputs: &[Tensor<1>]) -> [Tensor<3>; 3] {
    let head = |at: usize, heads: usize| inputs[at].clone().reshape([TOKENS, heads, WIDTH]);
    [head(0, HEADS) * 3.0, head(1, KV_HEADS), head(2, KV_HEADS)]
}

/// Both candidates' positions continue the prefix's.
fn shared(inputs: &[Tensor<1>]) -> Tensor<1> {
    let [q, k, v] = shape(inputs);
    let end = |len: usize| (PREFIX + len) as u32;
    let positions = (0..end(FIRST)).chain(end(0)..end(SECOND)).collect();
    flat(attend(q, k, v, positions, &tree()))
}

/// The prefix once per candidate; the outputs come back in the shared layout, the first prefix's among them.
fn plain(inputs: &[Tensor<1>]) -> Tensor<1> {
    let second = PREFIX + FIRST..TOKENS;
    let both = |x: Tensor<3>| {
        let prefix = x.clone().slice(0..PREFIX);
        let last = x.clone().slice([second.clone()]);
        Tensor::cat(vec![x.slice(0..PREFIX + FIRST), prefix, last], 0)
    };
    let [q, k, v] = shape(inputs).map(both);
    let lengths = [(PREFIX + FIRST) as u32, (PREFIX + SECOND) as u32];
    let positions = lengths.iter().flat_map(|&len| 0..len).collect();
    let out = attend(q, k, v, positions, &Spans::sequences(lengths).unwrap());
    let again = 2 * PREFIX + FIRST;
    let kept = [0..PREFIX + FIRST, again..again + SECOND];
    let parts = kept.into_iter().map(|range| out.clone().slice([range]));
    flat(Tensor::cat(parts.collect(), 0))
}

#[test]
fn shared_prefix_equals_plain_layout() {
    let shared = run(&shared, &inputs(), DType::F32);
    let plain = run(&plain, &inputs(), DType::F32);
    for (part, (shared, plain)) in shared.iter().zip(&plain).enumerate() {
        assert_close(&format!("part {part}"), shared, plain, 2e-6);
    }
}

#[test]
fn a_candidate_does_not_see_its_sibling() {
    let original = run(&shared, &inputs(), DType::F32);
    let mut changed = inputs();
    for (input, heads) in changed.iter_mut().zip([HEADS, KV_HEADS, KV_HEADS]) {
        let row = heads * WIDTH;
        input[PREFIX * row..(PREFIX + FIRST) * row].fill(7.5);
    }
    let changed = run(&shared, &changed, DType::F32);
    let part = |outcome: &[Vec<f64>], range: std::ops::Range<usize>| {
        outcome[0][range.start * HEADS * WIDTH..range.end * HEADS * WIDTH].to_vec()
    };
    for unseen in [0..PREFIX, PREFIX + FIRST..TOKENS] {
        assert!(part(&original, unseen.clone()) == part(&changed, unseen));
    }
    let seen = PREFIX..PREFIX + FIRST;
    assert!(part(&original, seen.clone()) != part(&changed, seen));
    // The second candidate's query gradients are its own business too.
    let second = (PREFIX + FIRST) * HEADS * WIDTH..;
    assert!(original[1][second.clone()] == changed[1][second]);
}
