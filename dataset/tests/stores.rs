//! One suite for every store: a folder, memory, an S3 server in this process, and whatever
//! POLESTAR_S3_URL names (s3://bucket/prefix, settings in AWS_*).

#[path = "../../tests/common/s3_server.rs"]
mod s3_server;

use bytes::Bytes;
use polestar_store::{Error, Put, Store, faults::Faults};
use s3_server::{BUCKET, S3Server};
use std::process::Command;

/// What a run relies on.
async fn conforms(store: &Store) {
    assert_eq!(store.get_opt("a/b").await.unwrap(), None);
    assert_eq!(
        store.put_if_absent("a/b", "one".into()).await.unwrap(),
        Put::Created
    );
    assert_eq!(
        store.put_if_absent("a/b", "two".into()).await.unwrap(),
        Put::Exists
    );
    assert_eq!(
        store.put_if_absent("a/b", "one".into()).await.unwrap(),
        Put::Exists,
        "nor the same bytes"
    );
    assert_eq!(store.get("a/b").await.unwrap(), "one");
    store.put("a/b", "three".into()).await.unwrap();
    assert_eq!(store.get_range("a/b", 1..3).await.unwrap(), "hr");
    assert_eq!(store.size("a/b").await.unwrap(), 5);
    store.put("z and spaces=%", "!".into()).await.unwrap();
    let listed = store.list("").await.unwrap();
    let listed: Vec<_> = listed.iter().map(|o| (o.key.as_str(), o.size)).collect();
    assert_eq!(listed, [("a/b", 5), ("z and spaces=%", 1)]);
    store.delete("z and spaces=%").await.unwrap();

    // A prefix ends at a segment.
    store.put("ab/c", "c".into()).await.unwrap();
    assert_eq!(store.list("a").await.unwrap().len(), 1);
    assert_eq!(store.list("nothing").await.unwrap(), []);

    let child = store.child("a");
    assert_eq!(child.get("b").await.unwrap(), "three");
    assert_eq!(child.list("").await.unwrap()[0].key, "b");
    let again = Store::open(child.url()).unwrap();
    assert_eq!(again.get("b").await.unwrap(), "three");

    // More than one page of a listing.
    let keys: Vec<String> = (0..1100).map(|i| format!("many/{i:04}")).collect();
    for batch in keys.chunks(50) {
        let puts = batch.iter().map(|key| store.put(key, "x".into()));
        futures::future::try_join_all(puts).await.unwrap();
    }
    let listed = store.list("many").await.unwrap();
    assert!(listed.iter().map(|o| &o.key).eq(&keys));

    // In parts, and over a smaller one.
    let large: Bytes = (0..40 << 20)
        .map(|i: u32| (i % 251) as u8)
        .collect::<Vec<_>>()
        .into();
    store.put("large", "small".into()).await.unwrap();
    store.put("large", large.clone()).await.unwrap();
    assert_eq!(store.size("large").await.unwrap(), large.len() as u64);
    let range = (17 << 20) - 5..(33 << 20) + 7;
    let read = store
        .get_range("large", range.start..range.end)
        .await
        .unwrap();
    assert!(read == large.slice(range.start as usize..range.end as usize));

    for object in store.list("").await.unwrap() {
        store.delete(&object.key).await.unwrap();
        store.delete(&object.key).await.unwrap();
    }
    assert!(!store.exists("a/b").await.unwrap());
    let error = store.get("a/b").await.unwrap_err().to_string();
    assert!(
        error.contains("'a/b'") && error.contains(store.url()),
        "{error}"
    );
    assert!(matches!(
        store.get_range("a/b", 0..1).await,
        Err(Error::Missing { .. })
    ));
    store.check_conditional_puts().await.unwrap();
    assert_eq!(
        store.list("").await.unwrap(),
        [],
        "the check leaves nothing"
    );
}

/// And with all the trouble that a store can make for a while.
async fn conforms_in_trouble(store: &Store) {
    let faults = Faults {
        seed: 3,
        one_in: 40,
        errors: 12,
        lost_answers: 12,
        slow_downs: 12,
        torn_multiparts: 1,
        shuffled_listings: true,
        ..Faults::default()
    };
    let (troubled, log) = store.with_faults(faults);
    // The child of a URL is opened anew there, and has no faults.
    conforms(&troubled).await;
    for kind in ["error", "lost answer", "slow down", "shuffled listing"] {
        assert!(log.fired(kind) > 0, "{kind} never happened");
    }
    let once = Faults {
        torn_multiparts: 1,
        ..Faults::default()
    };
    let (troubled, log) = store.with_faults(once);
    let large = Bytes::from(vec![7; 40 << 20]);
    troubled.put("large", large.clone()).await.unwrap();
    assert_eq!(log.fired("torn multipart"), 1);
    assert!(store.get("large").await.unwrap() == large);
    store.delete("large").await.unwrap();
    let once = Faults {
        lost_answers: 1,
        ..Faults::default()
    };
    let (troubled, log) = store.with_faults(once);
    assert_eq!(
        troubled.put_if_absent("mine", "m".into()).await.unwrap(),
        Put::Created
    );
    assert_eq!(
        log.fired("lost answer"),
        1,
        "it was written twice, and is ours"
    );
    store.delete("mine").await.unwrap();
}

#[tokio::test]
async fn folders_and_memory_conform() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new folder");
    let store = Store::open(path.to_str().unwrap()).unwrap();
    conforms(&store).await;
    conforms_in_trouble(&store).await;
    conforms(&Store::open("memory://conformance/deep/prefix").unwrap()).await;
    assert!(matches!(
        Store::open("ftp://host/x"),
        Err(Error::Url { .. })
    ));
}

/// Settings of a client come from its environment, so it is a process of its own: this test again.
#[test]
fn an_s3_server_conforms() {
    let server = S3Server::start();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_named_s3_server_conforms", "--nocapture"])
        .env("POLESTAR_S3_URL", format!("s3://{BUCKET}/deep prefix"))
        .envs(server.environment())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("conforms: s3://"), "{said}");
}

#[tokio::test]
async fn the_named_s3_server_conforms() {
    let Ok(base) = std::env::var("POLESTAR_S3_URL") else {
        println!("skipped: POLESTAR_S3_URL is not set");
        return;
    };
    let store = Store::open(&base).unwrap().child("conformance");
    for object in store.list("").await.unwrap() {
        store.delete(&object.key).await.unwrap();
    }
    conforms(&store).await;
    conforms_in_trouble(&store).await;
    println!("conforms: {}", store.url());
}

#[tokio::test]
async fn a_store_that_ignores_conditions_is_refused() {
    let (store, log) = Store::open("memory://unfenced")
        .unwrap()
        .with_faults(Faults {
            ignores_conditions: true,
            ..Faults::default()
        });
    let refused = store
        .check_conditional_puts()
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("If-None-Match") && refused.contains("MinIO"),
        "{refused}"
    );
    assert!(log.fired("ignored condition") >= 2);
    assert_eq!(
        store.list("").await.unwrap(),
        [],
        "the check leaves nothing"
    );
}
