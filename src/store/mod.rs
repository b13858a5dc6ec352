//! The files, which are the truth. `docs/layout.md` is the normative description.
//!
//! This module knows paths, bytes and durability. It must not know the index, protocols or HTTP.
//! `layout` alone makes paths; `backend` is what a place for objects must be able to do; everything
//! else is written against these two and is the same on every backend.
//!
//! Write order is blob → ref; a crash between any two steps leaves strays that gc removes. Nothing
//! here relies on a clock or on a lock: existence is decided by opening, publishing is atomic.

mod backend;
mod blob;
mod buffers;
#[cfg(test)]
mod conformance;
mod error;
#[cfg(test)]
mod faulty;
mod held;
mod layout;
#[cfg(test)]
mod left_tests;
mod local;
mod mapped;
mod memory;
mod quota;
mod recent;
mod room;
mod scan;
mod scratch;
mod session;
mod small;
mod staged;
#[cfg(test)]
mod staged_tests;
#[cfg(test)]
mod tests;
mod upkeep;
mod window;
mod writer;

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;

pub use backend::{Answer, Backend, Entry, Lister, ObjectPath, Space, Stat, StoreLock, Upload};
pub use blob::Blob;
pub(crate) use buffers::FRAME;
pub use error::StoreError;
#[cfg(test)]
pub(crate) use faulty::{Fault, Faults};
pub use room::{Limits, Pressure};
pub use scan::{BlobEntry, RefEntry, Scan, TrashEntry};
pub use scratch::Scratch;
pub use session::Session;
pub use staged::{Sealed, Staged, StagedReader};
pub use window::{Found, Mark};

use self::room::{Promised, Room};
use crate::model::{Area, ArtifactType, Checksum, Digest, Hasher, ProxyId, Ref, RefKey, Timestamp};

/// The longest `FORMAT` file that is read, in bytes.
const FORMAT_LEN: u64 = 64;

/// The digest of no bytes: the only blob that may be empty.
static EMPTY: LazyLock<Digest> = LazyLock::new(|| Digest::of(&[]));

/// One repository root. Clones are the same store.
#[derive(Debug, Clone)]
pub struct Store {
    backend: Arc<dyn Backend>,
    room: Arc<Room>,
}

impl Store {
    /// Opens a root, making it if it is not there: `file:///abs/path`, a plain path, or `mem://`,
    /// which is a new, empty store each time.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] if the root is not one that this version may write to.
    pub async fn create(root: &str) -> Result<Self, StoreError> {
        let Some(path) = local_path(root)? else {
            return Self::formatted(Arc::new(memory::Memory::default()), root).await;
        };
        let shown = path.clone();
        let local = blocking(move || local::Local::create(&path)).await?;
        check_mounts(&local).await?;
        Self::formatted(Arc::new(local), &shown.display().to_string()).await
    }

    /// Opens a root that is there.
    ///
    /// # Errors
    /// [`StoreError::NoStore`] if it is not, [`StoreError::Unusable`] if it is not one that this
    /// version may write to.
    pub async fn open(root: &str) -> Result<Self, StoreError> {
        let Some(path) = local_path(root)? else { return Err(StoreError::NoStore(root.to_owned())) };
        let shown = path.display().to_string();
        let local = blocking(move || local::Local::open(&path)).await?;
        check_mounts(&local).await?;
        let store = Self::on(Arc::new(local));
        if store.backend.stat(&layout::types()).await?.is_none() {
            return Err(StoreError::NoStore(shown));
        }
        for artifact_type in ArtifactType::ALL {
            store.check_format(artifact_type, &shown).await?;
        }
        Ok(store)
    }

    fn on(backend: Arc<dyn Backend>) -> Self {
        scan::prepare();
        Self { backend, room: Arc::new(Room::new(None)) }
    }

    async fn formatted(backend: Arc<dyn Backend>, root: &str) -> Result<Self, StoreError> {
        let store = Self::on(backend);
        for artifact_type in ArtifactType::ALL {
            if !store.check_format(artifact_type, root).await? {
                let (path, staging) = (layout::format(artifact_type), layout::config_staging(artifact_type));
                let version = Bytes::from(format!("{}\n", layout::VERSION));
                store.backend.put_if_absent(&path, &staging, version).await?;
            }
        }
        Ok(store)
    }

