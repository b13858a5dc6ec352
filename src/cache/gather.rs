//! What a dialect needs to know before it can route a request: documents, what catalogues say, and what is
//! known of content.
//!
//! Documents come as any content does, from the cache or through it, with every virtue of a fill.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _, join_all};

use super::decide::{Decision, decide};
use super::failure::Failure;
use super::through::{Company, Place};
use super::{Cache, Call, Interest, Site, Want};
use crate::model::Resource;
use crate::protocol::{Fetch, Gathered, Gotten, Need, Protocol, Refusal};

/// Which version of a document will do.
#[derive(Debug)]
enum Sought {
    /// The one that any client would get.
    Any,
    /// What is cached, whatever its age; else this is said.
    Held(Refusal),
    /// What is cached, if upstream confirmed it no longer ago than this; else any.
    Recent(Duration),
}

impl Cache {
    /// Adds what is needed to what was gathered. What cannot be had is added as its refusal.
    pub async fn gather(
        self: &Arc<Self>,
        protocol: &'static dyn Protocol,
        needs: Vec<Need>,
        via: Option<&str>,
        gathered: &mut Gathered,
    ) {
        let (mut documents, mut lookups, mut inquiries) = (Vec::new(), Vec::new(), Vec::new());
        for need in needs {
            match need {
                Need::Document(resource) => documents.push((*resource, Sought::Any)),
                Need::Held(resource, otherwise) => documents.push((*resource, Sought::Held(otherwise))),
                Need::Recent(resource, within) => documents.push((*resource, Sought::Recent(within))),
                Need::Entry(lookup) => lookups.push(lookup),
                Need::Fact(inquiry) => inquiries.push(inquiry),
            }
        }
        let documents = documents.into_iter().map(|(resource, sought)| async move {
            let key = resource.key.clone();
            let (recent, otherwise) = match sought {
                Sought::Any => (None, None),
                Sought::Held(otherwise) => (None, Some(otherwise)),
                Sought::Recent(within) => (self.held_document(protocol, &resource, within).await, None),
            };
            let found = match recent {
                Some(recent) => Ok(recent),
                None => self.document(protocol, Fetch { resource, rewrite: false }, otherwise, via).await,
            };
            (key, found)
        });
        for (key, found) in join_all(documents).await {
            gathered.add_document(key, found);
        }
        for lookup in lookups {
            let claim = self.entry(protocol, &lookup).await;
            gathered.add_entry(lookup, claim);
        }
        for inquiry in inquiries {
            let known = self.fact(protocol, &inquiry).await;
            gathered.add_fact(inquiry.fact, known);
        }
    }

    /// A document as it is cached, if upstream confirmed it no longer than `within` ago, and clients have not
    /// been given a newer one since.
    async fn held_document(
        self: &Arc<Self>,
        protocol: &'static dyn Protocol,
        resource: &Resource,
        within: Duration,
    ) -> Option<Gotten> {
        let held = self.find(protocol, resource).await?;
        let now = self.clock.now();
        let fetched_at = held.reference.fetched_at;
        let is_recent = fetched_at <= now && held.reference.age(now) <= within;
        if !is_recent || self.overtaken.covers(&resource.key, fetched_at) {
            return None;
        }
        let (held, blob) = self.open(resource, held).await?;
        let digest = &held.reference.target_digest;
        let body = self.proofs.read(resource.key.proxy.artifact_type, digest, &blob).await.ok()?;
        Some(Gotten { reference: held.reference, body })
    }

    /// A document as a whole; from the cache alone if there is a refusal to give otherwise.
    async fn document(
        self: &Arc<Self>,
        protocol: &'static dyn Protocol,
        fetch: Fetch,
        otherwise: Option<Refusal>,
        via: Option<&str>,
    ) -> Result<Gotten, Refusal> {
        let want = Want { interest: Interest::Body, via };
        let served = match otherwise {
            None => self.fetch(protocol, &fetch, want).await,
            Some(otherwise) => self.held(protocol, &fetch, want, &otherwise).await,
        };
        let served = served.map_err(|refused| refused.refusal)?;
        // What is delivered whole is in memory.
        let body = served.body.in_memory().cloned().ok_or(Refusal::Internal)?;
        Ok(Gotten { reference: served.reference, body })
    }

    /// Sees that a resource is in the cache, complete and published. Boxed, because a fill may ask for
    /// it, and a future must not contain itself.
    pub(super) fn secure(
        self: Arc<Self>,
        site: Arc<Site>,
        protocol: &'static dyn Protocol,
        resource: Resource,
    ) -> BoxFuture<'static, Result<(), Failure>> {
        async move {
            let want = Want { interest: Interest::Body, via: None };
            let call = Call { site: &site, protocol, resource: &resource, want };
            let held = match self.find(protocol, &resource).await {
                Some(held) => self.open(&resource, held).await,
                None => None,
            };
            let cached = held.as_ref().map(|(held, _)| &held.reference);
            let held = match decide(cached, &resource, self.clock.now()) {
                Decision::Use => return Ok(()),
                Decision::Fetch => None,
                _ => held,
            };
            let (fill, _) = self.join(call, Place::of(&resource), held, Company::Any)?;
            fill.settled().await
        }
        .boxed()
    }
}
