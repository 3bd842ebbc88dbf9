use super::*;
use crate::formats::{Parser, Record};
use serde_json::{Value, json};

fn bench(records: &[Value]) -> (Format, Bench) {
    let mut parser = Parser::new(None);
    for (at, record) in records.iter().enumerate() {
        let record = Record {
            file: "t.jsonl",
            place: &format!("t.jsonl line {}", at + 1),
            fields: record.as_object().unwrap(),
        };
        parser.push(record).unwrap();
    }
    let (format, bench) = parser.finish();
    (format.unwrap(), bench)
}

/// Forty prompts whose better answer repeats the reference and is the shorter one.
fn pairs() -> (Format, Bench) {
    let records: Vec<Value> = (0..40)
        .map(|at| {
            json!({"prompt": format!("What is the number after {at}?"), "reference": format!("the number {}", at + 1),
                   "chosen": format!("the number {}.", at + 1), "rejected": "I would rather not say that here, sorry",
                   "category": if at % 2 == 0 { "even" } else { "odd" }})
        })
        .collect();
    bench(&records)
}

fn options() -> Options {
    Options {
        model: "model".to_owned(),
        without_reference: true,
    }
}

/// Right where it sees a reference; its embeddings know nothing but length.
struct NeedsReference;

impl Rewards for NeedsReference {
    fn rewards(&mut self, groups: &[Group<'_>]) -> Result<Vec<Vec<f64>>, RewardError> {
        let of = |group: &Group<'_>| -> Vec<f64> {
            let right = |answer: &String| group.reference.is_some() && answer.starts_with("the");
            let answers = group.answers.iter();
            answers
                .map(|answer| f64::from(u8::from(right(answer))))
                .collect()
        };
        Ok(groups.iter().map(of).collect())
    }

    fn embedding(&mut self) -> Option<&mut dyn Rewards> {
        Some(Box::leak(Box::new(Length)))
    }
}

/// The same rewards to all.
struct Broken(Vec<f64>);

impl Rewards for Broken {
    fn rewards(&mut self, groups: &[Group<'_>]) -> Result<Vec<Vec<f64>>, RewardError> {
        Ok(groups.iter().map(|_| self.0.clone()).collect())
    }
}

#[test]
fn a_model_is_seen_with_and_without_the_reference_beside_the_baselines() {
    let (format, bench) = pairs();
    let mut told = 0;
    let mut progress = |phase: Phase<'_>| told = phase.answers;
    let evaluator = Evaluator::new("planted", format, bench, true, &mut progress);
    let found = evaluator.evaluate(&mut NeedsReference, &options(), &mut progress);
    let found = found.unwrap();
    assert_eq!(told, 80);
    let overall: Vec<(&str, f64)> = found
        .scorers
        .iter()
        .map(|scorer| (scorer.name.as_str(), scorer.accuracies[0].value))
        .collect();
    let expected = [
        ("model", 1.0),
        ("model, no reference", 0.5),
        ("length", 0.0),
        ("TF-IDF", 1.0),
        ("embedding", 0.0),
    ];
    assert_eq!(overall, expected);
    assert_eq!(found.scorers[1].tied[0], 40, "equal rewards are told");
    assert_eq!(found.differences[1].by[0].value, 1.0);
    assert_eq!(found.differences[3].less, "embedding");
    assert_eq!(found.rows[0].prompts, 40);
    let json = serde_json::to_string(&found).unwrap();
    assert_eq!(serde_json::from_str::<Evaluation>(&json).unwrap(), found);
}

#[test]
fn rewards_that_cannot_be_compared_are_refused() {
    let (format, bench) = pairs();
    let evaluator = Evaluator::new("planted", format, bench, false, &mut |_| {});
    let refused = |rewards: Vec<f64>| {
        let found = evaluator.evaluate(&mut Broken(rewards), &options(), &mut |_| {});
        found.unwrap_err().to_string()
    };
    assert!(refused(vec![f64::NAN, 0.0]).contains("NaN"));
    assert!(refused(vec![0.0]).contains("1 rewards to 2 answers"));
}
