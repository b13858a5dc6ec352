//! The end of a fill's work: blob → ref → index, and for each name one at a time.
//!
//! The order is that of invariant I4, and the writer's half of the gc protocol (`docs/layout.md`):
//! W1 the blob is live, W2 the ref is published, W3 the blob is looked at again. A crash between
//! any two steps leaves a stray that gc removes.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use tokio::sync::{Mutex, MutexGuard};

use super::Cache;
use super::failure::Failure;
use super::fill::{Content, FillEnd, Settled, Unkept};
use super::find::{Held, are_alike, linked_digest};
use super::judge::Judged;
use super::meters::Outcome;
use super::obtain::{Arrived, Job, Obtained};
use super::through::Place;
use crate::index::Record;
use crate::model::{Freshness, MediaType, Ref, RefKey, Resource};
use crate::protocol::{Protocol, Refusal};
use crate::store::{Blob, Sealed, StoreError};

/// Content up to this size whose clients have it is published in turn; what is larger is not held up by the many that
/// are small.
const BEHIND_BYTES: u64 = 1 << 20;
/// Names that share a lock wait for each other; so many are seldom written at a time.
const LOCKS: usize = 256;

/// One at a time writes the refs of a name: file and row come in the same order, and what is found there holds until
/// it is replaced.
#[derive(Debug)]
pub(super) struct RefLocks {
    locks: Vec<Mutex<()>>,
    hasher: RandomState,
}

impl RefLocks {
    pub(super) fn new() -> Self {
        Self { locks: (0..LOCKS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }

    pub(super) async fn lock(&self, key: &RefKey) -> MutexGuard<'_, ()> {
        let hash = usize::try_from(self.hasher.hash_one(key) % LOCKS as u64).unwrap_or_default();
        self.locks[hash].lock().await
    }
}

/// Which of two readings of a name stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Precedence {
    /// The later one.
    Later,
    /// This one: it belongs with what it was judged with.
    This,
}

impl Job {
    /// Publishes what has arrived, if the dialect accepts it. What it accepts and the store does not is for
    /// those who wait all the same.
    pub(super) async fn publish(&self, arrived: Arrived, end: &FillEnd) -> Result<Obtained, Failure> {
        let Arrived { mut reference, sealed, document, said } = arrived;
        let judged = match &document {
            Some(document) => self.judge(document).await?,
            None => Judged::default(),
        };
        if let Some(document) = document.as_ref().filter(|_| self.protocol.is_document(&reference.kind)) {
            self.describe(&mut reference, document)?;
        }
        let is_told = sealed.unstored().is_some();
        let _turn = match sealed.size {
            // Its clients have it already.
            ..=BEHIND_BYTES if document.is_none() => self.cache.turns.acquire().await.ok(),
            _ => None,
        };
        let failure = match self.keep(&reference, sealed, judged).await {
            Ok(blob) => {
                let settled = Settled { reference, blob, outcome: Outcome::Filled, said: Some(said) };
                return Ok(Obtained::Settled(Box::new(settled)));
            }
            Err(failure) => failure,
        };
        let Some(why) = &failure.unstored else { return Err(failure) };
        // Nobody is to join what is known not to be kept.
        end.unlist();
        if !is_told {
            self.tell_unstored(why);
        }
        if let Some(document) = document {
            let unkept = Unkept { reference, content: Content::Document(document), why: failure };
            return Ok(Obtained::Unkept(Box::new(unkept)));
        }
        Err(failure)
    }

    /// Publishes what has been accepted, and what it belongs with.
    async fn keep(&self, reference: &Ref, sealed: Sealed, mut judged: Judged) -> Result<Blob, Failure> {
        if sealed.unstored().is_none() {
            judged.publish_companions(self).await?;
        }
        let blob = sealed.publish().await?;
        if !self.cache.vouched_for(self.protocol, &self.resource, reference.size).await {
            self.publish_ref(reference, Precedence::Later).await?;
        }
        judged.publish_facts(self, reference).await?;
        Ok(blob)
    }

    /// Publishes content that was judged together with another's.
    pub(super) async fn publish_judged(&self, arrived: Arrived) -> Result<(), Failure> {
        arrived.sealed.publish().await?;
        self.publish_ref(&arrived.reference, Precedence::This).await
    }

    /// Publishes a ref of content that is in the store. A disk that takes no ref costs the next request a
    /// question, not this one its answer.
    pub(super) async fn renew_ref(&self, reference: &Ref) -> Result<(), Failure> {
        match self.publish_ref(reference, Precedence::Later).await {
            Err(failure) if failure.unstored.is_some() => Ok(()),
            done => done,
        }
    }

