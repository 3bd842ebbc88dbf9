//! `serve`: rewards over HTTP.

use super::{Error, score::FromCheckpoint};
use clap::Args;
use polestar_run::pool::Token;
use polestar_serve::http::{Certificate, Limits, Options, Server};
use std::{
    io::Write,
    net::{SocketAddr, ToSocketAddrs},
    path::PathBuf,
    time::Duration,
};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    from: FromCheckpoint,
    /// Where to listen. Outside this machine only with a certificate and a token
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:30000")]
    address: String,
    /// File with the token that clients show as `Authorization: Bearer`; made if it isn't there
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Speak TLS with this certificate, and those between it and its authority, as PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// The certificate's key, as PEM
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// What the model is called in answers [default: the last part of CHECKPOINT]
    #[arg(long, value_name = "NAME")]
    model_name: Option<String>,
    /// Tokens that go through the model together; no reward depends on it [default: the run's pack_tokens]
    #[arg(long, value_name = "TOKENS")]
    batch_tokens: Option<usize>,
    #[command(flatten)]
    limits: LimitArgs,
}

/// What is too much.
#[derive(Debug, Args)]
struct LimitArgs {
    /// Largest request, in MiB; a larger one is answered 413
    #[arg(long, value_name = "MIB", default_value_t = 8)]
    max_body: usize,
    /// Most tokens in the queue; what doesn't fit is answered 429
    #[arg(long, value_name = "TOKENS", default_value_t = Limits::default().queue_tokens)]
    max_queue: usize,
    /// Most requests at a time; more are answered 429
    #[arg(long, value_name = "N", default_value_t = Limits::default().requests)]
    max_requests: usize,
    /// Seconds after which a request is answered 504 and given up
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
    timeout: f64,
    /// Seconds that requests may still take after SIGTERM
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0, value_parser = seconds)]
    drain: f64,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "give a number of seconds".to_owned())?;
    let fits = Duration::try_from_secs_f64(seconds).is_ok_and(|time| !time.is_zero());
    match fits {
        true => Ok(seconds),
        false => Err("give a positive number of seconds".to_owned()),
    }
}

impl LimitArgs {
    fn limits(&self) -> Limits {
        Limits {
            body: self.max_body.saturating_mul(1 << 20),
            queue_tokens: self.max_queue,
            requests: self.max_requests,
            timeout: Duration::from_secs_f64(self.timeout),
            drain: Duration::from_secs_f64(self.drain),
            ..Limits::default()
        }
    }
}

pub(super) async fn run(args: ServeArgs) -> Result<(), Error> {
    let address = resolve(&args.address)?;
    let certificate = args.tls_certificate.clone().zip(args.tls_key.clone());
    let certificate = certificate.map(|(certificate, key)| Certificate { certificate, key });
    let token = args.token_file.as_deref().map(Token::read_or_create);
    let token = token.transpose()?.map(|(token, _)| token);
    let scheme = if certificate.is_some() {
        "https"
    } else {
        "http"
    };
    let model = args.model_name.clone().unwrap_or_else(|| {
        let given = args.from.url();
        let given = given.trim_end_matches('/');
        given.rsplit('/').next().unwrap_or(given).to_owned()
    });
    let (checkpoint, texts, mut scorer) = args.from.load().await?;
    if let Some(tokens) = args.batch_tokens {
        scorer = scorer.with_pack_tokens(tokens);
    }
    let options = Options {
        address,
        token,
        certificate,
        model,
        limits: args.limits.limits(),
    };
    let server = Server::bind(options, texts, scorer).await?;
    let (step, digest) = (checkpoint.step().0, checkpoint.digest().short());
    let at = server.address();
    println!(
        "serving {}, step {step}, digest {digest}, at {scheme}://{at}",
        args.from.url()
    );
    std::io::stdout().flush()?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        eprintln!("stops: no request is taken any more, those that came are answered");
    };
    match server.run(stop).await {
        0 => Ok(()),
        cut => Err(format!(
            "{cut} connections were cut off after {} s (--drain)",
            args.limits.drain
        )
        .into()),
    }
}

/// The first address that a host and port stand for.
fn resolve(address: &str) -> Result<SocketAddr, Error> {
    let wrong = |error: std::io::Error| {
        format!("--address {address}: {error}; it looks like 127.0.0.1:30000")
    };
    let mut all = address.to_socket_addrs().map_err(wrong)?;
    let none = || format!("--address {address} stands for no address").into();
    all.next().ok_or_else(none)
}
