//! Numbers as a report prints them.

use crate::fits::Interval;

/// A count in thousands, millions …, three significant digits: `1.23M`, `10k`, `512`.
pub(super) fn count(value: f64) -> String {
    const UNITS: [(f64, &str); 4] = [(1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")];
    // Half a unit in the third digit below the next unit already rounds up to it.
    match UNITS.iter().find(|(unit, _)| value.abs() >= unit * 0.9995) {
        Some((unit, name)) => format!("{}{name}", significant(value / unit, 3)),
        None => significant(value, 3),
    }
}

/// FLOPs in powers of ten, trailing zeros left out: `1e12`, `3.2e15`.
pub(super) fn flops(value: f64) -> String {
    let text = format!("{value:.2e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => format!("{}e{exponent}", trim(mantissa)),
        None => text,
    }
}

/// `value` with `digits` significant digits, trailing zeros left out; powers of ten only where plain digits would be many.
pub(super) fn significant(value: f64, digits: usize) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let magnitude = value.abs().log10().floor() as i32;
    if !(-4..=6).contains(&magnitude) {
        return flops(value);
    }
    let decimals = (digits as i32 - 1 - magnitude).max(0) as usize;
    trim(&format!("{value:.decimals$}")).to_owned()
}

/// The ends of an interval, each as `number` prints it; nothing where there is none.
pub(super) fn ends(interval: Option<Interval>, number: impl Fn(f64) -> String) -> String {
    interval.map_or_else(String::new, |Interval { lo, hi }| {
        format!("{} to {}", number(lo), number(hi))
    })
}

/// The same as a remark in brackets, with so many decimals: ` (0.12 to 0.34)`.
pub(super) fn bracketed(interval: Option<Interval>, decimals: usize) -> String {
    remark("", interval, decimals)
}

/// The same where nothing else says what it is: ` (95%: 0.12 to 0.34)`.
pub(super) fn stated(interval: Option<Interval>, decimals: usize) -> String {
    remark("95%: ", interval, decimals)
}

fn remark(what: &str, interval: Option<Interval>, decimals: usize) -> String {
    match ends(interval, |x| format!("{x:.decimals$}")) {
        ends if ends.is_empty() => ends,
        ends => format!(" ({what}{ends})"),
    }
}

/// A share as percent with one decimal: `65.3%`.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

/// A whole number with thin groups of three: `12 345`.
pub(super) fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

fn trim(text: &str) -> &str {
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_a_person_writes_them() {
        assert_eq!(
            [
                count(10_000.0),
                count(1_234_567.0),
                count(512.0),
                count(999_700.0)
            ],
            ["10k", "1.23M", "512", "1M"]
        );
        assert_eq!([flops(1e12), flops(3.25e15)], ["1e12", "3.25e15"]);
        assert_eq!(
            [
                significant(0.35, 3),
                significant(1.2345, 3),
                significant(2.5e-9, 3)
            ],
            ["0.35", "1.23", "2.5e-9"]
        );
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(percent(0.6531), "65.3%");
    }
}
