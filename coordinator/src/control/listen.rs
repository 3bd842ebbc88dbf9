//! Where a pool listens, and how: on this machine only, or for other hosts, and then never without a token and TLS.

use crate::launcher::Contact;
use polestar_run::pool::{CertificateFiles, CertificatesError, DEFAULT_PORT, Tls, Token};
use polestar_worker::agent::{AddressChoice, AddressError, places};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
};

/// An address to listen on, as a person writes it: `ADDRESS[:PORT]`, where an interface or a network may stand for
/// the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    place: AddressChoice,
    port: u16,
}

/// Why a text is no address to listen on.
#[derive(Debug, thiserror::Error)]
#[error(
    "{text:?} is no address to listen on; it looks like 10.1.0.5, 10.1.0.5:7317, ib0:7317 or 0.0.0.0"
)]
pub struct NotAnAddress {
    text: String,
}

impl FromStr for ListenAddress {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<ListenAddress, NotAnAddress> {
        // What is an address as a whole has no port, however many colons it has.
        if let Ok(place) = text.parse() {
            let port = DEFAULT_PORT;
            return Ok(ListenAddress { place, port });
        }
        let with_port = || {
            let (place, port) = text.rsplit_once(':')?;
            Some(ListenAddress {
                place: place.parse().ok()?,
                port: port.parse().ok()?,
            })
        };
        with_port().ok_or_else(|| NotAnAddress {
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.place, self.port)
    }
}

/// Where a pool listens and how. There is no way to make one that lets other hosts in without a token and TLS.
#[derive(Clone, Debug)]
pub struct Listen {
    pub(super) address: SocketAddr,
    pub(super) token: Token,
    pub(super) tls: Option<Tls>,
    certificates: Option<CertificateFiles>,
}

impl Listen {
    /// For processes of this machine, with a token of its own.
    pub fn here(token: Token) -> Listen {
        Listen {
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            token,
            tls: None,
            certificates: None,
        }
    }

    /// For whoever has the token, on whatever host.
    ///
    /// # Errors
    /// [`AddressError`] when this host has no such address.
    pub fn openly(address: &ListenAddress, token: Token) -> Result<Listen, AddressError> {
        Ok(Listen {
            address: (address.place.resolve()?, address.port).into(),
            tls: Some(Tls::of(&token)),
            certificates: None,
            token,
        })
    }

    /// The same, with a site's certificates for its TLS.
    ///
    /// # Errors
    /// [`CertificatesError`] names a file that can't be used.
    pub fn certified(self, files: CertificateFiles) -> Result<Listen, CertificatesError> {
        Ok(Listen {
            tls: Some(Tls::by_certificates(&files)?),
            certificates: Some(files),
            ..self
        })
    }

    /// How workers find whoever listens at `bound`, the address that the system gave.
    pub(super) fn contact(&self, bound: SocketAddr) -> Contact {
        let addresses = match bound.ip().is_unspecified() {
            false => vec![bound.ip()],
            true => reachable(bound.is_ipv4()),
        };
        let port = bound.port();
        Contact {
            addresses: addresses.into_iter().map(|ip| (ip, port).into()).collect(),
            token: self.token.clone(),
            tls: self.tls.is_some(),
            certificates: self.certificates.clone(),
        }
    }
}

/// This host's addresses, those that other hosts reach first. Never none.
fn reachable(only_v4: bool) -> Vec<IpAddr> {
    let places = places().unwrap_or_else(|error| {
        tracing::warn!("{error}");
        Vec::new()
    });
    let addresses = places.into_iter().map(|place| place.address);
    let mut addresses: Vec<IpAddr> = addresses
        .filter(|address| !only_v4 || address.is_ipv4())
        .collect();
    if addresses.is_empty() {
        addresses.push(Ipv4Addr::LOCALHOST.into());
    }
    addresses.sort_by_key(|address| (address.is_loopback(), address.is_ipv6()));
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_to_listen_on_may_have_a_port() {
        for (text, written) in [
            ("10.1.0.5", "10.1.0.5:7317"),
            ("10.1.0.5:80", "10.1.0.5:80"),
            ("0.0.0.0:0", "0.0.0.0:0"),
            ("ib0:7000", "ib0:7000"),
            ("10.1.0.0/16:7000", "10.1.0.0/16:7000"),
            ("fd00::5", "fd00::5:7317"),
            ("[fd00::5]:7000", "fd00::5:7000"),
        ] {
            let address: ListenAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), written);
        }
        for text in ["", ":7000", "10.1.0.5:", "10.1.0.5:70000", "http://head"] {
            let error = text.parse::<ListenAddress>().unwrap_err().to_string();
            assert!(error.contains("no address to listen on"), "{error}");
        }
    }

    #[test]
    fn only_a_pool_of_this_machine_goes_without_tls() {
        let token = || Token::random().unwrap();
        let here = Listen::here(token());
        assert!(here.tls.is_none() && here.address.ip().is_loopback());
        for text in ["127.0.0.1", "0.0.0.0"] {
            let open = Listen::openly(&text.parse().unwrap(), token()).unwrap();
            assert!(open.tls.is_some());
            let contact = open.contact((open.address.ip(), 9).into());
            assert!(contact.tls && !contact.addresses.is_empty());
            let unspecified = |address: &SocketAddr| address.ip().is_unspecified();
            assert!(!contact.addresses.iter().any(unspecified), "{contact:?}");
        }
        Listen::openly(&"192.0.2.77".parse().unwrap(), token()).unwrap_err();
    }
}
