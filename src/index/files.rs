//! The few file operations that SQLite does not do itself: making the directory, telling one file
//! from another, setting a damaged one aside.
//!
//! It must not know SQL. It never opens the database file itself: closing a second descriptor would
//! drop the locks that SQLite holds on it (POSIX advisory locks belong to the process).
//!
//! A crash between the renames of one set leaves a log without its database; the next open sets
//! that aside too.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::IndexError;
use crate::model::{Clock, SystemClock};

/// The database's file name within the index directory.
pub(super) const DATABASE: &str = "index.db";

/// What SQLite puts behind the database's name, the database itself first.
const PARTS: [&str; 3] = ["", "-wal", "-shm"];

/// The smallest page that SQLite has, in bytes.
const SMALLEST: u64 = 512;

/// How many sets of damaged files are kept.
const KEPT: usize = 3;

/// How long another process may take to open or set aside, in steps of [`LOCK_STEP`].
const LOCK_TRIES: u32 = 500;
const LOCK_STEP: Duration = Duration::from_millis(10);

/// Which file a path leads to at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    /// Whether it is shorter than the smallest database. An open index never is.
    pub(super) short: bool,
}

impl Identity {
    /// What is at a path; `None` if nothing is.
    pub(super) fn of(path: &Path) -> Result<Option<Self>, IndexError> {
        match fs::symlink_metadata(path) {
            Ok(found) => {
                Ok(Some(Self { device: found.dev(), inode: found.ino(), short: found.len() < SMALLEST }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(IndexError::Io { act: "look at", path: path.into(), source }),
        }
    }

    /// Whether both are the same file, whatever is in it.
    pub(super) fn same_file(self, other: Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// The index directory, held against other processes that open an index or set one aside.
///
/// For order between openers only; nothing relies on it for the safety of content. Released on drop.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    _lock: fs::File,
}

impl Directory {
    /// Makes the directory if it is not there (mode 0750) and waits for its lock, at most five
    /// seconds.
    ///
    /// # Errors
    /// [`IndexError::Busy`] if another process keeps the lock.
    pub(super) fn hold(path: &Path) -> Result<Self, IndexError> {
        let failed = |act| move |source| IndexError::Io { act, path: path.into(), source };
        fs::DirBuilder::new().recursive(true).mode(0o750).create(path).map_err(failed("make"))?;
        let lock = fs::File::open(path).map_err(failed("open"))?;
        for _ in 0..LOCK_TRIES {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { path: path.into(), _lock: lock }),
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => std::thread::sleep(LOCK_STEP),
                Err(error) => return Err(failed("lock")(error.into())),
            }
        }
        Err(IndexError::Busy)
    }

    /// Where the database is.
    pub(super) fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// Makes an empty database file (mode 0640). What a lost one left behind goes first: SQLite
    /// would read an old log into the new file.
    pub(super) fn make_database(&self) -> Result<(), IndexError> {
        for part in &PARTS[1..] {
            let path = self.part(DATABASE, part);
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(IndexError::Io { act: "remove", path, source });
                }
                _ => {}
            }
        }
        let path = self.database();
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o640)
            .open(&path)
            .map(drop)
            .map_err(|source| IndexError::Io { act: "make", path, source })
    }

    /// Renames the database to `index.db.corrupt-<unix seconds>`, its log and shared memory with it,
    /// if it still is the file that was found damaged. Keeps the newest three sets.
    ///
    /// Returns where it is now; `None` if another process was first.
    pub(super) fn set_aside(&self, damaged: Identity) -> Result<Option<PathBuf>, IndexError> {
        if !Identity::of(&self.database())?.is_some_and(|now| now.same_file(damaged)) {
            return Ok(None);
        }
        // Only a name: nothing is decided by it but which of several sets is the oldest, so it is
        // later than all others even if the clock has gone back.
        let newest = self.asides()?.into_iter().max().unwrap_or_default();
        let stamp = SystemClock.now().as_second().max(newest.saturating_add(1));
        for part in PARTS {
            let (from, to) = (self.part(DATABASE, part), self.part(&aside_name(stamp), part));
            match fs::rename(&from, to) {
                Err(source) if part.is_empty() || source.kind() != io::ErrorKind::NotFound => {
                    return Err(IndexError::Io { act: "set aside", path: from, source });
                }
                _ => {}
            }
        }
        self.prune()?;
        Ok(Some(self.part(&aside_name(stamp), "")))
    }

    /// The time stamps of the sets of damaged files.
    fn asides(&self) -> Result<Vec<i64>, IndexError> {
        let failed = |source| IndexError::Io { act: "list", path: self.path.clone(), source };
        let mut stamps = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let stamp = name.to_str().and_then(|name| name.strip_prefix(&aside_prefix()));
            stamps.extend(stamp.and_then(|stamp| stamp.parse::<i64>().ok()));
        }
        Ok(stamps)
    }

    /// Removes all but the newest sets of damaged files.
    fn prune(&self) -> Result<(), IndexError> {
        let mut stamps = self.asides()?;
        stamps.sort_unstable_by(|a, b| b.cmp(a));
        for stamp in stamps.into_iter().skip(KEPT) {
            for part in PARTS {
                let path = self.part(&aside_name(stamp), part);
                match fs::remove_file(&path) {
                    Err(source) if source.kind() != io::ErrorKind::NotFound => {
                        return Err(IndexError::Io { act: "remove", path, source });
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn part(&self, name: &str, part: &str) -> PathBuf {
        self.path.join(format!("{name}{part}"))
    }
}

fn aside_prefix() -> String {
    format!("{DATABASE}.corrupt-")
}

fn aside_name(stamp: i64) -> String {
    format!("{}{stamp}", aside_prefix())
}
