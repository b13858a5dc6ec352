//! The two HTTP clients: one for hosts that the configuration names, one that connects to public
//! addresses only. Redirects, retries, tokens and decompression are not theirs.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::settings::{Limits, Settings};
use super::trust::{Door, is_public};
use super::{SetupError, crypto};

/// What we call ourselves.
const USER_AGENT: &str = concat!("repoxy/", env!("CARGO_PKG_VERSION"));

/// How long an idle connection is kept.
const POOL_IDLE: Duration = Duration::from_secs(75);

/// The most header fields of an answer.
const MAX_HEADERS: usize = 128;

/// The most bytes of header fields of an HTTP/2 answer; of HTTP/1 it is hyper's read buffer.
const MAX_HEADER_BYTES: u32 = 64 * 1024;

/// The two clients of one upstream. Each has connections of its own.
#[derive(Debug)]
pub(super) struct Clients {
    trusted: reqwest::Client,
    guarded: reqwest::Client,
}

impl Clients {
    /// Builds both; reads the certificate files.
    pub(super) fn new(settings: &Settings) -> Result<Self, SetupError> {
        crypto::provider();
        let mut authorities = Vec::new();
        for path in &settings.ca_files {
            authorities.extend(read_authorities(path)?);
        }
        Ok(Self {
            trusted: client(&settings.limits, Door::Trusted, &authorities)?,
            guarded: client(&settings.limits, Door::Guarded, &authorities)?,
        })
    }

    /// The client for a door.
    pub(super) fn of(&self, door: Door) -> &reqwest::Client {
        match door {
            Door::Trusted => &self.trusted,
            Door::Guarded => &self.guarded,
        }
    }
}

fn read_authorities(path: &Path) -> Result<Vec<reqwest::Certificate>, SetupError> {
    let pem = std::fs::read(path).map_err(|source| SetupError::Read { path: path.to_owned(), source })?;
    let bad = || SetupError::Certificates { path: path.to_owned() };
    let authorities = reqwest::Certificate::from_pem_bundle(&pem).map_err(|_| bad())?;
    if authorities.is_empty() { Err(bad()) } else { Ok(authorities) }
}

fn client(
    limits: &Limits,
    door: Door,
    authorities: &[reqwest::Certificate],
) -> Result<reqwest::Client, SetupError> {
    let builder = || {
        reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .default_headers(HeaderMap::from_iter([(
                header::ACCEPT_ENCODING,
                HeaderValue::from_static("identity"),
            )]))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .connect_timeout(limits.connect)
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(limits.in_flight)
            .http1_max_headers(MAX_HEADERS)
            .http2_max_header_list_size(MAX_HEADER_BYTES)
            .tcp_nodelay(true)
            .dns_resolver(Resolver { door, timeout: limits.dns })
    };
    let with_system = builder().tls_certs_merge(authorities.to_vec()).build();
    with_system.or_else(|_| {
        // A machine without certificates of its own can still serve what needs none.
        tracing::warn!("no certificate authorities of the system; only configured ones are trusted");
        builder().tls_certs_only(authorities.to_vec()).build().map_err(|_| SetupError::Tls)
    })
}

/// Resolves names in bounded time, and for guarded connections drops every address that is not
/// public. What it returns is what is connected to: there is no gap between check and use.
#[derive(Debug)]
struct Resolver {
    door: Door,
    timeout: Duration,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (door, timeout) = (self.door, self.timeout);
        Box::pin(async move {
            let lookup = tokio::net::lookup_host((name.as_str(), 0));
            let found = tokio::time::timeout(timeout, lookup).await.map_err(|_| Unresolved::Timeout)??;
            let addresses = admit(door, found.map(|address| address.ip())).ok_or(Unresolved::NotPublic)?;
            let addresses = addresses.into_iter().map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(addresses.collect::<Vec<_>>().into_iter()) as Addrs)
        })
    }
}

/// The addresses that may be connected to; `None` if there were some and none of them may.
fn admit(door: Door, found: impl Iterator<Item = IpAddr>) -> Option<Vec<IpAddr>> {
    let (good, bad): (Vec<_>, Vec<_>) =
        found.partition(|&address| door == Door::Trusted || is_public(address));
    (!good.is_empty() || bad.is_empty()).then_some(good)
}

/// Why a name gave no address, where that matters to the caller. Found again in the chain of causes
/// of the client's error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unresolved {
    /// No answer in time.
    Timeout,
    /// Addresses, but none that is allowed.
    NotPublic,
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timeout => "name resolution timed out",
            Self::NotPublic => "the name has no public address",
        })
    }
}

impl std::error::Error for Unresolved {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guarded_name_keeps_only_its_public_addresses() {
        let found =
            || ["10.0.0.1", "8.8.8.8", "::1"].into_iter().map(|text| text.parse().expect("an address"));
        assert_eq!(admit(Door::Guarded, found()), Some(vec!["8.8.8.8".parse().expect("an address")]));
        assert_eq!(admit(Door::Guarded, found().take(1)), None);
        assert_eq!(admit(Door::Trusted, found()).map(|all| all.len()), Some(3));
        assert_eq!(admit(Door::Guarded, std::iter::empty()), Some(vec![]));
    }
}
