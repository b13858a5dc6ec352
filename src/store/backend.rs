//! What a place for objects must be able to do: the trait that `file://` and `mem://` implement and
//! that an object store can.
//!
//! It knows objects by path, never refs, blobs or keys. The operations are named for what they are
//! meant to bring about, not for how a file system does it: nothing above assumes a rename, a hard
//! link, a directory or an append. `conformance` states the behaviour and runs over every backend.
//!
//! Every operation is atomic: whoever looks sees all of it or nothing, also after a crash in the
//! middle. Dropping a future does not take an operation back: it may still happen, whole.

use std::fmt;
use std::path::Path;
use std::thread;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::{Blob, StagedReader, StoreError};
use crate::model::Timestamp;

/// What an operation answers, later.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// The path of an object below the root: segments between single slashes.
///
/// Only `store::layout` makes them from names, and a listing from what it found. Never empty; no
/// segment is empty, `.` or `..`; no NUL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectPath(String);

impl ObjectPath {
    /// Takes a path that is known to be well formed.
    pub(super) fn new(path: String) -> Self {
        debug_assert!(
            path.split('/').all(|segment| !matches!(segment, "" | "." | "..") && !segment.contains('\0')),
            "{path:?}"
        );
        Self(path)
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path of something directly below this one. `name` is one well-formed segment.
    pub(super) fn join(&self, name: &str) -> Self {
        Self::new(format!("{}/{name}", self.0))
    }
}

impl fmt::Display for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// What is known of an object without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Bytes.
    pub size: u64,
    /// When it was last written, or what [`Backend::set_modified`] said since.
    pub modified: Timestamp,
    /// Whether it is an object at all. A file system may hold other things under an object's name:
    /// a symlink, a FIFO, a directory.
    pub regular: bool,
}

/// One object of a listing.
#[derive(Debug)]
pub struct Entry {
    /// Its path below the root. A name that is not UTF-8 is shown with replacement characters, and
    /// its `stat` says that it is not an object.
    pub path: ObjectPath,
    /// What is known of it.
    pub stat: Stat,
    /// Its content, if the listing was asked for it and it is an object; cut off as
    /// [`Backend::read`] does.
    pub content: Option<Result<Bytes, StoreError>>,
}

/// A place for objects.
///
/// Unless said otherwise: an absent object is an answer (`None` or `false`), not an error, and what
/// stands under an object's name without being one (symlink, FIFO, directory) is absent too.
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// The directory that holds the objects, if this is a local disk.
    fn local_dir(&self) -> Option<&Path> {
        None
    }

    /// What is there under the name, whether an object or not.
    fn stat(&self, path: &ObjectPath) -> Answer<'_, Option<Stat>>;

    /// Reads a small object whole. A longer one than `limit` is cut off after `limit + 1` bytes,
    /// which tells the caller.
    fn read(&self, path: &ObjectPath, limit: u64) -> Answer<'_, Option<Bytes>>;

    /// Opens an object for ranged reading if that takes no longer than opening a local file; a
    /// backend that would have to ask a server says `None` for what it has not at hand.
    fn open_now(&self, path: &ObjectPath) -> Result<Option<Blob>, StoreError>;

    /// Opens an object for ranged reading.
    fn open(&self, path: &ObjectPath) -> Answer<'_, Option<Blob>>;

    /// Writes a small object, replacing what is there. Durable on return, though after a power cut
    /// the name may still be the old object's.
    ///
    /// `staging` is a folder where the backend may keep what is not published yet.
    fn put(&self, path: &ObjectPath, staging: &ObjectPath, bytes: Bytes) -> Answer<'_, ()>;

    /// Writes a small object unless there is one; false if there is.
    fn put_if_absent(&self, path: &ObjectPath, staging: &ObjectPath, bytes: Bytes) -> Answer<'_, bool>;

    /// Starts an object of any size that becomes visible only when it is published.
    fn upload(&self, staging: &ObjectPath) -> Answer<'_, Box<dyn Upload>>;

    /// Lists every object below a folder, with its content if `read` gives a limit for it. An absent
    /// folder is empty. No order is promised. What is there during the whole listing is listed; what
    /// comes or goes meanwhile may be.
    fn list(&self, folder: &ObjectPath, read: Option<u64>) -> Lister;

    /// The names of the folders directly below a folder, sorted.
    fn folders(&self, folder: &ObjectPath) -> Answer<'_, Vec<String>>;

    /// Deletes an object; false if it was not there. Folders that became empty go with it.
    fn delete(&self, path: &ObjectPath) -> Answer<'_, bool>;

    /// Takes a live object out of sight into trash, from where [`Self::restore`] brings it back;
    /// false if it was not live.
    fn condemn(&self, live: &ObjectPath, trash: &ObjectPath) -> Answer<'_, bool>;

    /// Makes a condemned object live again, unless something is live under the name. The trash entry
    /// stays until it is deleted. False if there is nothing in trash.
    fn restore(&self, trash: &ObjectPath, live: &ObjectPath) -> Answer<'_, bool>;

    /// Moves what stands under a name aside, for somebody to look at. With `seen`: only if it is
    /// still the very object that was opened, not one published since. Without: only if it is not an
    /// object. False if nothing was moved.
    fn quarantine(&self, live: &ObjectPath, aside: &ObjectPath, seen: Option<&Blob>) -> Answer<'_, bool>;

    /// Sets the time of last modification; false if the object is not there.
    fn set_modified(&self, path: &ObjectPath, at: Timestamp) -> Answer<'_, bool>;

    /// Takes a named lock; `None` if somebody holds it.
    fn lock(&self, path: &ObjectPath) -> Result<Option<StoreLock>, StoreError>;

    /// Removes what writers that are no longer alive left in `staging`; returns objects and bytes.
    /// With `dry_run` only counts.
    fn reap_staging(&self, staging: &ObjectPath, dry_run: bool) -> Answer<'_, (u64, u64)>;
}

