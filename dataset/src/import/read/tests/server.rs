//! A web server of a test: some pages, and a record of what was asked for.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What is served at a path.
#[derive(Clone)]
pub(super) enum Served {
    Body(Vec<u8>),
    /// The connection breaks off halfway, unless the second half is asked for.
    Broken(Vec<u8>),
    Moved(String),
    Status(u16),
}

/// Serves until the process ends.
pub(super) struct Server {
    pub(super) url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(super) fn start(pages: &[(&str, Served)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let pages: BTreeMap<String, Served> = pages
            .iter()
            .map(|(path, page)| ((*path).to_owned(), page.clone()))
            .collect();
        let asked = Arc::new(Mutex::new(vec![]));
        let record = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away early is none of the server's business.
                let _ = answer(stream, &pages, &record);
            }
        });
        Self { url, asked }
    }

    /// The requests so far: path and, where there was one, token.
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn answer(
    stream: TcpStream,
    pages: &BTreeMap<String, Served>,
    asked: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let (mut from, mut token) = (0, String::new());
    for line in lines {
        let line = line?.to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(range) = line.strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().unwrap_or(0);
        }
        if let Some(given) = line.strip_prefix("authorization: bearer ") {
            token = format!(" {given}");
        }
    }
    asked.lock().unwrap().push(format!("{path}{token}"));
    let (head, body): (String, &[u8]) = match pages.get(&path) {
        Some(Served::Body(body)) => (length(200, body.len()), body),
        Some(Served::Broken(body)) if from > 0 => (length(206, body.len() - from), &body[from..]),
        Some(Served::Broken(body)) => (length(200, body.len()), &body[..body.len() / 2]),
        Some(Served::Moved(to)) => (
            format!("302 Found\r\nlocation: {to}\r\ncontent-length: 0"),
            b"",
        ),
        Some(Served::Status(status)) => (length(*status, 0), b""),
        None => (length(404, 0), b""),
    };
    let mut stream = stream;
    let head = format!("HTTP/1.1 {head}\r\nconnection: close\r\netag: \"1\"\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)
}

fn length(status: u16, bytes: usize) -> String {
    format!("{status} Said\r\ncontent-length: {bytes}")
}
