//! Rule P: how bytes become a file under its final name (`docs/layout.md`, "Publishing").
//!
//! Created exclusively in staging, written, compared, synced, and only then given its name. Before
//! the rename nothing is visible and every error removes the file; after it the file is whole, also
//! after a power cut. The directory is not synced: a name that is lost is a miss, and the cache asks
//! upstream again. A failed `fsync` is never repeated on the same file, because the kernel has marked
//! the pages clean that it could not write: the file is dropped.

use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::super::blob::Content;
use super::super::{Blob, ObjectPath, Stat, StoreError};
use super::root::TRIES;
use super::staging::TempFile;
use super::{Files, size_of};

/// The most pieces that the kernel takes in one call (`IOV_MAX`).
const SLICES: usize = 1024;

/// The most of a file that is reserved on disk before it is written.
const MAX_AHEAD: u64 = 16 << 20;

/// The fewest bytes that are worth being left for a later upload: fewer are sooner fetched again.
const WORTH_LEAVING: u64 = 1 << 20;

/// How much a file must have grown to before anything is reserved for it.
const RESERVE_FROM: u64 = 2 << 20;

impl Files {
    /// Makes a file in the staging directory.
    pub(super) fn create(
        self: &Arc<Self>,
        tmp: &ObjectPath,
        left: Option<ObjectPath>,
    ) -> Result<LocalUpload, StoreError> {
        let created = self.stagings.create(&self.root, tmp.as_str());
        let file = created.map_err(|error| self.error("create", tmp, error))?;
        Ok(LocalUpload::new(self, file, tmp, left, 0))
    }

    /// Goes on with a file that was left, if there is one that can be gone on with.
    pub(super) fn take_up(self: &Arc<Self>, tmp: &ObjectPath, left: &ObjectPath) -> Option<LocalUpload> {
        let found = self.stagings.adopt(&self.root, tmp.as_str(), left.as_str());
        let found =
            found.inspect_err(|error| tracing::debug!(%left, %error, "could not take up what was left"));
        let (file, len) = found.ok()??;
        Some(LocalUpload::new(self, file, tmp, Some(left.clone()), len))
    }

    /// Writes a small file; with `replace` in the place of one that is there. False if one is there
    /// that is not replaced.
    pub(super) fn put(
        self: &Arc<Self>,
        path: &ObjectPath,
        tmp: &ObjectPath,
        bytes: Bytes,
        replace: bool,
    ) -> Result<bool, StoreError> {
        let mut upload = self.create(tmp, None)?;
        upload.append(&[bytes])?;
        upload.sync()?;
        upload.place(path, replace)
    }

    /// Writes a small file whose name says what is in it, or uses the one that is there.
    pub(super) fn publish(
        self: &Arc<Self>,
        path: &ObjectPath,
        tmp: &ObjectPath,
        bytes: Bytes,
    ) -> Result<Blob, StoreError> {
        let mut upload = self.create(tmp, None)?;
        upload.append(&[bytes])?;
        upload.publish_now(path)
    }
}

/// A file in staging.
#[derive(Debug)]
pub(super) struct LocalUpload {
    files: Arc<Files>,
    file: TempFile,
    staging: ObjectPath,
    /// Where it is to be left.
    left: Option<ObjectPath>,
    begun: u64,
    len: u64,
    /// Up to where room is reserved; `None` if this place cannot reserve any.
    reserved: Option<u64>,
}

impl LocalUpload {
    fn new(
        files: &Arc<Files>,
        file: TempFile,
        tmp: &ObjectPath,
        left: Option<ObjectPath>,
        begun: u64,
    ) -> Self {
        let (files, staging) = (Arc::clone(files), tmp.clone());
        Self { files, file, staging, left, begun, len: begun, reserved: Some(begun) }
    }

    /// The file itself.
    pub(super) const fn file(&self) -> &Arc<OwnedFd> {
        self.file.file()
    }

    /// As [`Upload::begun`].
    pub(super) const fn begun(&self) -> u64 {
        self.begun
    }

    /// As [`Upload::append`].
    pub(super) fn append(&mut self, chunks: &[Bytes]) -> Result<(), StoreError> {
        for chunks in chunks.chunks(SLICES) {
            write_at(self.file(), chunks, self.len)
                .map_err(|error| self.files.error("write", &self.staging, error))?;
            self.len += chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
        }
        self.reserve();
        Ok(())
    }

    /// As [`Upload::leave`].
    pub(super) fn leave(&mut self) -> u64 {
        let Some(left) = self.left.take().filter(|_| self.len >= WORTH_LEAVING) else { return 0 };
        // Of two that were left the one that came further is of more use.
        let has_less = |stat: Option<Stat>| stat.is_none_or(|stat| stat.size < self.len);
        let kept = self.files.stat(&left).is_ok_and(has_less)
            && self.release().is_ok()
            && self.place(&left, true).is_ok_and(|placed| placed);
        if kept { self.len } else { 0 }
    }

    /// Reserves room for what will be written next, if it is time to: writing to it then costs the
    /// kernel less, and a file that grows beside others lies in fewer pieces.
    fn reserve(&mut self) {
        let Some((from, to)) = self.reserved.and_then(|reserved| reserve_next(self.len, reserved)) else {
            return;
        };
        // Room that cannot be had now, or not this way, is no error: the write finds out.
        let done = rustix::fs::fallocate(self.file(), FallocateFlags::KEEP_SIZE, from, to - from);
        self.reserved = done.is_ok().then_some(to);
    }

