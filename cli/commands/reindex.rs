//! `repoxy reindex`: names the files that are no refs, then one line of summary.

use std::time::Instant;

use serde::Serialize;

use repoxy::index::Index;
use repoxy::maintain::results::{self, Task};
use repoxy::maintain::{reindex, survey};
use repoxy::model::SystemClock;

use crate::args::{Global, ReindexArgs};
use crate::exit::{CliError, Exit};
use crate::output::{Output, count, elapsed};
use crate::settings;

/// A file that is no ref, and at the end the summary.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Event<'e> {
    Unreadable { path: &'e str, why: &'e str },
    Summary { dry_run: bool, refs: u64, removed: u64, without_target: u64, unreadable: u64, seconds: f64 },
}

pub(crate) async fn run(global: &Global, args: &ReindexArgs) -> Result<Exit, CliError> {
    let begun = Instant::now();
    let mut output = Output::new(global, args.json);
    let config = settings::load(global)?;
    let store = settings::store(&config).await?;
    let bars = output.bars();
    let rebuilt = if args.dry_run {
        survey(&store, settings::RULES, &bars).await?
    } else {
        let (index, _) = Index::open(config.index.as_deref().ok_or(CliError::NoIndex)?)?;
        let ended = reindex(&store, &index, settings::RULES, &bars).await;
        results::note(&store, &SystemClock, Task::Reindex, &ended).await;
        ended?
    };
    bars.clear();
    for (path, why) in &rebuilt.named {
        if args.json {
            output.object(&Event::Unreadable { path, why })?;
        } else {
            output.line(format_args!("unreadable  {path}: {why}"))?;
        }
    }
    if args.json {
        output.object(&Event::Summary {
            dry_run: args.dry_run,
            refs: rebuilt.refs,
            removed: rebuilt.removed,
            without_target: rebuilt.without_target,
            unreadable: rebuilt.unreadable,
            seconds: begun.elapsed().as_secs_f64(),
        })?;
    } else {
        output.done(format_args!(
            "reindex: {}recorded {}, removed {}; {} without their target, {} unreadable in {}",
            if args.dry_run { "would have " } else { "" },
            count(rebuilt.refs, "ref"),
            count(rebuilt.removed, "row"),
            rebuilt.without_target,
            rebuilt.unreadable,
            elapsed(begun.elapsed()),
        ))?;
    }
    output.finish()?;
    Ok(if rebuilt.unreadable == 0 { Exit::Done } else { Exit::Remains })
}
