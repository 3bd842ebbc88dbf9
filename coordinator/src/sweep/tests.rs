//! Every kind of sweep, expanded.

use super::{
    CorpusFacts, Plan, PlanError, TrialRole,
    fixture::{facts, text},
    plan, read_str,
};
use polestar_core::{RecipeId, Step};
use polestar_laws::{Length, Policies, Spread};
use polestar_run::MemoryTier;

fn planned(sweep: &str) -> Result<Plan, PlanError> {
    plan(&read_str("t.toml", &text(sweep)).unwrap(), &facts())
}

fn refused(sweep: &str) -> String {
    match read_str("t.toml", &text(sweep)) {
        Err(error) => error.to_string(),
        Ok(sweep) => polestar_core::chain::chain(&plan(&sweep, &facts()).unwrap_err()),
    }
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.trials.iter().map(|t| t.config.id.0.as_str()).collect()
}

#[test]
fn lengths_are_budgets_or_multiples_of_the_size() {
    let found = planned("sizes = [\"50k\", \"200k\"]\nbudgets = [1e12]\n").unwrap();
    for trial in &found.trials {
        assert!((trial.flops_6nd / 1e12 - 1.0).abs() < 0.02, "{trial:?}");
    }
    let sizes: Vec<u64> = found.trials.iter().map(|t| t.non_embedding).collect();
    assert!((40_000..63_000).contains(&sizes[0]) && (160_000..250_000).contains(&sizes[1]));

    let found = planned("sizes = [\"50k\", \"200k\"]\ntokens_per_parameter = [20, 40]\n").unwrap();
    let per = |i: usize| found.trials[i].plain_tokens / found.trials[i].non_embedding as f64;
    assert!((per(0) / 20.0 - 1.0).abs() < 0.02 && (per(3) / 40.0 - 1.0).abs() < 0.02);
    assert!(names(&found)[0].contains("20x"));
}

#[test]
fn rates_batches_policies_and_seeds_are_combined_and_named() {
    let found = planned(
        "sizes = [\"nano\"]\nsteps = [10]\nlr = [1e-3, 2e-3]\nbatch = [8, 16]\npolicies = [2, 4]\nseeds = [1, 2]\n",
    )
    .unwrap();
    assert_eq!(found.trials.len(), 16);
    assert!(names(&found).contains(&"nano-10steps-b16-lr2e-3-p4-s2"));
    let mut identities: Vec<RecipeId> = found.trials.iter().map(|t| t.config.recipe_id()).collect();
    let named = found.trials.iter();
    let named = |id: &str| named.clone().find(|t| t.config.id.0 == id).unwrap();
    let at = &named("nano-10steps-b16-lr2e-3-p4-s2").at;
    let policies = Policies {
        count: 4,
        spread: Spread::Any,
    };
    assert_eq!((at.size.as_str(), at.length), ("nano", Length::Steps(10)));
    assert_eq!((at.batch, at.lr), (Some(16), Some(2e-3)));
    assert_eq!((at.policies, at.seed), (Some(policies), 2));
    identities.sort();
    identities.dedup();
    assert_eq!(identities.len(), 16);
}

#[test]
fn the_papers_laws_set_rate_and_batch() {
    let found = planned(
        "sizes = [\"polar-1.8b\"]\nbudgets = [8.5e21]\nlr = \"polar\"\nbatch = \"polar\"\npretrain_tokens = 2.5e12\n",
    )
    .unwrap();
    let config = &found.trials[0].config;
    // 0.94T tokens, as the paper's: 1.4e-5 and 1940 / 0.96, in whole lanes.
    assert!((config.recipe.optimizer.lr / 1.4e-5 - 1.0).abs() < 0.02);
    assert_eq!(config.recipe.batch.triplets % config.recipe.batch.lanes, 0);
    assert!((f64::from(config.recipe.batch.triplets) / 2021.0 - 1.0).abs() < 0.01);
    assert!((found.trials[0].flops_6nd / 8.5e21 - 1.0).abs() < 0.01);
}