    /// Whether `FORMAT` is there; an error if it states another version than ours.
    async fn check_format(&self, artifact_type: ArtifactType, root: &str) -> Result<bool, StoreError> {
        let path = layout::format(artifact_type);
        let Some(bytes) = self.backend.read(&path, FORMAT_LEN).await? else { return Ok(false) };
        let why = match str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse::<u32>().ok()) {
            Some(layout::VERSION) => return Ok(true),
            Some(version) => format!(
                "`{path}` says layout version {version} and this is a repoxy for version {}; use the version that wrote it, or another root",
                layout::VERSION
            ),
            None => {
                format!("`{path}` does not state a layout version; restore the file, or use another root")
            }
        };
        Err(StoreError::Unusable { root: root.to_owned(), why })
    }

    /// The root's directory, when it is on a local disk.
    pub fn local_dir(&self) -> Option<&std::path::Path> {
        self.backend.local_dir()
    }

    /// Reads a ref. A file that is not a ref is `Err(StoreError::BadRef)`: the engine treats it as
    /// absent, fsck reports it.
    pub async fn read_ref(&self, key: &RefKey) -> Result<Option<Ref>, StoreError> {
        let path = layout::path_of(key);
        let bytes = self.backend.read(&path, Ref::MAX_LEN).await?;
        bytes.map(|bytes| scan::parse_ref(path.as_str(), &bytes)).transpose()
    }

    /// Publishes a ref (Rule P: tmp, fsync, rename over). W2 of the gc protocol.
    ///
    /// On return the content is durable; after a power cut the ref is this one or the one before. If
    /// the future is dropped, either may be there.
    ///
    /// # Errors
    /// What went wrong; the ref before is untouched then. [`StoreError::BadRef`] if it is too long to
    /// be read back.
    pub async fn write_ref(&self, key: &RefKey, reference: &Ref) -> Result<(), StoreError> {
        let (path, json) = (layout::path_of(key), reference.to_json());
        if json.len() as u64 > Ref::MAX_LEN {
            let why = format!("longer than {} bytes", Ref::MAX_LEN);
            return Err(StoreError::BadRef { path: path.to_string(), why });
        }
        self.backend.put(&path, &layout::staging(&key.proxy), json.into()).await
    }

    /// Whether a ref has a file.
    pub async fn has_ref(&self, key: &RefKey) -> Result<bool, StoreError> {
        Ok(self.backend.stat(&layout::path_of(key)).await?.is_some())
    }

    /// Deletes a ref, and the directories that become empty by it; false if it was not there.
    pub async fn remove_ref(&self, key: &RefKey) -> Result<bool, StoreError> {
        self.backend.delete(&layout::path_of(key)).await
    }

    /// Mirrors a last use into the ref file's mtime. A ref that is not there is no error.
    pub async fn touch_ref(&self, key: &RefKey, at: Timestamp) -> Result<(), StoreError> {
        self.backend.set_modified(&layout::path_of(key), at).await.map(|_| ())
    }

    /// Opens a live blob, without waiting for anything slower than a local open. `None` if absent,
    /// empty though it should not be, of another size than `size`, or not a regular file.
    pub fn open_blob(
        &self,
        artifact_type: ArtifactType,
        digest: &Digest,
        size: Option<u64>,
    ) -> Result<Option<Blob>, StoreError> {
        let opened = self.backend.open_now(&layout::blob(artifact_type, digest))?;
        Ok(opened.filter(|blob| is_sound(blob, digest, size)))
    }

    /// W1/W3: opens a live blob, and if it is condemned, links it back from trash first. `None` as in
    /// [`Self::open_blob`]: it has to be fetched.
    pub async fn ensure_live(
        &self,
        artifact_type: ArtifactType,
        digest: &Digest,
        size: Option<u64>,
    ) -> Result<Option<Blob>, StoreError> {
        let live = layout::blob(artifact_type, digest);
        let open = async || {
            let opened = self.backend.open(&live).await?;
            Ok::<_, StoreError>(opened.filter(|blob| is_sound(blob, digest, size)))
        };
        if let Some(blob) = open().await? {
            return Ok(Some(blob));
        }
        let runs = self.backend.folders(&layout::trash(artifact_type)).await?;
        for run in runs.iter().rev() {
            if let Some(condemned) = layout::condemned(artifact_type, run, digest)
                && self.backend.restore(&condemned, &live).await?
                && let Some(blob) = open().await?
            {
                return Ok(Some(blob));
            }
        }
        // A run of gc may have linked it back itself and emptied its trash meanwhile.
        if runs.is_empty() { Ok(None) } else { open().await }
    }

    /// Starts a new blob in the proxy's `tmp/<instance>/`. `expect` names the claims that will be
    /// compared, so that the right hashes are computed; a size that is expected must come true.
    ///
    /// If one of the same sha256 broke off before, it goes on where that one ended: [`Staged::len`] says so.
    ///
    /// If there is no room for it, or no way to write, it passes by unstored: see [`Staged::unstored`].
    pub async fn stage(&self, proxy: &ProxyId, expected_size: Option<u64>, expect: &[Checksum]) -> Staged {
        let staging = layout::staging(proxy);
        let left = expect.iter().find_map(Checksum::digest).map(|digest| layout::left(proxy, &digest));
        let upload = Promised::start(&self.room, &self.backend, &staging, left.as_ref(), expected_size).await;
        let upload = upload.map(|upload| Box::new(upload) as Box<dyn Upload>);
        Staged::new(proxy.artifact_type, upload, expected_size, expect)
    }

    /// Moves a corrupt blob to `quarantine/`; false if there is none.
    ///
    /// It hashes the blob itself, and moves it only if it is still the very file that was hashed and
    /// found wrong: a good copy that somebody has published meanwhile stays. What cannot be read, or
    /// is not a file, is corrupt.
    pub async fn quarantine(&self, artifact_type: ArtifactType, digest: &Digest) -> Result<bool, StoreError> {
        let live = layout::blob(artifact_type, digest);
        let aside = layout::quarantined(artifact_type, digest);
        let seen = self.backend.open(&live).await?;
        if let Some(blob) = seen.clone() {
            let digest = *digest;
            if blocking(move || Ok(hashes_to(&blob, &digest))).await? {
                return Ok(false);
            }
        }
        self.backend.quarantine(&live, &aside, seen.as_ref()).await
    }
}

