//! Attention over the prefix tree, forward and backward.

use crate::library::{Host, Output, at, narrow, widen};
use crate::reference::{Tolerance, assert_close, bf16_noise, noise, outcome};
use burn::tensor::{DType, Tensor};
use polestar_kernels::cuda::abi::{
    AttentionDelta, AttentionForward, AttentionKeyValueGradient, AttentionQueryGradient,
    AttentionTiles, HeadShape, TileTable, Tiles,
};
use polestar_kernels::{Span, Spans};

fn shape(kv_heads: u32, group: u32, width: u32) -> HeadShape {
    HeadShape {
        kv_heads,
        group,
        width,
    }
}

/// Spans by length and parent.
fn forest(spans: &[(u32, Option<u32>)]) -> Spans {
    let mut start = 0;
    let spans = spans.iter().map(|&(len, parent)| {
        let span = Span { start, len, parent };
        start += len;
        span
    });
    Spans::new(spans.collect()).expect("a forest")
}

/// 32 triplets, some candidates of one token, some triplets with one candidate only: the other one was empty.
fn triplets() -> Spans {
    let mut spans = Vec::new();
    for i in 0..32_u32 {
        let prefix = spans.len() as u32;
        spans.push((1 + i * 5 % 23, None));
        spans.push((1 + i * 7 % 9, Some(prefix)));
        if i % 5 != 0 {
            spans.push((1 + i * 3 % 11, Some(prefix)));
        }
    }
    forest(&spans)
}

/// Output, log sums, gradient of queries, keys and values.
fn run(host: &Host, heads: HeadShape, spans: &Spans, qkv: &[u16], grad: &[u16]) -> [Output; 4] {
    let tokens = spans.tokens();
    let tiles = AttentionTiles::new(spans);
    let table = |table: &TileTable| Tiles {
        tiles: at(&table.tiles),
        ranges: at(&table.ranges),
        count: table.len(),
    };
    let per_head = tokens * heads.heads() as usize;
    let outputs = [
        Output::bf16(per_head * heads.width as usize),
        Output::f32(per_head),
        Output::bf16(qkv.len()),
        Output::f32(per_head),
    ];
    let tokens = tokens as u32;
    let [out, log_sums, qkv_grad, delta] = host.run(outputs, |[out, log_sums, qkv_grad, delta]| {
        let forward = AttentionForward {
            qkv: at(qkv),
            out,
            log_sums,
            tiles: table(&tiles.forward),
            tokens,
            heads,
        };
        let deltas = AttentionDelta {
            out,
            grad: at(grad),
            delta,
            tokens,
            heads,
        };
        let queries = AttentionQueryGradient {
            qkv: at(qkv),
            grad: at(grad),
            log_sums,
            delta,
            qkv_grad,
            tiles: table(&tiles.query_gradient),
            tokens,
            heads,
        };
        let keys_and_values = AttentionKeyValueGradient {
            qkv: at(qkv),
            grad: at(grad),
            log_sums,
            delta,
            qkv_grad,
            tiles: table(&tiles.key_value_gradient),
            tokens,
            heads,
        };
        vec![
            forward.launch(),
            deltas.launch(),
            queries.launch(),
            keys_and_values.launch(),
        ]
    });
    [out, log_sums, qkv_grad, delta]
}

fn check(host: &Host, name: &str, heads: HeadShape, spans: &Spans) {
    let (tokens, width) = (spans.tokens(), heads.width as usize);
    let (kv_heads, group) = (heads.kv_heads as usize, heads.group as usize);
    let what = format!("{name}, {heads:?}");
    // Scores of some size: a softmax that is flat would forgive a lot. Values are the last part of a head's.
    let is_value = |at: usize| at / width % (group + 2) == group + 1;
    let qkv: Vec<u16> = noise(1, tokens * heads.row() as usize)
        .iter()
        .enumerate()
        .map(|(at, x)| narrow(if is_value(at) { *x } else { 3.0 * x }))
        .collect();
    let qkv_values: Vec<f32> = qkv.iter().map(|&bits| widen(bits)).collect();
    let (grad, grad_values) = bf16_noise(2, tokens * heads.heads() as usize * width);

    let operation = |inputs: &[Tensor<1>]| {
        let qkv = inputs[0]
            .clone()
            .reshape([tokens, kv_heads, group + 2, width]);
        let part = |from: usize, to: usize| {
            let part = qkv
                .clone()
                .slice([0..tokens, 0..kv_heads, from..to, 0..width]);
            part.reshape([tokens, kv_heads * (to - from), width])
        };
        let (q, k, v) = (
            part(0, group),
            part(group, group + 1),
            part(group + 1, group + 2),
        );
        let out = polestar_kernels::attention(q, k, v, spans);
        out.reshape([tokens * kv_heads * group * width])
    };
    let [out, log_sums, qkv_grad, _] = run(host, heads, spans, &qkv, &grad);
    assert!(
        log_sums.values().iter().all(|l| l.is_finite()),
        "{what}: log sums"
    );
    for dtype in [DType::F64, DType::F32] {
        let expected = outcome(&operation, &[&qkv_values], &grad_values, dtype);
        let against = format!("{what} against {dtype:?}");
        assert_close(
            &format!("{against}: out"),
            &out.values(),
            &expected[0],
            Tolerance::PRODUCTS,
        );
        assert_close(
            &format!("{against}: gradient"),
            &qkv_grad.values(),
            &expected[1],
            Tolerance::PRODUCTS,
        );
    }
}

