//! An import that is stopped goes on, and nothing that is stale is used.

use super::*;

/// What an import left in its folder for such things.
fn leftovers(folder: &TempDir) -> usize {
    let entries = std::fs::read_dir(folder.path()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name());
    names
        .filter(|name| name.to_str().unwrap().starts_with("polestar-import-"))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_is_stopped_anywhere_goes_on_and_makes_the_same_corpus() {
    let folder = tempfile::tempdir().unwrap();
    let rows = trajectories();
    let thirds = rows.chunks(rows.len() / 3).enumerate();
    let inputs: Vec<PathBuf> = thirds
        .map(|(at, rows)| write(&folder, &format!("{at}.jsonl"), json_lines(rows).as_bytes()))
        .collect();
    let of = |name: &str| ImportOptions {
        inputs: inputs.iter().map(|input| text(input)).collect(),
        memory: 1 << 16,
        layout: FileLayout {
            row_group_rows: 40,
            file_bytes: 1,
            ..FileLayout::default()
        },
        ..options(&inputs[0], &folder.path().join(name))
    };
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let count = |told: &Arc<std::sync::Mutex<Vec<Progress>>>| {
        let told = Arc::clone(told);
        move |progress: Progress| told.lock().unwrap().push(progress)
    };
    let undisturbed = import(of("undisturbed"), &count(&told)).await.unwrap();
    let files = |split| {
        undisturbed
            .files
            .iter()
            .filter(|f| f.split == split)
            .count()
    };
    assert!(files(FileSplit::Train) > 3 && files(FileSplit::Heldout) > 1);
    let moments = told.lock().unwrap().len();

    let mut went_on = std::collections::BTreeMap::new();
    for moment in 0..moments {
        let name = format!("stopped-{moment}");
        let stopped = of(&name);
        let died = tokio::task::spawn_blocking(move || {
            let left = std::cell::Cell::new(moment);
            let dies = |_: Progress| match left.get() {
                0 => panic!("the process is killed here"),
                more => left.set(more - 1),
            };
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(import(stopped, &dies)).map(drop)
        });
        assert!(died.await.unwrap_err().is_panic(), "it was stopped");
        assert_eq!(leftovers(&folder), 1);
        told.lock().unwrap().clear();
        let resumed = import(of(&name), &count(&told)).await.unwrap();
        assert_eq!(resumed, undisturbed, "stopped at moment {moment}");
        for progress in told.lock().unwrap().iter().filter(|p| p.before > 0) {
            *went_on.entry(format!("{:?}", progress.stage)).or_insert(0) += 1;
        }
        assert_eq!(
            leftovers(&folder),
            0,
            "a folder that is of no use is removed"
        );
        let there = Store::open(folder.path().join(&name).to_str().unwrap()).unwrap();
        let verification = verify(&there).await.unwrap();
        assert!(verification.sound(), "{verification}");
    }
    assert!(
        went_on.contains_key("Read") && went_on.contains_key("Write"),
        "it did not only begin again: {went_on:?}"
    );
}

#[tokio::test]
async fn what_is_read_is_not_read_again_when_more_comes_or_options_change() {
    let folder = tempfile::tempdir().unwrap();
    let rows = trajectories();
    let (first, second) = rows.split_at(rows.len() / 2);
    let first = write(&folder, "first.jsonl", json_lines(first).as_bytes());
    let second = write(&folder, "second.jsonl", json_lines(second).as_bytes());
    let output = folder.path().join("corpus");
    let wrong = ImportOptions {
        aliases: vec![vec!["a".into(), "nobody".into()]],
        ..options(&first, &output)
    };
    let refused = told(&imported(wrong.clone()).await.unwrap_err());
    assert!(refused.contains("'nobody'"), "{refused}");
    let both = |output: &Path| ImportOptions {
        inputs: vec![text(&first), text(&second)],
        ..options(&first, output)
    };
    let begun = std::cell::RefCell::new(None);
    let first_progress = |progress: Progress| {
        begun.borrow_mut().get_or_insert(progress);
    };
    let resumed = import(both(&output), &first_progress).await.unwrap();
    let begun = begun.take().unwrap();
    assert_eq!(begun.stage, Stage::Read);
    assert_eq!(begun.before, std::fs::metadata(&first).unwrap().len());
    let anew = folder.path().join("anew");
    assert_eq!(resumed, imported(both(&anew)).await.unwrap());

    // Rows that are gone, though it is noted that they are read.
    let cut = folder.path().join("cut");
    let wrong = ImportOptions {
        output: cut.to_str().unwrap().into(),
        ..wrong
    };
    assert!(imported(wrong).await.is_err());
    let left = polestar_dataset::leftovers(&both(&cut)).unwrap().0;
    let mut rows = 0;
    for entry in std::fs::read_dir(left).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "rows")
        {
            rows += 1;
            std::fs::remove_file(path).unwrap();
        }
    }
    assert_eq!(rows, 1);
    assert_eq!(imported(both(&cut)).await.unwrap(), resumed);

    let twice = ImportOptions {
        inputs: vec![text(&first), text(&second), text(&first)],
        ..options(&first, &folder.path().join("twice"))
    };
    let refused = told(&imported(twice).await.unwrap_err());
    assert!(refused.contains("first.jsonl is given twice"), "{refused}");
}

#[tokio::test]
async fn what_was_stored_is_written_again_if_it_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let input = write(
        &folder,
        "rows.jsonl",
        json_lines(&trajectories()).as_bytes(),
    );
    let of = |name: &str| ImportOptions {
        layout: FileLayout {
            row_group_rows: 40,
            file_bytes: 1,
            ..FileLayout::default()
        },
        memory: 1 << 14,
        ..options(&input, &folder.path().join(name))
    };
    let undisturbed = imported(of("undisturbed")).await.unwrap();
    let stop_late = async |options: ImportOptions| {
        let died = tokio::task::spawn_blocking(move || {
            let dies = |progress: Progress| {
                let late = progress.stage == Stage::Write && 3 * progress.done > 2 * progress.total;
                assert!(!late, "the process is killed here");
            };
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(import(options, &dies)).map(drop)
        });
        assert!(died.await.unwrap_err().is_panic());
    };
    stop_late(of("stopped")).await;
    let stored = folder.path().join("stopped").join("train-00000.parquet");
    std::fs::remove_file(&stored).unwrap();
    assert_eq!(imported(of("stopped")).await.unwrap(), undisturbed);
    // Another recipe's files have the same names, and may have the same sizes.
    stop_late(of("other")).await;
    let reseeded = ImportOptions {
        seed: 7,
        ..of("other")
    };
    stop_late(reseeded).await;
    assert_eq!(imported(of("other")).await.unwrap(), undisturbed);
    for name in ["stopped", "other"] {
        let there = Store::open(folder.path().join(name).to_str().unwrap()).unwrap();
        assert!(verify(&there).await.unwrap().sound());
    }
}
