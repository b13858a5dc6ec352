//! A backend whose process dies, or whose disk fails once, at any operation, for tests.
//!
//! Objects are in memory. Before some operations it lets others go on by as many as a seed says, so that
//! what runs at the same time is interleaved in ways that rarely come about by themselves.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::ready;

use super::backend::{Answer, Part};
use super::memory::Memory;
use super::{
    Backend, Blob, Entry, Lister, ObjectPath, StagedReader, Stat, Store, StoreError, StoreLock, Upload,
};
use crate::model::Timestamp;

/// The most operations of others that one waits for.
const MOST_WAITED_FOR: u64 = 128;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The operation fails, and the next one does not.
    Error,
    /// This operation does not happen, nor does any other until [`Faults::clear`].
    Death,
}

/// When it goes wrong.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// Operations until it does; negative if it does not.
    left: AtomicI64,
    deadly: AtomicBool,
    noise: AtomicU64,
    /// Operations so far.
    done: AtomicU64,
    /// Those who act at the same time, and those of them who wait for others.
    acting: AtomicUsize,
    waiting: AtomicUsize,
}

impl Faults {
    /// From now on so many operations succeed, and the next one does not.
    pub(crate) fn set(&self, fault: Fault, after: u32) {
        self.deadly.store(fault == Fault::Death, Ordering::SeqCst);
        self.left.store(i64::from(after), Ordering::SeqCst);
    }

    /// Nothing goes wrong any more: another process, or the disk has recovered.
    pub(crate) fn clear(&self) {
        self.left.store(i64::MAX, Ordering::SeqCst);
    }

    /// Whether the process has died.
    pub(crate) fn is_dead(&self) -> bool {
        self.deadly.load(Ordering::SeqCst) && self.left.load(Ordering::SeqCst) < 0
    }

    /// Does all of these at the same time, interleaved by a seed.
    pub(crate) async fn together<T>(
        &self,
        seed: u64,
        acts: impl IntoIterator<Item = impl Future<Output = T>>,
    ) -> Vec<T> {
        self.noise.store(seed, Ordering::SeqCst);
        let acts: Vec<_> = acts.into_iter().collect();
        self.acting.store(acts.len(), Ordering::SeqCst);
        let ending = async |act| {
            let done = act.await;
            self.acting.fetch_sub(1, Ordering::SeqCst);
            done
        };
        futures_util::future::join_all(acts.into_iter().map(ending)).await
    }

    fn check(&self, path: &ObjectPath) -> Result<(), StoreError> {
        let left = self.left.fetch_sub(1, Ordering::SeqCst);
        let fails = left == 0 || (left < 0 && self.deadly.load(Ordering::SeqCst));
        if !fails {
            return Ok(());
        }
        Err(StoreError::io("reach", PathBuf::from(path.as_str()), std::io::Error::other("an injected fault")))
    }

    /// For how many operations of others the next one waits: mostly none.
    fn others_first(&self) -> u64 {
        let noise = self.noise.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst);
        let mixed = (noise ^ (noise >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32;
        if mixed.is_multiple_of(4) { mixed / 4 % MOST_WAITED_FOR } else { 0 }
    }

    async fn reach(&self, path: &ObjectPath) -> Result<(), StoreError> {
        let until = self.done.load(Ordering::SeqCst) + self.others_first();
        self.waiting.fetch_add(1, Ordering::SeqCst);
        // As long as there is somebody to wait for.
        while self.done.load(Ordering::SeqCst) < until
            && self.waiting.load(Ordering::SeqCst) < self.acting.load(Ordering::SeqCst)
        {
            tokio::task::yield_now().await;
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        self.done.fetch_add(1, Ordering::SeqCst);
        self.check(path)
    }
}

/// The backend.
#[derive(Debug, Default)]
pub(crate) struct Faulty {
    memory: Memory,
    faults: Arc<Faults>,
}

impl Store {
    /// A store over such a backend, and what makes it fail.
    pub(crate) async fn faulty() -> (Self, Arc<Faults>) {
        let backend = Faulty::default();
        let faults = Arc::clone(&backend.faults);
        faults.clear();
        (Self::formatted(Arc::new(backend), "mem://").await.expect("a store"), faults)
    }
}

impl Faulty {
    /// Does it, unless it fails.
    fn then<'a, T: 'a>(
        &'a self,
        path: &ObjectPath,
        work: impl FnOnce(&'a Memory) -> Answer<'a, T> + Send + 'a,
    ) -> Answer<'a, T> {
        let path = path.clone();
        async move {
            self.faults.reach(&path).await?;
            work(&self.memory).await
        }
        .boxed()
    }
}

impl Backend for Faulty {
    fn stat(&self, path: &ObjectPath) -> Answer<'_, Option<Stat>> {
        let at = path.clone();
        self.then(path, move |memory| async move { memory.stat(&at).await }.boxed())
    }

    fn read(&self, path: &ObjectPath, limit: u64) -> Answer<'_, Option<Bytes>> {
        let at = path.clone();
        self.then(path, move |memory| async move { memory.read(&at, limit).await }.boxed())
    }

    fn open_now(&self, path: &ObjectPath) -> Result<Option<Blob>, StoreError> {
        self.faults.check(path)?;
        self.memory.open_now(path)
    }

