//! Dialects: how each protocol's requests, documents and refusals are worded.
//!
//! A dialect is pure: no network, disk, clock or server framework. It turns a request head into a
//! [`Route`], and what the engine found back into headers, a body or a [`Refusal`]'s wording. What
//! the engine can do, every dialect can; a dialect that needs more asks for a field in
//! [`Resource`], never for a branch in the engine.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::model::{ArtifactType, ProxyId, ProxyTable, Ref, RefRules, Resource};

pub mod oci;

/// Every dialect there is.
pub static ALL: &[&dyn Protocol] = &[&oci::Oci];

/// The part of a request that decides what is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Head<'r> {
    /// The method.
    pub method: &'r Method,
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

    /// Whether requests for this path are its own (the path as sent).
    fn owns(&self, path: &str) -> bool;

    /// What a request asks for.
    ///
    /// # Errors
    /// A [`Refusal`] for a request that can be answered without looking anything up.
    fn route(&self, head: &Head<'_>, proxies: &ProxyTable) -> Result<Route, Refusal>;

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

/// What a request asks for.
#[derive(Debug)]
pub enum Route {
    /// A resource, from the cache or through it.
    Fetch(Box<Fetch>),
    /// A document that the engine's own records make.
    Derive(Derive),
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

/// Why a request is not answered with content. Carries no I/O types, so that nothing internal can
/// reach a client by accident.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such path in the protocol.
    #[error("no such endpoint")]
    NoEndpoint,
    /// A name, tag, digest or parameter that the protocol's grammar forbids.
    #[error("{what} is not valid: {why}")]
    Invalid {
        /// Which part of the request.
        what: Part,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The request names a proxy or namespace that is not configured.
    #[error("no proxy is configured for this name")]
    NoProxy,
    /// The method is not one that a read-only cache answers.
    #[error("this is a read-only cache")]
    ReadOnly,
    /// Upstream says that there is no such thing.
    #[error("not found upstream")]
    NotFound,
    /// Upstream does not let us have it.
    #[error("upstream denied access")]
    Denied {
        /// Whether we asked without credentials; registries answer so for what does not exist.
        anonymous: bool,
    },
    /// Upstream limits us.
    #[error("upstream limits the rate of requests")]
    RateLimited {
        /// How long upstream asks to wait.
        retry_after: Option<Duration>,
    },
    /// Upstream cannot be asked now.
    #[error("upstream is unavailable")]
    Unavailable {
        /// When it may be worth to ask again.
        retry_after: Option<Duration>,
    },
    /// Upstream did not answer in time.
    #[error("upstream did not answer in time")]
    Timeout,
    /// Upstream's answer cannot be used: an error status, wrong bytes, not what it should be.
    #[error("upstream gave an answer that cannot be used: {0}")]
    BadUpstream(&'static str),
    /// The content is larger than is accepted.
    #[error("larger than the limit of {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The request has already passed through this server.
    #[error("the request has come back to this cache")]
    Loop,
    /// Something failed here; the log has the details.
    #[error("internal error")]
    Internal,
}

/// The part of a request that a [`Refusal::Invalid`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The path as a whole.
    Path,
    /// A repository or package name.
    Name,
    /// A tag or version.
    Reference,
    /// A digest.
    Digest,
    /// A query parameter.
    Query,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Path => "path",
            Self::Name => "name",
            Self::Reference => "reference",
            Self::Digest => "digest",
            Self::Query => "query",
        })
    }
}
