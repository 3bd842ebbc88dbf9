//! The server as its clients see it: their shapes, and the same reward in whatever company.

use crate::{
    client::{get, polar, post, send},
    served::Model,
};
use polestar_serve::http::Limits;
use serde_json::{Value, json};
use std::{net::SocketAddr, sync::Arc};

const PROMPT: &str = "red sun map";
const REFERENCE: &str = "cat win top ink";
const CANDIDATES: [&str; 3] = ["cat win top", "oak fog jar lid", ""];

fn number(value: &Value) -> f32 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("no number: {value}")) as f32
}

/// What the three functions of POLAR's client send, and read of the three servers' answers.
async fn polar_client(address: SocketAddr, server: &str, texts: &[String]) -> Vec<f32> {
    let (path, body) = match server {
        "sglang" => ("/classify", json!({ "model": "POLAR-7B", "text": texts })),
        "vllm" => ("/vllm/pooling", json!({ "input": texts })),
        _ => ("/lmdeploy/pooling", json!({ "input": texts })),
    };
    let reply = post(address, path, &body).await;
    assert_eq!(reply.status, 200, "{server}: {reply:?}");
    let answer = reply.json();
    let entries = match server {
        "sglang" => answer.as_array(),
        _ => answer["data"].as_array(),
    };
    let entries = entries.expect("a list").iter();
    let reward = |entry: &Value| match server {
        "sglang" => number(&entry["embedding"][0]),
        "vllm" => {
            let tokens = entry["data"].as_array().expect("a list for each token");
            number(&tokens.last().expect("a token")[0])
        }
        _ => number(&entry["data"]),
    };
    entries.map(reward).collect()
}

