use super::*;
use crate::question::Kind;
use serde_json::json;

/// Reads records as lines of a file.
fn read(format: Option<Format>, records: &[Value]) -> Result<(Option<Format>, Bench), FormatError> {
    let mut parser = Parser::new(format);
    for (at, record) in records.iter().enumerate() {
        parser.push(Record {
            file: "chat_filtered.json",
            place: &format!("chat_filtered.json line {}", at + 1),
            fields: record.as_object().expect("records are objects"),
        })?;
    }
    Ok(parser.finish())
}

fn known(records: &[Value]) -> (Format, Bench) {
    let (format, bench) = read(None, records).unwrap();
    (format.expect("there are records"), bench)
}

/// Categories with their numbers of tasks.
fn categories(bench: &Bench) -> Vec<(&str, usize)> {
    let tasks = bench.questions.iter().flat_map(|question| &question.tasks);
    let mut counts = std::collections::BTreeMap::new();
    for task in tasks {
        *counts.entry(task.category.as_str()).or_default() += 1;
    }
    counts.into_iter().collect()
}

fn aside(bench: &Bench) -> Vec<(&str, u64, &str)> {
    let aside = bench.account.aside.iter();
    aside
        .map(|(reason, aside)| (reason.as_str(), aside.count, aside.first.as_str()))
        .collect()
}

#[test]
fn pairs_of_one_prompt_are_one_question_and_each_row_is_accounted_for() {
    let message = |text: &str| json!([{"role": "user", "content": text}]);
    let (format, bench) = known(&[
        json!({"prompt": "p", "chosen": "a", "rejected": "b", "subset": "x/y"}),
        json!({"prompt": message("p"), "chosen": message("b"), "rejected": "c", "category": "z"}),
        json!({"prompt": "p", "chosen": "a", "rejected": "b", "reference": "r"}),
        json!({"prompt": "p", "chosen": "a", "rejected": "a"}),
        json!({"prompt": "p", "chosen": " ", "rejected": "a"}),
        json!({"prompt": "p", "chosen": "d", "rejected": "d"}),
    ]);
    assert_eq!(format, Format::Pairs);
    assert_eq!(bench.questions.len(), 2, "with the reference and without");
    assert_eq!(bench.questions[0].answers, ["a", "b", "c"]);
    assert_eq!(categories(&bench), [("all", 1), ("x/y", 1), ("z", 1)]);
    let account = &bench.account;
    assert_eq!((account.records, account.tasks, account.prompts), (6, 3, 1));
    assert_eq!((account.answers, account.references), (5, 1));
    assert_eq!(
        aside(&bench),
        [
            ("an answer has no text", 1, "chat_filtered.json line 5"),
            (
                "both answers are the same text",
                2,
                "chat_filtered.json line 4"
            ),
        ]
    );
    // All of one prompt, whatever the reference.
    let tasks = bench.questions.iter().flat_map(|question| &question.tasks);
    assert!(tasks.map(|task| task.cluster).all(|cluster| cluster == 0));
}

#[test]
fn rmb_has_pairs_and_lists_and_triples_with_a_reference() {
    let said = json!([{"role": "user", "content": "hi", "language": "English"}, {"role": "assistant", "content": "yes"}]);
    let answer = |text: &str| json!({"llm_name": "m", "answer": text});
    let pair = |better: &str, worse: &str| {
        json!({"pair_uid": "1", "conversation_input": said, "chosen": answer(better), "reject": answer(worse),
               "category_path": "Pairwise_set/Helpfulness/Chat/Discussion"})
    };
    let list = json!({"bon_uid": "2", "conversation_input": said, "bon_best": answer("a"),
                      "loser_list": [answer("b"), answer("c")], "category_path": "BoN_set/Harmlessness/S1"});
    let records = [
        pair("a", "b"),
        pair("b", "c"),
        pair("a", "c"),
        pair("c", "d"),
        list,
    ];
    let (format, bench) = known(&records);
    assert_eq!(format, Format::Rmb);
    assert_eq!(bench.questions[0].prompt, "hi\nyes");
    let expected = [
        ("harmlessness/best-of-N/S1", 1),
        ("helpfulness/pairs/Chat/Discussion", 4),
    ];
    assert_eq!(categories(&bench), expected);

    // a > b > c in all three pairs; of c > d nothing is known but that.
    let (_, ranked) = read(Some(Format::RmbRanked), &records).unwrap();
    let [question] = &ranked.questions[..] else {
        panic!("one reference");
    };
    assert_eq!(question.reference.as_deref(), Some("a"));
    assert_eq!(question.answers, ["b", "c"]);
    assert_eq!(ranked.account.aside.len(), 1, "the list ranks nothing");
}

#[test]
fn the_hard_pairs_of_rm_bench_are_those_whose_wrong_answer_is_better_dressed() {
    let record =
        json!({"id": 8, "prompt": "p", "chosen": ["a", "b", "c"], "rejected": ["x", "y", "z"]});
    let (format, bench) = known(&[record]);
    assert_eq!(format, Format::RmBench);
    let expected = [("chat/easy", 3), ("chat/hard", 3), ("chat/normal", 3)];
    assert_eq!(categories(&bench), expected, "the domain is the file's");
    let [question] = &bench.questions[..] else {
        panic!("one question");
    };
    for task in &question.tasks {
        let Kind::Pair { better, worse } = task.kind else {
            panic!("pairs");
        };
        let style = |at: usize| "abcxyz".find(&question.answers[at]).unwrap() % 3;
        assert_eq!(task.category == "chat/hard", style(better) < style(worse));
        assert_eq!(
            task.category == "chat/normal",
            style(better) == style(worse)
        );
    }
    let safety = json!({"prompt": "p", "chosen": ["a", "b", "c"], "rejected": ["x", "y", "z"], "domain": "safety-refuse"});
    assert_eq!(categories(&known(&[safety]).1)[0].0, "safety/easy");
}

