//! `pool.workers_per_trial`: how many workers train one trial together.

use super::{
    Sweep,
    memory::{Share, State},
};
use polestar_model::{HeadKind, ModelLayout};
use polestar_run::{Order, Trial};
use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, Visitor},
};
use std::{fmt, num::NonZeroU32, str::FromStr};

/// How many workers train one trial together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkersPerTrial {
    /// So many, or all that there are when the pool stays smaller.
    Fixed(NonZeroU32),
    /// The trials that can run share the pool: each alone while there are more trials than workers, together on what
    /// is free towards the end.
    Auto,
}

const AUTO: &str = "auto";
const ALLOWED: &str = "a number from 1 on, or \"auto\"";

impl WorkersPerTrial {
    /// So many.
    pub const fn one() -> WorkersPerTrial {
        WorkersPerTrial::Fixed(NonZeroU32::MIN)
    }

    /// Most that can train one trial together, of a pool of so many, in a batch of so many lanes.
    pub fn most(self, workers: u32, lanes: u32) -> u32 {
        match self {
            WorkersPerTrial::Fixed(number) => number.get().min(lanes),
            WorkersPerTrial::Auto => workers.min(lanes),
        }
    }
}

impl fmt::Display for WorkersPerTrial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WorkersPerTrial::Fixed(number) => number.fmt(f),
            WorkersPerTrial::Auto => f.write_str(AUTO),
        }
    }
}

/// Not a number of workers.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is no number of workers; it may be {ALLOWED}")]
pub struct NotWorkers {
    text: String,
}

impl FromStr for WorkersPerTrial {
    type Err = NotWorkers;

    fn from_str(text: &str) -> Result<Self, NotWorkers> {
        if text == AUTO {
            return Ok(WorkersPerTrial::Auto);
        }
        let number = text.parse().map_err(|_| NotWorkers {
            text: text.to_owned(),
        })?;
        Ok(WorkersPerTrial::Fixed(number))
    }
}

impl Serialize for WorkersPerTrial {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            WorkersPerTrial::Fixed(number) => to.serialize_u32(number.get()),
            WorkersPerTrial::Auto => to.serialize_str(AUTO),
        }
    }
}

impl<'de> Deserialize<'de> for WorkersPerTrial {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(WorldVisitor)
    }
}

struct WorldVisitor;

impl Visitor<'_> for WorldVisitor {
    type Value = WorkersPerTrial;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ALLOWED} for pool.workers_per_trial")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<WorkersPerTrial, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<WorkersPerTrial, E> {
        let number = u32::try_from(number).ok().and_then(NonZeroU32::new);
        number
            .map(WorkersPerTrial::Fixed)
            .ok_or_else(|| E::custom("pool.workers_per_trial must be at least 1, and fit 32 bits"))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<WorkersPerTrial, E> {
        self.visit_u64(u64::try_from(number).unwrap_or(0))
    }
}

/// As it is written, for the schema.
#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "only its schema is of use")]
enum Written {
    Number(NonZeroU32),
    Word(Word),
}

#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code, reason = "only its schema is of use")]
enum Word {
    Auto,
}

impl JsonSchema for WorkersPerTrial {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "WorkersPerTrial".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Written::json_schema(generator)
    }
}

/// The fewest workers that can train a trial: as many as its answer depends on, or as its memory needs.
pub fn least_world(sweep: &Sweep, trial: &Trial, most: u32) -> u32 {
    if let Order::Fast { world, .. } = trial.recipe.arithmetic.order {
        return world;
    }
    let Some(has) = sweep.pool.memory() else {
        return 1;
    };
    let layout = ModelLayout::new(&trial.recipe.model, HeadKind::of(trial.recipe.objective));
    let state = State {
        layout: &layout,
        train: &sweep.train,
        samples: &sweep.samples,
    };
    let fits = |world: &u32| {
        let zero = trial.execution.zero;
        let share = Share {
            world: *world,
            zero,
        };
        share.least_memory(&state) <= has
    };
    (1..=most).find(fits).unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Pool {
        workers_per_trial: WorkersPerTrial,
    }

    #[test]
    fn it_is_a_number_or_auto_and_says_so_otherwise() {
        let read = |text: &str| toml::from_str::<Pool>(&format!("workers_per_trial = {text}"));
        let three = read("3").expect("a number").workers_per_trial;
        assert_eq!((three.most(8, 16), three.most(8, 2)), (3, 2));
        let auto = read("\"auto\"").expect("auto").workers_per_trial;
        assert_eq!((auto.most(8, 16), auto.most(8, 2)), (8, 2));
        for text in ["0", "-1", "\"atuo\"", "true"] {
            let said = read(text).expect_err(text).to_string();
            assert!(
                said.contains("at least 1") || said.contains("\"auto\""),
                "{said}"
            );
        }
        assert_eq!(serde_json::to_value(auto).expect("plain"), "auto");
        assert_eq!(serde_json::to_value(three).expect("plain"), 3);
    }
}
