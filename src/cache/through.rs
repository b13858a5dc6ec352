//! Requests that what is cached does not answer: revalidation, fills, and who waits for whose.

use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;

use super::failure::Failure;
use super::fill::{Content, Fill, Fills, Settled, Stage};
use super::find::Held;
use super::follow::{Flow, Follower};
use super::obtain::Job;
use super::reading::reading;
pub(super) use super::variants::Place;
use super::variants::variant_of;
use super::way::{Forward, Way, Why};
use super::{Body, Cache, Call, Decision, Interest, Outcome, Served, ask_for, decide};
use crate::model::http_cache::{Excuse, may_excuse};
use crate::model::{Checksum, Delivery, Digest, Freshness, Ref, Resource};
use crate::protocol::Refusal;
use crate::store::Blob;
use crate::upstream::{Ask, UpstreamError};

/// How long a client with cached content in reach waits for upstream to confirm it, or for a disk to take it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Who a fill is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Company {
    /// Everybody who asks meanwhile.
    Any,
    /// One request: its answer may not be for others, or theirs not for it.
    None,
}

impl Cache {
    /// Upstream is asked whether what is cached still holds, but not for long: if it cannot say, or
    /// takes its time, what is cached is served. Where HTTP's rules hold, only if they allow it.
    pub(super) async fn serve_after_revalidation(
        self: &Arc<Self>,
        call: Call<'_>,
        place: Place,
        held: (Held, Blob),
        company: Company,
    ) -> Result<Option<Served>, Failure> {
        let may = |excuse| self.may_excuse(call.resource, &held.0.reference, excuse);
        let patience = may(Excuse::Erring).then_some(PATIENCE);
        let doubt = self.doubts.about(&place.key, self.clock.now()).filter(|_| patience.is_some());
        let detail = match doubt {
            Some(detail) => detail,
            None => match self.serve_through(call, place, Some(held.clone()), patience, company).await {
                Err(failure) if failure.stale_allowed && may(failure.excuse()) => failure.detail,
                served => return served,
            },
        };
        self.answer_stale(call, held, detail).await.map(Some)
    }

    /// Whether what is cached may stand in for upstream's answer.
    pub(super) fn may_excuse(&self, resource: &Resource, cached: &Ref, excuse: Excuse) -> bool {
        match resource.freshness {
            Freshness::Upstream(leave) => {
                let directives = resource.directives();
                may_excuse(cached, &directives, excuse, leave.stale_if_error, self.clock.now())
            }
            Freshness::Immutable | Freshness::For(_) => true,
        }
    }

    pub(super) async fn serve_after_fill(
        self: &Arc<Self>,
        call: Call<'_>,
        place: Place,
        company: Company,
    ) -> Result<Option<Served>, Failure> {
        let Call { resource, want, .. } = call;
        if self.absent.holds(&resource.key, self.clock.now()) {
            return Err(Failure::remembered());
        }
        if want.interest == Interest::Head
            && resource.delivery == Delivery::Streamed
            && !self.fills.is_running(&place.key)
            && let Some(served) = self.peek(call, &place).await?
        {
            return Ok(Some(served));
        }
        self.serve_through(call, place, None, None, company).await
    }

    /// Serves what a fill brings: one that is under way, or a new one. With `patience`, not later than
    /// when the fill is that old. `None` if what another's fill brought is not for this request as it is, but
    /// may be of use from the store, or if it has gone by: then what is cached has to be looked at again.
    async fn serve_through(
        self: &Arc<Self>,
        call: Call<'_>,
        place: Place,
        held: Option<(Held, Blob)>,
        patience: Option<Duration>,
        company: Company,
    ) -> Result<Option<Served>, Failure> {
        let company = match (company, self.company(call.resource, &place)) {
            (Company::Any, Company::None) if self.is_stored_meanwhile(&place).await => return Ok(None),
            (Company::Any, own) => own,
            (Company::None, _) => Company::None,
        };
        let why = Why::of(held.is_some(), &place, call.resource);
        let (fill, started) = self.join(call, place.clone(), held.clone(), company)?;
        self.read_ahead(call);
        let early = fill.is_asking();
        let stage = arrival(fill.clone(), patience).await?;
        if started || self.is_shared(call.resource, &stage, early) {
            return self.serve_stage(call, stage, started, why).await;
        }
        match &stage {
            Stage::Flowing(_, flow) if flow.has_arrived() => {
                // If publishing fails, that is for its own clients to hear.
                let _ = fill.settled().await;
                Ok(None)
            }
            Stage::Flowing(reference, _) if !is_for(call.resource, &stage) => {
                match variant_of(reference, call.resource) {
                    // Whoever else wants this one looks for it there.
                    Some((_, key)) if place.key == call.resource.key => {
                        let place = Place { key, ..place };
                        Box::pin(self.serve_through(call, place, held, patience, company)).await
                    }
                    _ => Ok(None),
                }
            }
            Stage::Flowing(..) | Stage::Passing(_) => {
                let (fill, _) = self.join(call, place, held, Company::None)?;
                let stage = arrival(fill, patience).await?;
                self.serve_stage(call, stage, true, why).await
            }
            Stage::Settled(_) | Stage::Unkept(_) | Stage::Asking | Stage::Outdated => Ok(None),
        }
    }

