//! What can't be scored, and what the client is told.

use crate::{
    client::{exchange, get, post, send},
    served::Model,
};
use polestar_serve::http::Limits;
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// Path, body, and what the sentence has in it; all are answered 400.
const REFUSED: &str = r#"
/score {"prompt": "a", "candidates": ["c"], "candidate": "c"} => unknown field `candidate`
/score {"prompt": "a"} => missing field `candidates`
/score {"prompt": "a", "candidates": []} => no text to score
/score {"prompt": "a", "candidates": ["c", 4]} => candidates[1]: invalid type
/score {"prompt": "a", "candidates": ["c"], "normalize": "max"} => normalize: unknown variant
/score {"prompt": "", "candidates": ["", "c"]} => all empty
/score [{"prompt": "a", "candidates": ["c"]}, {"prompt": "a"}] => [1]: missing field
/reward {"prompt": "a", "response": null} => response: invalid type
/get_reward {"query": ["ab"], "prompts": ["b"]} => query[0] doesn't begin
/get_reward {"query": ["ab"], "prompts": []} => 1 entries, prompts 0
/classify {} => missing field `text`
/classify {"text": []} => no text to score
/classify {"text": ["a<|reward|>b", "no split"]} => text 1: the text has 0 `<|reward|>`
/classify {"text": "a<|reward|>b", "dimensions": 8} => no dimensions
/classify {"input_ids": [1, 2, 3]} => are no sequence
/vllm/classify {"messages": []} => a chat's template
/vllm/pooling {"input": "a<|reward|>b", "normalize": true} => use_activation
/vllm/pooling {"input": 7} => input: expected a string
/vllm/score {"text_1": ["a<|reward|>b", "a"], "text_2": ["a", "b", "c"]} => 2 queries and 3
/lmdeploy/pooling {"input": "a<|reward|>b", "encoding_format": "base64"} => base64
/v1/classify {"input": "a<|reward|>b"} => a softmax
/v1/score {"query": "a<|reward|>b", "items": ["a"], "apply_softmax": true} => apply_softmax
/tei/predict {"inputs": [["a<|reward|>b", "b", "c"]]} => entry 0
"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_scored_gets_a_status_and_a_sentence() {
    let model = Model::new("serve-refusals", 16).await;
    let served = model.serve(Limits::default()).await;
    let at = served.address;
    for line in REFUSED.lines().filter(|line| !line.is_empty()) {
        let (asked, said) = line.split_once(" => ").expect("a sentence");
        let (path, body) = asked.split_once(' ').expect("a body");
        let body: Value = serde_json::from_str(body).expect("JSON");
        let reply = post(at, path, &body).await;
        assert_eq!(reply.status, 400, "{line}: {reply:?}");
        let sentence = reply.json()["error"]["message"].clone();
        let sentence = sentence.as_str().expect("a sentence");
        assert!(sentence.contains(said), "{line}: {sentence}");
    }
    let text = "a<|reward|>b";
    let long = "red ".repeat(400) + "<|reward|>c";
    let reply = post(at, "/classify", &json!({ "text": long })).await;
    assert!(
        reply.status == 400 && reply.body.contains("are the most"),
        "{reply:?}"
    );
    let reply = post(at, "/nowhere", &json!({})).await;
    assert!(
        reply.status == 404 && reply.body.contains("/score"),
        "{reply:?}"
    );
    let broken = send(at, "POST", "/score", b"{\"prompt\": ").await;
    assert!(
        broken.status == 400 && broken.body.contains("no JSON"),
        "{broken:?}"
    );
    let got = get(at, "/score").await;
    assert!(
        got.status == 405 && got.body.contains("GET /score"),
        "{got:?}"
    );

    let large = json!({ "text": "x".repeat(100 << 20) });
    let reply = post(at, "/classify", &large).await;
    assert!(
        reply.status == 413 && reply.body.contains("--max-body"),
        "{reply:?}"
    );
    // Without saying so first.
    let stream = TcpStream::connect(at).await.expect("it listens");
    let mut chunked = b"POST /score HTTP/1.1\r\nHost: here\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..20 {
        chunked.extend_from_slice(b"100000\r\n");
        chunked.resize(chunked.len() + (1 << 20), b' ');
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let reply = exchange(stream, &chunked).await;
    assert_eq!(reply.status, 413, "{reply:?}");
    assert_eq!(
        post(at, "/classify", &json!({ "text": text })).await.status,
        200
    );
}
