//! A whole corpus: the loader's one answer, the validation sets, the planted optimum, and damage
//! that is found and named.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use polestar_core::{Lane, Objective, Step};
use polestar_dataset::loader::DEFAULT_MEMORY;
use polestar_dataset::{
    Corpus, HeldOut, LanePacks, LaneTriplets, LoadPlan, Loader, Packer, PolicyChoice, SampleConfig,
    Split, SynthOptions, TokenTriplet, Weighting, inspect, loader, planted_optimum, synth, verify,
};
use polestar_store::Store;

fn small(name: &str) -> SynthOptions {
    SynthOptions {
        output: format!("memory://{name}"),
        policies: 6,
        families: 3,
        prompts: 90,
        heldout_prompts: HeldOut::Count(20),
        ..SynthOptions::default()
    }
}

async fn corpus(options: SynthOptions) -> Arc<Corpus> {
    let url = options.output.clone();
    synth(options).await.unwrap();
    Corpus::open(&url).await.unwrap()
}

fn plan(hosted: &[u32], start: u64) -> LoadPlan {
    LoadPlan {
        seed: 3,
        batch: 16,
        lanes: 8,
        hosted: hosted.iter().copied().map(Lane).collect(),
        start: Step(start),
        objective: Objective::Polar,
        samples: SampleConfig::default(),
        pack_tokens: 200,
        weighting: Weighting::Balanced,
        window: 8,
        memory: DEFAULT_MEMORY,
    }
}

/// What some steps hold; the loader gives the same, packed.
async fn load(
    corpus: &Arc<Corpus>,
    hosted: &[u32],
    start: u64,
    steps: usize,
) -> Vec<Vec<LaneTriplets>> {
    let plan = plan(hosted, start);
    let drawn = corpus.training_triplets(&plan, steps).await.unwrap();
    let mut loader = Loader::start(Arc::clone(corpus), plan.clone());
    let packer = Packer {
        objective: plan.objective,
        samples: &plan.samples,
        special: corpus.tokenizer().special(),
        pack_tokens: plan.pack_tokens,
    };
    for (step, lanes) in (start..).zip(&drawn) {
        let batch = loader.next().unwrap();
        assert_eq!(batch.step, Step(step));
        let packed = |of: &LaneTriplets| {
            let packs = packer.pack(&of.triplets);
            let cost = packer.cost(&of.triplets, &packs);
            let lane = of.lane;
            LanePacks { lane, packs, cost }
        };
        assert!(batch.lanes.into_iter().eq(lanes.iter().map(packed)));
    }
    drawn
}

/// The triplets of some steps.
fn triplets(steps: &[Vec<LaneTriplets>]) -> impl Iterator<Item = &TokenTriplet> {
    steps.iter().flatten().flat_map(|lane| &lane.triplets)
}

#[tokio::test]
async fn a_step_depends_on_neither_placement_nor_start() {
    let corpus = corpus(small("placement")).await;
    let all = load(&corpus, &[0, 1, 2, 3, 4, 5, 6, 7], 0, 20).await;
    let late = load(&corpus, &[0, 1, 2, 3, 4, 5, 6, 7], 13, 7).await;
    assert_eq!(all[13..], late[..], "seeking is replaying");
    let some = load(&corpus, &[5, 2], 4, 6).await;
    for (whole, part) in all[4..10].iter().zip(&some) {
        assert_eq!(*part, [whole[5].clone(), whole[2].clone()]);
    }
    for triplet in triplets(&all) {
        for policy in [triplet.policy, triplet.other] {
            assert!(!corpus.manifest().policies[policy as usize].held_out);
        }
        assert!(triplet.policy != triplet.other && triplet.reference != triplet.positive);
    }
}

#[tokio::test]
async fn a_wrong_plan_is_told_by_the_first_step() {
    let corpus = corpus(small("plans")).await;
    let first = |plan: LoadPlan| Loader::start(Arc::clone(&corpus), plan).next().unwrap_err();
    assert!(matches!(
        first(LoadPlan {
            batch: 12,
            ..plan(&[0], 0)
        }),
        loader::Error::Batch {
            batch: 12,
            lanes: 8
        }
    ));
    assert!(matches!(
        first(plan(&[8], 0)),
        loader::Error::Lane {
            lane: Lane(8),
            lanes: 8
        }
    ));
    let crowded = first(LoadPlan {
        lanes: 128,
        batch: 128,
        ..plan(&[0], 0)
    });
    assert!(matches!(crowded, loader::Error::Order { .. }));
    let mut stopped = Loader::start(Arc::clone(&corpus), plan(&[9], 0));
    assert!(stopped.next().is_err());
    assert!(matches!(stopped.next(), Err(loader::Error::Stopped)));
}

