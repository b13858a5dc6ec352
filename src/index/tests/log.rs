//! The log beside the database: how large it stays, and who waits for what is done with it.

use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;

use super::super::record::Read;
use super::super::schema::LOG_LIMIT;
use super::*;

const TAG: &str = "container/hub/refs/library/app/tags/1";

/// SQLite's own measure of when a commit copies the log into the database: a thousand pages.
const CHECKPOINT: u64 = 1000 * 4096;

fn log_size(dir: &TempDir) -> u64 {
    std::fs::metadata(dir.path().join("index.db-wal")).expect("a log").len()
}

#[test]
fn many_commits_leave_a_log_of_about_a_thousand_pages() {
    let (dir, index) = fresh();
    for number in 0..3_000 {
        index.record(&[record(&format!("container/hub/refs/a/tags/{number}"), number)]).expect("record");
    }
    let size = log_size(&dir);
    assert!((CHECKPOINT / 2..CHECKPOINT * 2).contains(&size), "{size}");
}

#[test]
fn what_one_large_transaction_has_made_of_the_log_is_cut_back_when_it_starts_over() {
    let (dir, index) = fresh();
    let limit = u64::from(LOG_LIMIT);
    index
        .write(|batch| {
            (0..3_000).try_for_each(|number| {
                let mut large = record(&format!("container/hub/refs/a/tags/{number}"), number);
                large.reference.media_type = Some("x".repeat(10_000));
                batch.record(&large, Read::Now).map(drop)
            })
        })
        .expect("record");
    let size = log_size(&dir);
    assert!(size > limit, "{size}: it has to be larger than what it is cut to");
    // Its own commit has copied it; the next one begins at the front.
    index.record(&[record(TAG, 1)]).expect("record");
    assert_eq!(log_size(&dir), limit);
    index.verify().expect("sound");
}

#[test]
fn a_reader_that_keeps_the_log_from_starting_over_keeps_nobody_from_reading_or_writing() {
    let (dir, index) = fresh();
    index.record(&[record(TAG, 0)]).expect("record");
    let reader = Connection::open(dir.path().join("index.db")).expect("opens");
    reader.execute_batch("BEGIN").expect("begun");
    let count =
        || reader.query_row("SELECT count(*) FROM refs", [], |row| row.get::<_, i64>(0)).expect("read");
    assert_eq!(count(), 1);
    // Enough for several checkpoints.
    for number in 1..2_000 {
        index.record(&[record(TAG, number)]).expect("record");
        assert_eq!(index.lookup(&key(TAG)).expect("lookup"), Some(reference(number)));
    }
    assert_eq!(count(), 1);
    assert!(log_size(&dir) > CHECKPOINT * 2, "it could not start over");
    reader.execute_batch("COMMIT").expect("let go");
    index.record(&[record(TAG, 1)]).expect("the one that copies it all");
    index.record(&[record(TAG, 2)]).expect("the one that starts over");
    assert!(log_size(&dir) <= u64::from(LOG_LIMIT));
}

#[test]
fn lookups_beside_checkpoints_answer() {
    let (dir, index) = fresh();
    index.record(&[record(TAG, 1)]).expect("record");
    let path = dir.path().join("index.db");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let checkpoints = scope.spawn(|| {
            let other = Connection::open(path).expect("opens");
            let mut rounds = 0;
            while !over.load(Ordering::Relaxed) {
                for mode in ["PASSIVE", "FULL", "RESTART", "TRUNCATE"] {
                    let sql = format!("PRAGMA wal_checkpoint({mode})");
                    other.query_row(&sql, [], |row| row.get::<_, i64>(0)).expect("asked");
                }
                rounds += 1;
            }
            rounds
        });
        for number in 0..1_000 {
            index.record(&[record(TAG, number)]).expect("record");
            assert_eq!(index.lookup(&key(TAG)).expect("lookup"), Some(reference(number)));
        }
        over.store(true, Ordering::Relaxed);
        assert!(checkpoints.join().expect("no panic") > 0);
    });
    index.verify().expect("sound");
}
