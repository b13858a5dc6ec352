//! Objects as files below a directory (`file://`): the backend that the layout is drawn for.
//!
//! It knows files, durability and symlinks, and nothing of refs, blobs or digests. What is read is
//! opened on the caller's thread, as an open of a local file is quicker than handing it over; what
//! writes, syncs or removes goes to the blocking pool.
//!
//! [`root`] keeps every operation inside the root, [`staging`] and [`publish`] make files appear whole
//! or not at all (invariant I1), [`walk`] lists. Linux only: `openat2`, `renameat2`, `RWF_NOWAIT`.

mod late;
mod publish;
mod root;
mod staging;
#[cfg(test)]
mod tests;
mod walk;

use std::fmt;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::ready;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, Stat as RawStat, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use self::late::LateUpload;
use self::root::{FILE_MODE, Root, absent_is_none, is_regular, retry_absent};
use self::staging::Stagings;
use super::backend::{Answer, Held};
use super::blob::Content;
use super::{
    Backend, Blob, Lister, ObjectPath, Space, Stat, StoreError, StoreLock, Upload, blocking, layout,
};
use crate::model::{Timestamp, give_way};

/// The backend.
#[derive(Debug)]
pub(super) struct Local(Arc<Files>);

/// What the blocking pool works on.
#[derive(Debug)]
struct Files {
    root: Root,
    stagings: Stagings,
}

impl Local {
    /// Opens a directory as a root.
    ///
    /// # Errors
    /// [`StoreError::NoStore`] if there is none, [`StoreError::Unusable`] if anybody may write to it.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let shown = path.display().to_string();
        let root = match Root::open_dir(path) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Err(StoreError::NoStore(shown)),
            opened => opened.map_err(|error| StoreError::io("open", path, error))?,
        };
        let stat = rustix::fs::fstat(root.dir()).map_err(|error| StoreError::io("stat", path, error))?;
        if Mode::from_raw_mode(stat.st_mode).contains(Mode::WOTH) {
            let why = format!("anybody may write to it; run `chmod o-w {shown}`, or name another root");
            return Err(StoreError::Unusable { root: shown, why });
        }
        Ok(Self(Arc::new(Files { root, stagings: Stagings::default() })))
    }

    /// Makes the directory, with those above it, and opens it.
    pub(super) fn create(path: &Path) -> Result<Self, StoreError> {
        root::make_root(path).map_err(|error| StoreError::io("make", path, error))?;
        Self::open(path)
    }

    /// Sees that these directories, those of them that are there, are on one file system: a rename
    /// between them is how everything is published.
    pub(super) fn same_file_system(&self, dirs: &[ObjectPath]) -> Result<(), StoreError> {
        let mut first: Option<(&ObjectPath, u64)> = None;
        for dir in dirs {
            let found = self.0.root.stat(dir.as_str()).map_err(|error| self.0.error("stat", dir, error))?;
            match (first, found) {
                (_, None) => {}
                (None, Some(stat)) => first = Some((dir, stat.st_dev)),
                (Some((_, device)), Some(stat)) if device == stat.st_dev => {}
                (Some((other, _)), Some(_)) => {
                    let why = format!(
                        "`{dir}` is on another file system than `{other}`, so nothing could be published by a rename; mount the whole root, or all of `type/<type>`, in one place"
                    );
                    return Err(StoreError::Unusable { root: self.0.root.path().display().to_string(), why });
                }
            }
        }
        Ok(())
    }

    /// Runs something that writes, syncs or removes, on the blocking pool.
    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Files>) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<'_, T> {
        let files = Arc::clone(&self.0);
        blocking(move || work(&files)).boxed()
    }
}

impl Files {
    fn error(&self, act: &'static str, path: &ObjectPath, errno: Errno) -> StoreError {
        StoreError::io(act, self.root.path().join(path.as_str()), errno)
    }

