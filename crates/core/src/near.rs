//! The names that a mistyped one may stand for.

/// How alike two names are: from 0, not at all, to 1, the same (Jaro and Winkler).
pub fn likeness(one: &str, other: &str) -> f64 {
    strsim::jaro_winkler(one, other)
}

/// Of some names those that are at least so much [like](likeness) what was asked for, the most alike first; of equally
/// alike ones, those that come first.
pub fn nearest<'a>(
    asked: &str,
    names: impl IntoIterator<Item = &'a str>,
    least: f64,
) -> Vec<&'a str> {
    let scored = names.into_iter().map(|name| (likeness(asked, name), name));
    let mut near: Vec<(f64, &str)> = scored.filter(|(alike, _)| *alike >= least).collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    near.into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_alike_comes_first_and_strangers_not_at_all() {
        let names = ["batch", "lanes", "latches", "zero"];
        assert_eq!(nearest("lanse", names, 0.7)[0], "lanes");
        assert_eq!(nearest("batches", names, 0.7)[..2], ["batch", "latches"]);
        assert!(nearest("qqq", names, 0.7).is_empty());
    }
}
