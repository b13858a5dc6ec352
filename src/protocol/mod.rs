//! Dialects: how each protocol's requests, documents and refusals are worded.
//!
//! A dialect is pure: no network, disk, clock or server framework. It turns a request head into a
//! [`Route`], and what the engine found back into headers, a body or a [`Refusal`]'s wording. What
//! the engine can do, every dialect can; a dialect that needs more asks for a field in
//! [`Resource`], never for a branch in the engine.

use std::io;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::{Map, Value};

use crate::model::{ArtifactType, Claim, Descriptor, ProxyId, ProxyTable, Ref, RefKey, RefRules, Resource};

pub mod debian;
mod gather;
pub mod generic;
pub mod oci;
pub mod openpgp;
mod refusal;
pub mod tf;

pub use gather::{Companion, Gathered, Gotten, Inquiry, Lookup, Need, Unrouted};
pub use refusal::{Part, Refusal};

/// Every dialect there is.
pub static ALL: &[&dyn Protocol] = &[&oci::Oci, &tf::Tf, &debian::Debian, &generic::Generic];

/// The part of a request that decides what is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Head<'r> {
    /// The method.
    pub method: &'r Method,
    /// The authority (`host` or `host:port`) of a target that is not this server's own: what a client
    /// sends that takes this server for its HTTP proxy. Only one that a proxy answers for gets here.
    pub authority: Option<&'r str>,
    /// The path as sent, still percent-encoded, begins with `/`.
    pub path: &'r str,
    /// The query as sent, without the `?`.
    pub query: Option<&'r str>,
    /// The headers.
    pub headers: &'r HeaderMap,
}

/// One protocol. Implementations are stateless.
pub trait Protocol: RefRules + std::fmt::Debug + 'static {
    /// The type whose proxies it speaks for.
    fn artifact_type(&self) -> ArtifactType;

    /// Whether a request is its own.
    fn owns(&self, head: &Head<'_>, proxies: &ProxyTable) -> bool;

    /// What a request asks for, judging by what has been `gathered` for it so far: nothing at first.
    ///
    /// # Errors
    /// [`Unrouted::Needs`] if something has to be known first: it is called again then, with that
    /// gathered. A refusal for a request that can be answered without asking for content.
    fn route(&self, head: &Head<'_>, proxies: &ProxyTable, gathered: &Gathered) -> Result<Route, Unrouted>;

    /// The media type of a document, by what is in it; `None` where `stated`, which upstream or a ref says, will do,
    /// and where the document does not tell.
    fn media_type(&self, _kind: &str, _stated: Option<&str>, _document: &[u8]) -> Option<&'static str> {
        None
    }

    /// What has to be fetched along with a new version of a document before that is shown; `old` is the
    /// version that is shown now. Companions have no companions of their own.
    ///
    /// # Errors
    /// [`Refusal::BadUpstream`] if the document is not what it should be: nothing is stored.
    fn companions(
        &self,
        _resource: &Resource,
        _old: Option<&[u8]>,
        _new: &[u8],
    ) -> Result<Vec<Companion>, Refusal> {
        Ok(Vec::new())
    }

    /// Judges a new version of a document before anything of it is stored, by what it must have been
    /// made of or signed by; `companions` holds those that were fetched for it whole. What was
    /// learned is written to the proxy's `meta` tree.
    ///
    /// # Errors
    /// A [`Refusal`] that says what is wrong: neither the document nor its companions are stored.
    fn vet(
        &self,
        _resource: &Resource,
        _document: &[u8],
        _companions: &Gathered,
    ) -> Result<Vec<Descriptor>, Refusal> {
        Ok(Vec::new())
    }

    /// Reads content for what an [`Inquiry`] asks, on a thread of its own: it may take its time, but not
    /// memory in proportion. What it finds is written down, nothing too, and not asked again.
    ///
    /// # Errors
    /// Those of reading `content`: it is asked again then.
    fn examine(&self, _inquiry: &Inquiry, _content: &mut dyn Content) -> io::Result<Map<String, Value>> {
        Ok(Map::new())
    }

    /// The key of what upstream has at a path, where the path alone decides it: what an answer names as
    /// changed is withdrawn by it.
    fn key_at(&self, _proxy: &ProxyId, _path: &str) -> Option<RefKey> {
        None
    }

    /// What another link of a document leads to, where `resource` is what one of its links leads to: as clients ask
    /// for both, one behind the other. `None` where they do not.
    fn sibling(&self, _resource: &Resource, _link: &Claim) -> Option<Resource> {
        None
    }

    /// Changes a document on its way out; what is stored stays what upstream sent. Called only for
    /// a [`Fetch`] with `rewrite` set.
    ///
    /// # Errors
    /// [`Refusal::BadUpstream`] if the document is not what it should be.
    fn rewrite(&self, head: &Head<'_>, reference: &Ref, document: &[u8]) -> Result<Document, Refusal>;

    /// Composes a document from what the engine gathered for a [`Derive`].
    ///
    /// # Errors
    /// A [`Refusal`] if the parts do not make a document.
    fn derive(&self, head: &Head<'_>, derive: &Derive, names: &[String]) -> Result<Document, Refusal>;

    /// Headers of this protocol on a successful answer, beside those that every answer has
    /// (`Content-Type`, `Content-Length`, `ETag`, `Accept-Ranges`, `Age`, `Cache-Status`). An `ETag`
    /// given here wins.
    fn headers(&self, head: &Head<'_>, fetch: &Fetch, reference: &Ref) -> Vec<(HeaderName, HeaderValue)>;

    /// How a refusal is worded: status, headers, body.
    fn refuse(&self, head: &Head<'_>, refusal: &Refusal) -> Reply;
}

/// Content that is read where it is stored.
pub trait Content: io::Read + io::Seek {}

impl<T: io::Read + io::Seek> Content for T {}

/// What a request asks for.
#[derive(Debug)]
pub enum Route {
    /// A resource, from the cache or through it.
    Fetch(Box<Fetch>),
    /// A resource from the cache alone, whatever its age, because where upstream has it cannot be
    /// learned now; its source is not looked at. `otherwise` is said if it is not cached.
    Held {
        /// What is wanted.
        fetch: Box<Fetch>,
        /// Why it cannot be fetched.
        otherwise: Refusal,
    },
    /// A request with another method than GET and HEAD that is handed on to upstream, body and all.
    Forward(Box<Resource>),
    /// A document that the engine's own records make.
    Derive(Derive),
    /// A document that the dialect made of what was gathered.
    Made(Document),
    /// An answer that needs nothing else.
    Local(Reply),
}

/// A resource and how it is shown.
#[derive(Debug, Clone)]
pub struct Fetch {
    /// What is wanted.
    pub resource: Resource,
    /// Whether the document is changed on its way out by [`Protocol::rewrite`].
    pub rewrite: bool,
}

/// A document made of what the cache knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Derive {
    /// The names of scopes that hold refs, in lexical order, those after `after`, at most `limit`.
    /// Over one proxy, or over all of the type: then a name has the proxy's in front, `hub/library/x`,
    /// but for those of the default proxy.
    Scopes {
        /// The proxy; all of the type if absent.
        proxy: Option<ProxyId>,
        /// Only names after this one.
        after: Option<String>,
        /// The most names to gather; the engine gathers one more if there is one, so that the
        /// dialect can see that the list goes on.
        limit: usize,
    },
}

/// A document made or changed by a dialect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its media type.
    pub media_type: &'static str,
    /// Further headers, such as `Link`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The bytes.
    pub body: Bytes,
}

/// A complete answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// All headers but `Content-Length`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Bytes,
}
