//! A small HTTP client over one connection a request.

use serde_json::Value;
use std::net::SocketAddr;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

/// A request's bytes.
pub(crate) fn request(method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Sends bytes and reads until the other end is done.
pub(crate) async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    bytes: &[u8],
) -> Reply {
    // An answer may come before all is sent.
    let _ = stream.write_all(bytes).await;
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply).await;
    let text = String::from_utf8(reply).expect("text");
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).expect("a status line");
    let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    assert!(!chunked, "the answers here have a length");
    Reply {
        status: status.parse().expect("a status"),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

pub(crate) async fn post(address: SocketAddr, path: &str, json: &Value) -> Reply {
    send(address, "POST", path, json.to_string().as_bytes()).await
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> Reply {
    send(address, "GET", path, b"").await
}

pub(crate) async fn send(address: SocketAddr, method: &str, path: &str, body: &[u8]) -> Reply {
    let stream = TcpStream::connect(address)
        .await
        .expect("the server listens");
    exchange(stream, &request(method, path, "", body)).await
}

/// A sequence as POLAR's client makes it: a newline before an answer that isn't empty.
pub(crate) fn polar(prompt: &str, reference: &str, candidate: &str) -> String {
    let answer = |text: &str| match text {
        "" => prompt.to_owned(),
        text => format!("{prompt}\n{text}"),
    };
    format!(
        "{}<|reward|>{}[UNUSED_TOKEN_130]",
        answer(reference),
        answer(candidate)
    )
}
