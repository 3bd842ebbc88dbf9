//! What keeps a house readable: files and functions of a size that one can hold in mind, and no crate
//! that is most of the program.

use crate::{Trouble, output};
use std::collections::BTreeMap;
use syn::visit::Visit;

/// Longest file, tests too.
const FILE_LINES: usize = 500;
/// Longest function, from `fn` to its closing brace.
const FUNCTION_LINES: usize = 100;
/// Largest part of the product's code that is one crate: one in so many.
const CRATE_SHARE: usize = 3;

/// One file's measures.
struct Measured {
    path: String,
    lines: usize,
    /// Lines that are not in `#[cfg(test)]`.
    product: usize,
    functions: Vec<Function>,
}

struct Function {
    name: String,
    line: usize,
    lines: usize,
}

/// Measures every Rust file that git knows or would add.
///
/// # Errors
/// Every offender, with its place and the limit.
pub(crate) fn verify() -> Result<String, Trouble> {
    let listed = output(&[
        "git",
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "--",
        "*.rs",
    ])?;
    let mut files = Vec::new();
    // A file that is deleted and not yet committed is still listed.
    for path in listed
        .lines()
        .filter(|path| std::fs::exists(path).unwrap_or(true))
    {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
        files.push(measure(path, &text)?);
    }
    let faults = judge(&files);
    if !faults.is_empty() {
        return Err(format!("\n{}", faults.join("\n")));
    }
    let functions = files.iter().flat_map(|file| &file.functions);
    let longest = functions.map(|function| function.lines).max().unwrap_or(0);
    let largest = files.iter().map(|file| file.lines).max().unwrap_or(0);
    Ok(format!(
        "{} files, the longest of {largest} lines, the longest function of {longest}",
        files.len()
    ))
}

fn judge(files: &[Measured]) -> Vec<String> {
    let mut faults = Vec::new();
    for Measured {
        path,
        lines,
        functions,
        ..
    } in files
    {
        if *lines > FILE_LINES {
            faults.push(format!(
                "{path} has {lines} lines; {FILE_LINES} is the most"
            ));
        }
        for Function { name, line, lines } in functions {
            if *lines > FUNCTION_LINES {
                faults.push(format!(
                    "{path}:{line}: `{name}` has {lines} lines; {FUNCTION_LINES} is the most"
                ));
            }
        }
    }
    let mut crates: BTreeMap<&str, usize> = BTreeMap::new();
    for file in files {
        if let Some(folder) = product_crate(&file.path) {
            *crates.entry(folder).or_default() += file.product;
        }
    }
    let whole: usize = crates.values().sum();
    for (folder, lines) in crates {
        if lines * CRATE_SHARE > whole {
            faults.push(format!(
                "{folder} has {lines} of the product's {whole} lines, more than one in {CRATE_SHARE}; \
                 find the room that wants to be a crate of its own"
            ));
        }
    }
    faults
}

/// Folder of the crate that a file of the product belongs to; tests, examples and developer tasks are
/// no product.
fn product_crate(path: &str) -> Option<&str> {
    let (folder, file) = path.split_once("/src/")?;
    let is_test = file == "tests.rs" || file.ends_with("/tests.rs") || file.contains("tests/");
    (folder != "xtask" && !is_test).then_some(folder)
}

fn measure(path: &str, text: &str) -> Result<Measured, Trouble> {
    let file = syn::parse_file(text).map_err(|error| format!("{path}: {error}"))?;
    let mut reader = Reader::default();
    reader.visit_file(&file);
    let lines = text.lines().count();
    Ok(Measured {
        path: path.to_owned(),
        lines,
        product: lines - reader.tests,
        functions: reader.functions,
    })
}

/// What is found on the way through a file.
#[derive(Default)]
struct Reader {
    functions: Vec<Function>,
    /// Lines of items that only tests have.
    tests: usize,
}

impl Reader {
    fn function(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let begin = signature.fn_token.span.start().line;
        self.functions.push(Function {
            name: signature.ident.to_string(),
            line: begin,
            lines: last_line(&block.brace_token) - begin + 1,
        });
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, &item.block);
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig, &item.block);
        syn::visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block);
        }
        syn::visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if let (Some((braces, _)), Some(attribute)) =
            (&item.content, item.attrs.iter().find(is_for_tests))
        {
            let begin = attribute.pound_token.span.start().line;
            self.tests += last_line(braces) - begin + 1;
        }
        syn::visit::visit_item_mod(self, item);
    }
}

fn last_line(braces: &syn::token::Brace) -> usize {
    braces.span.close().end().line
}

fn is_for_tests(attribute: &&syn::Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && attribute
            .parse_args::<syn::Path>()
            .is_ok_and(|path| path.is_ident("test"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(functions: usize, body: usize) -> String {
        let body = "    work();\n".repeat(body);
        (0..functions)
            .map(|n| format!("/// Says.\nfn f{n}() {{\n{body}}}\n"))
            .collect()
    }

    #[test]
    fn long_files_and_functions_are_named_with_their_place() {
        let measured = |text: &str| measure("a/src/x.rs", text).unwrap();
        let others: Vec<Measured> = ["b/src/x.rs", "c/src/x.rs", "d/src/x.rs"]
            .map(|path| measure(path, &source(9, 50)).unwrap())
            .into();
        let of = |text: &str| {
            let mut files = vec![measured(text)];
            files.extend(others.iter().map(|o| Measured {
                path: o.path.clone(),
                functions: vec![],
                ..*o
            }));
            judge(&files)
        };
        assert_eq!(of(&source(1, 98)), Vec::<String>::new());
        assert_eq!(
            of(&source(1, 99)),
            ["a/src/x.rs:2: `f0` has 101 lines; 100 is the most"]
        );
        assert_eq!(
            of(&source(10, 48)),
            ["a/src/x.rs has 510 lines; 500 is the most"]
        );
    }

    #[test]
    fn a_crate_that_is_most_of_the_product_is_named_and_tests_dont_count() {
        let file = |path: &str, lines| Measured {
            path: path.into(),
            lines,
            product: lines,
            functions: Vec::new(),
        };
        let even = [
            file("a/src/x.rs", 100),
            file("b/src/x.rs", 100),
            file("c/src/x.rs", 100),
        ];
        assert_eq!(judge(&even), Vec::<String>::new());
        let mut files = Vec::from(even);
        files.push(file("a/src/tests.rs", 400));
        files.push(file("a/tests/y.rs", 400));
        assert_eq!(judge(&files), Vec::<String>::new());
        files.push(file("a/src/y.rs", 1));
        let faults = judge(&files);
        assert!(
            faults.len() == 1 && faults[0].starts_with("a has 101 of the product's 301 lines"),
            "{faults:?}"
        );
    }

    #[test]
    fn modules_of_tests_are_no_product() {
        let text = format!(
            "{}#[cfg(test)]\nmod tests {{\n{}}}\n",
            source(1, 3),
            source(2, 5)
        );
        let measured = measure("a/src/x.rs", &text).unwrap();
        assert_eq!(
            (measured.lines, measured.product, measured.functions.len()),
            (25, 6, 3)
        );
    }
}
