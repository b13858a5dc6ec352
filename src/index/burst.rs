//! Reads that share a transaction.
//!
//! The beginning and the end of each transaction cost locks that other processes see: two system calls, under a
//! mutex that all connections of the process share. For a thread that answers many requests between two waits that
//! is half of what a question takes. So such a thread says when it is about to wait ([`end_reads`]), and until
//! then its reads are of one moment: that of the first, but never older than the last commit of this process, and
//! not by more than [`SHARED_FOR`] than what others commit.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::time::{Duration, Instant};

use r2d2::PooledConnection;
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::Connection;

use super::IndexError;
use super::database::Index;

/// How long reads of one thread are of the same moment at most. What another process takes away may be seen for so long.
pub(super) const SHARED_FOR: Duration = Duration::from_millis(10);

thread_local! {
    /// Whether this thread says when it waits.
    static IS_TOGETHER: Cell<bool> = const { Cell::new(false) };
    /// The transaction that its reads share.
    static OPEN: RefCell<Option<Burst>> = const { RefCell::new(None) };
}

/// Ends the transaction that this thread's reads share. From the first call on they do share one: whoever calls this
/// calls it each time before the thread waits, so that no transaction stays open.
pub fn end_reads() {
    IS_TOGETHER.set(true);
    drop(OPEN.take());
}

/// A pooled connection, and how it is to be used.
#[derive(Debug)]
pub(super) struct Burst {
    connection: PooledConnection<SqliteConnectionManager>,
    /// Set within a transaction that is shared.
    shared: Option<Moment>,
}

/// What a shared transaction sees.
#[derive(Debug)]
struct Moment {
    index: Index,
    began: Instant,
    /// How many commits of this process there were when it began.
    commits: u64,
}

impl Moment {
    fn holds(&self, index: &Index) -> bool {
        self.index.is(index) && self.commits == index.commits() && self.began.elapsed() < SHARED_FOR
    }
}

impl Burst {
    /// The connection for a read of this thread: that of its burst, if it has one that still holds.
    pub(super) fn of_this_thread(index: &Index) -> Result<Self, IndexError> {
        if !IS_TOGETHER.get() {
            return Ok(Self { connection: index.connection()?, shared: None });
        }
        let holds = |burst: &Self| burst.shared.as_ref().is_some_and(|moment| moment.holds(index));
        if let Some(open) = OPEN.take().filter(holds) {
            return Ok(open);
        }
        let commits = index.commits();
        let connection = index.connection()?;
        connection.prepare_cached("BEGIN")?.execute([])?;
        let moment = Moment { index: index.clone(), began: Instant::now(), commits };
        Ok(Self { connection, shared: Some(moment) })
    }

    /// Leaves a shared transaction open for the next read of this thread.
    pub(super) fn keep(self) {
        if self.shared.is_some() {
            OPEN.set(Some(self));
        }
    }
}

impl Deref for Burst {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for Burst {
    fn drop(&mut self) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.prepare_cached("COMMIT").and_then(|mut end| end.execute([]))
        {
            tracing::debug!(%error, "a read did not end well");
        }
    }
}
