//! `docs/cli.md` is what clap says: made by `UPDATE_DOCS=1 cargo test --bin repoxy`, and checked by
//! every other run of the tests.

use std::fmt::Write as _;

use clap::CommandFactory as _;

use crate::args::Cli;

/// Columns of help texts on the page.
const WIDTH: usize = 100;

/// The page.
fn page() -> String {
    let mut command = Cli::command().term_width(WIDTH).color(clap::ColorChoice::Never);
    command.build();
    let mut page = String::from(
        "# The command line\n\nMade from the program itself: `UPDATE_DOCS=1 cargo test --bin repoxy`.\n",
    );
    section(&mut command, &mut page);
    page
}

fn section(command: &mut clap::Command, page: &mut String) {
    let name = command.get_bin_name().unwrap_or("repoxy").to_owned();
    let help = command.render_long_help().to_string();
    let help = help.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    let _ = write!(page, "\n## `{name}`\n\n```text\n{}\n```\n", help.trim_end());
    for sub in command.get_subcommands_mut() {
        section(sub, page);
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "asks whether to write the page instead of checking it")]
fn the_page_on_the_command_line_is_what_clap_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cli.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, page()).expect("written");
    }
    let written = std::fs::read_to_string(path).expect("docs/cli.md");
    assert!(
        written == page(),
        "docs/cli.md is out of date; `UPDATE_DOCS=1 cargo test --bin repoxy` writes it"
    );
}

#[test]
fn every_command_ends_its_help_with_examples_and_exit_codes() {
    fn check(command: &clap::Command) {
        if command.get_subcommands().next().is_none() {
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(after.starts_with("Examples:\n"), "{}: {after}", command.get_name());
            assert!(after.contains("Exit codes:"), "{}: {after}", command.get_name());
        }
        command.get_subcommands().for_each(check);
    }
    check(&Cli::command());
}

#[test]
fn the_arguments_are_consistent() {
    Cli::command().debug_assert();
}
