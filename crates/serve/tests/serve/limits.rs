//! What is too much, who may ask, and how a server ends.

use crate::{
    client::{exchange, get, polar, post, request},
    served::{Model, Served},
};
use polestar_run::pool::Token;
use polestar_serve::http::{Certificate, Limits, Options, ServeError, Server};
use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::{io::AsyncReadExt, io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::TlsConnector;

/// A request that takes the model a while.
fn heavy() -> Value {
    let texts = (0..300).map(|i| {
        polar(
            &"red sun ".repeat(9),
            &"map cat ".repeat(i % 9),
            &"win top ".repeat(1 + i % 9),
        )
    });
    json!({ "text": texts.collect::<Vec<_>>() })
}

/// Tokens that a request brings at least.
fn tokens(model: &Model, request: &Value) -> usize {
    let texts = request["text"].as_array().expect("texts").iter();
    let texts = texts.map(|text| text.as_str().expect("a text"));
    let trees: Vec<_> = texts
        .map(|text| model.texts.sequence(text).expect("a sequence"))
        .collect();
    let branches: usize = trees.iter().map(|tree| tree.branches[0].len()).sum();
    let prefixes: BTreeSet<_> = trees.into_iter().map(|tree| tree.prefix).collect();
    branches + prefixes.iter().map(Vec::len).sum::<usize>()
}

/// Waits until a number of the metrics is above zero.
async fn until_counted(served: &Served, name: &str) {
    for _ in 0..600 {
        let metrics = get(served.address, "/metrics").await.body;
        let line = metrics.lines().find(|line| line.starts_with(name));
        if line.is_some_and(|line| !line.ends_with(" 0")) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{name} stayed 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_are_bounded_hang_ups_cancel_and_a_stop_answers_what_was_asked() {
    let model = Model::new("serve-queues", 128).await;
    let limits = Limits {
        queue_tokens: 100_000,
        // Machines that run tests may be slow.
        timeout: Duration::from_secs(600),
        drain: Duration::from_secs(600),
        ..Limits::default()
    };
    let mut served = model.serve(limits).await;
    let at = served.address;

    // Whoever hangs up is not scored to the end.
    let mut gone = TcpStream::connect(at).await.expect("it listens");
    let body = heavy().to_string();
    gone.write_all(&request("POST", "/classify", "", body.as_bytes()))
        .await
        .expect("sent");
    until_counted(&served, "polestar_queue_tokens").await;
    drop(gone);
    until_counted(&served, "polestar_cancelled_total").await;

    // No more than fits in the queue; more than ever fits is another status.
    let small = Limits {
        queue_tokens: 100,
        ..limits
    };
    let bounded = model.serve(small).await;
    let reply = post(bounded.address, "/classify", &heavy()).await;
    assert!(
        reply.status == 413 && reply.body.contains("the queue holds 100"),
        "{reply:?}"
    );
    let nobody = Limits {
        requests: 0,
        ..limits
    };
    let nobody = model.serve(nobody).await;
    let reply = post(nobody.address, "/classify", &heavy()).await;
    assert!(
        reply.status == 429 && reply.head.to_lowercase().contains("retry-after: 1"),
        "{reply:?}"
    );
    // Room for one of them and a bit, and eight come at once.
    let crowded = Limits {
        queue_tokens: 2 * tokens(&model, &heavy()),
        ..limits
    };
    let crowded_server = model.serve(crowded).await;
    let crowded = crowded_server.address;
    let eight = (0..8)
        .map(|_| tokio::spawn(async move { post(crowded, "/classify", &heavy()).await.status }));
    let eight: Vec<_> = eight.collect();
    let mut statuses = Vec::new();
    for status in eight {
        statuses.push(status.await.expect("an answer"));
    }
    statuses.sort_unstable();
    statuses.dedup();
    assert_eq!(statuses, [200, 429]);

    let hasty = Limits {
        timeout: Duration::from_millis(1),
        ..limits
    };
    let hasty = model.serve(hasty).await;
    let reply = post(hasty.address, "/classify", &heavy()).await;
    assert!(
        reply.status == 504 && reply.body.contains("--timeout"),
        "{reply:?}"
    );

    let last = tokio::spawn(async move { post(at, "/classify", &heavy()).await });
    until_counted(&served, "polestar_queue_tokens").await;
    served.stop();
    assert_eq!(last.await.expect("an answer").status, 200);
    assert_eq!(served.running.await.expect("it ended"), 0);
    assert!(TcpStream::connect(at).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn other_hosts_need_tls_and_a_token() {
    let model = Model::new("serve-guarded", 16).await;
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    let key = KeyPair::generate().expect("a key");
    let certificate = CertificateParams::new(vec!["rewards.example".to_owned()]).expect("a name");
    let certificate = certificate.self_signed(&key).expect("a certificate");
    let files = Certificate {
        certificate: write("crt.pem", certificate.pem()),
        key: write("key.pem", key.serialize_pem()),
    };
    let token = Token::random().expect("a token");
    let options = |certificate: &Option<Certificate>, token: &Option<Token>| Options {
        address: ([0, 0, 0, 0], 0).into(),
        token: token.clone(),
        certificate: certificate.clone(),
        model: "noise".to_owned(),
        limits: Limits::default(),
    };
    let (sealed, shown) = (Some(files.clone()), Some(token.clone()));
    for (certificate, token, said) in [
        (&None, &None, "nothing is sealed and nobody"),
        (&sealed, &None, "nobody has to show a token"),
        (&None, &shown, "nothing is sealed"),
    ] {
        let server = Server::bind(
            options(certificate, token),
            model.texts.clone(),
            model.scorer(),
        );
        let Err(error @ ServeError::Unguarded { .. }) = server.await else {
            panic!("it listens");
        };
        assert!(error.to_string().contains(said), "{error}");
    }
    let swapped = Some(Certificate {
        certificate: files.key.clone(),
        ..files
    });
    let server = Server::bind(
        options(&swapped, &shown),
        model.texts.clone(),
        model.scorer(),
    );
    assert!(matches!(server.await, Err(ServeError::Pem { .. })));

    let served = model.serve_as(options(&sealed, &shown)).await;
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).expect("a root");
    let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("TLS")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(client));
    let ask = async |path: &str, headers: String| {
        let stream = TcpStream::connect(("127.0.0.1", served.address.port())).await;
        let name = ServerName::try_from("rewards.example").expect("a name");
        let stream = connector.connect(name, stream.expect("it listens")).await;
        let body = json!({ "text": "a<|reward|>b" }).to_string();
        let method = if path == "/classify" { "POST" } else { "GET" };
        exchange(
            stream.expect("TLS"),
            &request(method, path, &headers, body.as_bytes()),
        )
        .await
    };
    let bearer = |text: &str| format!("Authorization: Bearer {text}\r\n");
    for (headers, status) in [
        (String::new(), 401),
        (bearer("wrong"), 401),
        (bearer(&token.to_hex()), 200),
    ] {
        for path in ["/classify", "/metrics"] {
            let reply = ask(path, headers.clone()).await;
            assert_eq!(reply.status, status, "{path} {headers}: {reply:?}");
        }
    }
    assert_eq!(ask("/health", String::new()).await.status, 200);
    let plain = TcpStream::connect(("127.0.0.1", served.address.port())).await;
    let mut plain = plain.expect("it listens");
    plain
        .write_all(b"GET /health HTTP/1.1\r\n\r\n")
        .await
        .expect("sent");
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "nothing is said in the open");
}
