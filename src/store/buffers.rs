//! Buffers for the frames of large bodies: aligned to pages, and used again and again.
//!
//! Where a buffer begins decides how fast the kernel fills it. One from an ordinary allocator begins
//! a few bytes behind a page boundary, and then every load of the copy out of the page cache looks to
//! the processor like the store a few instructions before it (4 KiB aliasing): most of the time of a
//! warm body went there. A fresh mapping would cost page faults instead, so used ones lie ready.
//! Bounded; what does not fit is unmapped.

use std::io;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use memmap2::MmapMut;

/// The size of a frame. The engine reads bodies in frames of it.
pub(crate) const FRAME: usize = 128 << 10;
/// The most buffers that lie idle: 4 MiB.
const MAX_IDLE: usize = 32;

static IDLE: Mutex<Vec<MmapMut>> = Mutex::new(Vec::new());

/// Room for one frame. It lies ready again when the last user of its bytes drops them.
#[derive(Debug)]
pub(super) struct Frame {
    /// `None` only while it is being dropped.
    memory: Option<MmapMut>,
    len: usize,
}

impl Frame {
    /// A buffer with whatever the last user left in it.
    ///
    /// # Errors
    /// If the system gives no memory.
    pub(super) fn take() -> io::Result<Self> {
        let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let memory = idle.map_or_else(|| MmapMut::map_anon(FRAME), Ok)?;
        Ok(Self { memory: Some(memory), len: 0 })
    }

    /// All [`FRAME`] bytes, to read into.
    pub(super) fn memory(&mut self) -> &mut [u8] {
        self.memory.as_deref_mut().unwrap_or_default()
    }

    /// The first `len` bytes.
    pub(super) fn into_bytes(mut self, len: usize) -> Bytes {
        self.len = len;
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        &self.memory.as_deref().unwrap_or_default()[..self.len]
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE {
            idle.extend(self.memory.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(byte: u8) -> Bytes {
        let mut frame = Frame::take().expect("memory");
        frame.memory().fill(byte);
        frame.into_bytes(FRAME)
    }

    #[test]
    fn bytes_stay_what_they_are_while_other_frames_come_and_go() {
        let kept = filled(1);
        let part = kept.slice(10..20);
        for byte in 2..100 {
            drop(filled(byte));
        }
        drop(kept);
        drop(filled(100));
        assert_eq!(part, [1; 10][..], "a slice keeps its buffer");
    }

    #[test]
    fn a_short_frame_shows_nothing_of_what_was_there_before() {
        drop(filled(7));
        let mut frame = Frame::take().expect("memory");
        frame.memory()[..3].copy_from_slice(b"abc");
        assert_eq!(frame.into_bytes(3), b"abc"[..]);
    }
}
