//! One answer of each policy to each prompt: what is said of it, and pairs across prompts.

use std::collections::{BTreeMap, BTreeSet};

use polestar_dataset::{LaneTriplets, Pairs, find_prompts};

use super::*;

const POLICIES: [&str; 5] = ["a | 0.1", "a | 0.9", "b | 0.1", "b | 0.9", "c | 0.1"];

/// 60 prompts of three kinds, five policies of two columns, one answer each. One prompt is of a kind of its
/// own.
fn lines() -> String {
    let mut lines = Vec::new();
    for prompt in 0..60 {
        for policy in POLICIES {
            let (model, temperature) = policy.split_once(" | ").unwrap();
            let kind = match prompt {
                7 => "alone".into(),
                _ => format!("kind{}", prompt % 3),
            };
            let row = serde_json::json!({
                "prompt": format!("{kind}, question {prompt}?"), "kind": kind,
                "model": model, "temperature": temperature,
                "response": format!("{policy} on {prompt}"),
            });
            lines.push(row.to_string());
        }
    }
    lines.join("\n")
}

fn bare(input: &Path, output: &Path) -> ImportOptions {
    ImportOptions {
        columns: ColumnMapping {
            policy: vec!["model".into(), "temperature".into()],
            ..ColumnMapping::default()
        },
        heldout_policies: vec!["c*".into()],
        aliases: vec![],
        heldout_prompts: HeldOut::Count(15),
        layout: FileLayout::default(),
        ..options(input, output)
    }
}

#[tokio::test]
async fn the_refusal_leads_with_the_cause_and_counts_the_ways_on() {
    let folder = tempfile::tempdir().unwrap();
    let input = write(&folder, "rows.jsonl", lines().as_bytes());
    let refused = imported(bare(&input, &folder.path().join("out"))).await;
    let refused = told(&refused.unwrap_err());
    let parts = [
        "no prompt can give a triplet: every policy has one distinct answer to a prompt (",
        "of 60 prompts: 60 because no policy gave two distinct answers to it",
        "(1) coarser policies: --policy model (60 usable prompts), --policy temperature (60 usable prompts)",
        "(2) --pairs across-prompts (60 prompts)",
        "Preference data",
    ];
    for part in parts {
        assert!(refused.contains(part), "'{part}' is not in: {refused}");
    }

    // What the first way promises is so.
    let mut coarser = bare(&input, &folder.path().join("coarser"));
    coarser.columns.policy = vec!["model".into()];
    let counts = imported(coarser).await.unwrap().counts;
    assert_eq!(counts.train_prompts + counts.heldout_prompts, 60);

    let cluster = ImportOptions {
        cluster: Some("kind".into()),
        ..bare(&input, &folder.path().join("out"))
    };
    let refused = told(&imported(cluster).await.unwrap_err());
    assert!(refused.contains("add --pairs across-prompts"), "{refused}");
    let nowhere = ImportOptions {
        pairs: Pairs::AcrossPrompts,
        cluster: Some("sort".into()),
        ..bare(&input, &folder.path().join("out"))
    };
    let refused = told(&imported(nowhere).await.unwrap_err());
    assert!(refused.contains("--cluster sort: no row"), "{refused}");
}

/// The texts of a triplet: both prompts and the three answers.
fn texts(corpus: &Corpus, triplet: &TokenTriplet) -> [String; 5] {
    [
        triplet.prompt_of_reference(),
        &triplet.prompt,
        &triplet.reference,
        &triplet.positive,
        &triplet.negative,
    ]
    .map(|tokens| corpus.tokenizer().decode(tokens).unwrap())
}

/// Checks a triplet; its two prompts.
fn checked(corpus: &Corpus, triplet: &TokenTriplet) -> (String, String) {
    let [q, p, reference, positive, negative] = texts(corpus, triplet);
    let number = |prompt: &str| prompt.split_once("question ").unwrap().1.replace('?', "");
    let name = |policy| corpus.policy_name(policy).unwrap();
    let (own, other) = (name(triplet.policy), name(triplet.other));
    assert_ne!(q, p);
    assert_eq!(q.split(',').next(), p.split(',').next(), "of one kind");
    assert_eq!(reference, format!("{own} on {}", number(&q)));
    assert_eq!(positive, format!("{own} on {}", number(&p)));
    assert_eq!(negative, format!("{other} on {}", number(&p)));
    (q, p)
}