#[tokio::test]
async fn training_on_some_policies_leaves_validation_alone() {
    let all = corpus(SynthOptions {
        policies: 9,
        heldout_policies: 1,
        ..small("some-policies")
    })
    .await;
    let samples = SampleConfig::default();
    let validated = |corpus: Arc<Corpus>| async move {
        let samples = SampleConfig::default();
        let set = corpus.validation(Split::HeldoutPrompts, 40, 1, &samples);
        set.await.unwrap()
    };
    let of = |count| {
        let choice = PolicyChoice::Drawn { count, seed: 5 };
        Corpus::open_with(all.url(), &[], Some(choice))
    };
    let mut seen = BTreeSet::new();
    for count in [2, 4, 8] {
        let some = of(count).await.unwrap();
        let steps = load(&some, &[0, 1, 2, 3, 4, 5, 6, 7], 0, 25).await;
        let trained: BTreeSet<u32> = triplets(&steps).flat_map(|t| [t.policy, t.other]).collect();
        assert_eq!(trained.len(), count as usize);
        assert!(
            seen.is_subset(&trained),
            "a larger choice holds the smaller"
        );
        seen = trained;
        let late = load(&some, &[0, 1, 2, 3, 4, 5, 6, 7], 20, 5).await;
        assert_eq!(steps[20..], late[..], "seeking is replaying");
        assert_eq!(validated(some).await, validated(Arc::clone(&all)).await);
    }
    let every = of(8).await.unwrap();
    let mut loaders = [&all, &every].map(|c| {
        let plan = LoadPlan {
            samples: samples.clone(),
            ..plan(&[0], 0)
        };
        Loader::start(Arc::clone(c), plan)
    });
    let [first, second] = loaders.each_mut().map(|loader| loader.next().unwrap());
    assert_eq!(first, second, "all of them are all of them");
    for count in [1, 9] {
        let refused = of(count).await.unwrap_err().to_string();
        assert!(refused.contains("choose from 2 to 8"), "{refused}");
    }
}

#[tokio::test]
async fn validation_sets_keep_apart_and_repeat() {
    let corpus = corpus(small("validation")).await;
    let samples = SampleConfig {
        max_response: 5,
        ..SampleConfig::default()
    };
    for split in [Split::HeldoutPrompts, Split::HeldoutPolicies] {
        let triplets = corpus.validation(split, 50, 1, &samples).await.unwrap();
        assert_eq!(triplets.len(), 50);
        assert_eq!(
            triplets,
            corpus.validation(split, 50, 1, &samples).await.unwrap()
        );
        assert_eq!(
            triplets[..9],
            corpus.validation(split, 9, 1, &samples).await.unwrap(),
            "a prefix"
        );
        assert_ne!(
            triplets,
            corpus.validation(split, 50, 2, &samples).await.unwrap()
        );
        let prompts: BTreeSet<_> = triplets[..20]
            .iter()
            .map(|triplet| &triplet.prompt)
            .collect();
        assert_eq!(
            prompts.len(),
            20,
            "every prompt once before any comes again"
        );
        for triplet in &triplets {
            let held_out = |policy: u32| corpus.manifest().policies[policy as usize].held_out;
            assert_eq!(held_out(triplet.policy), split == Split::HeldoutPolicies);
            assert!(split == Split::HeldoutPolicies || !held_out(triplet.other));
            assert!(triplet.positive.len() <= 5);
        }
    }
    let steps = load(&corpus, &[0, 1, 2, 3, 4, 5, 6, 7], 0, 5).await;
    let trained: BTreeSet<_> = triplets(&steps).map(|triplet| &triplet.prompt).collect();
    let validated = corpus
        .validation(Split::HeldoutPrompts, 20, 1, &samples)
        .await
        .unwrap();
    assert!(
        validated
            .iter()
            .all(|triplet| !trained.contains(&triplet.prompt))
    );
}

