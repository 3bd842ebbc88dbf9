//! Polestar's coordinator: from a sweep file to a report of scaling laws.
//!
//! [`sweep`] reads the file and [plans](sweep::plan) trials as data; [`control`] decides who trains what and
//! has it done; [`launcher`] starts the workers; [`run`] holds what is durable; [`observe`] makes metrics of it; [`polestar_laws`] fits and draws.
//! [`recommend`] turns laws into the next trial, [`diagnose`] a run's event journal into causes, [`evaluate`] checkpoints into
//! preference accuracies, [`metrics`] the rows of trials into files for other programs, [`export`] hands a model on to
//! other programs, and [`web`] shows a run to a browser. [`cli`] puts them behind one command.

// First, so that its macros are those of all modules.
#[macro_use]
mod output;

mod calendar;
pub mod cli;
pub mod control;
mod describe;
pub mod diagnose;
pub mod evaluate;
pub mod export;
pub mod launcher;
pub mod metrics;
pub mod observe;
pub mod recommend;
pub mod run;
mod shell;
pub mod sweep;
pub mod web;
