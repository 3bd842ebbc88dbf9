//! Who leads a run: a lease in its folder, taken and kept by compare-and-swap.
//!
//! ```text
//! <run>/lease.json    epoch, leader, number of renewals, seconds that a renewal lasts
//! ```
//! Clocks of different machines are never compared. A leader counts from the moment at which it *asked* for a
//! renewal that succeeded, and gives no orders once the lease's time has passed since then. Whoever wants the lease
//! counts from the moment at which it first *saw* the renewal that is still the newest, which is later, and waits
//! longer. So two never lead at once, however slow the store is.

use polestar_core::{Epoch, format};
use polestar_store::{Put, Store, Swap, Version};
use serde::{Deserialize, Serialize};
use std::{fmt, path::Path, time::Duration};

/// Where the lease lies in the folder of its run.
pub const KEY: &str = "lease.json";

/// Version of the lease that this build writes.
const FORMAT: u32 = 1;

/// Why the lease can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] polestar_store::Error),
    /// It can't be understood.
    #[error("{KEY} of the run can't be read; if no coordinator leads the run, remove it")]
    Unreadable(#[source] serde_json::Error),
    /// Written by another version.
    #[error("{KEY} of the run can't be read")]
    Format(#[source] format::Error),
}

/// A coordinator, as others see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leader {
    /// Host it runs on, for people.
    pub host: String,
    /// Its process there.
    pub pid: u32,
    /// Within which processes `pid` is a name: this boot of this machine, and the process namespace.
    pub machine: String,
    /// When it began, by its clock, for people.
    pub began: String,
    /// Where workers reach it, as a URL.
    pub address: String,
}

impl Leader {
    /// This process.
    pub fn this_process(began: String, address: String) -> Leader {
        Leader {
            host: host_name(),
            pid: std::process::id(),
            machine: machine(),
            began,
            address,
        }
    }

    /// Whether it can't be running: its process would be on this machine, and isn't.
    pub fn is_dead(&self) -> bool {
        self.machine == machine()
            && !self.machine.is_empty()
            && !Path::new(&format!("/proc/{}", self.pid)).exists()
    }
}

impl fmt::Display for Leader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Leader {
            host,
            pid,
            began,
            address,
            ..
        } = self;
        write!(f, "host {host}, process {pid}, since {began}, at {address}")
    }
}

/// This machine's name.
pub fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
}

/// Names the set of processes that this one can see; empty where that can't be told.
fn machine() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let namespace = std::fs::read_link("/proc/self/ns/pid");
    match (boot, namespace) {
        (Ok(boot), Ok(namespace)) => format!("{} {}", boot.trim(), namespace.display()),
        _ => String::new(),
    }
}

/// The lease as it lies in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseRecord {
    /// Version of this record.
    pub format: u32,
    /// The leader's; no other coordinator of the store has it.
    pub epoch: Epoch,
    /// Who leads.
    pub leader: Leader,
    /// How often it was renewed.
    pub renewals: u64,
    /// How long a renewal lasts.
    pub seconds: u64,
    /// Whether it was given back.
    pub released: bool,
}

impl LeaseRecord {
    /// How long a renewal lasts.
    pub fn time(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// How long it must be seen without a renewal before it is anybody's: half as long again as its leader may lead.
    pub fn patience(&self) -> Duration {
        self.time() * 3 / 2
    }

    /// Whether nobody can be leading by it.
    pub fn is_free(&self) -> bool {
        self.released || self.leader.is_dead()
    }

    fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("numbers and texts can be written")
    }
}

/// A lease as it was read.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What it says.
    pub record: LeaseRecord,
    version: Version,
}

/// Reads the lease of a run, from the run's folder; `None` if nobody ever led it.
///
/// # Errors
/// The store's, or a lease of another version.
pub async fn read(run: &Store) -> Result<Option<Seen>, Error> {
    let Some((bytes, version)) = run.get_versioned(KEY).await? else {
        return Ok(None);
    };
    format::check(&bytes, "format", FORMAT).map_err(Error::Format)?;
    let record = serde_json::from_slice(&bytes).map_err(Error::Unreadable)?;
    Ok(Some(Seen { record, version }))
}

/// The right to lead a run.
#[derive(Debug)]
pub struct Lease {
    run: Store,
    record: LeaseRecord,
    version: Version,
}

/// What came of a renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It is ours for another while.
    Renewed,
    /// It is somebody else's, or was removed.
    Lost(Option<LeaseRecord>),
}

