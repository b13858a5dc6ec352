//! The bytes of an answer, wherever they come from: memory, a blob, or a fill that is under way.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;

use super::follow::{Follower, HOLD_BACK};
use super::passing::Passed;
use super::proof::Lent;
use crate::store::FRAME;

/// Who reads the frames of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// The kernel alone: they go to a plain socket as they are. They may be mapped files then, which
    /// must not be touched (see [`crate::store::Blob::mapped`]).
    Kernel,
    /// This program too, to encrypt, frame or change them.
    Program,
}

/// How much of a mapped file is handed over at once.
const MAPPED_FRAME: usize = 1 << 20;

/// The bytes of an answer.
#[derive(Debug)]
pub enum Body {
    /// In memory.
    Memory(Bytes),
    /// In an open blob.
    Blob(Lent),
    /// Still on its way from upstream.
    Following(Follower),
    /// On its way from upstream to this client alone.
    Passing(Box<Passed>),
}

impl Body {
    /// All bytes, if they are in memory.
    pub const fn in_memory(&self) -> Option<&Bytes> {
        match self {
            Self::Memory(bytes) => Some(bytes),
            Self::Blob(_) | Self::Following(_) | Self::Passing(_) => None,
        }
    }

    /// A stream of a slice; the end may lie beyond the content's, which then ends it.
    ///
    /// An error in it means that the bytes cannot be had or are not the right ones: the connection
    /// must be cut, so that the client does not take what it has for the whole.
    pub fn stream(self, range: Range<u64>, reader: Reader) -> BodyStream {
        BodyStream(match self {
            Self::Memory(bytes) => {
                let clamp = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                let (start, end) = (clamp(range.start), clamp(range.end));
                Frames::Memory(bytes.slice(start..end.max(start)))
            }
            Self::Blob(lent) => Frames::Blob(BlobFrames::new(lent, range, reader)),
            Self::Following(follower) => Frames::Following(Box::pin(follower.frames(range))),
            Self::Passing(passed) => Frames::Following(Box::pin(passed.frames(range))),
        })
    }
}

/// A stream of frames.
pub struct BodyStream(Frames);

impl std::fmt::Debug for BodyStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BodyStream")
    }
}

enum Frames {
    Memory(Bytes),
    Blob(BlobFrames),
    Following(Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send + Sync>>),
}

impl Stream for BodyStream {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut self.0 {
            Frames::Memory(bytes) if bytes.is_empty() => Poll::Ready(None),
            Frames::Memory(bytes) => Poll::Ready(Some(Ok(std::mem::take(bytes)))),
            Frames::Blob(frames) => frames.poll(cx),
            Frames::Following(stream) => stream.as_mut().poll_next(cx),
        }
    }
}

/// Frames of a blob: mapped or read in place while the pages are in memory, read on a blocking thread
/// otherwise. The last of them wait for the verdict, if there is one to wait for.
struct BlobFrames {
    lent: Lent,
    offset: u64,
    end: u64,
    reader: Reader,
    reading: Option<tokio::task::JoinHandle<io::Result<Bytes>>>,
    verdict: Option<Verdict>,
    /// Why reading failed, until what is to be done about it is done.
    failure: Option<io::Error>,
}

/// Whether a blob is sound, when that is known.
type Verdict = Pin<Box<dyn Future<Output = bool> + Send + Sync>>;

impl BlobFrames {
    fn new(lent: Lent, range: Range<u64>, reader: Reader) -> Self {
        let end = range.end.min(lent.blob().size());
        let verdict = lent.verdict().map(|verdict| Box::pin(verdict) as _);
        Self { lent, offset: range.start, end, reader, reading: None, verdict, failure: None }
    }

    /// Up to where frames may go out now.
    fn poll_free(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        let held_back = self.end.saturating_sub(HOLD_BACK);
        let Some(verdict) = &mut self.verdict else { return Poll::Ready(Ok(self.end)) };
        if self.offset < held_back && self.failure.is_none() {
            return Poll::Ready(Ok(held_back));
        }
        let Poll::Ready(sound) = verdict.as_mut().poll(cx) else { return Poll::Pending };
        self.verdict = None;
        if let Some(failure) = self.failure.take() {
            self.end = self.offset;
            return Poll::Ready(Err(failure));
        }
        if sound {
            return Poll::Ready(Ok(self.end));
        }
        self.end = self.offset;
        Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "the blob is not what its name says")))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            if let Some(reading) = &mut self.reading {
                let Poll::Ready(read) = Pin::new(reading).poll(cx) else { return Poll::Pending };
                self.reading = None;
                if let Some(bytes) = self.advance(read.map_err(io::Error::other).flatten()) {
                    return Poll::Ready(Some(Ok(bytes)));
                }
            }
            if self.offset >= self.end && self.failure.is_none() {
                return Poll::Ready(None);
            }
            let free = match self.poll_free(cx) {
                Poll::Ready(Ok(free)) => free,
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
                Poll::Pending => return Poll::Pending,
            };
            let (blob, offset) = (self.lent.blob().clone(), self.offset);
            let left = usize::try_from(free - offset).unwrap_or(usize::MAX);
            let mapped = match self.reader {
                Reader::Kernel => blob.mapped(offset, left.min(MAPPED_FRAME)),
                Reader::Program => None,
            };
            let len = left.min(FRAME);
            let read = match mapped {
                Some(bytes) => Ok(Some(bytes)),
                None => blob.try_read_at(offset, len),
            };
            match read.transpose() {
                Some(read) => {
                    if let Some(bytes) = self.advance(read) {
                        return Poll::Ready(Some(Ok(bytes)));
                    }
                }
                None => self.reading = Some(tokio::task::spawn_blocking(move || blob.read_at(offset, len))),
            }
        }
    }

    /// Takes what was read; `None` if that failed, and something is to be done about it first.
    fn advance(&mut self, read: io::Result<Bytes>) -> Option<Bytes> {
        let why = match read {
            Ok(bytes) if !bytes.is_empty() => {
                self.offset += bytes.len() as u64;
                return Some(bytes);
            }
            Ok(_) => io::Error::new(io::ErrorKind::UnexpectedEof, "the blob is shorter than it was"),
            Err(error) => error,
        };
        self.failure = Some(why);
        self.verdict = Some(Box::pin(self.lent.spoil()));
        None
    }
}
