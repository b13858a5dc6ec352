//! Which addresses may be asked, and who may see our credentials (design, section 7). Pure.
//!
//! * A host of a configured base URL, or one that the configuration lists, is **trusted**: it may
//!   have any address.
//! * Every other host is **guarded**: it is connected to only at public addresses, checked when the
//!   connection is made, so that a name which changes its address between check and connect gains
//!   nothing. Literal addresses are checked here; the URL parser has by then read decimal, octal
//!   and hexadecimal forms.
//! * One address stands for many services: if a base's host is a literal address or `localhost`,
//!   only its own port is trusted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::uri::Authority;
use url::{Host, Url};

/// Where a request may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// Any address.
    Trusted,
    /// Public addresses only.
    Guarded,
}

/// The rules of one upstream.
#[derive(Debug)]
pub(super) struct Trust {
    bases: Vec<Url>,
    allowed: Vec<(String, Option<u16>)>,
}

impl Trust {
    /// # Errors
    /// The entry of `allowed` that is neither `host` nor `host:port`.
    pub(super) fn new(bases: &[Url], allowed: &[String]) -> Result<Self, String> {
        let parse = |entry: &String| {
            let authority: Authority = entry.parse().ok()?;
            let (host, port) = (authority.host(), authority.port_u16());
            let rest = entry.strip_prefix(host).filter(|_| !host.is_empty())?;
            (rest.is_empty() || port.is_some()).then(|| (host.to_ascii_lowercase(), port))
        };
        let allowed = allowed
            .iter()
            .map(|entry| parse(entry).ok_or_else(|| entry.clone()))
            .collect::<Result<_, _>>()?;
        Ok(Self { bases: bases.to_vec(), allowed })
    }

    /// The door to a URL.
    ///
    /// # Errors
    /// What to call the URL in an error, if it may not be asked at all.
    pub(super) fn door(&self, url: &Url) -> Result<Door, String> {
        let (Some(host), true) = (url.host(), matches!(url.scheme(), "http" | "https")) else {
            return Err(shown(url));
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(shown(url));
        }
        if self.is_listed(url) || self.bases.iter().any(|base| is_same_place(base, url)) {
            return Ok(Door::Trusted);
        }
        match host {
            Host::Domain(_) => Ok(Door::Guarded),
            Host::Ipv4(address) if is_public(address.into()) => Ok(Door::Guarded),
            Host::Ipv6(address) if is_public(address.into()) => Ok(Door::Guarded),
            Host::Ipv4(_) | Host::Ipv6(_) => Err(shown(url)),
        }
    }

    /// Whether a token realm may see the credentials that we have for `base`: it is the base's own
    /// place, one that is listed, or a host of the same registrable domain by the public suffix
    /// list (`auth.docker.io` for `registry-1.docker.io`; never two customers of a hoster
    /// that is in the list).
    ///
    /// # Errors
    /// What to call the realm in an error, if it may not be asked at all: it is neither https nor of
    /// the base's scheme, or has no door.
    pub(super) fn realm_sees_credentials(&self, base: &Url, realm: &Url) -> Result<bool, String> {
        self.door(realm)?;
        if realm.scheme() != "https" && realm.scheme() != base.scheme() {
            return Err(shown(realm));
        }
        Ok(self.is_listed(realm) || is_same_place(base, realm) || is_same_registrable_domain(base, realm))
    }

    fn is_listed(&self, url: &Url) -> bool {
        self.allowed.iter().any(|(host, port)| {
            url.host_str().is_some_and(|known| known == host)
                && port.is_none_or(|port| url.port_or_known_default() == Some(port))
        })
    }
}

fn is_same_place(base: &Url, url: &Url) -> bool {
    let stands_for_many = match base.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        _ => true,
    };
    base.host() == url.host()
        && (!stands_for_many || base.port_or_known_default() == url.port_or_known_default())
}

fn is_same_registrable_domain(one: &Url, other: &Url) -> bool {
    let domain = |url: &Url| psl::domain_str(url.domain()?).map(str::to_owned);
    domain(one).is_some_and(|one| Some(one) == domain(other))
}

/// How a URL is called in errors and logs: its origin only. Paths and queries may be signed.
pub(super) fn shown(url: &Url) -> String {
    let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
    format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
}