/// Walking and gc steps, for `maintain`.
impl Store {
    /// The proxies that have a directory, by type and name.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] if one of the directories has a name that no proxy can have: refs may
    /// lie below it, and whoever goes on without them would take their blobs for unreferenced.
    pub async fn proxies(&self) -> Result<Vec<ProxyId>, StoreError> {
        let mut proxies = Vec::new();
        for artifact_type in ArtifactType::ALL {
            for name in self.backend.folders(&layout::proxies(artifact_type)).await? {
                let name = name.parse().map_err(|error| StoreError::Unusable {
                    root: layout::proxies(artifact_type).to_string(),
                    why: format!("{error}; rename the directory or move it out of the store"),
                })?;
                proxies.push(ProxyId { artifact_type, name });
            }
        }
        Ok(proxies)
    }

    /// Every ref file of a proxy: `refs/`, `meta/`, `cache/`. A directory that changed while it was
    /// read is read again.
    pub fn scan_refs(&self, proxy: &ProxyId) -> Scan<RefEntry> {
        let folders = Area::ALL.iter().map(|area| layout::area(proxy, *area)).collect();
        let convert = |entry| Some(RefEntry::new(entry));
        Scan::start(Arc::clone(&self.backend), folders, Some(Ref::MAX_LEN), convert)
    }

    /// Every ref file of one scope of a proxy, and of the scopes whose names begin with it.
    pub fn scan_scope(&self, proxy: &ProxyId, scope: &str) -> Scan<RefEntry> {
        let folders = Area::ALL.iter().map(|area| layout::scope(proxy, *area, scope)).collect();
        let convert = |entry| Some(RefEntry::new(entry));
        Scan::start(Arc::clone(&self.backend), folders, Some(Ref::MAX_LEN), convert)
    }

    /// Every file below `blobs/`.
    pub fn scan_blobs(&self, artifact_type: ArtifactType) -> Scan<BlobEntry> {
        let convert = move |entry| Some(BlobEntry::new(artifact_type, entry));
        Scan::start(Arc::clone(&self.backend), vec![layout::blobs(artifact_type)], None, convert)
    }

    /// G1: every entry of `trash/`.
    pub fn scan_trash(&self, artifact_type: ArtifactType) -> Scan<TrashEntry> {
        let convert = move |entry| TrashEntry::new(artifact_type, &entry);
        Scan::start(Arc::clone(&self.backend), vec![layout::trash(artifact_type)], None, convert)
    }

    /// G4: moves live blobs to `trash/<run>/`, and says of each whether it was live; on an error some may have been
    /// moved. A run's name is 1 to 64 letters, digits, `-` and `_`.
    pub async fn condemn(
        &self,
        blobs: &[(ArtifactType, Digest)],
        run: &str,
    ) -> Result<Vec<bool>, StoreError> {
        let moves = blobs.iter().map(|(artifact_type, digest)| {
            Ok((layout::blob(*artifact_type, digest), condemned(*artifact_type, run, digest)?))
        });
        self.backend.condemn(moves.collect::<Result<_, StoreError>>()?).await
    }

