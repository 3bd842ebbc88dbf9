//! Labelled data: every usual form of it becomes the same pairs, no row is lost in silence, and an epoch of
//! training meets each pair once.

use std::collections::BTreeSet;

use polestar_dataset::import::QUARANTINE_KEY;
use polestar_dataset::{
    BadRows, Column, CorpusKind, PreviewOptions, ReferenceFrom, inspect_labelled, preview,
};
use serde_json::{Value, json};

use super::*;

const PROMPTS: usize = 30;

/// Of each prompt the best answer, a good one and a bad one.
fn answers(prompt: usize) -> [String; 3] {
    ["best", "good", "bad"]
        .map(|how| format!("a {how} answer to {prompt}, {}", "so ".repeat(prompt)))
}

fn lines(record: impl Fn(usize) -> Vec<Value>) -> String {
    let lines = (0..PROMPTS).flat_map(record).map(|it| it.to_string());
    lines.collect::<Vec<_>>().join("\n")
}

fn said(role: &str, text: &str) -> Value {
    json!([{"role": role, "content": text}])
}

fn asked(prompt: usize) -> String {
    format!("what is {prompt}?")
}

fn labelled(input: &Path, output: &Path) -> ImportOptions {
    ImportOptions {
        labelled: true,
        heldout_policies: vec![],
        aliases: vec![],
        layout: FileLayout {
            row_group_rows: 7,
            ..FileLayout::default()
        },
        ..options(input, output)
    }
}

/// Reference, chosen and rejected of every pair, in order.
async fn pairs(output: &Path) -> Vec<[String; 3]> {
    let corpus = Corpus::open(output.to_str().unwrap()).await.unwrap();
    let all = PreviewOptions {
        triplets: corpus.manifest().counts.train_prompts as usize,
        seed: 0,
        max_prompt: None,
        max_response: None,
    };
    let mut found: Vec<[String; 3]> = preview(&corpus, &all)
        .await
        .unwrap()
        .into_iter()
        .map(|it| [it.reference.text, it.chosen.text, it.rejected.text])
        .collect();
    found.sort();
    found
}

#[tokio::test]
async fn every_usual_form_gives_the_pairs_of_the_papers_fine_tuning() {
    let folder = tempfile::tempdir().unwrap();
    let polar = lines(|n| {
        let [best, good, bad] = answers(n);
        vec![json!({
            "prompt": said("user", &asked(n)), "reference": said("assistant", &best),
            "chosen": said("assistant", &good), "rejected": said("assistant", &bad), "wrapper": "sft",
        })]
    });
    let conversations = lines(|n| {
        let [best, good, bad] = answers(n);
        let whole = |answer: &str| {
            json!([
                {"role": "user", "content": asked(n)}, {"role": "assistant", "content": answer},
            ])
        };
        vec![json!({"chosen": whole(&good), "rejected": whole(&bad), "reference": best})]
    });
    let ranked = lines(|n| {
        let completions = answers(n).into_iter().zip([5.0, 4.0, 1.5]).rev();
        let completions = completions
            .map(|(text, score)| json!({"model": "m", "response": text, "overall_score": score}));
        vec![json!({"instruction": asked(n), "completions": completions.collect::<Vec<_>>()})]
    });
    let rated = lines(|n| {
        let rows = answers(n).into_iter().zip([4, 3, 0]);
        let rows = rows.map(|(text, score)| {
            json!({"prompt": asked(n), "response": text, "helpfulness": score, "verbosity": 2})
        });
        rows.collect()
    });
    let mut found: Vec<(Vec<[String; 3]>, Manifest)> = Vec::new();
    for (name, text) in [
        ("polar", polar),
        ("conversations", conversations),
        ("ranked", ranked),
        ("rated", rated),
    ] {
        let input = write(&folder, &format!("{name}.jsonl"), text.as_bytes());
        let output = folder.path().join(name);
        let manifest = imported(labelled(&input, &output)).await;
        let manifest = manifest.unwrap_or_else(|error| panic!("{name}: {}", told(&error)));
        assert_eq!(manifest.kind, CorpusKind::Labelled);
        let store = Store::open(output.to_str().unwrap()).unwrap();
        let verification = verify(&store).await.unwrap();
        assert!(verification.sound(), "{name}: {verification}");
        let account = Accounts(&manifest.inputs).total();
        assert!(
            account.is_balanced() && account.kept == account.answers,
            "{account:?}"
        );
        found.push((pairs(&output).await, manifest));
    }
    let (first, manifest) = &found[0];
    assert_eq!(first.len(), PROMPTS - 8);
    assert_eq!(manifest.counts.heldout_prompts, 8);
    for [best, good, bad] in first {
        assert!(best.contains("best") && good.contains("good") && bad.contains("bad"));
    }
    for (pairs, other) in &found {
        assert_eq!(pairs, first);
        // The same pairs are the same corpus, whatever form they came in.
        assert_eq!(other.fingerprint, manifest.fingerprint);
    }
}