impl Lease {
    /// Takes the lease in place of what was seen of it, if nothing was changed there since; `None` if something was.
    ///
    /// # Errors
    /// The store's.
    pub async fn take(
        run: &Store,
        in_place_of: Option<Seen>,
        epoch: Epoch,
        leader: Leader,
        time: Duration,
    ) -> Result<Option<Lease>, Error> {
        let record = LeaseRecord {
            format: FORMAT,
            epoch,
            leader,
            renewals: 0,
            seconds: time.as_secs(),
            released: false,
        };
        let json = record.to_json().into();
        let version = match in_place_of {
            Some(seen) => match run.compare_and_swap(KEY, &seen.version, json).await? {
                Swap::Swapped(version) => version,
                Swap::Changed => return Ok(None),
            },
            None => {
                if run.put_if_absent(KEY, json).await? == Put::Exists {
                    return Ok(None);
                }
                match read(run).await? {
                    Some(seen) if seen.record == record => seen.version,
                    _ => return Ok(None),
                }
            }
        };
        Ok(Some(Lease {
            run: run.clone(),
            record,
            version,
        }))
    }

    /// Who leads by it, and in which epoch.
    pub fn record(&self) -> &LeaseRecord {
        &self.record
    }

    /// Says that the leader lives.
    ///
    /// # Errors
    /// The store's; the lease may or may not be renewed then.
    pub async fn renew(&mut self) -> Result<Renewal, Error> {
        self.replace(false).await
    }

    /// Gives the lease back, so that the next one needn't wait.
    ///
    /// # Errors
    /// The store's.
    pub async fn release(mut self) -> Result<(), Error> {
        self.replace(true).await.map(drop)
    }

    async fn replace(&mut self, released: bool) -> Result<Renewal, Error> {
        let mut next = self.record.clone();
        next.renewals += 1;
        next.released = released;
        let json = next.to_json().into();
        match self.run.compare_and_swap(KEY, &self.version, json).await? {
            Swap::Swapped(version) => {
                self.version = version;
                self.record = next;
                return Ok(Renewal::Renewed);
            }
            Swap::Changed => {}
        }
        // An earlier renewal may have reached the store although its answer didn't reach us.
        match read(&self.run).await? {
            Some(seen) if self.is_ours(&seen.record) => {
                self.version = seen.version;
                self.record = seen.record;
                Ok(Renewal::Renewed)
            }
            seen => Ok(Renewal::Lost(seen.map(|seen| seen.record))),
        }
    }

    fn is_ours(&self, there: &LeaseRecord) -> bool {
        there.epoch == self.record.epoch && there.leader == self.record.leader && !there.released
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leader(host: &str) -> Leader {
        Leader {
            host: host.to_owned(),
            pid: 1,
            machine: String::new(),
            began: "2026-01-01 00:00 UTC".to_owned(),
            address: "http://10.0.0.1:7700".to_owned(),
        }
    }

    const TIME: Duration = Duration::from_secs(15);

    #[tokio::test]
    async fn one_of_two_gets_it_and_who_lost_it_is_told_who_leads() {
        let folder = tempfile::tempdir().expect("a folder");
        let url = folder.path().display().to_string();
        for store in [
            Store::open("memory://").expect("memory"),
            Store::open(&url).expect("a folder"),
        ] {
            let take = |seen, epoch, host: &'static str| {
                Lease::take(&store, seen, Epoch(epoch), leader(host), TIME)
            };
            let mut first = take(None, 1, "a").await.expect("a store").expect("is free");
            assert!(take(None, 2, "b").await.expect("a store").is_none());
            assert_eq!(first.renew().await.expect("a store"), Renewal::Renewed);

            let seen = read(&store).await.expect("a store").expect("just written");
            assert_eq!((seen.record.epoch, seen.record.renewals), (Epoch(1), 1));
            assert!(!seen.record.is_free());
            // Two saw the same lease; one takes it over.
            let second = take(Some(seen.clone()), 2, "b").await.expect("a store");
            let second = second.expect("nothing changed since");
            assert!(take(Some(seen), 3, "c").await.expect("a store").is_none());
            let Renewal::Lost(Some(now)) = first.renew().await.expect("a store") else {
                panic!("an old leader renews what is no longer its own");
            };
            assert_eq!(&now, second.record());

            second.release().await.expect("a store");
            let free = read(&store).await.expect("a store").expect("is there");
            assert!(free.record.is_free());
            let third = take(Some(free), 3, "c").await.expect("a store");
            assert!(third.is_some());
        }
    }

    #[test]
    fn only_a_process_of_this_machine_is_known_to_be_dead() {
        let here = Leader::this_process(String::new(), String::new());
        assert!(!here.is_dead());
        let gone = Leader {
            // Larger than any process number of Linux.
            pid: 1 << 30,
            ..here
        };
        assert!(gone.is_dead());
        let elsewhere = Leader {
            machine: "another".to_owned(),
            ..gone
        };
        assert!(!elsewhere.is_dead());
    }
}
