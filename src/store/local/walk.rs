//! Listing directories.
//!
//! Each directory is opened relative to the root first and then read by way of its descriptor, so a
//! listing never leaves the root. A directory that changed while it was read is read again, because
//! POSIX lets a reading miss an entry that is renamed meanwhile; what any of the readings saw counts. And
//! when its files have been read, so is the directory once more, for what was renamed in between.
//! Memory: the names of one directory, the paths of the directories still to be read, and the names and
//! descriptors of the few parts that wait to be read.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::FileType;
use std::ops::{ControlFlow, Range};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, Mode, OFlags, Stat as RawStat};
use rustix::io::{Errno, Result};
use walkdir::WalkDir;

use super::super::backend::{Entries, Part, Parts};
use super::super::{Entry, Lister, ObjectPath, Stat, StoreError, layout};
use super::root::{Root, absent_is_none, is_regular};
use super::{Files, stat_of};
use crate::model::give_way;

/// How often a directory is read again before what was seen is taken as it is. A writer that never
/// rests must not keep gc from ever ending; that an entry escapes every reading is what the index
/// and the writer's own check after publishing are for.
const READINGS: usize = 8;

/// The most folders of which a part of a listing holds names: each is an open file.
const PART_FOLDERS: usize = 32;

/// Names that a directory holds, and what it says is there under them.
type Found = Vec<(OsString, FileType)>;

/// What is in an open directory, by name.
pub(super) fn names(dir: BorrowedFd<'_>) -> Result<Found> {
    settle(|| changed_at(dir), || read_once(dir))
}

/// Reads until `stamp` says that nothing changed meanwhile; what any of the readings saw, sorted.
fn settle<S: PartialEq, K>(
    mut stamp: impl FnMut() -> Result<S>,
    mut read: impl FnMut() -> Result<Vec<(OsString, K)>>,
) -> Result<Vec<(OsString, K)>> {
    let mut before = stamp()?;
    let mut names = read()?;
    for _ in 1..READINGS {
        let after = stamp()?;
        if after == before {
            break;
        }
        before = after;
        let seen: HashSet<OsString> = names.iter().map(|(name, _)| name.clone()).collect();
        names.extend(read()?.into_iter().filter(|(name, _)| !seen.contains(name)));
    }
    names.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    Ok(names)
}

fn changed_at(dir: BorrowedFd<'_>) -> Result<(i64, u64)> {
    let stat = rustix::fs::fstat(dir)?;
    Ok((stat.st_mtime, stat.st_mtime_nsec))
}

fn read_once(dir: BorrowedFd<'_>) -> Result<Found> {
    // The descriptor's own name: nothing on the way to the directory is looked up a second time.
    read_path(&format!("/proc/self/fd/{}", dir.as_raw_fd()))
}

fn read_path(path: &str) -> Result<Found> {
    let entries = WalkDir::new(path).min_depth(1).max_depth(1).into_iter();
    let read = entries.map(|entry| entry.map(|entry| (entry.file_name().to_owned(), entry.file_type())));
    read.filter_map(|entry| match entry {
        Ok(entry) => Some(Ok(entry)),
        // One that went while it was looked at. The directory itself must be readable: to take it for
        // empty because, say, `/proc` is not mounted would make gc believe that nothing is needed.
        Err(error) if error.depth() > 0 && errno_of(&error) == Errno::NOENT => None,
        Err(error) => Some(Err(errno_of(&error))),
    })
    .collect()
}

fn errno_of(error: &walkdir::Error) -> Errno {
    error.io_error().and_then(Errno::from_io_error).unwrap_or(Errno::IO)
}

/// Lists every object below a folder, to be read with its content if `read` gives a limit for it.
pub(super) fn walk(files: &Arc<Files>, folder: &ObjectPath, read: Option<u64>, parts: &Parts) {
    let mut part = Names::new(files, read);
    let mut todo = vec![folder.clone()];
    while let Some(folder) = todo.pop() {
        let first = todo.len();
        match list(&files.root, &folder, &mut todo) {
            Ok(None) => {}
            Ok(Some((dir, names))) => part.add(&Folder::new(dir, folder, names), parts),
            Err(error) => part.fail(files.error("list", &folder, error)),
        }
        if parts.abandoned() {
            return;
        }
        give_way();
        // The stack gives back the last first.
        todo[first..].reverse();
    }
    part.flush(parts);
}

