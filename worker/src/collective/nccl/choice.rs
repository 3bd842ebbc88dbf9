//! Whether ranks move vectors by NCCL. Pure: every rank sees all offers and comes to the same.

use polestar_core::Rank;
use polestar_run::config::DeviceTransport;
use serde::{Deserialize, Serialize};

/// What a rank has to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Offer {
    /// Its NCCL's version as text, or why it has none.
    pub(super) nccl: Result<String, String>,
    /// Its device's UUID.
    pub(super) device: String,
    /// Whether something between it and others is encrypted.
    pub(super) sealed: bool,
}

/// How vectors go between devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// By NCCL of this version.
    Nccl(String),
    /// Through host memory, because of this.
    Staged(String),
}

/// What these ranks do, given by rank.
///
/// # Errors
/// Why they can't do what was asked for.
pub(super) fn choose(setting: DeviceTransport, offers: &[Offer]) -> Result<Choice, String> {
    if setting == DeviceTransport::Staged {
        return Ok(Choice::Staged("train.transport says so".to_owned()));
    }
    match (setting, possible(offers)) {
        (DeviceTransport::Auto, Ok(_)) if offers.iter().any(|offer| offer.sealed) => {
            let why = "connections between hosts are encrypted, which NCCL's aren't; \
                       train.transport = \"nccl\" uses it all the same";
            Ok(Choice::Staged(why.to_owned()))
        }
        (_, Ok(version)) => Ok(Choice::Nccl(version)),
        (DeviceTransport::Nccl, Err(why)) => Err(why),
        (_, Err(why)) => Ok(Choice::Staged(why)),
    }
}

/// The version of NCCL that all have, if it can work between them.
fn possible(offers: &[Offer]) -> Result<String, String> {
    let mut version: Option<&String> = None;
    for (number, offer) in offers.iter().enumerate() {
        let rank = Rank(number as u32);
        let found = offer.nccl.as_ref();
        let found = found.map_err(|why| format!("{rank}: {why}"))?;
        match version {
            Some(first) if first != found => {
                return Err(format!(
                    "rank 0 has NCCL {first} and {rank} has {found}; they have to be the same"
                ));
            }
            _ => version = Some(found),
        }
        let same = |other: &&Offer| other.device == offer.device;
        if let Some(other) = offers[..number].iter().position(|other| same(&other)) {
            let other = Rank(other as u32);
            return Err(format!(
                "{other} and {rank} share a GPU, and NCCL needs one for each"
            ));
        }
    }
    version
        .cloned()
        .ok_or_else(|| "there are no ranks".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(device: &str) -> Offer {
        Offer {
            nccl: Ok("2.27.0".to_owned()),
            device: device.to_owned(),
            sealed: false,
        }
    }

    #[test]
    fn nccl_is_used_where_it_can_be_and_what_keeps_it_from_that_is_named() {
        use DeviceTransport::{Auto, Nccl, Staged};
        let two = [offer("a"), offer("b")];
        for setting in [Auto, Nccl] {
            assert_eq!(choose(setting, &two), Ok(Choice::Nccl("2.27.0".to_owned())));
        }
        assert!(matches!(choose(Staged, &two), Ok(Choice::Staged(_))));

        let mut sealed = two.clone();
        sealed[1].sealed = true;
        let kept = choose(Auto, &sealed);
        assert!(
            matches!(&kept, Ok(Choice::Staged(why)) if why.contains("encrypted")),
            "{kept:?}"
        );
        assert!(matches!(choose(Nccl, &sealed), Ok(Choice::Nccl(_))));

        let mut absent = two.clone();
        absent[1].nccl = Err("no libnccl.so".to_owned());
        let mut older = two;
        older[1].nccl = Ok("2.18.0".to_owned());
        let shared = [offer("a"), offer("b"), offer("a")];
        for (offers, said) in [
            (&absent[..], "rank 1: no libnccl.so"),
            (&older, "rank 1 has 2.18.0"),
            (&shared, "rank 0 and rank 2 share a GPU"),
        ] {
            let refused = choose(Nccl, offers).expect_err("it can't be had");
            assert!(refused.contains(said), "{refused}");
            assert_eq!(choose(Auto, offers), Ok(Choice::Staged(refused)));
        }
    }
}
