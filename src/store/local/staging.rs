//! Where files lie before they are published: `tmp/<instance>/`, one directory for each place and
//! each open store.
//!
//! The file `.alive` in it is locked (`flock`) as long as its owner lives; the kernel lets go of the
//! lock when the owner dies, however it dies. Whoever can take the lock may remove the directory.
//! While an owner makes its directory it holds `tmp/` itself shared, and whoever wants to know whether
//! an owner is dead holds it alone, so that nobody is taken for dead who is just being born. Both
//! locks are held for a few system calls. Where there are no locks, nobody is ever taken for dead.
//!
//! What was left before its end (`partial/`) belongs to nobody: who goes on with it renames it into a
//! directory of its own, which only one can do, and what is old is removed.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, Stat as RawStat};
use rustix::io::{Errno, Result};
use ulid::Ulid;

use super::super::layout;
use super::root::{DIR_MODE, FILE_MODE, Root, TRIES, absent_is_none, is_regular};
use super::walk::names;
use super::{size_of, stat_of};
use crate::model::Timestamp;

/// The file whose lock says that the owner lives.
const ALIVE: &str = ".alive";

/// The staging directories of one open store, made when they are first needed.
#[derive(Debug, Default)]
pub(super) struct Stagings {
    /// By the path of the `tmp/` they are in.
    own: Mutex<HashMap<String, Arc<Staging>>>,
}

impl Stagings {
    /// Creates an empty file in the staging directory of this instance below `tmp`.
    pub(super) fn create(&self, root: &Root, tmp: &str) -> Result<TempFile> {
        for _ in 1..TRIES {
            match TempFile::create(self.at(root, tmp)?) {
                // Somebody removed the directory by hand.
                Err(Errno::NOENT) => drop(self.lock().remove(tmp)),
                done => return done,
            }
        }
        TempFile::create(self.at(root, tmp)?)
    }

    /// Takes the file at `left` into the staging directory of this instance below `tmp`; with its size.
    /// `None` if there is none, and if it is no use.
    pub(super) fn adopt(&self, root: &Root, tmp: &str, left: &str) -> Result<Option<(TempFile, u64)>> {
        let Some((dir, leaf)) = absent_is_none(root.parent(left))? else { return Ok(None) };
        // Most have nothing that was left, and need no directory of their own to know.
        if absent_is_none(rustix::fs::statat(&dir, leaf, AtFlags::SYMLINK_NOFOLLOW))?.is_none() {
            return Ok(None);
        }
        let staging = self.at(root, tmp)?;
        let name = staging.next_name();
        if absent_is_none(rustix::fs::renameat(&dir, leaf, &staging.dir, &name))?.is_none() {
            return Ok(None);
        }
        Ok(TempFile::take_up(staging, name))
    }

    fn at(&self, root: &Root, tmp: &str) -> Result<Arc<Staging>> {
        let mut own = self.lock();
        if let Some(staging) = own.get(tmp) {
            return Ok(Arc::clone(staging));
        }
        let staging = Arc::new(Staging::make(root, tmp)?);
        own.insert(tmp.to_owned(), Arc::clone(&staging));
        Ok(staging)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Staging>>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One staging directory of ours. Removes itself, if it is empty, when the last file in it has gone.
#[derive(Debug)]
struct Staging {
    tmp: OwnedFd,
    instance: String,
    dir: OwnedFd,
    /// Held for its lock.
    _alive: OwnedFd,
    next: AtomicU64,
}

impl Staging {
    fn make(root: &Root, tmp: &str) -> Result<Self> {
        let instance = Ulid::new().to_string();
        root.make_dirs(tmp)?;
        let tmp = root.open(tmp, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        lock(&tmp, FlockOperation::LockShared)?;
        rustix::fs::mkdirat(&tmp, &instance, DIR_MODE)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(&tmp, &instance, flags, Mode::empty())?;
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let alive = rustix::fs::openat(&dir, ALIVE, flags, FILE_MODE)?;
        lock(&alive, FlockOperation::NonBlockingLockExclusive)?;
        lock(&tmp, FlockOperation::Unlock)?;
        Ok(Self { tmp, instance, dir, _alive: alive, next: AtomicU64::new(0) })
    }
}

/// Takes or gives back a lock, where there are locks.
fn lock(file: &OwnedFd, operation: FlockOperation) -> Result<()> {
    loop {
        match rustix::fs::flock(file, operation) {
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOLCK) => return Ok(()),
            done => return done,
        }
    }
}

impl Staging {
    fn next_name(&self) -> String {
        format!("{}.part", self.next.fetch_add(1, Ordering::Relaxed))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What cannot be removed now is removed by gc later.
        let _ = rustix::fs::unlinkat(&self.dir, ALIVE, AtFlags::empty());
        let _ = rustix::fs::unlinkat(&self.tmp, &self.instance, AtFlags::REMOVEDIR);
    }
}

/// A file that is not published yet. Dropping it removes it.
#[derive(Debug)]
pub(super) struct TempFile {
    staging: Arc<Staging>,
    name: String,
    file: Arc<OwnedFd>,
    published: bool,
}

impl TempFile {
    fn create(staging: Arc<Staging>) -> Result<Self> {
        let name = staging.next_name();
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = Arc::new(rustix::fs::openat(&staging.dir, &name, flags, FILE_MODE)?);
        Ok(Self { staging, name, file, published: false })
    }

    /// Opens what lies in the staging directory, to go on with it; with its size. What is not a file of ours
    /// alone is removed: `None`.
    fn take_up(staging: Arc<Staging>, name: String) -> Option<(Self, u64)> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&staging.dir, &name, flags, Mode::empty());
        let opened = opened.and_then(|file| Ok((rustix::fs::fstat(&file)?, file)));
        match opened {
            Ok((stat, file)) if is_regular(&stat) && stat.st_nlink == 1 => {
                let file = Self { staging, name, file: Arc::new(file), published: false };
                Some((file, size_of(&stat)))
            }
            _ => {
                // What cannot be removed now, a directory for one, gc removes when this process has ended.
                let _ = rustix::fs::unlinkat(&staging.dir, &name, AtFlags::empty());
                None
            }
        }
    }