    /// Opens a regular file for reading. Never waits (a FIFO), never follows (a symlink).
    fn open_file(&self, path: &ObjectPath) -> Result<Option<(OwnedFd, RawStat)>, StoreError> {
        let file = match self.root.open(path.as_str(), OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error @ (Errno::LOOP | Errno::XDEV | Errno::NXIO | Errno::ACCESS)) => {
                tracing::warn!(%path, %error, "refused to open");
                return Ok(None);
            }
            Err(error) => return Err(self.error("open", path, error)),
        };
        let stat = rustix::fs::fstat(&file).map_err(|error| self.error("stat", path, error))?;
        if !is_regular(&stat) {
            tracing::warn!(%path, "not a regular file, treated as absent");
            return Ok(None);
        }
        Ok(Some((file, stat)))
    }

    fn open(&self, path: &ObjectPath) -> Result<Option<Blob>, StoreError> {
        let opened = self.open_file(path)?;
        Ok(opened.map(|(file, raw)| {
            let Stat { size, modified, .. } = stat_of(&raw);
            Blob::found(Content::File(Arc::new(file)), size, modified)
        }))
    }

    fn stat(&self, path: &ObjectPath) -> Result<Option<Stat>, StoreError> {
        let found = self.root.stat(path.as_str()).map_err(|error| self.error("stat", path, error))?;
        Ok(found.as_ref().map(stat_of))
    }

    /// Whether nothing stands under the name, for sure.
    fn is_absent(&self, path: &ObjectPath) -> bool {
        matches!(self.root.stat(path.as_str()), Ok(None))
    }

    fn prune(&self, path: &ObjectPath) {
        self.root.prune(path.as_str(), layout::permanent_depth(path.as_str()));
    }

    fn delete(&self, path: &ObjectPath) -> Result<bool, StoreError> {
        let gone = self.root.unlink(path.as_str()).map_err(|error| self.error("remove", path, error))?;
        if gone {
            self.prune(path);
        }
        Ok(gone)
    }

    /// Removes a directory with nothing in it, which no file can take the place of; false if it is none.
    fn remove_empty(&self, path: &ObjectPath) -> Result<bool, StoreError> {
        let removed = self
            .root
            .parent(path.as_str())
            .and_then(|(dir, leaf)| rustix::fs::unlinkat(&dir, leaf, AtFlags::REMOVEDIR));
        match removed {
            Ok(()) => Ok(true),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            Err(error) => Err(self.error("remove", path, error)),
        }
    }

    /// Renames, replacing; false if there is nothing to rename.
    fn shift(&self, from: &ObjectPath, to: &ObjectPath) -> Result<bool, StoreError> {
        let moved = retry_absent(|| {
            let Some((from_dir, from_leaf)) = absent_is_none(self.root.parent(from.as_str()))? else {
                return Ok(false);
            };
            let (to_dir, to_leaf) = self.root.make_parent(to.as_str())?;
            match rustix::fs::renameat(&from_dir, from_leaf, &to_dir, to_leaf) {
                // Either side may be what is absent.
                Err(Errno::NOENT) if self.root.stat(from.as_str())?.is_none() => Ok(false),
                done => done.map(|()| true),
            }
        });
        let moved = moved.map_err(|error| self.error("move", from, error))?;
        self.prune(if moved { from } else { to });
        Ok(moved)
    }

    /// Gives a file a second name, unless that is taken; false if there is no such file.
    fn link(&self, from: &ObjectPath, to: &ObjectPath) -> Result<bool, StoreError> {
        let linked = retry_absent(|| {
            let Some((from_dir, from_leaf)) = absent_is_none(self.root.parent(from.as_str()))? else {
                return Ok(false);
            };
            if absent_is_none(rustix::fs::statat(&from_dir, from_leaf, AtFlags::SYMLINK_NOFOLLOW))?.is_none()
            {
                return Ok(false);
            }
            let (to_dir, to_leaf) = self.root.make_parent(to.as_str())?;
            match rustix::fs::linkat(&from_dir, from_leaf, &to_dir, to_leaf, AtFlags::empty()) {
                Ok(()) | Err(Errno::EXIST) => Ok(true),
                Err(Errno::NOENT) if self.root.stat(from.as_str())?.is_none() => Ok(false),
                Err(error) => Err(error),
            }
        });
        linked.map_err(|error| self.error("link", from, error))
    }

    fn quarantine(
        &self,
        live: &ObjectPath,
        aside: &ObjectPath,
        seen: Option<&Blob>,
    ) -> Result<bool, StoreError> {
        let seen = match seen.map(Blob::content) {
            Some(Content::File(file)) => {
                Some(rustix::fs::fstat(&**file).map_err(|error| self.error("stat", live, error))?)
            }
            Some(Content::Unmade(_) | Content::Memory(_) | Content::Growing(_)) => return Ok(false),
            None => None,
        };
        let is_meant = |stat: &RawStat| match &seen {
            Some(seen) => (stat.st_dev, stat.st_ino) == (seen.st_dev, seen.st_ino),
            None => !is_regular(stat),
        };
        let look = |path| self.root.stat(path).map_err(|error| self.error("stat", live, error));
        if !look(live.as_str())?.as_ref().is_some_and(is_meant) || !self.shift(live, aside)? {
            return Ok(false);
        }
        if look(aside.as_str())?.as_ref().is_some_and(is_meant) {
            return Ok(true);
        }
        // A good one was published between the look and the move: it goes back.
        self.link(aside, live)?;
        self.delete(aside)?;
        Ok(false)
    }

    fn set_modified(&self, path: &ObjectPath, at: Timestamp) -> Result<bool, StoreError> {
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec {
                tv_sec: at.as_second(),
                // Never negative after the epoch; before it, the whole second is precise enough.
                tv_nsec: at.subsec_nanosecond().max(0).into(),
            },
        };
        let set = self
            .root
            .parent(path.as_str())
            .and_then(|(dir, leaf)| rustix::fs::utimensat(&dir, leaf, &times, AtFlags::SYMLINK_NOFOLLOW));
        let set = absent_is_none(set).map_err(|error| self.error("set the time of", path, error))?;
        Ok(set.is_some())
    }

    fn lock(&self, path: &ObjectPath) -> Result<Option<StoreLock>, StoreError> {
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NONBLOCK;
        let opened = retry_absent(|| {
            self.root.make_parent(path.as_str())?;
            self.root.open(path.as_str(), flags, FILE_MODE)
        });
        let file = opened.map_err(|error| self.error("open", path, error))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(StoreLock::new(HeldFile { _file: file }))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(self.error("lock", path, error)),
        }
    }

    /// The folders in an open directory.
    fn folders(&self, dir: &OwnedFd, folder: &ObjectPath) -> Result<Vec<String>, StoreError> {
        let names = walk::names(dir.as_fd()).map_err(|error| self.error("list", folder, error))?;
        let folders = names.into_iter().filter(|(_, kind)| kind.is_dir());
        Ok(folders.filter_map(|(name, _)| name.into_string().ok()).collect())
    }
}

