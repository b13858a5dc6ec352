//! A blob in the making: bytes go in, are hashed, written, can be read by followers, and become a
//! blob only by [`Staged::seal`] and [`Sealed::publish`].
//!
//! It knows no names but the one it computes. At most one job per staging runs, on the blocking pool unless it is short;
//! it has the `writer` take what has gathered, and goes on until nothing is left. Memory is bounded by [`HOLD_BYTES`] and [`HOLD_CHUNKS`] for each, by `held` for
//! all of the process, and by what `recent` and `window` keep.
//!
//! A staging that the store fails, at its beginning or on the way, goes on *unstored*: its bytes are
//! hashed and checked as ever and pass through a bounded `window` to those who follow. Only publishing it
//! then gives the store's error.
//!
//! Until it is published there is nothing but a file in `tmp/`. When nothing follows, because upstream or
//! this process ends, what has come is left for the next staging of the same sha256 to go on with, which hashes
//! it again before anything else. It is dropped if it has turned out wrong, or no name for it was announced.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;

use super::blob::Content;
use super::held::HELD;
use super::recent::Recent;
use super::window::{Found, Mark, Window};
use super::writer::{Writer, hash};
use super::{Blob, StoreError, Upload, blocking, layout};
use crate::model::{Algorithm, ArtifactType, Checksum, Digest, Hashed, Hasher};

/// The most bytes that one staging holds in memory: taken, but not yet written and hashed.
const HOLD_BYTES: usize = 1 << 20;

/// The most pieces that one staging holds, and that one write call is given (Linux takes 1024).
const HOLD_CHUNKS: usize = 1024;

/// The most bytes that are hashed where they come in, if nothing waits for a disk: handing them to another thread
/// takes about as long.
const IN_PLACE_BYTES: usize = 64 << 10;

/// A blob in the making. Dropping it leaves what has come for a later one, or removes it; what readers have
/// open stays readable.
#[derive(Debug)]
pub struct Staged {
    shared: Arc<Shared>,
    reader: StagedReader,
    progress: watch::Receiver<u64>,
    artifact_type: ArtifactType,
    expected_size: Option<u64>,
    /// Whether a sha512 is computed beside the sha256.
    with_sha512: bool,
    len: u64,
    /// Why it is not stored, once its owner knows.
    unstored: Option<Arc<StoreError>>,
}

/// What the owner and the running job have in common.
#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// Told whenever the queue gets shorter or the job ends. Only the owner waits.
    moved: Notify,
}

#[derive(Debug)]
struct Queue {
    /// Taken over, not yet in the hands of the job.
    chunks: Vec<Bytes>,
    /// Bytes and pieces taken over and not yet done with, those in the hands of the job included.
    held_bytes: usize,
    held_chunks: usize,
    state: State,
    /// Why what comes is not stored.
    unstored: Option<Arc<StoreError>>,
}

#[derive(Debug)]
enum State {
    /// No job runs.
    Idle(Box<Writer>),
    /// A job runs and has the writer.
    Busy,
    /// Nobody will write any more: the writer was taken, or a job died.
    Ended,
}

impl Staged {
    pub(super) fn new(
        artifact_type: ArtifactType,
        upload: Result<Box<dyn Upload>, StoreError>,
        expected_size: Option<u64>,
        expect: &[Checksum],
    ) -> Self {
        let sha512 = expect.iter().find(|claim| claim.algorithm() == Algorithm::Sha512);
        let begun = upload.as_ref().map_or(0, |upload| upload.begun());
        let (writer, reader) = Writer::new(upload, sha512);
        let (progress, unstored) = (writer.progress(), writer.unstored().cloned());
        let queue = Queue {
            chunks: Vec::new(),
            held_bytes: 0,
            held_chunks: 0,
            state: State::Idle(Box::new(writer)),
            unstored: unstored.clone(),
        };
        let shared = Arc::new(Shared { queue: Mutex::new(queue), moved: Notify::new() });
        if begun > 0 {
            // While upstream is asked for the rest.
            shared.begin(shared.lock());
        }
        let with_sha512 = sha512.is_some();
        Self { shared, reader, progress, artifact_type, expected_size, with_sha512, len: begun, unstored }
    }

