//! `web`, and the page of `launch --web`.

use super::{Error, inspect_run::open};
use crate::web::{Options, Page};
use clap::Args;
use polestar_run::pool::Token;
use polestar_serve::http::Certificate;
use std::{
    net::{Ipv4Addr, SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
};
use tokio::signal::unix::{SignalKind, signal};

/// The page of a run that is looked at from its store.
#[derive(Debug, Args)]
pub(crate) struct WebArgs {
    /// Folder of the run, as `launch` prints it
    run: String,
    /// Where to listen: a port of this machine, or an address and a port; outside this machine only with a certificate
    /// and a token
    #[arg(long, value_name = "[ADDRESS:]PORT", default_value = "127.0.0.1:7318")]
    address: String,
    /// File with the token that browsers are asked for; made if it isn't there
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Speak TLS with this certificate, and those between it and its authority, as PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// The certificate's key, as PEM
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
}

/// The page of a launch.
#[derive(Debug, Args)]
pub(crate) struct PageArgs {
    /// Show the run in a browser: listen on a port of this machine, or an address and a port; 0 takes any port
    #[arg(long, value_name = "[ADDRESS:]PORT")]
    web: Option<String>,
    /// File with the token that browsers are asked for; made if it isn't there
    #[arg(long, value_name = "FILE", requires = "web")]
    web_token_file: Option<PathBuf>,
    /// Speak TLS to browsers with this certificate, and those between it and its authority, as PEM
    #[arg(long, value_name = "FILE", requires_all = ["web", "web_tls_key"])]
    web_tls_certificate: Option<PathBuf>,
    /// The certificate's key, as PEM
    #[arg(long, value_name = "FILE", requires = "web_tls_certificate")]
    web_tls_key: Option<PathBuf>,
}

impl PageArgs {
    /// Listens, if a page is wanted.
    pub(super) async fn open(&self) -> Result<Option<Page>, Error> {
        let Some(address) = &self.web else {
            return Ok(None);
        };
        let certificate = certificate(&self.web_tls_certificate, &self.web_tls_key);
        let options = Options {
            address: resolve("--web", address)?,
            token: token(self.web_token_file.as_deref())?,
            certificate,
            remedy: "--web-tls-certificate FILE, --web-tls-key FILE and --web-token-file FILE",
        };
        Ok(Some(Page::open(&options).await?))
    }
}

/// Shows a run until a signal comes.
pub(super) async fn run(args: WebArgs) -> Result<(), Error> {
    let run = open(&args.run).await?;
    let options = Options {
        address: resolve("--address", &args.address)?,
        token: token(args.token_file.as_deref())?,
        certificate: certificate(&args.tls_certificate, &args.tls_key),
        remedy: "--tls-certificate FILE, --tls-key FILE and --token-file FILE",
    };
    let page = Page::open(&options).await?;
    let url = page.url();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let _serving = page.serve_stored(&run).await?;
    println!("page {url}");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

fn certificate(certificate: &Option<PathBuf>, key: &Option<PathBuf>) -> Option<Certificate> {
    let both = certificate.clone().zip(key.clone());
    both.map(|(certificate, key)| Certificate { certificate, key })
}

fn token(file: Option<&Path>) -> Result<Option<Token>, Error> {
    let Some(file) = file else {
        return Ok(None);
    };
    let (token, new) = Token::read_or_create(file)?;
    if new {
        println!(
            "made {}: whoever has this file can watch and stop the run",
            file.display()
        );
    }
    Ok(Some(token))
}

/// The first address that a text stands for.
fn resolve(option: &str, text: &str) -> Result<SocketAddr, Error> {
    if let Ok(port) = text.trim_start_matches(':').parse::<u16>() {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    let wrong = |error: std::io::Error| {
        format!("{option} {text}: {error}; it looks like 7318 or 127.0.0.1:7318")
    };
    let mut all = text.to_socket_addrs().map_err(wrong)?;
    let none = || format!("{option} {text} stands for no address").into();
    all.next().ok_or_else(none)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_one_of_this_machine() {
        for text in ["7318", ":7318", "127.0.0.1:7318"] {
            let address = resolve("--web", text).unwrap();
            assert_eq!(address.to_string(), "127.0.0.1:7318");
        }
        let refused = resolve("--web", "elsewhere").unwrap_err().to_string();
        assert!(refused.contains("--web elsewhere"), "{refused}");
    }
}
