//! Every recipe and shape on made-up records as they stand in public dumps.

use serde_json::{Map, Value, json};

use super::compiled::Mapping;
use super::detect::detect;
use super::join::Joined;
use super::row::{Outcome, Problem};
use super::{ColumnMapping, recipes};

fn fields(record: Value) -> Map<String, Value> {
    match record {
        Value::Object(fields) => fields,
        other => panic!("{other} is no record"),
    }
}

/// Policy and answer of every row; a null answer as "(null)".
fn told(outcome: Result<Outcome, Problem>) -> Vec<(String, String, String)> {
    let Outcome::Rows(rows) = outcome.unwrap() else {
        return vec![];
    };
    let row = |row: super::Row| {
        let response = row.response.unwrap_or_else(|| "(null)".into());
        (row.prompt.text(), row.policy, response)
    };
    rows.into_iter().map(row).collect()
}

fn rows(columns: Value, record: Value) -> Result<Outcome, Problem> {
    let columns: ColumnMapping = serde_json::from_value(columns).unwrap();
    Mapping::new(&columns).unwrap().rows(&fields(record), None)
}

/// Detects the recipe, joins, and maps.
fn dump(name: &str, record: Value, joined: &[Value], path: &str) -> Vec<(String, String, String)> {
    let record = fields(record);
    let found = detect(std::slice::from_ref(&record), &ColumnMapping::default());
    assert!(
        found.why[0].starts_with(&format!("recipe {name},")),
        "{:?}",
        found.why
    );
    assert_eq!(found.join.is_some(), !joined.is_empty());
    let mapping = Mapping::new(&found.columns).unwrap();
    let mut others = Joined::default();
    for other in joined {
        others.add(&mapping, fields(other.clone())).unwrap();
    }
    let of_path = mapping.policy_of_path(path).unwrap();
    told(others.rows(&mapping, record, of_path.as_deref()))
}

fn row(prompt: &str, policy: &str, response: &str) -> (String, String, String) {
    (prompt.into(), policy.into(), response.into())
}

#[test]
fn recipes_of_benchmarks_map_a_record_of_their_dumps() {
    let two = |policy: &str| vec![row("Q", policy, "one"), row("Q", policy, "two")];
    let older = json!({"doc_id": 3, "doc": {}, "target": "t", "arguments": [["Q", {"until": ["\n"]}]],
        "resps": [["one", "two"]], "filtered_resps": ["one"], "exact_match": 0.0});
    assert_eq!(
        dump("lm-eval", older, &[], "out/llama-7b/samples_gsm8k.jsonl"),
        two("llama-7b")
    );
    let newer = json!({"doc_id": 3, "doc": {}, "arguments": {"gen_args_0": {"arg_0": "Q", "arg_1": {}}},
        "resps": [["one"], ["two"]], "filter": "none"});
    assert_eq!(
        dump("lm-eval", newer, &[], "m/samples_gsm8k_2025.jsonl"),
        two("m")
    );

    let answer = json!({"question_id": 81, "model_id": "vicuna", "tstamp": 1.5, "choices": [
        {"index": 0, "turns": ["one", "later"]}, {"index": 1, "turns": ["two", "later"]}]});
    let question = json!({"question_id": 81, "category": "writing", "turns": ["Q", "And then?"]});
    assert_eq!(
        dump("mt-bench", answer, &[question], "vicuna.jsonl"),
        two("vicuna")
    );

    let state = json!({"adapter_spec": {"model": "org/m"}, "request_states": [
        {"instance": {"input": {"text": "x"}}, "request": {"model": "org/m", "prompt": "Q"},
         "result": {"completions": [{"text": "one", "tokens": []}, {"text": "two", "tokens": []}]}}]});
    assert_eq!(
        dump("helm", state, &[], "scenario_state.json"),
        two("org/m")
    );

    let best = json!({"bon_uid": 1, "conversation_input": [{"role": "user", "content": "Q"}],
        "bon_best": {"llm_name": "a", "answer": "one"},
        "loser_list": [{"llm_name": "b", "answer": "two"}, {"llm_name": "c", "answer": "three"}]});
    let expected = vec![
        row("Q", "a", "one"),
        row("Q", "b", "two"),
        row("Q", "c", "three"),
    ];
    assert_eq!(dump("rmb", best, &[], "x.json"), expected);
    let pair = json!({"pair_uid": 1, "conversation_input": [{"role": "user", "content": "Q"}],
        "chosen": {"llm_name": "a", "answer": "one"}, "reject": {"llm_name": "b", "answer": "two"}});
    assert_eq!(dump("rmb", pair, &[], "x.json"), expected[..2]);

    let battle = |turn: fn(&str, &str) -> Value| {
        json!({"question_id": "q", "model_a": "a", "model_b": "b", "winner": "tie",
            "conversation_a": [turn("user", "Q"), turn("assistant", "one"), turn("user", "R")],
            "conversation_b": [turn("user", "Q"), turn("assistant", "two")]})
    };
    let plain = battle(|role, text| json!({"role": role, "content": text}));
    assert_eq!(dump("arena", plain, &[], "x.parquet"), expected[..2]);
    let parts =
        battle(|role, text| json!({"role": role, "content": [{"type": "text", "text": text}]}));
    assert_eq!(dump("arena", parts, &[], "x.parquet"), expected[..2]);
    let in_text = json!({"id": 1, "model_a": "a", "model_b": "b", "prompt": "[\"Q\", \"R\"]",
        "response_a": "[\"one\", \"x\"]", "response_b": "[\"two\", null]"});
    assert_eq!(dump("arena", in_text, &[], "train.csv"), expected[..2]);
}

