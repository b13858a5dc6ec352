//! The server's writing side: one thread, group commit.
//!
//! Whatever waits is written in one transaction, and nothing waits for more to come: alone, a record
//! is committed at once; under load, hundreds share a commit (`docs/decisions/index-writer.md`).
//! It must not know why something is written. Nothing here may hold up an answer: the queue is
//! bounded, and a caller that is not acknowledged in time goes on without.
//!
//! Crash behaviour: what was in the queue is lost. Rows heal by use; last uses are lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::record::{BATCH, Read, Record, USES_BATCH};
use super::{Handle, IndexError};
use crate::model::{Causes, RefKey, Timestamp};

/// The most entries that wait to be written.
const QUEUE: usize = 10_000;

/// The most last uses that wait to be written, over all entries.
const USES: usize = 200_000;

/// How long a caller waits for its acknowledgement. A commit takes well under a millisecond; only
/// another process's transaction, or a disk in trouble, takes longer.
const PATIENCE: Duration = Duration::from_millis(500);

/// The server's writing side. Cheap to clone; the thread ends when the last clone is gone or on
/// [`Writer::stop`].
#[derive(Debug, Clone)]
pub struct Writer {
    queue: mpsc::Sender<Work>,
    state: Arc<State>,
    pub(super) patience: Duration,
}

#[derive(Debug, Default)]
struct State {
    /// Another process holds the database: nobody need wait to learn that.
    stalled: AtomicBool,
    /// Nothing is tried twice any more.
    stopping: AtomicBool,
    /// Last uses in the queue.
    uses: AtomicUsize,
}

#[derive(Debug)]
enum Work {
    Record(Box<Record>, oneshot::Sender<bool>),
    Forget(Vec<RefKey>, oneshot::Sender<bool>),
    Touch(Vec<(RefKey, Timestamp)>),
    Stop(oneshot::Sender<()>),
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(handle: Arc<Handle>) -> std::io::Result<Self> {
        Self::start_with(handle, PATIENCE)
    }

    pub(super) fn start_with(handle: Arc<Handle>, patience: Duration) -> std::io::Result<Self> {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let state = Arc::new(State::default());
        let thread = Thread { queue: receiver, handle, state: Arc::clone(&state) };
        std::thread::Builder::new().name("index-writer".to_owned()).spawn(move || thread.run())?;
        Ok(Self { queue, state, patience })
    }

    /// Records a ref. True when it is committed; false when the queue is full, the index is away, or
    /// another process holds it: the caller goes on, the file is the truth, the row heals by use.
    ///
    /// On cancel, and mostly on false, it is written nevertheless when its turn comes.
    pub async fn record(&self, record: Record) -> bool {
        let (done, wait) = oneshot::channel();
        self.queue.try_send(Work::Record(Box::new(record), done)).is_ok() && self.acknowledged(wait).await
    }

    /// Forgets refs, before their files are deleted. Done at once if there is no index.
    ///
    /// On cancel, and mostly on an error, they are forgotten nevertheless when their turn comes,
    /// which costs one look at the file each.
    ///
    /// # Errors
    /// [`IndexError::Busy`] if it was not committed in time.
    pub async fn forget(&self, keys: Vec<RefKey>) -> Result<(), IndexError> {
        for chunk in keys.chunks(BATCH) {
            let (done, wait) = oneshot::channel();
            let queued = self.queue.try_send(Work::Forget(chunk.to_vec(), done)).is_ok();
            if !queued || !self.acknowledged(wait).await {
                return Err(IndexError::Busy);
            }
        }
        Ok(())
    }

    /// Writes last uses some time soon, or drops them if too many wait already.
    pub fn touch(&self, uses: Vec<(RefKey, Timestamp)>) {
        let mut uses = uses;
        while !uses.is_empty() {
            let rest = uses.split_off(uses.len().min(USES_BATCH));
            let count = uses.len();
            let waiting = self.state.uses.fetch_add(count, Ordering::Relaxed);
            if waiting + count > USES || self.queue.try_send(Work::Touch(uses)).is_err() {
                self.state.uses.fetch_sub(count, Ordering::Relaxed);
                tracing::debug!(dropped = count + rest.len(), "last uses were dropped");
                return;
            }
            uses = rest;
        }
    }

