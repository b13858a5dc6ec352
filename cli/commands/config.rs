//! `repoxy config`: whether it is right, and what it is.

use serde::Serialize;

use repoxy::config::Config;

use crate::args::{ConfigCommand, Global};
use crate::exit::{CliError, Exit};
use crate::output::Output;
use crate::settings;

use super::serve;

#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "camelCase")]
enum Event<'e> {
    Warning { what: &'e str },
    Summary { file: Option<String>, proxies: usize },
}

pub(crate) fn run(global: &Global, command: &ConfigCommand) -> Result<Exit, CliError> {
    let (ConfigCommand::Check(args) | ConfigCommand::Show(args)) = command;
    let mut output = Output::new(global, args.json);
    let mut config = settings::load(global)?;
    // Not only how it is written, but whether a server could start with it.
    let supplies = settings::supplies(&config)?;
    match command {
        ConfigCommand::Check(_) => {
            serve::rehearse(&config, &supplies)?;
            check(&mut output, &config)?;
        }
        ConfigCommand::Show(_) => {
            serve::fill_in(&mut config);
            show(&mut output, &config)?;
        }
    }
    output.finish()?;
    Ok(Exit::Done)
}

fn check(output: &mut Output, config: &Config) -> Result<(), CliError> {
    if output.is_json() {
        for what in &config.warnings {
            output.object(&Event::Warning { what })?;
        }
        let file = config.file.as_ref().map(|file| file.display().to_string());
        return output.object(&Event::Summary { file, proxies: config.proxies.len() });
    }
    warn(output, config);
    let file = config.file.as_ref().map_or("defaults".to_owned(), |file| file.display().to_string());
    let proxies = match config.proxies.len() {
        1 => "1 proxy".to_owned(),
        proxies => format!("{proxies} proxies"),
    };
    output.done(format_args!("config: {file} is right, {proxies}"))
}

fn show(output: &mut Output, config: &Config) -> Result<(), CliError> {
    warn(output, config);
    if output.is_json() {
        return config.settings().iter().try_for_each(|setting| output.object(setting));
    }
    output.line(config.to_string().trim_end())
}

fn warn(output: &Output, config: &Config) {
    for warning in &config.warnings {
        output.note(format_args!("warning: {warning}"));
    }
}
