//! Debian archives, as apt and its like read them (Debian repository format,
//! <https://wiki.debian.org/DebianRepository/Format>).
//!
//! A request is taken apart (`request`), its path named for what it is (`item`) and made a resource
//! (`resource`) with the help of the `InRelease` that clients are given at present (`release`) or of
//! the `Packages` that are cached (`catalogue`). A new `InRelease` is judged, and accompanied by its
//! index files, in `trust`.
//!
//! Nothing here knows network, disk, clock or server. A client's query is never forwarded.

mod catalogue;
mod item;
mod release;
mod request;
mod resource;
#[cfg(test)]
mod tests;
mod trust;
mod unpack;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method};

use self::request::Request;
use self::resource::kind;
use super::{Companion, Derive, Document, Fetch, Gathered, Head, Protocol, Refusal, Reply, Route, Unrouted};
use crate::model::{ArtifactType, Claim, Descriptor, ProxyTable, Ref, RefPath, RefRules, Resource};

/// The dialect of Debian archives.
#[derive(Debug, Clone, Copy, Default)]
pub struct Debian;

impl RefRules for Debian {
    /// All of an archive is one scope: nothing in it grants anything.
    fn scope<'p>(&self, _: &'p RefPath) -> &'p str {
        ""
    }

    fn links(&self, _: &str, _: Option<&str>, _: &[u8]) -> Option<Vec<Claim>> {
        Some(Vec::new())
    }

    fn is_document(&self, _: &str) -> bool {
        false
    }

    fn catalogue_kinds(&self) -> &'static [&'static str] {
        &[kind::PACKAGES, kind::RELEASE]
    }

    fn catalogue_of<'p>(&self, path: &'p RefPath) -> &'p str {
        item::dir_above_by_hash(path.as_str()).unwrap_or(path.as_str())
    }

    /// A `Packages` names packages, a Release names indexes.
    fn catalogue(&self, path: &RefPath, document: &[u8], visit: &mut dyn FnMut(&str, Claim)) -> bool {
        match item::dir_above_by_hash(path.as_str()) {
            Some(dir) => catalogue::visit(document, &item::roots(dir), visit),
            None => trust::visit(path, document, visit),
        }
    }

    fn dated_kind(&self) -> Option<&'static str> {
        Some(kind::VERDICT)
    }

    fn catalogued_by(&self, kind: &str) -> Option<&'static str> {
        match kind {
            kind::PACKAGE => Some(kind::PACKAGES),
            kind::PACKAGES | kind::INDEX => Some(kind::RELEASE),
            _ => None,
        }
    }
}

impl Protocol for Debian {
    fn artifact_type(&self) -> ArtifactType {
        ArtifactType::Debian
    }

    fn owns(&self, head: &Head<'_>, proxies: &ProxyTable) -> bool {
        request::is_ours(head, proxies)
    }

    fn route(&self, head: &Head<'_>, proxies: &ProxyTable, gathered: &Gathered) -> Result<Route, Unrouted> {
        if !matches!(*head.method, Method::GET | Method::HEAD) {
            return Err(Refusal::ReadOnly.into());
        }
        resource::route(&Request::parse(head, proxies)?, gathered)
    }

    fn companions(
        &self,
        resource: &Resource,
        old: Option<&[u8]>,
        new: &[u8],
    ) -> Result<Vec<Companion>, Refusal> {
        if resource.kind == kind::RELEASE { trust::companions(resource, old, new) } else { Ok(Vec::new()) }
    }

    fn vet(
        &self,
        resource: &Resource,
        document: &[u8],
        companions: &Gathered,
    ) -> Result<Vec<Descriptor>, Refusal> {
        if resource.kind == kind::RELEASE {
            trust::vet(resource, document, companions)
        } else {
            Ok(Vec::new())
        }
    }

    /// No document of an archive is changed: most are signed.
    fn rewrite(&self, _: &Head<'_>, _: &Ref, _: &[u8]) -> Result<Document, Refusal> {
        Err(Refusal::Internal)
    }

    fn derive(&self, _: &Head<'_>, _: &Derive, _: &[String]) -> Result<Document, Refusal> {
        Err(Refusal::Internal)
    }

    fn headers(&self, _: &Head<'_>, _: &Fetch, _: &Ref) -> Vec<(HeaderName, HeaderValue)> {
        Vec::new()
    }

    /// apt shows the status line; the body is for people with curl.
    fn refuse(&self, _: &Head<'_>, refusal: &Refusal) -> Reply {
        let mut headers = vec![(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))];
        headers.extend(refusal.headers());
        Reply { status: refusal.status(), headers, body: Bytes::from(format!("{refusal}\n")) }
    }
}
