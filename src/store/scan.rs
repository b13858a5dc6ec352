//! Walking the files for maintenance: pages of entries, bounded memory.
//!
//! One thread lists, a few read and parse what it has listed, the caller takes pages in the order of the
//! listing; a few pages lie between them. It decides nothing: what does not fit is shown as it is. A file
//! may come twice if its directory changed while it was listed on a backend that lists in several requests.

use std::fmt;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::backend::Part;
use super::{Backend, Entry, Lister, ObjectPath, StoreError, layout};
use crate::model::{ArtifactType, Digest, Ref, RefKey, Timestamp, give_way};

/// A page that was made of so many bytes of content is full.
pub(super) const PAGE_BYTES: usize = 1 << 20;
/// Parts that are read, or being read, before anybody asks for them.
const READ_AHEAD: usize = 4;
/// The most threads that read: more wait for each other and for whoever takes the pages.
const MAX_READERS: usize = 4;

/// How many threads read. Asked for once: the system answers from files, outside of the store.
static READERS: LazyLock<usize> =
    LazyLock::new(|| thread::available_parallelism().map_or(1, |count| count.get().min(MAX_READERS)));

/// Asks for what scans need to know, so that none of them has to.
pub(super) fn prepare() {
    LazyLock::force(&READERS);
}

/// Some entries, or why a part of the walk could not be had; what comes after is walked all the same.
type Page<T> = Result<Vec<T>, StoreError>;

/// A walk in progress: pages of at most 500 entries, read ahead on threads of its own. Dropping it
/// ends it.
pub struct Scan<T> {
    /// The parts in their order, each the pages that somebody makes of it.
    parts: mpsc::Receiver<mpsc::Receiver<Page<T>>>,
    /// The part whose pages are being taken.
    current: Option<mpsc::Receiver<Page<T>>>,
}

impl<T> fmt::Debug for Scan<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scan").finish_non_exhaustive()
    }
}

impl<T> Scan<T> {
    /// The next page, never an empty one; `None` at the end. An error to list a directory is the page's
    /// error, and the walk goes on behind it.
    pub async fn next_page(&mut self) -> Option<Page<T>> {
        loop {
            if let Some(pages) = &mut self.current
                && let Some(page) = pages.recv().await
            {
                return Some(page);
            }
            self.current = Some(self.parts.recv().await?);
        }
    }
}

impl<T: Send + 'static> Scan<T> {
    /// Walks these folders, one after the other; `read` is the limit of what is read of each file.
    pub(super) fn start(
        backend: Arc<dyn Backend>,
        folders: Vec<ObjectPath>,
        read: Option<u64>,
        convert: impl Fn(Entry) -> Option<T> + Send + Sync + 'static,
    ) -> Self {
        let (ordered, parts) = mpsc::channel(READ_AHEAD);
        let listing = Listing { backend, folders: folders.into_iter(), read, current: None, ordered };
        let shared = Arc::new((Mutex::new(listing), convert));
        for started in 0..*READERS {
            let reader = Arc::clone(&shared);
            let thread = thread::Builder::new().name("store-scan".into()).spawn(move || {
                while let Some((part, taker)) = Listing::next(&reader.0) {
                    let mut pages = Pages { taker, page: Vec::new(), bytes: 0 };
                    // What is missing must not look as if it were not there.
                    if catch_unwind(AssertUnwindSafe(|| pages.fill(part, &reader.1))).is_err() {
                        let _ = pages.send(Err(StoreError::broken_off("read", "type")));
                    }
                }
            });
            if let Err(error) = thread {
                if started == 0 {
                    let listing = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
                    listing.fail(StoreError::io("list", "type", error));
                }
                break;
            }
        }
        Self { parts, current: None }
    }
}

/// What the readers share: where the next part comes from, and where its pages will be looked for.
struct Listing<T> {
    backend: Arc<dyn Backend>,
    folders: std::vec::IntoIter<ObjectPath>,
    read: Option<u64>,
    current: Option<Lister>,
    ordered: mpsc::Sender<mpsc::Receiver<Page<T>>>,
}

impl<T> Listing<T> {
    /// The next part and where to put its pages; `None` at the end, or if nobody takes any more. Waits
    /// while enough is read ahead.
    fn next(listing: &Mutex<Self>) -> Option<(Part, mpsc::Sender<Page<T>>)> {
        // Held while it waits: parts are given out one after the other, in the order in which they are taken.
        let mut listing = listing.lock().unwrap_or_else(PoisonError::into_inner);
        let part = loop {
            if let Some(part) = listing.current.as_mut().and_then(Lister::next_part) {
                break part;
            }
            let folder = listing.folders.next()?;
            listing.current = Some(listing.backend.list(&folder, listing.read));
        };
        let (sender, receiver) = mpsc::channel(1);
        listing.ordered.blocking_send(receiver).ok()?;
        Some((part, sender))
    }

    /// Says that there is nobody to read; the walk must be new.
    fn fail(&self, error: StoreError) {
        let (sender, receiver) = mpsc::channel(1);
        // Both channels are new and hold at least one item, so there is room.
        let _ = sender.try_send(Err(error));
        let _ = self.ordered.try_send(receiver);
    }
}

/// The pages that are made of one part.
struct Pages<T> {
    taker: mpsc::Sender<Page<T>>,
    page: Vec<T>,
    bytes: usize,
}

