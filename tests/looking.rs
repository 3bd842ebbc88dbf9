//! Looking at a run, wherever its corpus has gone, and tidying it.

use crate::common::{Sandbox, small_sweep, transcript};

#[test]
fn a_run_whose_corpus_was_moved_is_still_looked_at() {
    let sandbox = Sandbox::new();
    sandbox.write("sweep.toml", &small_sweep(5));
    sandbox.succeed(&["launch", "sweep.toml"]);
    let run = sandbox.only_run("runs");
    let run = run.to_str().expect("a path in UTF-8");
    std::fs::rename(sandbox.path("corpus"), sandbox.path("moved")).expect("writable");

    let said = sandbox.refuse(&["report", run]);
    assert!(
        said.contains("`--corpus URL` says where it is now"),
        "{said}"
    );
    sandbox.succeed(&["report", run, "--corpus", "moved"]);
    let said = sandbox.succeed(&["report", run, "--compare", run]);
    assert!(said.contains("loss on held-out prompts, paired"), "{said}");
    let said = sandbox.refuse(&["report", run, "--compare", run, "--corpus", "moved"]);
    assert!(said.contains("--corpus"), "{said}");
    // A name that no trial has is no trial without faults.
    for command in ["verify", "diagnose"] {
        let said = sandbox.refuse(&[command, run, "--trial", "another"]);
        assert!(said.contains("another is no trial of this run"), "{said}");
    }
    let trial = sandbox.trial("runs", "pico-5steps-s1");
    let trial = trial.to_str().expect("a path in UTF-8");
    let export = [
        "export", trial, "--trial", "another", "--output", "x", "--corpus", "moved",
    ];
    let said = sandbox.refuse(&export);
    assert!(said.contains("is of trial pico-5steps-s1"), "{said}");
    // Laws rest on results: what else is known of a trial is not read for them.
    for file in ["metrics", "scores"] {
        let of_trial = std::path::Path::new(trial).join(file);
        let kept = sandbox.path(&format!("{file} aside"));
        std::fs::rename(&of_trial, &kept).expect("it is there");
        std::fs::write(&of_trial, "no folder").expect("writable");
    }
    // One trial makes no law: that is all that is in the way.
    let said = sandbox.refuse(&["recommend", run, "--flops", "1e12"]);
    assert!(said.contains("no law says"), "{said}");
    for file in ["metrics", "scores"] {
        let of_trial = std::path::Path::new(trial).join(file);
        std::fs::remove_file(&of_trial).expect("it was written");
        std::fs::rename(sandbox.path(&format!("{file} aside")), of_trial).expect("it is aside");
    }

    let without = transcript(&sandbox.run(&["verify", run]));
    assert!(
        without.contains("step 5: sound") && without.contains("nothing can be trained again"),
        "{without}"
    );
    let said = sandbox.succeed(&["verify", run, "--corpus", "moved"]);
    assert!(said.contains("as recorded"), "{said}");

    let other = ["corpus", "synth", "--output", "other", "--prompts", "90"];
    sandbox.succeed(&other);
    let said = sandbox.refuse(&["report", run, "--corpus", "other"]);
    assert!(said.contains("the run was trained on"), "{said}");
    assert!(!sandbox.path("corpus").exists());
}

#[test]
fn a_dry_run_lists_what_pruning_removes_folders_included() {
    let sandbox = Sandbox::new();
    let keeps_all =
        small_sweep(20).replace("[train.checkpoint]\n", "[train.checkpoint]\nkeep = 9\n");
    sandbox.write("sweep.toml", &keeps_all);
    sandbox.succeed(&["launch", "sweep.toml"]);
    let run = sandbox.only_run("runs");
    let run = run.to_str().expect("a path in UTF-8");
    let checkpoints = sandbox.trial("runs", "pico-20steps-s1").join("checkpoints");
    let steps = || {
        let folders = std::fs::read_dir(&checkpoints).expect("it has checkpoints");
        let mut names: Vec<String> = folders
            .map(|entry| entry.expect("readable").file_name().display().to_string())
            .collect();
        names.sort();
        names
    };
    let all = ["00000005", "00000010", "00000015", "00000020"];
    assert_eq!(steps(), all);

    let prune = ["checkpoint", "prune", run, "--keep", "2"];
    let dry = sandbox.succeed(&[&prune[..], &["--dry-run"]].concat());
    for says in [
        "would remove pico-20steps-s1 step 5 (",
        "would remove pico-20steps-s1 step 10 (",
        "would remove 4 objects, ",
    ] {
        assert!(dry.contains(says), "{dry}");
    }
    assert_eq!(steps(), all);
    sandbox.succeed(&prune);
    assert_eq!(
        steps(),
        all[2..],
        "nothing is left of the others, not even a folder"
    );
    let again = sandbox.succeed(&[&prune[..], &["--dry-run"]].concat());
    assert!(again.contains("nothing to remove"), "{again}");
}

#[test]
fn a_plan_measures_this_machine_once() {
    let sandbox = Sandbox::new();
    sandbox.write("sweep.toml", &small_sweep(5));
    let plan = |more: &[&str]| {
        let mut command = sandbox.command(&[&["plan", "sweep.toml"], more].concat());
        command.env("XDG_CACHE_HOME", sandbox.path("cache"));
        let output = command.output().expect("the program starts");
        assert!(output.status.success(), "{}", transcript(&output));
        transcript(&output)
    };
    let unknown = plan(&["--no-measure"]);
    assert!(
        unknown.contains("how long it takes is unknown"),
        "{unknown}"
    );
    assert!(
        unknown.contains("1 of 1 trials have fewer than 30 steps"),
        "{unknown}"
    );
    assert!(
        unknown.contains("store is ") && unknown.contains("/runs: relative"),
        "{unknown}"
    );
    let first = plan(&[]);
    assert!(first.contains("measuring once"), "{first}");
    let second = plan(&[]);
    assert!(!second.contains("measuring once"), "{second}");
    assert!(second.contains("measured on this machine on "), "{second}");
    assert!(!sandbox.path("runs").exists(), "it only plans");
}
