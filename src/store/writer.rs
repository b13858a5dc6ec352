//! The writing end of a blob in the making: tells followers of bytes, writes them, and hashes them.
//!
//! It takes them in batches, from one owner at a time. What followers are told of before it is written stays in
//! `recent` until it is, so that nobody waits for a disk to read what is in memory; what there is no room for they are
//! told of afterwards. When the store fails, what it did not take goes to the `window`, and so does all that follows.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::blob::Content;
use super::recent::Keeper;
use super::window::Window;
use super::{StagedReader, StoreError, Upload};
use crate::model::{Checksum, Hashed, Hasher};

/// How many bytes are read at a time when content has to be hashed again.
const REHASH_BYTES: usize = 256 << 10;

/// What it takes to write; wherever it is, only one has it.
#[derive(Debug)]
pub(super) struct Writer {
    sink: Sink,
    hasher: Hasher,
    progress: watch::Sender<u64>,
    window: Arc<Window>,
    /// How many bytes the file has, or had when the store failed.
    written: u64,
    /// How many pieces of the next batch followers have been told of.
    ahead: usize,
    /// How many bytes it goes on with that are still to be hashed.
    unhashed: u64,
}

/// Where bytes go.
#[derive(Debug)]
enum Sink {
    /// To a file, and the newest are kept beside it.
    File { upload: Box<dyn Upload>, keeper: Keeper },
    /// Past the store, because of this.
    Window(Arc<StoreError>),
}

impl Writer {
    /// One that writes to this, or past the store because of that; with a reader of what it writes.
    pub(super) fn new(
        upload: Result<Box<dyn Upload>, StoreError>,
        sha512: Option<&Checksum>,
    ) -> (Self, StagedReader) {
        let begun = upload.as_ref().map_or(0, |upload| upload.begun());
        let (sink, reader) = match upload {
            Ok(upload) => {
                let keeper = Keeper::new(begun);
                let reader = StagedReader { recent: Some(keeper.recent()), ..upload.reader() };
                (Sink::File { upload, keeper }, reader)
            }
            Err(why) => {
                let reader = StagedReader::new(Content::Memory(Bytes::new()));
                reader.window.open(0);
                (Sink::Window(Arc::new(why)), reader)
            }
        };
        let (progress, window) = (watch::Sender::new(begun), Arc::clone(&reader.window));
        let hasher = Hasher::new(sha512);
        (Self { sink, hasher, progress, window, written: begun, ahead: 0, unhashed: begun }, reader)
    }

    /// How many bytes can be read, as it grows.
    pub(super) fn progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    /// Why what comes is not stored.
    pub(super) const fn unstored(&self) -> Option<&Arc<StoreError>> {
        match &self.sink {
            Sink::File { .. } => None,
            Sink::Window(why) => Some(why),
        }
    }

    /// Leaves what is written for another to go on with.
    pub(super) fn leave(&mut self) {
        if let Sink::File { upload, .. } = &mut self.sink {
            upload.leave();
        }
    }

    /// What has been written, if it was, and what it hashes to.
    pub(super) fn finish(self) -> (Result<Box<dyn Upload>, Arc<StoreError>>, Hashed) {
        let upload = match self.sink {
            Sink::File { upload, .. } => Ok(upload),
            Sink::Window(why) => Err(why),
        };
        (upload, self.hasher.finish())
    }

    /// Whether taking bytes may wait for a disk.
    pub(super) fn blocks(&self) -> bool {
        match &self.sink {
            Sink::File { upload, .. } => upload.blocks(),
            Sink::Window(_) => false,
        }
    }

    /// Hashes what it goes on with.
    pub(super) fn catch_up(&mut self) -> io::Result<()> {
        let unhashed = std::mem::take(&mut self.unhashed);
        match &self.sink {
            Sink::File { upload, .. } if unhashed > 0 => {
                hash(&upload.reader().content, unhashed, &mut self.hasher)
            }
            _ => Ok(()),
        }
    }

    /// Tells followers of the next batch, as far as it is kept in memory.
    pub(super) fn announce(&mut self, batch: &[Bytes]) {
        if let Sink::File { keeper, .. } = &mut self.sink {
            self.ahead = keeper.keep_ahead(batch);
            tell(&self.progress, &batch[..self.ahead]);
        }
    }

    /// Takes the batch that was announced; why it cannot be stored, if that is new.
    pub(super) fn take(&mut self, chunks: Vec<Bytes>) -> Option<Arc<StoreError>> {
        let ahead = std::mem::take(&mut self.ahead);
        let lost = match &mut self.sink {
            Sink::File { upload, keeper } => match upload.append(&chunks) {
                Ok(()) => {
                    self.written += length(&chunks);
                    keeper.keep_written(&chunks[ahead..]);
                    None
                }
                Err(why) => Some(Arc::new(why)),
            },
            Sink::Window(_) => None,
        };
        if lost.is_some() {
            self.window.open(self.written);
        }
        if self.window.is_open() {
            self.window.keep(&chunks);
        }
        if let Some(why) = &lost {
            // Only now that all is in the window. This removes the file; what readers have open stays readable.
            self.sink = Sink::Window(Arc::clone(why));
        }
        tell(&self.progress, &chunks[ahead..]);
        // Followers read while this thread hashes.
        for chunk in chunks {
            self.hasher.update(&chunk);
        }
        lost
    }
}

/// Lets followers read these, which come next, if there are any.
fn tell(progress: &watch::Sender<u64>, chunks: &[Bytes]) {
    let added = length(chunks);
    progress.send_if_modified(|readable| {
        *readable += added;
        added > 0
    });
}

fn length(chunks: &[Bytes]) -> u64 {
    chunks.iter().map(|chunk| chunk.len() as u64).sum()
}

/// Hashes content from where the hasher stands up to `size` bytes.
pub(super) fn hash(content: &Content, size: u64, hasher: &mut Hasher) -> io::Result<()> {
    while hasher.size() < size {
        let len = usize::try_from(size - hasher.size()).map_or(REHASH_BYTES, |left| left.min(REHASH_BYTES));
        hasher.update(&content.read_at(hasher.size(), len)?);
    }
    Ok(())
}
