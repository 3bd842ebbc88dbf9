use super::*;

fn policy(name: &str, cells: u64, held_out: bool, aliases: &[&str]) -> Policy {
    Policy {
        name: name.into(),
        trajectories: 0,
        cells,
        held_out,
        aliases: aliases.iter().map(|&name| name.into()).collect(),
    }
}

fn samples(policy: u32, texts: &[&str]) -> PolicySamples {
    PolicySamples {
        policy,
        samples: texts.iter().map(|&text| text.into()).collect(),
    }
}

fn table() -> PolicyTable {
    PolicyTable::new(&[
        policy("a", 90, false, &["a2"]),
        policy("a2", 10, false, &["a"]),
        policy("b", 10, false, &[]),
        policy("h", 10, true, &[]),
    ])
}

#[test]
fn every_triplet_keeps_the_rules() {
    let table = table();
    let prompt = [
        samples(0, &["x", "y", "z"]),
        samples(1, &["x", "p"]),
        samples(2, &["x", "y", "q"]),
        samples(3, &["r", "s"]),
    ];
    for task in [Task::Training, Task::HeldoutPolicies] {
        for index in 0..2000 {
            let t = table
                .choose(task, Weighting::Uniform, &prompt, &[1, 2, index])
                .unwrap();
            let (own, other) = (&prompt[t.own], &prompt[t.other]);
            assert_ne!(t.reference, t.positive);
            let negative = &other.samples[t.negative];
            assert!(*negative != own.samples[t.reference] && *negative != own.samples[t.positive]);
            assert_ne!(own.policy, other.policy);
            assert!(!(own.policy < 2 && other.policy < 2), "aliases met");
            match task {
                Task::Training => assert!(own.policy != 3 && other.policy != 3),
                Task::HeldoutPolicies => assert_eq!(own.policy, 3),
            }
            assert_eq!(
                table.choose(task, Weighting::Uniform, &prompt, &[1, 2, index]),
                Some(t)
            );
        }
    }
}

#[test]
fn unusable_prompts_are_refused() {
    let table = table();
    let choose =
        |prompt: &[PolicySamples]| table.choose(Task::Training, Weighting::Uniform, prompt, &[0]);
    assert_eq!(choose(&[samples(0, &["x", "y"])]), None, "one policy");
    assert_eq!(
        choose(&[samples(0, &["x", "y"]), samples(1, &["z"])]),
        None,
        "an alias only"
    );
    assert_eq!(
        choose(&[samples(0, &["x"]), samples(2, &["y"])]),
        None,
        "no two samples"
    );
    assert_eq!(
        choose(&[samples(0, &["x", "y"]), samples(2, &["x"])]),
        None,
        "no text of its own"
    );
    assert_eq!(
        choose(&[samples(3, &["x", "y"]), samples(2, &["z"])]),
        None,
        "a held-out policy"
    );
}

#[test]
fn an_obstacle_is_named() {
    let table = table();
    let cases: [(&[PolicySamples], Option<Obstacle>); 7] = [
        (&[samples(0, &["x", "y"]), samples(2, &["z"])], None),
        (&[samples(0, &["x", "y"])], Some(Obstacle::OnePolicy)),
        (
            &[samples(0, &["x"]), samples(2, &["y"])],
            Some(Obstacle::NoPair),
        ),
        (
            &[samples(3, &["x", "y"]), samples(2, &["z"])],
            Some(Obstacle::HeldOut),
        ),
        (
            &[samples(0, &["x", "y"]), samples(1, &["z"])],
            Some(Obstacle::Aliases),
        ),
        (
            &[samples(0, &["x", "y"]), samples(2, &["x"])],
            Some(Obstacle::EqualAnswers),
        ),
        (
            &[samples(0, &["x", "y"]), samples(3, &["x"])],
            Some(Obstacle::EqualAnswers),
        ),
    ];
    for (prompt, obstacle) in cases {
        assert_eq!(table.obstacle(prompt), obstacle, "{prompt:?}");
    }
}

#[test]
fn a_choice_of_policies_names_the_key_that_is_wrong() {
    let read = |json: &str| serde_json::from_str::<PolicyChoice>(json);
    for choice in [
        PolicyChoice::Drawn { count: 4, seed: 1 },
        PolicyChoice::Named {
            names: vec!["a".into()],
        },
    ] {
        let json = serde_json::to_string(&choice).unwrap();
        assert_eq!(read(&json).unwrap(), choice);
    }
    let refused = read(r#"{"drawn": {"count": 4, "sed": 1}}"#)
        .unwrap_err()
        .to_string();
    assert!(refused.starts_with("unknown field `sed`"), "{refused}");
}

#[test]
fn balanced_weighting_favours_rare_policies() {
    let table = table();
    let prompt = [samples(0, &["x", "y"]), samples(2, &["p", "q"])];
    let common = |weighting| {
        (0..4000)
            .filter(|&index| {
                table
                    .choose(Task::Training, weighting, &prompt, &[index])
                    .unwrap()
                    .own
                    == 0
            })
            .count()
    };
    assert!((1850..2150).contains(&common(Weighting::Uniform)));
    assert!(
        (330..470).contains(&common(Weighting::Balanced)),
        "1 : 9 for 90 : 10 cells"
    );
}
