//! A new version of a document is judged before anything of it is stored, and published only together
//! with what it needs: the dialect says what that is (`companions`) and whether all is well (`vet`).
//!
//! What the store does not take is judged all the same, and passed on.
//!
//! A crash in between leaves what [`super::publish`] leaves: companions without the document that names
//! them, which later fetches use or gc removes; never the document without them.

use futures_util::{StreamExt as _, TryStreamExt as _};

use super::failure::Failure;
use super::obtain::{Arrived, Job, Said};
use super::through::Place;
use crate::model::{Area, Delivery, Descriptor, Ref, RefKey, Resource};
use crate::protocol::{Companion, Gathered, Gotten, Refusal};

/// The most companions of one document.
const MAX_COMPANIONS: usize = 1024;
/// How many companions are fetched at a time.
const AT_A_TIME: usize = 4;

/// What judging a document has brought.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// Companions that wait for the document, with their jobs.
    waiting: Vec<(Job, Arrived)>,
    /// Companions that are checked by their checksums, and may be published before the document.
    checked: Vec<Resource>,
    descriptors: Vec<Descriptor>,
}

impl Job {
    /// Fetches what a document has to be judged with, and has it judged.
    pub(super) async fn judge(&self, document: &[u8]) -> Result<Judged, Failure> {
        let old = match &self.held {
            Some((held, blob)) => self.read(&held.reference.target_digest, blob).await.ok(),
            None => None,
        };
        let refused = |refusal: Refusal| {
            let detail = if matches!(refusal, Refusal::Untrusted { .. }) { "untrusted" } else { "malformed" };
            Failure::passing(refusal, detail)
        };
        let companions =
            self.protocol.companions(&self.resource, old.as_deref(), document).map_err(refused)?;
        let mut wanted = Vec::new();
        for companion in companions {
            if self.is_wanted(&companion).await {
                wanted.push(companion);
            }
        }
        if wanted.len() > MAX_COMPANIONS {
            return Err(refused(Refusal::BadUpstream("it belongs together with too much else")));
        }
        let (checked, unchecked): (Vec<_>, Vec<_>) =
            wanted.into_iter().partition(|companion| companion.resource.expect.is_some());

        let mut gathered = Gathered::default();
        let checked = checked.into_iter().map(|companion| companion.resource).collect();
        let mut judged = Judged { checked, ..Judged::default() };
        for Companion { resource, optional, .. } in unchecked {
            let job = Self { place: Place::of(&resource), resource, held: None, ..self.clone() };
            let arrived = match job.bring().await {
                Err(failure) if optional && failure.refusal == Refusal::NotFound => continue,
                brought => brought?,
            };
            let body = arrived.document.clone().unwrap_or_default();
            let gotten = Gotten { reference: arrived.reference.clone(), body };
            gathered.add_document(job.resource.key.clone(), Ok(gotten));
            judged.waiting.push((job, arrived));
        }
        judged.descriptors = self.protocol.vet(&self.resource, document, &gathered).map_err(refused)?;
        Ok(judged)
    }

    /// Whether a companion is to be fetched: what nobody has used, and nobody is just
    /// fetching, is not.
    async fn is_wanted(&self, companion: &Companion) -> bool {
        let Some(key) = &companion.only_if else { return true };
        if self.cache.fills.is_running(key) {
            return true;
        }
        if let Some(index) = self.cache.index.get() {
            // Before it is asked: a rebuild may end in between.
            let is_complete = index.is_complete();
            match index.lookup(key) {
                Ok(Some(_)) => return true,
                Ok(None) if is_complete => return false,
                Ok(None) | Err(_) => {}
            }
        }
        // A file that cannot be read says nothing; what is fetched in vain costs less than what is missing.
        !matches!(self.cache.store.read_ref(key).await, Ok(None))
    }

    /// Fetches content whole, without publishing it.
    async fn bring(&self) -> Result<Arrived, Failure> {
        debug_assert!(matches!(self.resource.delivery, Delivery::Whole { .. }), "it is judged as a whole");
        match self.ask().await? {
            Said::Body(answer, ask) => self.download(*answer, &ask, None).await,
            Said::Unchanged(_) => {
                Err(Failure::passing(Refusal::BadUpstream("304 to a plain request"), "senseless"))
            }
        }
    }
}

impl Judged {
    /// Sees that what the document belongs with is published. To be done before the document is.
    pub(super) async fn publish_companions(&mut self, document: &Job) -> Result<(), Failure> {
        futures_util::stream::iter(self.checked.drain(..))
            .map(|resource| {
                let (cache, site) = (document.cache.clone(), document.site.clone());
                cache.secure(site, document.protocol, resource)
            })
            .buffer_unordered(AT_A_TIME)
            .try_collect::<()>()
            .await?;
        for (job, arrived) in self.waiting.drain(..) {
            job.publish_judged(arrived).await?;
        }
        Ok(())
    }

    /// Writes down what was learned about the document.
    pub(super) async fn publish_facts(self, job: &Job, document: &Ref) -> Result<(), Failure> {
        for Descriptor { path, kind, facts } in self.descriptors {
            let key = RefKey { proxy: job.resource.key.proxy.clone(), area: Area::Meta, path };
            let reference = Ref {
                upstream: document.upstream.clone(),
                unknown: facts,
                ..Ref::new(kind.to_owned(), document.target_digest, document.size, document.fetched_at)
            };
            job.publish_ref_at(&key, &reference).await?;
        }
        Ok(())
    }
}
