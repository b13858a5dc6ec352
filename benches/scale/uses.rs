//! What is written about last uses while as much is asked for as the machine gives, and what it costs.
//!
//! A use is written if the one before is minutes ago. To wait for that in every round would take half an hour, so each
//! round has tags of its own, and all of them wait at once.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::common::book::Goal;
use crate::common::load::{self, Load};
use crate::common::{Outcome, check};
use crate::place::FLUSHED;
use crate::rows::{Bench, Book, Side};

/// Connections of a load that fills the machine.
const FULL_LOAD: usize = 32;
/// How often it is looked whether somebody has written to the index.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// All tags of all rounds are ready to go in memory.
const ROOM: &str = "hot_bytes = \"256MiB\"\n";

/// The rows: in each round a load of tags whose use is written, and one of tags that were used a moment ago. Each of them
/// comes first in every other round.
pub(crate) fn rows(bench: &Bench, book: &mut Book) -> Outcome<()> {
    let (place, scale) = (&bench.refs, &bench.scale);
    place.drop_index()?;
    place.reindex()?;
    let sets = place.estate.tag_sets(scale.rounds, scale.tags)?;
    let server = place.serve_with(&sets[0][0].path, ROOM)?;
    for set in &sets {
        check(server.address, &set.iter().collect::<Vec<_>>())?;
    }
    // Now everything is in memory; then it is waited until to use it again counts as another use.
    thread::sleep(scale.another_use.max(FLUSHED));
    let database = place.index().join("index.db");
    let load = Load::flat_out(FULL_LOAD, scale.load.max(2 * FLUSHED));
    for (round, set) in sets.iter().enumerate() {
        let name = "last uses under load: throughput";
        let goal = Goal::AtLeast(0.97, Side::Reference);
        let is_first = round % 2 == 0;
        // What was used a moment ago: the same, or what the round before used.
        let used = if is_first { set } else { &sets[round - 1] };
        for is_written in [is_first, !is_first] {
            if !is_written {
                let shown = load::run(server.address, used, &load)?;
                book.note(name, "answers/s", goal, Side::Reference, shown.per_second);
                continue;
            }
            let (shown, commits) = counted(&database, || load::run(server.address, set, &load))?;
            if commits == 0 && !scale.another_use.is_zero() {
                return Err("no use was written".into());
            }
            #[expect(clippy::cast_precision_loss, reason = "a small count")]
            let rate = commits as f64 / load.duration.as_secs_f64();
            let transactions = "last uses under load: transactions";
            book.note(transactions, "1/s", Goal::Ceiling(1.0), Side::Repoxy, rate);
            book.note(name, "answers/s", goal, Side::Repoxy, shown.per_second);
        }
    }
    Ok(())
}

/// Does something, and counts how often anybody commits to a database meanwhile.
fn counted<T>(database: &Path, work: impl FnOnce() -> Outcome<T>) -> Outcome<(T, u64)> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let commits = scope.spawn(|| commits_until(database, &stop));
        let done = work();
        stop.store(true, Ordering::Relaxed);
        let commits = commits.join().map_err(|_| "counting panicked")??;
        Ok((done?, commits))
    })
}

/// How often anybody has committed to a database until told to stop; those closer together than
/// [`LOOK_EVERY`] count once.
fn commits_until(database: &Path, stop: &AtomicBool) -> Outcome<u64> {
    let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let version = || connection.query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0));
    let (mut commits, mut before) = (0, version()?);
    while !stop.load(Ordering::Relaxed) {
        let now = version()?;
        commits += u64::from(now != before);
        before = now;
        thread::sleep(LOOK_EVERY);
    }
    Ok(commits)
}
