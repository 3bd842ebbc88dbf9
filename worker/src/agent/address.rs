//! Which of a host's addresses is meant: by an interface's name, by a network, or by itself.

use std::{fmt, net::IpAddr, str::FromStr};

/// A way to name one of this host's addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressChoice {
    /// This one.
    Address(IpAddr),
    /// The one in this network, as in `10.1.0.0/16`.
    Network {
        /// An address of the network.
        address: IpAddr,
        /// How many leading bits its addresses share.
        bits: u32,
    },
    /// That of this interface, as in `ib0`.
    Interface(String),
}

/// Why an address can't be had.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// Not an address, a network or an interface's name.
    #[error(
        "{text:?} is no address, no network such as 10.1.0.0/16, and no interface's name such as eth0"
    )]
    Text {
        /// What was given.
        text: String,
    },
    /// This host has none that fits.
    #[error("this host has no address for {choice}; it has {known}")]
    None {
        /// What was asked for.
        choice: AddressChoice,
        /// The interfaces and addresses that there are.
        known: String,
    },
    /// Every address at once is no place to be found at.
    #[error("{0} means every address of this host; name the one on which others reach it")]
    Any(IpAddr),
    /// The interfaces can't be listed.
    #[error("this host's interfaces can't be listed")]
    List(#[source] std::io::Error),
}

/// An address of one of this host's interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The interface.
    pub interface: String,
    /// The address.
    pub address: IpAddr,
}

impl fmt::Display for AddressChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AddressChoice::Address(address) => address.fmt(f),
            AddressChoice::Network { address, bits } => write!(f, "{address}/{bits}"),
            AddressChoice::Interface(name) => f.write_str(name),
        }
    }
}

impl FromStr for AddressChoice {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<AddressChoice, AddressError> {
        let wrong = || AddressError::Text {
            text: text.to_owned(),
        };
        if let Ok(address) = text.trim_matches(['[', ']']).parse() {
            return Ok(AddressChoice::Address(address));
        }
        if let Some((address, bits)) = text.split_once('/') {
            let address: IpAddr = address.parse().map_err(|_| wrong())?;
            let bits: u32 = bits.parse().map_err(|_| wrong())?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            return match bits <= most {
                true => Ok(AddressChoice::Network { address, bits }),
                false => Err(wrong()),
            };
        }
        // What Linux takes for a name, without what only looks like an address.
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
        let named = text.contains(|c: char| c.is_ascii_alphabetic());
        match named && text.len() < 16 && text.chars().all(plain) {
            true => Ok(AddressChoice::Interface(text.to_owned())),
            false => Err(wrong()),
        }
    }
}

impl AddressChoice {
    /// The address that is meant on this host.
    ///
    /// # Errors
    /// [`AddressError`] names the choice and what there is.
    pub fn resolve(&self) -> Result<IpAddr, AddressError> {
        self.among(&places()?)
    }

    fn among(&self, places: &[Place]) -> Result<IpAddr, AddressError> {
        let fits = |place: &&Place| match self {
            AddressChoice::Address(address) => {
                address.is_unspecified() || place.address == *address
            }
            AddressChoice::Network { address, bits } => shares(place.address, *address, *bits),
            AddressChoice::Interface(name) => place.interface == *name,
        };
        let mut fitting: Vec<&Place> = places.iter().filter(fits).collect();
        // An interface mostly has one of each kind, and other hosts more often reach the shorter.
        fitting.sort_by_key(|place| place.address.is_ipv6());
        match (self, fitting.first()) {
            (AddressChoice::Address(address), Some(_)) => Ok(*address),
            (_, Some(place)) => Ok(place.address),
            (_, None) => Err(AddressError::None {
                choice: self.clone(),
                known: list(places),
            }),
        }
    }
}

/// This host's addresses, without those that say nothing without an interface's number.
///
/// # Errors
/// [`AddressError::List`].
pub fn places() -> Result<Vec<Place>, AddressError> {
    let all = if_addrs::get_if_addrs().map_err(AddressError::List)?;
    let places = all.into_iter().map(|interface| Place {
        address: interface.ip(),
        interface: interface.name,
    });
    let local = |address: IpAddr| match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    Ok(places.filter(|place| !local(place.address)).collect())
}

fn list(places: &[Place]) -> String {
    let each = places.iter();
    let each: Vec<String> = each
        .map(|place| format!("{} ({})", place.address, place.interface))
        .collect();
    match each.is_empty() {
        true => "none at all".to_owned(),
        false => each.join(", "),
    }
}

/// Whether two addresses share their first bits.
fn shares(one: IpAddr, other: IpAddr, bits: u32) -> bool {
    let (one, other, length) = match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            (u128::from(one.to_bits()), u128::from(other.to_bits()), 32)
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits(), other.to_bits(), 128),
        _ => return false,
    };
    let differing = one ^ other;
    bits == 0 || differing.checked_shr(length - bits).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Vec<Place> {
        let place = |interface: &str, address: &str| Place {
            interface: interface.to_owned(),
            address: address.parse().unwrap(),
        };
        vec![
            place("lo", "127.0.0.1"),
            place("eth0", "fd00:7::2"),
            place("eth0", "192.168.7.2"),
            place("ib0", "10.1.3.4"),
        ]
    }

    #[test]
    fn an_address_is_found_by_name_by_network_and_by_itself() {
        for (text, expected) in [
            ("ib0", "10.1.3.4"),
            ("eth0", "192.168.7.2"),
            ("10.1.0.0/16", "10.1.3.4"),
            ("192.168.7.2/32", "192.168.7.2"),
            ("fd00::/16", "fd00:7::2"),
            ("0.0.0.0/0", "127.0.0.1"),
            ("10.1.3.4", "10.1.3.4"),
            ("0.0.0.0", "0.0.0.0"),
            ("[fd00:7::2]", "fd00:7::2"),
        ] {
            let choice: AddressChoice = text.parse().unwrap();
            let found = choice.among(&host()).unwrap();
            assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{text}");
        }
    }

    #[test]
    fn what_a_host_has_not_is_answered_with_what_it_has() {
        for text in ["ib1", "10.2.0.0/16", "10.1.3.5"] {
            let choice: AddressChoice = text.parse().unwrap();
            let error = choice.among(&host()).unwrap_err().to_string();
            let says = format!("no address for {text}; it has 127.0.0.1 (lo), ");
            assert!(error.contains(&says), "{error}");
        }
        for text in ["", "10.1.0.0/33", "10.1.0/16", "10.1.2", "eth 0", "a/b"] {
            let error = text.parse::<AddressChoice>().unwrap_err().to_string();
            assert!(error.contains("is no address"), "{text}: {error}");
        }
    }
}
