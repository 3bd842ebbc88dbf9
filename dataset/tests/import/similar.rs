//! Answers and prompts that nearly repeat each other.

use super::*;

#[tokio::test]
async fn answers_that_nearly_repeat_each_other_are_found_and_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let sentence = |seed: u64, policy: &str| {
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let words = (0..40).map(|_| format!("{policy}{}", random.random_range(0..900)));
        words.collect::<Vec<_>>().join(" ")
    };
    let mut lines = Vec::new();
    for prompt in 0..30 {
        for policy in ["one", "two", "three"] {
            let first = sentence(prompt, policy);
            // The second is a near copy, the third is not.
            let answers = [
                first.clone(),
                format!("{first}."),
                sentence(prompt + 500, policy),
            ];
            for answer in answers {
                // Two of the prompts differ by a full stop.
                let asked = match prompt {
                    29 => format!("{}.", sentence(0, "question")),
                    prompt => sentence(prompt, "question"),
                };
                let row =
                    serde_json::json!({"prompt": asked, "policy": policy, "response": answer});
                lines.push(row.to_string());
            }
        }
    }
    let input = write(&folder, "rows.jsonl", lines.join("\n").as_bytes());
    let of = |name: &str, drop_similar| ImportOptions {
        heldout_policies: vec![],
        aliases: vec![],
        drop_similar,
        ..options(&input, &folder.path().join(name))
    };
    let all = imported(of("all", None)).await.unwrap();
    let some = imported(of("some", Some(0.9))).await.unwrap();
    assert_eq!(
        (
            all.counts.trajectories,
            Accounts(&all.inputs).total().similar
        ),
        (270, 0)
    );
    assert_eq!(
        (
            some.counts.trajectories,
            Accounts(&some.inputs).total().similar
        ),
        (180, 90)
    );
    let look = async |name: &str| {
        let corpus = Corpus::open(folder.path().join(name).to_str().unwrap()).await;
        inspect(&corpus.unwrap()).await.unwrap()
    };
    let (all, some) = (look("all").await, look("some").await);
    assert_eq!((all.same_policy.some, all.same_policy.all), (90, 270));
    assert_eq!((some.same_policy.some, some.same_policy.all), (0, 90));
    let refused = told(&imported(of("none", Some(1.5))).await.unwrap_err());
    assert!(refused.contains("drop_similar is 1.5"), "{refused}");

    // With so many seeds one of the two prompts is held out and the other is not.
    let mut leaks = 0;
    for seed in 0..8 {
        let name = format!("seed-{seed}");
        imported(ImportOptions {
            seed,
            ..of(&name, None)
        })
        .await
        .unwrap();
        let found = look(&name).await;
        assert_eq!(found.leaks.some, found.leaking.len() as u64);
        leaks += found.leaks.some;
    }
    assert!((1..8).contains(&leaks), "{leaks}");
}
