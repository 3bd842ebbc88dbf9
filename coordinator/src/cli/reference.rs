//! `schema` and `presets`: what a sweep file may say, and the models that have a name.

use crate::{sweep, web};
use polestar_dataset::ImportOptions;
use polestar_model::{HeadKind, ModelLayout, Preset, count::parameters};
use std::fmt::Write;

/// The vocabulary that `corpus import` trains unless another is given.
pub(super) fn usual_vocab() -> u32 {
    ImportOptions::default().vocab_size
}

/// Prints the JSON Schema of sweep files.
///
/// # Errors
/// None that is known: a schema is JSON.
pub(super) fn print_schema() -> Result<(), super::Error> {
    println!("{}", serde_json::to_string_pretty(&sweep::schema())?);
    Ok(())
}

/// Prints the OpenAPI document of the page's API.
///
/// # Errors
/// None that is known: a document is JSON.
pub(super) fn print_api() -> Result<(), super::Error> {
    println!("{}", serde_json::to_string_pretty(&web::openapi())?);
    Ok(())
}

/// Prints the presets as a table of Markdown, which is as good in a terminal.
pub(super) fn print_presets(vocab: u32) {
    print!("{}", presets(vocab));
}

fn presets(vocab: u32) -> String {
    let header = [
        "preset",
        "width",
        "layers",
        "heads",
        "KV heads",
        "head width",
        "FFN width",
        "RoPE base",
        "vocabulary",
        "non-embedding",
        "with reward head",
        "with LM head",
    ];
    let rows = Preset::ALL.map(|preset| {
        let config = preset.config(vocab);
        let with_lm = ModelLayout::new(&config, HeadKind::Language).elements() as u64;
        let count = parameters(&config);
        [
            format!("`{}`", preset.name()),
            config.hidden_size.to_string(),
            config.num_hidden_layers.to_string(),
            config.num_attention_heads.to_string(),
            config.num_key_value_heads.to_string(),
            config.head_dim().to_string(),
            grouped(u64::from(config.intermediate_size)),
            format!("{:e}", config.rope_theta),
            grouped(u64::from(config.vocab_size)),
            grouped(count.non_embedding),
            grouped(count.total),
            grouped(with_lm),
        ]
    });
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].len());
        cells.chain([header[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    let mut line = |cells: Vec<String>| {
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    };
    let padded = |(cell, width): (&str, &usize)| format!("{cell:>width$}");
    line(header.into_iter().zip(&widths).map(padded).collect());
    line(
        widths
            .iter()
            .map(|width| format!("{}:", "-".repeat(width - 1)))
            .collect(),
    );
    for row in &rows {
        line(
            row.iter()
                .map(String::as_str)
                .zip(&widths)
                .map(padded)
                .collect(),
        );
    }
    text
}

/// A number with a comma before each group of three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_counted_exactly() {
        assert_eq!(grouped(1_510_000_000), "1,510,000,000");
        let text = presets(usual_vocab());
        assert_eq!(text.lines().count(), 2 + Preset::ALL.len());
        // The published reward models, by their weights' shapes: embedding, blocks, norms, value head.
        let polar = |line: &str, width: u64, layers: u64, kv: u64, ffn: u64| {
            let block = 2 * width * width + 2 * width * kv + 3 * width * ffn + 2 * width;
            let total = 92_544 * width + layers * block + width + width;
            let row = text.lines().find(|row| row.contains(line)).unwrap();
            assert!(
                row.contains(&format!(" {} ", grouped(total))),
                "{row}: {total}"
            );
            assert!(
                row.contains(&format!(" {} |", grouped(total - width + 92_544 * width))),
                "{row}"
            );
        };
        polar("`polar-1.8b`", 2048, 24, 1024, 8192);
        polar("`polar-7b`", 4096, 32, 1024, 14_336);
    }
}
