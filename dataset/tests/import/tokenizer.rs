//! The tokenizer of an import, trained or given.

use super::*;

#[tokio::test]
async fn a_text_without_end_is_not_most_of_what_the_tokenizer_learns() {
    let folder = tempfile::tempdir().unwrap();
    let mut rows = trajectories();
    // Behind its first MiB it is about something else.
    rows[0].response = "word ".repeat((1 << 20) / 5) + &"zebra ".repeat(50_000);
    let input = write(&folder, "rows.jsonl", json_lines(&rows).as_bytes());
    let output = folder.path().join("corpus");
    imported(options(&input, &output)).await.unwrap();
    let corpus = Corpus::open(output.to_str().unwrap()).await.unwrap();
    let tokens = |text: &str| corpus.tokenizer().encode(text).unwrap().len();
    assert_eq!(tokens(" word"), 1);
    assert!(tokens(" zebra") > 1);
}

#[tokio::test]
async fn a_given_tokenizer_is_tried_before_anything_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let rows = trajectories();
    let input = write(&folder, "rows.jsonl", json_lines(&rows).as_bytes());
    let first = folder.path().join("first");
    let own = imported(options(&input, &first)).await.unwrap();
    // The folder of another corpus has one.
    let of = |tokenizer: PathBuf| ImportOptions {
        tokenizer: Some(tokenizer),
        ..options(&input, &folder.path().join("second"))
    };
    let second = imported(of(first.clone())).await.unwrap();
    assert_eq!(second.tokenizer, own.tokenizer);
    std::fs::remove_dir_all(folder.path().join("second")).unwrap();

    let page = write(&folder, "page.json", b"<!doctype html>");
    let begun = std::sync::atomic::AtomicBool::new(false);
    let reads = |_: Progress| begun.store(true, std::sync::atomic::Ordering::Relaxed);
    let error = import(of(page), &reads).await.unwrap_err();
    let said = told(&error);
    assert!(
        said.contains("page.json: this is an HTML page, not a tokenizer.json; download"),
        "{said}"
    );
    assert!(!begun.into_inner());
}