    /// Writes what waits and ends the thread. If another process holds the database, what waits is
    /// dropped after one more try. Later calls do nothing and say so.
    pub async fn stop(&self) {
        self.state.stopping.store(true, Ordering::Relaxed);
        let (done, wait) = oneshot::channel();
        if self.queue.send(Work::Stop(done)).await.is_ok() {
            // An error means that the thread has ended, which is what is wanted.
            let _ = wait.await;
        }
    }

    async fn acknowledged(&self, wait: oneshot::Receiver<bool>) -> bool {
        if self.state.stalled.load(Ordering::Relaxed) {
            return false;
        }
        matches!(tokio::time::timeout(self.patience, wait).await, Ok(Ok(true)))
    }
}

/// The thread's own.
struct Thread {
    queue: mpsc::Receiver<Work>,
    handle: Arc<Handle>,
    state: Arc<State>,
}

impl Thread {
    fn run(mut self) {
        let mut stopped = Vec::new();
        while let Some(first) = self.queue.blocking_recv() {
            let group = self.gather(first);
            let written = self.commit(&group);
            self.answer(group, written, &mut stopped);
            if !stopped.is_empty() {
                // What is in the queue by now is still received.
                self.queue.close();
            }
        }
        for done in stopped {
            // Nobody waits any more: fine.
            let _ = done.send(());
        }
    }

    /// Takes what waits, up to one transaction's worth.
    fn gather(&mut self, first: Work) -> Vec<Work> {
        let mut weight = first.weight();
        let mut group = vec![first];
        while weight < BATCH {
            let Ok(work) = self.queue.try_recv() else { break };
            weight += work.weight();
            group.push(work);
        }
        group
    }

    /// Writes a group in one transaction, and tries again for as long as another process holds the
    /// database: the queue in front fills up meanwhile, and refuses.
    fn commit(&self, group: &[Work]) -> Written {
        loop {
            let Some(index) = self.handle.get() else { return Written::Away };
            let result = index.write(|batch| {
                group.iter().try_for_each(|work| match work {
                    Work::Record(record, _) => batch.record(record, Read::Now).map(drop),
                    Work::Forget(keys, _) => keys.iter().try_for_each(|key| batch.forget(key)),
                    Work::Touch(uses) => batch.touch(uses),
                    Work::Stop(_) => Ok(()),
                })
            });
            let busy = matches!(result, Err(IndexError::Busy));
            if self.state.stalled.swap(busy, Ordering::Relaxed) != busy {
                tracing::warn!(busy, "another process holds the index, or does so no more");
            }
            match result {
                Ok(()) => return Written::Committed,
                Err(IndexError::Busy) if !self.state.stopping.load(Ordering::Relaxed) => {}
                Err(error) => {
                    tracing::warn!(error = %Causes(&error), "could not write to the index");
                    return Written::Failed;
                }
            }
        }
    }

    fn answer(&self, group: Vec<Work>, written: Written, stopped: &mut Vec<oneshot::Sender<()>>) {
        for work in group {
            // Whoever does not wait any more has gone on without.
            let _ = match work {
                Work::Record(_, done) => done.send(written == Written::Committed),
                Work::Forget(_, done) => done.send(written != Written::Failed),
                Work::Touch(uses) => {
                    self.state.uses.fetch_sub(uses.len(), Ordering::Relaxed);
                    Ok(())
                }
                Work::Stop(done) => {
                    stopped.push(done);
                    Ok(())
                }
            };
        }
    }
}

/// What became of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    Committed,
    Failed,
    /// There was no index to write to, and so none that could be believed.
    Away,
}

impl Work {
    /// How many rows it writes.
    fn weight(&self) -> usize {
        match self {
            Self::Record(..) => 1,
            Self::Forget(keys, _) => keys.len(),
            Self::Touch(uses) => uses.len(),
            Self::Stop(_) => 0,
        }
    }
}
