//! A number as people write it into tables.

use super::Quantity;

/// What a cell holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// A finite number above zero.
    Number(f64),
    /// Nothing, or a word for it.
    Missing,
    /// Something else; a clause that goes after "which".
    Bad(String),
}

/// Reads a cell of a column. Counts may have a unit (1.3B) or separated digits (1_000); a single comma may be either a
/// decimal one or one of thousands, and is refused.
pub(super) fn value(text: &str, quantity: Quantity) -> Value {
    // After signs: a lone dash is nothing.
    const MISSING: [&str; 9] = [
        "", "nan", "none", "null", "nil", "na", "n/a", "inf", "infinity",
    ];
    let lower = text.to_lowercase();
    if MISSING.contains(&lower.trim_start_matches(['+', '-'])) {
        return Value::Missing;
    }
    if let Ok(number) = text.parse::<f64>() {
        return checked(number);
    }
    if let Some(share) = text.strip_suffix('%') {
        let cure = match share.trim().parse::<f64>() {
            Ok(share) => format!("; write {} if a share is meant", share / 100.0),
            Err(_) => String::new(),
        };
        return Value::Bad(format!("is a percentage{cure}"));
    }
    if text.contains(',') {
        return with_commas(text);
    }
    let is_count = matches!(quantity, Quantity::N | Quantity::D | Quantity::C);
    match with_unit(text) {
        Some(number) if is_count => checked(number),
        Some(_) => Value::Bad("has a unit; write a plain number".to_owned()),
        None => Value::Bad("is no number".to_owned()),
    }
}

fn checked(number: f64) -> Value {
    if number > f64::MAX {
        return Value::Bad("is too large".to_owned());
    }
    match number > 0.0 {
        true => Value::Number(number),
        false => Value::Bad("is not above zero".to_owned()),
    }
}

/// `1,234,567` is a count; `1,234` may be 1234 as well as 1.234.
fn with_commas(text: &str) -> Value {
    let groups: Vec<&str> = text.split(',').collect();
    let is_digits = |group: &&str| group.bytes().all(|b| b.is_ascii_digit());
    let are_thousands = groups[1..].iter().all(|g| g.len() == 3)
        && (1..=3).contains(&groups[0].len())
        && groups.iter().all(is_digits);
    match are_thousands && groups.len() > 2 {
        true => groups.concat().parse().map_or(Value::Missing, checked),
        false if are_thousands => Value::Bad(format!(
            "has a comma; write {} or {}",
            groups.concat(),
            groups.join(".")
        )),
        false if groups.len() == 2 && groups.join(".").parse::<f64>().is_ok() => {
            Value::Bad(format!("has a decimal comma; write {}", groups.join(".")))
        }
        false => Value::Bad("is no number".to_owned()),
    }
}

/// `1.3B`, `350 M`, `1_000`.
fn with_unit(text: &str) -> Option<f64> {
    let digits = |text: &str| {
        let is_apart = text.starts_with('_') || text.ends_with('_') || text.contains("__");
        let plain = text.replace('_', "");
        (!is_apart).then(|| plain.parse::<f64>().ok()).flatten()
    };
    let unit = match text.chars().last()? {
        'k' | 'K' => 1e3,
        'm' | 'M' => 1e6,
        'b' | 'B' | 'g' | 'G' => 1e9,
        't' | 'T' => 1e12,
        _ => return digits(text),
    };
    Some(digits(text[..text.len() - 1].trim_end())? * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_people_write_them_or_refused_with_the_cure() {
        let n = |text| value(text, Quantity::N);
        for (text, number) in [
            ("1.3B", 1.3e9),
            ("350 M", 3.5e8),
            ("64k", 6.4e4),
            ("1_000_000", 1e6),
            ("1,234,567", 1_234_567.0),
            ("1e9", 1e9),
        ] {
            assert_eq!(n(text), Value::Number(number), "{text}");
        }
        for text in ["", "NaN", "None", "N/A", "null", "-", "inf", "-Infinity"] {
            assert_eq!(n(text), Value::Missing, "{text}");
        }
        for (text, says) in [
            ("1,000", "write 1000 or 1.000"),
            ("3,1415", "decimal comma; write 3.1415"),
            ("3.1%", "write 0.031"),
            ("-5", "not above zero"),
            ("0", "not above zero"),
            ("__1", "no number"),
            ("big", "no number"),
        ] {
            assert!(
                matches!(n(text), Value::Bad(why) if why.contains(says)),
                "{text}: {:?}",
                n(text)
            );
        }
        let loss = value("3k", Quantity::Loss);
        assert!(matches!(loss, Value::Bad(why) if why.contains("unit")));
    }
}
