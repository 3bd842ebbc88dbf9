//! Outputs of batch inference, joined with their requests.

use super::*;

#[tokio::test]
async fn outputs_of_batch_inference_are_joined_with_what_was_asked() {
    let folder = tempfile::tempdir().unwrap();
    let (mut requests, mut outputs, mut lists) = (String::new(), String::new(), String::new());
    for prompt in 0..30 {
        for model in ["big", "small"] {
            let (id, asked) = (format!("{model}-{prompt}"), format!("Question {prompt}?"));
            let messages = serde_json::json!([{"role": "user", "content": asked}]);
            let body = serde_json::json!({"model": model, "messages": messages});
            let request = serde_json::json!({"custom_id": id, "method": "POST", "body": body});
            let answers: Vec<_> = (0..3)
                .map(|i| format!("{model} says {i} of {prompt}"))
                .collect();
            let choices: Vec<_> = answers
                .iter()
                .map(|text| serde_json::json!({"message": {"role": "assistant", "content": text}}))
                .collect();
            let response = serde_json::json!({"status_code": 200, "body": {"model": model, "choices": choices}});
            let output = serde_json::json!({"custom_id": id, "response": response, "error": null});
            let outs: Vec<_> = answers
                .iter()
                .map(|text| serde_json::json!({"text": text}))
                .collect();
            let list = serde_json::json!({"prompt": messages, "policy": model, "outputs": outs});
            requests += &format!("{request}\n");
            outputs += &format!("{output}\n");
            lists += &format!("{list}\n");
        }
    }
    let late = serde_json::json!({"custom_id": "late", "body": {"model": "big", "prompt": "?"}});
    requests += &format!("{late}\n");
    let failed =
        serde_json::json!({"custom_id": "late", "response": null, "error": {"code": "expired"}});
    outputs += &format!("{failed}\n");
    let asked = write(&folder, "requests.jsonl", requests.as_bytes());
    let answered = write(&folder, "outputs.jsonl", outputs.as_bytes());
    let listed = write(&folder, "lists.jsonl", lists.as_bytes());
    let base = |input: &Path, name: &str| ImportOptions {
        heldout_policies: vec![],
        aliases: vec![],
        ..options(input, &folder.path().join(name))
    };

    let joined = imported(ImportOptions {
        join: vec![text(&asked)],
        ..base(&answered, "joined")
    });
    let joined = joined.await.unwrap();
    assert_eq!(joined.counts.trajectories, 180);
    let columns = ColumnMapping {
        response: Some("outputs".into()),
        ..ColumnMapping::default()
    };
    let lists = imported(ImportOptions {
        columns,
        ..base(&listed, "lists")
    });
    let lists = lists.await.unwrap();
    let digests = |m: &Manifest| m.files.iter().map(|f| f.digest.clone()).collect::<Vec<_>>();
    assert_eq!(
        digests(&joined),
        digests(&lists),
        "two ways to write the same"
    );

    let again = requests.replace("Question", "Quiz");
    let again = write(&folder, "again.jsonl", again.as_bytes());
    let ambiguous = imported(ImportOptions {
        join: vec![text(&asked), text(&again)],
        ..base(&answered, "ambiguous")
    });
    let ambiguous = told(&ambiguous.await.unwrap_err());
    assert!(
        ambiguous.contains("outputs.jsonl, line 1") && ambiguous.contains("'big-0'"),
        "{ambiguous}"
    );
    let none = write(&folder, "none.jsonl", b"");
    let unasked = imported(ImportOptions {
        join: vec![text(&none)],
        ..base(&answered, "unasked")
    });
    let unasked = told(&unasked.await.unwrap_err());
    assert!(
        unasked.contains("outputs.jsonl, line 1") && unasked.contains("'big-0'"),
        "{unasked}"
    );
}
