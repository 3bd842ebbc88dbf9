use super::*;
use crate::question::{Builder, Kind};
use polestar_core::random::Stream;

/// A benchmark with so many tasks a prompt in each category.
fn bench(format_categories: &[(&str, u64, u64)]) -> Bench {
    let mut builder = Builder::default();
    for (category, prompts, tasks) in format_categories {
        for prompt in 0..*prompts {
            let question = builder.question(&format!("{category} {prompt}"), None);
            let better = builder.answer(question, "better");
            let worse = builder.answer(question, "worse");
            for _ in 0..*tasks {
                builder.task(
                    question,
                    (*category).to_owned(),
                    Kind::Pair { better, worse },
                );
            }
        }
    }
    builder.finish()
}

fn credit(credit: f64) -> Judged {
    Judged::Credit {
        credit,
        tied: false,
    }
}

/// Credits of a scorer that is right on a prompt with a probability that the prompt shares.
fn draw(bench: &Bench, stream: &mut Stream, likely: impl Fn(&str) -> f64) -> Vec<Judged> {
    let mut judged = Vec::new();
    for question in &bench.questions {
        let likely = likely(&question.tasks[0].category);
        // A quarter up or down, as the prompt is easy or hard.
        let likely = likely + 0.25 * (stream.below(3) as f64 - 1.0);
        for _ in &question.tasks {
            let right = (stream.below(1 << 20) as f64) < likely * f64::from(1 << 20);
            judged.push(credit(f64::from(u8::from(right))));
        }
    }
    judged
}

#[test]
fn intervals_hold_what_a_scorer_was_made_to_know() {
    let bench = bench(&[
        ("chat/easy", 40, 3),
        ("chat/hard", 25, 9),
        ("code/easy", 12, 2),
    ]);
    let likely = |category: &str| match category {
        "chat/easy" => 0.7,
        "chat/hard" => 0.4,
        _ => 0.6,
    };
    let pairs = Tasks::of(Format::Pairs, &bench);
    let macros = Tasks::of(Format::RmBench, &bench);
    let mut held = [0; 3];
    for draw_number in 0..400 {
        let mut stream = Stream::new("evaluation", &[draw_number]);
        let ours = draw(&bench, &mut stream, likely);
        let theirs = draw(&bench, &mut stream, |_| 0.5);
        let holds = |found: Accuracy, truth: f64| {
            let (lo, hi) = (found.lo.unwrap(), found.hi.unwrap());
            u32::from(lo <= truth && truth <= hi)
        };
        // 120 easy tasks, 225 hard ones and 24 of code.
        let micro = (120.0 * 0.7 + 225.0 * 0.4 + 24.0 * 0.6) / 369.0;
        let chat = (120.0 * 0.7 + 225.0 * 0.4) / 345.0;
        held[0] += holds(pairs.accuracies(&ours)[0], micro);
        held[1] += holds(macros.accuracies(&ours)[0], (chat + 0.6) / 2.0);
        held[2] += holds(pairs.differences(&ours, &theirs)[0], micro - 0.5);
    }
    for (held, what) in held.into_iter().zip(["micro", "macro", "difference"]) {
        let share = f64::from(held) / 400.0;
        assert!((0.92..0.98).contains(&share), "{what}: {share}");
    }
}

#[test]
fn the_mean_of_all_is_that_of_clustered_observations() {
    let bench = bench(&[("a", 9, 4), ("b", 6, 1)]);
    let judged = draw(&bench, &mut Stream::new("one cell", &[]), |_| 0.6);
    let tasks = Tasks::of(Format::Pairs, &bench);
    let found = tasks.accuracies(&judged);
    let clusters = bench.questions.iter().flat_map(|question| &question.tasks);
    let credits = clusters.zip(&judged).map(|(task, judged)| match judged {
        Judged::Credit { credit, .. } => (task.cluster, *credit),
        Judged::Ties(_) => panic!("no ties"),
    });
    let expected = Clustered::of(credits);
    let interval = expected.share_interval().unwrap();
    assert!((found[0].value - expected.mean).abs() < 1e-12);
    assert!((found[0].lo.unwrap() - interval.lo).abs() < 1e-9);
    assert!((found[0].hi.unwrap() - interval.hi).abs() < 1e-9);
    let names: Vec<String> = tasks.rows().into_iter().map(|row| row.name).collect();
    assert_eq!(names, ["overall", "mean of categories", "a", "b"]);
}

#[test]
fn rm_bench_averages_domains_within_each_difficulty() {
    let bench = bench(&[
        ("chat/easy", 1, 3),
        ("chat/hard", 1, 3),
        ("math/easy", 5, 3),
        ("math/hard", 5, 3),
    ]);
    let of = |category: &str| credit(f64::from(u8::from(category == "chat/easy")));
    let tasks_of = bench.questions.iter().flat_map(|question| &question.tasks);
    let judged: Vec<Judged> = tasks_of.map(|task| of(&task.category)).collect();
    let tasks = Tasks::of(Format::RmBench, &bench);
    let rows = tasks.rows();
    let accuracies = tasks.accuracies(&judged);
    let value = |name: &str| {
        let at = rows.iter().position(|row| row.name == name).unwrap();
        accuracies[at].value
    };
    assert_eq!(
        (value("chat"), value("math"), value("overall")),
        (0.5, 0.0, 0.25)
    );
    assert_eq!(
        (value("easy"), value("hard"), value("chat/easy")),
        (0.5, 0.0, 1.0)
    );
}

#[test]
fn ties_are_scored_as_rewardbench_2_scores_them() {
    let ties = |reference: bool, spread: Option<f64>, gap: f64| {
        Some(Ties {
            reference,
            spread,
            gap,
        })
    };
    // Right and close; right and far apart; wrong; one whose spread is nothing.
    let prompts = [
        [ties(false, Some(0.5), 2.0), ties(true, None, 1.5)],
        [ties(false, Some(3.0), 1.0), ties(true, None, 2.0)],
        [ties(false, Some(1.0), -0.5), ties(true, None, 0.5)],
        [ties(false, Some(0.0), 1.0), ties(true, None, -1.0)],
    ];
    // By rewardbench/utils.py's process_single_model at commit 05a9005, on rewards with these gaps and spreads.
    let found = ties_score(prompts.iter()).unwrap();
    assert!((found - TIES).abs() < 1e-9, "{found}");
    assert_eq!(ties_score([].iter()), None);
}

const TIES: f64 = 0.596_190_240_952_707_6;
