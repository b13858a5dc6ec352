//! The bytes of an answer, wherever they come from: memory, a blob, or a fill that is under way.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;

use super::follow::Follower;
use super::passing::Passed;
use crate::store::{Blob, FRAME};

/// Who reads the frames of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// The kernel alone: they go to a plain socket as they are. They may be mapped files then, which
    /// must not be touched (see [`Blob::mapped`]).
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
    Blob(Blob),
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
            Self::Blob(blob) => {
                let end = range.end.min(blob.size());
                Frames::Blob(BlobFrames { blob, offset: range.start, end, reader, reading: None })
            }
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
/// otherwise.
struct BlobFrames {
    blob: Blob,
    offset: u64,
    end: u64,
    reader: Reader,
    reading: Option<tokio::task::JoinHandle<io::Result<Bytes>>>,
}

impl BlobFrames {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            if let Some(reading) = &mut self.reading {
                let Poll::Ready(read) = Pin::new(reading).poll(cx) else { return Poll::Pending };
                self.reading = None;
                return Poll::Ready(Some(self.advance(read.map_err(io::Error::other).flatten())));
            }
            if self.offset >= self.end {
                return Poll::Ready(None);
            }
            let (blob, offset) = (self.blob.clone(), self.offset);
            let left = usize::try_from(self.end - offset).unwrap_or(usize::MAX);
            if self.reader == Reader::Kernel
                && let Some(bytes) = blob.mapped(offset, left.min(MAPPED_FRAME))
            {
                return Poll::Ready(Some(self.advance(Ok(bytes))));
            }
            let len = left.min(FRAME);
            match blob.try_read_at(offset, len) {
                Ok(Some(bytes)) => return Poll::Ready(Some(self.advance(Ok(bytes)))),
                Ok(None) => {
                    self.reading = Some(tokio::task::spawn_blocking(move || blob.read_at(offset, len)));
                }
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    fn advance(&mut self, read: io::Result<Bytes>) -> io::Result<Bytes> {
        match read {
            Ok(bytes) if bytes.is_empty() => {
                self.end = self.offset;
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the blob is shorter than it was"))
            }
            Ok(bytes) => {
                self.offset += bytes.len() as u64;
                Ok(bytes)
            }
            Err(error) => {
                self.end = self.offset;
                Err(error)
            }
        }
    }
}
