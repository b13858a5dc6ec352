//! From a request head to a proxy and a path in its archive.
//!
//! An archive is reached in three ways: below `/debian/<proxy>/`; through us as an HTTP proxy, by the
//! archive's own URL; and as `HTTPS///<host>/…`, which is how apt says "https" to an HTTP proxy that it
//! trusts (the convention of apt-cacher-ng). What comes out holds no `..`, no `.`, no empty segment, no
//! control character and nothing that is still percent-encoded, so that `pp%2b%2b_2%7e3` and `pp++_2~3`
//! are the same.

use percent_encoding::percent_decode_str;

use crate::model::http_cache::RequestDirectives;
use crate::model::{ArtifactType, ProxyFacts, ProxyTable};
use crate::protocol::{Head, Part, Refusal};

/// The longest path as sent, in bytes.
const PATH_MAX_LEN: usize = 4096;
/// What stands for the scheme of an upstream that is asked over TLS.
const HTTPS: &str = "HTTPS";

/// A file of an archive.
#[derive(Debug)]
pub(super) struct Request<'t> {
    /// The proxy that has the archive.
    pub(super) proxy: &'t ProxyFacts,
    /// The file's path in it: segments between single slashes.
    pub(super) path: String,
    /// What the client says of caching.
    pub(super) directives: RequestDirectives,
}

/// How a request says which archive it means.
#[derive(Debug, PartialEq, Eq)]
enum Address<'r> {
    /// By the name of a proxy; the rest begins with `/` or is empty.
    Proxy(&'r str, &'r str),
    /// By the archive's host, and port if that is not the scheme's own.
    Host(&'r str, &'r str),
}

/// Whether a request is one of this dialect.
pub(super) fn is_ours(head: &Head<'_>, proxies: &ProxyTable) -> bool {
    match address(head) {
        Some(Address::Host(host, _)) if head.authority.is_some() => {
            archives(proxies).any(|(_, archive)| host_of(archive).eq_ignore_ascii_case(host))
        }
        address => address.is_some(),
    }
}

impl<'t> Request<'t> {
    /// Reads a request.
    ///
    /// # Errors
    /// [`Refusal::NoProxy`] if no proxy has the archive: what is not configured is never asked.
    /// [`Refusal::Invalid`] for a path that is none, [`Refusal::NoEndpoint`] for a directory.
    pub(super) fn parse(head: &Head<'_>, proxies: &'t ProxyTable) -> Result<Self, Refusal> {
        let (proxy, path) = match address(head).ok_or(Refusal::NoEndpoint)? {
            Address::Proxy(name, rest) => {
                let proxy = proxies.named(ArtifactType::Debian, name).ok_or(Refusal::NoProxy)?;
                (proxy, decode(rest)?)
            }
            Address::Host(host, rest) => {
                let path = decode(rest)?;
                let (proxy, below) = serving(proxies, host, &path).ok_or(Refusal::NoProxy)?;
                let below = below.to_owned();
                (proxy, below)
            }
        };
        if path.is_empty() {
            return Err(Refusal::NoEndpoint);
        }
        Ok(Self { proxy, path, directives: RequestDirectives::of(head.headers) })
    }
}

fn address<'r>(head: &Head<'r>) -> Option<Address<'r>> {
    let first = |text: &'r str| text.split_at(text.find('/').unwrap_or(text.len()));
    let over_tls = |rest: &'r str| {
        let (host, path) = first(rest.trim_start_matches('/'));
        Address::Host(host.strip_suffix(":443").unwrap_or(host), path)
    };
    match head.authority {
        Some(authority) if authority.eq_ignore_ascii_case(HTTPS) => Some(over_tls(head.path)),
        Some(authority) => Some(Address::Host(authority.strip_suffix(":80").unwrap_or(authority), head.path)),
        None => {
            let below = head.path.strip_prefix('/')?;
            let (name, rest) = match first(below) {
                (HTTPS, rest) => return Some(over_tls(rest)),
                ("debian", rest) => first(rest.strip_prefix('/').unwrap_or_default()),
                _ => return None,
            };
            Some(if name == HTTPS { over_tls(rest) } else { Address::Proxy(name, rest) })
        }
    }
}

/// Every archive that a proxy answers for: `<host>[:<port>][/<path>]`.
fn archives(proxies: &ProxyTable) -> impl Iterator<Item = (&ProxyFacts, &str)> {
    proxies
        .iter()
        .filter(|proxy| proxy.id.artifact_type == ArtifactType::Debian)
        .flat_map(|proxy| proxy.namespaces.iter().map(move |archive| (proxy, archive.as_str())))
}

fn host_of(archive: &str) -> &str {
    archive.split('/').next().unwrap_or_default()
}

/// The proxy that answers for a URL, and what is left of the path below its archive. Of archives that
/// lie within each other the innermost is meant.
fn serving<'t, 'p>(proxies: &'t ProxyTable, host: &str, path: &'p str) -> Option<(&'t ProxyFacts, &'p str)> {
    archives(proxies)
        .filter(|(_, archive)| host_of(archive).eq_ignore_ascii_case(host))
        .filter_map(|(proxy, archive)| {
            let root = archive.split_once('/').map_or("", |(_, root)| root);
            let below = if root.is_empty() { path } else { path.strip_prefix(root)?.strip_prefix('/')? };
            Some((proxy, below))
        })
        .min_by_key(|(_, below)| below.len())
}

/// Takes the percent-encoding from a path, once, and `.` segments, which clients of flat repositories
/// send (`deb URL ./`).
fn decode(path: &str) -> Result<String, Refusal> {
    let invalid = |why| Refusal::Invalid { what: Part::Path, why };
    if path.len() > PATH_MAX_LEN {
        return Err(invalid("it is too long"));
    }
    let path = percent_decode_str(path).decode_utf8().map_err(|_| invalid("it is not UTF-8"))?;
    if path.contains(|c: char| c.is_control() || c == '\\') {
        return Err(invalid("it holds a control character or a backslash"));
    }
    let path = path.strip_prefix('/').unwrap_or(&path);
    if path.is_empty() || path.ends_with('/') {
        return Err(Refusal::NoEndpoint);
    }
    if path.split('/').any(|segment| matches!(segment, "" | "..")) {
        return Err(invalid("it has an empty or `..` segment"));
    }
    Ok(path.split('/').filter(|segment| *segment != ".").collect::<Vec<_>>().join("/"))
}
