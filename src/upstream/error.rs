//! Why upstream did not give an answer, or cannot be set up.
//!
//! No variant ever holds a secret, a query, or what upstream wrote: texts are made here of our own
//! words, hosts and numbers.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// A failed request, in the few kinds that callers branch on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// 404 or 410.
    #[error("not found upstream")]
    NotFound,
    /// 401 or 403 after tokens were renewed once.
    #[error("upstream denied access with status {status}")]
    Denied {
        /// The status.
        status: u16,
        /// Whether no credentials were configured.
        anonymous: bool,
    },
    /// 429, or the pause after one is in force.
    #[error("upstream limits the rate of requests")]
    RateLimited {
        /// What `Retry-After` said, or what is left of the pause.
        retry_after: Option<Duration>,
        /// Whether upstream was asked.
        asked: bool,
    },
    /// The breaker is open: upstream was not asked.
    #[error("upstream is not asked for now after repeated failures")]
    Open {
        /// When it will be asked again.
        retry_after: Duration,
    },
    /// No answer in time: connect, first byte, or idle.
    #[error("upstream did not answer in time ({0})")]
    Timeout(&'static str),
    /// A body that trickles: too few bytes over a minute.
    #[error("upstream sends too slowly")]
    TooSlow,
    /// No connection: DNS, TCP or TLS; or a credential helper that failed.
    #[error("upstream cannot be reached: {0}")]
    Unreachable(String),
    /// An address, redirect or realm that the trust rules forbid.
    #[error("upstream led to `{0}`, which is not allowed")]
    Forbidden(String),
    /// Any other status.
    #[error("upstream answered with status {0}")]
    Status(u16),
    /// 416 on a resumed transfer, or another part or another version than was asked for.
    #[error("upstream cannot resume the transfer")]
    NotResumable,
    /// The body ended early or broke.
    #[error("the transfer from upstream broke: {0}")]
    Broken(String),
    /// An answer that makes no sense: bad redirect, bad token document, encoded though identity was asked.
    #[error("upstream gave an answer that cannot be used: {0}")]
    Senseless(String),
}

impl UpstreamError {
    /// A short name of the kind, for metrics and `Cache-Status`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::Denied { .. } => "denied",
            Self::RateLimited { .. } => "rate-limited",
            Self::Open { .. } => "open",
            Self::Timeout(_) | Self::TooSlow => "timeout",
            Self::Unreachable(_) => "unreachable",
            Self::Forbidden(_) => "forbidden",
            Self::Status(_) => "status",
            Self::NotResumable => "not-resumable",
            Self::Broken(_) => "broken",
            Self::Senseless(_) => "senseless",
        }
    }

    /// Whether upstream is in trouble, as opposed to an answer that it stands by. Such errors are
    /// tried again and counted by the breaker.
    pub(super) const fn is_trouble(&self) -> bool {
        matches!(
            self,
            Self::Timeout(_) | Self::TooSlow | Self::Unreachable(_) | Self::Status(500 | 502 | 503 | 504)
        )
    }
}

/// Why an upstream cannot be set up, or its files cannot be read again.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// No base URL, or one that is not plain `http` or `https`.
    #[error("an upstream needs base URLs with `http` or `https` and without user, query or fragment")]
    Base,
    /// An allowed host that is none.
    #[error("`{0}` is not a host or `host:port`")]
    AllowedHost(String),
    /// The instance's name cannot be part of `Via`.
    #[error("the instance's name must be letters, digits and `-`")]
    Instance,
    /// A file could not be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A certificate file without certificates.
    #[error("`{path}` holds no certificates in PEM form")]
    Certificates {
        /// The file.
        path: PathBuf,
    },
    /// A secret's file is empty.
    #[error("`{path}` should hold a secret and is empty")]
    EmptySecret {
        /// The file.
        path: PathBuf,
    },
    /// A file that is not a Docker `config.json`.
    #[error("`{path}` is not a Docker `config.json` that can be used")]
    DockerConfig {
        /// The file.
        path: PathBuf,
    },
    /// The TLS library refused its configuration.
    #[error("TLS cannot be set up")]
    Tls,
}
