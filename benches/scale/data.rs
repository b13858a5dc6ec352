//! fsck of bytes. It can be no quicker than the slower of two things that are measured beside it: reading the same
//! files from disk, and hashing them out of the page cache.

use std::fs::File;
use std::io::Read as _;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Advice, fadvise};
use sha2::{Digest as _, Sha256};
use walkdir::{DirEntry, WalkDir};

use crate::common::book::{Column as _, Goal, median};
use crate::common::group::in_turn;
use crate::common::{Outcome, hex};
use crate::place::{Place, expect};
use crate::rows::{Bench, Book, Side, UPKEEP_MEMORY};

/// Threads that read, as the references.
const READERS: usize = 2;
/// Bytes that they read at a time.
const PIECE: usize = 256 << 10;
/// Of the references' rate.
const GOAL: Goal<Side> = Goal::AtLeast(0.9, Side::Reference);

/// What is done to the bytes of a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Read,
    ReadAndHash,
}

/// The rows.
pub(crate) fn rows(bench: &Bench, book: &mut Book) -> Outcome<()> {
    let place = &bench.bytes;
    place.reindex()?;
    let files = WalkDir::new(place.estate.root().join("type/generic/blobs")).into_iter();
    let files: Vec<_> = files.filter_map(Result::ok).filter(|entry| entry.file_type().is_file()).collect();
    // Until now they may have been on disk alone.
    let bytes = read_all(&files, Work::ReadAndHash)?;

    let (mut hashed, mut read) = (Vec::new(), Vec::new());
    for round in 0..bench.scale.rounds {
        for side in in_turn(Side::ALL, round) {
            match side {
                Side::Repoxy => fsck(place, book, "fsck with data, in page cache", bytes)?,
                Side::Reference => hashed.push(timed(&files, Work::ReadAndHash)?),
            }
        }
    }
    note_reference(book, "fsck with data, in page cache", GOAL, &hashed);
    for round in 0..bench.scale.rounds {
        for side in in_turn(Side::ALL, round) {
            forget(&files)?;
            match side {
                Side::Repoxy => fsck(place, book, "fsck with data, from disk", bytes)?,
                Side::Reference => read.push(timed(&files, Work::Read)?),
            }
        }
    }
    let slower = if median(&read) < median(&hashed) { &read } else { &hashed };
    note_reference(book, "fsck with data, from disk", GOAL, slower);
    note_reference(book, "the same files read from disk, not hashed", Goal::None, &read);
    Ok(())
}

/// Runs it once, and notes how much it read in a second.
fn fsck(place: &Place, book: &mut Book, name: &str, bytes: u64) -> Outcome<()> {
    let (ran, summary) = place.run(&["fsck", "--read-data", "--json"])?;
    expect(&summary, "bytesRead", bytes)?;
    expect(&summary, "errors", 0)?;
    book.note(name, "GB/s", GOAL, Side::Repoxy, rate(bytes, ran.wall));
    book.note(&format!("{name}: peak memory"), "MiB", UPKEEP_MEMORY, Side::Repoxy, ran.peak);
    Ok(())
}

fn note_reference(book: &mut Book, name: &str, goal: Goal<Side>, rates: &[f64]) {
    for rate in rates {
        book.note(name, "GB/s", goal, Side::Reference, *rate);
    }
}

/// Gigabytes a second.
fn rate(bytes: u64, took: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
    let bytes = bytes as f64;
    bytes / 1e9 / took.as_secs_f64()
}

/// Tells the page cache to forget them.
fn forget(files: &[DirEntry]) -> Outcome<()> {
    files.iter().try_for_each(|file| Ok(fadvise(File::open(file.path())?, 0, None, Advice::DontNeed)?))
}

/// How many gigabytes of them a second that takes.
fn timed(files: &[DirEntry], work: Work) -> Outcome<f64> {
    let began = Instant::now();
    let bytes = read_all(files, work)?;
    Ok(rate(bytes, began.elapsed()))
}

/// Reads files on a few threads, and hashes them if that is the work; returns their bytes.
fn read_all(files: &[DirEntry], work: Work) -> Outcome<u64> {
    let left = Mutex::new(files.iter());
    let reader = || -> Outcome<u64> {
        let (mut buffer, mut total) = (vec![0; PIECE], 0);
        loop {
            let next = left.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(entry) = next else { return Ok(total) };
            let (mut file, mut state) = (File::open(entry.path())?, Sha256::new());
            loop {
                let read = file.read(&mut buffer)?;
                if read == 0 {
                    break;
                }
                if work == Work::ReadAndHash {
                    state.update(&buffer[..read]);
                }
                total += read as u64;
            }
            let is_damaged = || hex(&state.finalize()) != entry.file_name().to_string_lossy();
            if work == Work::ReadAndHash && is_damaged() {
                return Err(format!("{} is damaged", entry.path().display()).into());
            }
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..READERS).map(|_| scope.spawn(reader)).collect();
        workers.into_iter().map(|worker| worker.join().map_err(|_| "a reader panicked")?).sum()
    })
}
