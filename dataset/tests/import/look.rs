//! Looking at a corpus: twins, leaks over policies, blank texts, triplets as text.

use polestar_dataset::{HeldOutPolicies, PreviewOptions, Reason, find_prompts, preview};

use super::*;

fn sentence(policy: &str, prompt: usize, sample: usize) -> String {
    let word = |n: usize| format!("{policy}{}", prompt * 131 + sample * 17 + n * n);
    (0..14).map(word).collect::<Vec<_>>().join(" ")
}

/// 40 prompts, 7 policies, two answers. `twin` gives b's first answer to every third prompt; all give the same
/// short answer now and then; one answer and one prompt are blank.
fn lines() -> String {
    let mut lines = Vec::new();
    for prompt in 0..40 {
        for policy in ["a", "b", "c", "d", "e", "f", "twin"] {
            for sample in 0..2 {
                let response = match (policy, sample) {
                    ("c", 1) if prompt == 3 => " \n".into(),
                    ("b" | "twin", 0) if prompt % 3 == 0 => sentence("b", prompt, 0),
                    (_, 0) if prompt % 5 == 1 => format!("It is {prompt}."),
                    _ => sentence(policy, prompt, sample),
                };
                let asked = match prompt {
                    9 => "\t".into(),
                    _ => format!("What is {prompt}, and why?\nSay it in one line."),
                };
                let row =
                    serde_json::json!({"prompt": asked, "policy": policy, "response": response});
                lines.push(row.to_string());
            }
        }
    }
    lines.join("\n")
}

fn chosen(input: &Path, output: &Path, seed: u64) -> ImportOptions {
    ImportOptions {
        heldout_policies: vec![],
        aliases: vec![],
        heldout_policy_count: 2,
        seed,
        ..options(input, output)
    }
}

#[tokio::test]
async fn no_policy_is_held_out_whose_twin_is_trained_on_unless_it_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let input = write(&folder, "rows.jsonl", lines().as_bytes());
    let mut passed_over = 0;
    for seed in 0..6 {
        let output = folder.path().join(format!("seed-{seed}"));
        let manifest = imported(chosen(&input, &output, seed)).await.unwrap();
        let HeldOutPolicies {
            policies,
            passed_over: passed,
            compared_prompts,
        } = manifest.held_out.unwrap();
        // One prompt is blank, and a blank prompt is none.
        assert_eq!((policies.len(), compared_prompts), (2, 39));
        for policy in &policies {
            assert!(policy.name != "b" && policy.name != "twin", "{policy:?}");
            assert_eq!(
                (&policy.reason, policy.twin_trained),
                (&Reason::Chosen, false)
            );
        }
        passed_over += passed.len();
    }
    assert!(passed_over > 0, "some lot would have fallen on one of them");

    let output = folder.path().join("named");
    let named = ImportOptions {
        heldout_policies: vec!["tw*".into()],
        heldout_policy_count: 0,
        ..chosen(&input, &output, 0)
    };
    let manifest = imported(named).await.unwrap();
    // One answer, and all fourteen to the blank prompt.
    assert_eq!(Accounts(&manifest.inputs).total().blank, 15);
    let said = manifest.held_out.unwrap().to_string();
    let told_of =
        "twin: named by 'tw*'; ITS TWIN IS TRAINED ON: b, the same answers to 13 of 39 prompts";
    assert!(said.contains(told_of), "{said}");
    let corpus = Corpus::open(output.to_str().unwrap()).await.unwrap();
    let seen = inspect(&corpus).await.unwrap();
    assert_eq!(seen.blank, (0, 0), "the import left them out");
    assert!(seen.suspects.is_empty(), "{:?}", seen.suspects);
    let [leak] = &seen.policy_leaks[..] else {
        panic!("{:?}", seen.policy_leaks);
    };
    assert_eq!(
        (leak.policies[0].as_str(), leak.policies[1].as_str()),
        ("twin", "b")
    );
    let text = seen.to_string();
    for part in [
        "1 of 1 (100.0 %) held-out policies often give the answers of one that is trained on",
        "33.3 %  twin  ~  b  (13 of 39 prompts)",
        "2+ answers: prompts to which",
    ] {
        assert!(text.contains(part), "'{part}' is not in:\n{text}");
    }
}

#[tokio::test]
async fn a_preview_shows_what_the_model_sees_and_why_a_prompt_gives_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let more = [
        serde_json::json!({"prompt": "Who is alone?", "policy": "a", "response": "I am."}),
        serde_json::json!({"prompt": "Who is alone?", "policy": "a", "response": "Am I?"}),
    ];
    let text = format!("{}\n{}\n{}", lines(), more[0], more[1]);
    let input = write(&folder, "rows.jsonl", text.as_bytes());
    let output = folder.path().join("corpus");
    let named = ImportOptions {
        heldout_policies: vec!["f".into()],
        heldout_policy_count: 0,
        ..chosen(&input, &output, 0)
    };
    imported(named).await.unwrap();
    let corpus = Corpus::open(output.to_str().unwrap()).await.unwrap();
    let of = |max_prompt, max_response| PreviewOptions {
        triplets: 12,
        seed: 0,
        max_prompt,
        max_response,
    };
    let whole = preview(&corpus, &of(None, None)).await.unwrap();
    let cut = preview(&corpus, &of(Some(4), Some(3))).await.unwrap();
    assert_eq!((whole.len(), cut.len()), (12, 12));
    for (whole, cut) in whole.iter().zip(&cut) {
        assert_eq!(
            (&whole.policy, &whole.prompt_id),
            (&cut.policy, &cut.prompt_id)
        );
        let texts = |view: &polestar_dataset::TripletView| {
            [&view.prompt, &view.reference, &view.chosen, &view.rejected].map(Clone::clone)
        };
        for (number, (whole, cut)) in texts(whole).iter().zip(&texts(cut)).enumerate() {
            assert_eq!((whole.cut, whole.tokens), (0, cut.tokens + cut.cut));
            match number {
                0 => assert!(cut.tokens <= 4 && whole.text.ends_with(&cut.text)),
                _ => assert!(cut.tokens <= 3 && whole.text.starts_with(&cut.text)),
            }
        }
        let text = cut.to_string();
        assert_eq!(
            text.contains("tokens cut off here]"),
            cut.chosen.cut + cut.reference.cut + cut.rejected.cut + cut.prompt.cut > 0
        );
        assert!(
            text.contains(&format!("rejected, by {}", cut.other)),
            "{text}"
        );
    }

    let found = find_prompts(&corpus, &whole[0].prompt_id[..6])
        .await
        .unwrap();
    let [prompt] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!(
        (prompt.obstacle, &prompt.text),
        (None, &whole[0].prompt.text)
    );
    let all = find_prompts(&corpus, "").await.unwrap();
    let alone = all
        .iter()
        .find(|prompt| prompt.text == "Who is alone?")
        .unwrap();
    let said = alone.to_string();
    assert!(
        said.contains("no triplet of trained policies, because one policy only answered it"),
        "{said}"
    );
    assert!(
        said.contains("a (2 distinct answers)\n  | I am.\n"),
        "{said}"
    );
    assert!(find_prompts(&corpus, "xyz").await.unwrap().is_empty());
}
