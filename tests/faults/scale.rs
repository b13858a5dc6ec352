//! E14: gc on a million refs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use repoxy::model::{Digest, Ref, Timestamp};

use crate::disk::files;
use crate::support::{Repoxy, eventually};

/// Ref files.
const REFS: usize = 1_000_000;
/// Of so many one was not used for long.
const STALE: usize = 5;
/// Blobs that refs name, and as many that none does.
const BLOBS: usize = 100_000;
/// Refs of one directory.
const DIRECTORY: usize = 1000;
/// Threads that write the store.
const WRITERS: usize = 2;
/// How much memory gc may take.
const MOST_RESIDENT: u64 = 300 << 20;
/// Ref files are forgotten in batches of 500, each in a transaction of its own.
const BATCHES: usize = REFS / STALE / 500;

const GC: [&str; 6] = ["gc", "--grace", "0s", "--force", "--unused-for", "30d"];

fn content(blob: usize) -> String {
    format!("blob {blob}")
}

/// Writes the part of the store that falls to one of `parts` threads.
fn write(root: &Path, part: usize, parts: usize) {
    let generic = root.join("type/generic");
    for blob in (part..2 * BLOBS).step_by(parts) {
        let hex = Digest::of(content(blob).as_bytes()).hex();
        let file = generic.join(format!("blobs/sha256/{}/{}/{hex}", &hex[..2], &hex[2..4]));
        fs::create_dir_all(file.parent().expect("a shard")).expect("made");
        fs::write(file, content(blob)).expect("written");
    }
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now());
    for directory in (part..REFS / DIRECTORY).step_by(parts) {
        let dir = generic.join(format!("proxies/files/refs/{directory}"));
        fs::create_dir_all(&dir).expect("made");
        for number in directory * DIRECTORY..(directory + 1) * DIRECTORY {
            let content = content(number % BLOBS);
            let digest = Digest::of(content.as_bytes());
            let fetched = Timestamp::UNIX_EPOCH;
            let mut reference = Ref::new("generic.file".to_owned(), digest, content.len() as u64, fetched);
            reference.links = Some(Vec::new());
            let path = dir.join(format!("{number}.json"));
            fs::write(&path, reference.to_json()).expect("written");
            if number.is_multiple_of(STALE) {
                let file = fs::File::options().write(true).open(&path).expect("there");
                file.set_modified(now - Duration::from_hours(24 * 90)).expect("set");
            }
        }
    }
}

/// Seconds since 1970, as the disk has them.
fn now() -> u64 {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let modified = file.as_file().metadata().and_then(|stat| stat.modified()).expect("known");
    modified.duration_since(SystemTime::UNIX_EPOCH).expect("later").as_secs()
}

/// Takes turns at writing the index beside others, until it is over; between how many of them another wrote.
fn take_turns(index: PathBuf, over: &Arc<AtomicBool>) -> JoinHandle<usize> {
    let over = Arc::clone(over);
    thread::spawn(move || {
        let connection = rusqlite::Connection::open(index).expect("an index");
        connection.busy_timeout(Duration::from_secs(60)).expect("set");
        // Changes when another has committed.
        let version = || connection.pragma_query_value(None, "data_version", |row| row.get::<_, i64>(0));
        let (mut turns, mut before) = (0, version().expect("known"));
        while !over.load(Ordering::SeqCst) {
            connection.execute_batch("BEGIN IMMEDIATE; COMMIT").expect("its turn comes");
            let now = version().expect("known");
            turns += usize::from(now != before);
            before = now;
            thread::sleep(Duration::from_millis(1));
        }
        turns
    })
}

/// The most memory that a process has had at one time, as long as it lives.
fn most_resident(child: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Runs gc to its end, or kills it when it is time to; the most memory that it had.
fn gc(repoxy: &Repoxy, is_time: impl Fn() -> bool) -> (bool, u64) {
    let mut child = repoxy.command(&GC).stderr(std::process::Stdio::null()).spawn().expect("the binary runs");
    let mut most = 0;
    loop {
        most = most.max(most_resident(&child));
        if let Some(status) = child.try_wait().expect("a child") {
            return (status.success(), most);
        }
        if is_time() {
            child.kill().expect("it can be killed");
            child.wait().expect("it ends");
            return (false, most);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: a million refs are written, listed and collected"]
async fn e14_gc_on_a_million_refs_is_bounded_lets_others_write_and_goes_on_where_it_was_killed() {
    let mut repoxy = Repoxy::stopped(
        "[[proxy]]\ntype = \"generic\"\nname = \"files\"\nupstream = \"http://127.0.0.1:9\"\n",
    );
    // It makes the store.
    repoxy.start();
    repoxy.terminate();
    let root = repoxy.root();
    thread::scope(|scope| {
        for part in 0..WRITERS {
            let root = &root;
            scope.spawn(move || write(root, part, WRITERS));
        }
    });
    assert!(repoxy.run(&["reindex"]).status.success());
    let index = repoxy.root().join("index/index.db");
    let connection = rusqlite::Connection::open(&index).expect("an index");
    let rows = || {
        let rows = connection.query_row("SELECT count(*) FROM refs", [], |row| row.get::<_, i64>(0));
        usize::try_from(rows.expect("counted")).expect("not negative")
    };
    assert_eq!(rows(), REFS);

    let stays = REFS - REFS / STALE;
    let trash = repoxy.root().join("type/generic/trash");
    let over = Arc::new(AtomicBool::new(false));
    let turns = take_turns(index, &over);
    let mut most = 0;
    let mut run = |is_time: &dyn Fn() -> bool| {
        let (ended, resident) = gc(&repoxy, is_time);
        most = most.max(resident);
        ended
    };
    assert!(!run(&|| rows() < REFS - 1000), "killed while it deletes refs");
    assert!((stays + 1..REFS).contains(&rows()), "in the middle of it");
    assert!(!run(&|| trash.exists()), "killed while it condemns blobs");
    assert_eq!(rows(), stays, "by then all refs that were to go have gone");
    over.store(true, Ordering::SeqCst);
    let turns = turns.join().expect("no panic");
    assert!(turns > BATCHES / 2, "others can write between most batches: {turns} of {BATCHES} times");
    for _ in 0..3 {
        assert!(run(&|| false));
    }
    assert_eq!(rows(), stays);
    assert_eq!(files(&repoxy.root().join("type/generic/blobs")).len(), BLOBS - BLOBS / STALE);
    assert_eq!(files(&trash), [] as [PathBuf; 0]);
    assert!(most > 0 && most <= MOST_RESIDENT, "{most}");
    eventually("nothing is wrong with it", || repoxy.run(&["fsck"]).status.success()).await;
}
