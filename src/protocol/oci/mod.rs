//! The pull side of the OCI distribution specification (1.1) and what Docker's registry API has
//! beside it.
//!
//! A request is taken apart (`request`, by `grammar`), matched with the configuration and made a
//! resource (`resource`); lists are put under the client's own names on their way out (`lists`);
//! manifests are read for what they need (`manifest`), never written; `refuse` words refusals.
//!
//! Nothing here knows network, disk, clock or server. A client's query is never forwarded but for
//! the paging of lists, and no part of a request becomes a key without having passed the grammar.

mod grammar;
mod lists;
mod manifest;
mod refuse;
mod request;
mod resource;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, WARNING};
use http::{HeaderName, HeaderValue, Method, StatusCode};

use self::request::{Endpoint, Request};
use self::resource::{Place, kind};
use super::{Derive, Document, Fetch, Gathered, Head, Protocol, Refusal, Reply, Route, Unrouted};
use crate::model::{
    ArtifactType, Claim, Descriptor, Freshness, ProxyTable, Ref, RefPath, RefRules, Resource,
};

const API_VERSION: (HeaderName, HeaderValue) =
    (HeaderName::from_static("docker-distribution-api-version"), HeaderValue::from_static("registry/2.0"));
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");
/// The longest warning, in bytes.
const WARNING_MAX_LEN: usize = 4096;

/// The dialect of container registries.
#[derive(Debug, Clone, Copy, Default)]
pub struct Oci;

impl RefRules for Oci {
    fn scope<'p>(&self, path: &'p RefPath) -> &'p str {
        resource::scope(path)
    }

    fn links(&self, kind: &str, media_type: Option<&str>, document: &[u8]) -> Option<Vec<Claim>> {
        if self.is_document(kind) { manifest::links(media_type, document) } else { Some(Vec::new()) }
    }

    fn is_document(&self, kind: &str) -> bool {
        matches!(kind, kind::TAG | kind::MANIFEST)
    }
}

impl Protocol for Oci {
    fn artifact_type(&self) -> ArtifactType {
        ArtifactType::Container
    }

    fn owns(&self, head: &Head<'_>, _: &ProxyTable) -> bool {
        let below = head.path.strip_prefix("/v2");
        head.authority.is_none() && below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    fn route(&self, head: &Head<'_>, proxies: &ProxyTable, _: &Gathered) -> Result<Route, Unrouted> {
        if !matches!(*head.method, Method::GET | Method::HEAD) {
            return Err(Refusal::ReadOnly.into());
        }
        let request = Request::parse(head)?;
        match request.endpoint {
            Endpoint::Base => Ok(Route::Local(base())),
            Endpoint::Catalog => Ok(Route::Derive(resource::catalog(&request, proxies)?)),
            _ => {
                let fetch = Place::find(&request, proxies)?.fetch(&request)?;
                Ok(Route::Fetch(Box::new(fetch)))
            }
        }
    }

    fn media_type(&self, kind: &str, stated: Option<&str>, document: &[u8]) -> Option<&'static str> {
        if self.is_document(kind) { manifest::media_type(stated, document) } else { None }
    }

    /// What is no list must not take the place of one: a proxy in front of upstream that asks for a login
    /// says 200 too.
    fn vet(&self, resource: &Resource, document: &[u8], _: &Gathered) -> Result<Vec<Descriptor>, Refusal> {
        lists::check(resource.kind, document).map(|()| Vec::new())
    }

    fn sibling(&self, resource: &Resource, link: &Claim) -> Option<Resource> {
        resource::sibling(resource, link)
    }

    fn rewrite(&self, head: &Head<'_>, reference: &Ref, document: &[u8]) -> Result<Document, Refusal> {
        let request = Request::parse(head)?;
        match request.endpoint {
            Endpoint::Tags => lists::tags(&request, reference, document),
            Endpoint::Referrers(_) => lists::referrers(&request, reference, document),
            _ => Err(Refusal::Internal),
        }
    }

    fn derive(&self, head: &Head<'_>, derive: &Derive, names: &[String]) -> Result<Document, Refusal> {
        let Derive::Scopes { limit, .. } = derive;
        lists::catalog(&Request::parse(head)?, *limit, names)
    }

    /// Those of a document that is rewritten come with the document.
    fn headers(&self, head: &Head<'_>, fetch: &Fetch, reference: &Ref) -> Vec<(HeaderName, HeaderValue)> {
        let resource = &fetch.resource;
        let request = Request::parse(head).ok();
        let mut headers: Vec<_> = common(request.as_ref()).collect();
        let mut add =
            |name, value: String| headers.extend(HeaderValue::try_from(value).map(|value| (name, value)));
        if matches!(resource.kind, kind::TAG | kind::MANIFEST | kind::BLOB) {
            // Under the name that was asked for, so that a sha512 stays one; of content that is on its way,
            // nothing else is known.
            let asked = resource.expect.as_ref().map(ToString::to_string);
            let digest = asked.unwrap_or_else(|| reference.target_digest.to_string());
            add(ETAG, format!("\"{digest}\""));
            add(CONTENT_DIGEST, digest);
        }
        // What is named by a digest has the same headers whoever asked before.
        if resource.kind == kind::TAG
            && let Some(warning) = warning(reference)
        {
            add(WARNING, warning.to_owned());
        }
        if resource.freshness == Freshness::Immutable {
            add(CACHE_CONTROL, "max-age=31536000".to_owned());
        }
        if resource.kind == kind::REFERRERS && !fetch.rewrite {
            headers.extend(request.and_then(|request| lists::referrers_link(&request, reference)));
        }
        headers
    }

    fn refuse(&self, head: &Head<'_>, refusal: &Refusal) -> Reply {
        refuse::reply(head, refusal)
    }
}

/// The headers of every answer: that this is a registry, and in whose place it stands, if the client says whom it
/// means ("Registry Proxying").
fn common(request: Option<&Request>) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    let namespace = request.and_then(Request::namespace);
    let namespace = namespace.and_then(|namespace| HeaderValue::from_str(namespace).ok());
    std::iter::once(API_VERSION).chain(namespace.map(|namespace| (NAMESPACE, namespace)))
}

/// What a registry has to say to people (distribution specification, "Warnings"). Other warnings are of caches, and
/// of the past (RFC 9111, section 5.5).
fn warning(reference: &Ref) -> Option<&str> {
    let text = reference.headers.get(WARNING.as_str()).map(String::as_str);
    text.filter(|text| text.starts_with("299 ") && text.len() <= WARNING_MAX_LEN)
}

/// The answer to "is this a registry?". Clients need no login here.
fn base() -> Reply {
    Reply {
        status: StatusCode::OK,
        headers: vec![API_VERSION, (CONTENT_TYPE, HeaderValue::from_static("application/json"))],
        body: Bytes::from_static(b"{}"),
    }
}

/// Reads a JSON object. Left to itself, serde takes an array for a struct too.
fn from_object<'d, T: serde::Deserialize<'d>>(document: &'d [u8]) -> Option<T> {
    let is_object = document.trim_ascii_start().starts_with(b"{");
    is_object.then(|| serde_json::from_slice(document).ok()).flatten()
}
