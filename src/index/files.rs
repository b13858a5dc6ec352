//! The few file operations that SQLite does not do itself: making the directory, telling one file
//! from another, setting aside one that cannot be used.
//!
//! It must not know SQL. It never opens the database file itself: closing a second descriptor would
//! drop the locks that SQLite holds on it (POSIX advisory locks belong to the process).
//!
//! Which file was made here as the database is noted beside it (`index.db-made`), so that a copy, or
//! one that was moved away and back, is known for what it is before SQLite opens it and reads the log
//! of another one into it. Inode and birth say it: an inode alone is soon given to the next file. What
//! is written over the file in place cannot be told from what belongs there.
//!
//! A crash between the renames of one set leaves a log without its database; the next open sets
//! that aside too. A database has its name only once it is noted.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};

use super::IndexError;
use crate::model::{Clock, SystemClock};

/// The database's file name within the index directory.
pub(super) const DATABASE: &str = "index.db";

/// The note of which file was made as the database: `<inode> <birth>`, the birth in nanoseconds since
/// 1970, or `-`.
const MADE: &str = "index.db-made";

/// What a database is called until it is noted.
const NEW: &str = "index.db-new";

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
    /// When it was made, in nanoseconds since 1970, where the system says so.
    born: Option<u128>,
    /// Whether it is shorter than the smallest database. An open index never is.
    pub(super) short: bool,
}

impl Identity {
    /// What is at a path; `None` if nothing is.
    pub(super) fn of(path: &Path) -> Result<Option<Self>, IndexError> {
        match fs::symlink_metadata(path) {
            Ok(found) => {
                let born = found.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
                Ok(Some(Self {
                    device: found.dev(),
                    inode: found.ino(),
                    born: born.map(|born| born.as_nanos()),
                    short: found.len() < SMALLEST,
                }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(IndexError::Io { act: "look at", path: path.into(), source }),
        }
    }

    /// Whether both are the same file, whatever is in it.
    pub(super) fn same_file(self, other: Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// What is noted of it. No device: that is another number after each mount.
    fn note(self) -> String {
        let born = self.born.map_or_else(|| "-".to_owned(), |born| born.to_string());
        format!("{} {born}", self.inode)
    }

    /// Whether it is what was noted. A birth counts where both say it.
    fn is_noted(self, note: &str) -> bool {
        let Some((inode, born)) = note.split_once(' ') else { return false };
        let born = born.parse().ok().zip(self.born);
        inode.parse() == Ok(self.inode) && born.is_none_or(|(noted, born): (u128, _)| noted == born)
    }
}

/// Whether a file is the one that was made last as the database of a directory; `None` where nothing is noted.
pub(super) fn was_made_here(dir: &Path, found: Identity) -> Result<Option<bool>, IndexError> {
    let path = dir.join(MADE);
    match fs::read(&path) {
        Ok(note) => Ok(Some(found.is_noted(&String::from_utf8_lossy(&note)))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(IndexError::Io { act: "read", path, source }),
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

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the database is.
    pub(super) fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// Makes an empty database file (mode 0640), and notes that it is the one made here. What a lost one
    /// left behind goes first: SQLite would read an old log into the new file.
    pub(super) fn make_database(&self) -> Result<Identity, IndexError> {
        for part in &PARTS[1..] {
            let path = self.part(DATABASE, part);
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(IndexError::Io { act: "remove", path, source });
                }
                _ => {}
            }
        }
        let new = self.path.join(NEW);
        self.write(NEW, b"")?;
        let gone = |source| IndexError::Io { act: "make", path: new.clone(), source };
        let made = Identity::of(&new)?.ok_or_else(|| gone(io::ErrorKind::NotFound.into()))?;
        self.note_made(made)?;
        fs::rename(&new, self.database()).map_err(gone)?;
        Ok(made)
    }

    /// Notes that a file is the one that was made here.
    pub(super) fn note_made(&self, made: Identity) -> Result<(), IndexError> {
        self.write(MADE, made.note().as_bytes())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), IndexError> {
        let path = self.path.join(name);
        let mut options = fs::OpenOptions::new();
        let opened = options.write(true).create(true).truncate(true).mode(0o640).open(&path);
        opened.and_then(|mut file| file.write_all(bytes)).map_err(|source| IndexError::Io {
            act: "write",
            path,
            source,
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_what_was_noted_by_inode_and_by_birth_where_both_say_it() {
        let file = Identity { device: 1, inode: 7, born: Some(90), short: false };
        let unborn = Identity { born: None, ..file };
        assert_eq!((file.note().as_str(), unborn.note().as_str()), ("7 90", "7 -"));
        for (identity, note, expected) in [
            (file, "7 90", true),
            (file, "7 9", false),
            (file, "7 -", true),
            (file, "8 90", false),
            (file, "7", false),
            (file, "", false),
            (file, "rubbish 90", false),
            (unborn, "7 90", true),
            (unborn, "8 -", false),
            // As after another mount.
            (Identity { device: 2, ..file }, "7 90", true),
        ] {
            assert_eq!(identity.is_noted(note), expected, "{identity:?} {note:?}");
        }
    }
}
