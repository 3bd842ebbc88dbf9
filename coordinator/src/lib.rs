//! Polestar's coordinator: from a sweep file to a report of scaling laws.
//!
//! [`sweep`] reads the file and [plans](sweep::plan) trials as data; [`cluster`] is a pure state
//! machine that decides who trains what; [`pool`] holds the workers' streams and [`run`] what is
//! durable; [`polestar_laws`] fits and draws. [`recommend`] turns laws into the next trial. [`cli`] puts
//! them behind one command.

pub mod cli;
pub mod cluster;
pub mod pool;
pub mod recommend;
pub mod run;
pub mod sweep;
