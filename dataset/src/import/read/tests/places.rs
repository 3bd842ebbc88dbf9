//! What files, folders, patterns and stores stand for.

use super::*;
use std::sync::Arc;

fn here(place: &Place) -> Vec<u8> {
    let rows = rows(3);
    for name in [
        "d/b.jsonl",
        "d/a.JSONL",
        "d/sub/c.parquet.gz",
        "d/10.jsonl",
        "e.jsonl",
        "e.txt",
    ] {
        place.write(name, &lines(&rows));
    }
    for name in [
        "d/_SUCCESS",
        "d/.b.jsonl.crc",
        "d/README.md",
        "d/LICENSE",
        "d/sub/.hidden/x.jsonl",
        "d/_delta_log/00.json",
        "d/dataset_info.json",
        "d/picture.png",
        "none/README.md",
    ] {
        place.write(name, b"not read");
    }
    lines(&rows)
}

#[test]
fn folders_hold_what_is_data() {
    let place = Place::new();
    let bytes = here(&place);
    let found = place
        .expand(&[&place.named("d"), &place.named("e.jsonl")])
        .unwrap();
    let names: Vec<_> = found
        .inputs
        .iter()
        .map(|input| input.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "10.jsonl",
            "a.JSONL",
            "b.jsonl",
            "sub/c.parquet.gz",
            "e.jsonl"
        ]
    );
    assert!(
        found
            .inputs
            .iter()
            .all(|input| input.bytes == Some(bytes.len() as u64))
    );
    assert_eq!(found.inputs[3].shown, place.named("d/sub/c.parquet.gz"));
    let mut skipped: Vec<_> = found
        .skipped
        .iter()
        .map(|skipped| skipped.name.clone())
        .collect();
    skipped.sort();
    assert_eq!(skipped.len(), 8);
    assert_eq!(skipped[1], place.named("d/LICENSE"));
    assert_eq!(gather(&found, &Wanted::All).values.len(), 15);

    let error = told(&place.expand(&[&place.named("none")]).unwrap_err());
    assert!(
        error.contains("holds no data: ") && error.contains("README.md is about the data"),
        "{error}"
    );
    // A file that is named alone is read whatever it is called.
    assert_eq!(place.names(&[&place.named("e.txt")]), ["e.txt"]);
    let shell = [
        place.named("d/b.jsonl"),
        place.named("d/_SUCCESS"),
        place.named("d/.b.jsonl.crc"),
    ];
    let found = place.expand(&[&shell[0], &shell[1], &shell[2]]).unwrap();
    assert_eq!((found.inputs.len(), found.skipped.len()), (1, 2));
}

#[test]
fn a_corpus_is_read_without_what_it_says_of_itself() {
    let place = Place::new();
    let answers = lines(&rows(3));
    for file in ["corpus.json", "tokenizer.json", "quarantine.jsonl"] {
        place.write(&format!("made/{file}"), b"{}");
    }
    place.write("made/train/0.jsonl", &answers);
    for given in ["made", "*", "made/*"] {
        let found = place.expand(&[&place.named(given)]).unwrap();
        assert_eq!(found.inputs.len(), 1, "{given}");
        assert_eq!(found.skipped.len(), 3, "{given}");
        assert!(found.skipped[0].name.ends_with("made/corpus.json"));
    }
    let refused = told(&place.expand(&[&place.named("made/*.json")]).unwrap_err());
    assert!(
        refused.contains("is what a corpus says of itself"),
        "{refused}"
    );
    // Alone it is a file of that name.
    place.write("theirs/corpus.json", &answers);
    assert_eq!(place.names(&[&place.named("theirs")]), ["corpus.json"]);
}

