//! Texts as clients write them: a string, or messages whose contents are joined.

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use std::fmt;

/// A text: a string as it is, or the contents of a list of messages joined with newlines, roles dropped, as a
/// corpus has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text(pub String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Text, D::Error> {
        from.deserialize_any(TextVisitor).map(Text)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a list of messages with `content`")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_string<E: Error>(self, text: String) -> Result<String, E> {
        Ok(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut messages: A) -> Result<String, A::Error> {
        let mut contents: Vec<String> = Vec::new();
        while let Some(Message { content }) = messages.next_element()? {
            contents.push(content.0);
        }
        match contents.is_empty() {
            true => Err(A::Error::custom("a list of messages without a message")),
            false => Ok(contents.join("\n")),
        }
    }
}

/// A message of a chat. Other fields than its content say nothing that the model sees.
#[derive(serde::Deserialize)]
struct Message {
    content: Content,
}

/// A string, or parts of which each is a text.
struct Content(String);

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Content, D::Error> {
        from.deserialize_any(ContentVisitor).map(Content)
    }
}

struct ContentVisitor;

#[derive(serde::Deserialize)]
struct Part {
    text: String,
}

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a list of parts with `text`")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_string<E: Error>(self, text: String) -> Result<String, E> {
        Ok(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<String, A::Error> {
        let mut whole = String::new();
        while let Some(Part { text }) = parts.next_element()? {
            whole += &text;
        }
        Ok(whole)
    }
}

/// One of something, or a list of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OneOrMany<T> {
    /// Alone.
    One(T),
    /// In a list.
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    /// All of them.
    pub fn into_vec(self) -> Vec<T> {
        match self {
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        }
    }
}

/// A string or a list of strings.
impl<'de> Deserialize<'de> for OneOrMany<String> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Strings;
        impl<'de> Visitor<'de> for Strings {
            type Value = OneOrMany<String>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(OneOrMany::One(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut texts: A) -> Result<Self::Value, A::Error> {
                let mut many = Vec::new();
                while let Some(text) = texts.next_element()? {
                    many.push(text);
                }
                Ok(OneOrMany::Many(many))
            }
        }
        from.deserialize_any(Strings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_a_string_or_the_contents_of_messages() {
        let text = |json: &str| serde_json::from_str::<Text>(json).map(|text| text.0);
        assert_eq!(text(r#""a\nb""#).expect("a text"), "a\nb");
        let chat = r#"[{"role":"user","content":"a"},
                       {"role":"user","content":[{"type":"text","text":"b"},{"type":"text","text":"c"}]}]"#;
        assert_eq!(text(chat).expect("a text"), "a\nbc");
        let refused = |json: &str| text(json).expect_err("refused").to_string();
        assert!(refused("null").contains("a string or a list of messages"));
        assert!(refused("[]").contains("without a message"));
        assert!(refused(r#"[{"role":"user"}]"#).contains("missing field `content`"));
        assert!(refused(r#"[{"content":null}]"#).contains("a list of parts"));
    }
}
