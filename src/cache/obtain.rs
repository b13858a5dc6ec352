//! The work of a fill: ask upstream, take the body, check it, and have it published (`publish`).
//!
//! A job runs in a task of its own and is never cancelled by a client. What the store does not take is passed
//! on, checked, and not kept.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::watch;

use super::failure::Failure;
use super::fill::{FillEnd, Settled, Unkept};
use super::find::Held;
use super::follow::{Flow, Release};
use super::meters::Outcome;
use super::outlet::Outlet;
use super::passing::Passing;
use super::reading::{correct_type, kept_headers, reading, stated_digest};
use super::through::Place;
use super::transfer::Transfer;
use super::{Cache, Decision, Site, ask_for, decide};
use crate::model::{Checksum, Delivery, Digest, MediaType, Ref, Resource, Source};
use crate::protocol::{Protocol, Refusal};
use crate::store::{Blob, Sealed, Staged};
use crate::upstream::{Answer, Ask, UpstreamError};

/// How often a fill starts over, when the content was corrupt or was lost between W1 and W3.
const MAX_ATTEMPTS: u32 = 2;

/// One fill's work.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub cache: Arc<Cache>,
    pub site: Arc<Site>,
    pub protocol: &'static dyn Protocol,
    pub resource: Resource,
    /// Where what is held is kept, and what arrives if it is the same variant.
    pub place: Place,
    /// How many withdrawals there were when it began.
    pub withdrawals: u64,
    /// The `Via` of the request that began it.
    pub via: Option<String>,
    /// What is cached but past its time.
    pub held: Option<(Held, Blob)>,
}

/// What a fill came to.
pub(super) enum Obtained {
    /// It is published.
    Settled(Box<Settled>),
    /// It is for one client alone.
    Passing(Box<Passing>),
    /// A document that the store did not take.
    Unkept(Box<Unkept>),
    /// Nothing: it is kept elsewhere, where others may have it or be about to bring it.
    Outdated,
}

/// What upstream said to the first question.
#[derive(Debug)]
pub(super) enum Said {
    /// What is held still holds.
    Unchanged(Box<Answer>),
    /// Here it comes, in answer to this request.
    Body(Box<Answer>, Box<Ask>),
}

/// Content that has arrived and is what it should be, but is not published.
#[derive(Debug)]
pub(super) struct Arrived {
    pub reference: Ref,
    pub sealed: Sealed,
    /// The bytes, if it is delivered whole.
    pub document: Option<Bytes>,
    /// The status of the answer that brought it.
    pub said: u16,
}

impl Job {
    /// Does the work and settles the fill.
    pub(super) async fn run(mut self, end: FillEnd) {
        let _running = self.site.meters.filling();
        let mut result = self.obtain(&end).await;
        for _ in 1..MAX_ATTEMPTS {
            // Starting over is invisible only while nobody has been given a byte.
            let hidden = matches!(self.resource.delivery, Delivery::Whole { .. });
            match &result {
                Err(failure) if hidden && matches!(failure.detail, "corrupt" | "lost" | "broken") => {
                    tracing::warn!(key = %self.resource.key, why = failure.detail, "fetching once more");
                    result = self.obtain(&end).await;
                }
                _ => break,
            }
        }
        let (now, key) = (self.cache.clock.now(), &self.resource.key);
        let result = result.map_err(|failure| {
            // What only the store did says nothing of upstream, and has been told.
            if failure.unstored.is_none() {
                tracing::info!(%key, why = failure.detail, refusal = %failure.refusal, "a fetch from upstream failed");
                if self.held.is_some() && failure.stale_allowed {
                    self.cache.doubts.note(&self.place.key, failure.detail, now);
                }
            }
            self.cache.note_failure(&self.resource, failure, self.withdrawals)
        });
        if result.as_ref().is_ok_and(|obtained| !matches!(obtained, Obtained::Outdated)) {
            self.cache.absent.clear(key);
            self.cache.doubts.clear(&self.place.key);
        }
        match result {
            Ok(Obtained::Passing(passing)) => {
                // What is for one because of what it asked says nothing of others.
                if !self.is_authorized() && !self.resource.directives().no_store {
                    self.cache.unshared.note(&self.place.key, now);
                }
                end.pass(*passing);
            }
            Ok(Obtained::Settled(settled)) => {
                self.cache.unshared.clear(&self.place.key);
                end.settle(Ok(*settled));
            }
            Ok(Obtained::Unkept(unkept)) => {
                self.cache.overtaken.note(&self.place.key, now);
                end.hand_over(*unkept);
            }
            Ok(Obtained::Outdated) => end.send_back(),
            Err(failure) => end.settle(Err(failure)),
        }
    }

