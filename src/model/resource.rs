//! The resource: one thing that a client may ask for, said in words the engine understands.
//!
//! A dialect's whole knowledge about an object ends up in these fields; the engine branches on them
//! and on nothing else.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;

use super::http_cache::RequestDirectives;
use super::{Checksum, Digest, RefKey};

/// One thing a client may ask for: where it is kept, where it comes from, how long it holds, and
/// how to know that it arrived whole.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a property, and any may stand beside any other")]
pub struct Resource {
    /// Where its ref is kept. Two requests with the same key are the same thing.
    pub key: RefKey,
    /// The ref's `kind`.
    pub kind: &'static str,
    /// Where upstream has it.
    pub source: Source,
    /// Where else upstream may have it, if it is not there. Only for content with `expect`, which tells
    /// whether it is the same.
    pub fallback: Option<Source>,
    /// The ref of what upstream has in place of this, if it has not got this. Where that is cached and
    /// upstream cannot be asked, this is taken to be missing there.
    pub alternative: Option<RefKey>,
    /// How long an answer holds.
    pub freshness: Freshness,
    /// What its bytes must hash to, if the name or another document says so.
    pub expect: Option<Checksum>,
    /// Its size, if another document says so.
    pub size: Option<u64>,
    /// The upstream response header that states the content's digest (lower case), if the protocol
    /// has one. Its claim is checked; and where it exists, revalidation is a HEAD.
    pub digest_header: Option<&'static str>,
    /// Whether another ref of the same scope that targets or links `expect` also grants it.
    pub linked: bool,
    /// Whether clients may see it before it is complete.
    pub delivery: Delivery,
    /// The `Accept` header to send upstream; never the client's own.
    pub accept: Option<&'static str>,
    /// Where its media type comes from.
    pub media_type: MediaType,
    /// Whether upstream may answer that there is no content (204), because `keep_headers` say all.
    pub headers_only: bool,
    /// Upstream response headers worth keeping in the ref (lower case).
    pub keep_headers: &'static [&'static str],
    /// The authorisation scope to ask a token service for when its challenge names none.
    pub token_scope: Option<String>,
    /// Whether upstream's answer is passed on as it is: all its end-to-end header fields are kept, and
    /// content codings are taken as they come.
    pub transparent: bool,
    /// Whether redirects of upstream's are answers, instead of being followed. Only where answers of any
    /// status are content ([`Freshness::Upstream`]).
    pub keep_redirects: bool,
    /// What of the client's request counts.
    pub asked: Asked,
    /// What the dialect has to know again when it judges the content, such as the keys that must have
    /// signed it. The engine hands it back unread.
    pub context: Bytes,
}

impl Resource {
    /// A resource of which only the necessary is said: a document or content without a checksum, of
    /// upstream's media type.
    pub fn new(
        key: RefKey,
        kind: &'static str,
        source: Source,
        freshness: Freshness,
        delivery: Delivery,
    ) -> Self {
        Self {
            key,
            kind,
            source,
            fallback: None,
            alternative: None,
            freshness,
            expect: None,
            size: None,
            digest_header: None,
            linked: false,
            delivery,
            accept: None,
            media_type: MediaType::Upstream,
            headers_only: false,
            keep_headers: &[],
            token_scope: None,
            transparent: false,
            keep_redirects: false,
            asked: Asked::default(),
            context: Bytes::new(),
        }
    }
}

impl Resource {
    /// Whether its name says that it is the content of this digest.
    pub fn is_named(&self, digest: &Digest) -> bool {
        self.expect.as_ref().and_then(Checksum::digest).as_ref() == Some(digest)
    }

    /// What the client allows, as far as that counts.
    pub fn directives(&self) -> RequestDirectives {
        self.asked.heed.of(self.asked.directives)
    }
}

/// What of a client's request counts beside its address. The dialect decides: by default nothing does.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Asked {
    /// Header fields that go along to upstream, but not to where that redirects.
    pub headers: HeaderMap,
    /// What the client says of caching; see [`Resource::directives`].
    pub directives: RequestDirectives,
    /// How much of that counts.
    pub heed: Heed,
}

/// How much of what clients say of caching counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Heed {
    /// Nothing.
    #[default]
    Nothing,
    /// `no-cache` alone: a user's demand that upstream be asked. `max-age=0`, which some clients say each
    /// time, is none.
    NoCache,
    /// All of it.
    Everything,
}

impl Heed {
    /// What counts of what a client says.
    pub fn of(self, directives: RequestDirectives) -> RequestDirectives {
        match self {
            Self::Nothing => RequestDirectives::default(),
            Self::NoCache => {
                RequestDirectives { no_cache: directives.no_cache, ..RequestDirectives::default() }
            }
            Self::Everything => directives,
        }
    }
}

/// Where upstream has a resource.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// At this path and query below the proxy's upstream URL; begins with `/`.
    Path(String),
    /// At this absolute URL, which a document of upstream's gave. Credentials go along only to
    /// upstream's own origin.
    Url(String),
}

/// How long an answer holds before upstream is asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// For ever: the name fixes the content.
    Immutable,
    /// This long; then upstream is asked, and what is there is used only if upstream cannot answer.
    For(Duration),
    /// As long as the answer says, by HTTP's own rules ([`super::http_cache`]). Answers of any status are
    /// content then; what those rules do not let a shared cache store goes to the client alone.
    Upstream(Leave),
}

/// What the operator decides where HTTP's own rules leave it to them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Leave {
    /// How far past its time an answer may be used when upstream errs, though nobody else allows it; zero
    /// for not at all.
    pub stale_if_error: Duration,
}

impl Freshness {
    /// The ref's `ttlSeconds`, as far as it does not depend on the answer.
    pub const fn ttl_seconds(self) -> Option<u64> {
        match self {
            Self::Immutable => None,
            Self::For(ttl) => Some(ttl.as_secs()),
            Self::Upstream(_) => Some(0),
        }
    }

    /// Whether answers of any status are content.
    pub const fn is_upstreams(self) -> bool {
        matches!(self, Self::Upstream(_))
    }
}

/// Whether clients may see a resource before it is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// A document: answered when it has been checked and read for links. Larger than `limit` bytes
    /// is refused, and if it is cached, as good as not cached.
    Whole {
        /// The most bytes that are accepted.
        limit: u64,
    },
    /// Content: answered from the first byte on.
    Streamed,
}

impl Delivery {
    /// The most bytes that are accepted, if there is a bound.
    pub const fn limit(self) -> Option<u64> {
        match self {
            Self::Whole { limit } => Some(limit),
            Self::Streamed => None,
        }
    }

    /// Whether content of this size is more than is accepted.
    pub fn is_exceeded_by(self, size: u64) -> bool {
        self.limit().is_some_and(|limit| size > limit)
    }
}

/// Where a resource's media type comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaType {
    /// Upstream's `Content-Type`, without parameters.
    Upstream,
    /// Always this.
    Fixed(&'static str),
}
