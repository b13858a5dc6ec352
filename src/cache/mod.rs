//! The engine: the only place where store, index and upstream meet. Find, decide, fill, follow.
//!
//! It branches on the fields of a [`Resource`] and never on a protocol.
//! `docs/architecture.md` walks one request through it:
//!
//! 1. `find`: what is cached, if a ref of this proxy and scope vouches for it.
//! 2. `decide`: use it, revalidate it, or fetch.
//! 3. `fill` and `obtain`: one task per key asks upstream and publishes blob → ref → index.
//! 4. `follow` and `body`: everybody reads what is there, at their own pace.

mod body;
mod catalogues;
mod decide;
mod failure;
mod fill;
mod find;
mod follow;
mod gather;
mod hot;
mod judge;
mod memo;
mod meters;
mod names;
mod obtain;
mod transfer;
mod uses;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::task::spawn_blocking;

pub use body::{Body, BodyStream, Reader};
pub use decide::{Decision, decide};
pub use follow::Follower;
pub use hot::{Ready, ReadyBody};
pub use meters::{Outcome, ProxyMeters};

use crate::index::{Handle, Writer};
use crate::model::{
    Checksum, Clock, Delivery, Digest, ProxyId, ProxyTable, Ref, RefKey, Resource, Source, Timestamp,
};
use crate::protocol::{Fetch, Protocol, Refusal};
use crate::store::{Blob, Store};
use crate::upstream::{Ask, Target, Upstream};
use catalogues::Catalogues;
use failure::Failure;
use fill::{Fill, Fills, Settled, Stage};
use find::{FileGrants, Held};
use hot::{Hot, MAX_IN_MEMORY};
use memo::{Absent, Doubts};
use obtain::Job;
use uses::Uses;

/// How long a client with cached content in reach waits for upstream to confirm it.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a document may take to arrive. Content that is streamed may take any time, as long as it
/// moves.
const DOCUMENT_PATIENCE: Duration = Duration::from_secs(60);
/// Why upstream was not asked for what is served by [`Cache::held`].
const UNLOCATED: &str = "unlocated";
/// Blobs up to this size are read in place; they are in the page cache or small.
const READ_IN_PLACE: u64 = 256 << 10;

/// The engine. One per server.
#[derive(Debug)]
pub struct Cache {
    store: Arc<Store>,
    index: Arc<Handle>,
    writer: Writer,
    sites: HashMap<ProxyId, Arc<Site>>,
    proxies: ProxyTable,
    clock: Arc<dyn Clock>,
    fills: Arc<Fills>,
    absent: Absent,
    doubts: Doubts,
    file_grants: FileGrants,
    catalogues: Catalogues,
    hot: Hot,
    uses: Uses,
}

/// What an engine is made of.
#[derive(Debug)]
pub struct Parts {
    /// The files.
    pub store: Arc<Store>,
    /// The index, which may be away at any time.
    pub index: Arc<Handle>,
    /// The index's writing side.
    pub writer: Writer,
    /// The proxies and their upstreams.
    pub upstreams: HashMap<ProxyId, Upstream>,
    /// The proxies as routing knows them.
    pub proxies: ProxyTable,
    /// The present.
    pub clock: Arc<dyn Clock>,
    /// How many bytes of ready answers are kept in memory; zero switches that off.
    pub hot_bytes: u64,
}

/// One proxy as the engine sees it.
#[derive(Debug)]
struct Site {
    upstream: Upstream,
    meters: Arc<ProxyMeters>,
}

/// What is to be known of a request beside the resource.
#[derive(Debug, Clone, Copy)]
pub struct Want<'r> {
    /// What the client needs of the answer.
    pub interest: Interest,
    /// The request's `Via`: it is passed on, so that caches which ask each other notice.
    pub via: Option<&'r str>,
}

/// One request on its way through the engine.
#[derive(Debug, Clone, Copy)]
struct Call<'c> {
    site: &'c Arc<Site>,
    protocol: &'static dyn Protocol,
    resource: &'c Resource,
    want: Want<'c>,
}

/// What the client needs of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// The headers only.
    Head,
    /// The bytes too.
    Body,
}

/// An answer.
#[derive(Debug)]
pub struct Served {
    /// What is known of the content: media type, validators, when it was confirmed.
    pub reference: Ref,
    /// Its size, if known yet (a fill whose upstream gave no length does not know).
    pub size: Option<u64>,
    /// Whether the reference's digest is that of the content; a fill of content without a checksum
    /// learns it at its end.
    pub named: bool,
    /// How it came about.
    pub outcome: Outcome,
    /// Why upstream was not used, for a stale answer: a short token such as `timeout`.
    pub detail: Option<&'static str>,
    /// The bytes.
    pub body: Body,
    /// The proxy's counters.
    pub meters: Arc<ProxyMeters>,
    used: RefKey,
}

