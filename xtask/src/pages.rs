//! Pages of docs/ that are made from the code: written by `cargo xtask generate`, held against it by
//! `cargo xtask verify`.

use crate::{Trouble, arrows, metadata, output, reference};
use serde_json::Value;

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
    let architecture = "docs/architecture.md";
    let section = arrows::picture();
    write(
        architecture,
        &section.put_into(architecture, &read(architecture)?)?,
    )?;
    for (page, text) in from_the_program()? {
        write(&page, &text)?;
    }
    Ok(())
}

/// Whether a page holds this section as the code has it now.
///
/// # Errors
/// It doesn't, and what to do.
pub(crate) fn is_current(page: &str, section: &Section) -> Result<(), Trouble> {
    let there = read(page)?;
    same(page, &there, &section.put_into(page, &there)?)
}

/// Checks the pages that are made from what the program says of itself.
///
/// # Errors
/// A page that is not what it would be if it were made now.
pub(crate) fn verify() -> Result<String, Trouble> {
    let pages = from_the_program()?;
    for (page, text) in &pages {
        same(page, &read(page)?, text)?;
    }
    Ok(format!("{} files say what the program says", pages.len()))
}

fn same(page: &str, there: &str, now: &str) -> Result<(), Trouble> {
    match there == now {
        true => Ok(()),
        false => Err(format!(
            "{page} doesn't say what the code says; run `cargo xtask generate`"
        )),
    }
}

/// Pages that the program is asked for, each with its text.
fn from_the_program() -> Result<Vec<(String, String)>, Trouble> {
    // What tests build: without their dependences other features would be resolved, and burn built again.
    output(&["cargo", "test", "--workspace", "--locked", "--no-run"])?;
    let program = format!("{}/debug/coordinator", target_folder()?);
    let schema = output(&[&program, "schema"])?;
    let schema: Value = serde_json::from_str(&schema)
        .map_err(|error| format!("`coordinator schema` printed no JSON: {error}"))?;
    let examples = toml::from_str(&read(reference::EXAMPLES)?)
        .map_err(|error| format!("{}: {error}", reference::EXAMPLES))?;
    let presets = output(&[&program, "presets"])?;
    let mut pages = vec![
        (
            "docs/configuration.md".to_owned(),
            reference::page(&schema, &examples)?,
        ),
        (
            "docs/presets.md".to_owned(),
            format!("{PRESETS}\n{presets}"),
        ),
    ];
    pages.push((
        "docs/openapi.json".to_owned(),
        output(&[&program, "schema", "--api"])?,
    ));
    pages.extend(scale(&program)?);
    Ok(pages)
}

/// The page of predictions and its figures.
fn scale(program: &str) -> Result<Vec<(String, String)>, Trouble> {
    let folder = format!("{}/scale", target_folder()?);
    output(&[program, "plan", "--scale", &folder])?;
    let entries = std::fs::read_dir(&folder).map_err(|error| format!("{folder}: {error}"))?;
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| format!("{folder}: {error}"))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let text = read(&format!("{folder}/{name}"))?;
        files.push(match name.as_str() {
            "tables.md" => {
                let section = Section {
                    name: "scale",
                    text,
                };
                (SCALE.to_owned(), section.put_into(SCALE, &read(SCALE)?)?)
            }
            _ => (format!("docs/scale/{name}"), text),
        });
    }
    files.sort();
    Ok(files)
}

const SCALE: &str = "docs/scale.md";

const PRESETS: &str = "\
# Presets

Models with a name, for `sweep.sizes`. This page is what `coordinator presets` prints (`cargo xtask generate`).

Parameters are counted exactly, from the tensors' shapes. *Non-embedding* is everything but the embedding table and
a language-model head: the N of `6ND`. *With reward head* is what a POLAR reward model trains: embedding, blocks,
norms and a value head of one row. *With LM head* has `vocabulary × width` instead of that row, not tied to the
embedding: what a warm start trains.

`polar-7b` and `polar-1.8b` have the published shapes. The paper names four more sizes (115.52M, 232.65M, 389.87M,
924.09M, without a head at its vocabulary of 92,544) and shows one near 50M, without their shapes: those here are our
own, within 0.5% of its figures. The five small ones take their vocabulary from the corpus; the table has them at the
vocabulary that `corpus import` trains unless another is given (`coordinator presets --vocab N` counts at N).
";

fn target_folder() -> Result<String, Trouble> {
    let metadata = metadata()?;
    let folder = metadata["target_directory"].as_str();
    folder
        .map(str::to_owned)
        .ok_or_else(|| "`cargo metadata` names no target folder".into())
}

fn write(page: &str, text: &str) -> Result<(), Trouble> {
    let folder = std::path::Path::new(page).parent();
    folder
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| std::fs::write(page, text))
        .map_err(|error| format!("{page} can't be written: {error}"))?;
    println!("{page}");
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
