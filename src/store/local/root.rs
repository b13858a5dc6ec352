//! The root's directory, and everything below it by way of its descriptor.
//!
//! No path is ever resolved from `/`: each is opened relative to the root with `openat2`, which
//! refuses to leave the root or to follow a symlink in any component, so a link planted or swapped in
//! at any moment leads nowhere. Where the kernel lacks `openat2` (before 5.6, or under an old seccomp
//! filter), the same is done component by component. Operations on names open the parent directory
//! in this way and then act on the one last component. It knows no layout and no durability.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat as RawStat};
use rustix::io::{Errno, Result};

/// Of files: owner writes, group reads, others nothing.
pub(super) const FILE_MODE: Mode = Mode::from_raw_mode(0o640);
/// Of directories: the same.
pub(super) const DIR_MODE: Mode = Mode::from_raw_mode(0o750);

/// The longest path that is given to the kernel in one call; it takes less than 4096 bytes.
const STEP_LEN: usize = 3500;

/// How often something is tried again when a directory vanished in between, because somebody else
/// removed it while it was empty.
pub(super) const TRIES: usize = 3;

/// How often `openat2` is tried again when a rename elsewhere made it unsure of the path.
const UNSURE_TRIES: usize = 64;

#[derive(Debug)]
pub(super) struct Root {
    dir: OwnedFd,
    path: PathBuf,
}

impl Root {
    /// Opens the directory at `path`, which may be reached by symlinks: what lies above the root is
    /// the operator's.
    pub(super) fn open_dir(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self { dir, path: path.to_owned() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Opens what is at a path below the root. `mode` counts only if `flags` create.
    pub(super) fn open(&self, path: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mut rest = path;
        let mut dir: Option<OwnedFd> = None;
        while rest.len() > STEP_LEN {
            let cut = rest.as_bytes()[..STEP_LEN]
                .iter()
                .rposition(|byte| *byte == b'/')
                .ok_or(Errno::NAMETOOLONG)?;
            let from = dir.as_ref().map_or(self.dir(), AsFd::as_fd);
            dir = Some(open_beneath(from, &rest[..cut], DIRECTORY, Mode::empty())?);
            rest = &rest[cut + 1..];
        }
        open_beneath(dir.as_ref().map_or(self.dir(), AsFd::as_fd), rest, flags, mode)
    }

    /// The directory that a path's last component is in, and that component.
    pub(super) fn parent<'p>(&self, path: &'p str) -> Result<(OwnedFd, &'p str)> {
        match path.rsplit_once('/') {
            Some((dir, leaf)) => Ok((self.open(dir, DIRECTORY, Mode::empty())?, leaf)),
            None => Ok((rustix::io::fcntl_dupfd_cloexec(&self.dir, 0)?, path)),
        }
    }

    /// Like [`Self::parent`], making the directories that are not there.
    pub(super) fn make_parent<'p>(&self, path: &'p str) -> Result<(OwnedFd, &'p str)> {
        match (self.parent(path), path.rsplit_once('/')) {
            (Err(Errno::NOENT), Some((dir, leaf))) => Ok((self.make_dirs(dir)?, leaf)),
            (found, _) => found,
        }
    }

    /// Makes a directory and those above it, and opens it.
    pub(super) fn make_dirs(&self, path: &str) -> Result<OwnedFd> {
        retry_absent(|| {
            // From the deepest that is there: making one takes a lock on its parent that everybody there waits for.
            let (mut dir, missing) = self.deepest(path)?;
            for name in missing.split('/').filter(|name| !name.is_empty()) {
                match rustix::fs::mkdirat(&dir, name, DIR_MODE) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error),
                }
                dir = rustix::fs::openat(&dir, name, DIRECTORY, Mode::empty())?;
            }
            Ok(dir)
        })
    }

    /// The deepest directory on the way to a path that is there, and what of the path is not.
    fn deepest<'p>(&self, path: &'p str) -> Result<(OwnedFd, &'p str)> {
        let mut above = path;
        loop {
            match self.open(above, DIRECTORY, Mode::empty()) {
                Err(Errno::NOENT) => {}
                opened => return Ok((opened?, path[above.len()..].trim_start_matches('/'))),
            }
            match above.rsplit_once('/') {
                Some((parent, _)) => above = parent,
                None => return Ok((rustix::io::fcntl_dupfd_cloexec(&self.dir, 0)?, path)),
            }
        }
    }

    /// What is at a path, not following a symlink; `None` if nothing is.
    pub(super) fn stat(&self, path: &str) -> Result<Option<RawStat>> {
        let found = self
            .parent(path)
            .and_then(|(dir, leaf)| rustix::fs::statat(&dir, leaf, AtFlags::SYMLINK_NOFOLLOW));
        absent_is_none(found)
    }

    /// Removes a file; false if it was not there. A directory is an error.
    pub(super) fn unlink(&self, path: &str) -> Result<bool> {
        let removed =
            self.parent(path).and_then(|(dir, leaf)| rustix::fs::unlinkat(&dir, leaf, AtFlags::empty()));
        Ok(absent_is_none(removed)?.is_some())
    }

    /// Removes the directories above a path that have become empty, up to its first `keep`
    /// components. Never fails: a directory that stays does no harm.
    pub(super) fn prune(&self, path: &str, keep: usize) {
        let mut path = path;
        let mut depth = path.split('/').count();
        while let Some((dir, _)) = path.rsplit_once('/') {
            depth -= 1;
            if depth <= keep {
                return;
            }
            let removed = self
                .parent(dir)
                .and_then(|(above, name)| rustix::fs::unlinkat(&above, name, AtFlags::REMOVEDIR));
            if removed.is_err() {
                return;
            }
            path = dir;
        }
    }
}