impl Backend for Local {
    fn local_dir(&self) -> Option<&Path> {
        Some(self.0.root.path())
    }

    fn space(&self) -> Option<Space> {
        let found = rustix::fs::fstatvfs(self.0.root.dir()).ok()?;
        // File systems that know no bounds say that they have no blocks.
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        (found.f_blocks > 0).then(|| Space { free: bytes(found.f_bavail), total: bytes(found.f_blocks) })
    }

    fn stat(&self, path: &ObjectPath) -> Answer<'_, Option<Stat>> {
        ready(self.0.stat(path)).boxed()
    }

    fn read(&self, path: &ObjectPath, limit: u64) -> Answer<'_, Option<Bytes>> {
        let blob = match self.open_now(path) {
            Ok(Some(blob)) => blob,
            Ok(None) => return ready(Ok(None)).boxed(),
            Err(error) => return ready(Err(error)).boxed(),
        };
        let len = usize::try_from(blob.size().min(limit.saturating_add(1))).unwrap_or(usize::MAX);
        let path = self.0.root.path().join(path.as_str());
        async move {
            let read = match blob.try_read_at(0, len) {
                // What is in memory is here already; a disk is waited for elsewhere.
                Ok(Some(bytes)) if bytes.len() == len => Ok(bytes),
                Ok(_) => return blocking(move || read_whole(&blob, len, path)).await,
                Err(error) => Err(error),
            };
            read.map(Some).map_err(|error| StoreError::io("read", path, error))
        }
        .boxed()
    }

    fn open_now(&self, path: &ObjectPath) -> Result<Option<Blob>, StoreError> {
        self.0.open(path)
    }

    fn open(&self, path: &ObjectPath) -> Answer<'_, Option<Blob>> {
        ready(self.0.open(path)).boxed()
    }

    fn put(&self, path: &ObjectPath, staging: &ObjectPath, bytes: Bytes) -> Answer<'_, ()> {
        let (path, staging) = (path.clone(), staging.clone());
        self.run(move |files| files.put(&path, &staging, bytes, true).map(|_| ()))
    }

    fn put_if_absent(&self, path: &ObjectPath, staging: &ObjectPath, bytes: Bytes) -> Answer<'_, bool> {
        let (path, staging) = (path.clone(), staging.clone());
        self.run(move |files| files.put(&path, &staging, bytes, false))
    }

    fn publish(&self, path: &ObjectPath, staging: &ObjectPath, bytes: Bytes) -> Answer<'_, Blob> {
        let (path, staging) = (path.clone(), staging.clone());
        self.run(move |files| files.publish(&path, &staging, bytes))
    }

    fn upload(&self, staging: &ObjectPath, left: Option<&ObjectPath>) -> Answer<'_, Box<dyn Upload>> {
        let staging = staging.clone();
        let upload = |upload: LateUpload| Box::new(upload) as Box<dyn Upload>;
        match left.cloned() {
            Some(left) if !self.0.is_absent(&left) => {
                self.run(move |files| Ok(upload(LateUpload::take_up(files, staging, left))))
            }
            // So it is with most, and knowing that takes no other thread.
            left => ready(Ok(upload(LateUpload::new(&self.0, staging, left)))).boxed(),
        }
    }

    fn list(&self, folder: &ObjectPath, read: Option<u64>) -> Lister {
        let (files, below) = (Arc::clone(&self.0), folder.clone());
        Lister::start(folder, move |parts| walk::walk(&files, &below, read, parts))
    }

    fn folders(&self, folder: &ObjectPath) -> Answer<'_, Vec<String>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let dir = match absent_is_none(self.0.root.open(folder.as_str(), flags, Mode::empty())) {
            Ok(Some(dir)) => dir,
            // Nothing is there most of the time (trash, for one), and saying so takes no other thread.
            Ok(None) => return ready(Ok(Vec::new())).boxed(),
            Err(error) => return ready(Err(self.0.error("list", folder, error))).boxed(),
        };
        let folder = folder.clone();
        self.run(move |files| files.folders(&dir, &folder))
    }

    fn delete(&self, path: &ObjectPath) -> Answer<'_, bool> {
        let path = path.clone();
        self.run(move |files| files.delete(&path))
    }

    fn condemn(&self, moves: Vec<(ObjectPath, ObjectPath)>) -> Answer<'_, Vec<bool>> {
        // A move takes about as long as to wake a thread for it, and several at a time wait for each other in the kernel.
        self.run(move |files| {
            let shifts = moves.iter().map(|(live, trash)| {
                give_way();
                files.shift(live, trash)
            });
            shifts.collect()
        })
    }

    fn restore(&self, trash: &ObjectPath, live: &ObjectPath) -> Answer<'_, bool> {
        let (trash, live) = (trash.clone(), live.clone());
        self.run(move |files| files.link(&trash, &live))
    }

    fn quarantine(&self, live: &ObjectPath, aside: &ObjectPath, seen: Option<&Blob>) -> Answer<'_, bool> {
        let (live, aside, seen) = (live.clone(), aside.clone(), seen.cloned());
        self.run(move |files| files.quarantine(&live, &aside, seen.as_ref()))
    }

    fn set_modified(&self, path: &ObjectPath, at: Timestamp) -> Answer<'_, bool> {
        let path = path.clone();
        self.run(move |files| files.set_modified(&path, at))
    }

    fn lock(&self, path: &ObjectPath) -> Result<Option<StoreLock>, StoreError> {
        self.0.lock(path)
    }

    fn reap_staging(
        &self,
        staging: &ObjectPath,
        left_before: Timestamp,
        dry_run: bool,
    ) -> Answer<'_, (u64, u64)> {
        let staging = staging.clone();
        self.run(move |files| {
            staging::reap(&files.root, staging.as_str(), left_before, dry_run)
                .map_err(|error| files.error("reap", &staging, error))
        })
    }
}

fn read_whole(blob: &Blob, len: usize, path: PathBuf) -> Result<Option<Bytes>, StoreError> {
    blob.read_at(0, len).map(Some).map_err(|error| StoreError::io("read", path, error))
}

/// An open file that is locked as long as it is open.
struct HeldFile {
    _file: OwnedFd,
}

impl Held for HeldFile {}

impl fmt::Debug for HeldFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeldFile")
    }
}

fn size_of(stat: &RawStat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

fn stat_of(raw: &RawStat) -> Stat {
    let nanoseconds = i32::try_from(raw.st_mtime_nsec).unwrap_or(0);
    // A time beyond what can be written is as old as can be.
    let modified = Timestamp::new(raw.st_mtime, nanoseconds).unwrap_or(Timestamp::MIN);
    Stat { size: size_of(raw), modified, regular: is_regular(raw) }
}