impl Cache {
    /// Puts an engine together.
    pub fn new(parts: Parts) -> Self {
        let site = |(id, upstream): (ProxyId, Upstream)| {
            let meters = Arc::new(ProxyMeters::new(&id));
            (id, Arc::new(Site { upstream, meters }))
        };
        Self {
            store: parts.store,
            index: parts.index,
            writer: parts.writer,
            sites: parts.upstreams.into_iter().map(site).collect(),
            proxies: parts.proxies,
            clock: parts.clock,
            fills: Arc::default(),
            absent: Absent::new(),
            doubts: Doubts::new(),
            file_grants: FileGrants::new(),
            catalogues: Catalogues::new(),
            hot: Hot::new(parts.hot_bytes),
            uses: Uses::new(),
        }
    }

    /// Serves a resource from the cache or through it.
    ///
    /// A client that goes away ends nothing but its own waiting.
    ///
    /// # Errors
    /// A [`Refusal`] for the dialect to word.
    pub async fn fetch(
        self: &Arc<Self>,
        protocol: &'static dyn Protocol,
        fetch: &Fetch,
        want: Want<'_>,
    ) -> Result<Served, Refusal> {
        let resource = &fetch.resource;
        let site = self.sites.get(&resource.key.proxy).ok_or(Refusal::NoProxy)?;
        let mut served = self.serve(Call { site, protocol, resource, want }).await;
        // The date is of one reading, and whoever else grants the content does not know it: what a
        // digest names has the same headers whoever asked before.
        if let Ok(served) = &mut served
            && resource.linked
        {
            served.reference.last_modified = None;
        }
        match &served {
            Ok(served) => {
                site.meters.served(served.outcome);
                if !matches!(served.body, Body::Following(_)) {
                    self.uses.note(&served.used, self.clock.now());
                }
            }
            Err(failure) => site.meters.refused(failure.detail),
        }
        served.map_err(|failure| failure.refusal)
    }

    /// Serves a resource from the cache alone, whatever its age.
    ///
    /// # Errors
    /// `otherwise` if it is not there; [`Refusal::NoProxy`], or [`Refusal::Internal`] if the store fails.
    pub async fn held(
        &self,
        protocol: &'static dyn Protocol,
        fetch: &Fetch,
        want: Want<'_>,
        otherwise: &Refusal,
    ) -> Result<Served, Refusal> {
        let resource = &fetch.resource;
        let site = self.sites.get(&resource.key.proxy).ok_or(Refusal::NoProxy)?;
        let held = match self.find(protocol, resource).await {
            Some(held) => self.open(resource, held).await,
            None => None,
        };
        let Some((Held { reference, used, .. }, blob)) = held else {
            site.meters.refused(UNLOCATED);
            return Err(otherwise.clone());
        };
        let decision = decide(Some(&reference), resource.freshness, self.clock.now());
        let outcome = if decision == Decision::Use { Outcome::Hit } else { Outcome::Stale };
        let call = Call { site, protocol, resource, want };
        let mut served =
            self.answer(call, reference, used, &blob, outcome).await.map_err(|failure| failure.refusal)?;
        served.detail = (outcome == Outcome::Stale).then_some(UNLOCATED);
        site.meters.served(outcome);
        self.uses.note(&served.used, self.clock.now());
        Ok(served)
    }

    async fn serve(self: &Arc<Self>, call: Call<'_>) -> Result<Served, Failure> {
        let Call { protocol, resource, .. } = call;
        let now = self.clock.now();
        let held = self.find(protocol, resource).await;
        let held = match held {
            Some(held) => self.open(resource, held).await,
            None => None,
        };
        let cached = held.as_ref().map(|(held, _)| &held.reference);
        match (decide(cached, resource.freshness, now), held) {
            (Decision::Use, Some((held, blob))) => {
                self.adopt(protocol, resource, &held);
                self.answer(call, held.reference, held.used, &blob, Outcome::Hit).await
            }
            (Decision::Revalidate, Some(held)) => self.serve_after_revalidation(call, held).await,
            _ => self.serve_after_fill(call).await,
        }
    }

    /// Opens the blob of what is cached; `None` if it is not there, so that the ref is as good as
    /// none.
    async fn open(&self, resource: &Resource, held: Held) -> Option<(Held, Blob)> {
        let (artifact_type, digest) = (resource.key.proxy.artifact_type, held.reference.target_digest);
        let blob = match self.store.open_blob(artifact_type, &digest, held.size) {
            Ok(Some(blob)) => Some(blob),
            // Perhaps gc has condemned it meanwhile: a use brings it back (W1).
            Ok(None) => self.store.ensure_live(artifact_type, &digest, held.size).await.ok().flatten(),
            Err(error) => {
                tracing::warn!(%error, %digest, "could not open a blob");
                None
            }
        }?;
        let size = blob.size();
        let reference = Ref { size, ..held.reference };
        Some((Held { reference, size: Some(size), ..held }, blob))
    }

