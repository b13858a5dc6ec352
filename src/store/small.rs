//! Small content on its way in: it stays in memory until it is whole, and is then written in one go.
//!
//! A client waits for what it asked for to come and to be right, and for nothing of the disk: not for a file to be
//! made, which has to wait for whatever the file system's journal is at, nor for it to be written. An object store
//! takes small objects whole in any case.
//!
//! Memory: [`SMALL_BYTES`] for each, [`SMALL_BYTES_OF_ALL`] for all of the process, lent for as long as anybody
//! follows. What finds no room there, or whose size is not known, goes to the backend's own upload as it comes.

use std::sync::Arc;

use bytes::Bytes;

use super::backend::{Answer, Backend, Upload};
use super::blob::{Content, Growing};
use super::quota::Quota;
use super::{Blob, ObjectPath, StagedReader, StoreError};

/// The most bytes of content that is small. What breaks off before it is whole is not worth being left then
/// ([`Upload::leave`]).
const SMALL_BYTES: usize = 1 << 20;

/// The most bytes that all small content together is given.
const SMALL_BYTES_OF_ALL: usize = 16 << 20;

/// What can be lent.
static ALL: Quota = Quota::new(SMALL_BYTES_OF_ALL);

/// Memory that was lent. Given back when it is dropped.
#[derive(Debug)]
pub(super) struct Loan(usize);

impl Loan {
    fn take(bytes: usize) -> Option<Self> {
        ALL.take(bytes).then_some(Self(bytes))
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        ALL.give_back(self.0);
    }
}

/// An upload of small content.
#[derive(Debug)]
pub(super) struct SmallUpload {
    backend: Arc<dyn Backend>,
    staging: ObjectPath,
    growing: Arc<Growing>,
    len: usize,
    size: usize,
}

impl SmallUpload {
    /// One of so many bytes; `None` if they are too many, or others have all the room.
    pub(super) fn start(backend: &Arc<dyn Backend>, staging: &ObjectPath, size: u64) -> Option<Self> {
        let size = usize::try_from(size).ok().filter(|size| *size <= SMALL_BYTES)?;
        let loan = Loan::take(size)?;
        let growing = Arc::new(Growing::new(Vec::with_capacity(size), Some(loan)));
        Some(Self { backend: Arc::clone(backend), staging: staging.clone(), growing, len: 0, size })
    }
}

impl Upload for SmallUpload {
    fn blocks(&self) -> bool {
        false
    }

    fn begun(&self) -> u64 {
        0
    }

    fn append(&mut self, chunks: &[Bytes]) -> Result<(), StoreError> {
        let len = self.len + chunks.iter().map(Bytes::len).sum::<usize>();
        if len > self.size {
            return Err(StoreError::Length { actual: len as u64, expected: self.size as u64 });
        }
        self.growing.append(chunks);
        self.len = len;
        if len == self.size {
            self.growing.whole();
        }
        Ok(())
    }

    fn reader(&self) -> StagedReader {
        StagedReader::new(Content::Growing(Arc::clone(&self.growing)))
    }

    fn leave(&mut self) -> u64 {
        0
    }

    fn publish(self: Box<Self>, path: &ObjectPath) -> Answer<'static, Blob> {
        let path = path.clone();
        Box::pin(async move { self.backend.publish(&path, &self.staging, self.growing.whole()).await })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Store, layout};
    use super::*;
    use crate::model::{ArtifactType, Digest, ProxyId};

    fn proxy() -> ProxyId {
        ProxyId { artifact_type: ArtifactType::Generic, name: "x".parse().expect("a name") }
    }

    /// Files below a directory.
    fn files(dir: &std::path::Path) -> usize {
        walkdir::WalkDir::new(dir).into_iter().flatten().filter(|entry| entry.file_type().is_file()).count()
    }

    #[tokio::test]
    async fn small_content_is_followed_from_memory_and_is_no_file_before_it_is_published() {
        let home = tempfile::tempdir().expect("a directory");
        let store = Store::create(home.path().to_str().expect("text")).await.expect("a store");
        let before = files(home.path());
        let mut staged = store.stage(&proxy(), Some(10), &[]).await;
        let (reader, progress) = (staged.reader(), staged.progress());
        staged.write("01234".into()).await.expect("written");
        assert_eq!(*progress.borrow(), 5, "at once, on this thread");
        assert_eq!(reader.read_at(1, 4).expect("read"), "1234");
        assert!(reader.read_at(1, 5).is_err(), "no more has come");
        staged.write("56789".into()).await.expect("written");
        let sealed = staged.seal(&[]).await.expect("sealed");
        assert_eq!(reader.whole(10).expect("read"), "0123456789");
        assert_eq!(files(home.path()), before);
        let digest = sealed.digest;
        assert_eq!(digest, Digest::of(b"0123456789"));
        let blob = sealed.publish().await.expect("published");
        assert_eq!(blob.read_at(0, 99).expect("read"), "0123456789");
        assert!(home.path().join(layout::blob(ArtifactType::Generic, &digest).as_str()).is_file());
        assert_eq!(reader.read_at(8, 2).expect("read"), "89", "who follows goes on");
    }

    #[tokio::test]
    async fn what_is_more_than_was_stated_is_not_taken_and_what_is_large_is_not_small() {
        let backend: Arc<dyn Backend> = Arc::new(super::super::memory::Memory::default());
        let start = |size: usize| SmallUpload::start(&backend, &layout::staging(&proxy()), size as u64);
        let mut upload = start(4).expect("small");
        upload.append(&["01".into(), "2".into()]).expect("taken");
        let more = upload.append(&["34".into()]);
        assert!(matches!(more, Err(StoreError::Length { actual: 5, expected: 4 })), "{more:?}");
        assert!(start(SMALL_BYTES).is_some());
        assert!(start(SMALL_BYTES + 1).is_none());
    }
}
