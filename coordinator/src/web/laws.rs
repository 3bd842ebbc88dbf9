//! The scaling laws and their figures, as the report would have them now.

use super::api::LawsView;
use crate::run::{ReportError, Run, report_of};
use polestar_laws::report::Report;
use std::collections::BTreeMap;

/// Laws as they were fitted last.
#[derive(Debug, Default)]
pub(super) struct Laws {
    /// Trials that were over then. With as many nothing is fitted again.
    over: Option<usize>,
    pub(super) view: LawsView,
    pub(super) figures: BTreeMap<&'static str, String>,
}

/// Why there are no laws to show.
#[derive(Debug, thiserror::Error)]
pub(super) enum LawsError {
    #[error(transparent)]
    Report(#[from] Box<ReportError>),
    #[error("fitting the laws ended in a panic, please report it")]
    Panic(#[from] tokio::task::JoinError),
}

impl Laws {
    /// Fits again if more trials are over than last time. Takes a thread of its own, as long as that may take.
    pub(super) async fn refresh(&mut self, run: &Run, over: usize) -> Result<(), LawsError> {
        if self.over == Some(over) {
            return Ok(());
        }
        let run = run.clone();
        let runtime = tokio::runtime::Handle::current();
        let fitted = tokio::task::spawn_blocking(move || {
            let report = runtime.block_on(report_of(&run, None)).map_err(Box::new)?;
            Ok::<_, Box<ReportError>>((view(&report), report.drawings()))
        });
        let (mut view, drawings) = fitted.await??;
        view.figures = drawings
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .collect();
        *self = Laws {
            over: Some(over),
            view,
            figures: drawings.into_iter().collect(),
        };
        Ok(())
    }
}

fn view(report: &Report) -> LawsView {
    let laws = [report.by_params(), report.by_compute()];
    let cautions = laws.iter().flat_map(|law| law.selection.cautions.iter());
    LawsView {
        missing: report.input().missing.len(),
        laws: laws.iter().map(|law| law.text()).collect(),
        cautions: cautions.map(ToString::to_string).collect(),
        figures: Vec::new(),
    }
}
