//! The command line of repoxy: reads arguments, runs one command, says how it ended.
//!
//! It knows every module of the library but not SQL, paths of the store or protocols' grammars.
//! `output` alone prints, `exit` alone knows exit codes, `settings` alone opens things.

mod args;
mod commands;
mod exit;
mod logging;
mod memory;
mod names;
mod output;
mod progress;
#[cfg(test)]
mod reference;
mod settings;
mod upkeep;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Cli, Command};
use crate::exit::{CliError, Exit};

fn main() -> ExitCode {
    memory::keep_large_buffers();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => return output::usage(&usage).into(),
    };
    match run(cli) {
        Ok(exit) => exit.into(),
        Err(error) => {
            output::error(&error);
            error.exit().into()
        }
    }
}

/// How long what runs at the end may take to put things in order.
const PARTING: Duration = Duration::from_millis(500);

fn run(cli: Cli) -> Result<Exit, CliError> {
    if matches!(cli.command, Command::Gc(_) | Command::Fsck(_) | Command::Reindex(_)) {
        // Before there are other threads, which inherit it. Where it is not allowed, all are alike.
        let _ = rustix::process::nice(upkeep::NICENESS);
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(CliError::Runtime)?;
    let ended = runtime.block_on(async {
        // Writing beyond a limit on file sizes must be an error, not the end: the handler stays.
        let _oversize = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()));
        match cli.command {
            // The server ends by itself when it is told to, after it has drained.
            Command::Serve(args) => commands::serve::run(&cli.global, &args).await,
            command => {
                logging::of_command(&cli.global);
                tokio::select! {
                    ended = commands::run(&cli.global, command) => ended,
                    _ = tokio::signal::ctrl_c() => Err(CliError::Interrupted),
                }
            }
        }
    });
    // Transfers that are given up get a moment to leave what they have for the next. Whatever still runs on a
    // blocking thread then is cut off anywhere, like by a kill.
    runtime.shutdown_timeout(PARTING);
    ended
}
