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
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
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

impl From<ObjectPath> for String {
    fn from(path: ObjectPath) -> Self {
        path.0
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

/// How much room there is for objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that can still be written.
    pub free: u64,
    /// Bytes in all, those of others included.
    pub total: u64,
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

    /// How much room there is, now; `None` if nobody can tell, or there is no end to it.
    fn space(&self) -> Option<Space> {
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

    /// Writes a small object whose name says what its content is, unless one of this size is there: that one is
    /// used then. One of another size is damaged and is replaced. Durable as by [`Self::put`].
    fn publish(&self, path: &ObjectPath, staging: &ObjectPath, bytes: Bytes) -> Answer<'_, Blob>;

    /// Starts an object of any size that becomes visible only when it is published. What it needs may be made when
    /// the first bytes are added, and why it cannot be made is told then.
    ///
    /// `left` names where in `staging` one may lie that was left before its end ([`Upload::leave`]), and is to
    /// lie if this one is: it goes on with that one ([`Upload::begun`]), and nobody else does.
    fn upload(&self, staging: &ObjectPath, left: Option<&ObjectPath>) -> Answer<'_, Box<dyn Upload>>;

    /// Lists every object below a folder, with its content if `read` gives a limit for it. An absent
    /// folder is empty. Any order will do, as long as it is the same each time. What is there during
    /// the whole listing is listed; what comes or goes meanwhile may be.
    fn list(&self, folder: &ObjectPath, read: Option<u64>) -> Lister;

    /// The names of the folders directly below a folder, sorted.
    fn folders(&self, folder: &ObjectPath) -> Answer<'_, Vec<String>>;

    /// Deletes an object; false if it was not there. Folders that became empty go with it.
    fn delete(&self, path: &ObjectPath) -> Answer<'_, bool>;

    /// Takes live objects out of sight into trash, from where [`Self::restore`] brings them back: from the first
    /// path of each pair to the second. Says of each whether it was live; on an error some may have been moved.
    fn condemn(&self, moves: Vec<(ObjectPath, ObjectPath)>) -> Answer<'_, Vec<bool>>;

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

    /// Removes what writers that are no longer alive abandoned in `staging`, and what was left there
    /// ([`Upload::leave`]) and not gone on with since the given time; returns objects and bytes. With
    /// `dry_run` only counts.
    fn reap_staging(
        &self,
        staging: &ObjectPath,
        left_before: Timestamp,
        dry_run: bool,
    ) -> Answer<'_, (u64, u64)>;
}

/// An object in the making. Dropping it leaves nothing behind. Its methods may block, unless it says that they do
/// not: call them on blocking threads.
pub trait Upload: fmt::Debug + Send + 'static {
    /// Whether adding bytes may wait for a disk.
    fn blocks(&self) -> bool {
        true
    }

    /// How many bytes it began with, because it goes on with one that was left. They are as they were
    /// written, if nothing happened to them since.
    fn begun(&self) -> u64;

    /// Adds bytes at the end. On return readers see them. After an error the upload is good for
    /// nothing but being dropped.
    fn append(&mut self, chunks: &[Bytes]) -> Result<(), StoreError>;

    /// A reader of what has been added, now and later.
    fn reader(&self) -> StagedReader;

    /// Keeps what has been added for an upload that goes on with it, if it is worth it and a place for it was
    /// named; how many bytes are kept. It is good for nothing but being dropped then. May happen on any thread.
    fn leave(&mut self) -> u64;

    /// Makes it durable and then visible, as [`Backend::publish`] does.
    fn publish(self: Box<Self>, path: &ObjectPath) -> Answer<'static, Blob>;
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

/// A listing in progress: parts of it, listed ahead on a thread of its own. Dropping it ends it.
#[derive(Debug)]
pub struct Lister(mpsc::Receiver<Part>);

/// Takes entries as they are found, and reasons why some could not be had; what comes after is listed
/// all the same. A `Break` says that nobody wants any more.
pub(super) type Entries<'e> = &'e mut dyn FnMut(Result<Entry, StoreError>) -> ControlFlow<()>;

/// Some objects of a listing whose names are known, and that are still to be looked at and read. Whoever
/// runs it does that, on whichever thread, so that several parts are read at a time.
pub(super) struct Part(Box<dyn FnOnce(Entries<'_>) + Send>);

impl Part {
    /// What to do to read it.
    pub(super) fn new(read: impl FnOnce(Entries<'_>) + Send + 'static) -> Self {
        Self(Box::new(read))
    }

    /// Reads it. Blocks on the disk.
    pub(super) fn read(self, take: Entries<'_>) {
        (self.0)(take);
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Part")
    }
}

impl Lister {
    /// The most objects in a part.
    pub(super) const PART_LEN: usize = 500;
    /// Parts that are ready before anybody asks for them.
    const AHEAD: usize = 4;

    /// Starts a listing; `walk` runs on a thread of its own. If it panics, the listing does not look as if it had come
    /// to its end, but says that it could not be had: gc takes what is not in it for not there.
    pub(super) fn start(folder: &ObjectPath, walk: impl FnOnce(&Parts) + Send + 'static) -> Self {
        let (sender, receiver) = mpsc::channel(Self::AHEAD);
        let parts = Parts(sender.clone());
        let whole = folder.clone();
        let thread = thread::Builder::new().name("store-list".into()).spawn(move || {
            if catch_unwind(AssertUnwindSafe(|| walk(&parts))).is_err() {
                let error = StoreError::broken_off("list", whole.as_str());
                parts.push(Part::new(|take| _ = take(Err(error))));
            }
        });
        if let Err(error) = thread {
            let error = StoreError::io("list", folder.as_str(), error);
            // The channel is new and holds at least one part, so there is room.
            let _ = sender.try_send(Part::new(|take| _ = take(Err(error))));
        }
        Self(receiver)
    }

    /// The next part, for a thread that may block; `None` at the end.
    pub(super) fn next_part(&mut self) -> Option<Part> {
        self.0.blocking_recv()
    }
}

/// The writing side of a [`Lister`].
#[derive(Debug)]
pub(super) struct Parts(mpsc::Sender<Part>);

impl Parts {
    /// Adds a part; waits while nobody reads.
    pub(super) fn push(&self, part: Part) {
        // An error means that the reader has gone, which `abandoned` tells the walk.
        let _ = self.0.blocking_send(part);
    }

    /// Whether nobody reads any more, so that the walk may end.
    pub(super) fn abandoned(&self) -> bool {
        self.0.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use std::panic::resume_unwind;

    use super::*;

    #[test]
    fn a_listing_that_panics_does_not_look_as_if_it_had_ended() {
        let folder = ObjectPath::new("type".into());
        let mut lister = Lister::start(&folder, |_| resume_unwind(Box::new(())));
        let mut told = Vec::new();
        lister.next_part().expect("an error").read(&mut |entry| {
            told.push(entry.is_err());
            ControlFlow::Continue(())
        });
        assert_eq!(told, [true]);
        assert!(lister.next_part().is_none());
    }
}
