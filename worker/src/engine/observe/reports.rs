//! Rows of metrics, told while a trial trains: the store gets them with the next checkpoint only.

use super::{Moment, Observer};
use polestar_run::{Event, metrics::Row};
use std::time::{Duration, Instant};

/// Rows are told about once a second.
const PACE: Duration = Duration::from_secs(1);
/// And never more of them at a time, which bounds a message.
const MOST: usize = 256;

/// Tells every row once, when nothing can be added to it any more.
pub(in crate::engine) struct RowReports {
    told: Instant,
    /// Not told yet. The newest may still get its held-out scores.
    rows: Vec<Row>,
}

impl RowReports {
    pub(in crate::engine) fn new() -> RowReports {
        RowReports {
            told: Instant::now(),
            rows: Vec::new(),
        }
    }

    fn tell(&mut self, tell: &dyn Fn(Event)) {
        let rows = std::mem::take(&mut self.rows);
        for rows in rows.chunks(MOST) {
            tell(Event::Rows {
                rows: rows.to_vec(),
            });
        }
        self.told = Instant::now();
    }
}

impl Observer for RowReports {
    fn on(&mut self, moment: &Moment<'_>, tell: &dyn Fn(Event)) {
        match *moment {
            // What the store may not have, and the listener neither: it passes over what it has.
            Moment::Begun { rows, .. } => self.rows = rows.to_vec(),
            Moment::Stepped { row, .. } => {
                if self.rows.len() >= MOST || self.told.elapsed() >= PACE {
                    self.tell(tell);
                }
                self.rows.push(row.clone());
            }
            Moment::Evaluated { step, along, .. } => {
                if let Some(row) = self.rows.last_mut().filter(|row| row.step == step) {
                    row.validation.clone_from(along);
                }
                self.tell(tell);
            }
            Moment::Saved(_) => self.tell(tell),
            Moment::Prepared(_) | Moment::Loaded => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::StepWork;
    use super::*;
    use polestar_core::Step;
    use polestar_run::SetScore;
    use std::{cell::RefCell, collections::BTreeMap};

    #[test]
    fn every_row_is_told_once_in_order_and_with_its_scores() {
        let told = RefCell::new(Vec::new());
        let tell = |event| match event {
            Event::Rows { rows } => told.borrow_mut().push(rows),
            other => panic!("{other:?}"),
        };
        let along = BTreeMap::from([("heldout_prompts".to_owned(), SetScore::default())]);
        let row = |step| Row {
            step: Step(step),
            ..Row::default()
        };
        let mut reports = RowReports::new();
        // As after a restart from memory: two rows that the store lacks.
        let begun = Moment::Begun {
            step: Step(2),
            steps: 1000,
            from: polestar_run::ResumedFrom::Memory,
            rows: &[row(1), row(2)],
            passed_over: &[],
        };
        reports.on(&begun, &tell);
        for step in 3..=1000 {
            let stepped = Moment::Stepped {
                work: &StepWork::default(),
                row: &row(step),
                triplets: 8,
                is_last: step == 1000,
            };
            reports.on(&stepped, &tell);
            if step % 500 == 0 {
                let evaluated = Moment::Evaluated {
                    step: Step(step),
                    scores: &BTreeMap::new(),
                    along: &along,
                };
                reports.on(&evaluated, &tell);
            }
        }
        let told = told.into_inner();
        assert!(told.iter().all(|rows| rows.len() <= MOST));
        let rows: Vec<Row> = told.into_iter().flatten().collect();
        let steps: Vec<u64> = rows.iter().map(|row| row.step.0).collect();
        assert_eq!(steps, (1..=1000).collect::<Vec<u64>>());
        for row in rows {
            assert_eq!(!row.validation.is_empty(), row.step.0 % 500 == 0);
        }
    }
}
