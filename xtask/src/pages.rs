//! Pages of docs/ that are made from the code: written by `cargo xtask generate`, held against it by
//! `cargo xtask verify`.

use crate::{Trouble, arrows};

/// A part of a page that is made from the code, between two comments that name it.
pub(crate) struct Section {
    /// Its name in those comments.
    pub(crate) name: &'static str,
    /// What stands between them.
    pub(crate) text: String,
}

/// Writes every generated page and section.
///
/// # Errors
/// A page that can't be read or written, or has no place for its section.
pub(crate) fn generate() -> Result<(), Trouble> {
    write("docs/architecture.md", &arrows::picture())
}

/// Whether a page holds this section as the code has it now.
///
/// # Errors
/// It doesn't, and what to do.
pub(crate) fn is_current(page: &str, section: &Section) -> Result<(), Trouble> {
    let there = read(page)?;
    match section.put_into(page, &there)? == there {
        true => Ok(()),
        false => Err(format!(
            "{page} doesn't show what the code says; run `cargo xtask generate`"
        )),
    }
}

fn write(page: &str, section: &Section) -> Result<(), Trouble> {
    let text = section.put_into(page, &read(page)?)?;
    std::fs::write(page, text).map_err(|error| format!("{page} can't be written: {error}"))?;
    println!("{page}: {}", section.name);
    Ok(())
}

fn read(page: &str) -> Result<String, Trouble> {
    std::fs::read_to_string(page).map_err(|error| format!("{page} can't be read: {error}"))
}

impl Section {
    /// The page with this section as it is now.
    fn put_into(&self, page: &str, text: &str) -> Result<String, Trouble> {
        let begin = format!("<!-- generated: {} -->\n", self.name);
        let end = format!("<!-- end: {} -->", self.name);
        let parts = text.split_once(&begin).and_then(|(before, rest)| {
            let (_, after) = rest.split_once(&end)?;
            Some((before, after))
        });
        let Some((before, after)) = parts else {
            return Err(format!(
                "{page} has no `{}` before a `{end}`",
                begin.trim_end()
            ));
        };
        Ok(format!("{before}{begin}{}{end}{after}", self.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_between_the_comments_changes() {
        let section = Section {
            name: "x",
            text: "new\n".into(),
        };
        let page = "a\n<!-- generated: x -->\nold\n<!-- end: x -->\nz\n";
        let written = section.put_into("p.md", page).unwrap();
        assert_eq!(
            written,
            "a\n<!-- generated: x -->\nnew\n<!-- end: x -->\nz\n"
        );
        assert_eq!(section.put_into("p.md", &written).unwrap(), written);
        let refused = section.put_into("p.md", "nothing").unwrap_err();
        assert!(
            refused.contains("p.md has no `<!-- generated: x -->`"),
            "{refused}"
        );
    }
}
