//! Records of JSON: what is wrong costs itself only, what can be repaired is, and counted.

use super::*;

fn one(text: &str, wanted: &Wanted) -> Gathered {
    let place = Place::new();
    let path = place.write("in.jsonl", text.as_bytes());
    place.read_named(path.to_str().unwrap(), wanted)
}

#[test]
fn only_wanted_columns_are_built() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let text =
        format!("{{\"junk\": {deep}, \"policy\": \"m\", \"more\": {{\"a\": \"\\ud800\"}}}}\n");
    let read = one(&text.repeat(2), &wanted(&["policy", "absent"]));
    assert_eq!(
        read.values,
        vec![json!({"policy": "m"}).as_object().unwrap().clone(); 2]
    );
    assert_eq!(read.columns, ["junk", "policy", "more"]);
    assert_eq!((read.repairs, read.malformed.len()), (0, 0));

    // Where it is wanted, depth has an end.
    let read = one(&text, &Wanted::All);
    assert_eq!(read.malformed.len(), 1);
    assert!(
        read.malformed[0].contains("nested too deep"),
        "{:?}",
        read.malformed
    );
}

#[test]
fn what_no_json_can_hold_is_replaced_and_counted() {
    let text = r#"{"a": NaN, "b": "NaN \ud83d\ude00 \ud800 \\ud800", "c": [-Infinity, 1], "d": "x"}
{"a": 1, "b": "\udc00\ud800\udc00", "c": Infinity, "junk": NaN}
{"a": 2, "junk": [NaN, "\ud800"]}
{"a": NaNa, "b": 3}
"#;
    let read = one(text, &wanted(&["a", "b", "c", "d"]));
    let expected = json!([
        {"a": null, "b": "NaN \u{1F600} \u{fffd} \\ud800", "c": [null, 1], "d": "x"},
        {"a": 1, "b": "\u{fffd}\u{10000}", "c": null},
        {"a": 2},
    ]);
    assert_eq!(json!(read.values), expected);
    // Those of columns that nobody wants don't count.
    assert_eq!(read.repairs, 3 + 2);
    assert_eq!(read.malformed.len(), 1, "{:?}", read.malformed);
    assert!(
        read.malformed[0].starts_with("line 4 is not JSON: "),
        "{:?}",
        read.malformed
    );
}

#[test]
fn whole_numbers_keep_their_digits() {
    let text = r#"{"id": 123456789012345678901234567890, "n": 18446744073709551615, "f": 1e300, "l": [1]}
{"id": -99999999999999999999, "n": -9223372036854775808, "f": 12345678901234567890.5}
"#;
    let read = one(text, &Wanted::All);
    let expected = json!([
        {"id": "123456789012345678901234567890", "n": u64::MAX, "f": 1e300, "l": [1]},
        {"id": "-99999999999999999999", "n": i64::MIN, "f": 12345678901234567890.5},
    ]);
    assert_eq!(json!(read.values), expected);
    assert_eq!(read.repairs, 0);
}

#[test]
fn a_line_that_is_wrong_costs_itself_only() {
    let good = "{\"a\": 1}";
    let wrong = [
        ("[1, 2]", "is not a JSON object but a list"),
        ("\"text\"", "is not a JSON object but text"),
        ("12", "is not a JSON object but a number"),
        ("null", "is not a JSON object but nothing (null)"),
        (
            "True, or so it seems",
            "is not a JSON object but \"True, or so it s\"…",
        ),
        ("{\"a\": 1", "breaks off before its object is closed"),
        (
            "{\"a\": 1}{\"a\": 2}",
            "is not JSON: trailing characters at column 9",
        ),
        ("{'a': 1}", "is not JSON: key must be a string at column 2"),
    ];
    let mut text = format!("{good}\n");
    for (line, _) in wrong {
        text += &format!("{line}\n{good}\n");
    }
    let read = one(&text, &Wanted::All);
    assert_eq!(read.values.len(), wrong.len() + 1);
    for (at, (malformed, (_, why))) in read.malformed.iter().zip(wrong).enumerate() {
        assert_eq!(*malformed, format!("line {} {why}", 2 * at + 2));
    }
    assert_eq!(read.malformed.len(), wrong.len());
    assert_eq!(read.places[1], "line 3");

    // The first line too.
    let read = one(&format!("{{\"a\": \"x\n{good}\n{good}\n"), &Wanted::All);
    assert_eq!((read.values.len(), read.malformed.len()), (2, 1));
    let read = one(&format!("oh, no\n{good}\n"), &Wanted::All);
    assert_eq!(
        (read.values.len(), read.malformed.len()),
        (1, 1),
        "{read:?}"
    );
    let read = one(&format!("{good}\n{good}\n{{\"a\": \"cut of"), &Wanted::All);
    assert_eq!(read.malformed, ["line 3 is cut off at the end of the file"]);

    let place = Place::new();
    let latin1 = [b"{\"a\": \"".as_slice(), b"Gr\xf6\xdfe\"}\n{\"a\": 1}\n"].concat();
    let read = place.read(&latin1);
    assert_eq!(
        read.malformed,
        ["line 1 holds bytes that are not UTF-8 text"]
    );
    assert_eq!(read.values.len(), 1);
}

