//! What serde says of a value of the wrong type, with the key that it stands at and what to write instead.

/// What is wrong with the value that begins at byte `at` of a sweep file, if `message` is about a type.
pub(super) fn wrong_type(text: &str, at: usize, message: &str) -> Option<String> {
    let about = message.strip_prefix("invalid type: ")?;
    let (found, expected) = about.split_once(", expected ")?;
    let (key, value) = key_at(text, at)?;
    let short = key.rsplit('.').next().unwrap_or(&key);
    let (kind, quoted) = found.split_once([' ', '`', '"']).unwrap_or((found, ""));
    let inner = quoted.trim_matches(['`', '"', ' ']);
    let is_number = matches!(kind, "integer" | "floating");
    let wants_text = expected.contains("string");
    let wants_list = expected.contains("sequence") || expected.contains("array");
    let wants_number = [
        "u8", "u16", "u32", "u64", "usize", "i64", "f32", "f64", "number",
    ]
    .iter()
    .any(|name| expected.contains(name));
    let cure = if wants_list && kind != "map" {
        format!("write a list, {short} = [{value}]")
    } else if wants_text && is_number {
        match key.as_str() {
            "sweep.sizes" => "sizes are names or numbers with a unit, in quotes: \"2M\"".to_owned(),
            _ => format!("write it in quotes, \"{}\"", number(found)),
        }
    } else if wants_number && kind == "string" && inner.parse::<f64>().is_ok() {
        format!("write it without quotes, {inner}")
    } else if wants_number && kind == "string" {
        "write a number".to_owned()
    } else if wants_number && kind == "floating" {
        "write a whole number, without a point or an exponent".to_owned()
    } else if wants_number && kind == "sequence" {
        format!("write one value, without brackets: {short} = …")
    } else if expected.starts_with("struct") {
        format!("write a table, [{key}]")
    } else if expected.contains("boolean") {
        "write true or false, without quotes".to_owned()
    } else {
        format!("{expected} is needed here")
    };
    Some(format!("{key} = {value}: {cure}"))
}

/// The number in `integer `40``.
fn number(found: &str) -> &str {
    found.split('`').nth(1).unwrap_or(found)
}

/// The key, with its tables, that a byte of a file belongs to, and its value as written, cut where it gets long.
fn key_at(text: &str, at: usize) -> Option<(String, String)> {
    let mut table = String::new();
    let mut found: Option<(String, usize)> = None;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if start > at {
            break;
        }
        let bare = line.trim();
        if bare.starts_with('[')
            && bare.ends_with(']')
            && !bare.contains('=')
            && !bare.contains(',')
        {
            let name = bare.trim_matches(['[', ']', ' ']);
            // A line of nothing but a list's entry is no table.
            if !name.is_empty() && !name.contains(['"', ' ']) {
                table = format!("{name}.");
            }
        } else if let Some((key, _)) = bare.split_once('=') {
            let key = key.trim();
            let is_key = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
            if !key.is_empty() && key.chars().all(is_key) {
                let value = start + line.find('=').unwrap_or(0) + 1;
                found = Some((format!("{table}{key}"), value));
            }
        }
        start += line.len();
    }
    let (key, value) = found?;
    let line = text[value..].lines().next().unwrap_or_default();
    let value = line.split(" #").next().unwrap_or_default().trim();
    let cut: String = value.chars().take(40).collect();
    let dots = if cut.len() < value.len() { "…" } else { "" };
    Some((key, format!("{cut}{dots}")))
}

#[cfg(test)]
mod tests {
    use super::super::{fixture::smallest, read_str};

    #[test]
    fn a_value_of_the_wrong_type_is_told_with_its_key_and_its_cure() {
        read_str("t.toml", &smallest()).unwrap();
        for (from, to, says) in [
            (
                "steps = [10]",
                "steps = 40",
                "t.toml:11: sweep.steps = 40: write a list, steps = [40]",
            ),
            (
                "steps = [10]",
                "budgets = 1e9",
                "sweep.budgets = 1e9: write a list, budgets = [1e9]",
            ),
            (
                "steps = [10]",
                "budgets = [\"1e9\"]",
                "sweep.budgets = [\"1e9\"]: write it without quotes, 1e9",
            ),
            (
                "steps = [10]",
                "steps = [1e3]",
                "sweep.steps = [1e3]: write a whole number",
            ),
            (
                "steps = [10]",
                "steps = [\n  10,\n  \"x\",\n]",
                "t.toml:13: sweep.steps = [: write a number",
            ),
            (
                "[\"nano\"]",
                "[2000000]",
                "sweep.sizes = [2000000]: sizes are names or numbers with a unit, in quotes: \"2M\"",
            ),
            (
                "[\"nano\"]",
                "\"nano\"",
                "sweep.sizes = \"nano\": write a list, sizes = [\"nano\"]",
            ),
            (
                "lr = 1e-3",
                "lr = \"1e-3\"",
                "train.optimizer.lr = \"1e-3\": write it without quotes, 1e-3",
            ),
            (
                "batch = 8",
                "batch = [8]",
                "train.batch = [8]: write one value, without brackets",
            ),
            (
                "batch = 8",
                "batch = 8\nrecompute = \"yes\"",
                "train.recompute = \"yes\": write true or false",
            ),
            (
                "name = \"t\"",
                "name = 7",
                "name = 7: write it in quotes, \"7\"",
            ),
        ] {
            let text = read_str("t.toml", &smallest().replace(from, to))
                .unwrap_err()
                .to_string();
            assert!(text.contains(says), "{to}: {text}");
        }
    }
}
