//! What maintenance alone needs of the store: reading condemned blobs, setting aside what is neither
//! ref nor blob, and small notes from one run to the next.

use super::{Blob, Store, StoreError, layout, scan};
use crate::model::{ArtifactType, Digest, Ref};

/// The longest note that is read, in bytes.
const NOTE_LEN: u64 = 4096;

impl Store {
    /// Opens a blob that is condemned, without bringing it back. `None` if it is not.
    pub async fn open_condemned(
        &self,
        artifact_type: ArtifactType,
        digest: &Digest,
    ) -> Result<Option<Blob>, StoreError> {
        for run in self.backend.folders(&layout::trash(artifact_type)).await?.iter().rev() {
            if let Some(condemned) = layout::condemned(artifact_type, run, digest)
                && let Some(blob) = self.backend.open(&condemned).await?
            {
                return Ok(Some(blob));
            }
        }
        Ok(None)
    }

    /// Moves what a scan has shown at `path` to the same place below `quarantine/` of its type.
    ///
    /// False if it is not there any more, or a ref that can be read has taken its place: it moves
    /// only the very file that it has looked at.
    pub async fn set_aside(&self, path: &str) -> Result<bool, StoreError> {
        let Some((from, aside)) = layout::set_aside(path) else { return Ok(false) };
        let seen = self.backend.open(&from).await?;
        if let Some(blob) = seen.clone().filter(|_| layout::key_of(path).is_some()) {
            let bytes = super::blocking(move || {
                let limit = usize::try_from(Ref::MAX_LEN + 1).unwrap_or(usize::MAX);
                blob.read_at(0, limit).map_err(|error| StoreError::io("read", "a ref", error))
            });
            if bytes.await.is_ok_and(|bytes| scan::parse_ref(path, &bytes).is_ok()) {
                return Ok(false);
            }
        }
        self.backend.quarantine(&from, &aside, seen.as_ref()).await
    }

    /// Reads a note that an earlier run has left; `None` if there is none that can be read.
    pub async fn read_note(&self, name: &str) -> Result<Option<String>, StoreError> {
        let bytes = self.backend.read(&layout::lock(name), NOTE_LEN).await?;
        Ok(bytes.and_then(|bytes| String::from_utf8(bytes.into()).ok()))
    }

    /// Leaves a note for later runs, beside the locks: nothing relies on it for safety.
    pub async fn write_note(&self, name: &str, note: &str) -> Result<(), StoreError> {
        let bytes = note.to_owned().into();
        self.backend.put(&layout::lock(name), &layout::notes_staging(), bytes).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RefKey;

    fn reference() -> Ref {
        let json = r#"{"kind":"x","targetDigest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0,"fetchedAt":"2026-01-01T00:00:00Z"}"#;
        Ref::parse(json.as_bytes()).expect("valid")
    }

    #[tokio::test]
    async fn a_note_is_read_back_and_the_last_one_holds() {
        let dir = tempfile::tempdir().expect("a directory");
        for root in ["mem://", dir.path().to_str().expect("text")] {
            let store = Store::create(root).await.expect("a store");
            assert_eq!(store.read_note("gc.last").await.expect("read"), None);
            store.write_note("gc.last", "one").await.expect("written");
            store.write_note("gc.last", "two").await.expect("written");
            assert_eq!(store.read_note("gc.last").await.expect("read").as_deref(), Some("two"));
        }
    }

    #[tokio::test]
    async fn what_is_no_ref_is_set_aside_and_a_ref_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::create(dir.path().to_str().expect("text")).await.expect("a store");
        let key: RefKey = "generic/g/refs/a/b".parse().expect("valid");
        store.write_ref(&key, &reference()).await.expect("written");
        let path = layout::path_of(&key).to_string();
        assert!(!store.set_aside(&path).await.expect("looked"), "it can be read");
        std::fs::write(dir.path().join(&path), "{").expect("written");
        assert!(store.set_aside(&path).await.expect("moved"));
        assert!(!store.set_aside(&path).await.expect("looked"), "it has gone");
        let aside = "type/generic/quarantine/proxies/g/refs/a/b.json";
        assert_eq!(std::fs::read(dir.path().join(aside)).expect("read"), b"{");
        for elsewhere in ["type", "locks/gc.lock", "type/generic/../x", "../x", "type/generic/"] {
            assert!(!store.set_aside(elsewhere).await.expect("looked"), "{elsewhere}");
        }
    }

    #[tokio::test]
    async fn a_condemned_blob_can_be_read_and_stays_condemned() {
        let store = Store::create("mem://").await.expect("a store");
        let proxy = "generic/g/refs/a".parse::<RefKey>().expect("valid").proxy;
        let mut staged = store.stage(&proxy, None, &[]).await;
        staged.write("abc".into()).await.expect("written");
        staged.seal(&[]).await.expect("sealed").publish().await.expect("published");
        let digest = Digest::of(b"abc");
        assert!(store.open_condemned(ArtifactType::Generic, &digest).await.expect("looked").is_none());
        assert_eq!(
            store.condemn(&[(ArtifactType::Generic, digest)], "run").await.expect("condemned"),
            [true]
        );
        let blob = store.open_condemned(ArtifactType::Generic, &digest).await.expect("looked");
        assert_eq!(blob.map(|blob| blob.size()), Some(3));
        assert!(store.open_blob(ArtifactType::Generic, &digest, None).expect("looked").is_none());
    }
}
