//! Why a request is not answered with content, and what every dialect says of that alike: the status
//! and the headers. The body's wording is each dialect's own.

use std::time::Duration;

use http::header::{ALLOW, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};

/// When to come back if upstream did not say. Clients that get no `Retry-After` try again at once or
/// wait for minutes.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(10);

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
    /// Upstream cannot be reached: no such name, no connection, no TLS.
    #[error("upstream cannot be reached")]
    Unreachable,
    /// Upstream did not answer in time.
    #[error("upstream did not answer in time")]
    Timeout,
    /// Upstream's answer cannot be used: an error status, wrong bytes, not what it should be.
    #[error("upstream gave an answer that cannot be used: {0}")]
    BadUpstream(&'static str),
    /// What upstream sent does not prove that it comes from whom it should; nothing of it is kept.
    #[error("upstream sent what cannot be trusted: {why}")]
    Untrusted {
        /// What is wrong, in words that name the key.
        why: String,
    },
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

impl Refusal {
    /// The status.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::NoEndpoint | Self::NoProxy | Self::NotFound => StatusCode::NOT_FOUND,
            Self::Invalid { .. } => StatusCode::BAD_REQUEST,
            Self::ReadOnly => StatusCode::METHOD_NOT_ALLOWED,
            Self::Denied { .. } => StatusCode::FORBIDDEN,
            Self::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            // Not 413: it is upstream's answer that is too large, not the client's request.
            Self::Unreachable | Self::BadUpstream(_) | Self::Untrusted { .. } | Self::TooLarge { .. } => {
                StatusCode::BAD_GATEWAY
            }
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The headers that belong to the status: `Allow`, `Retry-After`.
    pub fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        match self {
            Self::ReadOnly => vec![(ALLOW, HeaderValue::from_static("GET, HEAD"))],
            Self::RateLimited { retry_after } | Self::Unavailable { retry_after } => {
                let wait = retry_after.unwrap_or(RETRY_AFTER_DEFAULT);
                // Whole seconds, rounded up: never early, never 0, which means at once.
                let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1);
                vec![(RETRY_AFTER, HeaderValue::from(seconds))]
            }
            _ => Vec::new(),
        }
    }
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
    /// The body.
    Body,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Path => "path",
            Self::Name => "name",
            Self::Reference => "reference",
            Self::Digest => "digest",
            Self::Query => "query",
            Self::Body => "body",
        })
    }
}
