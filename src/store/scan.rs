//! Walking the files for maintenance: pages of entries, bounded memory.
//!
//! One thread lists and reads, a second parses, the caller takes pages; a few pages lie between them.
//! It decides nothing: what does not fit is shown as it is. A file may come twice if its directory
//! changed while it was listed on a backend that lists in several requests.

use std::fmt;
use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Backend, Entry, ObjectPath, StoreError, layout};
use crate::model::{ArtifactType, Digest, Ref, RefKey, Timestamp};

/// Pages that are ready before anybody asks for them.
const READ_AHEAD: usize = 2;

/// A walk in progress: pages of at most 1,000 entries, read ahead on threads of its own. Dropping it
/// ends it.
pub struct Scan<T>(mpsc::Receiver<Result<Vec<T>, StoreError>>);

impl<T> fmt::Debug for Scan<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scan").finish_non_exhaustive()
    }
}

impl<T> Scan<T> {
    /// The next page; `None` at the end. An error to list a directory is the page's error, and the
    /// walk goes on behind it.
    pub async fn next_page(&mut self) -> Option<Result<Vec<T>, StoreError>> {
        self.0.recv().await
    }
}

impl<T: Send + 'static> Scan<T> {
    /// Walks these folders, one after the other; `read` is the limit of what is read of each file.
    pub(super) fn start(
        backend: Arc<dyn Backend>,
        folders: Vec<ObjectPath>,
        read: Option<u64>,
        convert: impl Fn(Entry) -> Option<T> + Send + 'static,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(READ_AHEAD);
        let unstarted = sender.clone();
        let thread = thread::Builder::new().name("store-scan".into()).spawn(move || {
            for folder in folders {
                let mut lister = backend.list(&folder, read);
                while let Some(page) = lister.next_page_blocking() {
                    let page =
                        page.map(|entries| entries.into_iter().filter_map(&convert).collect::<Vec<_>>());
                    let is_empty = page.as_ref().is_ok_and(Vec::is_empty);
                    if !is_empty && sender.blocking_send(page).is_err() {
                        return;
                    }
                }
            }
        });
        if let Err(error) = thread {
            // The channel is new and holds at least one page, so there is room.
            let _ = unstarted.try_send(Err(StoreError::io("list", "type", error)));
        }
        Self(receiver)
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
        Self { key, reference, modified: entry.stat.modified, path: path.to_owned() }
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
    pub(super) fn new(artifact_type: ArtifactType, entry: &Entry) -> Self {
        let path = entry.path.as_str();
        let digest = layout::digest_of(artifact_type, path).filter(|_| entry.stat.regular);
        Self { digest, size: entry.stat.size, modified: entry.stat.modified, path: path.to_owned() }
    }
}

/// A file below `trash/`.
#[derive(Debug, Clone)]
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