    async fn obtain(&mut self, end: &FillEnd) -> Result<Obtained, Failure> {
        if let Some(brought) = self.brought_meanwhile(end).await {
            return Ok(brought);
        }
        if self.held.is_none()
            && let Some(settled) = self.authorise().await?
        {
            return Ok(Obtained::Settled(Box::new(settled)));
        }
        let settled = match (self.ask().await?, &self.held) {
            (Said::Unchanged(answer), Some((held, blob))) => self.confirm(&answer, held, blob).await,
            (Said::Unchanged(_), None) => {
                Err(UpstreamError::Senseless("304 to a plain request".into()).into())
            }
            (Said::Body(answer, _), _) if !self.keeps(&answer) => {
                let passing = self.let_by(*answer).await?;
                return Ok(Obtained::Passing(Box::new(passing)));
            }
            (Said::Body(answer, ask), _) => {
                let said = answer.status.as_u16();
                let obtained = async {
                    let arrived = self.download(*answer, &ask, Some(end)).await?;
                    self.publish(arrived, end).await
                };
                return obtained.await.map_err(|failure: Failure| failure.answered(said));
            }
        };
        settled.map(|settled| Obtained::Settled(Box::new(settled)))
    }

    /// What another fill has brought since the request looked that began this one: it may have ended in
    /// between. If that has to be confirmed again already, it is what upstream is asked about. If what is wanted
    /// turns out to be a variant, others look for it, and for who brings it, elsewhere.
    async fn brought_meanwhile(&mut self, end: &FillEnd) -> Option<Obtained> {
        if !self.cache.fills.may_have_ended(&self.place.key, self.place.looked_at) {
            return None;
        }
        let (place, found) = self.cache.look(self.protocol, &self.resource).await;
        if place.key != self.place.key && end.is_listed() {
            return Some(Obtained::Outdated);
        }
        self.held.take_if(|_| place.key != self.place.key);
        self.place = place;
        let (found, blob) = found?;
        let is_newer = |held: &Held| found.reference.fetched_at > held.reference.fetched_at;
        if !self.held.as_ref().is_none_or(|(held, _)| is_newer(held)) {
            return None;
        }
        match decide(Some(&found.reference), &self.resource, self.cache.clock.now()) {
            Decision::Use => {
                let reference = found.reference;
                let settled = Settled { reference, blob, outcome: Outcome::Joined, said: None };
                return Some(Obtained::Settled(Box::new(settled)));
            }
            Decision::UseStale | Decision::UseMeanwhile | Decision::Revalidate => {
                self.held = Some((found, blob));
            }
            Decision::Fetch | Decision::Refuse => {}
        }
        None
    }

