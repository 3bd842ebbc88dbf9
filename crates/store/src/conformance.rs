//! The suite that every store must pass, in quiet and in trouble.

use super::{Error, Put, Store, Swap, faults::Faults};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

/// Asserts what a run relies on. The store must be empty, and is afterwards.
///
/// # Panics
/// When the store does anything else.
pub async fn conforms(store: &Store) {
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

    swaps(store).await;

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
    let error = store.get("a/b").await.expect_err("it is gone").to_string();
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

/// The same with all the trouble that a store can make for a while.
///
/// # Panics
/// When the store does anything else, or the trouble never came.
pub async fn conforms_in_trouble(store: &Store) {
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

/// Of all who read one version, one replaces it.
async fn swaps(store: &Store) {
    assert!(store.get_versioned("lease").await.unwrap().is_none());
    store.put("lease", "0".into()).await.unwrap();
    let (bytes, first) = store.get_versioned("lease").await.unwrap().unwrap();
    assert_eq!(bytes, "0");
    // All at once where the atomicity is our own; a service's is its own to promise, and the servers that
    // tests run against promise none.
    let at_a_time = if store.is_remote() { 1 } else { 8 };
    let rivals = (0..8).map(|rival| {
        let content = Bytes::from(format!("taken by {rival}"));
        store.compare_and_swap("lease", &first, content)
    });
    let ends: Vec<Swap> = stream::iter(rivals)
        .buffered(at_a_time)
        .try_collect()
        .await
        .unwrap();
    let mut won = ends
        .into_iter()
        .enumerate()
        .filter_map(|(rival, end)| match end {
            Swap::Swapped(version) => Some((rival, version)),
            Swap::Changed => None,
        });
    let (winner, second) = won.next().expect("one of them wins");
    assert!(won.next().is_none(), "and only one");
    let there = store.get("lease").await.unwrap();
    assert_eq!(there, format!("taken by {winner}"));
    // The winner goes on with what it was told, and the others' version is outdated for good.
    let renewed = store
        .compare_and_swap("lease", &second, "renewed".into())
        .await
        .unwrap();
    assert!(matches!(renewed, Swap::Swapped(_)));
    let late = store
        .compare_and_swap("lease", &first, "late".into())
        .await
        .unwrap();
    assert!(matches!(late, Swap::Changed));
    assert_eq!(store.get("lease").await.unwrap(), "renewed");
    store.delete("lease").await.unwrap();
    let gone = store
        .compare_and_swap("lease", &second, "gone".into())
        .await
        .unwrap();
    assert!(matches!(gone, Swap::Changed));
    assert!(!store.exists("lease").await.unwrap());
}
