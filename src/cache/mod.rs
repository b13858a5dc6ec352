//! The engine: the only place where store, index and upstream meet. Find, decide, fill, follow.
//!
//! It branches on the fields of a [`Resource`] and never on a protocol.
//! `docs/architecture.md` walks one request through it:
//!
//! 1. `find`: what is cached, if a ref of this proxy and scope vouches for it.
//! 2. `decide`: use it, revalidate it, or fetch.
//! 3. `through`, `fill`, `obtain` and `publish`: one task per key asks upstream and publishes blob → ref → index;
//!    `ahead` begins what will be asked for next.
//! 4. `follow` and `body`: everybody reads what is there, at their own pace.
//!
//! Where upstream's own answers say how long they hold, `variants` finds the one that a request selects,
//! `passing` lets by what may not be stored, and `forward` what may change something upstream.

mod ahead;
mod body;
mod catalogues;
mod decide;
mod examine;
mod failure;
mod fill;
mod find;
mod follow;
mod forward;
mod gather;
mod hot;
mod judge;
mod memo;
mod meters;
mod names;
mod obtain;
mod outlet;
mod passing;
mod proof;
mod publish;
mod reading;
mod relay;
#[cfg(test)]
mod tests;
mod through;
mod transfer;
mod uses;
mod variants;
mod way;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

pub use body::{Body, BodyStream, Reader};
pub use decide::{Decision, decide};
pub use follow::Follower;
pub use hot::{Era, Ready, ReadyBody};
pub use meters::{Outcome, ProxyMeters};
pub use passing::Passed;
use tokio::sync::Semaphore;
pub use way::{Forward, Refused, Way, Why};

use crate::index::{Handle, Writer};
use crate::model::{Causes, Clock, Delivery, ProxyId, ProxyTable, Ref, RefKey, Resource, Source, Timestamp};
use crate::protocol::{Fetch, Protocol, Refusal};
use crate::store::{Blob, Store};
use crate::upstream::{Ask, Take, Target, Upstream};
use ahead::ReadAhead;
use catalogues::Catalogues;
use examine::Examinations;
use failure::Failure;
use fill::Fills;
use find::{FileGrants, Held};
use hot::{Hot, MAX_IN_MEMORY};
use memo::{Absent, Doubts, Overtaken, Unshared, Withdrawals};
use proof::Proofs;
use publish::RefLocks;
use reading::correct_type;
use through::{Company, Place};
use uses::Uses;

/// How often a request looks again at what is cached, because what another's fill brought is not for it.
const MAX_LOOKS: usize = 2;
/// How long a document may take to arrive. Content that is streamed may take any time, as long as it
/// moves.
const DOCUMENT_PATIENCE: Duration = Duration::from_secs(60);
/// How many small pieces of content are published at a time behind the clients that have them already: so many
/// keep a disk busy, and leave the processors to those who wait for upstream.
const MAX_BEHIND: usize = 4;
/// Why upstream was not asked for what is served by [`Cache::held`].
const UNLOCATED: &str = "unlocated";

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
    ahead: ReadAhead,
    absent: Absent,
    doubts: Doubts,
    unshared: Unshared,
    overtaken: Overtaken,
    withdrawals: Withdrawals,
    ref_locks: RefLocks,
    /// Turns of fills whose clients have all they asked for, so that what is left to do keeps nobody waiting.
    turns: Semaphore,
    file_grants: FileGrants,
    catalogues: Catalogues,
    proofs: Arc<Proofs>,
    examinations: Examinations,
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
    /// Since when what was hashed is believed ([`Store::begin_session`]).
    pub proofs_since: Timestamp,
    /// How many bytes of ready answers are kept in memory; zero switches that off.
    pub hot_bytes: u64,
}

