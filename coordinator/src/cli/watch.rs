//! `status --watch`: a run's state, kept up to date.

use super::{
    Error,
    inspect_run::{self, Looked},
};
use std::{io::IsTerminal, time::Duration};

/// As often as the store is looked at.
const PACE: Duration = Duration::from_secs(2);
/// Home, and everything behind it away.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Shows how far a run is until it is over: in place on a terminal, elsewhere one after the other when it has changed.
pub(super) async fn status(url: &str) -> Result<(), Error> {
    let run = inspect_run::open(url).await?;
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    let in_place = std::io::stdout().is_terminal() && !dumb;
    let mut shown = String::new();
    loop {
        let Looked { text, is_over } = inspect_run::look(&run).await?;
        if in_place {
            let (rows, columns) = console::Term::stdout().size();
            let text = fitted(&text, usize::from(rows), usize::from(columns));
            print!("{CLEAR}{text}");
        } else if text != shown {
            println!("{text}");
        }
        shown = text;
        if is_over {
            return Ok(());
        }
        tokio::time::sleep(PACE).await;
    }
}

/// As much of a text as a terminal shows without scrolling or breaking lines.
fn fitted(text: &str, rows: usize, columns: usize) -> String {
    let lines = text.lines().take(rows.saturating_sub(1).max(1));
    let cut = lines.map(|line| line.chars().take(columns).chain(['\n']).collect::<String>());
    cut.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_terminal_gets_the_upper_left_part() {
        assert_eq!(fitted("abc\nde\nf\n", 3, 2), "ab\nde\n");
        assert_eq!(fitted("abc\n", 50, 200), "abc\n");
    }
}