#[tokio::test]
async fn the_planted_optimum_behaves_like_one() {
    let samples = SampleConfig::default();
    let of = |corpus: Arc<Corpus>, samples: SampleConfig, split| async move {
        planted_optimum(&corpus, split, 600, 5, &samples)
            .await
            .unwrap()
            .unwrap()
    };
    let standard = corpus(SynthOptions {
        output: "memory://optimum".into(),
        ..SynthOptions::default()
    })
    .await;
    let known = of(
        Arc::clone(&standard),
        samples.clone(),
        Split::HeldoutPrompts,
    )
    .await;
    println!("held-out prompts: {known:?}");
    assert!((0.2..0.35).contains(&known.loss), "{known:?}");
    // A posterior that is exact is calibrated: its own entropy predicts its accuracy, within what
    // 600 triplets allow.
    assert!((0.8..0.97).contains(&known.accuracy), "{known:?}");

    let clipped = of(
        Arc::clone(&standard),
        SampleConfig {
            max_response: 4,
            ..samples.clone()
        },
        Split::HeldoutPrompts,
    )
    .await;
    assert!(
        clipped.loss > known.loss + 0.1 && clipped.accuracy < known.accuracy,
        "less to see: {clipped:?}"
    );
    let blind = of(
        Arc::clone(&standard),
        SampleConfig {
            max_response: 0,
            ..samples.clone()
        },
        Split::HeldoutPrompts,
    )
    .await;
    assert!(
        (blind.loss - 2f64.ln()).abs() < 1e-9 && (blind.accuracy - 0.5).abs() < 1e-9,
        "{blind:?}"
    );
    let unknown = of(
        Arc::clone(&standard),
        samples.clone(),
        Split::HeldoutPolicies,
    )
    .await;
    println!("held-out policies: {unknown:?}");
    assert!(unknown.loss < 0.6, "{unknown:?}");

    let alike = SynthOptions {
        output: "memory://alike".into(),
        family_strength: 0.0,
        own_strength: 0.0,
        habit_strength: 0.0,
        ..SynthOptions::default()
    };
    let alike = of(corpus(alike).await, samples, Split::HeldoutPrompts).await;
    assert!(
        (alike.loss - 2f64.ln()).abs() < 1e-9,
        "equal policies can't be told apart: {alike:?}"
    );
}

#[tokio::test]
async fn synthesis_repeats_and_packs() {
    let first = synth(small("repeat-1")).await.unwrap();
    assert_eq!(first, synth(small("repeat-2")).await.unwrap());
    assert_ne!(
        first.fingerprint,
        synth(SynthOptions {
            seed: 1,
            ..small("repeat-3")
        })
        .await
        .unwrap()
        .fingerprint
    );
    let bytes: u64 = first.files.iter().map(|file| file.bytes).sum();
    assert!(bytes < 4 << 20, "{bytes} bytes");

    let corpus = Corpus::open("memory://repeat-1").await.unwrap();
    let samples = SampleConfig::default();
    let triplets = corpus
        .validation(Split::HeldoutPrompts, 10, 0, &samples)
        .await
        .unwrap();
    let words = |tokens: &[u32]| {
        corpus
            .tokenizer()
            .decode(tokens)
            .unwrap()
            .split_whitespace()
            .count()
    };
    assert!(
        triplets
            .iter()
            .all(|t| words(&t.positive) == t.positive.len() && words(&t.prompt) == t.prompt.len())
    );
    let packer = Packer {
        objective: Objective::Polar,
        samples: &samples,
        special: corpus.tokenizer().special(),
        pack_tokens: 256,
    };
    let packs = packer.pack(&triplets);
    let rewards = packs.iter().map(|pack| pack.reward_rows.len());
    assert_eq!(rewards.sum::<usize>(), 20);
    let bounded = packs.iter().all(|pack| {
        pack.ids
            .iter()
            .all(|&id| id < corpus.tokenizer().vocab_size())
    });
    assert!(bounded);
}

