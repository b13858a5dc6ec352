//! What lies on disk is not believed for ever: a blob that nobody has hashed for a while, or since a
//! server went down, is hashed before its last bytes go out.
//!
//! Documents and small content are hashed when they are read, and a wrong one is set aside, so that it
//! is a miss. Of large content the first bytes go out at once while it is hashed beside; the last ones
//! wait for the verdict, and if it is wrong the connection is cut. What cannot be read is set aside too.
//! One hashing per blob for any number of clients, and [`AT_A_TIME`] altogether.
//!
//! Nothing here is kept that a file's mtime does not say ([`crate::store::Session`]), except where that
//! cannot be set.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use metrics::{counter, describe_counter};
use moka::sync::Cache as Bounded;
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;

use crate::model::{ArtifactType, Clock, Digest, Timestamp};
use crate::store::{Blob, Store};

/// How long a blob counts as sound after it was hashed.
const PROOF_HOLDS: Duration = Duration::from_hours(7 * 24);
/// How far in the future a proof may lie: clocks and file systems are not of one mind.
const SKEW: Duration = Duration::from_mins(5);
/// How many blobs are hashed at a time.
const AT_A_TIME: usize = 2;
/// The most blobs of which it is remembered here that they are sound.
const MAX_REMEMBERED: u64 = 100_000;
/// Blobs up to this size are read in place; they are in the page cache or small.
const READ_IN_PLACE: u64 = 256 << 10;

const SET_ASIDE: &str = "repoxy_blobs_set_aside_total";

/// A blob by name.
type Name = (ArtifactType, Digest);

/// What hashing a blob has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Pending,
    Sound,
    Wrong,
}

/// Which blobs are believed.
#[derive(Debug)]
pub(super) struct Proofs {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    /// What was hashed before this does not count.
    since: Timestamp,
    /// Hashed by this process.
    remembered: Bounded<Name, ()>,
    trials: Mutex<HashMap<Name, watch::Receiver<Verdict>>>,
    turns: Arc<Semaphore>,
}

impl Proofs {
    pub(super) fn new(store: Arc<Store>, clock: Arc<dyn Clock>, since: Timestamp) -> Self {
        describe_counter!(SET_ASIDE, "Blobs that were found damaged when they were served, by type");
        Self {
            store,
            clock,
            since,
            remembered: Bounded::builder().max_capacity(MAX_REMEMBERED).time_to_live(PROOF_HOLDS).build(),
            trials: Mutex::default(),
            turns: Arc::new(Semaphore::new(AT_A_TIME)),
        }
    }

    /// Whether a blob may be served unread.
    fn holds(&self, name: &Name, blob: &Blob) -> bool {
        let Some(proved_at) = blob.modified() else { return true };
        let now = self.clock.now();
        let old = now.saturating_sub(PROOF_HOLDS).unwrap_or(Timestamp::MIN);
        let soon = now.saturating_add(SKEW).unwrap_or(Timestamp::MAX);
        (proved_at >= self.since.max(old) && proved_at <= soon) || self.remembered.contains_key(name)
    }

    /// A blob for serving.
    pub(super) fn lend(self: &Arc<Self>, artifact_type: ArtifactType, digest: Digest, blob: &Blob) -> Lent {
        let name = (artifact_type, digest);
        let unproved = !self.holds(&name, blob);
        Lent { blob: blob.clone(), name, unproved, spoilt: Arc::default(), proofs: Arc::clone(self) }
    }

    /// All of a blob. One that cannot be read, or is not what its name says, has been set aside when
    /// this returns.
    pub(super) async fn read(
        &self,
        artifact_type: ArtifactType,
        digest: &Digest,
        blob: &Blob,
    ) -> io::Result<Bytes> {
        let name = (artifact_type, *digest);
        let read = if self.holds(&name, blob) {
            read_all(blob).await
        } else {
            let (blob, digest) = (blob.clone(), *digest);
            let read = spawn_blocking(move || {
                let bytes = blob.read_all()?;
                if Digest::of(&bytes) == digest { Ok(bytes) } else { Err(io::ErrorKind::InvalidData.into()) }
            });
            let read = read.await.map_err(io::Error::other)?;
            if read.is_ok() {
                self.note_sound(name).await;
            }
            read
        };
        if let Err(error) = &read {
            self.set_aside(name, error).await;
        }
        read
    }