/// An object in the making. Dropping it leaves nothing behind. Every method may block: call them on
/// blocking threads.
pub trait Upload: fmt::Debug + Send + 'static {
    /// Adds bytes at the end. On return readers see them. After an error the upload is good for
    /// nothing but being dropped.
    fn append(&mut self, chunks: &[Bytes]) -> Result<(), StoreError>;

    /// A reader of what has been added, now and later.
    fn reader(&self) -> StagedReader;

    /// Makes it durable and then visible, unless an object of this size is there: that one is used
    /// then. One of another size is damaged and is replaced.
    fn publish(self: Box<Self>, path: &ObjectPath) -> Result<Blob, StoreError>;
}

/// A held lock. Released on drop, and by the death of the process.
#[derive(Debug)]
pub struct StoreLock {
    /// What releases the lock when it is dropped.
    _guard: Box<dyn Held>,
}

/// Whatever holds a lock while it exists.
pub(super) trait Held: fmt::Debug + Send + Sync {}

impl StoreLock {
    pub(super) fn new(guard: impl Held + 'static) -> Self {
        Self { _guard: Box::new(guard) }
    }
}

/// A listing in progress: pages of at most [`Lister::PAGE_LEN`] entries and about
/// [`Lister::PAGE_BYTES`] of content, read ahead on a thread of its own. Dropping it ends it.
#[derive(Debug)]
pub struct Lister(mpsc::Receiver<Page>);

/// A page, or why a part of the listing could not be had; what comes after is listed all the same.
pub(super) type Page = Result<Vec<Entry>, StoreError>;

impl Lister {
    /// The most entries in a page.
    pub const PAGE_LEN: usize = 1000;
    /// A page that holds as many bytes of content is full.
    pub const PAGE_BYTES: usize = 1 << 20;
    /// Pages that are ready before anybody asks for them.
    const READ_AHEAD: usize = 2;

    /// Starts a listing; `walk` runs on a thread of its own.
    pub(super) fn start(folder: &ObjectPath, walk: impl FnOnce(&mut Pages) + Send + 'static) -> Self {
        let (sender, receiver) = mpsc::channel(Self::READ_AHEAD);
        let mut pages = Pages { sender, page: Vec::new(), bytes: 0 };
        let unstarted = pages.sender.clone();
        let thread = thread::Builder::new().name("store-list".into()).spawn(move || {
            walk(&mut pages);
            pages.flush();
        });
        if let Err(error) = thread {
            // The channel is new and holds at least one page, so there is room.
            let _ = unstarted.try_send(Err(StoreError::io("list", folder.as_str(), error)));
        }
        Self(receiver)
    }

    /// The next page; `None` at the end.
    pub async fn next_page(&mut self) -> Option<Result<Vec<Entry>, StoreError>> {
        self.0.recv().await
    }

    /// The next page, for a thread that may block.
    pub(super) fn next_page_blocking(&mut self) -> Option<Page> {
        self.0.blocking_recv()
    }
}

/// The writing side of a [`Lister`].
#[derive(Debug)]
pub(super) struct Pages {
    sender: mpsc::Sender<Page>,
    page: Vec<Entry>,
    bytes: usize,
}

impl Pages {
    /// Adds an entry; waits while nobody reads.
    pub(super) fn push(&mut self, entry: Entry) {
        self.bytes += entry.content.as_ref().and_then(|read| read.as_ref().ok()).map_or(0, Bytes::len);
        self.page.push(entry);
        if self.page.len() == Lister::PAGE_LEN || self.bytes >= Lister::PAGE_BYTES {
            self.flush();
        }
    }

    /// Says that a part could not be listed.
    pub(super) fn fail(&mut self, error: StoreError) {
        self.flush();
        let _ = self.sender.blocking_send(Err(error));
    }

    /// Whether nobody reads any more, so that the walk may end.
    pub(super) fn abandoned(&self) -> bool {
        self.sender.is_closed()
    }

    fn flush(&mut self) {
        self.bytes = 0;
        let page = std::mem::take(&mut self.page);
        if !page.is_empty() {
            // An error means that the reader has gone, which `abandoned` tells the walk.
            let _ = self.sender.blocking_send(Ok(page));
        }
    }
}
