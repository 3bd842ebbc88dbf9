//! Errors as a person reads them: the error, and what caused it.

use std::error::Error;

/// What an error says and what each of its causes says, outermost first.
///
/// A cause whose text its effect ends with already, as errors of some libraries do, is not listed again.
pub fn causes(error: &dyn Error) -> Vec<String> {
    let mut texts = vec![error.to_string()];
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        let is_said = texts.last().is_some_and(|effect| effect.ends_with(&text));
        if !is_said {
            texts.push(text);
        }
        source = cause.source();
    }
    texts
}

/// An error and its causes in one line: `could not save step 3: could not write a/b: disk full`.
pub fn chain(error: &dyn Error) -> String {
    causes(error).join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Layer>>);

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(self.1.as_deref()?)
        }
    }

    fn layers(texts: &[&'static str]) -> Layer {
        let (first, rest) = texts.split_first().expect("at least one");
        let source = (!rest.is_empty()).then(|| Box::new(layers(rest)));
        Layer(first, source)
    }

    #[test]
    fn every_cause_is_printed_and_none_twice_in_a_row() {
        let plain = layers(&["step 3 of 15", "key 1", "5"]);
        assert_eq!(chain(&plain), "step 3 of 15: key 1: 5");
        let library = layers(&["can't read a", "generic error: timed out", "timed out"]);
        assert_eq!(chain(&library), "can't read a: generic error: timed out");
    }
}
