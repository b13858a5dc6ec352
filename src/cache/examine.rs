//! What is learned about content by reading it, once it is cached.
//!
//! Reading may take long, and only some requests want to know. So it begins when one asks, behind its back; one
//! content is read at a time. What was found is a ref in the proxy's `meta` tree, which says of which digest it
//! speaks, and counts for no other. A crash before that is written leaves nothing.

use std::collections::HashSet;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::Cache;
use super::obtain::Job;
use super::through::Place;
use crate::model::{Checksum, Ref, RefKey};
use crate::protocol::{Inquiry, Protocol};
use crate::store::Blob;

/// The most contents that wait to be read; for more, later requests ask again.
const MAX_WAITING: usize = 64;
/// How many contents are read at a time: it takes a processor each.
const AT_A_TIME: usize = 1;

/// What is being read, or is to be.
#[derive(Debug)]
pub(super) struct Examinations {
    begun: Arc<Mutex<HashSet<RefKey>>>,
    turns: Arc<Semaphore>,
}

impl Examinations {
    pub(super) fn new() -> Self {
        Self { begun: Arc::default(), turns: Arc::new(Semaphore::new(AT_A_TIME)) }
    }

    /// Begins one, if it was not begun and there is room; it ends when what is given back is dropped.
    fn begin(&self, fact: &RefKey) -> Option<Begun> {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let begins = begun.len() < MAX_WAITING && begun.insert(fact.clone());
        begins.then(|| Begun { begun: Arc::clone(&self.begun), fact: fact.clone() })
    }
}

/// One that was begun.
#[derive(Debug)]
struct Begun {
    begun: Arc<Mutex<HashSet<RefKey>>>,
    fact: RefKey,
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.fact);
    }
}

impl Cache {
    /// What is known of cached content. `None` if it is not cached, or not known yet; in the latter case it is
    /// seen to that it will be.
    pub(super) async fn fact(
        self: &Arc<Self>,
        protocol: &'static dyn Protocol,
        inquiry: &Inquiry,
    ) -> Option<Ref> {
        let digest = inquiry.content.expect.as_ref().and_then(Checksum::digest)?;
        // A row in the index would not have the facts.
        let known = self.store.read_ref(&inquiry.fact).await.ok().flatten();
        if let Some(known) = known.filter(|known| known.target_digest == digest) {
            self.uses.note(&inquiry.fact, self.clock.now());
            return Some(known);
        }
        let held = self.find(protocol, &inquiry.content).await?;
        let (held, blob) = self.open(&inquiry.content, held).await?;
        if held.reference.target_digest != digest {
            return None;
        }
        let begun = self.examinations.begin(&inquiry.fact)?;
        let (cache, inquiry) = (Arc::clone(self), inquiry.clone());
        tokio::spawn(async move {
            cache.examine(protocol, inquiry, held.reference, blob).await;
            drop(begun);
        });
        None
    }

    /// Has content read and writes down what was found.
    async fn examine(
        self: &Arc<Self>,
        protocol: &'static dyn Protocol,
        inquiry: Inquiry,
        content: Ref,
        blob: Blob,
    ) {
        let Some(site) = self.sites.get(&inquiry.fact.proxy).cloned() else { return };
        let Ok(_turn) = self.examinations.turns.acquire().await else { return };
        // What is found in damaged bytes would be said of the right ones.
        let (artifact_type, digest) = (inquiry.content.key.proxy.artifact_type, content.target_digest);
        if !self.proofs.check(&self.proofs.lend(artifact_type, digest, &blob)).await {
            return;
        }
        let asked = inquiry.clone();
        let found = spawn_blocking(move || protocol.examine(&asked, &mut InPlace { blob, at: 0 })).await;
        let facts = match found.map_err(io::Error::other).flatten() {
            Ok(facts) => facts,
            Err(error) => {
                tracing::warn!(%error, key = %inquiry.content.key, "content could not be read");
                return;
            }
        };
        let reference = Ref {
            upstream: content.upstream,
            unknown: facts,
            ..Ref::new(inquiry.kind.to_owned(), content.target_digest, content.size, self.clock.now())
        };
        let job = Job {
            cache: Arc::clone(self),
            site,
            protocol,
            place: Place::of(&inquiry.content),
            resource: inquiry.content,
            withdrawals: self.withdrawals.count(),
            via: None,
            held: None,
        };
        if job.publish_ref_at(&inquiry.fact, &reference).await.is_err() {
            tracing::debug!(key = %inquiry.fact, "what was found in content could not be kept");
        }
    }
}

/// A blob as a file that is read where it is. Each read is a system call.
#[derive(Debug)]
struct InPlace {
    blob: Blob,
    at: u64,
}

impl Read for InPlace {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.blob.read_at(self.at, buffer.len())?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }
}

impl Seek for InPlace {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (from, offset) = match to {
            SeekFrom::Start(at) => (at, 0),
            SeekFrom::Current(offset) => (self.at, offset),
            SeekFrom::End(offset) => (self.blob.size(), offset),
        };
        self.at = from.checked_add_signed(offset).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
