//! Import of real trajectories. Runs where POLESTAR_DATA names the folder with
//! traj_oasst_model_eval.jsonl.zst, and says so where it does not.

use std::sync::Arc;
use std::time::Instant;

use polestar_core::{Lane, Objective, Step};
use polestar_dataset::loader::DEFAULT_MEMORY;
use polestar_dataset::{
    Accounts, ColumnMapping, Corpus, HeldOut, ImportOptions, LoadPlan, Loader, SampleConfig, Split,
    Weighting, import, inspect, verify,
};
use polestar_store::Store;

/// How these trajectories are imported.
fn options(input: std::path::PathBuf, output: String) -> ImportOptions {
    let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
    ImportOptions {
        inputs: vec![input.to_str().unwrap().to_owned()],
        output,
        columns: ColumnMapping {
            policy: vec!["policy".into(), "config".into()],
            sample: Some("sample_id".into()),
            ..ColumnMapping::default()
        },
        heldout_prompts: HeldOut::Count(50),
        heldout_policy_count: 10,
        aliases: vec![
            names(&[
                "oasst-sft-2-pythia-12b",
                "andreaskoepf/oasst-sft-2-pythia-12b-4000",
            ]),
            names(&[
                "llama_7b",
                "llama_7b@default_prefix",
                "decapoda-research/llama-7b-hf@llama2_prompt",
            ]),
        ],
        vocab_size: 4096,
        ..ImportOptions::default()
    }
}

#[tokio::test]
async fn real_trajectories_import_verify_and_load() {
    let Some(folder) = std::env::var_os("POLESTAR_DATA") else {
        println!("skipped: POLESTAR_DATA is not set");
        return;
    };
    let input = std::path::Path::new(&folder).join("traj_oasst_model_eval.jsonl.zst");
    let kept = std::env::var("POLESTAR_CORPUS").ok();
    let output = tempfile::tempdir().unwrap();
    let output = kept.unwrap_or_else(|| output.path().to_str().unwrap().into());
    let options = options(input, output.clone());

    let started = Instant::now();
    let manifest = import(options, &|_| {}).await.unwrap();
    let took = started.elapsed();
    println!("imported in {took:.1?}, peak memory {}", peak_memory());
    let files: Vec<_> = manifest
        .files
        .iter()
        .map(|file| (&file.path, file.bytes, file.rows, file.row_groups.len()))
        .collect();
    println!("{:?}\n{files:?}", manifest.counts);
    assert_eq!(
        manifest.counts.trajectories + Accounts(&manifest.inputs).total().repeats,
        152_364
    );
    assert_eq!(
        (manifest.counts.prompts, manifest.counts.heldout_prompts),
        (419, 50)
    );

    let started = Instant::now();
    let verification = verify(&Store::open(&output).unwrap()).await.unwrap();
    println!("verified in {:.1?}: {verification}", started.elapsed());
    assert!(verification.sound());

    let corpus = Corpus::open(&output).await.unwrap();
    let started = Instant::now();
    let inspection = inspect(&corpus).await.unwrap();
    println!("inspected in {:.1?}\n{inspection}", started.elapsed());

    let samples = SampleConfig {
        max_prompt: 100_000,
        max_response: 100_000,
        ..SampleConfig::default()
    };
    for split in [Split::HeldoutPrompts, Split::HeldoutPolicies] {
        assert_eq!(
            corpus
                .validation(split, 200, 0, &samples)
                .await
                .unwrap()
                .len(),
            200
        );
    }
    let plan = LoadPlan {
        seed: 0,
        batch: 32,
        lanes: 8,
        hosted: (0..8).map(Lane).collect(),
        start: Step(0),
        objective: Objective::Polar,
        pack_tokens: 4096,
        samples,
        weighting: Weighting::Uniform,
        window: 64,
        memory: DEFAULT_MEMORY,
    };
    let started = Instant::now();
    let mut loader = Loader::start(Arc::clone(&corpus), plan.clone());
    for _ in 0..60 {
        loader.next().unwrap();
    }
    println!(
        "60 steps of 32 triplets in {:.1?}, peak memory {}",
        started.elapsed(),
        peak_memory()
    );
    let (mut prompts, mut responses) = (Vec::new(), Vec::new());
    let drawn = corpus.training_triplets(&plan, 60).await.unwrap();
    for triplet in drawn.iter().flatten().flat_map(|lane| &lane.triplets) {
        prompts.push(triplet.prompt.len());
        let all = [&triplet.reference, &triplet.positive, &triplet.negative];
        responses.extend(all.map(Vec::len));
    }
    for (what, lengths) in [("prompt", &mut prompts), ("response", &mut responses)] {
        lengths.sort_unstable();
        let at = |percent: usize| lengths[(lengths.len() - 1) * percent / 100];
        println!(
            "{what} tokens: 10 % {}, 50 % {}, 90 % {}, 99 % {}, 100 % {}",
            at(10),
            at(50),
            at(90),
            at(99),
            at(100)
        );
    }
}

/// What the system says of this process, where it says anything.
fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").ok();
    let mut lines = status.iter().flat_map(|status| status.lines());
    let line = lines.find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or_else(|| "unknown".into(), |peak| peak.trim().to_owned())
}
