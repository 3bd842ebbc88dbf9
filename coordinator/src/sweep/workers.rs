//! `pool.workers`: how many workers a pool has.

use polestar_core::chain;
use polestar_worker::gpus::Gpus;
use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, Visitor},
};
use std::{fmt, str::FromStr, sync::OnceLock};

/// How many workers a pool has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// So many.
    Fixed(u32),
    /// One for each GPU of this machine.
    Gpus,
}

const GPUS: &str = "gpus";
const ALLOWED: &str = "a number from 1 on, or \"gpus\"";

impl Workers {
    /// How many that is on this machine; 0 where there is no GPU, which [`Workers::check`] refuses.
    pub fn number(self) -> u32 {
        match self {
            Workers::Fixed(number) => number,
            Workers::Gpus => gpus().as_ref().map_or(0, |uuids| uuids.len() as u32),
        }
    }

    /// What `CUDA_VISIBLE_DEVICES` is to say for each worker; nothing where workers aren't counted by GPUs, or where
    /// there is none, which [`Workers::check`] refuses.
    pub fn devices(self) -> Vec<String> {
        match self {
            Workers::Fixed(_) => Vec::new(),
            Workers::Gpus => gpus().iter().flatten().cloned().collect(),
        }
    }

    /// Refuses pools without a worker.
    ///
    /// # Errors
    /// A sentence with what to do.
    pub fn check(self) -> Result<(), String> {
        match (self, gpus_of(self)) {
            (Workers::Fixed(0), _) => Err("pool.workers must be at least 1".into()),
            (Workers::Gpus, Err(why)) => Err(format!(
                "pool.workers = \"gpus\" is a worker for each GPU of this machine, and it has none: {why}; give a number"
            )),
            (Workers::Gpus, Ok(0)) => Err(
                "pool.workers = \"gpus\" is a worker for each GPU of this machine, and its driver shows none; look at CUDA_VISIBLE_DEVICES, or give a number".into(),
            ),
            _ => Ok(()),
        }
    }
}

fn gpus_of(workers: Workers) -> Result<usize, String> {
    match workers {
        Workers::Fixed(_) => Ok(0),
        Workers::Gpus => gpus().as_ref().map(Vec::len).map_err(Clone::clone),
    }
}

/// The GPUs of this machine, which don't change while the program runs.
fn gpus() -> &'static Result<Vec<String>, String> {
    static FOUND: OnceLock<Result<Vec<String>, String>> = OnceLock::new();
    FOUND.get_or_init(|| match Gpus::of_this_machine() {
        Ok(Gpus(gpus)) => Ok(gpus.into_iter().map(|gpu| gpu.uuid).collect()),
        Err(error) => Err(chain(&error)),
    })
}

impl fmt::Display for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Workers::Fixed(number) => number.fmt(f),
            Workers::Gpus => f.write_str(GPUS),
        }
    }
}

/// Not a number of workers.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no number of workers; it may be {ALLOWED}")]
pub struct NotAPool(String);

impl FromStr for Workers {
    type Err = NotAPool;

    fn from_str(text: &str) -> Result<Workers, NotAPool> {
        match text {
            GPUS => Ok(Workers::Gpus),
            _ => text
                .parse()
                .map(Workers::Fixed)
                .map_err(|_| NotAPool(text.to_owned())),
        }
    }
}

impl Serialize for Workers {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Workers::Fixed(number) => to.serialize_u32(*number),
            Workers::Gpus => to.serialize_str(GPUS),
        }
    }
}

impl<'de> Deserialize<'de> for Workers {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(WorkersVisitor)
    }
}

struct WorkersVisitor;

impl Visitor<'_> for WorkersVisitor {
    type Value = Workers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ALLOWED} for pool.workers")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Workers, E> {
        match text {
            GPUS => Ok(Workers::Gpus),
            // A number is written as one.
            _ => Err(E::custom(NotAPool(text.to_owned()))),
        }
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Workers, E> {
        let number = u32::try_from(number);
        number
            .map(Workers::Fixed)
            .map_err(|_| E::custom("pool.workers must fit 32 bits"))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Workers, E> {
        self.visit_u64(u64::try_from(number).unwrap_or(0))
    }
}

#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "only its schema is of use")]
enum Written {
    Number(u32),
    Word(Word),
}

#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code, reason = "only its schema is of use")]
enum Word {
    Gpus,
}

impl JsonSchema for Workers {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Workers".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Written::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_a_number_or_those_of_the_gpus_and_come_out_as_they_went_in() {
        for (text, workers) in [("3", Workers::Fixed(3)), ("\"gpus\"", Workers::Gpus)] {
            assert_eq!(serde_json::from_str::<Workers>(text).unwrap(), workers);
            assert_eq!(serde_json::to_string(&workers).unwrap(), text);
        }
        for text in ["\"gpu\"", "\"3\"", "1.5", "true"] {
            let said = serde_json::from_str::<Workers>(text)
                .unwrap_err()
                .to_string();
            assert!(said.contains(ALLOWED), "{text}: {said}");
        }
    }

    #[test]
    fn a_machine_without_gpus_refuses_a_worker_for_each() {
        match Gpus::of_this_machine() {
            Ok(Gpus(gpus)) if !gpus.is_empty() => {
                assert_eq!(Workers::Gpus.number() as usize, gpus.len());
            }
            _ => {
                let said = Workers::Gpus.check().unwrap_err();
                assert!(said.contains("give a number"), "{said}");
                assert!(Workers::Gpus.devices().is_empty());
            }
        }
        assert!(Workers::Fixed(0).check().is_err() && Workers::Fixed(1).check().is_ok());
    }
}
