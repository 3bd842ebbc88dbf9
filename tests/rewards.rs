//! Rewards of a trained run: of a file, over HTTP, and what is wrong with either.

use crate::common::{Sandbox, small_sweep};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::Stdio,
};

/// One POST over one connection.
fn post(address: &str, path: &str, body: &Value) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    let body = body.to_string();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).expect("a status");
    let json = serde_json::from_str(body).expect("JSON");
    (status.parse().expect("a number"), json)
}

#[test]
fn a_run_scores_files_and_serves_the_same_rewards_until_it_is_told_to_stop() {
    let sandbox = Sandbox::new();
    sandbox.write("sweep.toml", &small_sweep(10));
    sandbox.succeed(&["launch", "sweep.toml"]);
    let run = sandbox.only_run("runs").display().to_string();
    let trial = format!("{run}#pico-10steps-s1");
    let lines = [
        json!({ "id": 1, "prompt": "red sun", "reference": "map cat", "candidates": ["map cat", "win top", ""] }),
        json!({ "prompt": [{ "role": "user", "content": "red sun" }], "candidate": "ink oak" }),
        json!({ "prompt": "red", "reference": "map ".repeat(40), "chosen": "a", "rejected": "b" }),
    ];
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    sandbox.write("pairs.jsonl", &text);

    let summary = sandbox.succeed(&[
        "score",
        &trial,
        "pairs.jsonl",
        "--output",
        "out.jsonl",
        "--json",
    ]);
    let summary: Value = serde_json::from_str(&summary).expect("JSON");
    assert_eq!(
        (&summary["groups"], &summary["rewards"]),
        (&3.into(), &6.into())
    );
    assert_eq!(
        (&summary["step"], &summary["cut_texts"]),
        (&10.into(), &1.into())
    );
    let written = std::fs::read_to_string(sandbox.path("out.jsonl")).expect("written");
    let scored: Vec<Value> = written
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(
        (&scored[0]["id"], &scored[0]["prompt"]),
        (&1.into(), &"red sun".into())
    );
    assert_eq!(scored[0]["rewards"].as_array().map(Vec::len), Some(3));
    assert!(scored[1]["reward"].is_f64() && scored[2]["rewards"][1].is_f64());
    // The run's only trial, an earlier step, and standard output.
    let earlier = sandbox.succeed(&[
        "score",
        &run,
        "--trial",
        "pico-10steps-s1",
        "--step",
        "5",
        "pairs.jsonl",
    ]);
    let newest = sandbox.succeed(&["score", &run, "pairs.jsonl"]);
    assert_eq!(newest, written);
    assert_ne!(earlier, written);
    let scaled = sandbox.succeed(&["score", &run, "pairs.jsonl", "--normalize", "centred"]);
    let first: Value = serde_json::from_str(scaled.lines().next().expect("a line")).expect("JSON");
    let centred = first["rewards"].as_array().expect("rewards").iter();
    let sum: f64 = centred.filter_map(Value::as_f64).sum();
    assert!(sum.abs() < 1e-5, "{first}");

    sandbox.write(
        "bad.jsonl",
        &format!("{}\n{{\"prompt\": \"a\"}}\n", lines[0]),
    );
    for (arguments, said) in [
        (
            &["score", &trial, "bad.jsonl"][..],
            "bad.jsonl:2: no text to score",
        ),
        (
            &["score", &trial, "nowhere.jsonl"],
            "nowhere.jsonl can't be read",
        ),
        (
            &["score", &format!("{run}#nano"), "pairs.jsonl"],
            "it has pico-10steps-s1",
        ),
        (&["score", "runs", "pairs.jsonl"], "RUN#TRIAL@STEP"),
        (
            &["serve", &trial, "--address", "0.0.0.0:0"],
            "--tls-certificate",
        ),
        (&["serve", &trial, "--address", "here"], "127.0.0.1:30000"),
    ] {
        let refused = sandbox.refuse(arguments);
        assert!(refused.contains(said), "{arguments:?}: {refused}");
    }

    serve(&sandbox, &trial, &lines[0], &scored[0]["rewards"]);
}

/// Serves a trial, asks for the rewards of a group, and ends it.
fn serve(sandbox: &Sandbox, trial: &str, group: &Value, rewards: &Value) {
    let mut serving = sandbox.command(&["serve", trial, "--address", "127.0.0.1:0"]);
    let mut server = serving.stdout(Stdio::piped()).spawn().expect("it starts");
    let mut said = String::new();
    let stdout = server.stdout.take().expect("it was piped");
    BufReader::new(stdout).read_line(&mut said).expect("a line");
    let (_, address) = said
        .trim()
        .rsplit_once("http://")
        .unwrap_or_else(|| panic!("{said:?}"));
    let (status, answer) = post(address, "/score", &{
        let mut group = group.clone();
        group.as_object_mut().expect("an object").remove("id");
        group
    });
    assert_eq!((status, &answer["rewards"]), (200, rewards));
    let asked = json!({ "prompt": "red", "reference": "map ".repeat(40), "candidates": ["a"] });
    let (_, answer) = post(address, "/score", &asked);
    assert!(
        answer["cut"]["reference"]
            .as_u64()
            .is_some_and(|cut| cut > 0),
        "{answer}"
    );
    let (status, answer) = post(
        address,
        "/score",
        &json!({ "prompt": "a", "candidate": "b" }),
    );
    assert_eq!(status, 400);
    assert!(
        answer["error"]["message"]
            .as_str()
            .is_some_and(|m| m.contains("`candidate`"))
    );
    let pid = rustix::process::Pid::from_child(&server);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it lives");
    assert!(server.wait().expect("it ends").success());
}