#[test]
fn lists_and_objects_over_lines_go_on_after_damage() {
    let read = one(
        "[{\"a\": 1}, 5, {\"a\": 2}, \"x\", [3], {\"a\": 3}]",
        &Wanted::All,
    );
    assert_eq!(json!(read.values), json!([{"a": 1}, {"a": 2}, {"a": 3}]));
    let said: Vec<&str> = read.malformed.iter().map(String::as_str).collect();
    assert_eq!(said[0], "object 2 is not a JSON object but a number");
    assert_eq!(read.places, ["object 1", "object 3", "object 6"]);

    let read = one("[{\"a\": 1},\n{\"a\": 2},\n{\"a\"", &Wanted::All);
    assert_eq!((read.values.len(), read.malformed.len()), (2, 1));
    assert_eq!(
        read.malformed,
        ["object 3 is cut off at the end of the file"]
    );
    // A list that isn't closed may have been longer.
    let read = one("[{\"a\": 1},\n{\"a\": 2},\n", &Wanted::All);
    assert_eq!(
        read.malformed,
        ["object 3 is cut off at the end of the file"]
    );

    let pretty = "{\n  \"a\": 1\n}\n{\n  \"a\": [2\n}\n{\n  \"a\": 3\n}\n";
    let read = one(pretty, &Wanted::All);
    assert_eq!(json!(read.values), json!([{"a": 1}, {"a": 3}]));
    assert_eq!(read.malformed.len(), 1);
}

#[test]
fn tables_of_text_say_what_is_wrong() {
    let text = "policy,prompt,response\nm,\"a\nb\",c\nm,a\nm,a,b\n";
    let read = one(text, &wanted(&["prompt", "response"]));
    assert_eq!(
        json!(read.values),
        json!([
            {"prompt": "a\nb", "response": "c"},
            {"prompt": "a", "response": "b"},
        ])
    );
    assert_eq!(read.columns, ["policy", "prompt", "response"]);
    assert_eq!(read.places, ["line 2", "line 5"]);
    assert_eq!(
        read.malformed,
        ["line 4 has 2 values, but the first line names 3 columns"]
    );
    let read = one("policy,a,a\n1,2,3\n", &Wanted::All);
    assert!(read.error.unwrap().contains("names two columns 'a'"));
    let place = Place::new();
    let read = place.read(b"policy;text\nm;Gr\xf6\xdfe\nm;x\n");
    assert_eq!(
        read.malformed,
        ["line 2 holds bytes in the column 'text' that are not UTF-8 text"]
    );
    assert_eq!(read.values.len(), 1);
}

#[test]
fn a_record_is_kept_as_it_was() {
    let place = Place::new();
    let kept = |name: &str, bytes: &[u8]| {
        let path = place.write(name, bytes);
        let found = place.expand(&[path.to_str().unwrap()]).unwrap();
        let mut kept = Vec::new();
        read(&found.inputs[0], &Wanted::All, &mut |batch| {
            let texts = batch.records.iter().map(|record| record.to_json());
            kept.extend(texts.map(|text| String::from_utf8_lossy(&text).into_owned()));
            Ok(true)
        })
        .unwrap();
        kept
    };
    assert_eq!(
        kept("a", b"{\"a\" : NaN}\r\n{\"b\"\n"),
        ["{\"a\" : NaN}", "{\"b\""]
    );
    assert_eq!(
        kept("b", b"a,b\n1,\"x\ny\"\n1\n"),
        [r#"{"a":"1","b":"x\ny"}"#, r#"["1"]"#]
    );
}

#[test]
fn reading_ends_when_enough_was_read() {
    let place = Place::new();
    let path = place.write("in.jsonl", &lines(&rows(60_000)));
    let found = place.expand(&[path.to_str().unwrap()]).unwrap();
    let mut batches = 0;
    read(&found.inputs[0], &Wanted::All, &mut |batch| {
        batches += usize::from(!batch.records.is_empty());
        Ok(false)
    })
    .unwrap();
    assert_eq!(batches, 1);
    let failed = read(&found.inputs[0], &Wanted::All, &mut |_| Err(Error::NoInput));
    assert!(matches!(failed, Err(Error::NoInput)));
}
