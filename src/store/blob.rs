//! An open blob: bytes that are read by position.
//!
//! It knows neither names nor digests. Reads are system calls on the caller's thread: a reader that
//! must not block uses [`Blob::try_read_at`] first.

use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, ReadWriteFlags};

use super::buffers::{FRAME, Frame};
use super::mapped;
use super::small::Loan;
use crate::model::Timestamp;

/// An open, immutable blob. Cheap to clone; stays readable if gc takes the file away meanwhile.
#[derive(Debug, Clone)]
pub struct Blob {
    content: Content,
    size: u64,
    modified: Option<Timestamp>,
    /// The file as memory, once somebody has asked for it; `None` in it if it cannot be mapped.
    mapping: Arc<OnceLock<Option<Bytes>>>,
}

impl Blob {
    /// One that has just been written here, or lives in memory.
    pub(super) fn new(content: Content, size: u64) -> Self {
        Self { content, size, modified: None, mapping: Arc::default() }
    }

    /// One that was found on disk.
    pub(super) fn found(content: Content, size: u64, modified: Timestamp) -> Self {
        Self { modified: Some(modified), ..Self::new(content, size) }
    }

    pub(super) const fn content(&self) -> &Content {
        &self.content
    }

    /// Its size in bytes, as it was when it was opened.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// When its file was last written, or noted to be what its name says; `None` if it has just been
    /// written here, or has no file.
    pub const fn modified(&self) -> Option<Timestamp> {
        self.modified
    }

    /// Its size in bytes at this moment. A file never changes its size unless somebody damages it,
    /// so this tells cheaply whether a blob that was kept open is still sound.
    ///
    /// # Errors
    /// What `fstat` answers.
    pub fn current_size(&self) -> io::Result<u64> {
        match &self.content {
            Content::File(file) => Ok(u64::try_from(rustix::fs::fstat(file)?.st_size).unwrap_or(0)),
            Content::Unmade(_) | Content::Memory(_) | Content::Growing(_) => Ok(self.size),
        }
    }

    /// Reads `len` bytes at `offset`, or what is left of the blob there; blocks if the pages are not
    /// in memory. Beyond the end there are no bytes.
    ///
    /// # Errors
    /// What the disk answers, and [`io::ErrorKind::UnexpectedEof`] if the file has become shorter.
    pub fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        self.content.read_at(offset, self.clamp(offset, len))
    }

    /// Like [`Self::read_at`], but only what is in the page cache: `None` if it would block, and
    /// fewer bytes (but not none) if only the first of them are there. Where the file system cannot
    /// tell, it reads as usual.
    ///
    /// # Errors
    /// As [`Self::read_at`].
    pub fn try_read_at(&self, offset: u64, len: usize) -> io::Result<Option<Bytes>> {
        self.content.try_read_at(offset, self.clamp(offset, len))
    }

    /// Reads all of it; blocks if the pages are not in memory.
    ///
    /// # Errors
    /// As [`Self::read_at`].
    pub fn read_all(&self) -> io::Result<Bytes> {
        self.read_at(0, usize::try_from(self.size).map_err(io::Error::other)?)
    }

    /// `len` bytes at `offset`, or what is left there, without a copy: the file as memory. `None` if
    /// not all of it is in the page cache, or the file cannot be mapped.
    ///
    /// For handing to a plain socket and nothing else. If somebody has cut the file on disk, a
    /// system call that is given these bytes fails; touching them would end the process.
    pub fn mapped(&self, offset: u64, len: usize) -> Option<Bytes> {
        let Content::File(file) = &self.content else { return None };
        let mapping = self.mapping.get_or_init(|| mapped::map(file.as_fd(), self.size).ok()).as_ref()?;
        let start = usize::try_from(offset).ok()?;
        let part = mapping.slice(start..start + self.clamp(offset, len));
        mapped::is_resident(&part).then_some(part)
    }

    fn clamp(&self, offset: u64, len: usize) -> usize {
        usize::try_from(self.size.saturating_sub(offset)).map_or(len, |left| left.min(len))
    }
}

/// Where bytes are that can be read by position.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// In an open file.
    File(Arc<OwnedFd>),
    /// In a file that is made when the first of them are written.
    Unmade(Arc<OnceLock<Arc<OwnedFd>>>),
    /// In memory, complete.
    Memory(Bytes),
    /// In memory, growing at the end.
    Growing(Arc<Growing>),
}

/// Bytes in memory that grow at the end, until they are whole.
#[derive(Debug)]
pub(super) struct Growing {
    grown: Mutex<Grown>,
    /// Held for as long as there is this.
    _loan: Option<Loan>,
}

#[derive(Debug)]
enum Grown {
    Part(Vec<u8>),
    Whole(Bytes),
}

impl Growing {
    /// Begins with these; more come without moving them as long as their vector has room.
    pub(super) fn new(begun: Vec<u8>, loan: Option<Loan>) -> Self {
        Self { grown: Mutex::new(Grown::Part(begun)), _loan: loan }
    }

    /// Adds bytes at the end. Nothing is added to what is whole.
    pub(super) fn append(&self, chunks: &[Bytes]) {
        if let Grown::Part(bytes) = &mut *self.lock() {
            for chunk in chunks {
                bytes.extend_from_slice(chunk);
            }
        }
    }