/// One proxy as the engine sees it.
#[derive(Debug)]
struct Site {
    upstream: Upstream,
    meters: Arc<ProxyMeters>,
    ahead: Arc<Semaphore>,
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
    /// How it came about, as logs and metrics name it.
    pub outcome: Outcome,
    /// The same in detail.
    pub way: Way,
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
            let ahead = ahead::turns(&upstream);
            (id, Arc::new(Site { upstream, meters, ahead }))
        };
        let proofs = Proofs::new(Arc::clone(&parts.store), Arc::clone(&parts.clock), parts.proofs_since);
        Self {
            store: parts.store,
            index: parts.index,
            writer: parts.writer,
            sites: parts.upstreams.into_iter().map(site).collect(),
            proxies: parts.proxies,
            clock: parts.clock,
            fills: Arc::default(),
            ahead: ReadAhead::new(),
            absent: Absent::new(),
            doubts: Doubts::new(),
            unshared: Unshared::new(),
            overtaken: Overtaken::new(),
            withdrawals: Withdrawals::new(),
            ref_locks: RefLocks::new(),
            turns: Semaphore::new(MAX_BEHIND),
            file_grants: FileGrants::new(),
            catalogues: Catalogues::new(),
            proofs: Arc::new(proofs),
            examinations: Examinations::new(),
            hot: Hot::new(parts.hot_bytes),
            uses: Uses::new(),
        }
    }

    /// Serves a resource from the cache or through it.
    ///
    /// A client that goes away ends nothing but its own waiting.
    ///
    /// # Errors
    /// A refusal for the dialect to word.
    pub async fn fetch(
        self: &Arc<Self>,
        protocol: &'static dyn Protocol,
        fetch: &Fetch,
        want: Want<'_>,
    ) -> Result<Served, Refused> {
        let resource = &fetch.resource;
        let site = self.sites.get(&resource.key.proxy).ok_or(Refusal::NoProxy)?;
        let mut served = self.serve(Call { site, protocol, resource, want }).await;
        match &mut served {
            // The date is of one reading, and whoever else grants the content does not know it: what a
            // digest names has the same headers whoever asked before.
            Ok(served) if resource.linked => served.reference.last_modified = None,
            Err(failure) if failure.stale_allowed && self.has_alternative(resource).await => {
                failure.refusal = Refusal::NotFound;
            }
            _ => {}
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
        Ok(served?)
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
    ) -> Result<Served, Refused> {
        let resource = &fetch.resource;
        let site = self.sites.get(&resource.key.proxy).ok_or(Refusal::NoProxy)?;
        let held = match self.find(protocol, resource).await {
            Some(held) => self.open(resource, held).await,
            None => None,
        };
        let Some((Held { reference, used, .. }, blob)) = held else {
            site.meters.refused(UNLOCATED);
            return Err(Refused { refusal: otherwise.clone(), way: Way::Here, detail: UNLOCATED });
        };
        let decision = decide(Some(&reference), resource, self.clock.now());
        let outcome = if decision == Decision::Use { Outcome::Hit } else { Outcome::Stale };
        let call = Call { site, protocol, resource, want };
        let mut served = self.answer(call, reference, used, &blob, outcome, Way::Cache).await?;
        served.detail = (outcome == Outcome::Stale).then_some(UNLOCATED);
        site.meters.served(outcome);
        self.uses.note(&served.used, self.clock.now());
        Ok(served)
    }

    async fn serve(self: &Arc<Self>, call: Call<'_>) -> Result<Served, Failure> {
        for _ in 0..MAX_LOOKS {
            match self.serve_as_cached(call, Company::Any).await {
                Ok(Some(served)) => return Ok(served),
                Ok(None) => {}
                // It has been set aside: there is less to find now.
                Err(failure) if failure.is_damage() => {}
                Err(failure) => return Err(failure),
            }
        }
        let alone = self.serve_as_cached(call, Company::None).await?;
        alone.ok_or(Failure::passing(Refusal::Internal, "unsettled"))
    }

    /// Serves a resource by what is cached of it now; `None` if that has changed since.
    ///
    /// What waits for upstream is boxed, here and below, so that the future of a hit is small.
    async fn serve_as_cached(
        self: &Arc<Self>,
        call: Call<'_>,
        company: Company,
    ) -> Result<Option<Served>, Failure> {
        let Call { protocol, resource, .. } = call;
        let now = self.clock.now();
        let (place, held) = self.look(protocol, resource).await;
        let cached = held.as_ref().map(|(held, _)| &held.reference);
        let served = match (decide(cached, resource, now), held) {
            (Decision::Use, Some((held, blob))) => {
                self.adopt(protocol, resource, &held);
                self.answer(call, held.reference, held.used, &blob, Outcome::Hit, Way::Cache).await
            }
            (Decision::UseStale, Some(held)) => self.answer_stale(call, held, "not asked").await,
            (Decision::UseMeanwhile, Some(held)) if self.company(resource, &place) == Company::Any => {
                // Where nothing more may be begun, the next client's question will do.
                let _ = self.join(call, place, Some(held.clone()), Company::Any);
                self.answer_stale(call, held, "asked meanwhile").await
            }
            (Decision::Revalidate | Decision::UseMeanwhile, Some(held)) => {
                let served = Box::pin(self.serve_after_revalidation(call, place, held, company)).await;
                return served.map_err(|failure| failure.because(Why::Stale));
            }
            (Decision::Refuse, _) if company == Company::Any && self.is_stored_meanwhile(&place).await => {
                return Ok(None);
            }
            (Decision::Refuse, _) => Err(Failure::passing(Refusal::Timeout, "only-if-cached")),
            _ => {
                let why = Why::of(false, &place, resource);
                let served = Box::pin(self.serve_after_fill(call, place, company)).await;
                return served.map_err(|failure| failure.because(why));
            }
        };
        served.map(Some)
    }

    /// What is cached for a resource and where, its blob open.
    async fn look(
        &self,
        protocol: &'static dyn Protocol,
        resource: &Resource,
    ) -> (Place, Option<(Held, Blob)>) {
        let looked_at = self.fills.count();
        let found = self.find(protocol, resource).await;
        let counts = |held: &Held| !self.withdrawals.covers(&resource.key, held.reference.fetched_at);
        let found = found.filter(counts);
        let (place, held) = self.select(protocol, resource, found).await;
        let place = Place { looked_at, ..place };
        let Some(held) = held else { return (place, None) };
        let stated_size = held.size.filter(|_| resource.is_named(&held.reference.target_digest));
        match self.open(resource, held).await {
            None => (Place { stated_size, ..place }, None),
            opened => (place, opened),
        }
    }

    /// Opens the blob of what is cached; `None` if it is not there, or too large for what is wanted, so that the
    /// ref is as good as none.
    async fn open(&self, resource: &Resource, held: Held) -> Option<(Held, Blob)> {
        let (artifact_type, digest) = (resource.key.proxy.artifact_type, held.reference.target_digest);
        let blob = match self.store.open_blob(artifact_type, &digest, held.size) {
            Ok(Some(blob)) => Some(blob),
            // Perhaps gc has condemned it meanwhile: a use brings it back (W1).
            Ok(None) => {
                let live = Box::pin(self.store.ensure_live(artifact_type, &digest, held.size));
                live.await.ok().flatten()
            }
            Err(error) => {
                tracing::warn!(%error, %digest, "could not open a blob");
                None
            }
        }?;
        let size = blob.size();
        if resource.delivery.is_exceeded_by(size) {
            tracing::warn!(key = %held.used, size, "what is cached is too large to be delivered whole");
            return None;
        }
        let reference = Ref { size, ..held.reference };
        Some((Held { reference, size: Some(size), ..held }, blob))
    }

    /// An answer from a blob: documents and small bodies in memory, the others as open file.
    ///
    /// # Errors
    /// [`Failure::damage`] if it is not what its name says; then it has been set aside.
    async fn answer(
        &self,
        Call { site, protocol, resource, .. }: Call<'_>,
        mut reference: Ref,
        used: RefKey,
        blob: &Blob,
        outcome: Outcome,
        way: Way,
    ) -> Result<Served, Failure> {
        let size = blob.size();
        let (artifact_type, digest) = (resource.key.proxy.artifact_type, reference.target_digest);
        let body = if size <= MAX_IN_MEMORY || matches!(resource.delivery, Delivery::Whole { .. }) {
            let read = self.proofs.read(artifact_type, &digest, blob).await;
            let content = read.map_err(|_| Failure::damage())?;
            // A ref that was written by hand, or before types were looked at, may not say it.
            correct_type(protocol, resource.kind, &mut reference, &content);
            Body::Memory(content)
        } else {
            Body::Blob(self.proofs.lend(artifact_type, digest, blob))
        };
        let meters = Arc::clone(&site.meters);
        let size = Some(size);
        Ok(Served { reference, size, named: true, outcome, way, detail: None, body, meters, used })
    }

    /// An answer that is past its time; `detail` says why it is given all the same.
    async fn answer_stale(
        &self,
        call: Call<'_>,
        (held, blob): (Held, Blob),
        detail: &'static str,
    ) -> Result<Served, Failure> {
        let (reference, used) = (held.reference, held.used);
        let mut served = self.answer(call, reference, used, &blob, Outcome::Stale, Way::Cache).await?;
        served.detail = Some(detail);
        Ok(served)
    }

    /// Remembers what a failure says about a name, unless upstream has been given it since there were so many
    /// `withdrawals`.
    fn note_failure(&self, resource: &Resource, failure: Failure, withdrawals: u64) -> Failure {
        if failure.refusal == Refusal::NotFound {
            self.absent.note(&resource.key, resource.freshness, self.clock.now());
            // Afterwards: a withdrawal counts before it clears.
            if self.withdrawals.since(withdrawals, &resource.key) {
                self.absent.clear(&resource.key);
            }
        }
        failure
    }

    /// Drops all ready answers, and notes the next use of everything: refs were removed by their last uses,
    /// and before it is done again the order has to be known better than within minutes.
    pub fn renew_uses(&self) {
        self.uses.renew();
        self.drop_ready();
    }

    /// Waits until all content that has come whole is stored: small content is published behind its clients.
    pub async fn finish(&self) {
        for fill in self.fills.all_arrived() {
            // How it ends has been logged.
            let _ = fill.settled().await;
        }
    }

    /// Flushes last uses to the index and, at most hourly for each, to the files. Called every few
    /// seconds, and once more before the process ends.
    pub async fn flush_uses(&self) {
        let uses = self.uses.take();
        if uses.is_empty() {
            return;
        }
        let mirrored: Vec<_> = uses.iter().filter(|(key, _)| self.uses.should_mirror(key)).cloned().collect();
        // First: a file takes longer than a row.
        self.writer.touch(uses);
        for (key, at) in mirrored {
            if let Err(error) = self.store.touch_ref(&key, at).await {
                tracing::debug!(%error, %key, "could not mirror a last use");
            }
        }
    }

    /// Re-reads credentials and certificates of all upstreams; what cannot be read stays as it was.
    /// Whether all could be read. Blocks for as long as the files take.
    pub fn reload(&self) -> bool {
        let mut all = true;
        for (proxy, site) in &self.sites {
            if let Err(error) = site.upstream.reload() {
                all = false;
                let error = Causes(&error);
                tracing::error!(%error, %proxy, "this proxy's credentials and certificates stay as they were");
            }
        }
        self.doubts.clear_all();
        all
    }

    /// The counters of a proxy.
    pub fn meters(&self, proxy: &ProxyId) -> Option<Arc<ProxyMeters>> {
        self.sites.get(proxy).map(|site| Arc::clone(&site.meters))
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
        headers: resource.asked.headers.clone(),
        // Some servers label compressed files as if they had compressed them on the way. Where a checksum
        // tells whether these are the bytes, the label does not matter.
        take: if resource.freshness.is_upstreams() {
            Take::Any
        } else if resource.transparent || resource.expect.is_some() {
            Take::AnyCoding
        } else {
            Take::Content
        },
        keep_redirects: resource.keep_redirects,
        patience: matches!(resource.delivery, Delivery::Whole { .. }).then_some(DOCUMENT_PATIENCE),
        via: via.map(str::to_owned),
        ..Ask::default()
    })
}
