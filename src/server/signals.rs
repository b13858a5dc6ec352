//! The signals that ask a server to stop.

use std::io;

use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::signal::unix::{SignalKind, signal};

/// SIGTERM and SIGINT as they come, for [`Server::run`](super::Server::run). From now on they no
/// longer end the process by themselves.
///
/// # Errors
/// If the handlers cannot be installed.
pub fn stop_signals() -> io::Result<impl Stream<Item = ()> + Send> {
    let terminate = signal(SignalKind::terminate())?;
    let interrupt = signal(SignalKind::interrupt())?;
    Ok(unfold((terminate, interrupt), |(mut terminate, mut interrupt)| async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Some(((), (terminate, interrupt)))
    }))
}
