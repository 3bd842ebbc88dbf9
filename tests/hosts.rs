//! A pool over two hosts: two network namespaces with a cable between them, each with an address and a shared memory
//! of its own.

use crate::common::{Running, Sandbox, join_line, json, small_sweep};
use std::{
    fs::File,
    process::{Command, Stdio},
};

const STEPS: u64 = 60;
const TRIAL: &str = "pico-60steps-s1";

/// A network namespace, for as long as this lives.
struct Host {
    name: String,
    interface: String,
    address: &'static str,
}

impl Drop for Host {
    fn drop(&mut self) {
        // What can't be removed is told by the next test that wants the name.
        let _ = ip(&["netns", "del", &self.name]);
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output();
    let output = output.map_err(|error| format!("ip: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

impl Host {
    fn new(which: &str, address: &'static str) -> Result<Host, String> {
        let host = Host {
            name: format!("polestar-{}-{which}", std::process::id()),
            interface: format!("ps{}{which}", std::process::id()),
            address,
        };
        ip(&["netns", "add", &host.name])?;
        Ok(host)
    }

    /// Two hosts with a cable between them.
    fn two() -> Result<[Host; 2], String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root can make network namespaces".to_owned());
        }
        let hosts = [Host::new("a", "10.99.7.1")?, Host::new("b", "10.99.7.2")?];
        let [a, b] = &hosts;
        let cable = [
            "link",
            "add",
            &a.interface,
            "netns",
            &a.name,
            "type",
            "veth",
        ];
        let far_end = ["peer", "name", &b.interface, "netns", &b.name];
        ip(&[&cable[..], &far_end].concat())?;
        for host in &hosts {
            let network = format!("{}/24", host.address);
            ip(&[
                "-n",
                &host.name,
                "addr",
                "add",
                &network,
                "dev",
                &host.interface,
            ])?;
            for interface in ["lo", &host.interface] {
                ip(&["-n", &host.name, "link", "set", interface, "up"])?;
            }
        }
        Ok(hosts)
    }

    /// A command of the shell on this host, which shares no memory with the other.
    fn shell(&self, sandbox: &Sandbox, line: &str) -> Command {
        let line = format!("mount -t tmpfs tmpfs /dev/shm && exec {line}");
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.name, "sh", "-c", &line])
            .env("TMPDIR", sandbox.path(""))
            .stdin(Stdio::null());
        command
    }

    /// Bytes that went out over the cable.
    fn sent(&self) -> u64 {
        let file = format!("/sys/class/net/{}/statistics/tx_bytes", self.interface);
        let output = Command::new("ip")
            .args(["netns", "exec", &self.name, "cat", &file])
            .output();
        let text = String::from_utf8(output.expect("ip was there before").stdout);
        text.expect("digits").trim().parse().expect("a number")
    }
}

#[test]
fn one_trial_over_two_hosts_gives_the_digest_of_one() {
    let [a, b] = match Host::two() {
        Ok(hosts) => hosts,
        Err(why) => return println!("skipped: no two hosts can be made here: {why}"),
    };
    let sandbox = Sandbox::new();
    sandbox.write("sweep.toml", &small_sweep(STEPS));
    sandbox.succeed(&["launch", "sweep.toml", "--store", "alone"]);

    let printed = sandbox.path("printed");
    let program = env!("CARGO_BIN_EXE_coordinator");
    let world = "--workers 2 --workers-per-trial 2";
    let line = format!(
        "{program} launch sweep.toml --store runs --listen {}:0 --token-file token {world}",
        a.interface
    );
    let mut launch = a.shell(&sandbox, &line);
    launch
        .current_dir(sandbox.path(""))
        .stdout(File::create(&printed).expect("writable"));
    let mut launch = Running::start(launch);
    launch.wait_for("waiting for workers");
    let line = join_line(&std::fs::read_to_string(&printed).expect("it is there"));
    assert!(line.contains("--coordinator https://10.99.7.1:"), "{line}");
    // As it is printed, from another folder.
    let mut workers = [&a, &b].map(|host| {
        let mut worker = host.shell(&sandbox, &line);
        Running::start({
            worker.current_dir("/");
            worker
        })
    });
    let (success, lines) = launch.finish();
    let lines = lines.join("\n");
    assert!(success, "{lines}");
    for worker in &mut workers {
        worker.wait_for_end();
    }

    let digest = |store: &str| json(&sandbox.result(store, TRIAL))["outcome"]["digest"].clone();
    assert_eq!(digest("runs"), digest("alone"));
    assert_eq!(json(&sandbox.result("runs", TRIAL))["losses"], 0, "{lines}");
    // Half of every gradient went over the cable, and half of all weights came back.
    let sent = [a.sent(), b.sent()];
    assert!(sent.iter().all(|&bytes| bytes > STEPS * 10_000), "{sent:?}");
}

#[test]
fn a_trial_over_two_hosts_survives_a_partition() {
    let [a, b] = match Host::two() {
        Ok(hosts) => hosts,
        Err(why) => return println!("skipped: no two hosts can be made here: {why}"),
    };
    let sandbox = Sandbox::new();
    let pool = "workers = 1\ndeadline_seconds = 5.0";
    let text = small_sweep(STEPS).replace("workers = 1", pool);
    sandbox.write("sweep.toml", &text);
    sandbox.succeed(&["launch", "sweep.toml", "--store", "alone"]);

    let printed = sandbox.path("printed");
    let program = env!("CARGO_BIN_EXE_coordinator");
    let world = "--workers 2 --workers-per-trial 2";
    let line = format!(
        "{program} launch sweep.toml --store runs --listen {}:0 --token-file token {world}",
        a.interface
    );
    let mut launch = a.shell(&sandbox, &line);
    launch
        .current_dir(sandbox.path(""))
        .stdout(File::create(&printed).expect("writable"));
    let mut launch = Running::start(launch);
    launch.wait_for("waiting for workers");
    let line = join_line(&std::fs::read_to_string(&printed).expect("it is there"));
    let mut workers = [&a, &b].map(|host| {
        let mut worker = host.shell(&sandbox, &line);
        Running::start({
            worker.current_dir("/");
            worker
        })
    });
    launch.wait_for("step 20:");
    // Nothing is refused, nothing is closed: what is sent never arrives.
    let cable = |state| ip(&["-n", &b.name, "link", "set", &b.interface, state]);
    cable("down").expect("it was up");
    launch.wait_for(" left");
    cable("up").expect("it was down");
    launch.wait_for(" joined");
    let (success, lines) = launch.finish();
    let lines = lines.join("\n");
    assert!(success, "{lines}");
    for worker in &mut workers {
        worker.wait_for_end();
    }
    let digest = |store: &str| json(&sandbox.result(store, TRIAL))["outcome"]["digest"].clone();
    assert_eq!(digest("runs"), digest("alone"));
}
