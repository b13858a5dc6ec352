//! What requests, documents and names become, without a server. Names of tests say which of the usual
//! faults of APT caches they keep away.

mod catalogues;
mod names;
mod releases;
mod resources;

use std::fmt::Write as _;
use std::time::Duration;

use http::HeaderMap;

use super::*;
use crate::model::{Digest, ProxyFacts, ProxyId, Timestamp};
use crate::protocol::{Gotten, Need};

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const OTHER: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn proxy(name: &str, archives: &[&str]) -> ProxyFacts {
    ProxyFacts {
        namespaces: archives.iter().map(|&archive| archive.to_owned()).collect(),
        ..ProxyFacts::new(ProxyId { artifact_type: ArtifactType::Debian, name: name.parse().expect("valid") })
    }
}

fn proxies() -> ProxyTable {
    ProxyTable::new(vec![
        proxy("debian", &["deb.example.org/debian"]),
        proxy("security", &["deb.example.org/debian-security", "security.example.org/"]),
        proxy("vendor", &["get.example.com/ubuntu", "get.example.com:8443/ubuntu"]),
        proxy("inner", &["deb.example.org/debian/inner"]),
    ])
}

/// Asks for a target: a path, or a URL as a client sends it to its HTTP proxy.
fn ask<T>(target: &str, use_head: impl FnOnce(&Head<'_>) -> T) -> T {
    let (authority, path) = match target.strip_prefix("http://") {
        Some(rest) => rest.split_at(rest.find('/').expect("a path")),
        None => ("", target),
    };
    let authority = Some(authority).filter(|authority| !authority.is_empty());
    use_head(&Head { method: &Method::GET, authority, path, query: None, headers: &HeaderMap::new() })
}

fn place(target: &str) -> Result<String, Refusal> {
    let proxies = proxies();
    ask(target, |head| {
        let request = Request::parse(head, &proxies)?;
        Ok(format!("{} {}", request.proxy.id.name, request.path))
    })
}

/// Routes a target, answering each need with `answer`.
fn route(target: &str, mut answer: impl FnMut(Need, &mut Gathered)) -> Result<Resource, Refusal> {
    let (proxies, mut gathered) = (proxies(), Gathered::default());
    for _ in 0..8 {
        let routed = ask(target, |head| Debian.route(head, &proxies, &gathered));
        match routed {
            Ok(Route::Fetch(fetch)) => return Ok(fetch.resource),
            Ok(other) => panic!("{other:?}"),
            Err(Unrouted::Refused(refusal)) => return Err(refusal),
            Err(Unrouted::Needs(needs)) => needs.into_iter().for_each(|need| answer(need, &mut gathered)),
        }
    }
    panic!("it never has enough");
}

/// Answers needs by the documents that there are, by the end of their key; nothing is in an index.
fn from<'a>(documents: &'a [(&'a str, &'a str)]) -> impl FnMut(Need, &mut Gathered) + 'a {
    move |need, gathered| match need {
        Need::Document(_) | Need::Held(..) => {
            panic!("a document must never be newer than what clients were given")
        }
        Need::Fact(_) => panic!("nothing here asks for these"),
        Need::Recent(resource, within) => {
            assert!(within >= Duration::from_secs(60));
            let found = documents.iter().find(|(path, _)| *path == resource.key.path.as_str());
            let found = found.map(|(_, text)| gotten(&resource, text)).ok_or(Refusal::NotFound);
            gathered.add_document(resource.key, found);
        }
        Need::Entry(lookup) => gathered.add_entry(lookup, None),
    }
}

fn gotten(resource: &Resource, text: &str) -> Gotten {
    let body = Bytes::from(text.to_owned());
    let reference =
        Ref::new(resource.kind.to_owned(), Digest::of(&body), body.len() as u64, Timestamp::UNIX_EPOCH);
    Gotten { reference, body }
}

/// A Release text with these lines of `SHA256`.
fn release(by_hash: bool, date: &str, entries: &[(&str, &str)]) -> String {
    let mut text = format!("Origin: Test\nSuite: stable\nDate: {date}\n");
    if by_hash {
        text.push_str("Acquire-By-Hash: yes\n");
    }
    text.push_str("MD5Sum:\n 00 0 main/binary-amd64/Packages.xz\nSHA256:\n");
    for (hex, path) in entries {
        writeln!(text, " {hex}   17 {path}").expect("memory");
    }
    text
}

fn signed(text: &str) -> String {
    format!(
        "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{text}-----BEGIN PGP SIGNATURE-----\n\nxxxx\n-----END PGP SIGNATURE-----\n"
    )
}

const SATURDAY: &str = "Sat, 22 Nov 2025 10:00:00 UTC";
const SUNDAY: &str = "Sun, 23 Nov 2025 10:00:00 UTC";

#[test]
fn an_archive_is_reached_by_name_by_url_through_a_proxy_and_by_the_https_form() {
    for (target, expected) in [
        ("/debian/debian/dists/stable/InRelease", "debian dists/stable/InRelease"),
        ("http://deb.example.org/debian/dists/stable/InRelease", "debian dists/stable/InRelease"),
        ("http://deb.example.org:80/debian/dists/x", "debian dists/x"),
        ("http://DEB.Example.org/debian/dists/x", "debian dists/x"),
        ("http://deb.example.org/debian-security/dists/x", "security dists/x"),
        ("http://security.example.org/dists/x", "security dists/x"),
        ("http://deb.example.org/debian/inner/dists/x", "inner dists/x"),
        ("http://HTTPS///get.example.com/ubuntu/dists/x", "vendor dists/x"),
        ("http://HTTPS///get.example.com:443/ubuntu/dists/x", "vendor dists/x"),
        ("http://https/get.example.com:8443/ubuntu/dists/x", "vendor dists/x"),
        ("/HTTPS///get.example.com/ubuntu/dists/x", "vendor dists/x"),
        ("/debian/HTTPS///get.example.com/ubuntu/dists/x", "vendor dists/x"),
    ] {
        assert_eq!(place(target).as_deref(), Ok(expected), "{target}");
    }
}

#[test]
fn what_no_proxy_answers_for_is_refused_before_anybody_is_asked() {
    for target in [
        "/debian/nobody/dists/x",
        "http://deb.example.org/ubuntu/dists/x",
        "http://deb.example.org/debianx/dists/x",
        "http://deb.example.org:8080/debian/dists/x",
        "http://get.example.com:443/ubuntu/dists/x",
        "http://HTTPS///evil.example.com/ubuntu/dists/x",
        "http://HTTPS///127.0.0.1/ubuntu/dists/x",
        "/HTTPS///evil.example.com/x",
    ] {
        assert_eq!(place(target), Err(Refusal::NoProxy), "{target}");
    }
    let proxies = proxies();
    for (target, ours) in [
        ("http://deb.example.org/anything", true),
        ("http://HTTPS///get.example.com/x", true),
        ("http://HTTPS///evil.example.com/x", false),
        ("http://evil.example.com/debian/debian/dists/x", false),
        ("http://127.0.0.1/x", false),
        ("/debian", true),
        ("/debian/x", true),
        ("/debianx/x", false),
        ("/v2/", false),
    ] {
        assert_eq!(ask(target, |head| Debian.owns(head, &proxies)), ours, "{target}");
    }
}

#[test]
fn a_refusal_is_a_line_of_text() {
    let reply = ask("/debian/x", |head| Debian.refuse(head, &Refusal::NoProxy));
    assert_eq!(
        (reply.status.as_u16(), &reply.body[..]),
        (404, &b"no proxy is configured for this name\n"[..])
    );
}
