//! A damaged checkpoint is named, and the one before it is used.

use crate::common::{Sandbox, json, small_sweep, transcript};

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_it_used() {
    let sandbox = Sandbox::new();
    sandbox.write("sweep.toml", &small_sweep(20));
    sandbox.succeed(&["launch", "sweep.toml"]);
    let trial = sandbox.trial("runs", "pico-20steps-s1");
    let result = sandbox.result("runs", "pico-20steps-s1");
    let digest = json(&result)["outcome"]["digest"].clone();

    std::fs::remove_file(&result).expect("it is there");
    let object = trial.join("checkpoints/00000020/00001-of-00001.safetensors");
    let mut bytes = std::fs::read(&object).expect("it is there");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&object, bytes).expect("it is writable");

    let output = sandbox.run(&["launch", "sweep.toml"]);
    let said = transcript(&output);
    assert!(
        said.contains("00000020/00001-of-00001.safetensors is damaged"),
        "{said}"
    );
    assert!(said.contains("resumes after step 15 "), "{said}");
    // The repeated steps write the same bytes, so the damaged object is whole again.
    assert!(output.status.success(), "{said}");
    assert_eq!(json(&result)["outcome"]["digest"], digest);
}