    /// Upstream is asked whether what is cached still holds, but not for long: if it cannot say, or
    /// takes its time, what is cached is served.
    async fn serve_after_revalidation(
        self: &Arc<Self>,
        call: Call<'_>,
        (held, blob): (Held, Blob),
    ) -> Result<Served, Failure> {
        let detail = match self.doubts.about(&call.resource.key, self.clock.now()) {
            Some(detail) => detail,
            None => {
                let (fill, started) = self.join(call, Some((held.clone(), blob.clone())))?;
                let served = match fill.arrived_within(PATIENCE).await {
                    Some(stage) => self.serve_stage(call, stage, started).await,
                    None => Err(Failure::passing(Refusal::Timeout, "slow")),
                };
                match served {
                    Err(failure) if failure.stale_allowed => failure.detail,
                    served => return served,
                }
            }
        };
        let mut served = self.answer(call, held.reference, held.used, &blob, Outcome::Stale).await?;
        served.detail = Some(detail);
        Ok(served)
    }

    async fn serve_after_fill(self: &Arc<Self>, call: Call<'_>) -> Result<Served, Failure> {
        let Call { resource, want, .. } = call;
        if self.absent.holds(&resource.key, self.clock.now()) {
            return Err(Failure::passing(Refusal::NotFound, "not-found"));
        }
        if want.interest == Interest::Head
            && resource.delivery == Delivery::Streamed
            && !self.fills.is_running(&resource.key)
        {
            return self.peek(call).await;
        }
        let (fill, started) = self.join(call, None)?;
        self.serve_stage(call, fill.arrived().await, started).await
    }

    /// Joins the fill of a resource, or starts it; the second value says which.
    fn join(
        self: &Arc<Self>,
        Call { site, protocol, resource, want }: Call<'_>,
        held: Option<(Held, Blob)>,
    ) -> Result<(Fill, bool), Failure> {
        let joined = self.fills.join(&resource.key);
        let (fill, end) = joined.map_err(|refusal| Failure::passing(refusal, "too-many-fills"))?;
        let started = end.is_some();
        if let Some(end) = end {
            let job = Job {
                cache: Arc::clone(self),
                site: Arc::clone(site),
                protocol,
                resource: resource.clone(),
                via: want.via.map(str::to_owned),
                held,
            };
            tokio::spawn(job.run(end));
        }
        Ok((fill, started))
    }

    async fn serve_stage(&self, call: Call<'_>, stage: Stage, started: bool) -> Result<Served, Failure> {
        let used = call.resource.key.clone();
        match stage {
            Stage::Settled(result) => {
                let Settled { reference, blob, outcome } = Result::clone(&result)?;
                let outcome =
                    if started || outcome == Outcome::Revalidated { outcome } else { Outcome::Joined };
                self.answer(call, reference, used, &blob, outcome).await
            }
            Stage::Flowing(reference, flow) => Ok(Served {
                reference: Ref::clone(&reference),
                size: flow.size,
                named: flow.named,
                outcome: if started { Outcome::Filled } else { Outcome::Joined },
                detail: None,
                body: Body::Following(Follower::new(flow)),
                meters: Arc::clone(&call.site.meters),
                used,
            }),
            Stage::Asking => Err(Failure::passing(Refusal::Internal, "unsettled")),
        }
    }

    /// An answer from a blob: documents and small bodies in memory, the others as open file.
    async fn answer(
        &self,
        Call { site, resource, .. }: Call<'_>,
        reference: Ref,
        used: RefKey,
        blob: &Blob,
        outcome: Outcome,
    ) -> Result<Served, Failure> {
        let size = blob.size();
        let body = if size <= MAX_IN_MEMORY || matches!(resource.delivery, Delivery::Whole { .. }) {
            Body::Memory(read_whole(blob).await.map_err(|error| {
                tracing::error!(%error, digest = %reference.target_digest, "could not read a blob");
                Failure::passing(Refusal::Internal, "read")
            })?)
        } else {
            Body::Blob(blob.clone())
        };
        let meters = Arc::clone(&site.meters);
        Ok(Served { reference, size: Some(size), named: true, outcome, detail: None, body, meters, used })
    }

