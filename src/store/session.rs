//! Whether what lies on disk may be believed unread: who served from here and did not end well, and
//! which blobs have been hashed since.
//!
//! A blob is hashed when it is published, and its file's mtime says when; hashing it again sets that
//! time anew. A server that runs holds a lock of its own below `locks/`, and removes it when it ends
//! well. One that is left without an owner means that the machine or the process went down, so that
//! the file system may have lost bytes: the moment of noticing it is noted, and what was hashed before
//! counts as unread.
//!
//! Nothing but reading a blob once more depends on any of this. Where there are no locks, every start
//! beside another server counts as one after a crash.

use std::sync::Arc;

use super::{Blob, Entry, ObjectPath, Scan, Store, StoreError, StoreLock, blocking, hashes_to, layout};
use crate::model::{ArtifactType, Digest, Timestamp};

/// How the names of a server's own locks begin.
const SERVING: &str = "serve-";
/// The note of when a server was last found to have gone down.
const WENT_DOWN: &str = "serve.down";

/// A server's time at a store. Dropped without [`Session::end`], it counts as having gone down.
#[derive(Debug)]
pub struct Session {
    store: Store,
    path: ObjectPath,
    _lock: StoreLock,
}

impl Session {
    /// Ends well.
    ///
    /// # Errors
    /// What went wrong; then the next server takes this one for having gone down.
    pub async fn end(self) -> Result<(), StoreError> {
        self.store.backend.delete(&self.path).await.map(|_| ())
    }
}

impl Store {
    /// Begins to serve from the store. Beside the session: since when what was hashed counts.
    ///
    /// # Errors
    /// What went wrong, for instance on a read-only disk: then nobody knows what to believe.
    pub async fn begin_session(&self, now: Timestamp) -> Result<(Session, Timestamp), StoreError> {
        let went_down = self.remove_dead_sessions().await?;
        let name = format!("{SERVING}{}-{}", std::process::id(), now.as_nanosecond());
        let path = layout::lock(&name);
        let lock = self.backend.lock(&path)?.ok_or_else(|| {
            let why = std::io::Error::new(std::io::ErrorKind::AlreadyExists, "somebody has this very name");
            StoreError::io("lock", path.as_str(), why)
        })?;
        let session = Session { store: self.clone(), path, _lock: lock };
        let since = if went_down {
            self.write_note(WENT_DOWN, &now.to_string()).await?;
            now
        } else {
            let noted = self.read_note(WENT_DOWN).await?;
            noted.and_then(|noted| noted.parse().ok()).unwrap_or(Timestamp::MIN)
        };
        Ok((session, since))
    }

    /// Whether a server has gone down since somebody last looked.
    async fn remove_dead_sessions(&self) -> Result<bool, StoreError> {
        let own = layout::lock(SERVING);
        let mut found = Vec::new();
        let lock =
            move |entry: Entry| Some(entry.path).filter(|path| path.as_str().starts_with(own.as_str()));
        let mut locks = Scan::start(Arc::clone(&self.backend), vec![layout::locks()], None, lock);
        while let Some(page) = locks.next_page().await {
            found.extend(page?);
        }
        let mut went_down = false;
        for path in found {
            // Whoever lives holds it.
            if let Some(_owned) = self.backend.lock(&path)? {
                went_down = true;
                self.backend.delete(&path).await?;
            }
        }
        Ok(went_down)
    }

    /// Hashes an open blob, and if it is what its name says, notes that it was read at `now`. False if
    /// it is not, or cannot be read to its end.
    pub async fn prove(
        &self,
        artifact_type: ArtifactType,
        digest: Digest,
        blob: Blob,
        now: Timestamp,
    ) -> bool {
        let sound = blocking(move || Ok(hashes_to(&blob, &digest))).await.unwrap_or(false);
        if sound {
            self.note_proved(artifact_type, &digest, now).await;
        }
        sound
    }

    /// Notes that a blob was read at `now` and is what its name says. Where that cannot be noted, it is
    /// read again some time.
    pub async fn note_proved(&self, artifact_type: ArtifactType, digest: &Digest, now: Timestamp) {
        let live = layout::blob(artifact_type, digest);
        if let Err(error) = self.backend.set_modified(&live, now).await {
            tracing::debug!(%error, %digest, "could not note that a blob is sound");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("in range")
    }

    #[tokio::test]
    async fn a_server_that_did_not_end_well_is_noticed_once_and_remembered() {
        let dir = tempfile::TempDir::new().expect("directory");
        let store = Store::create(dir.path().to_str().expect("text")).await.expect("created");
        let (first, since) = store.begin_session(at(100)).await.expect("begun");
        assert_eq!(since, Timestamp::MIN, "nobody was here before");
        let (beside, since) = store.begin_session(at(200)).await.expect("begun");
        assert_eq!(since, Timestamp::MIN, "the other one lives");
        first.end().await.expect("ended");
        drop(beside);
        for (now, expected) in [(300, 300), (400, 300)] {
            let (session, since) = store.begin_session(at(now)).await.expect("begun");
            assert_eq!(since, at(expected));
            session.end().await.expect("ended");
        }
    }

    #[tokio::test]
    async fn a_blob_is_proved_by_reading_it() {
        let dir = tempfile::TempDir::new().expect("directory");
        let store = Store::create(dir.path().to_str().expect("text")).await.expect("created");
        let proxy =
            crate::model::ProxyId { artifact_type: ArtifactType::Generic, name: "p".parse().expect("valid") };
        let mut staged = store.stage(&proxy, None, &[]).await;
        staged.write(bytes::Bytes::from_static(b"content")).await.expect("written");
        let sealed = staged.seal(&[]).await.expect("sealed");
        let digest = sealed.digest;
        assert_eq!(sealed.publish().await.expect("published").modified(), None, "just written");
        let open = || store.open_blob(ArtifactType::Generic, &digest, None).expect("opened").expect("there");
        assert!(store.prove(ArtifactType::Generic, digest, open(), at(1_000)).await);
        assert_eq!(open().modified(), Some(at(1_000)));

        let file = dir.path().join(layout::blob(ArtifactType::Generic, &digest).as_str());
        std::fs::write(file, b"Content").expect("writable");
        assert!(!store.prove(ArtifactType::Generic, digest, open(), at(2_000)).await);
        assert_ne!(open().modified(), Some(at(2_000)));
    }
}