#[test]
fn lengths_grow_from_a_trunk() {
    let sweep = "sizes = [\"nano\"]\nsteps = [50, 100, 200]\ntrunk = { decay = 0.2, warmup = 5 }\n";
    let found = planned(sweep).unwrap();
    assert_eq!(names(&found)[0], "nano-trunk-s1");
    let (trunk, branches) = found.trials.split_first().unwrap();
    assert!(trunk.role == TrialRole::Trunk && trunk.config.recipe.steps == 160);
    assert_eq!(
        trunk.config.execution.checkpoint.at,
        [40, 80, 160].map(Step)
    );
    for (branch, left) in branches.iter().zip([40, 80, 160]) {
        let from = branch.config.execution.trunk.as_ref().unwrap();
        assert_eq!(branch.after.as_ref(), Some(&trunk.config.id));
        assert_eq!(
            (from.step, &from.recipe),
            (Step(left), &trunk.config.recipe_id())
        );
    }
    let own: f64 = found.trials.iter().map(|t| t.own_flops()).sum();
    let alone: f64 = branches.iter().map(|t| t.flops_6nd).sum();
    assert!((own / alone - 230.0 / 350.0).abs() < 1e-9);
}

#[test]
fn what_cant_fit_is_refused_with_what_would() {
    let sweep = "sizes = [\"base\"]\nsteps = [10]\n[pool]\nworkers = 8\n";
    let fits = planned(sweep).unwrap().trials[0].state_bytes.0 as f64;
    let gib = |share: f64| share * fits / f64::from(1 << 30);
    let text = refused(&format!("{sweep}memory_gib = {}\n", gib(0.6)));
    assert!(
        text.contains("train.zero = ") && text.contains("workers_per_trial"),
        "{text}"
    );
    let text = refused(&format!("{sweep}memory_gib = {}\n", gib(0.001)));
    assert!(text.contains("leave the size out"), "{text}");
    planned(&format!("{sweep}memory_gib = {}\n", gib(1.1))).unwrap();
}

#[test]
fn copies_of_shards_are_kept_where_there_is_room() {
    let tier = |settings: &str, memory: Option<u64>| {
        let memory = memory.map_or_else(String::new, |bytes| {
            format!("memory_gib = {}\n", bytes as f64 / f64::from(1 << 30))
        });
        let sweep =
            "sizes = [\"base\"]\nsteps = [10]\n[pool]\nworkers = 4\nworkers_per_trial = 4\n";
        let text = text(&format!("{sweep}{memory}"));
        let text = text.replace("batch = 8\n", &format!("batch = 8\nzero = 1\n{settings}"));
        let found = plan(&read_str("t.toml", &text).unwrap(), &facts()).unwrap();
        let trial = &found.trials[0];
        (trial.config.execution.memory_tier, trial.state_bytes.0)
    };
    let (kept, with) = tier("", None);
    let (off, without) = tier("memory_tier = \"off\"\n", None);
    assert_eq!((kept, off), (MemoryTier::Auto, MemoryTier::Off));
    assert!(with > without);
    assert_eq!(tier("", Some(with + 1_000_000)), (kept, with));
    assert_eq!(tier("", Some(with - 1_000_000)), (off, without));
}

#[test]
fn what_makes_no_sense_is_refused_with_its_key() {
    for (sweep, says) in [
        ("sizes = [\"nano\"]\n", "give one of sweep.budgets"),
        (
            "sizes = [\"nano\"]\nsteps = [9]\nlr = \"polar\"",
            "sweep.pretrain_tokens",
        ),
        (
            "sizes = [\"nano\"]\nsteps = [9]\nbatch = \"polar\"",
            "instead of steps",
        ),
        (
            "sizes = [\"nano\"]\nsteps = [9]\nbatch = [8, 9]",
            "b9-s1 can't be trained",
        ),
        (
            "sizes = [\"nano\"]\nsteps = [9]\npolicies = [1]",
            "at least 2",
        ),
        (
            "sizes = [\"nano\"]\nsteps = [9]\ntrunk = { decay = 0.0 }",
            "above 0",
        ),
        ("sizes = [\"nanno\"]\nsteps = [9]", "\"120M\""),
        (
            "sizes = [\"nano\"]\ntokens_per_parameter = [1e-3]",
            "Raise it to",
        ),
        ("sizes = [\"nano\"]\nbudgets = [1e3]", "Raise the budget"),
        (
            "sizes = [\"nano\"]\nsteps = [100]\ntrunk = { warmup = 90, decay = 0.2 }",
            "nano-trunk-s1 can't be trained as it is configured: train.schedule: warmup = 90 and decay = 0 are more",
        ),
        (
            "sizes = [\"nano\"]\nsteps = [9]\nseeds = [1, 1]",
            "list everything once",
        ),
    ] {
        let text = refused(sweep);
        assert!(text.contains(says), "{sweep}: {text}");
    }
}

