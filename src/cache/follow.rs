//! Reading a fill while it grows.
//!
//! Everyone who waits for a fill is a follower, its starter included: they read what is staged at
//! their own pace and own nothing of the fill, so that none of them can slow it or end it; only content that
//! cannot be stored waits for them, and not for ever. The last bytes of content with a known checksum are
//! held back until the checksum agrees (invariant I5).

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::watch;

use crate::store::{FRAME, Found, Mark, StagedReader};

/// How many bytes are held back until the checksum agrees.
pub(super) const HOLD_BACK: u64 = 64 << 10;

/// How far followers may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Release {
    /// The checksum is not known to agree yet.
    Held,
    /// There is no checksum to wait for: everything may be read as it comes.
    Unchecked,
    /// All bytes are there and right.
    Whole {
        /// The content's size.
        size: u64,
    },
    /// The fill failed.
    Failed,
}

/// A fill that has begun to deliver.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) reader: StagedReader,
    pub(super) written: watch::Receiver<u64>,
    pub(super) release: watch::Receiver<Release>,
    /// The size that upstream promised.
    pub(super) size: Option<u64>,
    /// Whether the digest is known before all bytes are there.
    pub(super) named: bool,
}

impl Flow {
    /// Whether all bytes have come, so that only their publishing is left to wait for.
    pub(super) fn has_arrived(&self) -> bool {
        self.is_whole() || self.size.is_some_and(|size| *self.written.borrow() >= size)
    }

    /// Whether all bytes have come and are right.
    pub(super) fn is_whole(&self) -> bool {
        matches!(*self.release.borrow(), Release::Whole { .. })
    }

    /// The size that upstream promised, or what it has come to.
    pub(super) fn known_size(&self) -> Option<u64> {
        match *self.release.borrow() {
            Release::Whole { size } => Some(size),
            Release::Held | Release::Unchecked | Release::Failed => self.size,
        }
    }

    /// Waits until all bytes are there and right; false if it has failed. Who wants the headers of content whose
    /// length nobody states has to wait for it.
    pub(super) async fn comes_whole(&self) -> bool {
        let is_over = |release: &Release| matches!(release, Release::Whole { .. } | Release::Failed);
        let mut release = self.release.clone();
        // An error means that it is gone without having said how it ended.
        release.wait_for(is_over).await.is_ok_and(|release| *release != Release::Failed)
    }

    /// Waits until there is something to say: at once, but for content so small that none of it may be seen before
    /// the verdict. False if that is that it is not to be served.
    pub(super) async fn may_begin(&self) -> bool {
        if self.size.is_none_or(|size| size > HOLD_BACK) {
            return true;
        }
        let mut release = self.release.clone();
        let verdict = release.wait_for(|release| *release != Release::Held).await;
        verdict.is_ok_and(|release| *release != Release::Failed)
    }
}

/// One reader of a fill that is under way.
#[derive(Debug)]
pub struct Follower {
    flow: Arc<Flow>,
    mark: Mark,
    written: watch::Receiver<u64>,
    release: watch::Receiver<Release>,
    ended: bool,
}

impl Follower {
    /// `None` if the content is not stored, and its beginning is gone already.
    pub(super) fn new(flow: Arc<Flow>) -> Option<Self> {
        let (written, release) = (flow.written.clone(), flow.release.clone());
        Some(Self { mark: flow.reader.mark()?, written, release, flow, ended: false })
    }

    /// The frames of a slice, as they become readable.
    pub(super) fn frames(self, range: Range<u64>) -> impl Stream<Item = io::Result<Bytes>> + Send + Sync {
        self.mark.skip_to(range.start);
        futures_util::stream::unfold((self, range), |(mut follower, mut range)| async move {
            let frame = follower.next(&range).await?;
            match &frame {
                Ok(bytes) => {
                    range.start += bytes.len() as u64;
                    if range.start < range.end {
                        follower.mark.reached(range.start);
                    } else {
                        // It has all it wants, and nobody is to wait for it.
                        follower.mark.skip_to(u64::MAX);
                    }
                }
                Err(_) => follower.ended = true,
            }
            Some((frame, (follower, range)))
        })
    }

    /// The next frame of a slice; `None` at its end.
    async fn next(&mut self, range: &Range<u64>) -> Option<io::Result<Bytes>> {
        if self.ended {
            return None;
        }
        loop {
            let release = *self.release.borrow_and_update();
            let written = *self.written.borrow_and_update();
            let (readable, end) = match release {
                Release::Held => (readable_while_held(written, self.flow.size), range.end),
                Release::Unchecked => (written, range.end),
                Release::Whole { size } => (size, range.end.min(size)),
                Release::Failed => return Some(Err(io::Error::other("the fetch from upstream failed"))),
            };
            if range.start >= end {
                return None;
            }
            if range.start < readable {
                let len = usize::try_from(readable.min(end) - range.start).unwrap_or(usize::MAX);
                return Some(self.read(range.start, len).await);
            }
            if !self.changed().await {
                return Some(Err(io::Error::other("the fetch from upstream ended without a verdict")));
            }
        }
    }

    /// Up to `len` bytes. A follower that keeps up is given those that came in; for one that does not
    /// they sit in the page cache, so that reading them in place does not block in practice; only a
    /// follower far behind may find them on disk.
    async fn read(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let len = match self.flow.reader.recent(offset, len) {
            Found::Memory(bytes) => return Ok(bytes),
            Found::File(len) => len,
        };
        let len = match self.mark.find(offset, len)? {
            Found::Memory(bytes) => return Ok(bytes),
            Found::File(len) => len.min(FRAME),
        };
        if let Some(bytes) = self.flow.reader.try_read_at(offset, len)? {
            return Ok(bytes);
        }
        let reader = self.flow.reader.clone();
        tokio::task::spawn_blocking(move || reader.read_at(offset, len)).await.map_err(io::Error::other)?
    }

    /// Waits until more may be read; false if the fill is gone without having said how it ended.
    async fn changed(&mut self) -> bool {
        tokio::select! {
            // The writer's end is gone once all is written: then only the release can change.
            Ok(()) = self.written.changed() => true,
            released = self.release.changed() => released.is_ok(),
        }
    }
}

/// How many of the written bytes may be read before the checksum is known to agree.
fn readable_while_held(written: u64, size: Option<u64>) -> u64 {
    let last = size.unwrap_or(written).saturating_sub(HOLD_BACK);
    written.min(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bytes_are_held_back_and_never_more_is_readable_than_written() {
        for (written, size, readable) in [
            (0, Some(1 << 20), 0),
            (500, Some(1 << 20), 500),
            (1 << 20, Some(1 << 20), (1 << 20) - HOLD_BACK),
            (HOLD_BACK, Some(HOLD_BACK), 0),
            (10, Some(5), 0),
            (1 << 20, None, (1 << 20) - HOLD_BACK),
            (10, None, 0),
        ] {
            assert_eq!(readable_while_held(written, size), readable, "{written} of {size:?}");
        }
    }
}