#[tokio::test]
async fn no_row_is_lost_in_silence() {
    let folder = tempfile::tempdir().unwrap();
    let pair = |n: usize| {
        let [_, good, bad] = answers(n);
        json!({"prompt": asked(n), "chosen": good, "rejected": bad, "subset": format!("s{}", n % 2)})
    };
    let mut text = lines(|n| vec![pair(n)]);
    let odd = [
        pair(3).to_string(),
        json!({"prompt": asked(1), "chosen": "same", "rejected": "same", "subset": "s1"}).to_string(),
        json!({"prompt": asked(1), "chosen": " \n", "rejected": "x", "subset": "s1"}).to_string(),
        json!({"prompt": asked(1), "chosen": "x", "subset": "s1"}).to_string(),
        json!({"prompt": asked(1), "chosen": "x", "rejected": null, "subset": "s1"}).to_string(),
        "{\"prompt\": ".to_owned(),
        // What is preferred here is rejected elsewhere: kept, and told.
        json!({"prompt": asked(2), "chosen": answers(2)[2], "rejected": answers(2)[1], "subset": "s0"})
            .to_string(),
    ];
    text += &format!("\n{}", odd.join("\n"));
    let input = write(&folder, "pairs.jsonl", text.as_bytes());
    let output = folder.path().join("out");

    // What stands for the reference is for the user to say.
    let refused = imported(labelled(&input, &output)).await.unwrap_err();
    assert!(
        told(&refused).contains("--reference best"),
        "{}",
        told(&refused)
    );
    let with = |reference, bad_rows| {
        let mut options = labelled(&input, &output);
        options.columns.reference = Some(reference);
        ImportOptions {
            bad_rows,
            ..options
        }
    };
    let refused = imported(with(ReferenceFrom::None, BadRows::Refuse))
        .await
        .unwrap_err();
    let refused = told(&refused);
    assert!(
        refused.contains("line 34") && refused.contains("rejected"),
        "{refused}"
    );
    let unlabelled = ImportOptions {
        labelled: false,
        ..with(ReferenceFrom::None, BadRows::Refuse)
    };
    let refused = imported(unlabelled).await.unwrap_err().to_string();
    assert!(
        refused.contains("--reference is of labelled records"),
        "{refused}"
    );
    let mut policies = with(ReferenceFrom::None, BadRows::Quarantine);
    policies.heldout_policy_count = 1;
    let refused = imported(policies).await.unwrap_err().to_string();
    assert!(refused.contains("--heldout-policies"), "{refused}");

    let manifest = imported(with(ReferenceFrom::None, BadRows::Quarantine))
        .await
        .unwrap();
    let account = Accounts(&manifest.inputs).total();
    assert!(account.is_balanced());
    let bins = (account.records, account.unmapped, account.malformed);
    assert_eq!(bins, (PROMPTS as u64 + 7, 2, 1));
    let bins = (
        account.repeats,
        account.unpaired,
        account.blank,
        account.kept,
    );
    assert_eq!(bins, (1, 1, 1, PROMPTS as u64 + 1));
    assert_eq!(manifest.counts.trajectories, account.kept);
    let set_aside = std::fs::read_to_string(output.join(QUARANTINE_KEY)).unwrap();
    assert_eq!(set_aside.lines().count(), 3);
    let corpus = Corpus::open(output.to_str().unwrap()).await.unwrap();
    let inspection = inspect_labelled(&corpus).await.unwrap();
    assert_eq!(inspection.contradicted, 1);
    let subsets: Vec<_> = inspection
        .subsets
        .iter()
        .map(|it| (it.pairs(), it.referenced))
        .collect();
    assert_eq!(subsets, [(16, 0), (15, 0)]);

    let mut best = with(ReferenceFrom::Best, BadRows::Skip);
    best.output = folder.path().join("best").to_str().unwrap().into();
    let output = PathBuf::from(&best.output);
    imported(best).await.unwrap();
    for [reference, chosen, _] in pairs(&output).await {
        assert_eq!(reference, chosen);
    }
}

#[tokio::test]
async fn ranks_without_a_preference_are_counted_and_the_memory_limit_never_shows() {
    let folder = tempfile::tempdir().unwrap();
    let text = lines(|n| {
        // Two answers, of which one would be the reference; or three of which two are equally good.
        let scores: &[f64] = if n % 3 == 0 {
            &[2.0, 1.0]
        } else {
            &[3.0, 2.0, 2.0, 1.0]
        };
        let completions = scores.iter().enumerate();
        let completions =
            completions.map(|(at, score)| json!({"text": format!("{n} {at}"), "score": score}));
        vec![json!({"question": asked(n), "answers": completions.collect::<Vec<_>>()})]
    });
    let input = write(&folder, "ranks.jsonl", text.as_bytes());
    let mut fingerprints = BTreeSet::new();
    for (name, memory) in [("much", 1 << 30), ("little", 4096)] {
        let mut options = labelled(&input, &folder.path().join(name));
        options.memory = memory;
        options.columns.each = Some(Column::from("answers"));
        options.columns.response = Some(Column::from("text"));
        options.columns.score = Some(Column::from("score"));
        let manifest = imported(options).await.unwrap();
        let account = Accounts(&manifest.inputs).total();
        assert!(account.is_balanced());
        assert_eq!((account.answers, account.unpaired), (10 * 2 + 20 * 4, 20));
        // Beside the best: the two equal ones above the last.
        assert_eq!(manifest.counts.trajectories, 20 * 2);
        fingerprints.insert(manifest.fingerprint);
    }
    assert_eq!(fingerprints.len(), 1);
}

