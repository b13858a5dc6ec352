//! Plain files over HTTP: any server behind `/generic/<proxy>/<path>?<query>`.
//!
//! * `address`: from a request's target to a ref's path and back to nothing else.
//! * `fields`: which header fields go along, and which come back.
//! * `sidecar`: what a file next to another says that must hash to.
//!
//! How long an answer holds is upstream's own word, by HTTP's rules, unless the operator has a rule for the
//! path. Pure, as every dialect.

mod address;
mod fields;
mod sidecar;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method};

use super::{Derive, Document, Fetch, Gathered, Head, Protocol, Refusal, Reply, Route, Unrouted};
use crate::model::http_cache::RequestDirectives;
use crate::model::{
    Area, ArtifactType, Asked, Claim, Delivery, Freshness, Heed, HttpRules, PathRule, ProxyFacts, ProxyId,
    ProxyTable, Ref, RefKey, RefPath, RefRules, Resource, Source, Treatment,
};

/// The kind of every ref.
const KIND: &str = "generic.file";
/// The largest file with checksums.
const SIDECAR_MAX_LEN: u64 = 256 << 10;

/// What holds for a proxy that has none of its own.
static RULES: HttpRules = HttpRules::DEFAULT;

/// The dialect.
#[derive(Debug, Clone, Copy, Default)]
pub struct Generic;

impl RefRules for Generic {
    fn scope<'p>(&self, _path: &'p RefPath) -> &'p str {
        ""
    }

    fn links(&self, _kind: &str, _media_type: Option<&str>, _document: &[u8]) -> Option<Vec<Claim>> {
        Some(Vec::new())
    }

    fn is_document(&self, _kind: &str) -> bool {
        false
    }
}

impl Protocol for Generic {
    fn artifact_type(&self) -> ArtifactType {
        ArtifactType::Generic
    }

    fn owns(&self, head: &Head<'_>, _proxies: &ProxyTable) -> bool {
        head.authority.is_none() && head.path.starts_with(address::MOUNT)
    }

    fn route(&self, head: &Head<'_>, proxies: &ProxyTable, gathered: &Gathered) -> Result<Route, Unrouted> {
        let (name, path) = address::split(head.path).ok_or(Refusal::NoEndpoint)?;
        let proxy = proxies.named(ArtifactType::Generic, name).ok_or(Refusal::NoProxy)?;
        let place = Place::of(proxy, path, head.query)?;
        if !matches!(*head.method, Method::GET | Method::HEAD) {
            let handed_on = place.rules.forward_unsafe && *head.method != Method::TRACE;
            let resource = place.whatever(head);
            return if handed_on {
                Ok(Route::Forward(Box::new(resource)))
            } else {
                Err(Refusal::ReadOnly.into())
            };
        }
        let mut resource = place.resource(head);
        if let Some(next_to) = place.sidecar()? {
            // Not every file has one, and not every upstream says so with a 404.
            if let Ok(found) = gathered.attempt(next_to)? {
                resource.expect = sidecar::checksum(&found.body, path);
            }
        }
        Ok(Route::Fetch(Box::new(Fetch { resource, rewrite: false })))
    }

    fn key_at(&self, proxy: &ProxyId, path: &str) -> Option<RefKey> {
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        Some(RefKey { proxy: proxy.clone(), area: Area::Refs, path: address::ref_path(path, query).ok()? })
    }

    fn rewrite(&self, _head: &Head<'_>, _reference: &Ref, _document: &[u8]) -> Result<Document, Refusal> {
        Err(Refusal::NoEndpoint)
    }

    fn derive(&self, _head: &Head<'_>, _derive: &Derive, _names: &[String]) -> Result<Document, Refusal> {
        Err(Refusal::NoEndpoint)
    }

    fn headers(&self, _head: &Head<'_>, fetch: &Fetch, reference: &Ref) -> Vec<(HeaderName, HeaderValue)> {
        fields::back(&fetch.resource, reference)
    }

    fn refuse(&self, _head: &Head<'_>, refusal: &Refusal) -> Reply {
        let mut headers = refusal.headers();
        headers.push((CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")));
        Reply { status: refusal.status(), headers, body: Bytes::from(format!("{refusal}\n")) }
    }
}

/// What a request's target means.
struct Place<'t> {
    proxy: &'t ProxyFacts,
    rules: &'t HttpRules,
    /// As sent, without the query.
    path: &'t str,
    query: Option<&'t str>,
    key: RefKey,
}

impl<'t> Place<'t> {
    fn of(proxy: &'t ProxyFacts, path: &'t str, query: Option<&'t str>) -> Result<Self, Refusal> {
        let ref_path = address::ref_path(path, query)?;
        let key = RefKey { proxy: proxy.id.clone(), area: Area::Refs, path: ref_path };
        let rules = proxy.http.as_deref().unwrap_or(&RULES);
        Ok(Self { proxy, rules, path, query, key })
    }

    fn rule(&self) -> Option<&PathRule> {
        self.rules.rule(self.path)
    }

    /// What a GET or HEAD asks for.
    fn resource(&self, head: &Head<'_>) -> Resource {
        match self.rule().map(|rule| rule.treatment) {
            Some(Treatment::Immutable) => self.ruled(Freshness::Immutable),
            Some(Treatment::For(ttl)) => self.ruled(Freshness::For(ttl)),
            Some(Treatment::NoStore) => {
                let mut resource = self.whatever(head);
                // The operator speaks in the client's place.
                resource.asked.heed = Heed::Everything;
                resource.asked.directives =
                    RequestDirectives { no_store: true, no_cache: true, ..RequestDirectives::default() };
                resource
            }
            None => self.whatever(head),
        }
    }

    /// Content whose time the operator fixed. It is the same for everybody, so that nothing of a single
    /// client goes along.
    fn ruled(&self, freshness: Freshness) -> Resource {
        let query = self.query.map(|query| format!("?{query}")).unwrap_or_default();
        let source = Source::Path(format!("{}{query}", self.path));
        Resource {
            transparent: true,
            ..Resource::new(self.key.clone(), KIND, source, freshness, Delivery::Streamed)
        }
    }

    /// Whatever upstream answers, for as long as it says.
    fn whatever(&self, head: &Head<'_>) -> Resource {
        let headers = fields::along(head.headers, self.rules);
        let challenges = if self.rules.forward_authorization { fields::CHALLENGES } else { &[] };
        Resource {
            keep_redirects: self.rules.keep_redirects,
            context: Bytes::from_static(challenges),
            asked: Asked { headers, directives: RequestDirectives::of(head.headers), heed: self.rules.heed },
            ..self.ruled(Freshness::Upstream(self.rules.leave))
        }
    }

    /// The file that says what this one must hash to, if the operator says that there is one.
    fn sidecar(&self) -> Result<Option<Resource>, Refusal> {
        let Some(rule) = self.rule() else { return Ok(None) };
        let (Some(suffix), false) = (&rule.sidecar, rule.treatment == Treatment::NoStore) else {
            return Ok(None);
        };
        if self.query.is_some() || self.path.ends_with(suffix) || self.path.ends_with('/') {
            return Ok(None);
        }
        let path = format!("{}{suffix}", self.path);
        let place = Place::of(self.proxy, &path, None)?;
        let freshness = match rule.treatment {
            Treatment::For(ttl) => Freshness::For(ttl),
            Treatment::Immutable | Treatment::NoStore => Freshness::Immutable,
        };
        let delivery = Delivery::Whole { limit: SIDECAR_MAX_LEN };
        Ok(Some(Resource { delivery, ..place.ruled(freshness) }))
    }
}