#[test]
fn judge_bench_is_grouped_by_source_and_its_label_says_who_is_better() {
    let record = |source: &str, label: &str| {
        json!({"pair_id": "x", "source": source, "question": format!("q {source}"), "response_A": "a", "response_B": "b",
               "label": label})
    };
    let (format, bench) = known(&[
        record("mmlu-pro-law", "B>A"),
        record("livecodebench", "A>B"),
        record("livecodebench", "A=B"),
    ]);
    assert_eq!(format, Format::JudgeBench);
    let expected = [("coding", 1), ("knowledge/mmlu-pro-law", 1)];
    assert_eq!(categories(&bench), expected);
    let law = &bench.questions[0];
    let kind = Kind::Pair {
        better: law.answers.iter().position(|answer| answer == "b").unwrap(),
        worse: law.answers.iter().position(|answer| answer == "a").unwrap(),
    };
    assert_eq!(law.tasks[0].kind, kind);
    assert_eq!(bench.account.aside.len(), 1);
}

#[test]
fn rewardbench_2_is_best_of_four_and_ties_in_two_versions() {
    let record = |id: &str, subset: &str, right: usize| {
        let chosen: Vec<String> = (0..right).map(|at| format!("right {at}")).collect();
        json!({"id": id, "prompt": id, "chosen": chosen, "rejected": ["x", "y", "z"], "num_correct": right,
               "num_incorrect": 3, "total_completions": right + 3, "subset": subset})
    };
    let (format, bench) = known(&[
        record("1", "Math", 1),
        record("ref:7", "Ties", 1),
        record("tied:7", "Ties", 4),
    ]);
    assert_eq!(format, Format::RewardBench2);
    assert_eq!(categories(&bench), [("Math", 1), ("Ties", 2)]);
    let clusters: Vec<u32> = bench.questions.iter().map(|q| q.tasks[0].cluster).collect();
    assert_eq!(clusters[1], clusters[2], "both versions of a prompt");
    let mut wrong = record("1", "Math", 1);
    wrong["num_correct"] = json!(2);
    let error = read(None, &[wrong]).unwrap_err().to_string();
    assert!(
        error.contains("line 1") && error.contains("'num_correct'"),
        "{error}"
    );
}

#[test]
fn ppe_has_people_and_lists() {
    let (format, bench) = known(&[
        json!({"prompt": "p", "response_1": "a", "response_2": "b", "winner": "model_b", "language": "English"}),
        json!({"prompt": "p", "response_1": "a", "response_2": "b", "winner": "tie (bothbad)", "language": "English"}),
        json!({"prompt": "q", "response_1": "a", "response_2": "b", "response_3": "c", "scores": [true, false, true],
               "sampled_conflict_pairs": [[0, 1], [1, 2], [0, 2]], "category": "law"}),
        json!({"prompt": "q2", "response_1": "a", "response_2": "b", "scores": [false, false], "category": "law"}),
    ]);
    assert_eq!(format, Format::Ppe);
    let expected = [("best-of-K/law", 1), ("pairs/English", 1), ("pairs/law", 2)];
    assert_eq!(categories(&bench), expected);
    assert_eq!(bench.account.aside.len(), 3, "{:?}", bench.account.aside);
    let outside = json!({"prompt": "q", "response_1": "a", "scores": [true], "sampled_conflict_pairs": [[0, 1]]});
    let error = read(None, &[outside]).unwrap_err().to_string();
    assert!(error.contains("'sampled_conflict_pairs'"), "{error}");
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_key() {
    let good = json!({"prompt": "p", "chosen": "a", "rejected": "b"});
    let refused = |records: &[Value]| read(None, records).unwrap_err().to_string();
    let error = refused(&[
        good.clone(),
        json!({"prompt": "p", "chosen": 3, "rejected": "b"}),
    ]);
    assert!(
        error.contains("line 2") && error.contains("'chosen'") && error.contains("a number"),
        "{error}"
    );
    let error = refused(&[json!({"text": "p"})]);
    assert!(
        error.contains("keys text") && error.contains("--format"),
        "{error}"
    );
    let judge = json!({"question": "q", "response_A": "a", "response_B": "b", "label": "A>B"});
    let error = refused(&[good.clone(), judge]);
    assert!(
        error.contains("judge-bench") && error.contains("pairs"),
        "{error}"
    );
    // A named format is not guessed, and every name is a format's.
    let error = read(Some(Format::JudgeBench), &[good])
        .unwrap_err()
        .to_string();
    assert!(error.contains("'question'"), "{error}");
    for name in Format::names() {
        assert_eq!(name.parse::<Format>().unwrap().to_string(), name);
        assert_eq!(
            serde_json::to_value(name.parse::<Format>().unwrap()).unwrap(),
            name
        );
    }
}
