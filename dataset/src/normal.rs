//! One form for prompts and policy names that differ only in how they were written down, so that the
//! answers to one prompt meet, and one policy has one name.
//!
//! | of | rule |
//! |---|---|
//! | a prompt's messages | CRLF and CR become LF |
//! | | Unicode is composed (NFC) |
//! | a prompt's end | white space is removed |
//! | a chat of one user message | is the plain text |
//! | a policy's parts | surrounding white space is removed |
//! | | a decimal fraction is written shortest: `1.0` is `1`, `0.70` is `0.7` |
//!
//! White space within a prompt stays: it has meaning in code. Whole numbers stay as they are, since `0613`
//! is a date and no 613. Responses are never changed: how a policy writes is what is learnt.

use std::{fmt, ops::AddAssign};

use serde::{Deserialize, Serialize};
use unicode_normalization::{UnicodeNormalization, is_nfc};

use crate::assemble::COLUMN_SEPARATOR;
use crate::schema::{Message, Prompt};

/// How many prompts and policy names were written otherwise, by rule. One that two rules changed is
/// counted by both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Changes {
    /// Prompts with CRLF or CR.
    pub line_ends: u64,
    /// Prompts that were not in NFC.
    pub unicode: u64,
    /// Prompts that ended in white space.
    pub trailing_space: u64,
    /// Chats of one user message.
    pub plain_chats: u64,
    /// Policy names with white space about a part.
    pub policy_space: u64,
    /// Policy names with a decimal fraction that can be written shorter.
    pub policy_numbers: u64,
}

impl Changes {
    /// Whether nothing was changed.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl AddAssign for Changes {
    fn add_assign(&mut self, more: Self) {
        self.line_ends += more.line_ends;
        self.unicode += more.unicode;
        self.trailing_space += more.trailing_space;
        self.plain_chats += more.plain_chats;
        self.policy_space += more.policy_space;
        self.policy_numbers += more.policy_numbers;
    }
}

impl fmt::Display for Changes {
    /// Those that there are, separated by semicolons; "nothing" if there are none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            (self.line_ends, "prompts with other line ends"),
            (self.unicode, "prompts not in Unicode's composed form"),
            (self.trailing_space, "prompts ending in white space"),
            (self.plain_chats, "chats of one user message made plain"),
            (self.policy_space, "policy names with white space about"),
            (self.policy_numbers, "policy names with a number cut short"),
        ];
        let some = kinds.iter().filter(|(count, _)| *count > 0);
        let some: Vec<String> = some
            .map(|(count, kind)| format!("{count} {kind}"))
            .collect();
        match some.is_empty() {
            true => f.write_str("nothing"),
            false => f.write_str(&some.join("; ")),
        }
    }
}

/// The form of a prompt by which it is known, and what had to be changed.
pub fn prompt(prompt: Prompt) -> (Prompt, Changes) {
    let mut changes = Changes::default();
    let mut messages = prompt.0;
    let (mut line_ends, mut unicode) = (false, false);
    for Message { content, .. } in &mut messages {
        if content.contains('\r') {
            line_ends = true;
            *content = content.replace("\r\n", "\n").replace('\r', "\n");
        }
        if !is_nfc(content) {
            unicode = true;
            *content = content.nfc().collect();
        }
    }
    changes.line_ends = u64::from(line_ends);
    changes.unicode = u64::from(unicode);
    if let Some(Message { content, .. }) = messages.last_mut() {
        let kept = content.trim_end().len();
        changes.trailing_space = u64::from(kept < content.len());
        content.truncate(kept);
    }
    if let [Message { role, .. }] = &mut messages[..]
        && role.as_deref() == Some("user")
    {
        changes.plain_chats = 1;
        *role = None;
    }
    (Prompt(messages), changes)
}

