//! The blobs: whether each is one, and whether its bytes hash to its name.

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::finding::Corruption;
use super::{Check, Finding};
use crate::maintain::sorted::Sorter;
use crate::maintain::{MaintainError, Step, blob_key, joined};
use crate::model::{ArtifactType, Digest, Hasher, give_way};
use crate::store::{BlobEntry, FRAME, Store};

/// Blobs that are hashed at a time: one thread does not keep up with a disk, and while one blob is opened or
/// waits for the disk two others are hashed.
const HASHERS: usize = 3;
/// Bytes that are read at a time: what there are buffers for that begin where the kernel fills them quickly.
const CHUNK: usize = FRAME;

impl Check<'_> {
    /// Looks at every file below `blobs/`.
    pub(super) async fn blobs(&mut self) -> Result<(), MaintainError> {
        self.at.progress.begin(Step::CheckBlobs, None);
        let store = self.at.store;
        for artifact_type in ArtifactType::ALL {
            // Blobs of one page are still read while the next is looked at.
            let mut reading = FuturesUnordered::new();
            let mut scan = store.scan_blobs(artifact_type);
            while let Some(page) = scan.next_page().await {
                for digest in self.blob_page(artifact_type, &page?).await? {
                    if reading.len() == HASHERS
                        && let Some((digest, inspected)) = reading.next().await
                    {
                        self.blob_read(artifact_type, digest, inspected).await?;
                    }
                    reading.push(async move { (digest, inspect(store, artifact_type, digest).await) });
                }
            }
            while let Some((digest, inspected)) = reading.next().await {
                self.blob_read(artifact_type, digest, inspected).await?;
            }
        }
        self.live = std::mem::replace(&mut self.sizes, Sorter::new(self.at)).finish()?;
        Ok(())
    }

    /// Looks at the files of a page; returns those that have to be read.
    async fn blob_page(
        &mut self,
        artifact_type: ArtifactType,
        page: &[BlobEntry],
    ) -> Result<Vec<Digest>, MaintainError> {
        let mut read = Vec::new();
        for entry in page {
            let Some(digest) = entry.digest else {
                self.found(&Finding::StrayFile { path: entry.path.clone() }).await?;
                continue;
            };
            self.report.blobs += 1;
            if entry.size == 0 && digest != Digest::of(&[]) {
                self.corrupt_blob(artifact_type, digest, Corruption::Empty).await?;
            } else if self.options.read_data.is_some_and(|share| share.contains(&digest)) {
                read.push(digest);
                continue;
            } else if matches!(self.at.store.open_blob(artifact_type, &digest, Some(entry.size)), Ok(Some(_)))
            {
                self.note_live(artifact_type, digest, entry.size)?;
            }
            self.at.progress.advance(1);
        }
        Ok(read)
    }

    fn note_live(
        &mut self,
        artifact_type: ArtifactType,
        digest: Digest,
        size: u64,
    ) -> Result<(), MaintainError> {
        self.sizes.insert(joined(&blob_key(artifact_type, &digest), &size.to_be_bytes()))
    }

    /// Takes what reading a blob has shown.
    async fn blob_read(
        &mut self,
        artifact_type: ArtifactType,
        digest: Digest,
        inspected: Result<Inspected, MaintainError>,
    ) -> Result<(), MaintainError> {
        self.at.progress.advance(1);
        match inspected? {
            Inspected::Absent => {}
            Inspected::Sound(size) => {
                self.report.bytes_read += size;
                self.note_live(artifact_type, digest, size)?;
            }
            Inspected::Corrupt(_) => {
                // Looked at again: it may have been replaced while it was read.
                if let Inspected::Corrupt(how) = inspect(self.at.store, artifact_type, digest).await? {
                    self.corrupt_blob(artifact_type, digest, how).await?;
                }
            }
        }
        Ok(())
    }

    /// Tells of a corrupt blob, once however many refs need it. Returns whether it was mended.
    pub(super) async fn corrupt_blob(
        &mut self,
        artifact_type: ArtifactType,
        digest: Digest,
        how: Corruption,
    ) -> Result<bool, MaintainError> {
        let key = blob_key(artifact_type, &digest);
        if self.corrupt.contains(&key)? {
            return Ok(false);
        }
        self.corrupt.insert(key)?;
        self.found(&Finding::CorruptBlob { artifact_type, digest, how }).await
    }
}

/// What a look at all bytes of a blob shows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Inspected {
    /// There is no such blob, or what is there is not a file or is empty.
    Absent,
    /// So many bytes, and they hash to its name.
    Sound(u64),
    Corrupt(Corruption),
}

/// Reads a live blob and hashes it.
pub(super) async fn inspect(
    store: &Store,
    artifact_type: ArtifactType,
    digest: Digest,
) -> Result<Inspected, MaintainError> {
    let blob = match store.open_blob(artifact_type, &digest, None) {
        Ok(Some(blob)) => blob,
        Ok(None) => return Ok(Inspected::Absent),
        Err(error) => return Ok(Inspected::Corrupt(Corruption::Unreadable(error.to_string()))),
    };
    let hashed = tokio::task::spawn_blocking(move || {
        let mut hasher = Hasher::new(None);
        while hasher.size() < blob.size() {
            let bytes = blob.read_at(hasher.size(), CHUNK)?;
            if bytes.is_empty() {
                break; // Shorter than it was: then it is corrupt, and the hash says so.
            }
            hasher.update(&bytes);
            give_way();
        }
        Ok::<_, std::io::Error>(hasher.finish())
    });
    Ok(match hashed.await? {
        Ok(hashed) if hashed.digest == digest => Inspected::Sound(hashed.size),
        Ok(hashed) => Inspected::Corrupt(Corruption::HashesTo(hashed.digest)),
        Err(error) => Inspected::Corrupt(Corruption::Unreadable(error.to_string())),
    })
}