    /// All bytes. From now on they are whole, and are read without a copy.
    pub(super) fn whole(&self) -> Bytes {
        let mut grown = self.lock();
        let bytes = match &mut *grown {
            Grown::Part(bytes) => Bytes::from(std::mem::take(bytes)),
            Grown::Whole(bytes) => bytes.clone(),
        };
        *grown = Grown::Whole(bytes.clone());
        bytes
    }

    /// The bytes in a range, which is made when it is known how many there are.
    fn read(&self, range: impl FnOnce(usize) -> Option<Range<usize>>) -> Option<Bytes> {
        match &*self.lock() {
            Grown::Part(bytes) => range(bytes.len()).map(|range| Bytes::copy_from_slice(&bytes[range])),
            Grown::Whole(bytes) => range(bytes.len()).map(|range| bytes.slice(range)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Grown> {
        self.grown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    /// Reads up to `len` bytes at `offset`, but only what is in the page cache.
    pub(super) fn try_read_at(&self, offset: u64, len: usize) -> io::Result<Option<Bytes>> {
        match self {
            Self::File(file) => try_read_file(file.as_fd(), offset, len),
            Self::Unmade(file) => try_read_file(made(file)?, offset, len),
            Self::Memory(_) | Self::Growing(_) => self.read_at(offset, len).map(Some),
        }
    }

    /// Reads exactly `len` bytes at `offset`.
    pub(super) fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let slice = |size: usize| {
            let start = usize::try_from(offset).ok().filter(|_| len > 0)?;
            let end = start.checked_add(len).filter(|end| *end <= size)?;
            Some(start..end)
        };
        if len == 0 {
            return Ok(Bytes::new());
        }
        match self {
            Self::File(file) => read_file(file.as_fd(), offset, len),
            Self::Unmade(file) => read_file(made(file)?, offset, len),
            Self::Memory(bytes) => slice(bytes.len())
                .map(|range| bytes.slice(range))
                .ok_or_else(|| io::ErrorKind::UnexpectedEof.into()),
            Self::Growing(growing) => growing.read(slice).ok_or_else(|| io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// A file, if it has been made.
fn made(file: &OnceLock<Arc<OwnedFd>>) -> io::Result<BorrowedFd<'_>> {
    file.get().map(|file| file.as_fd()).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Reads exactly `len` bytes of a file.
pub(super) fn read_file(file: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<Bytes> {
    if len == FRAME {
        let mut frame = Frame::take()?;
        read_exact(len, |done| rustix::io::pread(file, &mut frame.memory()[done..], offset + done as u64))?;
        return Ok(frame.into_bytes(len));
    }
    // Not zeroed first. The allocator may give more room than was asked for, and the read use it.
    let mut buffer = Vec::with_capacity(len);
    read_exact(len, |done| rustix::io::pread(file, spare_capacity(&mut buffer), offset + done as u64))?;
    buffer.truncate(len);
    Ok(buffer.into())
}

/// Reads until `len` bytes are there; `read` is told how many are.
fn read_exact(len: usize, mut read: impl FnMut(usize) -> rustix::io::Result<usize>) -> io::Result<()> {
    let mut done = 0;
    while done < len {
        match read(done) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Reads up to `len` bytes of a file without waiting for a disk.
fn try_read_file(file: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<Option<Bytes>> {
    if len == 0 {
        return Ok(Some(Bytes::new()));
    }
    let mut frame = Frame::take()?;
    let room = len.min(FRAME);
    let mut slices = [IoSliceMut::new(&mut frame.memory()[..room])];
    match rustix::io::preadv2(file, &mut slices, offset, ReadWriteFlags::NOWAIT) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(read) => Ok(Some(frame.into_bytes(read))),
        Err(Errno::AGAIN) => Ok(None),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::INTR) => {
            read_file(file, offset, len).map(Some)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::PARTS;
    use std::io::Write as _;

    fn on_disk(bytes: &[u8]) -> (std::fs::File, Blob) {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(bytes).expect("written");
        let fd = OwnedFd::from(file.try_clone().expect("cloned"));
        (file, Blob::new(Content::File(Arc::new(fd)), bytes.len() as u64))
    }

    fn both(bytes: &[u8]) -> [Blob; 2] {
        [on_disk(bytes).1, Blob::new(Content::Memory(Bytes::copy_from_slice(bytes)), bytes.len() as u64)]
    }

    #[test]
    fn a_read_gives_the_slice_that_was_asked_for_and_no_more_than_there_is() {
        for blob in both(b"0123456789") {
            for (offset, len, expected) in PARTS {
                assert_eq!(blob.read_at(offset, len).expect("read"), expected, "{offset} {len}");
                let hot = blob.try_read_at(offset, len).expect("read").expect("was just written");
                assert_eq!(hot, expected, "{offset} {len}");
            }
        }
    }

    #[test]
    fn a_file_that_was_cut_short_is_an_error_and_shows_its_size() {
        let (file, blob) = on_disk(b"0123456789");
        assert_eq!(blob.current_size().expect("stat"), 10);
        file.set_len(4).expect("cut");
        assert_eq!(blob.current_size().expect("stat"), 4);
        assert_eq!(blob.read_at(2, 5).expect_err("short").kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(blob.try_read_at(6, 2).expect_err("short").kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_large_read_arrives_whole() {
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| i.to_le_bytes()[1]).collect();
        for blob in both(&bytes) {
            assert_eq!(blob.read_at(1, 2_999_998).expect("read"), bytes[1..2_999_999]);
        }
    }
}
