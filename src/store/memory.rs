//! Objects in memory, for tests (`mem://`): the same behaviour as on disk, nothing durable.
//!
//! It knows objects by path and nothing of what they mean. Every operation holds one lock for its
//! length, so each is atomic.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::ready;

use super::backend::{Answer, Held, Part, Parts};
use super::blob::{Content, Growing};
use super::{Backend, Blob, Entry, Lister, ObjectPath, StagedReader, Stat, StoreError, StoreLock, Upload};
use crate::model::{Clock as _, SystemClock, Timestamp};

/// The backend. Clones share their objects.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory(Arc<Mutex<Objects>>);

#[derive(Debug, Default)]
struct Objects {
    live: BTreeMap<String, Object>,
    /// What uploads have left, by where they were told to leave it.
    left: BTreeMap<String, Object>,
    locks: BTreeSet<String>,
}

#[derive(Debug, Clone)]
struct Object {
    bytes: Bytes,
    modified: Timestamp,
}

impl Object {
    fn new(bytes: Bytes) -> Self {
        // A file system stamps its files with the machine's clock, whatever clock the caller uses.
        Self { bytes, modified: SystemClock.now() }
    }

    fn stat(&self) -> Stat {
        Stat { size: self.bytes.len() as u64, modified: self.modified, regular: true }
    }

    fn blob(&self) -> Blob {
        Blob::new(Content::Memory(self.bytes.clone()), self.bytes.len() as u64)
    }

    fn cut(&self, limit: u64) -> Bytes {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).saturating_add(1);
        self.bytes.slice(..self.bytes.len().min(limit))
    }

    /// Whether `blob` is this very object: it shares its memory.
    fn is(&self, blob: &Blob) -> bool {
        matches!(blob.content(), Content::Memory(bytes) if bytes.as_ptr() == self.bytes.as_ptr() && bytes.len() == self.bytes.len())
    }
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Objects> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The object of this size that is there, or else a new one.
    fn publish_now(&self, path: &ObjectPath, bytes: Bytes) -> Blob {
        let mut all = self.lock();
        match all.live.get(path.as_str()) {
            Some(present) if present.bytes.len() == bytes.len() => present.blob(),
            _ => {
                let object = Object::new(bytes);
                let blob = object.blob();
                all.live.insert(path.to_string(), object);
                blob
            }
        }
    }

    fn walk(&self, folder: &str, read: Option<u64>, parts: &Parts) {
        let mut last = folder.to_owned();
        while !parts.abandoned() {
            let next: Vec<_> = {
                let all = self.lock();
                let rest = all.live.range::<str, _>((Bound::Excluded(last.as_str()), Bound::Unbounded));
                let below = rest.take_while(|(path, _)| path.starts_with(folder));
                below.take(Lister::PART_LEN).map(|(path, object)| (path.clone(), object.clone())).collect()
            };
            let Some((path, _)) = next.last() else { return };
            last.clone_from(path);
            parts.push(Part::new(move |take| {
                for (path, object) in next {
                    let content = read.map(|limit| Ok(object.cut(limit)));
                    let entry = Entry { path: ObjectPath::new(path), stat: object.stat(), content };
                    if take(Ok(entry)).is_break() {
                        return;
                    }
                }
            }));
        }
    }
}

fn answer<'a, T: Send + 'a>(value: T) -> Answer<'a, T> {
    ready(Ok(value)).boxed()
}

