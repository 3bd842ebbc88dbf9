//! What a sweep file may say, as a JSON Schema: for editors, and for the page that is made from it.

use super::Sweep;
use schemars::{Schema, generate::SchemaSettings, transform::Transform};
use serde_json::{Number, Value};

/// The JSON Schema of [`Sweep`]. Beside the standard's words, `unit` says what a number counts.
pub fn schema() -> Schema {
    let mut schema = SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<Sweep>();
    ShortNumbers.transform(&mut schema);
    schema
}

/// An f32 of 0.1 is 0.10000000149011612 once it is JSON: defaults are written as they were meant.
struct ShortNumbers;

impl Transform for ShortNumbers {
    fn transform(&mut self, schema: &mut Schema) {
        if let Some(object) = schema.as_object_mut() {
            object.values_mut().for_each(shorten);
        }
    }
}

fn shorten(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(short) = shortest(number) {
                *number = short;
            }
        }
        Value::Array(values) => values.iter_mut().for_each(shorten),
        Value::Object(fields) => fields.values_mut().for_each(shorten),
        _ => {}
    }
}

/// The shortest decimal of a number that is an f32, if it is one with a fraction.
fn shortest(number: &Number) -> Option<Number> {
    let wide = number.as_f64().filter(|n| n.fract() != 0.0)?;
    let narrow = wide as f32;
    if f64::from(narrow) != wide {
        return None;
    }
    Number::from_f64(narrow.to_string().parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_sentence_and_defaults_are_those_of_the_code() {
        let schema = serde_json::to_value(schema()).unwrap();
        let tables = schema["$defs"].as_object().unwrap().values();
        for table in tables.chain([&schema]) {
            let keys = table["properties"].as_object().into_iter().flatten();
            for (key, entry) in keys {
                let described = entry["description"].is_string() || entry["const"].is_string();
                assert!(described, "{key} is not documented: {table}");
            }
        }
        let optimizer = &schema["$defs"]["OptimizerConfig"];
        assert_eq!(optimizer["required"], serde_json::json!(["lr"]));
        assert_eq!(
            optimizer["properties"]["betas"]["default"],
            serde_json::json!([0.9, 0.95])
        );
        let steps = &schema["$defs"]["CheckpointConfig"]["properties"]["every"];
        assert_eq!(
            (&steps["default"], &steps["unit"]),
            (&500.into(), &"steps".into())
        );
    }

    #[test]
    fn the_example_of_every_key_can_be_read() {
        let text = include_str!("../../../configs/every-key.toml");
        toml::from_str::<Sweep>(text).unwrap();
    }
}
