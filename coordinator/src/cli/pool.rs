//! The pool of a launch: what the command line says of it, where it listens, and who starts its workers.

use super::{Error, LaunchArgs};
use crate::{
    control::{Listen, ListenAddress, Server},
    launcher::{
        Chosen, Contact, Join, LauncherKind, Local, Logs, Slurm,
        slurm::{Folder, Place},
        threads_each,
    },
    shell::quoted,
    sweep::{Sweep, Workers, WorkersPerTrial},
};
use polestar_run::pool::Token;
use std::{
    num::NonZeroU32,
    path::{Path, PathBuf},
};

/// All addresses of this host, and any port: several coordinators may share a login node.
const EVERYWHERE: &str = "0.0.0.0:0";

/// What the command line says of the pool, in place of the file.
pub(super) fn override_pool(sweep: &mut Sweep, args: &LaunchArgs) -> Result<(), Error> {
    let lanes = sweep.train.lanes;
    let pool = &mut sweep.pool;
    pool.launcher = args.launcher.or(pool.launcher);
    pool.listen = args.listen.clone().or_else(|| pool.listen.take());
    pool.token_file = args.token_file.clone().or_else(|| pool.token_file.take());
    if let Some(workers) = args.what.workers {
        if workers == Workers::Fixed(0) {
            return Err("--workers 0: a launch needs at least one worker".into());
        }
        workers.check()?;
        pool.workers = workers;
        if let (WorkersPerTrial::Fixed(number), Some(most)) =
            (pool.workers_per_trial, NonZeroU32::new(workers.number()))
        {
            pool.workers_per_trial = WorkersPerTrial::Fixed(number.min(most));
        }
    }
    if let Some(world) = args.what.workers_per_trial {
        if let WorkersPerTrial::Fixed(number) = world
            && number.get() > pool.workers.number().min(lanes)
        {
            let workers = pool.workers.number();
            return Err(format!(
                "--workers-per-trial {world}: the pool has {workers} workers and a batch {lanes} lanes"
            )
            .into());
        }
        pool.workers_per_trial = world;
    }
    Ok(())
}

/// How workers get into a pool, before it listens.
#[derive(Debug)]
pub(super) struct Entrance {
    /// `None` for a pool of this machine only.
    open: Option<Open>,
}

/// A pool that other hosts can join.
#[derive(Debug)]
struct Open {
    listen: Listen,
    token: TokenFrom,
}

/// Where whoever starts a worker finds the token.
#[derive(Debug)]
enum TokenFrom {
    File(PathBuf),
    Environment,
}

impl Entrance {
    /// As the sweep says. Makes the token's file if it names one that isn't there.
    pub(super) fn of(sweep: &Sweep) -> Result<Entrance, Error> {
        let pool = &sweep.pool;
        let slurm = slurm_folder(sweep)?;
        let listen = match (&pool.listen, &slurm) {
            (Some(listen), _) => listen.as_str(),
            // Its nodes are other hosts.
            (None, Some(_)) => EVERYWHERE,
            (None, None) => return Ok(Entrance { open: None }),
        };
        let address: ListenAddress = listen.parse()?;
        let token_file = match (&pool.token_file, &slurm) {
            (Some(file), _) => Some(file.clone()),
            (None, Some(folder)) => {
                folder.make()?;
                Some(folder.token())
            }
            (None, None) => None,
        };
        let (token, from) = match &token_file {
            None => (Token::given(None)?, TokenFrom::Environment),
            Some(file) => {
                let (token, new) = Token::read_or_create(file)?;
                let path = file.canonicalize().unwrap_or_else(|_| file.clone());
                if new {
                    println!(
                        "made {}: whoever has this file can join the pool",
                        path.display()
                    );
                }
                (token, TokenFrom::File(path))
            }
        };
        let listen = Listen::openly(&address, token)
            .map_err(|error| format!("pool.listen (or --listen): {error}"))?;
        let listen = match pool.tls.clone() {
            Some(files) => listen.certified(files)?,
            None => listen,
        };
        let token = from;
        Ok(Entrance {
            open: Some(Open { listen, token }),
        })
    }