    /// Whether another's fill had all of its bytes, and has ended within [`PATIENCE`]: its clients may know of them
    /// before they are in the store, where they are for those as well who share in no fill.
    pub(super) async fn is_stored_meanwhile(&self, place: &Place) -> bool {
        let Some(fill) = self.fills.arrived(&place.key) else { return false };
        // If publishing fails, that is for its own clients to hear.
        tokio::time::timeout(PATIENCE, fill.settled()).await.is_ok()
    }

    /// Who may share the answer to a request: nobody if it says who asks, if nothing of it may be stored, or
    /// if the last answer was for one client alone.
    pub(super) fn company(&self, resource: &Resource, place: &Place) -> Company {
        let asked = &resource.asked;
        let alone = asked.headers.contains_key(AUTHORIZATION)
            || resource.directives().no_store
            || resource.freshness.is_upstreams() && self.unshared.holds(&place.key, self.clock.now());
        if alone { Company::None } else { Company::Any }
    }

    /// Whether what another's fill came to may be used. Where HTTP's rules hold, an answer that was there
    /// before this request (not `early`) may only if it might be used from the store as well.
    fn is_shared(&self, resource: &Resource, stage: &Stage, early: bool) -> bool {
        if matches!(stage, Stage::Passing(_)) || !is_for(resource, stage) {
            return false;
        }
        let Some(reference) = reference_of(stage) else { return true };
        early
            || !resource.freshness.is_upstreams()
            || decide(Some(reference), resource, self.clock.now()) == Decision::Use
    }

    /// Joins the fill of a resource, or starts it; the second value says which.
    pub(super) fn join(
        self: &Arc<Self>,
        Call { site, protocol, resource, want }: Call<'_>,
        place: Place,
        held: Option<(Held, Blob)>,
        company: Company,
    ) -> Result<(Fill, bool), Failure> {
        let (fill, end) = if company == Company::None {
            let (fill, end) = Fills::alone();
            (fill, Some(end))
        } else {
            let joined = self.fills.join(&place.key);
            joined.map_err(|refusal| Failure::passing(refusal, "too-many-fills"))?
        };
        let started = end.is_some();
        if let Some(end) = end {
            let job = Job {
                cache: Arc::clone(self),
                site: Arc::clone(site),
                protocol,
                resource: resource.clone(),
                place,
                withdrawals: self.withdrawals.count(),
                via: want.via.map(str::to_owned),
                held,
            };
            tokio::spawn(job.run(end));
        }
        Ok((fill, started))
    }

    /// Serves what a fill has come to; `None` if it has gone by and is not stored, or has not asked.
    async fn serve_stage(
        &self,
        call: Call<'_>,
        stage: Stage,
        started: bool,
        why: Why,
    ) -> Result<Option<Served>, Failure> {
        let filled = if started { Outcome::Filled } else { Outcome::Joined };
        let forward = |status| Forward { why, status, stored: false, collapsed: !started };
        let came = |reference: &Ref| forward(Some(reference.status()));
        let served = match stage {
            Stage::Settled(result) => {
                let Settled { reference, blob, outcome, said } =
                    Result::clone(&result).map_err(|failure| {
                        let way = failure.way.with(|forward| Forward { collapsed: !started, ..forward });
                        Failure { way, ..failure }
                    })?;
                let stored = outcome == Outcome::Filled;
                let collapsed = !started || outcome == Outcome::Joined;
                let way = Way::Forward(Forward { stored, collapsed, ..forward(said) });
                let outcome = if stored { filled } else { outcome };
                let used = call.resource.key.clone();
                return self.answer(call, reference, used, &blob, outcome, way).await.map(Some);
            }
            Stage::Flowing(reference, flow) => {
                let outcome = if flow.reader.is_unstored() { Outcome::Passed } else { filled };
                let is_head = call.want.interest == Interest::Head;
                if is_head && flow.size.is_none() && !flow.comes_whole().await {
                    let broken = Failure::passing(Refusal::BadUpstream("the transfer broke"), "broken");
                    return Err(broken.answered(reference.status()));
                }
                following(call, Ref::clone(&reference), flow, outcome, came(&reference))
            }
            Stage::Unkept(unkept) => match &unkept.content {
                Content::Flow(flow) => {
                    let forward = came(&unkept.reference);
                    following(call, unkept.reference.clone(), Arc::clone(flow), Outcome::Passed, forward)
                }
                Content::Document(bytes) => {
                    let (size, body) = (Some(bytes.len() as u64), Body::Memory(bytes.clone()));
                    let (reference, forward) = (unkept.reference.clone(), came(&unkept.reference));
                    Some(arriving(call, reference, size, true, Outcome::Passed, forward, body))
                }
            },
            Stage::Passing(passing) => {
                let passed = passing.take().ok_or(Failure::passing(Refusal::Internal, "taken"))?;
                let (reference, body) = (passing.reference.clone(), Body::Passing(passed));
                let forward = came(&reference);
                Some(arriving(call, reference, passing.size, false, Outcome::Passed, forward, body))
            }
            Stage::Outdated => None,
            Stage::Asking => return Err(Failure::passing(Refusal::Internal, "unsettled")),
        };
        Ok(served)
    }

