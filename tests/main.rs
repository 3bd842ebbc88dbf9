//! Whole-system tests: the real program, its processes and its stores. One binary, so that it is linked once.

mod chaos;
mod clock;
mod common;
mod cuda;
mod damage;
mod digest;
mod disk;
mod faults;
mod fine_tuning;
mod handed_on;
mod hosts;
mod kills;
mod known_laws;
mod looking;
mod measured;
mod planted;
mod portable;
mod preference;
mod recovery;
mod refusals;
mod rewards;
mod slurm;
mod standin;
mod strangers;
mod telemetry;