const DIRECTORY: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// Whether it is a regular file.
pub(super) fn is_regular(stat: &RawStat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

/// Turns "there is nothing" into an answer: no such name, or something on the way to it that is not
/// a directory or is a symlink.
pub(super) fn absent_is_none<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Tries again, at most [`TRIES`] times, what failed because something on the way was not there.
pub(super) fn retry_absent<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 1..TRIES {
        match attempt() {
            Err(Errno::NOENT) => {}
            done => return done,
        }
    }
    attempt()
}

fn open_beneath(dir: BorrowedFd<'_>, path: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..UNSURE_TRIES {
        match rustix::fs::openat2(dir, path, flags, mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::NOSYS | Errno::PERM) => return open_by_component(dir, path, flags, mode),
            done => return done,
        }
    }
    open_by_component(dir, path, flags, mode)
}

/// What `openat2` does, for kernels without it.
fn open_by_component(dir: BorrowedFd<'_>, path: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    let mut held: Option<OwnedFd> = None;
    let mut rest = path;
    while let Some((name, after)) = rest.split_once('/') {
        let from = held.as_ref().map_or(dir, AsFd::as_fd);
        held = Some(rustix::fs::openat(from, check(name)?, DIRECTORY, Mode::empty())?);
        rest = after;
    }
    let from = held.as_ref().map_or(dir, AsFd::as_fd);
    rustix::fs::openat(from, check(rest)?, flags | OFlags::NOFOLLOW, mode)
}

fn check(name: &str) -> Result<&str> {
    if matches!(name, "" | "." | "..") { Err(Errno::XDEV) } else { Ok(name) }
}

/// Makes the root itself and what is above it.
pub(super) fn make_root(path: &Path) -> Result<()> {
    for above in path.ancestors().collect::<Vec<_>>().into_iter().rev() {
        match rustix::fs::mkdirat(CWD, above, DIR_MODE) {
            // Whatever the reason, what is there need not be made.
            Err(error) if rustix::fs::stat(above).is_err() => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_outside_the_root_is_opened_with_or_without_openat2() {
        let home = tempfile::tempdir().expect("a directory");
        let root_path = home.path().join("root");
        std::fs::create_dir_all(root_path.join("a/b")).expect("made");
        std::fs::write(home.path().join("secret"), "s").expect("written");
        std::fs::write(root_path.join("a/b/c"), "c").expect("written");
        symlink(home.path(), root_path.join("a/out")).expect("linked");
        symlink("b", root_path.join("a/in")).expect("linked");
        symlink("/etc/passwd", root_path.join("a/b/leaf")).expect("linked");

        let root = Root::open_dir(&root_path).expect("opened");
        for open in [open_beneath, open_by_component] {
            let try_open = |path: &str| {
                open(root.dir(), path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
            };
            assert!(try_open("a/b/c").is_ok());
            for bad in
                ["a/out/secret", "a/in/c", "a/b/leaf", "../secret", "a/../../secret", "/etc/passwd", "a/none"]
            {
                assert!(try_open(bad).is_err(), "{bad}");
            }
            let dir = |path: &str| open(root.dir(), path, DIRECTORY, Mode::empty());
            assert!(dir("a/b").is_ok());
            for bad in ["a/in", "a/out", "..", "a/b/c"] {
                assert!(dir(bad).is_err(), "{bad}");
            }
        }
    }

    #[test]
    fn what_vanished_is_tried_again_three_times_at_most() {
        for (absent, expected) in [(0, Ok(1)), (1, Ok(2)), (2, Ok(3)), (9, Err(Errno::NOENT))] {
            let mut tries = 0;
            let done = retry_absent(|| {
                tries += 1;
                if tries > absent { Ok(tries) } else { Err(Errno::NOENT) }
            });
            assert_eq!(done, expected);
            assert!(tries <= 3);
        }
        let mut tries = 0;
        let failed: Result<()> = retry_absent(|| {
            tries += 1;
            Err(Errno::IO)
        });
        assert_eq!((failed, tries), (Err(Errno::IO), 1));
    }

    #[test]
    fn paths_longer_than_the_kernel_takes_are_reached_in_steps() {
        let home = tempfile::tempdir().expect("a directory");
        let root = Root::open_dir(home.path()).expect("opened");
        let path = vec!["d".repeat(200); 40].join("/") + "/file";
        let (dir, leaf) = root.make_parent(&path).expect("made");
        rustix::fs::openat(&dir, leaf, OFlags::CREATE | OFlags::WRONLY, FILE_MODE).expect("created");
        assert!(root.stat(&path).expect("stat").is_some());
        assert!(root.unlink(&path).expect("unlinked"));
        root.prune(&path, 0);
        assert!(root.stat(&"d".repeat(200)).expect("stat").is_none());
    }
}
