//! The log: what the library has to say, as lines on standard error.
//!
//! A standard error that cannot be written to loses lines and nothing else.

use std::io::{self, IsTerminal as _};

use repoxy::config::LogFormat;
use tracing::level_filters::LevelFilter;

use crate::args::Global;

/// Starts the log of a command that is not the server: warnings, and more of it with `-v`.
pub(crate) fn of_command(global: &Global) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::WARN,
        (false, 1) => LevelFilter::INFO,
        (false, _) => LevelFilter::DEBUG,
    };
    lines(level).with_target(false).without_time().with_ansi(false).init();
}

/// Starts the log of the server.
pub(crate) fn of_server(format: LogFormat, level: LevelFilter) {
    match format {
        LogFormat::Text => lines(level).with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => lines(level).json().flatten_event(true).with_current_span(false).init(),
    }
}

type Lines = tracing_subscriber::fmt::SubscriberBuilder<
    tracing_subscriber::fmt::format::DefaultFields,
    tracing_subscriber::fmt::format::Format,
    LevelFilter,
    fn() -> io::Stderr,
>;

fn lines(level: LevelFilter) -> Lines {
    let stderr: fn() -> io::Stderr = io::stderr;
    tracing_subscriber::fmt().with_writer(stderr).with_max_level(level).log_internal_errors(false)
}