/// The name by which a policy is known, and what had to be changed. Its parts are what stands between
/// `" | "`: the columns of a strict policy.
pub fn policy(name: &str) -> (String, Changes) {
    let (mut space, mut numbers) = (false, false);
    let parts = name.split(COLUMN_SEPARATOR).map(|part| {
        let trimmed = part.trim();
        space |= trimmed.len() < part.len();
        let short = shortest(trimmed);
        numbers |= short.is_some();
        short.unwrap_or_else(|| trimmed.to_owned())
    });
    let parts: Vec<String> = parts.collect();
    let changes = Changes {
        policy_space: u64::from(space),
        policy_numbers: u64::from(numbers),
        ..Changes::default()
    };
    (parts.join(COLUMN_SEPARATOR), changes)
}

/// A decimal fraction with the fewest digits, or `None` where it has no more than that or is none.
fn shortest(part: &str) -> Option<String> {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = part.strip_prefix('-').unwrap_or(part);
    let (whole, fraction) = unsigned.split_once('.')?;
    if !digits(whole) || !digits(fraction) || whole.len() + fraction.len() == 0 {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let zero = fraction.is_empty() && whole.bytes().all(|byte| byte == b'0');
    let sign = if unsigned.len() < part.len() && !zero {
        "-"
    } else {
        ""
    };
    let point = if fraction.is_empty() { "" } else { "." };
    let short = format!("{sign}{whole}{point}{fraction}");
    (short != part).then_some(short)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(role: &str, content: &str) -> Message {
        Message {
            role: Some(role.into()),
            content: content.into(),
        }
    }

    #[test]
    fn prompts_that_differ_in_writing_only_are_one() {
        let written = [
            Prompt::plain("Où?\n  - ici\n\ttab"),
            Prompt::plain("Où?\r\n  - ici\r\n\ttab \n\n"),
            Prompt::plain("Ou\u{300}?\r  - ici\r\ttab"),
            Prompt(vec![message("user", "Où?\n  - ici\n\ttab\u{a0}")]),
        ];
        let mut sum = Changes::default();
        for other in &written {
            let (normal, changes) = prompt(other.clone());
            assert_eq!(normal, written[0]);
            assert_eq!(prompt(normal), (written[0].clone(), Changes::default()));
            sum += changes;
        }
        let expected = Changes {
            line_ends: 2,
            unicode: 1,
            trailing_space: 2,
            plain_chats: 1,
            ..Changes::default()
        };
        assert_eq!(sum, expected);
        let said = "2 prompts with other line ends; 1 prompts not in Unicode's composed form";
        assert!(sum.to_string().starts_with(said), "{sum}");
    }

    #[test]
    fn what_a_prompt_says_stays() {
        let kept = [
            Prompt(vec![message("system", "Be kind. "), message("user", "hi")]),
            Prompt(vec![message("system", "alone")]),
            Prompt(vec![message("user", "one"), message("user", "two")]),
            Prompt::plain("  def f():\n\n\n    pass"),
            Prompt(vec![]),
        ];
        for prompt_kept in kept {
            assert_eq!(
                prompt(prompt_kept.clone()),
                (prompt_kept, Changes::default())
            );
        }
        let (blank, _) = prompt(Prompt::plain(" \r\n"));
        assert_eq!(blank, Prompt::plain(""));
    }

    #[test]
    fn a_policy_has_one_name() {
        let cases = [
            (" gpt-4 | 0.70 ", "gpt-4 | 0.7"),
            ("gpt-4 | 1.0 | .5", "gpt-4 | 1 | 0.5"),
            ("gpt-4 | 1. | -0.0", "gpt-4 | 1 | 0"),
            ("gpt-4 | -2.50", "gpt-4 | -2.5"),
        ];
        for (name, normal) in cases {
            let (found, changes) = policy(name);
            assert_eq!((found.as_str(), changes.policy_numbers), (normal, 1));
            assert_eq!(policy(normal), (normal.into(), Changes::default()));
        }
        assert_eq!(policy(" gpt-4").1.policy_space, 1);
        // Dates, versions within names, exponents and words.
        for name in [
            "0613",
            "llama-3.10",
            "1e-05",
            "v1.0",
            "1.0.0",
            ".",
            "a |",
            "10",
        ] {
            assert_eq!(policy(name), (name.into(), Changes::default()), "{name}");
        }
    }
}
