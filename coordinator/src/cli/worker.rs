//! `worker`: a process of the pool.

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// Becomes true with SIGTERM or SIGUSR1, with which job schedulers warn that a process will be ended. A second one
/// ends it at once.
///
/// # Errors
/// When signals can't be heard.
pub(super) fn leave_on_signal() -> std::io::Result<watch::Receiver<bool>> {
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
        leaves.send_replace(true);
        terminate.recv().await;
        std::process::exit(128 + SignalKind::terminate().as_raw_value());
    });
    Ok(leave)
}
