//! Names of policies in paths: `outputs/{policy}/samples_*.jsonl`.

use crate::pattern::matches;

/// A pattern of paths in which a policy's name stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PathPattern {
    /// Of the path's last parts.
    parts: Vec<String>,
}

/// Where the name stands in a pattern.
const NAME: &str = "{policy}";

impl PathPattern {
    /// Reads a pattern; `None` unless it has `{policy}` once.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let parts = text.split('/').map(str::to_owned).collect();
        (text.matches(NAME).count() == 1).then_some(Self { parts })
    }

    /// The policy's name in a path that ends as the pattern does.
    pub(super) fn name(&self, path: &str) -> Option<String> {
        let given: Vec<&str> = path.split('/').collect();
        let from = given.len().checked_sub(self.parts.len())?;
        let mut name = None;
        for (part, pattern) in given[from..].iter().zip(&self.parts) {
            match pattern.split_once(NAME) {
                Some((before, after)) => name = Some(within(part, before, after)?),
                None if !matches(part, pattern) => return None,
                None => {}
            }
        }
        name.filter(|name| !name.is_empty())
    }
}

/// What stands between two patterns: the longest name for which the rest fits.
fn within(text: &str, before: &str, after: &str) -> Option<String> {
    let cuts: Vec<usize> = (0..=text.len())
        .filter(|at| text.is_char_boundary(*at))
        .collect();
    let begins = cuts
        .iter()
        .copied()
        .filter(|&at| matches(&text[..at], before));
    for begin in begins {
        let ends = cuts.iter().rev().copied().filter(|&at| at > begin);
        for end in ends {
            if matches(&text[end..], after) {
                return Some(text[begin..end].to_owned());
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_what_the_pattern_leaves_open() {
        let cases = [
            ("{policy}.jsonl", "a/b/gpt-4.jsonl", Some("gpt-4")),
            ("{policy}.jsonl*", "gpt-4.jsonl.zst", Some("gpt-4")),
            (
                "{policy}/samples_*.jsonl",
                "out/llama-7b/samples_gsm8k_2024.jsonl",
                Some("llama-7b"),
            ),
            ("{policy}/samples_*.jsonl", "samples_gsm8k.jsonl", None),
            ("out/*_{policy}_*.json", "x/out/a_b_c.json", Some("b")),
            ("*/{policy}/*", "one/two", None),
        ];
        for (pattern, path, name) in cases {
            let found = PathPattern::parse(pattern).unwrap().name(path);
            assert_eq!(found.as_deref(), name, "{pattern} {path}");
        }
        assert_eq!(PathPattern::parse("outputs/*.jsonl"), None);
    }
}