    fn open(&self, path: &ObjectPath) -> Answer<'_, Option<Blob>> {
        let at = path.clone();
        self.then(path, move |memory| async move { memory.open(&at).await }.boxed())
    }

    fn put(&self, path: &ObjectPath, staging: &ObjectPath, bytes: Bytes) -> Answer<'_, ()> {
        let (at, staging) = (path.clone(), staging.clone());
        self.then(path, move |memory| async move { memory.put(&at, &staging, bytes).await }.boxed())
    }

    fn put_if_absent(&self, path: &ObjectPath, staging: &ObjectPath, bytes: Bytes) -> Answer<'_, bool> {
        let (at, staging) = (path.clone(), staging.clone());
        self.then(path, move |memory| async move { memory.put_if_absent(&at, &staging, bytes).await }.boxed())
    }

    fn publish(&self, path: &ObjectPath, staging: &ObjectPath, bytes: Bytes) -> Answer<'_, Blob> {
        let (at, staging) = (path.clone(), staging.clone());
        self.then(path, move |memory| async move { memory.publish(&at, &staging, bytes).await }.boxed())
    }

    fn upload(&self, staging: &ObjectPath, left: Option<&ObjectPath>) -> Answer<'_, Box<dyn Upload>> {
        let (at, left) = (staging.clone(), left.cloned());
        let path = staging.clone();
        async move {
            self.faults.reach(&path).await?;
            let upload = self.memory.upload(&at, left.as_ref()).await?;
            Ok(Box::new(FaultyUpload { upload, faults: Arc::clone(&self.faults) }) as Box<dyn Upload>)
        }
        .boxed()
    }

    fn list(&self, folder: &ObjectPath, read: Option<u64>) -> Lister {
        match self.faults.check(folder) {
            Ok(()) => self.memory.list(folder, read),
            Err(error) => Lister::start(folder, move |parts| {
                parts.push(Part::new(move |take: &mut dyn FnMut(Result<Entry, StoreError>) -> _| {
                    _ = take(Err(error));
                }));
            }),
        }
    }

    fn folders(&self, folder: &ObjectPath) -> Answer<'_, Vec<String>> {
        let at = folder.clone();
        self.then(folder, move |memory| async move { memory.folders(&at).await }.boxed())
    }

    fn delete(&self, path: &ObjectPath) -> Answer<'_, bool> {
        let at = path.clone();
        self.then(path, move |memory| async move { memory.delete(&at).await }.boxed())
    }

    fn condemn(&self, moves: Vec<(ObjectPath, ObjectPath)>) -> Answer<'_, Vec<bool>> {
        async move {
            let mut moved = Vec::with_capacity(moves.len());
            // Each may be the one that fails.
            for one in moves {
                let live = one.0.clone();
                moved.extend(self.then(&live, |memory| memory.condemn(vec![one])).await?);
            }
            Ok(moved)
        }
        .boxed()
    }

    fn restore(&self, trash: &ObjectPath, live: &ObjectPath) -> Answer<'_, bool> {
        let (at, live) = (trash.clone(), live.clone());
        self.then(trash, move |memory| async move { memory.restore(&at, &live).await }.boxed())
    }

    fn quarantine(&self, live: &ObjectPath, aside: &ObjectPath, seen: Option<&Blob>) -> Answer<'_, bool> {
        let (at, aside, seen) = (live.clone(), aside.clone(), seen.cloned());
        self.then(live, move |memory| {
            async move { memory.quarantine(&at, &aside, seen.as_ref()).await }.boxed()
        })
    }

    fn set_modified(&self, path: &ObjectPath, at: Timestamp) -> Answer<'_, bool> {
        let place = path.clone();
        self.then(path, move |memory| async move { memory.set_modified(&place, at).await }.boxed())
    }

    fn lock(&self, path: &ObjectPath) -> Result<Option<StoreLock>, StoreError> {
        Backend::lock(&self.memory, path)
    }

    fn reap_staging(
        &self,
        staging: &ObjectPath,
        left_before: Timestamp,
        dry_run: bool,
    ) -> Answer<'_, (u64, u64)> {
        let at = staging.clone();
        self.then(staging, move |memory| {
            async move { memory.reap_staging(&at, left_before, dry_run).await }.boxed()
        })
    }
}

/// An upload that fails with its backend.
#[derive(Debug)]
struct FaultyUpload {
    upload: Box<dyn Upload>,
    faults: Arc<Faults>,
}

impl Upload for FaultyUpload {
    fn begun(&self) -> u64 {
        self.upload.begun()
    }

    fn append(&mut self, chunks: &[Bytes]) -> Result<(), StoreError> {
        self.faults.check(&super::layout::types())?;
        self.upload.append(chunks)
    }

    fn reader(&self) -> StagedReader {
        self.upload.reader()
    }

    fn leave(&mut self) -> u64 {
        if self.faults.is_dead() { 0 } else { self.upload.leave() }
    }

    fn publish(self: Box<Self>, path: &ObjectPath) -> Answer<'static, Blob> {
        match self.faults.check(path) {
            Ok(()) => self.upload.publish(path),
            Err(error) => ready(Err(error)).boxed(),
        }
    }
}