    /// The headers of content that is not cached, without fetching it. `None` if upstream's answer to a HEAD does
    /// not tell them, its size included: clients take a HEAD without a length for a failure.
    async fn peek(&self, call: Call<'_>, place: &Place) -> Result<Option<Served>, Failure> {
        let Call { site, resource, want, .. } = call;
        let ask = Ask { head: true, ..ask_for(resource, &resource.source, want.via)? };
        let withdrawals = self.withdrawals.count();
        let answer = match site.upstream.send(&ask).await {
            Ok(answer) => answer,
            Err(UpstreamError::Status(405 | 501)) => return Ok(None),
            Err(error) => return Err(self.note_failure(resource, error.into(), withdrawals)),
        };
        let now = self.clock.now();
        let digest = resource.expect.as_ref().and_then(Checksum::digest);
        let size = answer.content_length().or(resource.size).or(place.stated_size);
        // By HTTP's own rules upstream's answer is the answer, whatever it leaves out.
        if size.is_none() && !resource.freshness.is_upstreams() {
            return Ok(None);
        }
        let (named, digest) = (digest.is_some(), digest.unwrap_or_else(|| Digest::of(b"")));
        let reference = reading(resource, &answer, digest, size.unwrap_or(0), now);
        let outcome = if resource.freshness.is_upstreams() { Outcome::Passed } else { Outcome::Filled };
        let (why, status) = (Why::of(false, place, resource), Some(answer.status.as_u16()));
        let forward = Forward { why, status, stored: false, collapsed: false };
        let body = Body::Memory(bytes::Bytes::new());
        Ok(Some(arriving(call, reference, size, named, outcome, forward, body)))
    }
}

impl Why {
    /// Why a request goes forward whose resource is kept in this place, or not.
    pub(super) fn of(is_held: bool, place: &Place, resource: &Resource) -> Self {
        match is_held {
            true => Self::Stale,
            false if place.key != resource.key => Self::VaryMiss,
            false => Self::UriMiss,
        }
    }
}

/// The answer to one who follows a fill; `None` if its beginning is gone.
fn following(
    call: Call<'_>,
    reference: Ref,
    flow: Arc<Flow>,
    outcome: Outcome,
    forward: Forward,
) -> Option<Served> {
    let (size, named) = (flow.known_size(), flow.named);
    let body = Body::Following(Follower::new(flow)?);
    Some(arriving(call, reference, size, named, outcome, forward, body))
}

/// An answer that comes from upstream.
fn arriving(
    call: Call<'_>,
    reference: Ref,
    size: Option<u64>,
    named: bool,
    outcome: Outcome,
    forward: Forward,
    body: Body,
) -> Served {
    let (meters, used) = (Arc::clone(&call.site.meters), call.resource.key.clone());
    // What is not kept has no key of its own that it would be missing under.
    let why = match forward.why {
        Why::UriMiss if outcome == Outcome::Passed => Why::Miss,
        why => why,
    };
    let way = Way::Forward(Forward { why, ..forward });
    Served { reference, size, named, outcome, way, detail: None, body, meters, used }
}

/// Waits for a fill, with `patience` not longer than until it is that old.
async fn arrival(fill: Fill, patience: Option<Duration>) -> Result<Stage, Failure> {
    match patience {
        Some(patience) => {
            fill.arrived_within(patience).await.ok_or(Failure::passing(Refusal::Timeout, "slow"))
        }
        None => Ok(fill.arrived().await),
    }
}

/// What is known of the answer that a fill came to, if it came to one.
fn reference_of(stage: &Stage) -> Option<&Ref> {
    match stage {
        Stage::Flowing(reference, _) => Some(reference),
        Stage::Unkept(unkept) => Some(&unkept.reference),
        Stage::Settled(settled) => settled.as_ref().as_ref().ok().map(|settled| &settled.reference),
        Stage::Asking | Stage::Passing(_) | Stage::Outdated => None,
    }
}

/// Whether an answer is the one for this request, of several at its address.
fn is_for(resource: &Resource, stage: &Stage) -> bool {
    let variant = reference_of(stage).and_then(|reference| {
        Some((reference.http.as_ref()?.variant.as_ref()?, variant_of(reference, resource)?))
    });
    variant.is_none_or(|(variant, (own, _))| *variant == own)
}
