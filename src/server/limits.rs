//! The numbers that bound what clients can make this server do or hold.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// File descriptors that connections leave to the store, the index and upstream.
const RESERVED_FILES: u64 = 256;

/// Fewer file descriptors than this are worth a warning.
const FEW_FILES: u64 = 4096;

/// How much a server takes and how long it waits. The default is what `docs/operations.md` says.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The most connections at a time; lower if the process may not open as many files.
    pub connections: usize,
    /// The most bytes of a request head.
    pub head_bytes: usize,
    /// From accept, or the first byte of a further request, to the end of the request head.
    pub head_timeout: Duration,
    /// For the TLS handshake.
    pub handshake_timeout: Duration,
    /// Between requests.
    pub idle_timeout: Duration,
    /// For a client that does not read what is sent to it.
    pub stall_timeout: Duration,
    /// For answers under way when the server is asked to stop.
    pub drain_timeout: Duration,
    /// The most requests at a time on one HTTP/2 connection.
    pub streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 8192,
            head_bytes: 64 * 1024,
            head_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            stall_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(30),
            streams: 128,
        }
    }
}

impl Limits {
    /// The most connections for a process that may open so many files.
    pub(super) fn connections_with(&self, files: u64) -> usize {
        // Where 256 files are all there is, half of them is better than none.
        let room = files.saturating_sub(RESERVED_FILES).max(files / 2);
        self.connections.min(usize::try_from(room).unwrap_or(usize::MAX)).max(1)
    }
}

/// Raises the soft limit of open files to the hard one and returns what holds then.
pub(super) fn raise_open_files() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if files < FEW_FILES {
        tracing::warn!(files, wanted = FEW_FILES, "few open files are allowed; connections are limited");
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_to_the_rest() {
        let limits = Limits::default();
        for (files, connections) in
            [(u64::MAX, 8192), (10_000, 8192), (1024, 768), (400, 200), (256, 128), (0, 1)]
        {
            assert_eq!(limits.connections_with(files), connections, "{files}");
        }
    }

    #[test]
    fn the_soft_limit_of_open_files_becomes_the_hard_one() {
        let files = raise_open_files();
        assert_eq!(files, getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX));
    }
}
