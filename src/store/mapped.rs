//! A blob's file as memory, for the kernel alone to read.
//!
//! Handing the socket a mapped file saves the copy out of the page cache. The only file of the store
//! with `unsafe` in it, and these are its terms:
//!
//! * Published blobs are never written to again (invariant I1), so the memory does not change.
//! * Should somebody else cut the file all the same, touching the lost pages from user space would end
//!   the process (SIGBUS), while a system call that is given them fails with EFAULT: one connection
//!   is lost. So these bytes are for `writev` on a plain socket. Whoever hashes, encrypts, frames or
//!   rewrites must read instead.
//! * Pages that are not in memory would block the thread that writes them; [`is_resident`] is asked
//!   first.

#![expect(unsafe_code, reason = "mapping a file and asking about its pages have no safe form")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use bytes::Bytes;
use memmap2::MmapOptions;

/// The first `size` bytes of a file as memory.
///
/// # Errors
/// If the file cannot be mapped.
pub(super) fn map(file: BorrowedFd<'_>, size: u64) -> io::Result<Bytes> {
    let len = usize::try_from(size).map_err(io::Error::other)?;
    // SAFETY: nobody who keeps the layout's rules changes a published blob, and nothing in this
    // process reads the bytes but the kernel on its behalf (see above).
    let mapping = unsafe { MmapOptions::new().len(len).map(file.as_raw_fd())? };
    Ok(Bytes::from_owner(mapping))
}

/// Whether all pages of a part of a mapping are in memory. May be wrong a moment later, which costs
/// time and nothing else.
pub(super) fn is_resident(part: &[u8]) -> bool {
    let page = rustix::param::page_size();
    let start = part.as_ptr() as usize;
    let first = start - start % page;
    let len = start + part.len() - first;
    let mut pages = vec![0_u8; len.div_ceil(page)];
    // SAFETY: the range begins on a page boundary and lies within the mapping that `part` belongs to
    // (which begins on one too); `pages` has a byte for each of its pages. Nothing is read through it.
    let asked = unsafe { libc::mincore(first as *mut libc::c_void, len, pages.as_mut_ptr()) };
    asked == 0 && pages.iter().all(|page| page & 1 == 1)
}

#[cfg(test)]
mod tests {
    use std::io::{IoSlice, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;

    use rustix::io::Errno;

    use super::*;

    #[test]
    fn what_was_just_written_is_resident_and_what_was_cut_off_is_not() {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&vec![7; 100_000]).expect("written");
        let bytes = map(file.as_fd(), 100_000).expect("mapped");
        assert!(is_resident(&bytes));
        assert!(is_resident(&bytes[5_000..70_001]));
        file.set_len(50_000).expect("cut");
        assert!(!is_resident(&bytes), "asking about lost pages is safe, touching them is not");
        assert!(is_resident(&bytes[..40_000]));
    }
    /// Sends a head and a mapping of which the second half was cut off, until that fails; nothing but what came
    /// before the cut arrives.
    fn lost_on_the_way(mut here: impl Write, mut there: impl Read) {
        let page = rustix::param::page_size();
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&vec![7; 4 * page]).expect("written");
        let bytes = map(file.as_fd(), 4 * page as u64).expect("mapped");
        file.set_len(2 * page as u64).expect("cut");
        let failed = here.write_vectored(&[IoSlice::new(&bytes[2 * page..])]).expect_err("nothing is there");
        assert_eq!(Errno::from_io_error(&failed), Some(Errno::FAULT));
        let mut slices = [IoSlice::new(b"head"), IoSlice::new(&bytes)];
        let (mut rest, mut sent) = (&mut slices[..], 0);
        let failed = loop {
            match here.write_vectored(rest) {
                Ok(count) => {
                    sent += count;
                    IoSlice::advance_slices(&mut rest, count);
                }
                Err(error) => break error,
            }
        };
        assert_eq!(Errno::from_io_error(&failed), Some(Errno::FAULT), "after {sent} bytes");
        drop(here);
        let mut got = Vec::new();
        there.read_to_end(&mut got).expect("read");
        assert_eq!(got.len(), sent);
        assert!([&b"head"[..], &vec![7; 2 * page]].concat().starts_with(&got), "{sent} bytes");
    }

    #[test]
    fn sending_what_was_cut_off_is_an_error_and_no_signal() {
        let (here, there) = UnixStream::pair().expect("a pair");
        lost_on_the_way(here, there);
        // As answers go out.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let here = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let (there, _) = listener.accept().expect("connected");
        lost_on_the_way(here, there);
    }
}
