//! Figures as a page shows them: drawn for a wide and for a narrow window, of which the style shows one, with the legend
//! and all words as text around it. The script makes them answer; without it nothing is missing but the read-outs.

use crate::report::figures::{
    draw::{Format, inline, swatch},
    model::{Body, Entry, Figure, Key},
    readings,
};
use maud::{Markup, PreEscaped, html};

/// What makes figures answer.
const SCRIPT: &str = include_str!("figures.js");

/// The figures of a page, to be placed one by one.
pub(super) struct Figures<'a>(pub &'a [Figure]);

impl Figures<'_> {
    /// The figure of this name, where there is one.
    pub(super) fn named(&self, name: &str) -> Markup {
        let mut all = self.0.iter();
        let found = all.find(|figure| figure.name == name);
        html! { @if let Some(found) = found { (figure(found)) } }
    }

    /// Those whose names begin so.
    pub(super) fn beginning(&self, prefix: &str) -> Markup {
        let found = self.0.iter().filter(|of| of.name.starts_with(prefix));
        html! { @for found in found { (figure(found)) } }
    }

    /// The script, where there is anything for it to do.
    pub(super) fn script(&self) -> Markup {
        html! { @if !self.0.is_empty() { script { (PreEscaped(SCRIPT)) } } }
    }
}

fn figure(of: &Figure) -> Markup {
    html! {
        figure.answers id=(of.name) {
            h3 { (of.title) }
            p.finding { (sentence(&of.finding)) }
            div.plot {
                (inline(of, &Format::PAGE))
                (inline(of, &Format::PHONE))
            }
            (names(of))
            (legend(&of.legend.0))
            figcaption {
                (of.caption)
                @for note in &of.notes { " " (sentence(note)) }
            }
            script type="application/json" { (PreEscaped(readings::json(of))) }
        }
    }
}

/// What the numbers beside a narrow heat map stand for.
fn names(of: &Figure) -> Markup {
    html! {
        @if let Body::Grid(grid) = &of.body {
            ol.names {
                @for name in &grid.names { li { (name) } }
            }
        }
    }
}

fn legend(entries: &[Entry]) -> Markup {
    html! {
        @if !entries.is_empty() {
            ul.legend {
                @for (index, entry) in entries.iter().enumerate() {
                    @match entry.key {
                        Key::Gap => {}
                        Key::Heading => { li.muted { (entry.text) } }
                        Key::Cell(_) => { li { (swatch(entry.key)) (entry.text) } }
                        // The script lets it be pressed.
                        key => {
                            li {
                                button type="button" disabled data-of=(index) aria-pressed="true" { (swatch(key)) (entry.text) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn sentence(words: &str) -> String {
    match words.is_empty() || words.ends_with('.') {
        true => words.to_owned(),
        false => format!("{words}."),
    }
}
