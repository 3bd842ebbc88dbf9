//! `worker`: a process of the pool.

use super::{print_error, telemetry::OfWorker};
use polestar_telemetry::Telemetry;
use polestar_worker::agent::{self, JoinArgs, exit};
use std::time::Duration;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// Serves a pool, and ends the process with an [exit code](exit) that says why. What it computes with may not end at
/// once, so it isn't waited for.
pub(super) async fn join(args: JoinArgs, telemetry: Telemetry) -> ! {
    let telemetry = OfWorker::new(telemetry);
    let code = match leave_on_signal(args.leave_within()) {
        Ok(leave) => serve(args, leave, &telemetry).await,
        Err(error) => {
            print_error(&error);
            1
        }
    };
    telemetry.finish();
    std::process::exit(i32::from(code))
}

async fn serve(args: JoinArgs, leave: watch::Receiver<bool>, telemetry: &OfWorker) -> u8 {
    let warned = leave.clone();
    let options = match args.into_options(leave, telemetry.welcomed()) {
        Ok(options) => options,
        Err(error) => {
            print_error(&error);
            return exit::REFUSED;
        }
    };
    let ended = agent::join(options).await;
    match ended {
        // However it ended, it was on its way.
        _ if *warned.borrow() => exit::LEFT,
        Ok(()) => exit::DISMISSED,
        Err(error) => {
            print_error(&error);
            exit::code(&error)
        }
    }
}

/// Becomes true with SIGTERM or SIGUSR1, with which job schedulers warn that a process will be ended. A second one, or
/// more time than `patience` after the first, ends it at once.
fn leave_on_signal(patience: Duration) -> std::io::Result<watch::Receiver<bool>> {
    let (mut terminate, mut user) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::user_defined1())?,
    );
    let (leaves, leave) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = user.recv() => {}
        }
        eprintln!("warned that this process will be ended; leaving");
        leaves.send_replace(true);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = user.recv() => {}
            () = tokio::time::sleep(patience) => {}
        }
        std::process::exit(i32::from(exit::LEFT));
    });
    Ok(leave)
}
