//! The threads that connections live on.
//!
//! Each has a runtime to itself and keeps to a processor of its own, unless a quota gives this process fewer than it
//! sees. A connection stays on the worker that it was given to, with the fills that it begins and, as a rule, the
//! connections to upstream that these use, until its packets arrive elsewhere (`migrate`): an answer then seldom has
//! to wake another thread, which costs more than most answers (`docs/decisions/workers.md`). What blocks goes to
//! other threads.

use std::io;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

use super::slice;

/// How long what a worker's tasks leave to other threads when they are given up may take: transfers then leave
/// what they have for the next.
const PARTING: Duration = Duration::from_millis(500);

/// The most threads for what blocks, of all workers together: tokio's own bound for one runtime.
const BLOCKING_THREADS: usize = 512;
/// However many workers there are, each may have so many.
const LEAST_BLOCKING_THREADS: usize = 16;

/// All workers of a server. They end when this is dropped.
#[derive(Debug)]
pub(super) struct Workers {
    places: Arc<Places>,
    threads: Vec<Thread>,
}

/// A worker's thread.
#[derive(Debug)]
struct Thread {
    /// Dropped, it ends the worker.
    stop: oneshot::Sender<()>,
    /// Gone when the worker has ended.
    ended: oneshot::Receiver<()>,
}

/// Where connections can live.
#[derive(Debug)]
pub(super) struct Places(Vec<Place>);

/// What a worker is for those who deal connections out.
#[derive(Debug)]
struct Place {
    handle: Handle,
    /// The processor that it runs on, if that is settled.
    processor: Option<usize>,
    /// How many connections it has.
    open: AtomicUsize,
}

/// A connection's place with a worker, counted until it is dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct Seat {
    places: Arc<Places>,
    number: usize,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.places.0[self.number].open.fetch_sub(1, Relaxed);
    }
}

impl Seat {
    /// The number of the worker.
    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// The worker's runtime.
    pub(super) fn handle(&self) -> &Handle {
        &self.places.0[self.number].handle
    }

    /// A place with the worker on a processor, if that is another one and has not too many connections.
    pub(super) fn nearer(&self, processor: usize) -> Option<Self> {
        let places = &self.places.0;
        let wanted = places.iter().position(|place| place.processor == Some(processor))?;
        // As it will be when this one has left.
        let open = |number: usize| places[number].open.load(Relaxed) - usize::from(number == self.number);
        let moves = wanted != self.number && may_have_more(places.len(), open, wanted);
        moves.then(|| self.places.take(wanted))
    }
}

impl Places {
    /// A place for a connection whose packets arrive at `processor`: with its worker, if that has not too many, else
    /// with the worker that has the fewest. Of several, `here` comes first.
    pub(super) fn seat(self: &Arc<Self>, here: usize, processor: Option<usize>) -> Seat {
        let count = self.0.len();
        let open = |number: usize| self.0[number].open.load(Relaxed);
        let wanted = processor.and_then(|_| self.0.iter().position(|place| place.processor == processor));
        let number = wanted.filter(|&wanted| may_have_more(count, open, wanted)).unwrap_or_else(|| {
            // The first of several that are least.
            (here..here + count).map(|number| number % count).min_by_key(|&number| open(number)).unwrap_or(0)
        });
        self.take(number)
    }

    fn take(self: &Arc<Self>, number: usize) -> Seat {
        self.0[number].open.fetch_add(1, Relaxed);
        Seat { places: Arc::clone(self), number }
    }
}

/// Whether a worker may have one more connection only because the packets arrive at its processor. A few are dealt
/// out evenly, as each may be all that a processor can do; of many, one may have half as many more as another.
fn may_have_more(count: usize, open: impl Fn(usize) -> usize, wanted: usize) -> bool {
    let least = (0..count).map(&open).min().unwrap_or(0);
    open(wanted) < (least + 1).max(least + least / 2)
}

impl Workers {
    /// Starts as many workers as there are processors.
    pub(super) fn start() -> io::Result<Self> {
        let count = thread::available_parallelism().map_or(1, NonZero::get);
        Self::on(&processors(count))
    }

    /// Starts a worker for each of these, which keeps to that processor if it is known.
    fn on(processors: &[Option<usize>]) -> io::Result<Self> {
        let blocking = (BLOCKING_THREADS / processors.len()).max(LEAST_BLOCKING_THREADS);
        let (mut places, mut threads) = (Vec::new(), Vec::new());
        for &processor in processors {
            let (thread, handle) = Thread::start(blocking, processor)?;
            places.push(Place { handle, processor, open: AtomicUsize::new(0) });
            threads.push(thread);
        }
        Ok(Self { places: Arc::new(Places(places)), threads })
    }

    /// Where connections can live.
    pub(super) fn places(&self) -> &Arc<Places> {
        &self.places
    }

    /// The numbers of all workers, over and over.
    pub(super) fn numbers(&self) -> impl Iterator<Item = usize> + use<> {
        (0..self.threads.len()).cycle()
    }

    /// The runtime of a worker.
    pub(super) fn handle(&self, number: usize) -> &Handle {
        &self.places.0[number].handle
    }

    /// Ends all workers and what runs on them, and waits until they have.
    pub(super) async fn end(self) {
        let (stops, ended): (Vec<_>, Vec<_>) =
            self.threads.into_iter().map(|thread| (thread.stop, thread.ended)).unzip();
        drop(stops);
        for ended in ended {
            // The other end is dropped, not used.
            let _ = ended.await;
        }
    }
}