    /// Sees that up to `bytes` of content stay in memory if it cannot be stored, whoever follows; the
    /// owner takes care that no more come. So [`StagedReader::whole`] gives all of it.
    #[must_use]
    pub fn held_whole(self, bytes: u64) -> Self {
        self.reader.window.hold(bytes);
        self
    }

    /// Takes the next bytes. Hashing and writing happen on a blocking thread, or here if they are few and wait for no
    /// disk; at most one job at a time. Returns when the bytes are accepted, which waits while too much is held.
    ///
    /// If the future is dropped, the bytes were not taken.
    ///
    /// # Errors
    /// The writing was broken off, by a panic or because the runtime stops; nothing can follow.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        if bytes.is_empty() {
            return Ok(());
        }
        loop {
            let moved = self.shared.moved.notified();
            if self.shared.offer(&bytes)? {
                break;
            }
            moved.await;
        }
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Waits until the next bytes would be accepted at once, unless they are many. Who gets them from
    /// somewhere waits here first, so that they do not lie in memory while they cannot be taken.
    ///
    /// Content that is not stored waits here for its followers too, and is given up when it has none.
    ///
    /// # Errors
    /// The writing was broken off, or why content that nobody follows cannot be stored; nothing can follow.
    pub async fn room(&mut self) -> Result<(), StoreError> {
        loop {
            let moved = self.shared.moved.notified();
            if self.shared.has_room(&mut self.unstored)? {
                break;
            }
            moved.await;
        }
        HELD.room().await;
        match &self.unstored {
            Some(why) if !self.reader.window.room(self.len).await => {
                Err(StoreError::Unstored(Arc::clone(why)))
            }
            _ => Ok(()),
        }
    }

    /// Why its bytes are not stored, if they are not; known from the next [`Self::room`] on.
    pub fn unstored(&self) -> Option<&StoreError> {
        self.unstored.as_deref()
    }

    /// Bytes accepted so far, with those that it began with.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is nothing yet.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes can be read, as it grows. Closes when the staging ends, well or not; its last
    /// value stays.
    pub fn progress(&self) -> watch::Receiver<u64> {
        self.progress.clone()
    }

    /// A reader of what is there. Cheap to clone, outlives the staging.
    pub fn reader(&self) -> StagedReader {
        self.reader.clone()
    }

    /// Ends the writing and compares with every claim, those given at [`super::Store::stage`] again
    /// or others learned since, and with the size expected then. A sha512 that nobody had announced
    /// costs a second reading.
    ///
    /// # Errors
    /// [`StoreError::Mismatch`] or [`StoreError::Length`], or the writing was broken off; the file is gone
    /// then. That it cannot be stored is no error, unless a claim was not announced.
    pub async fn seal(self, expect: &[Checksum]) -> Result<Sealed, StoreError> {
        let (upload, mut hashed) = self.shared.rest().await?.finish();
        if let Some(expected) = self.expected_size.filter(|expected| *expected != hashed.size) {
            return Err(StoreError::Length { actual: hashed.size, expected });
        }
        let sha512 = expect.iter().find(|claim| claim.algorithm() == Algorithm::Sha512);
        if let Some(claim) = sha512.filter(|_| !self.with_sha512) {
            if let Err(why) = upload {
                return Err(StoreError::Unstored(why));
            }
            let (reader, size, claim) = (self.reader.clone(), hashed.size, claim.clone());
            hashed = blocking(move || rehash(&reader.content, size, &claim)).await?;
        }
        if let Some(expected) = expect.iter().find(|claim| !hashed.satisfies(claim)) {
            return Err(StoreError::Mismatch { actual: hashed.digest, expected: expected.clone() });
        }
        Ok(Sealed { digest: hashed.digest, size: hashed.size, artifact_type: self.artifact_type, upload })
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether at least half of what may be held is free; and why nothing is stored, if that is new.
    fn has_room(&self, unstored: &mut Option<Arc<StoreError>>) -> Result<bool, StoreError> {
        let queue = self.lock();
        if let State::Ended = queue.state {
            return Err(ended());
        }
        if unstored.is_none() {
            unstored.clone_from(&queue.unstored);
        }
        Ok(queue.held_bytes <= HOLD_BYTES / 2 && queue.held_chunks < HOLD_CHUNKS)
    }

    /// Takes bytes into the queue and sees that a job runs; false if there is no room.
    fn offer(self: &Arc<Self>, bytes: &Bytes) -> Result<bool, StoreError> {
        let mut queue = self.lock();
        if let State::Ended = queue.state {
            return Err(ended());
        }
        // One piece is always taken, however long: it is in memory anyway.
        let full = queue.held_bytes + bytes.len() > HOLD_BYTES || queue.held_chunks == HOLD_CHUNKS;
        if full && queue.held_chunks > 0 {
            return Ok(false);
        }
        queue.chunks.push(bytes.clone());
        queue.held_bytes += bytes.len();
        queue.held_chunks += 1;
        HELD.add(bytes.len());
        self.begin(queue);
        Ok(true)
    }

    /// Sees that a job runs.
    fn begin(self: &Arc<Self>, mut queue: MutexGuard<'_, Queue>) {
        if let State::Idle(_) = queue.state
            && let State::Idle(writer) = std::mem::replace(&mut queue.state, State::Busy)
        {
            let in_place = queue.held_bytes <= IN_PLACE_BYTES && !writer.blocks();
            let batch = std::mem::take(&mut queue.chunks);
            drop(queue);
            let turn = Turn::new(Arc::clone(self), writer, batch);
            if in_place {
                turn.run();
            } else {
                spawn_blocking(move || turn.run());
            }
        }
    }

    /// Waits for the job to end and takes the writer.
    async fn rest(&self) -> Result<Box<Writer>, StoreError> {
        loop {
            let moved = self.moved.notified();
            {
                let mut queue = self.lock();
                match std::mem::replace(&mut queue.state, State::Ended) {
                    State::Idle(writer) => return Ok(writer),
                    State::Busy => queue.state = State::Busy,
                    State::Ended => return Err(ended()),
                }
            }
            moved.await;
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let queue = self.queue.get_mut().unwrap_or_else(PoisonError::into_inner);
        // What a job that died, or never began, has left.
        HELD.remove(queue.held_bytes);
        if let State::Idle(writer) = &mut queue.state {
            writer.leave();
        }
    }
}

/// One job: has the writer, and gives it back when it is dropped, come what may.
struct Turn {
    shared: Arc<Shared>,
    writer: Option<Box<Writer>>,
    /// What is to be written next.
    batch: Vec<Bytes>,
}

impl Turn {
    /// A job that begins with these, which followers are told of at once, and not when a thread is there for it.
    fn new(shared: Arc<Shared>, mut writer: Box<Writer>, batch: Vec<Bytes>) -> Self {
        writer.announce(&batch);
        Self { shared, writer: Some(writer), batch }
    }

    fn run(mut self) {
        if let Some(writer) = &mut self.writer
            && let Err(error) = writer.catch_up()
        {
            tracing::warn!(%error, "what was left of a transfer cannot be read");
            return;
        }
        // Present until there is nothing left, or `drop`.
        while let Some(writer) = &mut self.writer {
            let chunks = std::mem::take(&mut self.batch);
            let (bytes, pieces) = (chunks.iter().map(Bytes::len).sum::<usize>(), chunks.len());
            let lost = writer.take(chunks);
            let mut queue = self.shared.lock();
            queue.unstored = queue.unstored.take().or(lost);
            queue.held_bytes -= bytes;
            queue.held_chunks -= pieces;
            drop(queue);
            HELD.remove(bytes);
            self.shared.moved.notify_one();
            self.gather();
        }
    }

    /// Makes everything that has gathered the next batch; ends the turn, in the same breath, if that is nothing.
    fn gather(&mut self) {
        let mut queue = self.shared.lock();
        if queue.chunks.is_empty() {
            if let Some(writer) = self.writer.take() {
                queue.state = State::Idle(writer);
            }
            return;
        }
        self.batch = std::mem::take(&mut queue.chunks);
        drop(queue);
        if let Some(writer) = &mut self.writer {
            writer.announce(&self.batch);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.writer.take().is_some() {
            // Only a disk that does not read, a panic, or a runtime that shut down before the job began, leads here.
            self.shared.lock().state = State::Ended;
        }
        self.shared.moved.notify_one();
    }
}

/// Writing that has ended cannot go on.
fn ended() -> StoreError {
    StoreError::io("write", "tmp", io::Error::other("writing was broken off before"))
}

fn rehash(content: &Content, size: u64, claim: &Checksum) -> Result<Hashed, StoreError> {
    let mut hasher = Hasher::new(Some(claim));
    hash(content, size, &mut hasher).map_err(|error| StoreError::io("read", "tmp", error))?;
    Ok(hasher.finish())
}

/// Bytes that are known to be right, not yet durable. Dropping it removes the file.
#[derive(Debug)]
pub struct Sealed {
    /// The blob's name.
    pub digest: Digest,
    /// Its size.
    pub size: u64,
    artifact_type: ArtifactType,
    upload: Result<Box<dyn Upload>, Arc<StoreError>>,
}

impl Sealed {
    /// Why it cannot be published, if that is known already.
    pub fn unstored(&self) -> Option<&StoreError> {
        self.upload.as_ref().err().map(|why| &**why)
    }

    /// fsync and publish under the digest's name without replacing. If the blob is there already,
    /// that one is used, unless its size is wrong: then this one takes its place.
    ///
    /// If the future is dropped, the blob may be published all the same; gc removes it.
    ///
    /// # Errors
    /// What went wrong, with the writing ([`StoreError::Unstored`]) or now; nothing is visible then, and the
    /// file in `tmp/` is gone.
    pub async fn publish(self) -> Result<Blob, StoreError> {
        let path = layout::blob(self.artifact_type, &self.digest);
        let upload = self.upload.map_err(StoreError::Unstored)?;
        upload.publish(&path).await
    }
}

/// Reads a blob in the making, and afterwards the finished one.
#[derive(Debug, Clone)]
pub struct StagedReader {
    pub(super) content: Content,
    pub(super) recent: Option<Arc<Recent>>,
    pub(super) window: Arc<Window>,
}

impl StagedReader {
    pub(super) fn new(content: Content) -> Self {
        Self { content, recent: None, window: Arc::new(Window::new()) }
    }

    /// A follower's place at the beginning. Without one, what cannot be stored may be gone before it is
    /// read. `None` if the beginning is gone already.
    pub fn mark(&self) -> Option<Mark> {
        Mark::new(&self.window)
    }

    /// Whether what comes is not stored.
    pub fn is_unstored(&self) -> bool {
        self.window.is_open()
    }

    /// All `size` bytes of what has been sealed; of what could not be stored, if it was
    /// [`Staged::held_whole`].
    ///
    /// # Errors
    /// As [`Self::read_at`].
    pub fn whole(&self, size: u64) -> io::Result<Bytes> {
        let Some((from, mut pieces)) = self.window.all() else {
            return self.content.read_at(0, usize::try_from(size).map_err(io::Error::other)?);
        };
        if from > 0 {
            pieces.insert(0, self.content.read_at(0, usize::try_from(from).map_err(io::Error::other)?)?);
        }
        let whole = if pieces.len() == 1 { pieces.swap_remove(0) } else { pieces.concat().into() };
        if whole.len() as u64 == size { Ok(whole) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Where the bytes at `offset` can be had, up to `len` of them, as long as the store takes them: the newest are
    /// still in memory, and only there before they are written. The caller stays within [`Staged::progress`].
    pub fn recent(&self, offset: u64, len: usize) -> Found {
        self.recent.as_ref().map_or(Found::File(len), |recent| recent.find(offset, len))
    }

    /// Like [`Self::read_at`], but only what is in the page cache: `None` if it would block, and
    /// fewer bytes (but not none) if only the first of them are there.
    ///
    /// # Errors
    /// As [`Self::read_at`].
    pub fn try_read_at(&self, offset: u64, len: usize) -> io::Result<Option<Bytes>> {
        self.content.try_read_at(offset, len)
    }

    /// Reads `len` bytes at `offset` of the file; the caller stays within [`Staged::progress`], and within
    /// what [`Self::recent`] and then [`Mark::find`] say is there.
    ///
    /// # Errors
    /// What the disk answers; [`io::ErrorKind::UnexpectedEof`] beyond what has been written.
    pub fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        self.content.read_at(offset, len)
    }
}
