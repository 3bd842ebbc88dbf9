//! Every store passes one suite: a folder, memory, an S3 server in this process, and whatever
//! POLESTAR_S3_URL names (s3://bucket/prefix, settings in AWS_*).

#[path = "../../../tests/common/s3_server.rs"]
mod s3_server;

use polestar_store::{
    Error, Store,
    conformance::{conforms, conforms_in_trouble},
    faults::Faults,
};
use s3_server::{BUCKET, S3Server};
use std::process::Command;

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
