//! A fill's part of HTTP's rules: what of an answer is stored, for how long, and what a 304 renews.
//!
//! The rules themselves are [`crate::model::http_cache`]'s.

use http::header::{AUTHORIZATION, DATE, LAST_MODIFIED};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::failure::Failure;
use super::obtain::Job;
use super::passing::Passing;
use super::reading::reading;
use crate::model::http_cache::{self, Excuse, Moment, ResponseDirectives, may_store};
use crate::model::{Digest, Http, Ref};
use crate::upstream::{Answer, UpstreamError};

impl Job {
    /// Whether an answer is one to be stored, rather than to be passed on to who asked for it.
    pub(super) fn keeps(&self, answer: &Answer) -> bool {
        let resource = &self.resource;
        let judged = answer.marks_end() || resource.expect.is_some();
        if !resource.freshness.is_upstreams() {
            return judged || !resource.transparent;
        }
        let directives = resource.directives();
        let now = self.cache.clock.now();
        let has_place = self.has_place(&answer.headers);
        judged
            && has_place
            && may_store(&directives, self.is_authorized(), answer.status, &answer.headers, now)
    }

    pub(super) fn is_authorized(&self) -> bool {
        self.resource.asked.headers.contains_key(AUTHORIZATION)
    }

    /// An answer that is not stored. What it replaces is withdrawn, unless it is only for who asked, or upstream
    /// merely errs: then what is held may stand in.
    pub(super) async fn let_by(&self, answer: Answer) -> Result<Passing, Failure> {
        let errs = UpstreamError::Status(answer.status.as_u16());
        if let Some((held, _)) = &self.held {
            if answer.status.is_server_error() {
                if self.cache.may_excuse(&self.resource, &held.reference, Excuse::Erring) {
                    return Err(errs.into());
                }
            } else if !self.resource.directives().no_store && !self.is_authorized() {
                self.cache.withdraw(&self.resource.key).await;
            }
        }
        let size = answer.content_length().unwrap_or(0);
        let now = self.cache.clock.now();
        let reference = reading(&self.resource, &answer, Digest::of(b""), size, now);
        Ok(Passing::new(reference, answer))
    }

    /// What a 304 says of the answer that it confirms.
    pub(super) fn freshen(&self, reference: &mut Ref, old: &Ref, answer: &Answer) {
        reference.headers = http_cache::freshen(&old.headers, &answer.headers);
        // The tag is of the bytes, which are the old ones.
        reference.etag = old.etag.clone().or_else(|| reference.etag.take());
        reference.media_type =
            answer.header("content-type").map(str::to_owned).or_else(|| old.media_type.clone());
        if !answer.headers.contains_key(DATE) {
            reference.headers.remove(DATE.as_str());
        }
        if self.resource.freshness.is_upstreams() {
            let mut fields = answer.headers.clone();
            for (name, value) in &reference.headers {
                if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                    fields.insert(name, value);
                }
            }
            let modified = reference.last_modified.as_ref();
            fields.extend(modified.and_then(|date| Some((LAST_MODIFIED, HeaderValue::try_from(date).ok()?))));
            let status = StatusCode::from_u16(old.status()).unwrap_or_default();
            date_by(reference, status, &fields, answer);
            self.mark_variant(reference);
        }
    }
}

/// Notes how old an answer was and how long it holds, by its own fields.
pub(super) fn date_by(reference: &mut Ref, status: StatusCode, fields: &HeaderMap, answer: &Answer) {
    let received = reference.fetched_at;
    let asked = received.saturating_sub(answer.waited).unwrap_or(received);
    let age_seconds = http_cache::initial_age(&answer.headers, Moment { asked, received });
    let lifetime = http_cache::lifetime(status, fields, received);
    let ask_first = ResponseDirectives::of(fields).no_cache;
    reference.ttl_seconds = Some(if ask_first { 0 } else { lifetime.saturating_sub(age_seconds) });
    reference.http = Some(Http { status: status.as_u16(), age_seconds, ..Http::default() });
}
