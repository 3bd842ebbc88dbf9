//! Whole-system tests: the real program, its processes and its stores. One binary, so that it is linked once.

mod chaos;
mod common;
mod damage;
mod digest;
mod faults;
mod hosts;
mod kills;
mod known_laws;
mod looking;
mod measured;
mod planted;
mod portable;
mod recovery;
mod refusals;
mod slurm;
mod strangers;