#[test]
fn patterns_are_expanded() {
    let place = Place::new();
    here(&place);
    assert_eq!(
        place.names(&[&place.named("d/*.jsonl")]),
        ["10.jsonl", "b.jsonl"]
    );
    assert_eq!(
        place.names(&[&place.named("d/[ab].*")]),
        ["a.JSONL", "b.jsonl"]
    );
    assert_eq!(place.names(&[&place.named("e.*")]), ["e.jsonl"]);
    assert_eq!(place.names(&[&place.named("*.txt")]), ["e.txt"]);
    let all = ["10.jsonl", "a.JSONL", "b.jsonl", "sub/c.parquet.gz"];
    assert_eq!(place.names(&[&place.named("d/*")]), all);
    assert_eq!(
        place.names(&[&place.named("d/**/*.gz")]),
        ["sub/c.parquet.gz"]
    );
    // A name may look like a pattern.
    place.write("x [1]*.jsonl", b"{}\n");
    assert_eq!(
        place.names(&[&place.named("x [1]*.jsonl")]),
        ["x [1]*.jsonl"]
    );
    let error = told(&place.expand(&[&place.named("d/*.csv")]).unwrap_err());
    assert!(
        error.contains("nothing matches ") && error.contains("d/*.csv"),
        "{error}"
    );
}

#[test]
fn what_is_missing_is_named_with_what_is_near() {
    let place = Place::new();
    here(&place);
    let error = |name: &str| told(&place.expand(&[&place.named(name)]).unwrap_err());
    let said = error("f.jsonl");
    assert!(said.contains("f.jsonl; did you mean e.jsonl"), "{said}");
    let said = error("dd/sub/c.parquet.gz");
    assert!(
        said.contains("; did you mean d") || said.contains(" has d, e.jsonl"),
        "{said}"
    );
    let said = error("zzz");
    assert!(said.contains(" has d, e.jsonl, e.txt, none"), "{said}");
    let said = told(&place.expand(&["ftp://host/file"]).unwrap_err());
    assert!(said.contains("ftp://host/file"), "{said}");
}

#[test]
fn an_input_is_known_by_what_it_is() {
    let place = Place::new();
    let path = place.write("a.jsonl", b"{}\n");
    std::os::unix::fs::symlink(&path, place.path().join("link.jsonl")).unwrap();
    let identity = |name: &str| place.expand(&[name]).unwrap().inputs[0].identity.clone();
    let first = identity(&place.named("a.jsonl"));
    assert_eq!(identity(&place.named("link.jsonl")), first);
    assert_eq!(
        identity(&format!("file://{}", place.named("a.jsonl"))),
        first
    );
    place.write("a.jsonl", b"{} \n");
    assert_ne!(identity(&place.named("a.jsonl")), first);
}

#[test]
fn a_stream_is_kept_until_it_is_read() {
    let place = Place::new();
    let temp: Arc<Path> = place.path().join("temp").into();
    let rows = rows(5);
    let packed = gzip(&lines(&rows));
    let input = super::super::expand::spool(&mut &packed[..], &temp).unwrap();
    let again = super::super::expand::spool(&mut &packed[..], &temp).unwrap();
    assert_eq!(input.identity, again.identity);
    assert_eq!(input.shown, "standard input");
    let found = Expanded {
        inputs: vec![input],
        skipped: vec![],
    };
    for _ in 0..2 {
        assert_eq!(gather(&found, &Wanted::All).values, rows);
    }
    drop((found, again));
    assert_eq!(std::fs::read_dir(&temp).unwrap().count(), 0);
}

#[test]
fn sizes_of_texts_are_estimated_by_content() {
    let place = Place::new();
    let estimate = |bytes: &[u8]| {
        let path = place.write("in", bytes);
        let found = place.expand(&[path.to_str().unwrap()]).unwrap();
        found.inputs[0].text_estimate().unwrap() / bytes.len() as u64
    };
    assert_eq!(estimate(&lines(&rows(9))), 1);
    assert_eq!(estimate(&super::formats::zstd(&lines(&rows(9)))), 8);
    assert_eq!(estimate(&gzip(&lines(&rows(9)))), 5);
}
