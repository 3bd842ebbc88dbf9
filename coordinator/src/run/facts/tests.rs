//! What one coordinator leaves, the next one finds.

use super::*;
use polestar_core::{Rank, WorkerId};
use polestar_run::failure::{Blame, Failure, Member, Phase, Trouble};

fn cause(failure: Option<Failure>) -> Cause {
    let member = Member {
        rank: Rank(0),
        worker: WorkerId(1),
        host: "h".to_owned(),
        pid: 7,
    };
    let trouble = failure.map_or(Trouble::Lost, |failure| Trouble::Failed { failure });
    let blame = Blame { member, trouble };
    Cause::of_ranks(vec![blame]).expect("one blame")
}

#[tokio::test]
async fn budgets_and_abandoned_trials_survive_their_coordinator() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(&folder.path().display().to_string()).expect("a store");
    let run = Facts::new(store.clone());
    let name = TrialId("t".to_owned());
    let trial = RecipeId::of(b"a recipe");
    let first = run.claim_epoch().await.expect("a store");
    let second = run.claim_epoch().await.expect("a store");
    assert!(second > first, "two coordinators never share an epoch");

    let diverged = cause(Some(Failure {
        phase: Phase::Compute,
        message: "step 3: the loss is not finite".to_owned(),
        collateral: false,
        retryable: false,
        last_operation: None,
    }));
    let setback = |epoch, number, cause: &Cause| {
        Setback::new(name.clone(), Generation { epoch, number }, cause.clone())
    };
    for setback in [
        setback(first, 1, &cause(None)),
        setback(first, 2, &cause(None)),
        setback(first, 3, &diverged),
    ] {
        run.record_setback(&trial, &setback).await.expect("a store");
    }
    let spent = run.spent(&trial, None).await.expect("just written");
    assert_eq!(
        spent,
        Spent {
            failures: 1,
            losses: 2
        }
    );

    let record = AbandonedTrial::new(name.clone(), diverged.clone(), first, spent);
    run.record_abandoned(&trial, &record)
        .await
        .expect("a store");
    let found = run.abandoned(&trial).await.expect("just written");
    assert_eq!(found, Some(record));
    // Whoever tries it again begins with a new budget, and spends that.
    run.record_setback(&trial, &setback(second, 1, &cause(None)))
        .await
        .expect("a store");
    let spent = run.spent(&trial, found.as_ref()).await.expect("written");
    assert_eq!(
        spent,
        Spent {
            failures: 0,
            losses: 1
        }
    );

    let key = format!("{}/abandoned.json", trial.folder());
    let newer = r#"{"format": 2, "reason": "of another shape"}"#;
    store.put(&key, newer.into()).await.expect("a store");
    let refused = run.abandoned(&trial).await.expect_err("a newer format");
    assert!(refused.to_string().contains("has format 2"), "{refused}");
}
