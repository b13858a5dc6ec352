//! Requests that may change something upstream: handed on as they are, and what is cached of it withdrawn.

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use http::header::{CONTENT_LOCATION, LOCATION};

use super::failure::Failure;
use super::passing::Passing;
use super::reading::reading;
use super::way::{Refused, Way, Why};
use super::{Body, Cache, Outcome, Served, Site, Want, ask_for};
use crate::index::Record;
use crate::model::{Digest, RefKey, Resource, Source};
use crate::protocol::{Protocol, Refusal};
use crate::upstream::{Act, Answer, Ask};

impl Cache {
    /// Hands a request with another method than GET and HEAD on, once. If upstream did what was asked, what
    /// is cached at the same address is withdrawn, and at those that the answer names (RFC 9111, section
    /// 4.4). Cancelled, it leaves open what upstream did.
    ///
    /// # Errors
    /// [`Refused`] if there is no answer of upstream's.
    pub async fn forward(
        self: &Arc<Self>,
        protocol: &'static dyn Protocol,
        resource: &Resource,
        act: (Method, Bytes),
        want: Want<'_>,
    ) -> Result<Served, Refused> {
        let site = self.sites.get(&resource.key.proxy).ok_or(Refusal::NoProxy)?;
        let served = self.act(site, protocol, resource, act, want).await;
        match &served {
            Ok(served) => site.meters.served(served.outcome),
            Err(failure) => site.meters.refused(failure.detail),
        }
        Ok(served?)
    }

    async fn act(
        &self,
        site: &Arc<Site>,
        protocol: &dyn Protocol,
        resource: &Resource,
        (method, body): (Method, Bytes),
        want: Want<'_>,
    ) -> Result<Served, Failure> {
        let is_safe = method.is_safe();
        let ask = Ask { act: Some(Act { method, body }), ..ask_for(resource, &resource.source, want.via)? };
        let method = |failure: Failure| failure.because(Why::Method);
        let answer = site.upstream.send(&ask).await.map_err(|error| method(error.into()))?;
        if !is_safe && (answer.status.is_success() || answer.status.is_redirection()) {
            for key in named_by(site, protocol, resource, &answer) {
                self.withdraw(&key).await;
            }
        }
        let now = self.clock.now();
        let size = answer.content_length();
        let reference = reading(resource, &answer, Digest::of(b""), size.unwrap_or(0), now);
        let status = answer.status.as_u16();
        let passing = Passing::new(reference.clone(), answer);
        Ok(Served {
            reference,
            size,
            named: false,
            outcome: Outcome::Passed,
            way: Way::forward(Why::Method, Some(status)),
            detail: None,
            body: Body::Passing(passing.take().ok_or(Failure::passing(Refusal::Internal, "taken"))?),
            meters: Arc::clone(&site.meters),
            used: resource.key.clone(),
        })
    }

    /// Forgets what is cached under a key, and what fetches under way bring: index, then ref; gc sees to the
    /// blob. What cannot be taken away is said in the log: it stays until its time is over.
    pub(super) async fn withdraw(&self, key: &RefKey) {
        self.withdrawals.note(key, self.clock.now());
        self.fills.unlist(key);
        self.absent.clear(key);
        self.remove(key).await;
    }

    /// Takes a ref away and everything that vouches for it.
    pub(super) async fn remove(&self, key: &RefKey) {
        self.forget(key).await;
        if let Err(error) = self.store.remove_ref(key).await {
            tracing::warn!(%error, %key, "a ref could not be withdrawn");
        }
        // Somebody may have read the file before it went, and written a row for it since.
        self.forget(key).await;
        self.hot.clear();
    }

    pub(super) async fn forget(&self, key: &RefKey) {
        if let Err(error) = self.writer.forget(vec![key.clone()]).await {
            tracing::debug!(%error, %key, "a row could not be removed now");
        }
    }

    /// Writes the row of a ref that has a file; whether it is written now. Whoever takes a ref away forgets
    /// its row before and after, and here the file is looked for afterwards, so that no row stays without one.
    pub(super) async fn record(&self, record: Record) -> bool {
        let key = record.key.clone();
        if !self.writer.record(record).await {
            tracing::debug!(%key, "a row could not be written now");
            return false;
        }
        let stays = !matches!(self.store.has_ref(&key).await, Ok(false));
        if !stays {
            self.forget(&key).await;
        }
        stays
    }
}

/// The keys of a resource and of what an answer says that it has changed beside it.
fn named_by(site: &Site, protocol: &dyn Protocol, resource: &Resource, answer: &Answer) -> Vec<RefKey> {
    let mut keys = vec![resource.key.clone()];
    let Source::Path(asked) = &resource.source else { return keys };
    for name in [LOCATION, CONTENT_LOCATION] {
        let reference = answer.header(name.as_str());
        let path = reference.and_then(|reference| site.upstream.path_to(asked, reference));
        keys.extend(path.and_then(|path| protocol.key_at(&resource.key.proxy, &path)));
    }
    keys
}