impl<T> Pages<T> {
    fn fill(&mut self, part: Part, convert: &impl Fn(Entry) -> Option<T>) {
        part.read(&mut |entry| match entry {
            Ok(entry) => {
                self.bytes +=
                    entry.content.as_ref().and_then(|read| read.as_ref().ok()).map_or(0, Bytes::len);
                self.page.extend(convert(entry));
                give_way();
                if self.bytes >= PAGE_BYTES { self.flush() } else { ControlFlow::Continue(()) }
            }
            Err(error) => {
                self.flush()?;
                self.send(Err(error))
            }
        });
        // Whether anybody takes it does not matter at the end.
        let _ = self.flush();
    }

    fn flush(&mut self) -> ControlFlow<()> {
        self.bytes = 0;
        let page = std::mem::take(&mut self.page);
        if page.is_empty() { ControlFlow::Continue(()) } else { self.send(Ok(page)) }
    }

    fn send(&self, page: Page<T>) -> ControlFlow<()> {
        match self.taker.blocking_send(page) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}

/// A file below `refs/`, `meta/` or `cache/`.
#[derive(Debug)]
pub struct RefEntry {
    /// The path below the root.
    pub path: String,
    /// What the path says, if it is the canonical path of a key.
    pub key: Option<RefKey>,
    /// What the file says.
    pub reference: Result<Ref, StoreError>,
    /// The file's mtime: the last use as mirrored, or the last write.
    pub modified: Timestamp,
}

impl RefEntry {
    pub(super) fn new(entry: Entry) -> Self {
        let path = entry.path.as_str();
        let reference = match entry.content {
            Some(content) => content.and_then(|bytes| parse_ref(path, &bytes)),
            None => Err(StoreError::BadRef { path: path.to_owned(), why: "not a regular file".into() }),
        };
        let key = layout::key_of(path).filter(|_| entry.stat.regular);
        Self { key, reference, modified: entry.stat.modified, path: entry.path.into() }
    }
}

/// Reads the content of a ref file that was read with the limit [`Ref::MAX_LEN`].
pub(super) fn parse_ref(path: &str, bytes: &Bytes) -> Result<Ref, StoreError> {
    let bad = |why: String| StoreError::BadRef { path: path.to_owned(), why };
    if bytes.len() as u64 > Ref::MAX_LEN {
        return Err(bad(format!("longer than {} bytes", Ref::MAX_LEN)));
    }
    Ref::parse(bytes).map_err(|error| bad(std::error::Error::source(&error).unwrap_or(&error).to_string()))
}

/// A file below `blobs/`.
#[derive(Debug)]
pub struct BlobEntry {
    /// The path below the root.
    pub path: String,
    /// The name, if the path is that of a blob and it is a regular file.
    pub digest: Option<Digest>,
    /// Bytes.
    pub size: u64,
    /// The file's mtime.
    pub modified: Timestamp,
}

impl BlobEntry {
    pub(super) fn new(artifact_type: ArtifactType, entry: Entry) -> Self {
        let digest = layout::digest_of(artifact_type, entry.path.as_str()).filter(|_| entry.stat.regular);
        Self { digest, size: entry.stat.size, modified: entry.stat.modified, path: entry.path.into() }
    }
}

/// A file below `trash/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrashEntry {
    /// The run that condemned it.
    pub run: String,
    /// The blob.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

impl TrashEntry {
    /// `None` for what no run of gc has put there.
    pub(super) fn new(artifact_type: ArtifactType, entry: &Entry) -> Option<Self> {
        let Some((run, digest)) = layout::condemned_of(artifact_type, entry.path.as_str()) else {
            tracing::warn!(path = %entry.path, "not a condemned blob, left alone");
            return None;
        };
        Some(Self { run, digest, size: entry.stat.size })
    }
}

#[cfg(test)]
mod tests {
    use std::panic::resume_unwind;

    use super::super::memory::Memory;
    use super::*;

    /// How many of two thousand objects are walked, and how often it says that something could not be had.
    async fn walk(convert: impl Fn(Entry) -> Option<ObjectPath> + Send + Sync + 'static) -> (usize, usize) {
        let memory = Memory::default();
        for n in 0..2000 {
            let (path, staging) = (format!("type/{n:04}"), "tmp".to_owned());
            let put = memory.put(&ObjectPath::new(path), &ObjectPath::new(staging), "x".into());
            put.await.expect("put");
        }
        let mut scan = Scan::start(Arc::new(memory), vec![ObjectPath::new("type".into())], None, convert);
        let (mut found, mut errors) = (0, 0);
        while let Some(page) = scan.next_page().await {
            page.map_or_else(|_| errors += 1, |page| found += page.len());
        }
        (found, errors)
    }

    #[tokio::test]
    async fn a_walk_that_breaks_off_says_so() {
        assert_eq!(walk(|entry| Some(entry.path)).await, (2000, 0));
        let (found, errors) = walk(|entry| match entry.path.as_str() {
            "type/0700" => resume_unwind(Box::new(())),
            _ => Some(entry.path),
        })
        .await;
        assert_eq!(errors, 1);
        assert!((1500..2000).contains(&found), "{found}: the other parts are walked all the same");
    }
}
