//! The same tests with the sanitizers: no element outside a vector is touched, nothing undefined is done.

use crate::library::{OTHER, build};
use std::process::Command;

#[test]
fn kernels_keep_within_their_vectors() {
    if std::env::var_os(OTHER).is_some() {
        return;
    }
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let runtime = Command::new(compiler)
        .arg("-print-file-name=libasan.so")
        .output();
    let runtime = runtime.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    // A compiler that hasn't the file prints the name alone.
    let Some(runtime) = runtime.ok().filter(|path| path.contains('/')) else {
        println!("skipped: no sanitizer for this C++ compiler");
        return;
    };
    let Some(library) = build(Some("sanitize")) else {
        return;
    };
    let tests = std::env::current_exe().expect("a test has a file");
    let output = Command::new(tests)
        .args(["--skip", "sanitized::", "--test-threads", "1"])
        .env(OTHER, library)
        .env("LD_PRELOAD", runtime)
        .env("ASAN_OPTIONS", "detect_leaks=0")
        .output()
        .expect("the tests run again");
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{}\n{}", text[0], text[1]);
}
