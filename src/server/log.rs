//! One line a request, when its answer has ended.
//!
//! Lines go through `tracing` to the target [`TARGET`] at level INFO; whether as text or JSON is the
//! subscriber's affair. With the level off nothing is allocated, counted or timed. A subscriber must
//! not report its own write errors to stderr (`log_internal_errors(false)`): a closed stderr would
//! turn that into a panic.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use http::StatusCode;

use super::exchange::Exchange;

/// The `tracing` target of access lines, for filters.
pub const TARGET: &str = "repoxy::access";

/// The most bytes of a request target that go into a line.
const MAX_FIELD: usize = 2 * 1024;

/// What nginx logs for a client that left before there was a status to send.
const CLIENT_LEFT: u16 = 499;

/// Numbers the requests of a process.
#[derive(Debug)]
pub(super) struct Journal {
    /// Tells the processes apart whose lines end up in one place.
    instance: String,
    next: AtomicU64,
}

/// A line begun.
#[derive(Debug)]
pub(super) struct Entry {
    id: String,
    began: Instant,
}

impl Journal {
    /// The journal of a server instance.
    pub(super) fn new(instance: &str) -> Self {
        Self { instance: instance.to_owned(), next: AtomicU64::new(1) }
    }

    /// Begins a line, if anybody is going to read it.
    pub(super) fn begin(&self) -> Option<Entry> {
        tracing::enabled!(target: TARGET, tracing::Level::INFO).then(|| {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            Entry { id: format!("{}-{number:x}", self.instance), began: Instant::now() }
        })
    }
}

impl Entry {
    /// Writes the line. `sent` is what was handed to the connection, which can be a little more than
    /// what a client that left has received; `whole` says whether that was all of the answer.
    pub(super) fn write(self, exchange: &Exchange, status: Option<StatusCode>, sent: u64, whole: bool) {
        let proxy = exchange.meters().map(|meters| tracing::field::display(meters.proxy()));
        let milliseconds = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            target: TARGET,
            id = self.id,
            client = %exchange.peer,
            method = %Escaped(exchange.method.as_str()),
            resource = %Escaped(&exchange.shown()),
            proxy,
            status = status.map_or(CLIENT_LEFT, |status| status.as_u16()),
            outcome = exchange.outcome(),
            bytes = sent,
            whole,
            milliseconds,
        );
    }
}

/// Text of a client's, fit for one line of a terminal: printable ASCII, the rest escaped, and cut
/// after [`MAX_FIELD`] bytes.
struct Escaped<'t>(&'t str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = &self.0.as_bytes()[..self.0.len().min(MAX_FIELD)];
        if bytes.iter().all(u8::is_ascii_graphic) && bytes.len() == self.0.len() {
            return f.write_str(self.0);
        }
        let mut room = MAX_FIELD;
        for &byte in bytes {
            let escape = std::ascii::escape_default(byte);
            room = room.saturating_sub(escape.len());
            if room == 0 {
                break;
            }
            escape.fmt(f)?;
        }
        if room == 0 || bytes.len() < self.0.len() {
            f.write_str("...")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_target_is_logged_as_it_is() {
        assert_eq!(Escaped("/v2/a%2fb?n=1&last=\\x").to_string(), "/v2/a%2fb?n=1&last=\\x");
    }

    #[test]
    fn what_could_steer_a_terminal_or_forge_a_line_is_escaped() {
        assert_eq!(Escaped("/a\x1b[2J\r\nfake ä").to_string(), "/a\\x1b[2J\\r\\nfake \\xc3\\xa4");
    }

    #[test]
    fn a_long_target_is_cut() {
        for text in ["a".repeat(1 << 20), "\n".repeat(1 << 20), "ä".repeat(1500)] {
            let line = Escaped(&text).to_string();
            assert!(line.len() <= MAX_FIELD + 3, "{}", line.len());
            assert!(line.ends_with("..."));
        }
    }
}
