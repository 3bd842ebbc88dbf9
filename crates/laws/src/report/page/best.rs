//! What one came for: the best model, where its weights are, and what to do with them.

use crate::report::{BestTrial, number};
use maud::{Markup, html};

/// The best trial; nothing before one has finished, and nothing of a table of runs.
pub(super) fn best(of: Option<&BestTrial>) -> Markup {
    html! {
        @if let Some(best) = of {
            section.best {
                h2 { "Best trial" }
                p {
                    strong { (best.trial) }
                    " · loss " (format!("{:.4}", best.loss))
                    @if let Some(accuracy) = best.accuracy { ", " (number::percent(accuracy)) " ranked correctly" }
                    " on " (best.set)
                }
                dl {
                    @if let Some(url) = &best.checkpoint {
                        dt { "Checkpoint" }
                        dd { code { (url) } }
                    } @else {
                        dt { "Checkpoint" }
                        dd { "removed; launch again to have it back" }
                    }
                    @for (what, command) in &best.next {
                        dt { (what) }
                        dd { code { (command) } }
                    }
                }
            }
        }
    }
}