    /// Listens. Returns what to say of how to join, once somebody is let in. `run` is where the run lies.
    pub(super) async fn listen(self, logs: &Logs, run: &str) -> Result<(Server, String), Error> {
        match self.open {
            None => {
                let listen = Listen::here(logs.token_for(run)?);
                Ok((Server::bind(listen).await?, String::new()))
            }
            Some(Open { listen, token }) => {
                let server = Server::bind(listen).await?;
                let program = std::env::current_exe()?;
                let notice = how_to_join(&program, &server.contact(), &token, run);
                Ok((server, notice))
            }
        }
    }

    /// Who starts the workers of a server.
    pub(super) async fn launcher(
        sweep: &Sweep,
        server: &Server,
        logs: Logs,
    ) -> Result<Chosen, Error> {
        let pool = &sweep.pool;
        Ok(match pool.launcher_kind() {
            LauncherKind::Join => {
                eprintln!(
                    "waiting for workers; {} are expected",
                    pool.workers.number()
                );
                Chosen::Join(Join)
            }
            LauncherKind::Local => {
                let threads = match pool.threads {
                    0 => threads_each(pool.workers.number()),
                    given => given,
                };
                Chosen::Local(Box::new(Local::new(
                    server.contact(),
                    threads,
                    logs,
                    pool.workers.devices(),
                )))
            }
            LauncherKind::Slurm => {
                let table = pool.slurm.clone().unwrap_or_default();
                let folder = Folder::of(&table.folder, &sweep.name)?;
                let contact = server.contact();
                let place = Place {
                    url: contact.url(),
                    token: contact.token,
                    threads: pool.threads,
                    workers: pool.workers.number(),
                };
                Chosen::Slurm(Slurm::start(&table, &folder, &place).await?)
            }
        })
    }
}

/// The folder of a pool whose workers are jobs of SLURM.
fn slurm_folder(sweep: &Sweep) -> Result<Option<Folder>, Error> {
    if sweep.pool.launcher_kind() != LauncherKind::Slurm {
        return Ok(None);
    }
    let table = sweep.pool.slurm.clone().unwrap_or_default();
    Ok(Some(Folder::of(&table.folder, &sweep.name)?))
}

/// What to type on another host.
fn how_to_join(program: &Path, contact: &Contact, from: &TokenFrom, run: &str) -> String {
    let urls = contact.urls();
    let (token, needs) = match from {
        TokenFrom::File(path) => (
            format!(" --token-file {}", path_word(path)),
            "the token's file",
        ),
        TokenFrom::Environment => (String::new(), "POLESTAR_TOKEN"),
    };
    let certificates: String = contact
        .certificate_arguments()
        .iter()
        .map(|(flag, path)| format!(" {flag} {}", path_word(path)))
        .collect();
    let mut text = format!(
        "workers join from any host that has {needs}, with\n  {} worker join --coordinator {}{token}{certificates}\n",
        path_word(program),
        urls[0]
    );
    if !certificates.is_empty() {
        text += "with certificates of their own\n";
    }
    if urls.len() > 1 {
        text += &format!("  (or --coordinator {})\n", urls[1..].join(", "));
    }
    if run.starts_with("file:") {
        text += "every host has to see the folders of this run and its corpus under the same paths; where they share \
                 none, use s3://\n";
    }
    text
}

/// A path as a shell takes it.
fn path_word(path: &Path) -> String {
    quoted(&path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_to_paste_is_whole_and_survives_a_shell() {
        let contact = Contact {
            addresses: vec![([10, 1, 0, 5], 7317).into(), ([127, 0, 0, 1], 7317).into()],
            token: Token::random().unwrap(),
            tls: true,
            certificates: None,
        };
        let file = TokenFrom::File("/home/it's me/token".into());
        let program = Path::new("/opt/coordinator");
        let text = how_to_join(program, &contact, &file, "s3://runs/a");
        assert!(
            text.contains(
                "\n  /opt/coordinator worker join --coordinator https://10.1.0.5:7317 --token-file \
                 '/home/it'\\''s me/token'\n  (or --coordinator https://127.0.0.1:7317)\n"
            ),
            "{text}"
        );
        assert!(
            !text.contains(&contact.token.to_hex()) && !text.contains("folders"),
            "{text}"
        );
        let text = how_to_join(program, &contact, &TokenFrom::Environment, "file:///runs/a");
        assert!(
            text.contains("has POLESTAR_TOKEN, with") && text.contains("folders"),
            "{text}"
        );
    }
}
