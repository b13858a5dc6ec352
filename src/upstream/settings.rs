//! What an upstream is told by the configuration. Plain values, checked by [`Upstream::new`](super::Upstream::new).

use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use url::Url;

use super::Secret;

/// Everything that one proxy's upstream needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The proxy's name: the `proxy` label of its metrics.
    pub proxy: String,
    /// Where upstream is: `http` or `https`, without user, query or fragment. Tried in order; at
    /// least one.
    pub bases: Vec<Url>,
    /// Who we are there.
    pub credentials: Credentials,
    /// Hosts beside the bases' own that redirects, token realms and documents may lead to whatever
    /// their address, and whose token realms may see our credentials: `host` or `host:port`.
    pub allowed_hosts: Vec<String>,
    /// PEM files with certificate authorities to trust beside the system's.
    pub ca_files: Vec<PathBuf>,
    /// This process's name in `Via`; see [`via`](super::via).
    pub instance: String,
    /// Times and counts.
    pub limits: Limits,
}

/// Who we are at an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Credentials {
    /// Nobody.
    #[default]
    None,
    /// User and password: sent as HTTP Basic where upstream asks for that, or to its token service.
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: SecretSource,
    },
    /// A token that is sent as it is with every request.
    Bearer(SecretSource),
    /// A header of upstream's own making (`X-JFrog-Art-Api`, `PRIVATE-TOKEN`), sent with every request.
    Header {
        /// Its name.
        name: HeaderName,
        /// Its value.
        value: SecretSource,
    },
    /// A Docker `config.json` or containers `auth.json`, with credential helpers.
    Docker {
        /// The file.
        path: PathBuf,
    },
}

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// It is here.
    Value(Secret),
    /// The content of a file without the line end, read at start and on every reload.
    File(PathBuf),
}

impl From<&str> for SecretSource {
    fn from(text: &str) -> Self {
        Self::Value(text.into())
    }
}

/// Times and counts. The defaults suit public registries.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// The longest name resolution.
    pub dns: Duration,
    /// The longest connect, name resolution and TLS included.
    pub connect: Duration,
    /// The longest wait for an answer's headers.
    pub first_byte: Duration,
    /// The longest wait for the next bytes of a body.
    pub idle: Duration,
    /// The fewest bytes a second of a body, measured over [`rate_window`](Self::rate_window).
    pub min_rate: u64,
    /// Over how long the rate is measured.
    pub rate_window: Duration,
    /// The longest time until headers, over all tries, unless an [`Ask`](super::Ask) says otherwise.
    pub deadline: Duration,
    /// The most tries of a request.
    pub tries: u32,
    /// The wait before the second try; it doubles, and varies by half.
    pub backoff: Duration,
    /// How many retries there may be for each first try, over time.
    pub retry_share: f64,
    /// The most redirects of a request.
    pub redirects: u32,
    /// The most requests to one host at a time, bodies included.
    pub in_flight: usize,
    /// The longest wait to be one of them, of an [`Ask`](super::Ask) without a deadline of its own: bodies of
    /// others may take long. It is no part of [`deadline`](Self::deadline).
    pub queue: Duration,
    /// How long upstream is left alone after a 429 without `Retry-After`.
    pub pause: Duration,
    /// The longest that upstream is left alone after a 429.
    pub max_pause: Duration,
    /// When an upstream counts as down.
    pub breaker: BreakerLimits,
    /// How long before its end a token is no longer used.
    pub token_margin: Duration,
    /// The longest run of a credential helper.
    pub helper: Duration,
    /// How long a credential helper's answer holds.
    pub helper_ttl: Duration,
}

/// When an upstream counts as down, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerLimits {
    /// This many failures in a row.
    pub in_row: u32,
    /// Or this share of failures …
    pub share: f64,
    /// … among at least this many requests …
    pub at_least: u32,
    /// … within this time.
    pub window: Duration,
    /// How long it is left alone at first; doubles with each probe that fails.
    pub open: Duration,
    /// The longest that it is left alone.
    pub max_open: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            dns: seconds(5),
            connect: seconds(10),
            first_byte: seconds(30),
            idle: seconds(30),
            min_rate: 1024,
            rate_window: seconds(60),
            deadline: seconds(60),
            tries: 3,
            backoff: Duration::from_millis(250),
            retry_share: 0.2,
            redirects: 5,
            // Each may have more than a megabyte in memory on its way to disk and clients.
            in_flight: 40,
            queue: seconds(600),
            pause: seconds(10),
            max_pause: seconds(600),
            breaker: BreakerLimits::default(),
            token_margin: seconds(30),
            helper: seconds(10),
            helper_ttl: seconds(300),
        }
    }
}

impl Default for BreakerLimits {
    fn default() -> Self {
        Self {
            in_row: 5,
            share: 0.5,
            at_least: 20,
            window: Duration::from_secs(10),
            open: Duration::from_secs(10),
            max_open: Duration::from_secs(120),
        }
    }
}