/// Opens a folder and reads its names: folders go to `todo`, all others are returned, and folders that have the
/// name of an object. `None` if it has gone since its name was read.
fn list(root: &Root, folder: &ObjectPath, todo: &mut Vec<ObjectPath>) -> Result<Option<(OwnedFd, Found)>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let dir = match root.open(folder.as_str(), flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        opened => opened?,
    };
    let mut found = names(dir.as_fd())?;
    found.retain(|(name, kind)| match name.to_str().filter(|_| kind.is_dir()) {
        Some(name) => {
            let path = folder.join(name);
            // In an object's place it shows itself too.
            let shows = layout::is_object(path.as_str());
            todo.push(path);
            shows
        }
        None => true,
    });
    Ok(Some((dir, found)))
}

/// An open folder.
struct Folder {
    dir: OwnedFd,
    path: ObjectPath,
    /// What was listed of it, sorted.
    names: Found,
    /// How many of them are still to be looked at.
    left: AtomicUsize,
    /// Whether one of them had gone when it was looked at.
    lost: AtomicBool,
}

impl Folder {
    fn new(dir: OwnedFd, path: ObjectPath, names: Found) -> Arc<Self> {
        let left = AtomicUsize::new(names.len());
        Arc::new(Self { dir, path, names, left, lost: AtomicBool::new(false) })
    }

    fn knows(&self, name: &OsString) -> bool {
        self.names.binary_search_by(|(known, _)| known.cmp(name)).is_ok()
    }
}

/// Some names of a folder: from one to before another.
type SomeNames = (Arc<Folder>, Range<usize>);

/// Names that become a part of the listing.
struct Names {
    files: Arc<Files>,
    read: Option<u64>,
    /// Open folders and which of their names, or why one could not be listed.
    folders: Vec<std::result::Result<SomeNames, StoreError>>,
    count: usize,
}

impl Names {
    fn new(files: &Arc<Files>, read: Option<u64>) -> Self {
        Self { files: Arc::clone(files), read, folders: Vec::new(), count: 0 }
    }

    /// Adds the names of a folder, and gives away as many parts as become full.
    fn add(&mut self, folder: &Arc<Folder>, parts: &Parts) {
        let mut begin = 0;
        while begin < folder.names.len() {
            let end = folder.names.len().min(begin + Lister::PART_LEN - self.count);
            self.count += end - begin;
            self.folders.push(Ok((Arc::clone(folder), begin..end)));
            if self.count == Lister::PART_LEN || self.folders.len() == PART_FOLDERS {
                self.flush(parts);
            }
            begin = end;
        }
    }

    fn fail(&mut self, error: StoreError) {
        self.folders.push(Err(error));
    }

    /// Gives away what there is as a part.
    fn flush(&mut self, parts: &Parts) {
        let next = Self::new(&self.files, self.read);
        let names = std::mem::replace(self, next);
        if !names.folders.is_empty() {
            parts.push(Part::new(move |take| _ = names.read(take)));
        }
    }

    fn read(mut self, take: Entries<'_>) -> ControlFlow<()> {
        for folder in std::mem::take(&mut self.folders) {
            match folder {
                Ok((folder, range)) => {
                    self.read_names(&folder, &folder.names[range.clone()], take)?;
                    let left = folder.left.fetch_sub(range.len(), Ordering::AcqRel) - range.len();
                    // Only where contents are read does it matter: by them gc knows what is needed.
                    if left == 0 && self.read.is_some() {
                        self.read_late(&folder, take)?;
                    }
                }
                Err(error) => take(Err(error))?,
            }
        }
        ControlFlow::Continue(())
    }

    /// Reads what has come since a folder was listed. While names wait to be looked at, a file may take
    /// another name, and then it is under neither: so when all have been looked at, the names are read
    /// again. If one had gone, its file may have taken any other's place, and all are looked at again.
    fn read_late(&self, folder: &Folder, take: Entries<'_>) -> ControlFlow<()> {
        let mut seen = HashSet::new();
        for _ in 1..READINGS {
            let mut late = match names(folder.dir.as_fd()) {
                Ok(names) => names,
                Err(error) => return take(Err(self.files.error("list", &folder.path, error))),
            };
            let lost = folder.lost.swap(false, Ordering::AcqRel);
            late.retain(|(name, kind)| {
                !kind.is_dir() && (lost || !folder.knows(name) && !seen.contains(name))
            });
            if late.is_empty() {
                break;
            }
            self.read_names(folder, &late, take)?;
            seen.extend(late.into_iter().map(|(name, _)| name));
        }
        ControlFlow::Continue(())
    }

