//! Connections that move to the worker where their packets arrive, over real sockets.

use std::num::NonZero;
use std::thread;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::super::workers::processors;
use super::tls::{certify, tls, trusting};
use super::{HELLO, Limits, Running, TOO_LONG};

/// Asks from two processors in turn, from each for long enough to be noticed.
async fn from_two_processors(mut ask: impl AsyncFnMut()) {
    let everywhere = sched_getaffinity(None).expect("it is told");
    let allowed = (0..CpuSet::MAX_CPU).filter(|&processor| everywhere.is_set(processor));
    for processor in allowed.take(2) {
        let mut only = CpuSet::new();
        only.set(processor);
        sched_setaffinity(None, &only).expect("allowed");
        for _ in 0..200 {
            ask().await;
        }
    }
    sched_setaffinity(None, &everywhere).expect("allowed");
}

/// Whether a connection to this server has moved if there was somewhere to move to.
fn has_moved_if_it_can(server: &Running) -> bool {
    let count = thread::available_parallelism().map_or(1, NonZero::get);
    let can = count > 1 && processors(count)[0].is_some();
    let threads = server.fake.threads.lock().expect("not poisoned").len();
    (threads > 1) == can
}

#[tokio::test]
async fn a_connection_that_has_moved_hears_that_it_should_end() {
    // Nothing else would wake it in time.
    let (head_timeout, drain_timeout) = (2 * TOO_LONG, 2 * TOO_LONG);
    let server = Running::plain(Limits { head_timeout, drain_timeout, ..Limits::default() });
    let mut wire = server.connect().await;
    from_two_processors(async || {
        wire.send(HELLO).await;
        wire.until("hello").await;
    })
    .await;
    assert!(has_moved_if_it_can(&server));
    server.stop();
    server.ended().await;
    assert_eq!(wire.rest().await, "");
}

#[tokio::test]
async fn a_connection_moves_although_each_request_waits_for_something() {
    let server = Running::plain(Limits::default());
    let mut wire = server.connect().await;
    from_two_processors(async || {
        wire.send("GET /later HTTP/1.1\r\nHost: x\r\n\r\n").await;
        wire.until("at last").await;
    })
    .await;
    assert!(has_moved_if_it_can(&server));
}

#[tokio::test]
async fn a_connection_over_tls_moves_with_its_keys() {
    let directory = tempfile::tempdir().expect("a directory");
    let (files, root) = certify(directory.path());
    let server = tls(files);
    let url = format!("https://{}/ten", server.address);
    let client = trusting(&root).http1_only().build().expect("a client");
    from_two_processors(async || {
        let answer = client.get(&url).send().await.expect("answers");
        assert_eq!(answer.bytes().await.expect("a body"), "0123456789");
    })
    .await;
    assert!(has_moved_if_it_can(&server));
}
