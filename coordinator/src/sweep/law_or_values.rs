//! Reading an axis that is either the name of a law or values. Serde's own way (`untagged`) tries each and then
//! says only that none matched; here the key, what it may be and the nearest name are said.

use super::{
    axes::{BatchAxis, LrAxis, PaperLaw},
    read::nearest,
};
use serde::{
    Deserialize, Deserializer,
    de::{
        Error, MapAccess, SeqAccess, Visitor,
        value::{MapAccessDeserializer, SeqAccessDeserializer},
    },
};
use std::fmt;

const LR: &str = "a list of rates, a table of rates by size, or \"polar\"";
const BATCH: &str = "a list of batches, or \"polar\"";

/// The law of this name, or why `key` can't be that.
fn law<E: Error>(key: &str, name: &str, allowed: &str) -> Result<PaperLaw, E> {
    let known = [("polar", PaperLaw::Polar)];
    if let Some((_, law)) = known.iter().find(|(known, _)| *known == name) {
        return Ok(*law);
    }
    let hint = nearest(name, &known.map(|(name, _)| name))
        .map_or(String::new(), |name| format!("; did you mean {name:?}?"));
    Err(E::custom(format!(
        "{key} = {name:?} is no law{hint} (it may be {allowed})"
    )))
}

/// Refuses one value where a list is needed.
fn alone<T, E: Error>(key: &str, value: impl fmt::Display, allowed: &str) -> Result<T, E> {
    Err(E::custom(format!(
        "{key} = {value}: write [{value}] for one value (it may be {allowed})"
    )))
}

impl<'de> Deserialize<'de> for LrAxis {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(LrVisitor)
    }
}

struct LrVisitor;

impl<'de> Visitor<'de> for LrVisitor {
    type Value = LrAxis;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{LR} for sweep.lr")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<LrAxis, E> {
        law("sweep.lr", name, LR).map(LrAxis::Law)
    }

    fn visit_f64<E: Error>(self, rate: f64) -> Result<LrAxis, E> {
        alone("sweep.lr", rate, LR)
    }

    fn visit_i64<E: Error>(self, rate: i64) -> Result<LrAxis, E> {
        alone("sweep.lr", rate, LR)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, rates: A) -> Result<LrAxis, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(rates)).map(LrAxis::Each)
    }

    fn visit_map<A: MapAccess<'de>>(self, rates: A) -> Result<LrAxis, A::Error> {
        Deserialize::deserialize(MapAccessDeserializer::new(rates)).map(LrAxis::BySize)
    }
}

impl<'de> Deserialize<'de> for BatchAxis {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(BatchVisitor)
    }
}

struct BatchVisitor;

impl<'de> Visitor<'de> for BatchVisitor {
    type Value = BatchAxis;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{BATCH} for sweep.batch")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<BatchAxis, E> {
        law("sweep.batch", name, BATCH).map(BatchAxis::Law)
    }

    fn visit_i64<E: Error>(self, batch: i64) -> Result<BatchAxis, E> {
        alone("sweep.batch", batch, BATCH)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, batches: A) -> Result<BatchAxis, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(batches)).map(BatchAxis::Each)
    }
}

#[cfg(test)]
mod tests {
    use crate::sweep::Axes;

    fn read(line: &str) -> Result<Axes, String> {
        let text = format!("sizes = [\"nano\"]\n{line}\n");
        toml::from_str(&text).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn every_form_is_read_and_written_as_it_was() {
        for line in [
            "lr = \"polar\"",
            "lr = [0.5, 1.0]",
            "lr = { nano = 0.5 }",
            "batch = \"polar\"",
            "batch = [8, 16]",
        ] {
            let axes = read(line).unwrap();
            let json = serde_json::to_string(&axes).unwrap();
            let again: Axes = serde_json::from_str(&json).unwrap();
            assert_eq!((again.lr, again.batch), (axes.lr, axes.batch), "{line}");
        }
    }

    #[test]
    fn what_is_neither_names_the_key_the_nearest_law_and_what_it_may_be() {
        for (line, says) in [
            (
                "lr = \"polr\"",
                "sweep.lr = \"polr\" is no law; did you mean \"polar\"? (it may be a list of rates, a table",
            ),
            ("lr = 0.5", "sweep.lr = 0.5: write [0.5] for one value"),
            (
                "lr = true",
                "a list of rates, a table of rates by size, or \"polar\" for sweep.lr",
            ),
            (
                "batch = \"poler\"",
                "sweep.batch = \"poler\" is no law; did you mean \"polar\"? (it may be a list of batches",
            ),
            ("batch = 8", "sweep.batch = 8: write [8] for one value"),
        ] {
            let refused = read(line).unwrap_err();
            assert!(refused.contains(says), "{line}: {refused}");
        }
        let refused = read("lr = \"nonsense\"").unwrap_err();
        assert!(refused.contains("is no law (it may be"), "{refused}");
    }
}
