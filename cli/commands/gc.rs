//! `repoxy gc`: what goes, line by line with `--dry-run`, `--json` or `-v`, then one line of summary.

use std::time::Instant;

use serde::Serialize;

use repoxy::maintain::Upkeep;
use repoxy::maintain::gc::{self, Condemned, Doomed, Options, Plan, Report};
use repoxy::maintain::results::{self, Task};
use repoxy::model::{Digest, SystemClock, Timestamp};

use crate::args::{GcArgs, Global};
use crate::exit::{CliError, Exit};
use crate::output::{Output, bytes, count, elapsed};
use crate::settings;

/// One thing that goes or comes back, and at the end the summary.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Event {
    Expire { r#ref: String, reason: &'static str, last_used: Timestamp },
    Restore { r#type: &'static str, digest: Digest, size: u64, run: String },
    Reap { r#type: &'static str, digest: Digest, size: u64, run: String },
    Condemn { r#type: &'static str, digest: Digest, size: u64 },
    Staging { files: u64, bytes: u64 },
    Summary(Summary),
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    dry_run: bool,
    refused: Option<String>,
    refs: u64,
    blobs: u64,
    bytes: u64,
    expired: u64,
    restored: u64,
    reaped: u64,
    reaped_bytes: u64,
    condemned: u64,
    condemned_bytes: u64,
    staging_files: u64,
    staging_bytes: u64,
    seconds: f64,
}

pub(crate) async fn run(global: &Global, args: &GcArgs) -> Result<Exit, CliError> {
    let begun = Instant::now();
    let mut output = Output::new(global, args.json);
    let config = settings::load(global)?;
    let store = settings::store(&config).await?;
    let index = settings::index(&config, &output)?;
    let options = Options {
        grace: args.grace.unwrap_or(config.gc.grace),
        unused_for: args.unused_for.or(config.gc.unused_for),
        max_bytes: args.max_bytes.or(config.gc.max_bytes),
        in_use: None,
        force: args.force,
        accept_clock: args.accept_clock,
        dry_run: args.dry_run,
    };
    let bars = output.bars();
    let at = Upkeep {
        store: &store,
        index: index.as_ref(),
        rules: settings::RULES,
        clock: &SystemClock,
        progress: &bars,
        buffer: Upkeep::BUFFER,
    };
    let ended = gc::gc(at, &options).await;
    if !args.dry_run {
        results::note(&store, &SystemClock, Task::Gc, &ended).await;
    }
    bars.clear();
    let report = ended?;
    if args.json || args.dry_run || output.is_verbose() {
        print_plan(&mut output, &report.plan)?;
    }
    let summary = summary(&report, args.dry_run, begun.elapsed().as_secs_f64());
    if args.json {
        output.object(&Event::Summary(summary))?;
    } else {
        output.done(sentence(&summary, &elapsed(begun.elapsed())))?;
    }
    output.finish()?;
    match &report.refusal {
        None => Ok(Exit::Done),
        Some(refusal) => Err(CliError::Refused(refusal.clone())),
    }
}

fn print_plan(output: &mut Output, plan: &Plan) -> Result<(), CliError> {
    for expired in &plan.expire {
        let expired = expired?;
        let (key, reason) = (expired.key.to_string(), expired.reason.as_str());
        print(output, &Event::Expire { r#ref: key, reason, last_used: expired.last_used })?;
    }
    for condemned in &plan.restore {
        let Condemned { artifact_type, entry } = condemned?;
        let (r#type, run) = (artifact_type.as_str(), entry.run);
        print(output, &Event::Restore { r#type, digest: entry.digest, size: entry.size, run })?;
    }
    for condemned in &plan.reap {
        let Condemned { artifact_type, entry } = condemned?;
        let (r#type, run) = (artifact_type.as_str(), entry.run);
        print(output, &Event::Reap { r#type, digest: entry.digest, size: entry.size, run })?;
    }
    for blob in &plan.condemn {
        let Doomed { artifact_type, digest, size } = blob?;
        print(output, &Event::Condemn { r#type: artifact_type.as_str(), digest, size })?;
    }
    if plan.staging_files > 0 {
        print(output, &Event::Staging { files: plan.staging_files, bytes: plan.staging_bytes })?;
    }
    Ok(())
}

fn print(output: &mut Output, event: &Event) -> Result<(), CliError> {
    if output.is_json() {
        return output.object(event);
    }
    match event {
        Event::Expire { r#ref, reason, last_used } => {
            output.line(format_args!("expire   {ref}  {reason}, last used {last_used:.0}"))
        }
        Event::Restore { r#type, digest, size, .. } => {
            output.line(format_args!("restore  {type} {digest}  {}", bytes(*size)))
        }
        Event::Reap { r#type, digest, size, .. } => {
            output.line(format_args!("reap     {type} {digest}  {}", bytes(*size)))
        }
        Event::Condemn { r#type, digest, size } => {
            output.line(format_args!("condemn  {type} {digest}  {}", bytes(*size)))
        }
        Event::Staging { files, bytes: size } => {
            output.line(format_args!("staging  {}  {}", count(*files, "file"), bytes(*size)))
        }
        Event::Summary(_) => Ok(()),
    }
}

/// What was done; of a run that touched nothing, what it set out to do.
fn summary(report: &Report, dry_run: bool, seconds: f64) -> Summary {
    let plan = &report.plan;
    let done = report.done.unwrap_or_else(|| plan.tally());
    Summary {
        dry_run,
        refused: report.refusal.as_ref().map(ToString::to_string),
        refs: plan.refs,
        blobs: plan.blobs,
        bytes: plan.bytes,
        expired: done.expired,
        restored: done.restored,
        reaped: done.reaped,
        reaped_bytes: done.reaped_bytes,
        condemned: done.condemned,
        condemned_bytes: done.condemned_bytes,
        staging_files: done.staging_files,
        staging_bytes: done.staging_bytes,
        seconds,
    }
}

fn sentence(summary: &Summary, elapsed: &str) -> String {
    let would = if summary.dry_run || summary.refused.is_some() { "would have " } else { "" };
    format!(
        "gc: {would}expired {}, removed {} ({}), condemned {} ({}), restored {} in {elapsed}",
        count(summary.expired, "ref"),
        count(summary.reaped, "blob"),
        bytes(summary.reaped_bytes + summary.staging_bytes),
        count(summary.condemned, "blob"),
        bytes(summary.condemned_bytes),
        summary.restored,
    )
}