#[test]
fn absurd_sizes_and_lengths_are_refused_at_once() {
    for (sweep, says) in [
        (
            "sizes = [\"1e30B\"]\nsteps = [9]",
            "no shape comes near that; the nearest is \"",
        ),
        ("sizes = [\"0.001k\"]\nsteps = [9]", "the nearest is \"1."),
        ("sizes = [\"120m\"]\nsteps = [9]", "did you mean \"120M\"?"),
        (
            "sizes = [\"nano\"]\nbudgets = [1e30]",
            "size `nano` with sweep.budgets = [1e30] would be more than",
        ),
        (
            "sizes = [\"nano\"]\nsteps = [9000000000000000000]",
            "sweep.steps = [9000000000000000000] would be more than 1e9 steps",
        ),
        (
            "sizes = [\"nano\"]\ntokens_per_parameter = [1e200]",
            "sweep.tokens_per_parameter = [1e200]",
        ),
    ] {
        let text = refused(sweep);
        assert!(text.contains(says), "{sweep}: {text}");
    }
}

#[test]
fn budgets_that_differ_are_two_trials_and_steps_that_dont_are_one() {
    let found = planned("sizes = [\"nano\"]\nbudgets = [1.001e12, 1.002e12, 2e12]\n").unwrap();
    assert_eq!(
        names(&found),
        ["nano-1.001e12-s1", "nano-1.002e12-s1", "nano-2e12-s1"]
    );
    let same = refused("sizes = [\"nano\"]\nbudgets = [1.0000e12, 1.0000001e12]\n");
    assert!(same.contains("are one and the same"), "{same}");
    let same = refused("sizes = [\"2M\", \"2000k\"]\nsteps = [9]\n");
    assert!(same.contains("are one and the same"), "{same}");
}

#[test]
fn the_sweep_of_the_readme_is_short_and_holds_for_long_answers() {
    let readme = include_str!("../../../README.md");
    let sample = readme.split("```toml\n").nth(1).expect("a sample");
    let (sample, _) = sample.split_once("```").expect("its end");
    let sweep = read_str("README.md", sample).unwrap();
    let [prompt, response] = [sweep.samples.max_prompt, sweep.samples.max_response];
    let tokens_per_triplet = 2.0 * (2 * prompt + 2 * response) as f64;
    let longest = CorpusFacts {
        tokens_per_triplet,
        vocab: 8192,
        ..facts()
    };
    let found = plan(&sweep, &longest).unwrap();
    assert_eq!(found.trials.len(), 9);
    for trial in &found.trials {
        assert!(trial.config.recipe.steps >= 30, "{}", trial.config.id);
    }
    // Ten minutes of two slow workers.
    let flops: f64 = found.trials.iter().map(|t| t.flops_6nd).sum();
    assert!(flops < 600.0 * 2.0 * 2e10, "{flops:e}");
}

#[test]
fn an_envelope_is_read_off_curves_that_score_what_the_end_scores() {
    let sweep = "sizes = [\"nano\"]\nsteps = [100]\nenvelope = 20\n";
    let found = planned(sweep).unwrap();
    let validation = &found.trials[0].config.measurement;
    assert_eq!(validation.every, 5);
    assert_eq!(validation.triplets, validation.final_triplets);
    let plain = planned("sizes = [\"nano\"]\nsteps = [100]\n").unwrap();
    let identity = |plan: &Plan| plan.trials[0].config.recipe_id();
    assert_eq!(
        identity(&found),
        identity(&plain),
        "looking changes nothing"
    );
    assert!(refused("sizes = [\"nano\"]\nsteps = [100]\nenvelope = 2\n").contains("at least 4"));
    let both = "sizes = [\"nano\"]\nsteps = [100]\nenvelope = 20\ntrunk = {}\n";
    assert!(refused(both).contains("use one of them"));
}

#[test]
fn policies_that_nobody_has_measured_are_refused() {
    let near = "sizes = [\"nano\"]\nsteps = [10]\npolicies = [4]\ndistance = [\"near\", \"any\"]\n";
    assert!(refused(near).contains("4 that lie near each other"));
    let any = "sizes = [\"nano\"]\nsteps = [10]\npolicies = [4]\ndistance = [\"any\"]\n";
    assert_eq!(names(&planned(any).unwrap()), ["nano-10steps-any-p4-s1"]);
    let alone = "sizes = [\"nano\"]\nsteps = [10]\ndistance = [\"far\"]\n";
    assert!(refused(alone).contains("sweep.policies"));
}

#[test]
fn operations_are_told_as_they_are_run() {
    let found = planned("sizes = [\"polar-7b\"]\nsteps = [10]\n").unwrap();
    let trial = &found.trials[0];
    // 70 of 100 tokens are packed, and attention is a small part of so wide a model.
    let ratio = trial.flops_executed / trial.flops_6nd;
    assert!((0.70..0.71).contains(&ratio), "{ratio}");
}