    pub(super) const fn file(&self) -> &Arc<OwnedFd> {
        &self.file
    }

    /// Gives it a name, which must not be taken.
    pub(super) fn rename_new(&mut self, dir: impl AsFd, name: &str) -> Result<()> {
        let from = &self.staging.dir;
        let no_replace = rustix::fs::RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(from, &self.name, &dir, name, no_replace) {
            // Not every file system knows how not to replace; all that have links know this.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                rustix::fs::linkat(from, &self.name, &dir, name, AtFlags::empty())?;
            }
            Err(error) => return Err(error),
            Ok(()) => self.published = true,
        }
        Ok(())
    }

    /// Gives it a name, taking the place of what has it.
    pub(super) fn rename_over(&mut self, dir: impl AsFd, name: &str) -> Result<()> {
        rustix::fs::renameat(&self.staging.dir, &self.name, dir, name)?;
        self.published = true;
        Ok(())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.published {
            // What cannot be removed now is removed by gc when this process has ended.
            let _ = rustix::fs::unlinkat(&self.staging.dir, &self.name, AtFlags::empty());
        }
    }
}

/// Removes the directories below `tmp` whose owners have died, and what was left and is older than the
/// given time; returns files and bytes. With `dry_run` only counts.
pub(super) fn reap(root: &Root, tmp: &str, left_before: Timestamp, dry_run: bool) -> Result<(u64, u64)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let Some(tmp) = absent_is_none(root.open(tmp, flags, Mode::empty()))? else { return Ok((0, 0)) };
    let mut total = (0, 0);
    for (name, kind) in names(tmp.as_fd())? {
        if !kind.is_dir() {
            continue;
        }
        if name == layout::LEFT {
            let (files, bytes) = reap_left(&tmp, left_before, dry_run)?;
            total = (total.0 + files, total.1 + bytes);
            continue;
        }
        let Some(dead) = Dead::find(&tmp, &name)? else { continue };
        let (files, bytes) = empty(&dead.dir, |_| true, dry_run)?;
        total = (total.0 + files, total.1 + bytes);
        if !dry_run {
            // Last, so that a reaper that is stopped half-way leaves something that can be reaped.
            absent_is_none(rustix::fs::unlinkat(&dead.dir, ALIVE, AtFlags::empty()))?;
            // Fails if somebody put a directory there; that is not ours to remove.
            let _ = rustix::fs::unlinkat(&tmp, &name, AtFlags::REMOVEDIR);
        }
    }
    Ok(total)
}

/// A staging directory whose owner has died.
struct Dead {
    dir: OwnedFd,
    /// The owner's lock; none if the owner died before it had made it.
    _alive: Option<OwnedFd>,
}

impl Dead {
    /// `None` if the owner lives, or nobody knows.
    fn find(tmp: &OwnedFd, name: &OsStr) -> Result<Option<Self>> {
        if rustix::fs::flock(tmp, FlockOperation::LockExclusive).is_err() {
            return Ok(None);
        }
        let found = Self::find_alone(tmp, name);
        lock(tmp, FlockOperation::Unlock)?;
        found
    }

    fn find_alone(tmp: &OwnedFd, name: &OsStr) -> Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(tmp, name, flags | OFlags::DIRECTORY, Mode::empty());
        let Some(dir) = absent_is_none(dir)? else { return Ok(None) };
        let alive = absent_is_none(rustix::fs::openat(&dir, ALIVE, flags, Mode::empty()))?;
        let is_dead = alive
            .as_ref()
            .is_none_or(|alive| rustix::fs::flock(alive, FlockOperation::NonBlockingLockExclusive).is_ok());
        Ok(is_dead.then_some(Self { dir, _alive: alive }))
    }
}

/// Removes what was left before the given time.
fn reap_left(tmp: &OwnedFd, before: Timestamp, dry_run: bool) -> Result<(u64, u64)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(tmp, layout::LEFT, flags, Mode::empty());
    let Some(dir) = absent_is_none(dir)? else { return Ok((0, 0)) };
    let total = empty(&dir, |stat| stat_of(stat).modified < before, dry_run)?;
    if !dry_run {
        // Fails as long as there is something in it.
        let _ = rustix::fs::unlinkat(tmp, layout::LEFT, AtFlags::REMOVEDIR);
    }
    Ok(total)
}

/// Removes the files of a directory that are to go.
fn empty(dir: &OwnedFd, goes: impl Fn(&RawStat) -> bool, dry_run: bool) -> Result<(u64, u64)> {
    let mut total = (0, 0);
    for (name, kind) in names(dir.as_fd())? {
        if kind.is_dir() || name == ALIVE {
            continue;
        }
        let Some(stat) = absent_is_none(rustix::fs::statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW))? else {
            continue;
        };
        if !goes(&stat) {
            continue;
        }
        if !dry_run {
            absent_is_none(rustix::fs::unlinkat(dir, &name, AtFlags::empty()))?;
        }
        let bytes = if is_regular(&stat) { size_of(&stat) } else { 0 };
        total = (total.0 + 1, total.1 + bytes);
    }
    Ok(total)
}