/// Whether an address is one of the public internet, by the special-purpose registries (RFC 6890
/// and its successors). IPv6 forms that carry an IPv4 address are refused, but for NAT64 and 6to4
/// of a public one.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, _, _)        // "this network", private, loopback, multicast, reserved
            | (100, 64..=127, _)                // carrier-grade NAT
            | (169, 254, _)                     // link-local
            | (172, 16..=31, _)                 // private
            | (192, 168, _)                     // private
            | (192, 0, 0 | 2)                   // protocol assignments, documentation
            | (192, 88, 99)                     // 6to4 relays
            | (198, 18..=19, _)                 // benchmarks
            | (198, 51, 100) | (203, 0, 113) // documentation
    )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let embedded = |at: usize| {
        let [a, b] = segments[at].to_be_bytes();
        let [c, d] = segments[at + 1].to_be_bytes();
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => embedded(6), // NAT64
        [0x2002, ..] => embedded(1),                   // 6to4
        // Protocol assignments and Teredo; documentation, twice.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000, // global unicast; all else is special
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().expect("a URL")
    }

    fn trust(base: &str, allowed: &[&str]) -> Trust {
        let allowed: Vec<_> = allowed.iter().map(|&host| host.to_owned()).collect();
        Trust::new(&[url(base)], &allowed).expect("valid")
    }

    #[test]
    fn only_addresses_of_the_public_internet_are_public() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::8.8.8.8",
            "64:ff9b::127.0.0.1",
            "64:ff9b:1::8.8.8.8",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:c0a8:101::1",
            "3fff::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(address.parse().expect("an address")), "{address}");
        }
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1",
            "2a00::1",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
        ] {
            assert!(is_public(address.parse().expect("an address")), "{address}");
        }
    }

    #[test]
    fn inner_addresses_are_refused_however_they_are_written() {
        let trust = trust("https://registry.example.org", &[]);
        for bad in [
            "http://169.254.169.254/latest",
            "http://127.0.0.1:6379/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://0.0.0.0/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "file:///etc/passwd",
            "ftp://example.org/",
            "https://user@example.org/",
            "https://u:p@example.org/",
            "data:text/plain,x",
        ] {
            assert!(trust.door(&url(bad)).is_err(), "{bad}");
        }
        assert_eq!(trust.door(&url("https://cdn.example.net/x")), Ok(Door::Guarded));
        assert_eq!(trust.door(&url("https://8.8.8.8/x")), Ok(Door::Guarded));
    }

    #[test]
    fn what_the_configuration_names_is_trusted_whatever_its_address() {
        let named = trust("http://registry.corp:5000/prefix", &["minio.corp", "10.0.0.7:9000", "[::1]:80"]);
        for good in [
            "http://registry.corp:5000/x",
            "https://registry.corp/x",
            "http://minio.corp:9000/x",
            "http://10.0.0.7:9000/x",
            "http://[::1]/x",
        ] {
            assert_eq!(named.door(&url(good)), Ok(Door::Trusted), "{good}");
        }
        assert!(named.door(&url("http://10.0.0.7:9001/x")).is_err());
        assert!(named.door(&url("http://[::1]:81/x")).is_err());
        for bad in ["", "a b", "user@host", "http://host/", "host:port"] {
            assert!(Trust::new(&[], &[bad.to_owned()]).is_err(), "{bad}");
        }
    }

    #[test]
    fn of_an_address_that_stands_for_many_services_only_the_named_port_is_trusted() {
        let literal = trust("http://127.0.0.1:5000", &[]);
        assert_eq!(literal.door(&url("http://127.0.0.1:5000/x")), Ok(Door::Trusted));
        assert!(literal.door(&url("http://127.0.0.1:6379/x")).is_err());
        assert_eq!(trust("http://localhost:5000", &[]).door(&url("http://localhost:22/")), Ok(Door::Guarded));
    }

    #[test]
    fn credentials_go_to_realms_of_the_same_registrable_domain_or_listed_ones_and_no_others() {
        for (base, realm, allowed, expect) in [
            ("https://registry-1.docker.io", "https://auth.docker.io/token", &[][..], Ok(true)),
            ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth", &[], Ok(true)),
            ("https://ghcr.io", "https://ghcr.io/token", &[], Ok(true)),
            ("https://registry-1.docker.io", "https://auth.docker.io.evil.example/token", &[], Ok(false)),
            ("https://registry.co.uk", "https://evil.co.uk/token", &[], Ok(false)),
            ("https://a.github.io", "https://evil.github.io/token", &[], Ok(false)),
            ("https://ghcr.io", "https://auth.example.org/token", &["auth.example.org"], Ok(true)),
            ("https://ghcr.io", "https://8.8.8.8/token", &[], Ok(false)),
            ("https://registry", "https://auth/token", &[], Ok(false)),
            ("https://ghcr.io", "http://ghcr.io/token", &[], Err(())),
            ("http://ghcr.io", "http://ghcr.io/token", &[], Ok(true)),
            ("http://127.0.0.1:5000", "http://127.0.0.1:5000/token", &[], Ok(true)),
            ("http://127.0.0.1:5000", "http://127.0.0.1:5001/token", &[], Err(())),
            ("http://127.0.0.1:5000", "http://127.0.0.1:5001/token", &["127.0.0.1:5001"], Ok(true)),
            ("https://ghcr.io", "https://10.0.0.1/token", &[], Err(())),
            ("https://ghcr.io", "ftp://ghcr.io/token", &[], Err(())),
            ("https://ghcr.io", "https://u:p@ghcr.io/token", &[], Err(())),
        ] {
            let seen = trust(base, allowed).realm_sees_credentials(&url(base), &url(realm));
            assert_eq!(seen.map_err(drop), expect, "{base} {realm}");
        }
    }

    #[test]
    fn a_url_is_shown_by_its_origin_only() {
        let signed =
            url("https://user:canary@cdn.example.org:8443/canary/blob?X-Amz-Signature=canary#canary");
        assert_eq!(shown(&signed), "https://cdn.example.org:8443");
    }
}
