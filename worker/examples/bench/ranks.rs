//! A benchmark program as several ranks: it starts itself once for each.

use polestar_core::Rank;
use polestar_run::pool::{Tls, Token};
use polestar_worker::{
    allocator::allocator,
    collective::{Join, Locality, Mesh, MeshTransport, Secret, listen},
};
use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Command, Stdio},
    time::Duration,
};

pub(crate) type Failure = Box<dyn std::error::Error>;

const DEADLINE: Duration = Duration::from_secs(60);

/// Starts this program with `--rank r` for each rank, tells each where the others listen, and passes
/// on what they print.
pub(crate) fn spawn(workers: u32) -> Result<(), Failure> {
    let mut children = Vec::new();
    for rank in 0..workers {
        let child = Command::new(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .args(["--rank", &rank.to_string()])
            // As the coordinator starts its workers.
            .envs([allocator()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        children.push(child);
    }
    let mut outputs = Vec::new();
    let mut addresses = Vec::new();
    for child in &mut children {
        let mut output = BufReader::new(child.stdout.take().ok_or("a worker without output")?);
        let mut address = String::new();
        output.read_line(&mut address)?;
        addresses.push(address.trim().to_owned());
        outputs.push(output);
    }
    for child in &mut children {
        let mut input = child.stdin.take().ok_or("a worker without input")?;
        writeln!(input, "{}", addresses.join(" "))?;
    }
    for (mut child, mut output) in children.into_iter().zip(outputs) {
        let mut line = String::new();
        output.read_line(&mut line)?;
        print!("{line}");
        if !child.wait()?.success() {
            return Err("a worker failed".into());
        }
    }
    Ok(())
}

/// What the bytes between ranks go through.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Links {
    /// Memory, as on one host.
    Shared,
    /// Connections.
    Plain,
    /// Connections under TLS, as between hosts.
    Sealed,
}

/// Joins the other ranks.
pub(crate) fn connect(rank: Rank, links: Links) -> Result<MeshTransport, Failure> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let listener = listen(any).await?;
        println!("{}", listener.local_addr()?);
        let mut line = String::new();
        std::io::stdin().read_line(&mut line)?;
        let peers = line
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<Vec<SocketAddr>, _>>()?;
        let token = Token::parse(&blake3::hash(b"bench").to_hex(), "the benchmark")?;
        let tls = matches!(links, Links::Sealed).then(|| Tls::of(&token));
        let join = Join {
            rank,
            listener,
            peers: &peers,
            secret: &Secret([1; 32]),
            tls: tls.as_ref(),
            locality: match links {
                Links::Shared => Locality::Machine,
                Links::Plain | Links::Sealed => Locality::Apart,
            },
            deadline: DEADLINE,
        };
        Ok(MeshTransport::new(Mesh::connect(join).await?, DEADLINE))
    })
}