#[tokio::test]
async fn damage_is_found_and_named() {
    let corpus = corpus(small("damage")).await;
    let store = Store::open(corpus.url()).unwrap();
    assert!(verify(&store).await.unwrap().sound());
    let inspection = inspect(&corpus).await.unwrap();
    assert_eq!(
        inspection
            .policies
            .iter()
            .map(|policy| policy.trajectories)
            .sum::<u64>(),
        inspection.counts.trajectories
    );
    assert!(inspection.to_string().contains("policy-5"));

    let file = &corpus.manifest().files[0];
    let whole = store.get(&file.path).await.unwrap();
    let mut bytes = whole.to_vec();
    let last = file.row_groups.len() - 1;
    bytes[file.row_groups[last].extent.offset as usize + 100] ^= 1;
    store.put(&file.path, Bytes::from(bytes)).await.unwrap();
    let found = verify(&store).await.unwrap();
    assert!(
        found
            .faults
            .iter()
            .any(|fault| fault.path == file.path && fault.row_group == Some(last)),
        "{found}"
    );

    // What `corpus` has decoded it doesn't read again, so the damage shows to who opens it now.
    let damaged = Corpus::open(corpus.url()).await.unwrap();
    let mut loader = Loader::start(damaged, plan(&[0, 1, 2, 3, 4, 5, 6, 7], 0));
    let error = (0..40)
        .find_map(|_| loader.next().err())
        .expect("the damaged row group is on the way");
    let causes: Vec<String> =
        std::iter::successors(Some(&error as &dyn std::error::Error), |error| {
            error.source()
        })
        .map(|error| error.to_string())
        .collect();
    assert!(
        causes
            .join(": ")
            .contains(&format!("row group {last} of {}", file.path))
            && causes
                .join(": ")
                .contains(&format!("[\"{}#{last}\"]", file.path)),
        "{causes:?}"
    );

    let without =
        |name: String| async move { Corpus::open_without("memory://damage", &[name]).await };
    let left_out = without(format!("{}#{last}", file.path)).await.unwrap();
    assert_eq!(left_out.fingerprint(), corpus.fingerprint());
    assert_eq!(
        left_out.left_out().map(|left_out| left_out.rows),
        Some(file.row_groups[last].rows)
    );
    // It was the only one: nothing is left, and nothing damaged is read.
    let none = Loader::start(left_out, plan(&[0], 0)).next().unwrap_err();
    let loader::Error::Order { source, .. } = none else {
        panic!("{none}");
    };
    assert!(
        source.to_string().contains("0 usable training prompts"),
        "{source}"
    );
    let refused = without("train-9.parquet#0".into())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("corpus.quarantine has 'train-9.parquet#0'"),
        "{refused}"
    );

    store.delete(&file.path).await.unwrap();
    let found = verify(&store).await.unwrap();
    assert!(
        found
            .faults
            .iter()
            .any(|fault| fault.path == file.path && fault.what.contains("missing")),
        "{found}"
    );
    store.put("tokenizer.json", "{}".into()).await.unwrap();
    let error = Corpus::open(corpus.url()).await.unwrap_err().to_string();
    assert!(
        error.contains("tokenizer.json") && error.contains("digest"),
        "{error}"
    );
}

#[tokio::test]
async fn policies_chosen_by_distance_are_the_ones_trained_on() {
    let all = corpus(SynthOptions {
        policies: 8,
        families: 4,
        prompts: 300,
        ..small("distance")
    })
    .await;
    let distances = all.policy_distances().await.unwrap();
    assert_eq!(distances.names().len(), all.training_policies());
    let [near, far] = [distances.near(3).unwrap(), distances.far(3).unwrap()];
    let mean = |names: &[String]| distances.mean(names).unwrap();
    assert!(mean(&near) < mean(&far), "{distances:?}");
    for names in [near, far] {
        let choice = PolicyChoice::Named {
            names: names.clone(),
        };
        let some = Corpus::open_with(all.url(), &[], Some(choice))
            .await
            .unwrap();
        let steps = load(&some, &[0, 1, 2, 3, 4, 5, 6, 7], 0, 25).await;
        let trained: BTreeSet<&str> = triplets(&steps)
            .flat_map(|t| [t.policy, t.other])
            .map(|policy| some.policy_name(policy).unwrap())
            .collect();
        assert_eq!(trained, names.iter().map(String::as_str).collect());
    }
    let stranger = PolicyChoice::Named {
        names: vec!["nobody".into(), "policy".into()],
    };
    assert!(
        Corpus::open_with(all.url(), &[], Some(stranger))
            .await
            .is_err()
    );
}
