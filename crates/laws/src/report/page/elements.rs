//! The parts that every section is made of.

use maud::{Markup, html};

/// How the values of a column are set.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Code,
}

/// A column of a table.
#[derive(Clone, Copy)]
pub(super) struct Column<'a> {
    name: &'a str,
    kind: Kind,
}

impl<'a> Column<'a> {
    /// Words.
    pub(super) const fn text(name: &'a str) -> Self {
        let kind = Kind::Text;
        Self { name, kind }
    }

    /// Numbers, set to the right.
    pub(super) const fn number(name: &'a str) -> Self {
        let kind = Kind::Number;
        Self { name, kind }
    }

    /// Digests and the like.
    pub(super) const fn code(name: &'a str) -> Self {
        let kind = Kind::Code;
        Self { name, kind }
    }
}

/// A table; each row has a value for each column.
pub(super) fn table(columns: &[Column], rows: impl IntoIterator<Item = Vec<String>>) -> Markup {
    html! {
        div.scroll {
            table {
                thead {
                    tr {
                        @for column in columns {
                            @if column.kind == Kind::Number {
                                th.number { (column.name) }
                            } @else {
                                th { (column.name) }
                            }
                        }
                    }
                }
                tbody {
                    @for row in rows {
                        tr {
                            @for (at, (column, value)) in columns.iter().zip(row).enumerate() {
                                @match column.kind {
                                    Kind::Number => { td.number { (value) } }
                                    Kind::Code => { td { code { (value) } } }
                                    Kind::Text if at == 0 => { td.name { (value) } }
                                    Kind::Text => { td { (value) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A list of sentences.
pub(super) fn list<T: maud::Render>(items: impl IntoIterator<Item = T>) -> Markup {
    html! {
        ul {
            @for item in items {
                li { (item) }
            }
        }
    }
}

/// A number with a true minus sign.
pub(super) fn minus(number: &str) -> String {
    number.replace('-', "\u{2212}")
}

/// A clause as the beginning of a sentence.
pub(super) fn capitalized(clause: &str) -> String {
    let mut chars = clause.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(chars).collect()
    })
}