    /// Gives back what was reserved and is not needed.
    fn release(&self) -> Result<(), StoreError> {
        if self.reserved.is_some_and(|reserved| reserved <= self.len) {
            return Ok(());
        }
        rustix::fs::ftruncate(self.file(), self.len)
            .map_err(|error| self.files.error("truncate", &self.staging, error))
    }

    fn sync(&self) -> Result<(), StoreError> {
        rustix::fs::fsync(self.file()).map_err(|error| self.files.error("fsync", &self.staging, error))
    }

    /// Gives the file its name; false if the name is taken and not to be replaced. The directories
    /// are made when they are missing, which may be again and again while somebody prunes.
    fn place(&mut self, path: &ObjectPath, replace: bool) -> Result<bool, StoreError> {
        for _ in 0..TRIES {
            let parent = self.files.root.make_parent(path.as_str());
            let (dir, leaf) =
                parent.map_err(|error| self.files.error("make the directory of", path, error))?;
            let placed =
                if replace { self.file.rename_over(&dir, leaf) } else { self.file.rename_new(&dir, leaf) };
            match placed {
                Ok(()) => return Ok(true),
                Err(Errno::EXIST) if !replace => return Ok(false),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(self.files.error("publish", path, error)),
            }
        }
        Err(self.files.error("publish", path, Errno::NOENT))
    }

    /// As [`Upload::publish`], on this thread.
    pub(super) fn publish_now(mut self, path: &ObjectPath) -> Result<Blob, StoreError> {
        let written = rustix::fs::fstat(self.file());
        let written = written.map_err(|error| self.files.error("stat", &self.staging, error))?;
        if size_of(&written) != self.len {
            // Somebody else wrote to it, or the file system lost something.
            return Err(StoreError::Length { actual: size_of(&written), expected: self.len });
        }
        self.release()?;
        self.sync()?;
        for _ in 0..TRIES {
            if self.place(path, false)? {
                return Ok(Blob::new(Content::File(Arc::clone(self.file())), self.len));
            }
            match self.files.open(path)? {
                // Somebody was quicker; ours goes.
                Some(present) if present.size() == self.len => return Ok(present),
                Some(present) => {
                    tracing::warn!(%path, size = present.size(), expected = self.len, "replacing a damaged blob");
                    self.place(path, true)?;
                    return Ok(Blob::new(Content::File(Arc::clone(self.file())), self.len));
                }
                // Condemned in between, or not a file.
                None => {
                    if let Some(stat) = self.files.stat(path)?
                        && !stat.regular
                    {
                        tracing::warn!(%path, "replacing what is not a file");
                        if !self.files.remove_empty(path)? {
                            self.place(path, true)?;
                        } else if !self.place(path, false)? {
                            continue;
                        }
                        return Ok(Blob::new(Content::File(Arc::clone(self.file())), self.len));
                    }
                }
            }
        }
        Err(self.files.error("publish", path, Errno::EXIST))
    }
}

/// Bytes that are written by one system call, which a kernel may let nobody interrupt: a worker that is ready has its
/// processor back after some 150 µs and not after milliseconds (`docs/decisions/workers.md`).
const TURN: usize = 64 << 10;

/// Writes all pieces, one behind the other, at `offset`.
fn write_at(file: &OwnedFd, chunks: &[Bytes], mut offset: u64) -> rustix::io::Result<()> {
    let mut rest = chunks.to_vec();
    let mut first = 0;
    while first < rest.len() {
        if rest[first].is_empty() {
            first += 1;
            continue;
        }
        let mut room = TURN;
        let turn = rest[first..].iter().map_while(|chunk| {
            let taken = chunk.len().min(room);
            room -= taken;
            (taken > 0 || chunk.is_empty()).then(|| IoSlice::new(&chunk[..taken]))
        });
        let slices: Vec<_> = turn.collect();
        let mut written = match rustix::io::pwritev(file, &slices, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => written,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error),
        };
        drop(slices);
        offset += written as u64;
        while written > 0 {
            let step = written.min(rest[first].len());
            rest[first].advance(step);
            written -= step;
            first += usize::from(rest[first].is_empty());
        }
    }
    Ok(())
}

/// What to reserve next for a file of `len` bytes: nothing while it is small or enough is left, then half
/// as much again as it has, so that what is reserved in vain is never much beside what is used.
fn reserve_next(len: u64, reserved: u64) -> Option<(u64, u64)> {
    let ahead = (len / 2).min(MAX_AHEAD);
    let left = reserved.saturating_sub(len);
    (len >= RESERVE_FROM && left < ahead / 2).then(|| (reserved.max(len), len + ahead))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_growing_file_is_reserved_in_ever_larger_steps_that_join_and_are_bounded() {
        assert_eq!(reserve_next(RESERVE_FROM - 1, 0), None, "small files are not worth it");
        let (mut reserved, mut steps) = (0, 0);
        for len in (0..1 << 30).step_by(100_000) {
            if let Some((from, to)) = reserve_next(len, reserved) {
                assert!(from == reserved || (steps == 0 && from == len), "no gap and no overlap");
                assert!(to > from && to <= len + MAX_AHEAD && to <= len + len / 2, "{len} {from} {to}");
                reserved = to;
                steps += 1;
            }
            assert!(len < RESERVE_FROM || reserved > len, "{len}");
        }
        assert!(steps < 150, "{steps}");
        assert_eq!(reserve_next(u64::MAX / 2, 0), Some((u64::MAX / 2, u64::MAX / 2 + MAX_AHEAD)));
    }
}