    /// The headers of content that is not cached, without fetching it.
    async fn peek(&self, Call { site, resource, want, .. }: Call<'_>) -> Result<Served, Failure> {
        let ask = Ask { head: true, ..ask_for(resource, &resource.source, want.via)? };
        let now = self.clock.now();
        let answer = match site.upstream.send(&ask).await {
            Ok(answer) => answer,
            Err(error) => return Err(self.note_failure(resource, error.into(), now)),
        };
        let digest = resource.expect.as_ref().and_then(Checksum::digest);
        let size = answer.content_length();
        let (named, digest) = (digest.is_some(), digest.unwrap_or_else(|| Digest::of(b"")));
        let reference = obtain::reading(resource, &answer, digest, size.unwrap_or(0), now);
        Ok(Served {
            reference,
            size,
            named,
            outcome: Outcome::Filled,
            detail: None,
            body: Body::Memory(bytes::Bytes::new()),
            meters: Arc::clone(&site.meters),
            used: resource.key.clone(),
        })
    }

    /// Remembers what a failure says about a name.
    fn note_failure(&self, resource: &Resource, failure: Failure, now: Timestamp) -> Failure {
        if failure.refusal == Refusal::NotFound {
            self.absent.note(&resource.key, resource.freshness, now);
        }
        failure
    }

    /// A ready answer for a request target (path and query as sent), if it is hot and fresh.
    pub fn ready(&self, target: &str) -> Option<Arc<Ready>> {
        let now = self.clock.now();
        let ready = self.hot.get(target, now)?;
        if ready.should_note(now) {
            self.uses.note(&ready.used, now);
        }
        ready.meters.served(Outcome::Hit);
        Some(ready)
    }

    /// Keeps a ready answer for a request target; `headers` are all but `Age` and `Cache-Status`.
    /// Only answers whose bytes are in the store are kept; others are ignored.
    pub fn keep_ready(&self, target: &str, served: &Served, headers: &HeaderMap) {
        let body = match &served.body {
            Body::Memory(bytes) if served.size == Some(bytes.len() as u64) => {
                ReadyBody::Memory(bytes.clone())
            }
            Body::Blob(blob) => ReadyBody::Blob(blob.clone()),
            Body::Memory(_) | Body::Following(_) => return,
        };
        if served.outcome == Outcome::Stale {
            return;
        }
        let reference = &served.reference;
        let fresh_until = reference.ttl_seconds.map_or(Timestamp::MAX, |ttl| {
            reference.fetched_at.saturating_add(Duration::from_secs(ttl)).unwrap_or(Timestamp::MAX)
        });
        let (used, meters) = (served.used.clone(), Arc::clone(&served.meters));
        let ready = Ready::new(headers.clone(), body, reference.fetched_at, fresh_until, used, meters);
        self.hot.keep(target, ready);
    }

    /// Drops all ready answers, because another process has taken something away.
    pub fn drop_ready(&self) {
        self.hot.clear();
    }

    /// Flushes last uses to the index and, at most hourly for each, to the files. Called every few
    /// seconds, and once more before the process ends.
    pub async fn flush_uses(&self) {
        let uses = self.uses.take();
        if uses.is_empty() {
            return;
        }
        for (key, at) in &uses {
            if self.uses.should_mirror(key)
                && let Err(error) = self.store.touch_ref(key, *at).await
            {
                tracing::debug!(%error, %key, "could not mirror a last use");
            }
        }
        self.writer.touch(uses);
    }

    /// Re-reads credentials and certificates of all upstreams; what cannot be read stays as it was.
    /// Blocks for as long as the files take.
    pub fn reload(&self) {
        for (proxy, site) in &self.sites {
            if let Err(error) = site.upstream.reload() {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, %proxy, "credentials and certificates stay as they were");
            }
        }
    }

    /// The clock.
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }
}

/// The request that asks upstream for a resource at one of its places.
fn ask_for(resource: &Resource, source: &Source, via: Option<&str>) -> Result<Ask, Failure> {
    let target = match source {
        Source::Path(path) => Target::Path(path.clone()),
        Source::Url(url) => Target::Url(url.parse().map_err(|_| {
            Failure::passing(Refusal::BadUpstream("it names an address that is none"), "senseless")
        })?),
    };
    Ok(Ask {
        target,
        accept: resource.accept,
        no_content: resource.headers_only,
        token_scope: resource.token_scope.clone(),
        patience: matches!(resource.delivery, Delivery::Whole { .. }).then_some(DOCUMENT_PATIENCE),
        via: via.map(str::to_owned),
        ..Ask::default()
    })
}

async fn read_whole(blob: &Blob) -> std::io::Result<bytes::Bytes> {
    if blob.size() <= READ_IN_PLACE {
        return blob.read_all();
    }
    let blob = blob.clone();
    spawn_blocking(move || blob.read_all()).await.map_err(std::io::Error::other)?
}
