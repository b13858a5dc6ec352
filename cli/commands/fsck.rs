//! `repoxy fsck`: a line for each finding as it is found, then one line of summary.

use std::ops::ControlFlow;
use std::time::Instant;

use serde::Serialize;

use repoxy::maintain::fsck::{self, Finding, Level, Options, Outcome, Report};
use repoxy::maintain::results::{self, Task};
use repoxy::maintain::{MaintainError, Upkeep};
use repoxy::model::SystemClock;

use crate::args::{FsckArgs, Global};
use crate::exit::{CliError, Exit};
use crate::output::{Output, bytes, count, elapsed};
use crate::settings;

/// A finding, and at the end the summary.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Event {
    Finding {
        finding: &'static str,
        level: &'static str,
        place: String,
        what: String,
        mend: &'static str,
        outcome: &'static str,
        error: Option<String>,
    },
    Summary {
        refs: u64,
        blobs: u64,
        bytes_read: u64,
        index_checked: bool,
        errors: u64,
        warnings: u64,
        notes: u64,
        mended: u64,
        seconds: f64,
    },
}

pub(crate) async fn run(global: &Global, args: &FsckArgs) -> Result<Exit, CliError> {
    let begun = Instant::now();
    let mut output = Output::new(global, args.json);
    let config = settings::load(global)?;
    let store = settings::store(&config).await?;
    let index = settings::index(&config, &output)?;
    let options = Options { repair: args.repair && !args.dry_run, read_data: args.read_data };
    let bars = output.bars();
    let at = Upkeep {
        store: &store,
        index: index.as_ref(),
        rules: settings::RULES,
        clock: &SystemClock,
        progress: &bars,
        buffer: Upkeep::BUFFER,
    };
    let mut printed = Ok(());
    let ended = fsck::fsck(at, &options, &mut |finding, outcome| {
        printed = print(&mut output, finding, outcome);
        if printed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })
    .await;
    if !args.dry_run {
        results::note(&store, &SystemClock, Task::Fsck, &ended).await;
    }
    bars.clear();
    let report = match ended {
        Err(MaintainError::Stopped) => return printed.map(|()| Exit::Failed),
        ended => ended?,
    };
    if args.json {
        output.object(&summary(&report, begun.elapsed().as_secs_f64()))?;
    } else {
        output.done(sentence(&report, &elapsed(begun.elapsed())))?;
    }
    output.finish()?;
    Ok(if report.is_clean() { Exit::Done } else { Exit::Remains })
}

fn print(output: &mut Output, finding: &Finding, outcome: &Outcome) -> Result<(), CliError> {
    let (outcome, error) = match outcome {
        Outcome::Remains => ("remains", None),
        Outcome::Mended => ("mended", None),
        Outcome::Failed(error) => ("failed", Some(error.to_string())),
    };
    let (kind, level, mend) = (finding.kind(), finding.level().as_str(), finding.mend().as_str());
    if output.is_json() {
        let (place, what) = (finding.place(), finding.to_string());
        let event = Event::Finding { finding: kind, level, place, what, mend, outcome, error };
        return output.object_now(&event);
    }
    if output.is_quiet() && finding.level() == Level::Note {
        return Ok(());
    }
    let outcome = match (outcome, error) {
        ("mended", _) => format!("  [mended: {mend}]"),
        ("failed", Some(error)) => format!("  [could not {mend}: {error}]"),
        _ => String::new(),
    };
    output.line_now(format_args!("{level:<7}  {kind:<16}  {}: {finding}{outcome}", finding.place()))
}

fn summary(report: &Report, seconds: f64) -> Event {
    Event::Summary {
        refs: report.refs,
        blobs: report.blobs,
        bytes_read: report.bytes_read,
        index_checked: report.index_checked,
        errors: report.errors,
        warnings: report.warnings,
        notes: report.notes,
        mended: report.mended,
        seconds,
    }
}

fn sentence(report: &Report, elapsed: &str) -> String {
    let index = if report.index_checked { "" } else { ", no index to compare" };
    format!(
        "fsck: {}, {}, {} read{index}: {}, {}, {}, {} mended in {elapsed}",
        count(report.refs, "ref"),
        count(report.blobs, "blob"),
        bytes(report.bytes_read),
        count(report.errors, "error"),
        count(report.warnings, "warning"),
        count(report.notes, "note"),
        report.mended,
    )
}