#[tokio::test]
async fn pairs_across_prompts_keep_to_their_cluster_and_side() {
    let folder = tempfile::tempdir().unwrap();
    let input = write(&folder, "rows.jsonl", lines().as_bytes());
    let output = folder.path().join("corpus");
    let options = ImportOptions {
        pairs: Pairs::AcrossPrompts,
        cluster: Some("kind".into()),
        ..bare(&input, &output)
    };
    let manifest = imported(options).await.unwrap();
    assert_eq!(manifest.counts.trajectories, 300, "nothing is stored twice");
    let rows: u64 = manifest.files.iter().map(|file| file.rows).sum();
    assert_eq!(rows, 300);
    // The prompt of its own kind has no partner.
    let usable = manifest.counts.train_prompts + manifest.counts.heldout_prompts;
    assert_eq!((usable, manifest.counts.prompts), (59, 60));
    let url = output.to_str().unwrap();
    let verification = verify(&Store::open(url).unwrap()).await.unwrap();
    assert!(verification.sound(), "{verification}");

    let corpus = Corpus::open(url).await.unwrap();
    let plan = |start, hosted: &[u32]| LoadPlan {
        seed: 3,
        batch: 16,
        lanes: 4,
        hosted: hosted.iter().copied().map(Lane).collect(),
        start: Step(start),
        objective: Objective::Polar,
        pack_tokens: 4096,
        samples: SampleConfig::default(),
        weighting: Weighting::Balanced,
        window: 8,
        memory: DEFAULT_MEMORY,
    };
    let all = corpus.training_triplets(&plan(0, &[0, 1, 2, 3]), 30).await;
    let all = all.unwrap();
    let late = corpus.training_triplets(&plan(20, &[2]), 10).await.unwrap();
    for (whole, part) in all[20..].iter().zip(&late) {
        assert_eq!(whole[2], part[0], "a pure function of step and lane");
    }
    let lanes = all.iter().flatten();
    let drawn = lanes.flat_map(|LaneTriplets { triplets, .. }| triplets);
    let (mut trained, mut partners) = (BTreeSet::new(), BTreeMap::new());
    for triplet in drawn {
        let (q, p) = checked(&corpus, triplet);
        partners
            .entry(p.clone())
            .or_insert_with(BTreeSet::new)
            .insert(q.clone());
        trained.extend([q, p]);
    }
    assert!(
        partners.values().all(|partners| partners.len() > 3),
        "{partners:?}"
    );
    for split in Split::ALL {
        let samples = SampleConfig::default();
        let set = corpus.validation(split, 60, 1, &samples).await.unwrap();
        assert_eq!(set.len(), 60);
        for triplet in &set {
            let (q, p) = checked(&corpus, triplet);
            assert!(!trained.contains(&q) && !trained.contains(&p), "{q} {p}");
            let held_out = corpus.policy_name(triplet.policy) == Some("c | 0.1");
            assert_eq!(held_out, split == Split::HeldoutPolicies);
        }
    }

    let seen = inspect(&corpus).await.unwrap().to_string();
    let said = "pairs         across prompts: the reference answers another prompt of the row group with the \
                same 'kind'";
    assert!(seen.contains(said), "{seen}");
    assert!(
        seen.contains("1 because no policy that answered it answered another"),
        "{seen}"
    );
    let found = find_prompts(&corpus, "").await.unwrap();
    let alone = found.iter().find(|prompt| prompt.text.starts_with("alone"));
    let alone = alone.unwrap().to_string();
    assert!(
        alone.contains("it gives no triplet of trained policies, because no policy"),
        "{alone}"
    );
}

#[tokio::test]
async fn a_row_group_of_one_prompt_pairs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let input = write(&folder, "rows.jsonl", lines().as_bytes());
    let small = ImportOptions {
        pairs: Pairs::AcrossPrompts,
        layout: FileLayout {
            row_group_rows: 5,
            ..FileLayout::default()
        },
        ..bare(&input, &folder.path().join("out"))
    };
    let refused = told(&imported(small).await.unwrap_err());
    assert!(
        refused.contains("larger row groups (--row-group-rows)"),
        "{refused}"
    );
}