    fn read_names(
        &self,
        folder: &Folder,
        names: &[(OsString, FileType)],
        take: Entries<'_>,
    ) -> ControlFlow<()> {
        for (name, kind) in names {
            match entry(&self.files, folder, name, *kind, self.read) {
                Ok(None) => folder.lost.store(true, Ordering::Release),
                Ok(Some(entry)) => take(Ok(entry))?,
                Err(error) => take(Err(self.files.error("list", &folder.path, error)))?,
            }
        }
        ControlFlow::Continue(())
    }
}

/// What is there under a name that is no folder's; `None` if it has gone.
fn entry(
    files: &Files,
    folder: &Folder,
    name: &OsStr,
    kind: FileType,
    read: Option<u64>,
) -> Result<Option<Entry>> {
    let path = folder.path.join(&name.to_string_lossy());
    let is_file = kind.is_file() && name.to_str().is_some();
    if let Some(limit) = read.filter(|_| is_file) {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&folder.dir, name, flags, Mode::empty());
        match opened.and_then(|file| read_open(&file, limit)) {
            Ok((raw, bytes)) => {
                let stat = stat_of(&raw);
                return Ok(Some(Entry { path, content: stat.regular.then_some(Ok(bytes)), stat }));
            }
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => {
                let found = stat(folder, name)?;
                let content = Err(files.error("read", &path, error));
                return Ok(found.map(|stat| Entry { path, content: stat.regular.then_some(content), stat }));
            }
        }
    }
    let found = stat(folder, name)?;
    Ok(found.map(|stat| Entry {
        path,
        stat: Stat { regular: stat.regular && is_file, ..stat },
        content: None,
    }))
}

fn stat(folder: &Folder, name: &OsStr) -> Result<Option<Stat>> {
    let found = absent_is_none(rustix::fs::statat(&folder.dir, name, AtFlags::SYMLINK_NOFOLLOW))?;
    Ok(found.as_ref().map(stat_of))
}

/// The content of an open small file, cut off after `limit + 1` bytes. Empty if it is not a file.
pub(super) fn read_open(file: &OwnedFd, limit: u64) -> Result<(RawStat, Bytes)> {
    let raw = rustix::fs::fstat(file)?;
    let size = u64::try_from(raw.st_size).unwrap_or(0).min(limit.saturating_add(1));
    let size_in_memory = usize::try_from(size).map_err(|_| Errno::FBIG)?;
    let mut buffer = Vec::with_capacity(size_in_memory);
    while is_regular(&raw) && buffer.len() < size_in_memory {
        let at = buffer.len() as u64;
        match rustix::io::pread(file, spare_capacity(&mut buffer), at) {
            // Cut short while it was read: its content will say that it is damaged.
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(size_in_memory);
    Ok((raw, buffer.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_changed_is_read_again_and_every_reading_counts_once() {
        let mut stamps = [1, 2, 3, 3, 4].into_iter();
        let mut readings = [vec!["b", "c"], vec!["b", "a"], vec!["c", "d"], vec!["e"]].into_iter();
        let names = settle(
            || stamps.next().ok_or(Errno::IO),
            || Ok(readings.next().ok_or(Errno::IO)?.into_iter().map(|name| (name.into(), ())).collect()),
        );
        let names: Vec<_> = names.expect("read").into_iter().map(|(name, ())| name).collect();
        assert_eq!(names, ["a", "b", "c", "d"]);
    }

    #[test]
    fn a_directory_that_never_rests_is_taken_as_it_was_seen() {
        let (mut stamp, mut readings) = (0, 0);
        let names = settle(
            || {
                stamp += 1;
                Ok(stamp)
            },
            || {
                readings += 1;
                Ok(vec![(OsString::from(readings.to_string()), ())])
            },
        );
        assert_eq!(names.expect("read").len(), READINGS);
    }

    #[test]
    fn a_directory_that_cannot_be_read_is_an_error_and_not_empty() {
        assert_eq!(read_path("/proc/none/fd/3").expect_err("no such directory"), Errno::NOENT);
    }
}