#[test]
fn attention_is_right_on_shapes_that_hurt() {
    let Some(host) = Host::open() else { return };
    let lengths = |lengths: &[u32]| Spans::sequences(lengths.iter().copied()).expect("sequences");
    check(&host, "one token", shape(1, 1, 16), &lengths(&[1]));
    check(
        &host,
        "one token each",
        shape(2, 1, 64),
        &lengths(&[1, 1, 1]),
    );
    for len in [63, 64, 65, 130] {
        check(
            &host,
            &format!("a sequence of {len}"),
            shape(1, 2, 64),
            &lengths(&[len]),
        );
    }
    check(&host, "sequences", shape(1, 1, 128), &lengths(&[70, 3, 66]));
    // A prefix with two candidates, of which the second does not follow its prefix in memory.
    let triplet = forest(&[
        (75, None),
        (68, Some(0)),
        (5, Some(0)),
        (9, None),
        (1, Some(3)),
        (2, Some(3)),
    ]);
    check(&host, "triplet", shape(1, 2, 32), &triplet);
    // Grandchildren, and children that come after other trees' spans.
    let deep = forest(&[
        (66, None),
        (3, Some(0)),
        (2, None),
        (7, Some(1)),
        (1, Some(3)),
        (64, Some(0)),
        (5, Some(2)),
    ]);
    check(&host, "a deep tree", shape(2, 1, 16), &deep);
    check(&host, "32 triplets", shape(1, 4, 32), &triplets());
}

#[test]
fn attention_is_right_for_every_group_and_width() {
    let Some(host) = Host::open() else { return };
    let spans = forest(&[(40, None), (30, Some(0)), (28, Some(0))]);
    for group in [1, 2, 4, 8] {
        check(&host, "groups", shape(2, group, 16), &spans);
    }
    for width in [2, 6, 8, 12, 16, 20, 24, 32, 48, 64, 96, 128] {
        check(&host, "widths", shape(1, 2, width), &spans);
    }
}

#[test]
fn log_sums_are_those_of_the_scores() {
    let Some(host) = Host::open() else { return };
    let (heads, spans) = (
        shape(1, 2, 8),
        forest(&[(70, None), (3, Some(0)), (2, Some(0))]),
    );
    let (tokens, width) = (spans.tokens(), 8);
    let (qkv, values) = bf16_noise(3, tokens * heads.row() as usize);
    let (grad, _) = bf16_noise(4, tokens * 2 * width);
    let [out, log_sums, _, delta] = run(&host, heads, &spans, &qkv, &grad);
    let row = |token: usize, part: usize| &values[(token * 4 + part) * width..][..width];
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum()
    };
    let sees = |query: usize, key: usize| key <= query && (query < 73 || !(70..73).contains(&key));
    let mut expected = Vec::new();
    for head in 0..2 {
        for query in 0..tokens {
            let seen = (0..tokens).filter(|&key| sees(query, key));
            let scores =
                seen.map(|key| dot(row(query, head), row(key, 2)) / f64::from(8.0_f32.sqrt()));
            expected.push(scores.map(f64::exp).sum::<f64>().ln());
        }
    }
    assert_close("log sums", &log_sums.values(), &expected, Tolerance::F32);

    let grad: Vec<f64> = Output::Bf16(grad).values();
    let out = out.values();
    let at = |token: usize, head: usize| (token * 2 + head) * width;
    let expected: Vec<f64> = (0..2)
        .flat_map(|head| (0..tokens).map(move |token| at(token, head)))
        .map(|from| (from..from + width).map(|i| grad[i] * out[i]).sum())
        .collect();
    assert_close("delta", &delta.values(), &expected, Tolerance::F32);
}

#[test]
fn tiles_cover_what_tokens_see_and_nothing_else() {
    for spans in [
        triplets(),
        forest(&[
            (200, None),
            (130, Some(0)),
            (1, Some(1)),
            (3, None),
            (64, Some(0)),
        ]),
    ] {
        let tokens = spans.tokens();
        let tables = AttentionTiles::new(&spans);
        // By the spans' own words.
        let mut sees = vec![vec![false; tokens]; tokens];
        for (query, row) in sees.iter_mut().enumerate() {
            let mut span = spans
                .spans()
                .iter()
                .position(|span| span.range().contains(&query));
            while let Some(index) = span {
                let Span { parent, .. } = spans.spans()[index];
                for key in spans.spans()[index].range().filter(|&key| key <= query) {
                    row[key] = true;
                }
                span = parent.map(|parent| parent as usize);
            }
        }
        let check = |table: &TileTable, queries: bool| {
            let mut met = vec![vec![0; tokens]; tokens];
            for &[start, len, first, end] in &table.tiles {
                assert!((1..=64).contains(&len) && first < end);
                for &[from, to] in &table.ranges[first as usize..end as usize] {
                    for own in start as usize..(start + len) as usize {
                        for other in from as usize..to as usize {
                            let (query, key) = if queries { (own, other) } else { (other, own) };
                            met[query][key] += i32::from(key <= query);
                        }
                    }
                }
            }
            for (met, sees) in met.iter().zip(&sees) {
                assert!(
                    met.iter()
                        .zip(sees)
                        .all(|(&met, &sees)| met == i32::from(sees))
                );
            }
        };
        check(&tables.forward, true);
        check(&tables.query_gradient, true);
        check(&tables.key_value_gradient, false);
    }
}
