//! Listing directories.
//!
//! Each directory is opened relative to the root first and then read by way of its descriptor, so a
//! listing never leaves the root. A directory that changed while it was read is read again, because
//! POSIX lets a reading miss an entry that is renamed meanwhile; what any of the readings saw counts.
//! Memory: the names of one directory, and the paths of the directories still to be read.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::FileType;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, Mode, OFlags, Stat as RawStat};
use rustix::io::{Errno, Result};
use walkdir::WalkDir;

use super::super::backend::Pages;
use super::super::{Entry, ObjectPath, StoreError, layout};
use super::root::{Root, absent_is_none, is_regular};
use super::stat_of;

/// How often a directory is read again before what was seen is taken as it is. A writer that never
/// rests must not keep gc from ever ending; that an entry escapes every reading is what the index
/// and the writer's own check after publishing are for.
const READINGS: usize = 8;

/// What is in an open directory, by name.
pub(super) fn names(dir: BorrowedFd<'_>) -> Result<Vec<(OsString, FileType)>> {
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

fn read_once(dir: BorrowedFd<'_>) -> Result<Vec<(OsString, FileType)>> {
    // The descriptor's own name: nothing on the way to the directory is looked up a second time.
    read_path(&format!("/proc/self/fd/{}", dir.as_raw_fd()))
}

fn read_path(path: &str) -> Result<Vec<(OsString, FileType)>> {
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

/// Lists every object below a folder, with its content if `read` gives a limit for it.
pub(super) fn walk(root: &Root, folder: &ObjectPath, read: Option<u64>, pages: &mut Pages) {
    let mut todo = vec![folder.clone()];
    while let Some(folder) = todo.pop() {
        let first = todo.len();
        if let Err(error) = list(root, &folder, read, pages, &mut todo) {
            pages.fail(StoreError::io("list", root.path().join(folder.as_str()), error));
        }
        if pages.abandoned() {
            return;
        }
        // The stack gives back the last first.
        todo[first..].reverse();
    }
}

fn list(
    root: &Root,
    folder: &ObjectPath,
    read: Option<u64>,
    pages: &mut Pages,
    todo: &mut Vec<ObjectPath>,
) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let dir = match root.open(folder.as_str(), flags, Mode::empty()) {
        // Removed since its name was read.
        Err(Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    let names = names(dir.as_fd())?;
    if names.is_empty() && layout::is_object(folder.as_str()) {
        // A directory in an object's place; with something in it, that shows.
        let stat = stat_of(&rustix::fs::fstat(&dir)?);
        pages.push(Entry { path: folder.clone(), stat, content: None });
    }
    for (name, kind) in names {
        let path = folder.join(&name.to_string_lossy());
        match (name.to_str(), kind.is_dir()) {
            (Some(_), true) => todo.push(path),
            (Some(text), false) if kind.is_file() => {
                if let Some(entry) = entry(root, &dir, path, text, read)? {
                    pages.push(entry);
                }
            }
            (Some(_), false) | (None, _) => {
                let found = rustix::fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW);
                if let Some(raw) = absent_is_none(found)? {
                    let stat = super::super::Stat { regular: false, ..stat_of(&raw) };
                    pages.push(Entry { path, stat, content: None });
                }
            }
        }
        if pages.abandoned() {
            break;
        }
    }
    Ok(())
}

/// An entry that the directory says is a file; `None` if it has gone.
fn entry(
    root: &Root,
    dir: &OwnedFd,
    path: ObjectPath,
    name: &str,
    read: Option<u64>,
) -> Result<Option<Entry>> {
    let opened = match read {
        None => None,
        Some(limit) => {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let read =
                rustix::fs::openat(dir, name, flags, Mode::empty()).and_then(|file| read_open(&file, limit));
            Some(match read {
                Err(Errno::NOENT) => return Ok(None),
                read => read.map_err(|error| StoreError::io("read", root.path().join(path.as_str()), error)),
            })
        }
    };
    let (raw, content) = match opened {
        Some(Ok((raw, bytes))) => (Some(raw), Some(Ok(bytes))),
        Some(Err(error)) => (None, Some(Err(error))),
        None => (None, None),
    };
    let raw = match raw {
        Some(raw) => raw,
        None => match absent_is_none(rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW))? {
            Some(raw) => raw,
            None => return Ok(None),
        },
    };
    let stat = stat_of(&raw);
    Ok(Some(Entry { path, content: content.filter(|_| stat.regular), stat }))
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
