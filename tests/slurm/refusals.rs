//! What can't be had of SLURM is said, and what a worker's exit code means.

use super::{cluster, sweep};
use crate::common::{Sandbox, transcript};

#[test]
fn a_partition_that_is_none_is_told_and_ends_the_launch() {
    let Some(cluster) = cluster() else { return };
    cluster.sandbox.write("sweep.toml", &sweep("nowhere", ""));
    let said = cluster.sandbox.refuse(&["launch", "sweep.toml"]);
    assert!(said.contains("Invalid partition name specified"), "{said}");
}

#[test]
fn without_slurm_it_is_told_what_is_missing() {
    let sandbox = Sandbox::new();
    sandbox.write("sweep.toml", &sweep("main", ""));
    for arguments in [
        &["slurm", "status", "sweep.toml"][..],
        &["slurm", "submit", "sweep.toml"],
        &["launch", "sweep.toml"],
    ] {
        let mut command = sandbox.command(arguments);
        let output = command.env("PATH", sandbox.path("")).output();
        let said = transcript(&output.expect("the program starts"));
        assert!(
            said.contains("can't be run; is this a node of a SLURM cluster"),
            "{arguments:?}: {said}"
        );
    }
}

#[test]
fn a_workers_exit_code_says_whether_another_try_helps() {
    let sandbox = Sandbox::new();
    sandbox.succeed(&["token", "token"]);
    sandbox.write("weak", "secret\n");
    let code = |coordinator: &str, token: &str| {
        let join = ["worker", "join", "--coordinator", coordinator];
        let output = sandbox.run(&[&join[..], &["--token-file", token]].concat());
        output.status.code()
    };
    let nobody = "https://127.0.0.1:1";
    assert_eq!(code(nobody, "token"), Some(75), "there may be one later");
    assert_eq!(code("ftp://127.0.0.1:1", "token"), Some(78));
    // As it was written, with a mode that lets others in.
    assert_eq!(code(nobody, "weak"), Some(78));
}
