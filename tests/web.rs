//! The page of a launch: what a browser is told, what it may do, and that nobody who watches holds training up.

use crate::common::{Sandbox, small_sweep};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Stdio},
};

/// A launch that shows itself.
struct Launch {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
    /// Host and port of its page.
    host: String,
}

impl Launch {
    fn start(sandbox: &Sandbox, arguments: &[&str]) -> Launch {
        let mut command = sandbox.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the program starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("it was piped"));
        let mut line = String::new();
        let host = loop {
            line.clear();
            let read = stdout.read_line(&mut line).expect("readable output");
            assert!(read > 0, "it ended without a page");
            if let Some(url) = line.trim().strip_prefix("page http://") {
                break url.trim_end_matches('/').to_owned();
            }
        };
        Launch {
            child,
            stdout,
            host,
        }
    }

    /// Sends a request; returns the connection.
    fn send(&self, method: &str, path: &str, headers: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.host).expect("it listens");
        let host = &self.host;
        let head = match headers.contains("host:") {
            true => headers.to_owned(),
            false => format!("host: {host}\r\n{headers}"),
        };
        let request = format!("{method} {path} HTTP/1.1\r\n{head}connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
        stream
    }

    /// Status, headers and body of an answer.
    fn ask(&self, method: &str, path: &str, headers: &str) -> (u16, String, String) {
        let mut answer = String::new();
        let mut stream = self.send(method, path, headers);
        stream.read_to_string(&mut answer).expect("it answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        (
            status.expect("a status"),
            head.to_ascii_lowercase(),
            body.to_owned(),
        )
    }

    fn get(&self, path: &str) -> Value {
        let (status, _, body) = self.ask("GET", path, "");
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).expect("JSON")
    }

    /// Loads the page with all that belongs to it; returns its secret.
    fn page(&self) -> String {
        let (status, head, html) = self.ask("GET", "/", "");
        assert_eq!(status, 200);
        assert!(
            head.contains("content-security-policy: default-src 'none'; script-src 'self'"),
            "{head}"
        );
        // Whatever the page loads is there, its own, and small.
        let mut bytes = html.len();
        for part in html.split("=\"/").skip(1) {
            let path = format!("/{}", part.split('"').next().expect("its end"));
            let (status, _, body) = self.ask("GET", &path, "");
            assert_eq!(status, 200, "{path}");
            bytes += body.len();
        }
        assert!(bytes < 500_000 && !html.contains("https:"), "{bytes} bytes");
        let (_, csrf) = html
            .split_once("name=\"csrf\" content=\"")
            .expect("a secret");
        let csrf = csrf.split('"').next().expect("its end");
        assert_eq!(csrf.len(), 64);
        csrf.to_owned()
    }

    /// Waits for the end; returns whether it succeeded, and what it printed.
    fn finish(mut self) -> (bool, String) {
        let mut printed = String::new();
        self.stdout
            .read_to_string(&mut printed)
            .expect("readable output");
        let status = self.child.wait().expect("it was started");
        (status.success(), printed)
    }
}

