//! Which versions of coordinator and worker understand one another.

use std::{cmp::Ordering, fmt};

/// Number of the protocol between coordinator and worker. It grows with every change that an older program would
/// misunderstand.
pub const PROTOCOL: u32 = 3;

/// One end's program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Number of its protocol; 0 for one from before there were numbers.
    pub protocol: u32,
    /// Its version, as in `0.1.0`.
    pub version: String,
}

impl Release {
    /// This program.
    pub fn here() -> Release {
        Release {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// By age: protocol, then the version's numbers.
    fn cmp(&self, other: &Release) -> Ordering {
        let numbers = |version: &str| -> Vec<u64> {
            let parts = version.split(['.', '-', '+']);
            parts.map_while(|part| part.parse().ok()).collect()
        };
        let protocol = self.protocol.cmp(&other.protocol);
        protocol.then_with(|| numbers(&self.version).cmp(&numbers(&other.version)))
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = self.protocol;
        write!(f, "version {} (protocol {protocol})", self.version)
    }
}

/// Worker and coordinator are of different releases.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the worker is {worker}, the coordinator {coordinator}; one run needs one version: {}", self.remedy())]
pub struct Incompatible {
    /// The worker's.
    pub worker: Release,
    /// The coordinator's.
    pub coordinator: Release,
}

impl Incompatible {
    fn remedy(&self) -> &'static str {
        match self.worker.cmp(&self.coordinator) {
            Ordering::Less => "upgrade the worker",
            Ordering::Greater => "upgrade the coordinator",
            Ordering::Equal => "build both from one source",
        }
    }
}

/// Whether a worker and a coordinator can train one run: they are the same release, as the same weights come only
/// from the same program.
///
/// # Errors
/// [`Incompatible`] says which of them to upgrade.
pub fn same_release(worker: Release, coordinator: Release) -> Result<(), Incompatible> {
    match worker == coordinator {
        true => Ok(()),
        false => Err(Incompatible {
            worker,
            coordinator,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_which_side_to_upgrade() {
        let release = |protocol, version: &str| Release {
            protocol,
            version: version.to_owned(),
        };
        let here = release(2, "0.10.0");
        assert_eq!(same_release(here.clone(), here.clone()), Ok(()));
        for (worker, remedy) in [
            (release(0, "0.10.0"), "upgrade the worker"),
            (release(2, "0.9.12"), "upgrade the worker"),
            (release(1, "0.11.0"), "upgrade the worker"),
            (release(3, "0.10.0"), "upgrade the coordinator"),
            (release(2, "0.10.1"), "upgrade the coordinator"),
            (release(2, "1.0.0-rc.1"), "upgrade the coordinator"),
            (release(2, "0.10.0-dirty"), "build both from one source"),
        ] {
            let said = same_release(worker.clone(), here.clone())
                .unwrap_err()
                .to_string();
            assert!(said.ends_with(remedy), "{said}");
            assert!(
                said.contains(&worker.to_string()) && said.contains(&here.to_string()),
                "{said}"
            );
        }
    }
}