    /// G3, marked: links a condemned blob back to live, then removes the trash entry.
    pub async fn restore(&self, artifact_type: ArtifactType, entry: &TrashEntry) -> Result<(), StoreError> {
        let condemned = condemned(artifact_type, &entry.run, &entry.digest)?;
        let live = layout::blob(artifact_type, &entry.digest);
        if self.backend.restore(&condemned, &live).await? {
            self.backend.delete(&condemned).await?;
        }
        Ok(())
    }

    /// G3, unmarked: removes a trash entry for good.
    pub async fn reap(&self, artifact_type: ArtifactType, entry: &TrashEntry) -> Result<(), StoreError> {
        let condemned = condemned(artifact_type, &entry.run, &entry.digest)?;
        self.backend.delete(&condemned).await.map(|_| ())
    }

    /// G5: removes `tmp/` of instances whose lock can be taken, and what broke off before the given time and
    /// was not gone on with; returns files and bytes. With `dry_run` only counts.
    pub async fn reap_staging(
        &self,
        left_before: Timestamp,
        dry_run: bool,
    ) -> Result<(u64, u64), StoreError> {
        let of_types = ArtifactType::ALL.into_iter().map(layout::config_staging);
        let of_proxies = self.proxies().await?;
        let mut total = (0, 0);
        let of_all = [layout::notes_staging()];
        for staging in of_all.into_iter().chain(of_types).chain(of_proxies.iter().map(layout::staging)) {
            let (files, bytes) = self.backend.reap_staging(&staging, left_before, dry_run).await?;
            total = (total.0 + files, total.1 + bytes);
        }
        Ok(total)
    }

    /// Takes `locks/<name>`; `None` if somebody holds it. Released on drop.
    pub fn lock(&self, name: &str) -> Result<Option<StoreLock>, StoreError> {
        self.backend.lock(&layout::lock(name))
    }
}

/// The directory that a root names; `None` for one in memory.
fn local_path(root: &str) -> Result<Option<PathBuf>, StoreError> {
    let unusable = |why: &str| StoreError::Unusable { root: root.to_owned(), why: why.to_owned() };
    let path = match root.split_once("://") {
        Some(("mem", _)) => return Ok(None),
        Some(("file", _)) => url::Url::parse(root)
            .ok()
            .and_then(|url| url.to_file_path().ok())
            .ok_or_else(|| unusable("not a file URL; write `file:///absolute/path`"))?,
        Some(_) => {
            return Err(unusable("no such kind of store; write a path, `file:///absolute/path` or `mem://`"));
        }
        None => PathBuf::from(root),
    };
    std::path::absolute(&path).map(Some).map_err(|error| StoreError::io("find", path, error))
}

/// Sees that no part of a local root lies where a rename cannot reach it.
async fn check_mounts(local: &local::Local) -> Result<(), StoreError> {
    for artifact_type in ArtifactType::ALL {
        let proxies = local.folders(&layout::proxies(artifact_type)).await?;
        local.same_file_system(&layout::renamed_between(artifact_type, &proxies))?;
    }
    Ok(())
}

fn condemned(artifact_type: ArtifactType, run: &str, digest: &Digest) -> Result<ObjectPath, StoreError> {
    layout::condemned(artifact_type, run, digest).ok_or_else(|| {
        let why = std::io::Error::new(std::io::ErrorKind::InvalidInput, "not the name of a gc run");
        StoreError::io("condemn into", run, why)
    })
}

/// Whether an open blob has the size that it must have: the one given, and none only if it is the
/// blob of no bytes.
fn is_sound(blob: &Blob, digest: &Digest, size: Option<u64>) -> bool {
    size.is_none_or(|size| size == blob.size()) && (blob.size() == 0) == (*digest == *EMPTY)
}

fn hashes_to(blob: &Blob, digest: &Digest) -> bool {
    let mut hasher = Hasher::new(None);
    writer::hash(blob.content(), blob.size(), &mut hasher).is_ok() && hasher.finish().digest == *digest
}

/// Runs something that blocks on the blocking pool. It runs to its end even if nobody waits for it.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(cancelled) => Err(StoreError::io(
                "finish",
                "the work of a stopping process",
                std::io::Error::other(cancelled),
            )),
        },
    }
}
