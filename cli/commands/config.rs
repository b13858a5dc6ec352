//! `repoxy config`: whether it is right, and what it is.

use crate::args::{ConfigCommand, Global};
use crate::exit::{CliError, Exit};
use crate::output::Output;
use crate::settings;

use super::serve;

pub(crate) fn run(global: &Global, command: &ConfigCommand) -> Result<Exit, CliError> {
    let mut output = Output::new(global, false);
    let config = settings::load(global)?;
    // Not only how it is written, but whether a server could start with it.
    let supplies = settings::supplies(&config)?;
    for warning in &config.warnings {
        output.note(format_args!("warning: {warning}"));
    }
    match command {
        ConfigCommand::Check => {
            serve::rehearse(&config, &supplies)?;
            let file = config.file.as_ref().map_or("defaults".to_owned(), |file| file.display().to_string());
            let proxies = config.proxies.len() as u64;
            let proxies = if proxies == 1 { "1 proxy".to_owned() } else { format!("{proxies} proxies") };
            output.done(format_args!("config: {file} is right, {proxies}"))?;
        }
        ConfigCommand::Show => output.line(config.to_string().trim_end())?,
    }
    output.finish()?;
    Ok(Exit::Done)
}
