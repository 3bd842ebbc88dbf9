//! The pool of a launch: what the command line says of it, where it listens, and who starts its workers.

use super::{Error, LaunchArgs};
use crate::{
    control::{Listen, ListenAddress, Server},
    launcher::{Chosen, Contact, Join, LauncherKind, Local, Logs, threads_each},
    sweep::{PoolTable, Sweep},
};
use polestar_run::pool::Token;
use std::path::{Path, PathBuf};

/// What the command line says of the pool, in place of the file.
pub(super) fn override_pool(sweep: &mut Sweep, args: &LaunchArgs) -> Result<(), Error> {
    let lanes = sweep.train.lanes;
    let pool = &mut sweep.pool;
    pool.launcher = args.launcher.or(pool.launcher);
    pool.listen = args.listen.clone().or_else(|| pool.listen.take());
    pool.token_file = args.token_file.clone().or_else(|| pool.token_file.take());
    if let Some(workers) = args.workers {
        if workers == 0 {
            return Err("--workers 0: a launch needs at least one worker".into());
        }
        pool.workers = workers;
        pool.workers_per_trial = pool.workers_per_trial.min(workers);
    }
    if let Some(world) = args.workers_per_trial {
        if world == 0 || world > pool.workers || world > lanes {
            let workers = pool.workers;
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
    listen: Listen,
    /// `None` for a pool of this machine only.
    open: Option<TokenFrom>,
}

/// Where whoever starts a worker finds the token.
#[derive(Debug)]
enum TokenFrom {
    File(PathBuf),
    Environment,
}

impl Entrance {
    /// As the sweep says. Makes the token's file if it names one that isn't there.
    pub(super) fn of(pool: &PoolTable) -> Result<Entrance, Error> {
        let Some(listen) = &pool.listen else {
            return Ok(Entrance {
                listen: Listen::here(Token::random()?),
                open: None,
            });
        };
        let address: ListenAddress = listen.parse()?;
        let (token, from) = match &pool.token_file {
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
        Ok(Entrance {
            listen: match pool.tls.clone() {
                Some(files) => listen.certified(files)?,
                None => listen,
            },
            open: Some(from),
        })
    }

    /// Listens, says how to join, and names who starts workers. `run` is where the run lies, for what is said.
    pub(super) async fn open(
        self,
        pool: &PoolTable,
        logs: Logs,
        run: &str,
    ) -> Result<(Server, Chosen), Error> {
        let server = Server::bind(self.listen).await?;
        if let Some(from) = &self.open {
            let program = std::env::current_exe()?;
            print!("{}", how_to_join(&program, &server.contact(), from, run));
        }
        let launcher = match pool.launcher_kind() {
            LauncherKind::Join => {
                eprintln!("waiting for workers; {} are expected", pool.workers);
                Chosen::Join(Join)
            }
            LauncherKind::Local => {
                let threads = match pool.threads {
                    0 => threads_each(pool.workers),
                    given => given,
                };
                Chosen::Local(Local::new(server.contact(), threads, logs))
            }
        };
        Ok((server, launcher))
    }
}

/// What to type on another host.
fn how_to_join(program: &Path, contact: &Contact, from: &TokenFrom, run: &str) -> String {
    let urls = contact.urls();
    let (token, needs) = match from {
        TokenFrom::File(path) => (
            format!(" --token-file {}", quoted(path)),
            "the token's file",
        ),
        TokenFrom::Environment => (String::new(), "POLESTAR_TOKEN"),
    };
    let certificates: String = contact
        .certificate_arguments()
        .iter()
        .map(|(flag, path)| format!(" {flag} {}", quoted(path)))
        .collect();
    let mut text = format!(
        "workers join from any host that has {needs}, with\n  {} worker join --coordinator {}{token}{certificates}\n",
        quoted(program),
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

/// As a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@,".contains(c);
    match text.chars().all(plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
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
