//! What a size of a sweep names: a model of its file, a preset, or a number of parameters.

use super::{CorpusFacts, PlanError, Sweep};
use polestar_model::{ModelConfig, Preset, count};

/// The largest number of parameters that a shape is looked for.
const LARGEST: f64 = 1e13;
/// A shape may have so many times as many parameters as was asked for, or as few.
const NEAR: f64 = 1.5;

/// The size that has the shape of the weights that trials start from.
pub(super) const START: &str = "start";

/// The shape of a size, which is that of the weights to start from if there are any.
///
/// # Errors
/// [`PlanError`] for a name that nothing has, for a number that no shape comes near, and for a shape that the
/// weights don't have.
pub(super) fn model(
    sweep: &Sweep,
    size: &str,
    corpus: &CorpusFacts,
) -> Result<ModelConfig, PlanError> {
    let vocab = corpus.vocab;
    let Some(start) = &corpus.start else {
        return named(sweep, size, vocab);
    };
    let of_start = ModelConfig {
        vocab_size: start.model.vocab_size.max(vocab),
        ..start.model.clone()
    };
    if size == START && !sweep.models.contains_key(START) {
        return Ok(of_start);
    }
    let model = named(sweep, size, vocab)?;
    let shape = |model: &ModelConfig| ModelConfig {
        vocab_size: of_start.vocab_size,
        initializer_range: None,
        ..model.clone()
    };
    match shape(&model) == of_start {
        // Fresh rows and heads may begin as the file says.
        true => Ok(ModelConfig {
            vocab_size: of_start.vocab_size,
            ..model
        }),
        false => Err(PlanError::StartShape {
            name: size.to_owned(),
        }),
    }
}

fn named(sweep: &Sweep, size: &str, vocab: u32) -> Result<ModelConfig, PlanError> {
    if let Some(own) = sweep.models.get(size) {
        let mut model = own.clone();
        model.vocab_size = model.vocab_size.max(vocab);
        return Ok(model);
    }
    if let Some(target) = parameters(size) {
        return near(size, target, vocab);
    }
    Preset::by_name(size)
        .map(|preset| preset.config(vocab))
        .map_err(|source| PlanError::Size {
            name: size.to_owned(),
            hint: match size {
                START => {
                    "; \"start\" is the shape of start.weights, and there is no [start]".to_owned()
                }
                _ => meant(size)
                    .map_or_else(String::new, |meant| format!("; did you mean \"{meant}\"?")),
            },
            source,
        })
}

/// The shape that comes nearest to a number, if it comes near.
fn near(size: &str, target: f64, vocab: u32) -> Result<ModelConfig, PlanError> {
    let model = ModelConfig::near(target.min(LARGEST) as u64, vocab);
    let found = count::parameters(&model).non_embedding as f64;
    if (1.0 / NEAR..=NEAR).contains(&(found / target)) {
        return Ok(model);
    }
    Err(PlanError::Far {
        name: size.to_owned(),
        nearest: written(found),
    })
}

/// A number of parameters: `120M`, `1.5B`, `64k`.
fn parameters(size: &str) -> Option<f64> {
    let (number, unit) = size.split_at_checked(size.len().checked_sub(1)?)?;
    let unit = match unit {
        "k" => 1e3,
        "M" => 1e6,
        "B" => 1e9,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    (number.is_finite() && number > 0.0).then_some(number * unit)
}

/// A number of parameters as [`parameters`] reads it.
fn written(parameters: f64) -> String {
    let (unit, letter) = match parameters {
        p if p >= 1e9 => (1e9, 'B'),
        p if p >= 1e6 => (1e6, 'M'),
        _ => (1e3, 'k'),
    };
    // Three digits, without zeros that say nothing.
    let number = parameters / unit;
    let digits = (2.0 - number.log10().floor()).clamp(0.0, 6.0) as usize;
    let text = format!("{number:.digits$}");
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    };
    format!("{text}{letter}")
}

/// The number that was probably meant: in another case, with a space, or without a unit.
fn meant(size: &str) -> Option<String> {
    let plain: String = size
        .chars()
        .filter(|c| !c.is_whitespace() && *c != '_')
        .collect();
    let unit = plain.chars().last()?;
    let number: f64 = plain
        .trim_end_matches(unit)
        .parse()
        .ok()
        .or_else(|| plain.parse().ok())?;
    let factor = match unit.to_ascii_lowercase() {
        'k' => 1e3,
        'm' => 1e6,
        'b' | 'g' => 1e9,
        't' => 1e12,
        _ => {
            return plain
                .parse()
                .ok()
                .filter(|n: &f64| n.is_finite() && *n >= 1e3)
                .map(written);
        }
    };
    (number.is_finite() && number > 0.0).then(|| written(number * factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_nearly_written_right_are_guessed() {
        for (given, says) in [
            ("120m", "120M"),
            ("64K", "64k"),
            ("2 M", "2M"),
            ("1T", "1000B"),
            ("7g", "7B"),
            ("1_500_000", "1.5M"),
            ("2000000", "2M"),
        ] {
            assert_eq!(meant(given).as_deref(), Some(says), "{given}");
        }
        for given in ["tiny", "", "m", "-3m", "12"] {
            assert_eq!(meant(given), None, "{given}");
        }
    }

    #[test]
    fn a_number_that_no_shape_comes_near_is_refused_at_once_with_the_nearest() {
        for size in ["64k", "2M", "120M", "7B", "1000B"] {
            near(size, parameters(size).unwrap(), 4096).unwrap();
        }
        for size in ["1e30B", "1000000B", "0.001k", "1e-300k"] {
            let refused = near(size, parameters(size).unwrap(), 4096).unwrap_err();
            let PlanError::Far { nearest, .. } = refused else {
                panic!("{refused}");
            };
            near(&nearest, parameters(&nearest).unwrap(), 4096).unwrap();
        }
    }
}