    /// W2, W3, and the row, unless it was withdrawn meanwhile: then it is answered with, but not kept.
    async fn publish_ref(&self, reference: &Ref, precedence: Precedence) -> Result<(), Failure> {
        let (cache, key) = (&self.cache, &self.resource.key);
        let _lock = cache.ref_locks.lock(key).await;
        let is_withdrawn = || cache.withdrawals.since(self.withdrawals, key);
        if is_withdrawn() {
            return Ok(());
        }
        let precedence = match self.resource.freshness {
            // What a digest names is the same in any reading.
            Freshness::Immutable => Precedence::This,
            Freshness::For(_) | Freshness::Upstream(_) => precedence,
        };
        let mut reference = reference.clone();
        self.join_variants(&mut reference).await;
        for key in self.keys_of(&reference) {
            self.write_ref(&key, &reference, precedence).await?;
        }
        if let Some(links) = &reference.links {
            cache.note_order(key, self.protocol.scope(&key.path), links);
        }
        if is_withdrawn() {
            cache.remove(key).await;
        }
        Ok(())
    }

    /// Publishes a ref under a key that is not the resource's.
    pub(super) async fn publish_ref_at(&self, key: &RefKey, reference: &Ref) -> Result<(), Failure> {
        let _lock = self.cache.ref_locks.lock(key).await;
        self.write_ref(key, reference, Precedence::Later).await
    }

    /// Writes a ref, unless a later reading is there already: a fill may have lasted longer than the next one.
    async fn write_ref(&self, key: &RefKey, reference: &Ref, precedence: Precedence) -> Result<(), Failure> {
        let (cache, digest) = (&self.cache, reference.target_digest);
        if precedence == Precedence::Later
            && let Ok(Some(there)) = cache.store.read_ref(key).await
        {
            // One of the future was written when the clock was wrong.
            if there.fetched_at > reference.fetched_at && there.fetched_at <= cache.clock.now() {
                return Ok(());
            }
        }
        let unwritten = |error: &StoreError| tracing::error!(%error, %key, "could not write a ref");
        cache.store.write_ref(key, reference).await.inspect_err(unwritten)?;
        let live = cache.store.ensure_live(key.proxy.artifact_type, &digest, Some(reference.size)).await;
        match live.inspect_err(unwritten) {
            Ok(Some(_)) => {}
            Ok(None) => {
                cache.remove(key).await;
                return Err(Failure::passing(Refusal::Internal, "lost"));
            }
            Err(error) => {
                // The row is of the one before.
                cache.forget(key).await;
                return Err(error.into());
            }
        }
        let scope = self.protocol.scope(&key.path).to_owned();
        cache.file_grants.forget(&key.proxy, &scope);
        cache.record(Record { key: key.clone(), scope, reference: reference.clone() }).await;
        if self.protocol.is_catalogue(&reference.kind) {
            let (rules, fetched_at) = (self.protocol, reference.fetched_at);
            cache.catalogues.note(rules, key, &reference.kind, digest, fetched_at);
        }
        Ok(())
    }
}

impl Cache {
    /// Whether another ref of the scope links the resource, and not with another size than it has, so
    /// that it needs none of its own.
    async fn vouched_for(&self, protocol: &'static dyn Protocol, resource: &Resource, size: u64) -> bool {
        if resource.media_type == MediaType::Upstream {
            return false;
        }
        let granted = self.granted(protocol, resource).await;
        granted.is_some_and(|held| held.size.is_none_or(|stated| stated == size))
    }

    /// Gives content that is served by its digest, on the strength of a name that may move on, a
    /// ref of its own, so that it stays when the name does.
    pub(super) fn adopt(self: &Arc<Self>, protocol: &'static dyn Protocol, resource: &Resource, held: &Held) {
        // Without a digest in the name it is a variant, which has a ref.
        let is_granted = held.used != resource.key && linked_digest(resource).is_some();
        if !is_granted || resource.media_type != MediaType::Upstream {
            return;
        }
        let (cache, resource, used) = (Arc::clone(self), resource.clone(), held.used.clone());
        let target = held.reference.target_digest;
        tokio::spawn(async move {
            let Ok(Some(granting)) = cache.store.read_ref(&used).await else { return };
            if granting.target_digest != target || !are_alike(protocol, &granting.kind, resource.kind) {
                return;
            }
            let mut reference = Ref {
                kind: resource.kind.to_owned(),
                ttl_seconds: resource.freshness.ttl_seconds(),
                ..granting
            };
            cache.complete(protocol, &resource.key, &mut reference);
            if reference.links.is_none() && protocol.is_document(&reference.kind) {
                tracing::debug!(key = %resource.key, "what is served by digest is not a document that can be read");
                return;
            }
            let Some(site) = cache.sites.get(&resource.key.proxy).cloned() else { return };
            let place = Place::of(&resource);
            let withdrawals = cache.withdrawals.count();
            let job = Job { cache, site, protocol, resource, place, withdrawals, via: None, held: None };
            if job.publish_ref(&reference, Precedence::Later).await.is_err() {
                tracing::debug!(key = %job.resource.key, "content served by digest could not be given a ref");
            }
        });
    }
}
