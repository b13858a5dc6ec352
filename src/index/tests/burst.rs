//! Reads that share a transaction.

use std::thread;
use std::time::Instant;

use super::super::burst::SHARED_FOR;
use super::*;

const KEY: &str = "container/hub/refs/library/alpine/tags/3";

fn is_there(index: &Index) -> bool {
    index.lookup(&key(KEY)).expect("an answer").is_some()
}

#[test]
fn reads_of_a_thread_that_says_when_it_waits_are_of_one_moment_until_then() {
    let (dir, index) = fresh();
    let other = open(dir.path());
    thread::spawn(move || {
        assert!(!is_there(&index));
        end_reads();
        assert!(!is_there(&index));
        let began = Instant::now();
        other.record(&[record(KEY, 1)]).expect("written");
        let seen = is_there(&index);
        assert!(!seen || began.elapsed() >= SHARED_FOR, "the moment is still the one before");
        end_reads();
        assert!(is_there(&index));

        other.forget(&[key(KEY)]).expect("written");
        thread::sleep(SHARED_FOR);
        assert!(!is_there(&index), "what others commit is seen after a while in any case");
    })
    .join()
    .expect("no panic");
}

#[test]
fn what_this_process_has_written_is_seen_at_once() {
    let (_dir, index) = fresh();
    thread::spawn(move || {
        end_reads();
        assert!(!is_there(&index));
        index.record(&[record(KEY, 1)]).expect("written");
        assert!(is_there(&index));
        index.forget(&[key(KEY)]).expect("written");
        assert!(!is_there(&index));
    })
    .join()
    .expect("no panic");
}

#[test]
fn another_index_is_asked_itself_and_connections_are_given_back() {
    let ((_one_dir, one), (_other_dir, other)) = (fresh(), fresh());
    other.record(&[record(KEY, 1)]).expect("written");
    thread::spawn(move || {
        end_reads();
        for _ in 0..10 {
            assert!(!is_there(&one) && is_there(&other));
        }
        end_reads();
        assert!(one.is_idle() && other.is_idle());
    })
    .join()
    .expect("no panic");
}
