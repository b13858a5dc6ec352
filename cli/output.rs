//! The only place that prints. Data goes to standard output, everything else to standard error.
//!
//! Output is buffered, and flushed where somebody may wait for it. Nothing is coloured but what clap
//! prints, which heeds `NO_COLOR`.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write as _};
use std::time::Duration;

use comfy_table::{Cell, CellAlignment, Table, presets};
use indicatif::HumanBytes;
use serde::Serialize;

use crate::args::Global;
use crate::exit::{CliError, Exit};
use crate::progress::Bars;

/// Where a command prints.
#[derive(Debug)]
pub(crate) struct Output {
    out: BufWriter<Stdout>,
    bars: Bars,
    quiet: bool,
    json: bool,
    verbose: bool,
}

impl Output {
    /// For a command that prints JSON or not.
    pub(crate) fn new(global: &Global, json: bool) -> Self {
        let bars = Bars::new(!global.quiet && !json && io::stderr().is_terminal());
        let out = BufWriter::new(io::stdout());
        Self { out, bars, quiet: global.quiet, json, verbose: global.verbose > 0 }
    }

    /// The bars that belong to this output.
    pub(crate) fn bars(&self) -> Bars {
        self.bars.clone()
    }

    /// Whether data is printed as JSON.
    pub(crate) const fn is_json(&self) -> bool {
        self.json
    }

    /// Whether only what somebody has to act on is wanted.
    pub(crate) const fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether more than usual is wanted.
    pub(crate) const fn is_verbose(&self) -> bool {
        self.verbose
    }

    /// Prints a line of data.
    pub(crate) fn line(&mut self, line: impl Display) -> Result<(), CliError> {
        writeln!(self.out, "{line}").map_err(CliError::Output)
    }

    /// Prints a line of data at once, above a bar if there is one.
    pub(crate) fn line_now(&mut self, line: impl Display) -> Result<(), CliError> {
        let (bars, out) = (&self.bars, &mut self.out);
        bars.suspend(|| writeln!(out, "{line}").and_then(|()| out.flush())).map_err(CliError::Output)
    }

    /// Prints an object on a line of its own at once, above a bar if there is one.
    pub(crate) fn object_now(&mut self, object: &impl Serialize) -> Result<(), CliError> {
        self.line_now(serde_json::to_string(object).map_err(|error| CliError::Output(error.into()))?)
    }

    /// Prints an object on a line of its own.
    pub(crate) fn object(&mut self, object: &impl Serialize) -> Result<(), CliError> {
        serde_json::to_writer(&mut self.out, object).map_err(|error| CliError::Output(error.into()))?;
        self.out.write_all(b"\n").map_err(CliError::Output)
    }

    /// Prints a table; nothing if it has no rows, for nothing is no data.
    pub(crate) fn table(&mut self, table: &Table) -> Result<(), CliError> {
        if table.row_iter().next().is_none() {
            return Ok(());
        }
        table.lines().try_for_each(|line| writeln!(self.out, "{}", line.trim_end())).map_err(CliError::Output)
    }

    /// Prints the one line that says what was done; nothing if quiet.
    pub(crate) fn done(&mut self, line: impl Display) -> Result<(), CliError> {
        if self.quiet { Ok(()) } else { self.line(line) }
    }

    /// Says something beside the data, on standard error; nothing if quiet.
    pub(crate) fn note(&self, note: impl Display) {
        if !self.quiet {
            // Nobody can be told that standard error is gone.
            let _ = self.bars.suspend(|| writeln!(io::stderr().lock(), "{note}"));
        }
    }

    /// Ends the output. What is still in the buffer is written.
    pub(crate) fn finish(mut self) -> Result<(), CliError> {
        self.bars.clear();
        self.out.flush().map_err(CliError::Output)
    }
}

/// A table with these columns; those that begin with `>` are numbers.
pub(crate) fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(columns.iter().map(|name| Cell::new(name.trim_start_matches('>'))));
    for (column, name) in table.column_iter_mut().zip(columns) {
        column.set_padding((0, 2));
        if name.starts_with('>') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// `1 ref`, `2 refs`.
pub(crate) fn count(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// `1.50 GiB`
pub(crate) fn bytes(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}

/// `0.4 s`, `12 s`, `3 min 5 s`
pub(crate) fn elapsed(time: Duration) -> String {
    match time.as_secs() {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        seconds @ 10..60 => format!("{seconds} s"),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

/// Says what went wrong: the error, what caused it, and what to do. Silent about a reader who has
/// gone away.
pub(crate) fn error(error: &CliError) {
    if error.exit() == Exit::Done {
        return;
    }
    // Writing into memory cannot fail.
    let mut text = format!("error: {error}\n").into_bytes();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = writeln!(text, "  cause: {error}");
        cause = error.source();
    }
    if let Some(hint) = error.hint() {
        let _ = writeln!(text, "hint: {hint}");
    }
    let _ = io::stderr().lock().write_all(&text);
}

/// Prints what clap has to say: help and version to standard output, the rest to standard error.
pub(crate) fn usage(usage: &clap::Error) -> Exit {
    // A reader who has gone away has seen enough.
    let _ = usage.print();
    if usage.use_stderr() { Exit::Usage } else { Exit::Done }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_counts_read_well() {
        let times = [0.04, 9.96, 10.0, 59.9, 185.0].map(|seconds| elapsed(Duration::from_secs_f64(seconds)));
        assert_eq!(times, ["0.0 s", "10.0 s", "10 s", "59 s", "3 min 5 s"]);
        assert_eq!([0, 1, 2].map(|n| count(n, "ref")), ["0 refs", "1 ref", "2 refs"]);
        assert_eq!(bytes(1536), "1.50 KiB");
    }
}
