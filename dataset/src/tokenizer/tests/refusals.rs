//! Files that are no tokenizers, and tokenizers that no corpus is made with.

use super::*;

#[test]
fn a_tokenizer_without_the_special_tokens_names_them() {
    let renamed = trained().to_string().replace("<|reward|>", "<|other|>");
    let error = Tokenizer::from_bytes(renamed.as_bytes()).unwrap_err();
    assert!(
        matches!(&error, Error::Missing { missing } if missing == &["<|reward|>"]),
        "{error}"
    );
    assert!(matches!(
        Tokenizer::train(&texts(), 100),
        Err(Error::Vocabulary { least: 259, .. })
    ));
}

#[test]
fn what_is_no_tokenizer_is_called_by_its_name() {
    let kinds: [(&[u8], &str); 13] = [
        (b"", "an empty file"),
        (b"[]", "a JSON array"),
        (b"\"gpt2\"", "a JSON string"),
        (b"{}", "a JSON object without a model"),
        (
            b"<!DOCTYPE html><html>Access is restricted</html>",
            "an HTML page",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            "git lfs pull",
        ),
        (
            b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02",
            "a SentencePiece model",
        ),
        (b"#version: 0.2\n\xc4\xa0 t\n", "merges.txt"),
        (b"IQ== 0\nIg== 1\n", "a tiktoken vocabulary"),
        (b"\xff\xfe{\0}\0", "UTF-16"),
        (br#"{"a": 0, "b": 1}"#, "vocab.json"),
        (
            br#"{"bos_token": "<s>", "tokenizer_class": "X"}"#,
            "tokenizer_config.json",
        ),
        (br#"{"version": "1.0", "added"#, "no JSON"),
    ];
    for (bytes, name) in kinds {
        let said = given(bytes).unwrap_err().to_string();
        assert!(said.contains(name), "{said}");
    }
}

#[test]
fn a_folder_stands_for_the_tokenizer_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let said = |path: &Path| Tokenizer::given(path).unwrap_err().to_string();
    std::fs::write(folder.path().join("tokenizer.model"), "").unwrap();
    let without = said(folder.path());
    assert!(
        without.contains("it holds tokenizer.model") && without.contains("save_pretrained"),
        "{without}"
    );
    assert!(said(&folder.path().join("nowhere.json")).contains("there is no "));
    // Another program's byte order mark is no part of the tokenizer.
    let marked = format!("\u{feff}{}", trained());
    std::fs::write(folder.path().join("tokenizer.json"), marked).unwrap();
    assert_eq!(
        Tokenizer::given(folder.path()).unwrap().bytes,
        trained().to_string().into_bytes()
    );
}

#[test]
fn ids_are_the_rows_of_a_table_without_holes() {
    let far = changed(|json| json["added_tokens"][1]["id"] = json!(u32::MAX));
    let said = refused(&far);
    assert!(
        said.contains("'<|reward|>' has the id 4294967295, but its place in the vocabulary is 1"),
        "{said}"
    );
    let twice = changed(|json| {
        json["added_tokens"]
            .as_array_mut()
            .unwrap()
            .push(added(900, "<s>", true))
    });
    let said = refused(&twice);
    assert!(
        said.contains("'<s>' has the id 900, but its place in the vocabulary is 0"),
        "{said}"
    );
    let mut hole = words("[UNK]");
    hole["model"]["vocab"] = json!({"the": 0, "[UNK]": 1, "reward": 9});
    hole["added_tokens"] = json!([
        added(10, "<s>", true),
        added(11, SPLIT, true),
        added(12, REWARD, true)
    ]);
    hole["model"]["vocab"]["<s>"] = json!(10);
    hole["model"]["vocab"][SPLIT] = json!(11);
    hole["model"]["vocab"][REWARD] = json!(12);
    let said = refused(&hole);
    assert!(
        said.contains("'reward' has the id 9, where 2 is the next one"),
        "{said}"
    );
    assert!(given(trained().to_string()).is_ok() && given(llama().to_string()).is_ok());
}

#[test]
fn no_text_is_lost_without_a_trace() {
    let mut silent = llama();
    silent["model"]["unk_token"] = Value::Null;
    silent["model"]["byte_fallback"] = json!(false);
    let said = refused(&silent);
    assert!(
        said.contains("such as 'A' 'B' 'C' 'D' 'E', without a trace"),
        "{said}"
    );
    let bytes = changed(|json| {
        let vocab = json["model"]["vocab"].as_object_mut().unwrap();
        let id = vocab.remove("ð").unwrap();
        vocab.insert("qqq".into(), id);
    });
    let said = refused(&bytes);
    assert!(said.contains("such as 0xF0, without a trace"), "{said}");
    let said = refused(&words("[MISSING]"));
    assert!(
        said.contains("its unk_token '[MISSING]' is not in it"),
        "{said}"
    );
    assert!(given(words("[UNK]").to_string()).is_ok());
}

#[test]
fn a_special_token_that_text_can_spell_is_refused() {
    // Only in the middle of a word: at its beginning another merge comes first.
    let mut forgeable = llama();
    let merges = [["▁", "<"], ["<", "s"], ["<s", ">"]];
    let vocab = forgeable["model"]["vocab"].as_object_mut().unwrap();
    let next = vocab.len();
    vocab.insert("▁<".into(), json!(next));
    vocab.insert("<s".into(), json!(next + 1));
    forgeable["model"]["merges"] = json!(merges);
    for (at, id) in [(3, next + 2), (4, next + 3)] {
        forgeable["added_tokens"][at]["id"] = json!(id);
    }
    let said = refused(&forgeable);
    assert!(
        said.contains("turns plain text into the special token <s> (1)"),
        "{said}"
    );
}

#[test]
fn what_is_switched_off_or_may_surprise_is_said() {
    let json = changed(|json| {
        json["truncation"] =
            json!({"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0});
        json["padding"] = json!({
            "strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "[PAD]",
        });
        json["model"]["dropout"] = json!(0.5);
        json["added_tokens"][0]["special"] = json!(false);
        json["added_tokens"][1]["lstrip"] = json!(true);
        let next = json["model"]["vocab"].as_object().unwrap().len() as u64;
        let words = json["added_tokens"].as_array_mut().unwrap();
        words.push(added(next, "the reward", false));
    });
    let GivenTokenizer { tokenizer, .. } = given(json.to_string()).unwrap();
    let notes = tokenizer.notes().join("\n");
    for part in [
        "truncation to 8 tokens is off",
        "padding is off",
        "dropout of 0.5 is off",
        "'<s>': not marked as special",
        "'<|reward|>': would take the spaces",
        "'the reward': added tokens",
    ] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
    let text = "one the reward is a text of many more than eight tokens";
    let plain = made(&trained());
    let ids = tokenizer.encode(text).unwrap();
    assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    assert!(
        ids.len() > 8 && ids.contains(&(plain.vocab_size())),
        "{ids:?}"
    );
    assert!(plain.notes().is_empty(), "{:?}", plain.notes());
}
