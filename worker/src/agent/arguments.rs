//! Arguments of `worker join`.

use super::{AddressChoice, LAUNCH_VARIABLE, Options, Welcomed};
use polestar_run::pool::{CertificateFiles, Token, TokenError};
use std::{path::PathBuf, time::Duration};
use tokio::sync::watch;

/// Arguments of `worker join`.
#[derive(Debug, clap::Args)]
pub struct JoinArgs {
    /// Where the coordinator listens for workers: https://host:port, as `launch` prints it
    #[arg(long, value_name = "URL")]
    coordinator: String,
    /// File with the pool's token, which only its owner can read; without it, POLESTAR_TOKEN holds the token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Where the other workers of a trial reach this one: an interface, a network such as 10.1.0.0/16, or an address
    /// [default: the address that reaches the coordinator]
    #[arg(long, value_name = "NAME|CIDR|ADDRESS")]
    data_address: Option<AddressChoice>,
    /// This worker's certificate, where a site's authority gives them out (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires = "tls_ca")]
    tls_key: Option<PathBuf>,
    /// The authority's certificate
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_ca: Option<PathBuf>,
    /// Seconds that leaving may take once SIGTERM or SIGUSR1 has warned of the end; then the process ends as it is
    #[arg(long, value_name = "SECONDS", default_value_t = 25)]
    leave_within: u64,
    /// The launcher's name for this process
    #[arg(long, env = LAUNCH_VARIABLE, hide = true)]
    launch: Option<String>,
}

impl JoinArgs {
    /// How long a worker that was warned may take to leave in order.
    pub fn leave_within(&self) -> Duration {
        Duration::from_secs(self.leave_within)
    }

    /// What [`join`](super::join) takes.
    ///
    /// # Errors
    /// [`TokenError`] when there is no token, or one that isn't safe.
    pub fn into_options(
        self,
        leave: watch::Receiver<bool>,
        welcomed: Welcomed,
    ) -> Result<Options, TokenError> {
        let files = (self.tls_certificate, self.tls_key, self.tls_ca);
        let certificates = match files {
            (Some(certificate), Some(key), Some(ca)) => Some(CertificateFiles {
                certificate,
                key,
                ca,
            }),
            _ => None,
        };
        Ok(Options {
            coordinator: self.coordinator,
            token: Token::given(self.token_file.as_deref())?,
            certificates,
            data_address: self.data_address,
            launch: self.launch,
            leave,
            welcomed,
        })
    }
}
