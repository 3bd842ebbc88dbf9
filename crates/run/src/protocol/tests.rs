//! Whatever is sent arrives as it was.

use super::*;
use crate::{Measured, RewardSpread, SetScore, StepParts, metrics::Row};
use polestar_core::random::Stream;
use polestar_store::Traffic;
use prost::Message;
use std::collections::BTreeMap;

/// Draws values of the types that travel.
struct Draw(Stream);

impl Draw {
    fn flag(&mut self) -> bool {
        self.0.below(2) == 1
    }

    /// Any float but NaN, which is unequal to itself.
    fn float(&mut self) -> f64 {
        let float = f64::from_bits(self.0.word());
        if float.is_nan() { 0.5 } else { float }
    }

    fn text(&mut self) -> String {
        let length = self.0.below(12);
        let letters = ['a', 'ß', '\n', '"', '漢', '\0', ' '];
        (0..length)
            .map(|_| letters[self.0.index(letters.len())])
            .collect()
    }

    fn list<T>(&mut self, one: impl Fn(&mut Self) -> T) -> Vec<T> {
        (0..self.0.below(4)).map(|_| one(self)).collect()
    }

    fn score(&mut self) -> SetScore {
        SetScore {
            loss: self.float(),
            accuracy: self.flag().then(|| self.float()),
            triplets: self.0.below(1 << 40) as usize,
            prompts: self.flag().then(|| self.0.below(1 << 40) as usize),
            loss_error: self.flag().then(|| self.float()),
            accuracy_error: self.flag().then(|| self.float()),
            margin: self.flag().then(|| self.float()),
            rewards: self.flag().then(|| RewardSpread {
                mean: self.float(),
                deviation: self.float(),
                min: self.float(),
                max: self.float(),
            }),
        }
    }

    fn row(&mut self) -> Row {
        Row {
            step: Step(self.0.word()),
            triplets: self.0.word(),
            plain_tokens: self.0.word(),
            flops_6nd: self.float(),
            loss: self.float(),
            accuracy: self.flag().then(|| self.float()),
            margin: self.flag().then(|| self.float()),
            lr: self.float(),
            grad_norm: self.float(),
            seconds: self.float(),
            validation: self.scores(),
        }
    }

    fn scores(&mut self) -> BTreeMap<String, SetScore> {
        let scores = self.list(|draw| (draw.text(), draw.score()));
        scores.into_iter().collect()
    }

    fn event(&mut self) -> Event {
        let step = Step(self.0.word());
        match self.0.below(7) {
            0 => Event::Begun {
                step,
                steps: self.0.word(),
                from: self.resumed_from(),
                seconds: self.float(),
                passed_over: self.list(Self::text),
            },
            1 => Event::Stepped {
                step,
                loss: self.float(),
                accuracy: self.flag().then(|| self.float()),
                triplets_per_second: self.float(),
            },
            2 => Event::Validated {
                step,
                scores: self.scores(),
            },
            4 => Event::Rows {
                rows: self.list(Self::row),
            },
            3 => Event::Saved {
                step,
                digest: Digest::of(self.text().as_bytes()),
                seconds: self.float(),
                behind: self.float(),
            },
            5 => Event::Measured(self.measured()),
            _ => Event::Underway {
                parts: self.list(|draw| (draw.text(), draw.float())),
            },
        }
    }

    fn measured(&mut self) -> Measured {
        Measured {
            until: Step(self.0.word()),
            steps: self.0.word(),
            seconds: self.float(),
            parts: StepParts {
                data: self.float(),
                forward: self.float(),
                backward: self.float(),
                reduce: self.float(),
                optimizer: self.float(),
                save: self.float(),
                evaluate: self.float(),
            },
            tokens: self.0.word(),
            flops_6nd: self.float(),
            world: self.0.below(1 << 16) as u32,
            sent_here: self.0.word(),
            sent_away: self.0.word(),
            store: Traffic {
                read: self.0.word(),
                written: self.0.word(),
                retries: self.0.word(),
            },
        }
    }

    fn resumed_from(&mut self) -> ResumedFrom {
        let all = [
            ResumedFrom::Nothing,
            ResumedFrom::Store,
            ResumedFrom::Memory,
        ];
        all[self.0.index(all.len())]
    }

