//! SQLite beside the files: quick answers, last uses, queries. Rebuildable at any time.
//!
//! The index is never believed against the files (invariant I3; `docs/decisions/index-is-a-cache.md`
//! says why). It must not know files of the store, protocols or HTTP. Reads block for microseconds
//! and are made in place on a pooled read-only connection, never through a blocking thread; writes
//! of the server go through [`Writer`], everybody else's through [`Index`] itself.
//!
//! * [`Index`]: one open database. [`Index::record`] is the only way in, online and in a rebuild.
//! * [`Handle`]: what a server holds: the index of the moment, if there is one.
//! * [`Writer`]: the server's writing side: one thread, group commit.
//!
//! Crash behaviour: every write is one transaction, and a lost one heals by use or by a rebuild.

mod blobs;
mod database;
mod error;
mod files;
mod filing;
mod handle;
mod lookup;
mod query;
mod record;
mod rows;
mod schema;
mod writer;

#[cfg(test)]
mod tests;

pub use blobs::{BlobCursor, BlobQuery, BlobRow, BlobSort, ProxyTotals};
pub use database::{Health, Index, Opened, Options};
pub use error::IndexError;
pub use handle::{Handle, Notice};
pub use lookup::Grant;
pub use query::{RefCursor, RefQuery, RefRow, RefSort};
pub use record::Record;
pub use writer::Writer;

/// One page of a listing. Nothing here ever loads a whole table.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T, C> {
    /// The rows, in the order asked for.
    pub rows: Vec<T>,
    /// Where the next page begins; `None` after the last row.
    pub next: Option<C>,
}

/// The most rows that a page holds, whatever was asked for.
pub const MAX_PAGE: usize = 20_000;
