//! The commands, a file each: read the arguments, call the library, print what it says.

mod config;
mod fsck;
mod gc;
mod ls;
mod reindex;
pub(crate) mod serve;
mod show;

use crate::args::{Command, Global};
use crate::exit::{CliError, Exit};

/// Runs any command but `serve`. Dropping it leaves the store as a kill would: right.
pub(crate) async fn run(global: &Global, command: Command) -> Result<Exit, CliError> {
    match command {
        Command::Serve(args) => serve::run(global, &args).await,
        Command::Gc(args) => gc::run(global, &args).await,
        Command::Fsck(args) => fsck::run(global, &args).await,
        Command::Reindex(args) => reindex::run(global, &args).await,
        Command::Ls(command) => ls::run(global, &command).await,
        Command::Show(args) => show::run(global, &args).await,
        Command::Config(command) => config::run(global, &command),
    }
}