    /// Whether a blob is what its name says, as far as that has to be asked.
    pub(super) async fn check(self: &Arc<Self>, lent: &Lent) -> bool {
        match lent.trial() {
            Some(verdict) => is_sound(verdict).await,
            None => true,
        }
    }

    async fn note_sound(&self, name: Name) {
        self.remembered.insert(name, ());
        self.store.note_proved(name.0, &name.1, self.clock.now()).await;
    }

    async fn set_aside(&self, (artifact_type, digest): Name, why: &io::Error) {
        // It is hashed there once more: what has been put in its place meanwhile stays.
        match self.store.quarantine(artifact_type, &digest).await {
            Ok(true) => {
                tracing::error!(%digest, %why, "a blob is damaged and was set aside; it is fetched again");
                counter!(SET_ASIDE, "type" => artifact_type.as_str()).increment(1);
            }
            Ok(false) => {}
            Err(error) => tracing::error!(%error, %digest, %why, "a damaged blob cannot be set aside"),
        }
        self.remembered.invalidate(&(artifact_type, digest));
    }

    fn running(&self, name: &Name) -> Option<watch::Receiver<Verdict>> {
        self.trials.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Hashes a blob, or joins who does.
    fn trial(self: &Arc<Self>, name: Name, blob: Blob) -> watch::Receiver<Verdict> {
        let mut trials = self.trials.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(verdict) = trials.get(&name) {
            return verdict.clone();
        }
        let (sender, verdict) = watch::channel(Verdict::Pending);
        trials.insert(name, verdict.clone());
        let proofs = Arc::clone(self);
        tokio::spawn(async move {
            let _turn = proofs.turns.acquire().await;
            let sound = proofs.store.prove(name.0, name.1, blob, proofs.clock.now()).await;
            if sound {
                proofs.remembered.insert(name, ());
            } else {
                proofs.set_aside(name, &io::ErrorKind::InvalidData.into()).await;
            }
            proofs.trials.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
            sender.send_replace(if sound { Verdict::Sound } else { Verdict::Wrong });
        });
        verdict
    }
}

async fn read_all(blob: &Blob) -> io::Result<Bytes> {
    if blob.size() <= READ_IN_PLACE {
        return blob.read_all();
    }
    let blob = blob.clone();
    spawn_blocking(move || blob.read_all()).await.map_err(io::Error::other)?
}

/// Waits for a verdict. One that nobody will give any more, because the process ends, is none.
async fn is_sound(mut verdict: watch::Receiver<Verdict>) -> bool {
    verdict.wait_for(|verdict| *verdict != Verdict::Pending).await.is_ok_and(|found| *found == Verdict::Sound)
}

/// A blob while it is being served.
#[derive(Debug, Clone)]
pub struct Lent {
    blob: Blob,
    name: Name,
    unproved: bool,
    /// Whether reading it has failed; shared by all who serve from the same opening.
    spoilt: Arc<AtomicBool>,
    proofs: Arc<Proofs>,
}

impl Lent {
    /// The bytes.
    pub(super) const fn blob(&self) -> &Blob {
        &self.blob
    }

    /// Whether its bytes are still to be hashed.
    pub(super) const fn is_unproved(&self) -> bool {
        self.unproved
    }

    /// Whether the open file still is what it was: somebody may have cut it on disk, or the disk fail.
    pub(super) fn is_whole(&self) -> bool {
        !self.spoilt.load(Ordering::Relaxed)
            && self.blob.current_size().is_ok_and(|size| size == self.blob.size())
    }

    /// The verdict to wait for before its last bytes go out; `None` if there is nothing to wait for.
    fn trial(&self) -> Option<watch::Receiver<Verdict>> {
        self.unproved.then(|| self.proofs.trial(self.name, self.blob.clone()))
    }

    /// The same, as something to be polled: false if it is wrong.
    pub(super) fn verdict(&self) -> Option<impl Future<Output = bool> + Send + Sync + use<>> {
        self.trial().map(is_sound)
    }

    /// Says that reading it has failed: it is looked at and, if it is damaged, set aside. That is done when
    /// what is returned comes to its end, polled or not.
    pub(super) fn spoil(&self) -> impl Future<Output = bool> + Send + Sync + use<> {
        let seen = self.spoilt.swap(true, Ordering::Relaxed);
        let trial = if seen {
            self.proofs.running(&self.name)
        } else {
            Some(self.proofs.trial(self.name, self.blob.clone()))
        };
        async move {
            match trial {
                Some(verdict) => is_sound(verdict).await,
                None => false,
            }
        }
    }
}