#[tokio::test]
async fn an_epoch_meets_every_pair_once_with_the_tokenizer_of_another_corpus() {
    let folder = tempfile::tempdir().unwrap();
    let rows = write(
        &folder,
        "rows.jsonl",
        json_lines(&trajectories()).as_bytes(),
    );
    let before = folder.path().join("before");
    let pretrained = imported(options(&rows, &before)).await.unwrap();
    let pairs = lines(|n| {
        let [best, good, bad] = answers(n);
        let pair = |chosen: &str| json!({"prompt": asked(n), "reference": best, "chosen": chosen, "rejected": bad});
        vec![pair(&good), pair(&best)]
    });
    let input = write(&folder, "pairs.jsonl", pairs.as_bytes());
    let output = folder.path().join("pairs");
    let manifest = imported(ImportOptions {
        tokenizer_of: Some(text(&before)),
        ..labelled(&input, &output)
    });
    let manifest = manifest.await.unwrap();
    assert_eq!(manifest.tokenizer, pretrained.tokenizer);
    assert_eq!(manifest.tokenizer_of(), Some(&pretrained.fingerprint));
    assert_eq!(manifest.counts.train_prompts, 2 * (PROMPTS as u64 - 8));

    let corpus = Corpus::open(&text(&output)).await.unwrap();
    let plan = |hosted: &[u32]| LoadPlan {
        seed: 5,
        batch: 4,
        lanes: 4,
        hosted: hosted.iter().map(|&lane| Lane(lane)).collect(),
        start: Step(0),
        objective: Objective::Sft,
        samples: SampleConfig::default(),
        pack_tokens: 256,
        weighting: Weighting::Uniform,
        window: 5,
        memory: DEFAULT_MEMORY,
    };
    let steps = 11;
    let all = corpus
        .training_triplets(&plan(&[0, 1, 2, 3]), steps)
        .await
        .unwrap();
    let sources = all.iter().flatten().flat_map(|lane| &lane.triplets);
    let sources: BTreeSet<_> = sources
        .map(|it| (it.source.prompt_id.clone(), it.source.positive.sample))
        .collect();
    assert_eq!(sources.len(), 44, "every pair once in an epoch");
    // Whoever hosts a lane sees the same.
    for hosted in [&[2][..], &[3, 1], &[0]] {
        let some = corpus
            .training_triplets(&plan(hosted), steps)
            .await
            .unwrap();
        for (step, lanes) in some.iter().enumerate() {
            for lane in lanes {
                assert!(all[step].contains(lane));
            }
        }
    }
    let samples = SampleConfig::default();
    let heldout = corpus.validation(Split::HeldoutPrompts, 500, 0, &samples);
    let heldout = heldout.await.unwrap();
    assert_eq!(
        heldout.len(),
        16,
        "a pair that was scored isn't scored again"
    );
    let trained: BTreeSet<&String> = sources.iter().map(|(prompt, _)| prompt).collect();
    assert!(
        heldout
            .iter()
            .all(|it| !trained.contains(&it.source.prompt_id))
    );
}

#[tokio::test]
async fn the_real_preferences_import_without_losing_a_row() {
    let Some(data) = std::env::var_os("POLESTAR_DATA") else {
        println!("skipped: POLESTAR_DATA is not set");
        return;
    };
    let input = Path::new(&data).join("pref_reference.jsonl.zst");
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("corpus");
    let manifest = imported(ImportOptions {
        inputs: vec![text(&input)],
        output: text(&output),
        labelled: true,
        vocab_size: 2048,
        temp_dir: Some(folder.path().to_owned()),
        ..ImportOptions::default()
    });
    let manifest = manifest.await.unwrap();
    let account = Accounts(&manifest.inputs).total();
    println!("{}", Accounts(&manifest.inputs));
    assert!(account.is_balanced());
    assert_eq!(
        (account.records, account.bad(), account.failed),
        (9790, 0, 0)
    );
    assert_eq!((account.kept, account.repeats), (9788, 2));
    assert_eq!(manifest.counts.trajectories, 9788);
    let verification = verify(&Store::open(&text(&output)).unwrap()).await.unwrap();
    assert!(verification.sound(), "{verification}");
    let corpus = Corpus::open(&text(&output)).await.unwrap();
    println!("{}", inspect_labelled(&corpus).await.unwrap());
}