    fn outcome(&mut self) -> Outcome {
        Outcome {
            trial: TrialId(self.text()),
            steps: self.0.word(),
            digest: Digest::of(self.text().as_bytes()),
            validation: self.scores(),
            along: self.scores(),
            consumed: Consumed {
                triplets: self.0.word(),
                plain_tokens: self.0.word(),
                packed_tokens: self.0.word(),
                attention_pairs: self.0.word(),
                seconds: self.float(),
            },
            flops_6nd: self.float(),
            flops_executed: self.float(),
        }
    }

    fn stage(&mut self) -> Stage {
        let stages = [
            Stage::Preparing,
            Stage::Connecting,
            Stage::Running,
            Stage::Stopping,
        ];
        stages[self.0.index(stages.len())]
    }

    fn failure(&mut self) -> Failure {
        let phases = [
            Phase::Abort,
            Phase::Config,
            Phase::Data,
            Phase::Compute,
            Phase::Collective,
            Phase::Storage,
        ];
        Failure {
            phase: phases[self.0.index(phases.len())],
            message: self.text(),
            collateral: self.flag(),
            retryable: self.flag(),
            last_operation: self.flag().then(|| LastOperation {
                kind: self.text(),
                sequence: self.0.word(),
                step: self.0.word(),
            }),
        }
    }

    fn blame(&mut self) -> Blame {
        let trouble = match self.0.below(3) {
            0 => Trouble::Lost,
            1 => Trouble::Stuck {
                stage: self.stage(),
                seconds: self.0.word(),
            },
            _ => Trouble::Failed {
                failure: self.failure(),
            },
        };
        let member = Member {
            rank: Rank(self.0.word() as u32),
            worker: WorkerId(self.0.word()),
            host: self.text(),
            pid: self.0.word() as u32,
        };
        Blame { member, trouble }
    }

    fn cause(&mut self) -> Cause {
        match self.0.below(4) {
            0 => Cause::Ranks {
                first: self.blame(),
                collateral: self.list(Self::blame),
            },
            1 => Cause::Stalled {
                stage: self.stage(),
                seconds: self.0.word(),
            },
            2 => Cause::Start {
                trial: TrialId(self.text()),
            },
            _ => Cause::Store {
                message: self.text(),
                retryable: self.flag(),
            },
        }
    }
}

fn over_the_wire<M: Message + Default>(message: M) -> M {
    M::decode(&message.encode_to_vec()[..]).expect("just encoded")
}

#[test]
fn what_is_sent_arrives_as_it_was() {
    for seed in 0..500 {
        let mut draw = Draw(Stream::new("protocol test", &[seed]));
        let sent = draw.event();
        let progress = over_the_wire(proto::Progress {
            generation: None,
            event: Some(sent.clone().into()),
        });
        assert_eq!(
            Event::try_from(progress.event.expect("it was set")).expect("just sent"),
            sent
        );

        let sent = draw.outcome();
        let message = over_the_wire(proto::Outcome::from(sent.clone()));
        assert_eq!(Outcome::try_from(message).expect("just sent"), sent);

        let sent = draw.failure();
        let message = over_the_wire(proto::Failure::from(sent.clone()));
        assert_eq!(Failure::try_from(message).expect("just sent"), sent);

        let sent = draw.cause();
        let message = over_the_wire(proto::Cause::from(sent.clone()));
        assert_eq!(Cause::try_from(message).expect("just sent"), sent);

        let sent = Generation {
            epoch: Epoch(draw.0.word()),
            number: draw.0.word(),
        };
        let message = over_the_wire(proto::Generation::from(sent));
        assert_eq!(generation(Some(message)).expect("just sent"), sent);
    }
}

#[test]
fn what_is_absent_is_named() {
    let missing = Outcome::try_from(proto::Outcome::default()).expect_err("nothing is in it");
    assert_eq!(missing.to_string(), "a message has no outcome.consumed");
    let unknown = Failure::try_from(proto::Failure::default()).expect_err("no phase");
    assert!(unknown.to_string().contains("0 as its phase"), "{unknown}");
}