impl Backend for Memory {
    fn stat(&self, path: &ObjectPath) -> Answer<'_, Option<Stat>> {
        answer(self.lock().live.get(path.as_str()).map(Object::stat))
    }

    fn read(&self, path: &ObjectPath, limit: u64) -> Answer<'_, Option<Bytes>> {
        answer(self.lock().live.get(path.as_str()).map(|object| object.cut(limit)))
    }

    fn open_now(&self, path: &ObjectPath) -> Result<Option<Blob>, StoreError> {
        Ok(self.lock().live.get(path.as_str()).map(Object::blob))
    }

    fn open(&self, path: &ObjectPath) -> Answer<'_, Option<Blob>> {
        ready(self.open_now(path)).boxed()
    }

    fn put(&self, path: &ObjectPath, _staging: &ObjectPath, bytes: Bytes) -> Answer<'_, ()> {
        self.lock().live.insert(path.to_string(), Object::new(bytes));
        answer(())
    }

    fn put_if_absent(&self, path: &ObjectPath, _staging: &ObjectPath, bytes: Bytes) -> Answer<'_, bool> {
        let mut all = self.lock();
        let absent = !all.live.contains_key(path.as_str());
        if absent {
            all.live.insert(path.to_string(), Object::new(bytes));
        }
        answer(absent)
    }

    fn publish(&self, path: &ObjectPath, _staging: &ObjectPath, bytes: Bytes) -> Answer<'_, Blob> {
        answer(self.publish_now(path, bytes))
    }

    fn upload(&self, _staging: &ObjectPath, left: Option<&ObjectPath>) -> Answer<'_, Box<dyn Upload>> {
        let left = left.map(ObjectPath::to_string);
        let found = left.as_ref().and_then(|left| self.lock().left.remove(left));
        let buffer = found.map(|object| object.bytes.to_vec()).unwrap_or_default();
        let begun = buffer.len() as u64;
        let growing = Arc::new(Growing::new(buffer, None));
        answer(Box::new(MemoryUpload { memory: self.clone(), growing, begun, left }))
    }

    fn list(&self, folder: &ObjectPath, read: Option<u64>) -> Lister {
        let (memory, prefix) = (self.clone(), format!("{folder}/"));
        Lister::start(folder, move |parts| memory.walk(&prefix, read, parts))
    }

    fn folders(&self, folder: &ObjectPath) -> Answer<'_, Vec<String>> {
        let prefix = format!("{folder}/");
        let all = self.lock();
        let below = all.live.range(prefix.clone()..).map_while(|(path, _)| path.strip_prefix(&prefix));
        let names: BTreeSet<_> =
            below.filter_map(|path| path.split_once('/')).map(|(name, _)| name).collect();
        answer(names.into_iter().map(str::to_owned).collect())
    }

    fn delete(&self, path: &ObjectPath) -> Answer<'_, bool> {
        answer(self.lock().live.remove(path.as_str()).is_some())
    }

    fn condemn(&self, moves: Vec<(ObjectPath, ObjectPath)>) -> Answer<'_, Vec<bool>> {
        let mut all = self.lock();
        let moved = moves.into_iter().map(|(live, trash)| {
            let object = all.live.remove(live.as_str());
            object.map(|object| all.live.insert(trash.to_string(), object)).is_some()
        });
        answer(moved.collect())
    }

    fn restore(&self, trash: &ObjectPath, live: &ObjectPath) -> Answer<'_, bool> {
        let mut all = self.lock();
        let object = all.live.get(trash.as_str()).cloned();
        answer(object.map(|object| all.live.entry(live.to_string()).or_insert(object)).is_some())
    }

    fn quarantine(&self, live: &ObjectPath, aside: &ObjectPath, seen: Option<&Blob>) -> Answer<'_, bool> {
        let mut all = self.lock();
        let same = all.live.get(live.as_str()).is_some_and(|object| seen.is_some_and(|blob| object.is(blob)));
        if same && let Some(object) = all.live.remove(live.as_str()) {
            all.live.insert(aside.to_string(), object);
        }
        answer(same)
    }

    fn set_modified(&self, path: &ObjectPath, at: Timestamp) -> Answer<'_, bool> {
        let mut all = self.lock();
        let object = all.live.get_mut(path.as_str());
        answer(object.map(|object| object.modified = at).is_some())
    }

    fn lock(&self, path: &ObjectPath) -> Result<Option<StoreLock>, StoreError> {
        let taken = Self::lock(self).locks.insert(path.to_string());
        Ok(taken.then(|| StoreLock::new(HeldName { memory: self.clone(), path: path.clone() })))
    }

    fn reap_staging(
        &self,
        staging: &ObjectPath,
        left_before: Timestamp,
        dry_run: bool,
    ) -> Answer<'_, (u64, u64)> {
        // What was not left exists nowhere but in its upload.
        let (prefix, mut total) = (format!("{staging}/"), (0, 0));
        self.lock().left.retain(|path, object| {
            let is_old = path.starts_with(&prefix) && object.modified < left_before;
            if is_old {
                total = (total.0 + 1, total.1 + object.bytes.len() as u64);
            }
            dry_run || !is_old
        });
        answer(total)
    }
}

/// A lock that is held.
#[derive(Debug)]
struct HeldName {
    memory: Memory,
    path: ObjectPath,
}

impl Held for HeldName {}

impl Drop for HeldName {
    fn drop(&mut self) {
        self.memory.lock().locks.remove(self.path.as_str());
    }
}

/// An upload: bytes that readers share.
#[derive(Debug)]
struct MemoryUpload {
    memory: Memory,
    growing: Arc<Growing>,
    begun: u64,
    left: Option<String>,
}

impl Upload for MemoryUpload {
    fn begun(&self) -> u64 {
        self.begun
    }

    fn append(&mut self, chunks: &[Bytes]) -> Result<(), StoreError> {
        self.growing.append(chunks);
        Ok(())
    }

    fn reader(&self) -> StagedReader {
        StagedReader::new(Content::Growing(Arc::clone(&self.growing)))
    }

    fn leave(&mut self) -> u64 {
        let Some(left) = self.left.take() else { return 0 };
        let bytes = self.growing.whole();
        let kept = bytes.len() as u64;
        self.memory.lock().left.insert(left, Object::new(bytes));
        kept
    }

    fn publish(self: Box<Self>, path: &ObjectPath) -> Answer<'static, Blob> {
        answer(self.memory.publish_now(path, self.growing.whole()))
    }
}