    /// Content that the store has, but that nothing of this scope vouches for: upstream is asked
    /// whether this name may have it (invariant I6), and its bytes are not fetched again. `None` if
    /// the store has not got it, or upstream cannot say without sending it.
    async fn authorise(&self) -> Result<Option<Settled>, Failure> {
        let Some(digest) = self.resource.expect.as_ref().and_then(Checksum::digest) else { return Ok(None) };
        let artifact_type = self.resource.key.proxy.artifact_type;
        let blob = match self.cache.store.ensure_live(artifact_type, &digest, None).await {
            Ok(Some(blob)) if !self.resource.delivery.is_exceeded_by(blob.size()) => blob,
            Ok(_) => return Ok(None),
            Err(error) => {
                tracing::warn!(%error, %digest, "could not look for a blob");
                return Ok(None);
            }
        };
        let ask = Ask { head: true, ..self.ask_at(&self.resource.source)? };
        let answer = match self.site.upstream.send(&ask).await {
            Ok(answer) => answer,
            Err(UpstreamError::Status(405 | 501)) => return Ok(None),
            // It may be at the second place.
            Err(UpstreamError::NotFound) if self.resource.fallback.is_some() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Without a word about its size, what is in the store might be a part of it.
        if answer.content_length() != Some(blob.size()) {
            return Ok(None);
        }
        let mut reference = reading(&self.resource, &answer, digest, blob.size(), self.cache.clock.now());
        if self.protocol.is_document(&reference.kind) {
            let document = self.read(&digest, &blob).await?;
            self.describe(&mut reference, &document)?;
        }
        if self.resource.media_type == MediaType::Upstream && reference.media_type.is_none() {
            return Ok(None);
        }
        self.renew_ref(&reference).await?;
        let said = Some(answer.status.as_u16());
        Ok(Some(Settled { reference, blob, outcome: Outcome::Revalidated, said }))
    }

    fn ask_at(&self, source: &Source) -> Result<Ask, Failure> {
        ask_for(&self.resource, source, self.via.as_deref())
    }

    /// The first question: does what is held still hold, else give it. Asked at the second place if
    /// the first has not got it.
    pub(super) async fn ask(&self) -> Result<Said, Failure> {
        let said = self.ask_once(self.ask_at(&self.resource.source)?).await;
        match (said, &self.resource.fallback) {
            (Err(UpstreamError::NotFound), Some(fallback)) => {
                Ok(self.ask_once(self.ask_at(fallback)?).await?)
            }
            (said, _) => Ok(said?),
        }
    }

    async fn ask_once(&self, ask: Ask) -> Result<Said, UpstreamError> {
        let upstream = &self.site.upstream;
        let Some((held, _)) = &self.held else {
            let answer = upstream.send(&ask).await?;
            return Ok(Said::Body(Box::new(answer), Box::new(ask)));
        };
        // A HEAD that states the digest costs upstream nothing; registries count GETs.
        if let Some(header) = self.resource.digest_header {
            match upstream.send(&Ask { head: true, ..ask.clone() }).await {
                Ok(answer) => match stated_digest(&answer, header)?.and_then(|stated| stated.digest()) {
                    Some(digest) if digest == held.reference.target_digest => {
                        return Ok(Said::Unchanged(Box::new(answer)));
                    }
                    _ => {}
                },
                Err(UpstreamError::Status(405 | 501)) => {}
                Err(error) => return Err(error),
            }
        }
        let conditional = Ask {
            if_none_match: held.reference.etag.clone(),
            if_modified_since: held.reference.last_modified.clone(),
            ..ask.clone()
        };
        let answer = Box::new(upstream.send(&conditional).await?);
        if answer.status == StatusCode::NOT_MODIFIED {
            Ok(Said::Unchanged(answer))
        } else {
            Ok(Said::Body(answer, Box::new(ask)))
        }
    }

    /// Upstream says that what is held still holds: the same target, confirmed now.
    async fn confirm(&self, answer: &Answer, held: &Held, blob: &Blob) -> Result<Settled, Failure> {
        // Rows carry neither links nor fields of later versions; the file does.
        let file = self.cache.store.read_ref(&self.place.key).await.ok().flatten();
        let old = file.filter(|file| file.target_digest == held.reference.target_digest);
        let old = old.as_ref().unwrap_or(&held.reference);
        let mut reference = Ref {
            kind: self.resource.kind.to_owned(),
            fetched_at: self.cache.clock.now(),
            ttl_seconds: self.resource.freshness.ttl_seconds(),
            upstream: Some(answer.host.clone()),
            etag: answer.etag().map(str::to_owned).or_else(|| old.etag.clone()),
            last_modified: answer.last_modified().map(str::to_owned).or_else(|| old.last_modified.clone()),
            ..old.clone()
        };
        // A 304 repeats only what has changed.
        if answer.status != StatusCode::NOT_MODIFIED {
            reference.headers.retain(|name, _| !self.resource.keep_headers.contains(&name.as_str()));
        }
        reference.headers.extend(kept_headers(&self.resource, answer));
        if self.resource.transparent {
            self.freshen(&mut reference, old, answer);
        }
        if reference.links.is_none() && self.protocol.is_document(&reference.kind) {
            let document = self.read(&reference.target_digest, blob).await?;
            self.describe(&mut reference, &document)?;
        }
        self.renew_ref(&reference).await?;
        let said = Some(answer.status.as_u16());
        Ok(Settled { reference, blob: blob.clone(), outcome: Outcome::Revalidated, said })
    }

    /// Takes the body, checked; followers are let in at `end` as soon as they may see it.
    pub(super) async fn download(
        &self,
        answer: Answer,
        ask: &Ask,
        end: Option<&FillEnd>,
    ) -> Result<Arrived, Failure> {
        let resource = &self.resource;
        let size = answer.content_length().or(resource.size).or(self.place.stated_size);
        let limit = resource.delivery.limit();
        if let Some(limit) = limit.filter(|limit| size.is_some_and(|size| size > *limit)) {
            return Err(Failure::passing(Refusal::TooLarge { limit }, "too-large"));
        }
        if resource.size.is_some_and(|named| Some(named) != size) {
            return Err(Failure::passing(Refusal::BadUpstream("its size is not the one named"), "corrupt"));
        }
        let claims = self.claims(&answer)?;
        if claims.is_empty() && !answer.marks_end() {
            return Err(Failure::passing(
                Refusal::BadUpstream("its end cannot be told from a cut"),
                "endless",
            ));
        }
        let staged = self.cache.store.stage(&resource.key.proxy, size, &claims).await;
        let staged = match limit {
            Some(limit) => staged.held_whole(limit),
            None => staged,
        };
        let (release, released) =
            watch::channel(if claims.is_empty() { Release::Unchecked } else { Release::Held });
        let named = resource.expect.as_ref().and_then(Checksum::digest);
        let digest = named.unwrap_or_else(|| Digest::of(b""));
        let mut reference = reading(resource, &answer, digest, size.unwrap_or(0), self.cache.clock.now());
        self.mark_variant(&mut reference);
        let (reader, written) = (staged.reader(), staged.progress());
        let flow = Flow { reader, written, release: released, size, named: named.is_some() };
        let end = end.filter(|_| resource.delivery == Delivery::Streamed);
        let outlet = Outlet::open(self, end, (reference, flow), release);
        self.take_body(answer, ask, staged, &claims, limit, outlet).await
    }

    /// What the bytes must hash to: by the resource's name, and by the answer's own word.
    fn claims(&self, answer: &Answer) -> Result<Vec<Checksum>, Failure> {
        let resource = &self.resource;
        let mut claims: Vec<Checksum> = resource.expect.iter().cloned().collect();
        if let Some(header) = resource.digest_header {
            claims.extend(
                stated_digest(answer, header)?.filter(|stated| Some(stated) != resource.expect.as_ref()),
            );
        }
        Ok(claims)
    }

    /// Moves the body and checks it.
    async fn take_body(
        &self,
        answer: Answer,
        ask: &Ask,
        mut staged: Staged,
        claims: &[Checksum],
        limit: Option<u64>,
        mut outlet: Outlet<'_>,
    ) -> Result<Arrived, Failure> {
        let mut reference = reading(&self.resource, &answer, Digest::of(b""), 0, self.cache.clock.now());
        self.mark_variant(&mut reference);
        let said = answer.status.as_u16();
        let transfer = Transfer { upstream: &self.site.upstream, ask, checked: !claims.is_empty(), limit };
        transfer.run(answer, &mut staged, &mut |why| outlet.pass_by(why)).await?;
        let reader = staged.reader();
        let sealed = staged.seal(claims).await.inspect_err(|error| {
            tracing::error!(%error, key = %self.resource.key, "upstream sent bytes that are not the ones named");
        })?;
        if let Some(why) = sealed.unstored() {
            outlet.pass_by(why);
        }
        outlet.release(sealed.size);
        (reference.target_digest, reference.size) = (sealed.digest, sealed.size);
        let document = match self.resource.delivery {
            Delivery::Whole { .. } => Some(reader.whole(sealed.size).map_err(|_| unreadable())?),
            Delivery::Streamed => None,
        };
        Ok(Arrived { reference, sealed, document, said })
    }

    /// All of a blob of the store's; one that is damaged is set aside.
    pub(super) async fn read(&self, digest: &Digest, blob: &Blob) -> Result<Bytes, Failure> {
        let artifact_type = self.resource.key.proxy.artifact_type;
        self.cache.proofs.read(artifact_type, digest, blob).await.map_err(|_| Failure::damage())
    }

    /// Notes what a document says of itself and what it needs.
    pub(super) fn describe(&self, reference: &mut Ref, document: &[u8]) -> Result<(), Failure> {
        correct_type(self.protocol, self.resource.kind, reference, document);
        let links = self.protocol.links(&reference.kind, reference.media_type.as_deref(), document);
        reference.links = Some(links.ok_or(Failure::passing(
            Refusal::BadUpstream("the document is not what it should be"),
            "malformed",
        ))?);
        Ok(())
    }
}

fn unreadable() -> Failure {
    Failure::passing(Refusal::Internal, "read")
}
