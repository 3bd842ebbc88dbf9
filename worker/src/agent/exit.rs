//! Exit codes of a worker process: what a job scheduler, or whoever started it, can make of its end.

use super::Error;

/// The coordinator needs it no more. Starting it again is of no use.
pub const DISMISSED: u8 = 0;
/// The coordinator can't be reached or is gone. Starting it again helps once there is one.
pub const NO_COORDINATOR: u8 = 75;
/// The coordinator doesn't take it, or it can't be one of its workers: a wrong token, another version, an address that
/// is none. Starting it again as it is would end alike.
pub const REFUSED: u8 = 78;
/// It was warned by SIGTERM or SIGUSR1, as before a preemption or the end of its time, and left in order. Starting it
/// again elsewhere is of use.
pub const LEFT: u8 = 80;

/// What a code of these means, in a few words.
pub fn meaning(code: u8) -> Option<&'static str> {
    match code {
        DISMISSED => Some("the coordinator needed it no more"),
        NO_COORDINATOR => Some("it found no coordinator, or lost it"),
        REFUSED => {
            Some("the coordinator refused it; another try would end alike, its log says why")
        }
        LEFT => Some("it was warned, and left in order"),
        _ => None,
    }
}

/// The code of a worker that ended with an error.
pub fn code(error: &Error) -> u8 {
    match error {
        Error::Connect { .. } | Error::Channel { .. } | Error::Stream { .. } => NO_COORDINATOR,
        Error::Url { .. }
        | Error::Handshake { .. }
        | Error::Plain { .. }
        | Error::Certificates(_)
        | Error::DataAddress(_)
        | Error::Protocol { .. }
        | Error::Refused { .. } => REFUSED,
    }
}
