//! The threads that connections live on.
//!
//! Each has a runtime to itself. A connection stays on the worker that it was given to, with the fills that it
//! begins and, as a rule, the connections to upstream that these use: an answer then seldom has to wake another
//! thread, which costs more than most answers (`docs/decisions/workers.md`). What blocks goes to other threads.

use std::io;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// How long what a worker's tasks leave to other threads when they are given up may take: transfers then leave
/// what they have for the next.
const PARTING: Duration = Duration::from_millis(500);

/// The most threads for what blocks, of all workers together: tokio's own bound for one runtime.
const BLOCKING_THREADS: usize = 512;
/// However many workers there are, each may have so many.
const LEAST_BLOCKING_THREADS: usize = 16;

/// All workers of a server. They end when this is dropped.
#[derive(Debug)]
pub(super) struct Workers(Vec<Worker>);

/// One thread with its runtime.
#[derive(Debug)]
struct Worker {
    handle: Handle,
    /// How many connections it has.
    open: Arc<AtomicUsize>,
    /// Dropped, it ends the worker.
    stop: oneshot::Sender<()>,
    /// Gone when the worker has ended.
    ended: oneshot::Receiver<()>,
}

/// A connection's place with a worker, counted until it is dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Workers {
    /// Starts as many workers as there are processors.
    pub(super) fn start() -> io::Result<Self> {
        let count = thread::available_parallelism().map_or(1, NonZero::get);
        let blocking = (BLOCKING_THREADS / count).max(LEAST_BLOCKING_THREADS);
        (0..count).map(|_| Worker::start(blocking)).collect::<io::Result<_>>().map(Self)
    }

    /// The numbers of all workers, over and over.
    pub(super) fn numbers(&self) -> impl Iterator<Item = usize> + use<> {
        (0..self.0.len()).cycle()
    }

    /// The runtime of a worker.
    pub(super) fn handle(&self, number: usize) -> &Handle {
        &self.0[number].handle
    }

    /// A place with the worker that has the fewest connections; of several, `here` comes first.
    pub(super) fn seat(&self, here: usize) -> (usize, Seat) {
        let count = self.0.len();
        let open = |number: &usize| self.0[*number].open.load(Relaxed);
        // The first of several that are least.
        let number = (here..here + count).map(|number| number % count).min_by_key(open).unwrap_or(0);
        let open = &self.0[number].open;
        open.fetch_add(1, Relaxed);
        (number, Seat(Arc::clone(open)))
    }

    /// Ends all workers and what runs on them, and waits until they have.
    pub(super) async fn end(self) {
        let (stops, ended): (Vec<_>, Vec<_>) =
            self.0.into_iter().map(|worker| (worker.stop, worker.ended)).unzip();
        drop(stops);
        for ended in ended {
            // The other end is dropped, not used.
            let _ = ended.await;
        }
    }
}

impl Worker {
    fn start(blocking: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(blocking).build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let (ending, ended) = oneshot::channel::<()>();
        // A test that reads the log has a subscriber for its own thread.
        #[cfg(test)]
        let log = tracing::dispatcher::get_default(Clone::clone);
        thread::Builder::new().name("worker".to_owned()).spawn(move || {
            #[cfg(test)]
            let _log = tracing::dispatcher::set_default(&log);
            let _ending = ending;
            let _ = runtime.block_on(stopped);
            runtime.shutdown_timeout(PARTING);
        })?;
        Ok(Self { handle, open: Arc::default(), stop, ended })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_go_where_there_are_the_fewest_and_stay_if_there_is_a_choice() {
        let workers = Workers((0..3).map(|_| Worker::start(1).expect("threads")).collect());
        let (first, _one) = workers.seat(1);
        let (second, two) = workers.seat(1);
        let (third, _three) = workers.seat(1);
        assert_eq!([first, second, third], [1, 2, 0]);
        drop(two);
        assert_eq!(workers.seat(1).0, 2, "a place has become free");
        workers.end().await;
    }

    #[tokio::test]
    async fn what_runs_ends_with_the_workers() {
        let workers = Workers::start().expect("threads");
        let (held, dropped) = oneshot::channel::<()>();
        workers.handle(0).spawn(async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        workers.end().await;
        assert!(dropped.await.is_err());
    }
}