#[test]
fn recipes_of_programs_and_batches_map_a_record_of_their_dumps() {
    let two = |policy: &str| vec![row("Q", policy, "one"), row("Q", policy, "two")];
    let code = json!({"question_title": "T", "question_content": "Q", "question_id": "abc",
        "output_list": ["one", "two"], "code_list": ["1", "2"], "graded_list": [true, false]});
    assert_eq!(
        dump(
            "livecodebench",
            code,
            &[],
            "output/gpt-4/codegeneration.json"
        ),
        two("gpt-4")
    );

    let wild = json!({"session_id": "s", "chat_history": ["Q"], "model_input": "n/a", "output": ["one"],
        "generator": "g"});
    assert_eq!(
        dump("wildbench", wild, &[], "x.parquet"),
        [row("Q", "g", "one")]
    );
    let alpaca =
        json!({"instruction": "Q", "output": "one", "generator": "g", "dataset": "helpful_base"});
    assert_eq!(
        dump("alpaca-eval", alpaca, &[], "model_outputs.json"),
        [row("Q", "g", "one")]
    );

    let result = json!({"custom_id": "r", "result": {"type": "succeeded", "message": {"model": "claude",
        "role": "assistant", "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "one"}]}}});
    let asked = json!({"custom_id": "r", "params": {"model": "claude", "max_tokens": 9,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Q"}]}]}});
    assert_eq!(
        dump("anthropic-batch", result, &[asked], "x.jsonl"),
        [row("Q", "claude", "one")]
    );

    let output = json!({"id": "b", "custom_id": "r", "response": {"status_code": 200, "body": {"model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "one", "refusal": null}},
                    {"index": 1, "message": {"role": "assistant", "content": "two"}}]}}, "error": null});
    let asked = json!({"custom_id": "r", "body": {"model": "m",
        "messages": [{"role": "user", "content": "Q"}]}});
    assert_eq!(
        dump(
            "openai-batch",
            output.clone(),
            std::slice::from_ref(&asked),
            "x.jsonl"
        ),
        two("m")
    );
    let vllm = recipes()
        .iter()
        .find(|recipe| recipe.name == "vllm-batch")
        .unwrap();
    let mapping = Mapping::new(&vllm.columns).unwrap();
    let mut joined = Joined::default();
    joined.add(&mapping, fields(asked)).unwrap();
    assert_eq!(told(joined.rows(&mapping, fields(output), None)), two("m"));
}

#[test]
fn batches_with_failures_settings_and_keys_in_common() {
    let openai = recipes()
        .iter()
        .find(|recipe| recipe.name == "openai-batch")
        .unwrap();
    let given: ColumnMapping =
        serde_json::from_value(json!({"policy": ["model", "temperature"]})).unwrap();
    let mapping = Mapping::new(&given.or(&openai.columns)).unwrap();
    let mut joined = Joined::default();
    for model in ["a", "b"] {
        let asked =
            json!({"custom_id": 7, "body": {"model": model, "temperature": 0.5, "input": "Q"}});
        joined.add(&mapping, fields(asked)).unwrap();
    }
    let output = |body: Value| json!({"custom_id": 7, "response": {"status_code": 200, "body": body}, "error": null});
    let of = |record: Value| joined.rows(&mapping, fields(record), None);
    let response = json!({"model": "b", "output": [
        {"type": "reasoning", "summary": []},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "one"}]}]});
    assert_eq!(told(of(output(response))), [row("Q", "b | 0.5", "one")]);
    let silent = json!({"model": "a", "choices": [
        {"message": {"role": "assistant", "content": null, "reasoning_content": "hm"}},
        {"message": {"role": "assistant", "content": null, "refusal": "No."}},
        {"message": {"role": "assistant", "content": null,
            "tool_calls": [{"function": {"name": "look", "arguments": "{\"at\": 1}"}}]}}]});
    let expected = ["(null)", "No.", "look({\"at\": 1})"].map(|text| row("Q", "a | 0.5", text));
    assert_eq!(told(of(output(silent))), expected);

    for failed in [
        json!({"custom_id": 7, "response": null, "error": {"code": "expired"}}),
        json!({"custom_id": 7, "response": {"status_code": 429, "body": {"error": "busy"}}, "error": null}),
    ] {
        assert_eq!(of(failed), Ok(Outcome::Failed));
    }
    let unknown = of(json!({"custom_id": 8, "response": {"status_code": 200, "body": {}}}));
    assert_eq!(unknown, Err(Problem::Unjoined { key: "8".into() }));
    // Another service's shape among these is no failure of a request.
    let other = of(json!({"custom_id": 7, "result": {"type": "succeeded"}}));
    assert!(
        matches!(
            other,
            Err(Problem::Missing { .. } | Problem::Ambiguous { .. })
        ),
        "{other:?}"
    );
}

#[test]
fn answers_are_found_in_every_shape() {
    let columns = || json!({"prompt": "prompt", "policy": ["policy"], "response": "response"});
    let cases = [
        (json!("one"), vec!["one"]),
        (json!(42), vec!["42"]),
        (json!(["one", "two"]), vec!["one", "two"]),
        (json!([["one"], ["two"]]), vec!["one", "two"]),
        (
            json!([{"text": "one"}, {"text": "two"}]),
            vec!["one", "two"],
        ),
        (
            json!([{"message": {"content": "one"}}, {"text": null, "message": {"content": "two"}}]),
            vec!["one", "two"],
        ),
        (
            json!([{"type": "text", "text": "o"}, {"type": "text", "text": "ne"}]),
            vec!["one"],
        ),
        (
            json!([{"type": "text", "text": "see "}, {"type": "image_url", "image_url": {}}]),
            vec!["see [image_url]"],
        ),
        (
            json!([{"role": "assistant", "content": "one"}]),
            vec!["one"],
        ),
        (
            json!([{"role": "user", "content": "Q"}, {"role": "assistant", "content": "one"}]),
            vec!["one"],
        ),
        (
            json!([{"role": "assistant", "content": "look"}, {"role": "tool", "content": "{}"},
            {"role": "assistant", "content": "one"}]),
            vec!["look\n{}\none"],
        ),
        (json!({"text": ["one", "two"]}), vec!["one", "two"]),
        (json!(["one", null]), vec!["one", "(null)"]),
    ];
    for (response, expected) in cases {
        let record = json!({"prompt": "Q", "policy": "p", "response": response});
        let found: Vec<String> = told(rows(columns(), record))
            .into_iter()
            .map(|row| row.2)
            .collect();
        assert_eq!(found, expected, "{response}");
    }
    for (response, reason) in [
        (json!([[[-1.5, false]], [[-2.5, true]]]), "log-likelihoods"),
        (json!([101, 7592]), "token ids"),
        (
            json!([{"role": "user", "content": "Other?"}, {"role": "assistant", "content": "x"}]),
            "begins otherwise",
        ),
        (json!({"score": 1}), "is needed"),
        (Value::Null, "is null"),
    ] {
        let record = json!({"prompt": "Q", "policy": "p", "response": response});
        let refused = rows(columns(), record).unwrap_err().to_string();
        assert!(
            refused.contains(reason) && refused.contains("'response'"),
            "{refused}"
        );
    }
}

#[test]
fn prompts_are_one_whatever_shape_they_come_in() {
    let columns = || json!({"prompt": "prompt", "policy": ["policy"], "response": "response", "system": "system"});
    let of = |prompt: Value| {
        let record = json!({"prompt": prompt, "policy": "p", "response": "x"});
        told(rows(columns(), record)).remove(0).0
    };
    for prompt in [
        json!("Q"),
        json!([{"role": "user", "content": "Q"}]),
        json!([{"from": "human", "value": "Q"}]),
        json!({"role": ["user"], "content": ["Q"]}),
        json!("[{\"role\": \"user\", \"content\": \"Q\"}]"),
        json!([{"role": "user", "content": [{"type": "text", "text": "Q"}]}]),
        json!({"role": "user", "content": "Q"}),
        json!({"messages": [{"role": "user", "content": "Q"}]}),
        json!(["Q"]),
    ] {
        assert_eq!(of(prompt.clone()), "Q", "{prompt}");
    }
    // Text that only looks like JSON stays text.
    assert_eq!(of(json!("[1, 2] sorted?")), "[1, 2] sorted?");
    assert_eq!(of(json!("{\"a\": 1}")), "{\"a\": 1}");
    let record = json!({"prompt": "Q", "policy": "p", "response": "x", "system": "Be brief."});
    assert_eq!(
        told(rows(columns(), record)),
        [row("Be brief.\nQ", "p", "x")]
    );
}

#[test]
fn policies_stand_in_columns_lists_names_and_paths() {
    let wide = json!({"prompt": "q", "policy_columns": ["{policy}_answer"]});
    let record =
        json!({"q": "Q", "gpt_answer": "one", "claude_answer": ["two"], "llama_answer": null});
    let mut found = told(rows(wide, record));
    found.sort();
    let expected = [
        row("Q", "claude", "two"),
        row("Q", "gpt", "one"),
        row("Q", "llama", "(null)"),
    ];
    assert_eq!(found, expected);

    let each = json!({"prompt": "q", "each": "answers", "policy": ["key"], "response": "item"});
    let record = json!({"q": "Q", "answers": {"claude": "two", "gpt": "one"}});
    assert_eq!(told(rows(each, record)), expected[..2]);

    let same = json!({"prompt": "messages", "response": "messages", "policy_name": "gpt"});
    let record = json!({"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "one"}]});
    assert_eq!(told(rows(same, record)), expected[1..2]);

    let by_path = json!({"prompt": "q", "response": "a", "policy": ["t"], "policy_from_path": "{policy}.jsonl"});
    let mapping = Mapping::new(&serde_json::from_value(by_path).unwrap()).unwrap();
    let record = fields(json!({"q": "Q", "a": "one", "t": 0.5}));
    let of_path = mapping.policy_of_path("runs/gpt.jsonl").unwrap();
    assert_eq!(
        told(mapping.rows(&record, of_path.as_deref())),
        [row("Q", "0.5 | gpt", "one")]
    );
    let refused = mapping
        .policy_of_path("runs/gpt.csv")
        .unwrap_err()
        .to_string();
    assert!(refused.contains("{policy}.jsonl"), "{refused}");

    let number = json!({"prompt": "q", "policy": ["p"], "response": "a"});
    let huge: Value =
        serde_json::from_str(r#"{"q": "Q", "a": "one", "p": 12345678901234567890220}"#).unwrap();
    let refused = rows(number, huge).unwrap_err().to_string();
    assert!(refused.contains("too large"), "{refused}");
}

#[test]
fn columns_are_found_by_their_usual_names_and_what_is_given_stays() {
    let records = [fields(
        json!({"instruction": "Q", "model": "m", "completion": "x", "policy,v": 1}),
    )];
    let found = detect(&records, &ColumnMapping::default());
    let expected: ColumnMapping = serde_json::from_value(
        json!({"prompt": "instruction", "policy": ["model"], "response": "completion"}),
    )
    .unwrap();
    assert_eq!(found.columns, expected);
    assert_eq!(found.why.len(), 3, "{:?}", found.why);
    let given: ColumnMapping =
        serde_json::from_value(json!({"policy": ["policy,v", "a,b"]})).unwrap();
    let columns: Vec<String> = records[0].keys().cloned().collect();
    let found = detect(&records, &given).columns.split_policy(&columns);
    let policy: Vec<String> = found.policy.iter().map(ToString::to_string).collect();
    assert_eq!(policy, ["policy,v", "a", "b"]);
}