/// The processors of so many workers, if there is one for each. Where a quota gives a process less than the processors
/// that it sees, the kernel had better choose, or all processes with a quota would meet on the first few.
pub(super) fn processors(count: usize) -> Vec<Option<usize>> {
    let allowed: Vec<_> = sched_getaffinity(None)
        .map(|allowed| (0..CpuSet::MAX_CPU).filter(|&processor| allowed.is_set(processor)).collect())
        .unwrap_or_default();
    if allowed.len() == count { allowed.into_iter().map(Some).collect() } else { vec![None; count] }
}

/// A runtime of one thread, whose blocking threads run wherever the process may.
fn runtime(blocking: usize) -> io::Result<Runtime> {
    let mut builder = Builder::new_current_thread();
    let everywhere = sched_getaffinity(None).ok();
    builder.on_thread_start(move || {
        // Else they would inherit the worker's processor, and its turn. Where it is not allowed, they do.
        let _ = everywhere.map(|everywhere| sched_setaffinity(None, &everywhere));
        let _ = slice::ordinary();
    });
    builder.enable_all().max_blocking_threads(blocking).build()
}

impl Thread {
    /// Starts a worker, and gives the handle of its runtime. Waits until the thread runs.
    fn start(blocking: usize, processor: Option<usize>) -> io::Result<(Self, Handle)> {
        let (started, handle) = mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let (ending, ended) = oneshot::channel::<()>();
        // A test that reads the log has a subscriber for its own thread.
        #[cfg(test)]
        let log = tracing::dispatcher::get_default(Clone::clone);
        thread::Builder::new().name("worker".to_owned()).spawn(move || {
            #[cfg(test)]
            let _log = tracing::dispatcher::set_default(&log);
            let _ending = ending;
            // Here, because a runtime must not be dropped where another one runs, as it would be without a thread.
            let runtime = match runtime(blocking) {
                Ok(runtime) => runtime,
                Err(error) => return drop(started.send(Err(error))),
            };
            if let Some(processor) = processor {
                let mut only = CpuSet::new();
                only.set(processor);
                // Where it is not allowed, the kernel chooses.
                let _ = sched_setaffinity(None, &only);
            }
            // Where it is not allowed, it waits its turn as others do.
            let _ = slice::short();
            // Nobody waits for it only if nobody needs it.
            let _ = started.send(Ok(runtime.handle().clone()));
            let _ = runtime.block_on(stopped);
            runtime.shutdown_timeout(PARTING);
        })?;
        let handle = handle.recv().map_err(io::Error::other)??;
        Ok((Self { stop, ended }, handle))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Two workers, whatever there is to run on.
    pub(crate) fn two() -> Workers {
        Workers::on(&[Some(0), Some(1)]).expect("threads")
    }

    #[tokio::test]
    async fn connections_go_where_there_are_the_fewest_and_stay_if_there_is_a_choice() {
        let workers = Workers::on(&[None, None, None]).expect("threads");
        let places = workers.places();
        let (first, second, third) = (places.seat(1, None), places.seat(1, Some(0)), places.seat(1, None));
        assert_eq!([first.number(), second.number(), third.number()], [1, 2, 0]);
        drop(second);
        assert_eq!(places.seat(1, None).number(), 2, "a place has become free");
        workers.end().await;
    }

    #[tokio::test]
    async fn many_connections_go_where_their_packets_arrive_and_few_are_dealt_out_evenly() {
        let workers = two();
        let places = workers.places();
        let counts =
            |seats: &[Seat]| [0, 1].map(|number| seats.iter().filter(|seat| seat.number() == number).count());
        let mut seats: Vec<_> = (0..4).map(|_| places.seat(0, Some(1))).collect();
        assert_eq!(counts(&seats), [2, 2]);
        seats.extend((0..200).map(|_| places.seat(0, Some(1))));
        assert_eq!(counts(&seats), [82, 122], "never more than half as many more");
        seats.extend((0..80).map(|_| places.seat(0, Some(0))));
        assert_eq!(counts(&seats), [162, 122]);
        assert_eq!(places.seat(0, Some(7)).number(), 1, "there is no worker on that processor");
        workers.end().await;
    }

    #[tokio::test]
    async fn a_connection_may_move_unless_too_many_have() {
        let workers = two();
        let places = workers.places();
        let alone = places.seat(0, Some(0));
        let moved = alone.nearer(1).expect("there is room");
        assert_eq!(moved.number(), 1);
        drop(alone);
        assert!(moved.nearer(1).is_none() && moved.nearer(7).is_none());
        let other = places.seat(0, Some(0));
        assert!(other.nearer(1).is_none(), "one each");
        workers.end().await;
    }

    #[test]
    fn a_quota_leaves_the_choice_to_the_kernel() {
        let allowed = sched_getaffinity(None).expect("it is told").count() as usize;
        assert!(processors(allowed).iter().all(Option::is_some));
        assert_eq!(processors(allowed + 1), vec![None; allowed + 1]);
    }

    #[tokio::test]
    async fn what_blocks_runs_wherever_the_process_may() {
        let workers = Workers::start().expect("threads");
        let blocking = workers.handle(0).spawn(async {
            tokio::task::spawn_blocking(|| sched_getaffinity(None).expect("it is told").count()).await
        });
        let blocking = blocking.await.expect("it runs").expect("it runs");
        assert_eq!(blocking, sched_getaffinity(None).expect("it is told").count());
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
