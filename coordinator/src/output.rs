//! What this program prints. The standard library's `print!` and its kin panic where nobody takes what is printed:
//! a pipe whose reader has gone, a full disk, a terminal that was closed. In this crate the macros of the same
//! names are those below, which don't: a launch trains on, and any other command ends.

use std::{
    fmt::Arguments,
    io::{ErrorKind, Write},
    process::ExitCode,
    sync::{Mutex, MutexGuard, PoisonError},
};

macro_rules! print {
    ($($arg:tt)*) => { $crate::output::print(format_args!($($arg)*)) };
}
macro_rules! println {
    () => { $crate::output::print(format_args!("\n")) };
    ($($arg:tt)*) => { $crate::output::print(format_args!("{}\n", format_args!($($arg)*))) };
}
macro_rules! eprintln {
    () => { $crate::output::note(format_args!("\n")) };
    ($($arg:tt)*) => { $crate::output::note(format_args!("{}\n", format_args!($($arg)*))) };
}

/// What became of standard output.
#[derive(Default)]
struct State {
    /// Whether the command has more to do than to print.
    works_on: bool,
    /// It took nothing any more, for this reason.
    lost: Option<ErrorKind>,
}

static STATE: Mutex<State> = Mutex::new(State {
    works_on: false,
    lost: None,
});

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on a standard output that takes nothing any more doesn't end the program: its work and its exit code
/// matter more than what it prints.
pub(crate) fn work_on() {
    state().works_on = true;
}

/// The exit code of a command, where what it printed may have been lost. A reader that has seen enough, as `| head`
/// has, is no failure.
pub(crate) fn outcome(code: ExitCode) -> ExitCode {
    let lost = state().lost;
    match lost {
        Some(kind) if kind != ErrorKind::BrokenPipe && code == ExitCode::SUCCESS => {
            ExitCode::FAILURE
        }
        _ => code,
    }
}

/// Prints to standard output, if it takes anything.
pub(crate) fn print(text: Arguments<'_>) {
    if state().lost.is_some() {
        return;
    }
    let mut stdout = std::io::stdout().lock();
    let printed = stdout.write_fmt(text).and_then(|()| stdout.flush());
    drop(stdout);
    let Err(error) = printed else {
        return;
    };
    let mut state = state();
    let (works_on, first) = (state.works_on, state.lost.is_none());
    state.lost = Some(error.kind());
    drop(state);
    let gone = error.kind() == ErrorKind::BrokenPipe;
    if !gone && first {
        let then = match works_on {
            true => "; the work goes on, what would be printed is lost",
            false => "",
        };
        eprintln!("error: standard output can't be written: {error}{then}");
    }
    if !works_on {
        // Nobody is left to do anything for.
        std::process::exit(i32::from(!gone));
    }
}

/// Prints to standard error, if it takes anything. Nothing depends on that.
pub(crate) fn note(text: Arguments<'_>) {
    let _ = std::io::stderr().lock().write_fmt(text);
}