impl Drop for Launch {
    fn drop(&mut self) {
        // One that has ended needs no killing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Frames of a stream as (event, data).
fn frames(stream: TcpStream) -> impl Iterator<Item = (String, Value)> {
    let mut event = String::new();
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    lines.filter_map(move |line| {
        if let Some(name) = line.strip_prefix("event: ") {
            event = name.to_owned();
        }
        let data = line.strip_prefix("data: ")?;
        Some((event.clone(), serde_json::from_str(data).expect("JSON")))
    })
}

#[test]
fn a_page_shows_a_run_grow_and_only_the_page_itself_stops_it() {
    let sandbox = Sandbox::new();
    // Nobody waits for its end.
    let sweep = small_sweep(200_000).replace("every = 5", "every = 50");
    sandbox.write("sweep.toml", &sweep);
    let launch = Launch::start(&sandbox, &["launch", "sweep.toml", "--web", "127.0.0.1:0"]);

    // One that asks for everything and reads nothing, from the beginning to the end.
    let _deaf = launch.send("GET", "/api/stream", "");

    let csrf = launch.page();

    // The curve grows while it is watched.
    let mut points = Vec::new();
    let mut saved = 0;
    for (event, data) in frames(launch.send("GET", "/api/stream", "")) {
        match event.as_str() {
            "steps" => points.extend(data[0]["points"].as_array().expect("points").clone()),
            "status" => saved = data["trials"][0]["saved"].as_u64().expect("a number"),
            _ => {}
        }
        if points.len() > 20 && saved > 0 {
            break;
        }
    }
    let steps: Vec<u64> = points
        .iter()
        .map(|p| p["step"].as_u64().expect("a step"))
        .collect();
    assert!(
        steps.is_sorted() && points.iter().all(|p| p["loss"].is_f64()),
        "{points:?}"
    );
    let trial = "pico-200000steps-s1";
    let detail = launch.get(&format!("/api/trials/{trial}"));
    assert_eq!(detail["status"]["phase"], "running", "{detail}");
    assert!(detail["curve"]["points"].as_array().expect("points").len() > 20);
    // The newest may be on its way.
    let saved = detail["checkpoints"].as_array().expect("checkpoints");
    assert!(saved.iter().any(|c| c["committed"] == true), "{detail}");
    assert_eq!(launch.get("/api/curves")[0]["trial"], trial);
    assert_eq!(
        launch.get("/api/status")["pool"]["workers"][0]["trial"],
        trial
    );
    let events = launch.get("/api/events");
    assert_eq!(events["entries"][0]["entry"]["entry"], "began", "{events}");
    assert_eq!(
        launch.get("/api/incidents")["incidents"],
        Value::Array(vec![])
    );
    assert_eq!(launch.get("/api/laws")["missing"], 1);

    // Another site's name that was made to lead here, and another site's request.
    assert_eq!(
        launch.ask("GET", "/api/status", "host: evil.example\r\n").0,
        421
    );
    let own = format!("x-polestar-csrf: {csrf}\r\n");
    let length = "content-length: 0\r\n";
    for wrong in ["", "x-polestar-csrf: 0\r\n"] {
        let (status, _, said) = launch.ask("POST", "/api/drain", &format!("{wrong}{length}"));
        assert_eq!(status, 403, "{said}");
    }
    let retry = format!("/api/trials/{trial}/retry");
    let (status, _, said) = launch.ask("POST", &retry, &format!("{own}{length}"));
    assert!(
        status == 409 && said.contains("is running, not abandoned"),
        "{said}"
    );
    let (status, _, said) = launch.ask("POST", "/api/drain", &format!("{own}{length}"));
    assert_eq!(status, 202, "{said}");
    let (succeeded, _) = launch.finish();
    assert!(!succeeded, "it was stopped");

    // From the store alone it is as it was left, and nobody can stop what nobody leads.
    let run = sandbox.only_run("runs");
    let run = run.to_str().expect("a path in UTF-8");
    let shown = Launch::start(&sandbox, &["web", run, "--address", "127.0.0.1:0"]);
    let left = shown.get("/api/status");
    assert_eq!(left["leadership"]["by"], "nobody", "{left}");
    assert_eq!(left["trials"][0]["phase"], "begun", "{left}");
    let printed = sandbox.succeed(&["status", run, "--json"]);
    let printed: Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(printed, left, "the page and the command say the same");
    let replayed = sandbox.succeed(&["replay", run, "--json"]);
    let replayed: Value = serde_json::from_str(&replayed).expect("JSON");
    let all = replayed["entries"].as_array().expect("entries");
    let page = shown.get("/api/events");
    let newest = page["entries"].as_array().expect("entries");
    assert!(all.ends_with(newest), "{page}");
    assert!(page.to_string().contains("is saved at step"), "{page}");
    assert_ne!(shown.page(), csrf, "each page has a secret of its own");
    assert_eq!(shown.ask("POST", "/api/stop", length).0, 403);
}

#[test]
fn a_page_for_other_hosts_takes_a_certificate_and_a_token() {
    let sandbox = Sandbox::new();
    sandbox.write("sweep.toml", &small_sweep(5));
    let said = sandbox.refuse(&["launch", "sweep.toml", "--web", "0.0.0.0:0"]);
    assert!(said.contains("--web-tls-certificate FILE"), "{said}");
    assert!(!sandbox.path("corpus").exists(), "nothing was begun");
}