fn bits(rewards: &[f32]) -> Vec<u32> {
    rewards.iter().map(|reward| reward.to_bits()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_whole_sequences_find_their_shapes_and_the_same_rewards() {
    let model = Model::new("serve-shapes", 16).await;
    let served = model.serve(Limits::default()).await;
    let at = served.address;

    let texts: Vec<String> = CANDIDATES.map(|c| polar(PROMPT, REFERENCE, c)).into();
    let expected: Vec<f32> = texts.iter().map(|text| model.of_text(text)).collect();
    for server in ["sglang", "vllm", "lmdeploy"] {
        let found = polar_client(at, server, &texts).await;
        assert_eq!(bits(&found), bits(&expected), "{server}");
    }
    let body = json!({ "text": texts[0] });
    let one = send(at, "PUT", "/sglang/classify", body.to_string().as_bytes())
        .await
        .json();
    assert_eq!(number(&one["embedding"][0]), expected[0]);
    assert!(
        one["meta_info"]["prompt_tokens"]
            .as_u64()
            .is_some_and(|n| n > 10)
    );

    // verl's reward loop: one text at a time.
    let verl = json!({ "model": "noise", "input": texts[1], "use_activation": false });
    for path in ["/classify", "/vllm/classify"] {
        let reply = post(at, path, &verl).await.json();
        assert_eq!(number(&reply["data"][0]["probs"][0]), expected[1]);
    }
    let verl = json!({ "model": "noise", "input": texts[1] });
    let reply = post(at, "/v1/embeddings", &verl).await.json();
    assert_eq!(number(&reply["data"][0]["embedding"][0]), expected[1]);
    let predicted = post(
        at,
        "/predict",
        &json!({ "inputs": [[texts[0]], [texts[1]]], "raw_scores": true }),
    )
    .await
    .json();
    assert_eq!(number(&predicted[1][0]["score"]), expected[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_query_and_what_continues_it_find_their_shapes() {
    let model = Model::new("serve-queries", 16).await;
    let served = model.serve(Limits::default()).await;
    let at = served.address;
    let query = format!("{PROMPT}\n{REFERENCE}<|reward|>{PROMPT}\n");
    let follow: Vec<f32> = CANDIDATES
        .iter()
        .map(|item| model.of_pair(&query, item))
        .collect();
    let scored = post(
        at,
        "/v1/score",
        &json!({ "query": query, "items": CANDIDATES, "apply_softmax": false }),
    )
    .await
    .json();
    let vllm = post(
        at,
        "/vllm/score",
        &json!({ "text_1": query, "text_2": CANDIDATES }),
    )
    .await
    .json();
    for (index, reward) in follow.iter().enumerate() {
        assert_eq!(number(&scored["scores"][index][0]), *reward);
        assert_eq!(number(&vllm["data"][index]["score"]), *reward);
    }
    let best = (0..3).max_by(|&a, &b| follow[a].total_cmp(&follow[b]));
    let ranked = post(
        at,
        "/rerank",
        &json!({ "query": query, "texts": CANDIDATES, "raw_scores": true }),
    )
    .await;
    assert_eq!(ranked.json()[0]["index"].as_u64(), best.map(|at| at as u64));
    let ranked = post(
        at,
        "/vllm/rerank",
        &json!({ "query": query, "documents": CANDIDATES, "top_n": 1 }),
    )
    .await
    .json();
    assert_eq!(ranked["results"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        ranked["results"][0]["index"].as_u64(),
        best.map(|at| at as u64)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_are_scored_as_in_training_for_trainers_and_for_score() {
    let model = Model::new("serve-parts", 16).await;
    let served = model.serve(Limits::default()).await;
    let at = served.address;
    let parts: Vec<f32> = CANDIDATES
        .iter()
        .map(|c| model.of_parts(PROMPT, REFERENCE, c))
        .collect();
    let messages = json!([{ "role": "user", "content": PROMPT }]);
    let body = json!({ "prompt": messages, "reference": REFERENCE, "candidates": CANDIDATES });
    let scored = post(at, "/score", &body).await.json();
    let found: Vec<f32> = scored["rewards"]
        .as_array()
        .expect("a list")
        .iter()
        .map(number)
        .collect();
    assert_eq!(bits(&found), bits(&parts));
    assert_eq!(
        scored["cut"],
        json!({ "prompt": 0, "reference": 0, "candidates": [0, 0, 0] })
    );
    let mut centred = body.clone();
    centred["normalize"] = "centred".into();
    let both = post(at, "/score", &json!([body, centred])).await.json();
    let mean = parts.iter().map(|&r| f64::from(r)).sum::<f64>() / 3.0;
    assert_eq!(
        number(&both[1]["rewards"][0]),
        (f64::from(parts[0]) - mean) as f32
    );
    let sample =
        json!({ "prompt": messages, "response": CANDIDATES[1], "label": REFERENCE, "index": 7 });
    assert_eq!(number(&post(at, "/reward", &sample).await.json()), parts[1]);
    let queries = json!({
        "query": [format!("{PROMPT}{}", CANDIDATES[0]), format!("{PROMPT}{}", CANDIDATES[1])],
        "prompts": [PROMPT, PROMPT], "labels": [REFERENCE, REFERENCE],
    });
    let rewards = post(at, "/get_reward", &queries).await.json();
    assert_eq!(rewards["rewards"], rewards["scores"]);
    assert_eq!(number(&rewards["rewards"][1]), parts[1]);

    assert_eq!(get(at, "/health").await.json()["status"], "ok");
    assert_eq!(get(at, "/v1/models").await.json()["data"][0]["id"], "noise");
    let metrics = get(at, "/metrics").await.body;
    for said in [
        "polestar_requests_total{route=\"/score\",status=\"200\"} 2",
        "polestar_rewards_total",
        "# EOF",
    ] {
        assert!(metrics.contains(said), "{said}: {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reward_is_the_same_alone_and_among_a_hundred_others() {
    let model = Arc::new(Model::new("serve-company", 24).await);
    let served = model.serve(Limits::default()).await;
    let at = served.address;
    let text = |number: usize| {
        let words = ["red", "sun", "map", "cat", "win", "top", "ink", "oak"];
        let some = |count: usize| -> String {
            let each = (0..count).map(|i| words[(number * 3 + i * i) % words.len()]);
            each.collect::<Vec<_>>().join(" ")
        };
        polar(
            &some(1 + number % 5),
            &some(number % 20),
            &some(1 + number % 31),
        )
    };
    let together = (0..100).map(|number| {
        tokio::spawn(async move {
            let reply = post(at, "/classify", &json!({ "text": text(number) })).await;
            assert_eq!(reply.status, 200, "{reply:?}");
            number_of(&reply.json())
        })
    });
    let together: Vec<_> = together.collect();
    let mut found = Vec::new();
    for reward in together {
        found.push(reward.await.expect("a reward"));
    }
    for (number, found) in found.into_iter().enumerate().step_by(7) {
        let alone = post(at, "/classify", &json!({ "text": text(number) })).await;
        assert_eq!(
            number_of(&alone.json()).to_bits(),
            found.to_bits(),
            "{number}"
        );
        assert_eq!(
            model.of_text(&text(number)).to_bits(),
            found.to_bits(),
            "{number}"
        );
    }
}

fn number_of(answer: &Value) -> f32 {
    number(&answer["embedding"][0])
}
