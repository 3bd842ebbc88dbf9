//! Whoever knocks at a pool's port without its token changes nothing: not the digest, not the ranks, not the end.

use crate::common::{Running, Sandbox, join_line, json, kill, small_sweep};
use std::{
    fs::File,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    process::Stdio,
    thread::JoinHandle,
    time::{Duration, Instant},
};

const STEPS: u64 = 500;
const TRIAL: &str = "pico-500steps-s1";
const IDLE: usize = 1000;

/// Says something and waits until the other end has ended the connection. Returns what it answered.
fn says(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("somebody listens");
    // It may be shown out in the middle of that.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// Stands between one connection and an address; gives what was said to that.
fn relay(address: &str) -> (String, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let here = listener.local_addr().expect("it is bound").to_string();
    let far = TcpStream::connect(address).expect("somebody listens");
    let recording = std::thread::spawn(move || {
        let (mut near, _) = listener.accept().expect("somebody dials");
        let (mut back, mut answers) = (
            near.try_clone().expect("a socket"),
            far.try_clone().expect("a socket"),
        );
        let answering = std::thread::spawn(move || std::io::copy(&mut answers, &mut back));
        let (mut said, mut buffer, mut far) = (Vec::new(), [0; 4096], far);
        while let Ok(n @ 1..) = near.read(&mut buffer) {
            said.extend_from_slice(&buffer[..n]);
            far.write_all(&buffer[..n]).expect("the coordinator lives");
        }
        let _ = far.shutdown(Shutdown::Both);
        let _ = answering.join().expect("it only copies");
        said
    });
    (here, recording)
}

/// A frame of HTTP/2 that announces 16 MiB, and the beginning of them, after the greeting.
fn huge_frame() -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend_from_slice(&[0xff, 0xff, 0xff, 0x01, 0x04, 0, 0, 0, 1]);
    bytes.resize(bytes.len() + (1 << 20), 0x41);
    bytes
}

/// What a worker that joins says, from the first byte to its end.
fn recorded(sandbox: &Sandbox, launch: &mut Running, address: &str) -> Vec<u8> {
    let (relayed, recording) = relay(address);
    let url = format!("https://{relayed}");
    let mut join = sandbox.command(&[
        "worker",
        "join",
        "--coordinator",
        &url,
        "--token-file",
        "token",
    ]);
    join.stdout(Stdio::null());
    let worker = Running::start(join);
    launch.wait_for("worker 3 joined");
    kill(worker.pid());
    let said = recording.join().expect("it only records");
    assert!(said.len() > 300, "a whole handshake: {}", said.len());
    assert!(!worker.finish().0);
    said
}

#[test]
fn strangers_at_the_port_of_a_pool_change_nothing() {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    // Where it is forbidden, what there is has to do.
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit);
    let sandbox = Sandbox::new();
    sandbox.write("sweep.toml", &small_sweep(STEPS));
    let world = ["--workers", "2", "--workers-per-trial", "2"];
    let alone = ["launch", "sweep.toml", "--store", "alone"];
    let begun = Instant::now();
    sandbox.succeed(&[&alone[..], &world].concat());
    let undisturbed = begun.elapsed();
    sandbox.succeed(&["token", "token"]);
    sandbox.succeed(&["token", "another"]);

    let disturbed = [
        "launch",
        "sweep.toml",
        "--store",
        "runs",
        "--launcher",
        "local",
    ];
    let listen = ["--listen", "127.0.0.1:0", "--token-file", "token"];
    let mut launch = sandbox.command(&[&disturbed[..], &listen, &world].concat());
    let printed = sandbox.path("printed");
    launch.stdout(File::create(&printed).expect("writable"));
    let begun = Instant::now();
    let mut launch = Running::start(launch);
    launch.wait_for(" begins ");
    let line = join_line(&std::fs::read_to_string(&printed).expect("it is there"));
    let url = line
        .split_whitespace()
        .find(|word| word.starts_with("https://"));
    let url = url.expect("the line names the coordinator");
    let address = url.trim_start_matches("https://");

    let replay = recorded(&sandbox, &mut launch, address);
    let mut idle: Vec<TcpStream> = (0..IDLE)
        .map(|_| TcpStream::connect(address).expect("somebody listens"))
        .collect();
    for bytes in [
        &replay[..],
        &huge_frame(),
        &[0x5a; 300_000],
        b"GET / HTTP/1.1\r\nhost: pool\r\n\r\n",
    ] {
        let answer = says(address, bytes);
        assert!(!answer.starts_with(b"HTTP"), "nothing but TLS is spoken");
    }
    let intruder = [
        "worker",
        "join",
        "--coordinator",
        url,
        "--token-file",
        "another",
    ];
    let said = sandbox.refuse(&intruder);
    assert!(said.contains("both are of one pool"), "{said}");
    // The first who came and said nothing have been shown out for the others.
    let left = idle[0].read(&mut [0]);
    assert!(matches!(left, Ok(0) | Err(_)), "{left:?}");
    let attack = begun.elapsed();
    assert!(launch.lives(), "the trial was over after {attack:?}");

    let (success, lines) = launch.finish();
    let lines = lines.join("\n");
    assert!(success, "{lines}");
    let disturbed = begun.elapsed();
    println!("undisturbed {undisturbed:?}; attacked until {attack:?} of {disturbed:?}");
    assert!(disturbed < 3 * undisturbed + Duration::from_secs(10));
    let (runs, alone) = (
        json(&sandbox.result("runs", TRIAL)),
        json(&sandbox.result("alone", TRIAL)),
    );
    assert_eq!(runs["outcome"]["digest"], alone["outcome"]["digest"]);
    assert_eq!(runs["losses"], 0, "{lines}");
    drop(idle);
}
