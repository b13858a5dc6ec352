//! What requests, documents and names become, without a server. Names of tests say which of the usual
//! faults of APT caches they keep away.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use http::HeaderMap;

use super::item::{Item, classify, suites};
use super::release::{Release, is_older};
use super::*;
use crate::model::{
    Checksum, Delivery, Digest, Freshness, Heed, ProxyFacts, ProxyId, RefKey, Source, Timestamp,
};
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
fn pitfall_6_percent_encoding_makes_no_second_name() {
    let key = |path: &str| route(&format!("/debian/debian/pool/main/p/{path}"), from(&[])).expect("valid");
    let plain = key("pp/pp++_2~3+b1:x_amd64.deb");
    assert_eq!(key("pp/pp%2b%2b_2%7e3%2Bb1%3ax_amd64.deb").key, plain.key);
    assert_eq!(key("./pp/./pp++_2~3+b1:x_amd64.deb").key, plain.key);
    assert_eq!(plain.key.to_string(), "debian/debian/refs/pool/main/p/pp/pp++_2~3+b1:x_amd64.deb");
    // `+` is encoded for stores that take it for a space.
    assert_eq!(plain.source, Source::Path("/pool/main/p/pp/pp%2B%2B_2~3%2Bb1:x_amd64.deb".to_owned()));
    assert_eq!(key("%2525.deb").key.path.as_str(), "pool/main/p/%25.deb", "decoded once");
    assert_eq!(key("%2525.deb").source, Source::Path("/pool/main/p/%2525.deb".to_owned()));
}

#[test]
fn a_path_never_climbs_and_directories_are_not_served() {
    for path in [
        "..",
        "a/../b",
        "a/%2e%2e/b",
        "a/..",
        "a//b",
        "a%2f%2fb",
        "a%00",
        "a%0ab",
        "a%5cb",
        "%ff",
        &"a".repeat(4097),
    ] {
        let refused = place(&format!("/debian/debian/{path}"));
        assert!(matches!(refused, Err(Refusal::Invalid { .. })), "{path}: {refused:?}");
    }
    for path in ["", "dists/", "dists/stable/", "."] {
        assert_eq!(place(&format!("/debian/debian/{path}")), Err(Refusal::NoEndpoint), "{path}");
    }
}

#[test]
fn a_path_is_what_its_form_says() {
    let checksum = |text: &str| Item::ByHash(text.parse::<Checksum>().expect("valid"));
    let sha512 = OTHER.repeat(2);
    for (path, expected) in [
        ("dists/stable/InRelease", Item::Release),
        ("dists/stable/updates/Release", Item::Release),
        ("dists/stable/Release.gpg", Item::Signature),
        ("InRelease", Item::Release),
        ("dists/stable/main/binary-amd64/Release", Item::Index),
        ("dists/stable/main/source/Release", Item::Index),
        ("dists/stable/main/binary-amd64/Packages.xz", Item::Index),
        ("dists/stable/main/i18n/Translation-en.bz2", Item::Index),
        ("dists/stable/main/Contents-amd64.gz", Item::Index),
        ("dists/stable/main/dep11/icons-64x64.tar.gz", Item::Index),
        ("dists/stable/main/cnf/Commands-amd64.xz", Item::Index),
        ("Packages", Item::Index),
        ("sub/Sources.gz", Item::Index),
        ("pool/main/h/hello/hello_1_amd64.deb", Item::Package),
        ("pool/main/h/hello/hello_1.dsc", Item::Package),
        ("pool/main/h/hello/hello_1.orig.tar.gz", Item::Package),
        ("pool/main/h/hello/hello_1.diff.gz", Item::Package),
        ("dists/stable/main/binary-amd64/odd_1_amd64.deb", Item::Package),
        ("hello.udeb", Item::Package),
        ("dists/stable/main/binary-amd64/Packages.diff/Index", Item::Difference),
        ("dists/stable/main/binary-amd64/Packages.diff/T-1-F-2.gz", Item::Difference),
        ("key.asc", Item::File),
        (".deb", Item::File),
        ("project/trace/x", Item::File),
    ] {
        assert_eq!(classify(path), expected, "{path}");
    }
    assert_eq!(classify(&format!("dists/s/m/b/by-hash/SHA256/{HEX}")), checksum(&format!("sha256:{HEX}")));
    assert_eq!(
        classify(&format!("dists/s/m/b/by-hash/SHA512/{sha512}")),
        checksum(&format!("sha512:{sha512}"))
    );
    for unchecked in ["MD5Sum/d41d8cd98f00b204e9800998ecf8427e", "SHA256/short"] {
        assert_eq!(classify(&format!("dists/s/m/b/by-hash/{unchecked}")), Item::Index);
    }
}

#[test]
fn a_suite_may_have_a_name_of_several_components() {
    assert_eq!(suites("dists/stable"), ["dists/stable"]);
    assert_eq!(suites("dists/a/b/c/d"), ["dists/a", "dists/a/b", "dists/a/b/c"]);
    assert_eq!(suites("ubuntu/dists/a/b"), ["ubuntu/dists/a", "ubuntu/dists/a/b"]);
    assert_eq!(suites("flat/dir"), ["flat/dir"]);
    assert_eq!(suites(""), [""]);
    assert_eq!(suites("dists"), [""; 0]);

    let text = signed(&release(false, SATURDAY, &[(HEX, "main/binary-amd64/Packages.xz")]));
    let documents = [("dists/stable/updates/InRelease", text.as_str())];
    let index = route("/debian/debian/dists/stable/updates/main/binary-amd64/Packages.xz", from(&documents));
    assert_eq!(
        index.expect("found").key.path.as_str(),
        format!("dists/stable/updates/main/binary-amd64/by-hash/SHA256/{HEX}")
    );
}

#[test]
fn pitfall_1_a_plain_name_is_the_object_that_the_served_inrelease_names() {
    let target = "/debian/debian/dists/stable/main/binary-amd64/Packages.xz";
    for (by_hash, source, fallback) in [
        (true, format!("/dists/stable/main/binary-amd64/by-hash/SHA256/{HEX}"), true),
        (false, "/dists/stable/main/binary-amd64/Packages.xz".to_owned(), false),
    ] {
        let text = signed(&release(by_hash, SATURDAY, &[(HEX, "main/binary-amd64/Packages.xz")]));
        let resource = route(target, from(&[("dists/stable/InRelease", &text)])).expect("routed");
        assert_eq!(
            resource.key.to_string(),
            format!("debian/debian/cache/dists/stable/main/binary-amd64/by-hash/SHA256/{HEX}")
        );
        assert_eq!(resource.kind, kind::PACKAGES);
        assert_eq!(resource.expect, Some(Digest::from_hex(HEX).expect("valid").into()));
        assert_eq!(resource.size, Some(17));
        assert_eq!(resource.freshness, Freshness::Immutable);
        assert_eq!(resource.source, Source::Path(source));
        let plain = Source::Path("/dists/stable/main/binary-amd64/Packages.xz".to_owned());
        assert_eq!(resource.fallback, fallback.then_some(plain));
    }
}

#[test]
fn pitfall_2_a_by_hash_name_knows_the_plain_name_that_it_may_fall_back_to() {
    let path = format!("/debian/debian/dists/stable/main/binary-amd64/by-hash/SHA256/{HEX}");
    let entries = [(OTHER, "main/i18n/Translation-en.xz"), (HEX, "main/binary-amd64/Packages.xz")];
    let text = signed(&release(true, SATURDAY, &entries));
    let documents = [("dists/stable/InRelease", text.as_str())];
    let by_hash = route(&path, from(&documents)).expect("routed");
    let plain = route("/debian/debian/dists/stable/main/binary-amd64/Packages.xz", from(&documents));
    assert_eq!(by_hash, plain.expect("routed"), "one thing, asked for in two ways");

    // Clients ask by SHA512 where there is one: the same thing.
    let sha512 = OTHER.repeat(2);
    let both = signed(&format!(
        "{}SHA512:\n {sha512} 17 main/binary-amd64/Packages.xz\n",
        release(true, SATURDAY, &entries)
    ));
    let path512 = format!("/debian/debian/dists/stable/main/binary-amd64/by-hash/SHA512/{sha512}");
    assert_eq!(route(&path512, from(&[("dists/stable/InRelease", &both)])).expect("routed"), by_hash);
    let alone = route(&path512, from(&documents)).expect("routed");
    assert!(alone.expect.is_some_and(|expect| expect.digest().is_none()) && alone.kind == kind::INDEX);

    // One of an older generation, or of an archive that nobody has asked for its InRelease.
    for documents in [&documents[..], &[]] {
        let older = route(&path.replace(HEX, &HEX.replace("e3", "ab")), from(documents)).expect("routed");
        assert_eq!((older.kind, older.fallback, older.size), (kind::INDEX, None, None));
        assert!(older.expect.is_some() && older.freshness == Freshness::Immutable);
    }
}

#[test]
fn without_an_inrelease_the_release_governs_and_without_both_nothing_does() {
    let text = release(false, SATURDAY, &[(HEX, "main/binary-amd64/Packages.gz")]);
    let target = "/debian/debian/dists/stable/main/binary-amd64/Packages.gz";
    let governed = route(target, from(&[("dists/stable/Release", &text)])).expect("routed");
    assert!(governed.key.path.as_str().ends_with(HEX));
    let free = route(target, from(&[])).expect("routed");
    assert_eq!((free.kind, free.key.path.as_str()), (kind::FILE, &target[15..]));
    assert!(matches!(free.freshness, Freshness::For(_)));
    // A file that the Release does not name is a file like any other.
    let unnamed = "/debian/debian/dists/stable/main/installer-amd64/current/images/linux";
    assert_eq!(route(unnamed, from(&[("dists/stable/Release", &text)])).expect("routed").kind, kind::FILE);
    // A flat repository has its documents beside its index.
    let flat = release(false, SATURDAY, &[(HEX, "Packages.gz")]);
    let flat = route("/debian/debian/flat/./Packages.gz", from(&[("flat/Release", &flat)])).expect("routed");
    assert_eq!(flat.key.path.as_str(), format!("flat/by-hash/SHA256/{HEX}"));
}

#[test]
fn upstreams_trouble_with_the_inrelease_is_no_licence_to_guess_what_a_name_means() {
    let refuse = |refusal: Refusal| {
        move |need, gathered: &mut Gathered| match need {
            Need::Recent(resource, _) => gathered.add_document(resource.key, Err(refusal.clone())),
            other => panic!("{other:?}"),
        }
    };
    let plain = "/debian/debian/dists/stable/main/binary-amd64/Packages.xz";
    assert_eq!(route(plain, refuse(Refusal::Timeout)), Err(Refusal::Timeout));
    // But a Release that is cached will do.
    let text = release(false, SATURDAY, &[(HEX, "main/binary-amd64/Packages.xz")]);
    let cached = route(plain, |need, gathered| match need {
        Need::Recent(resource, _) if resource.key.path.as_str() == "dists/stable/Release" => {
            gathered.add_document(resource.key.clone(), Ok(gotten(&resource, &text)));
        }
        need => refuse(Refusal::Timeout)(need, gathered),
    });
    assert!(cached.expect("routed").key.path.as_str().ends_with(HEX));
    let by_hash = format!("/debian/debian/dists/stable/main/binary-amd64/by-hash/SHA256/{HEX}");
    assert!(route(&by_hash, refuse(Refusal::Timeout)).is_ok(), "this name says itself what it means");
    assert_eq!(route(plain, refuse(Refusal::Denied { anonymous: true })).expect("routed").kind, kind::FILE);
}

#[test]
fn a_package_is_checked_by_what_an_index_says_and_otherwise_kept_long() {
    let target = "/debian/debian/pool/main/h/hello_1_amd64.deb";
    let digest = Digest::from_hex(HEX).expect("valid");
    let known = route(target, |need, gathered| {
        let Need::Entry(lookup) = need else { panic!("{need:?}") };
        assert_eq!((lookup.kind, lookup.item.as_str()), (kind::PACKAGES, "pool/main/h/hello_1_amd64.deb"));
        gathered.add_entry(lookup, Some(Claim { digest, size: Some(9) }));
    })
    .expect("routed");
    // Pitfall 9: the size is known even if upstream does not tell it.
    assert_eq!((known.expect, known.size), (Some(digest.into()), Some(9)));
    assert_eq!((known.freshness, known.delivery), (Freshness::Immutable, Delivery::Streamed));
    let unknown = route(target, from(&[])).expect("routed");
    assert_eq!((unknown.expect, unknown.key), (None, known.key));
    let Freshness::For(ttl) = unknown.freshness else { panic!("not vouched for") };
    assert!(ttl > Duration::from_secs(86_400));
    assert_eq!(Debian.catalogued_by(unknown.kind), Some(kind::PACKAGES));
}

#[test]
fn pitfall_12_what_may_change_heeds_no_cache_and_nothing_else_does() {
    let documents = [(
        "dists/stable/InRelease",
        &*signed(&release(true, SATURDAY, &[(HEX, "main/binary-amd64/Packages")])),
    )];
    for (path, heed) in [
        ("dists/stable/InRelease", Heed::NoCache),
        ("dists/stable/Release", Heed::NoCache),
        ("key.asc", Heed::NoCache),
        ("dists/stable/main/unnamed", Heed::NoCache),
        ("dists/stable/main/binary-amd64/Packages", Heed::Nothing),
        (&format!("dists/stable/main/binary-amd64/by-hash/SHA256/{OTHER}"), Heed::Nothing),
        ("pool/h/hello_1.deb", Heed::Nothing),
    ] {
        let resource = route(&format!("/debian/debian/{path}"), from(&documents)).expect("routed");
        assert_eq!(resource.asked.heed, heed, "{path}");
    }
}

#[test]
fn pitfall_14_differences_are_not_there_so_that_clients_take_the_whole_file() {
    for path in ["Packages.diff/Index", "Packages.diff/by-hash/SHA256/x", "Packages.diff/T-1-F-2.gz"] {
        let target = format!("/debian/debian/dists/stable/main/binary-amd64/{path}");
        assert_eq!(route(&target, |need, _| panic!("{need:?}")), Err(Refusal::NotFound), "{path}");
    }
}

#[test]
fn pitfall_4_the_page_of_a_captive_portal_is_no_release() {
    let page = b"<html><head><title>Welcome</title></head>Suite: none</html>";
    let good = release(false, SATURDAY, &[]);
    for bad in [
        &page[..],
        b"",
        b"\xff",
        good.as_bytes(),
        signed("").as_bytes(),
        signed(&good).split_at(80).0.as_bytes(),
        format!("x\n{}", signed(&good)).as_bytes(),
        format!("{}Origin: Evil\n", signed(&good)).as_bytes(),
    ] {
        let text = String::from_utf8_lossy(bad);
        assert!(matches!(Release::signed(bad), Err(Refusal::BadUpstream(_))), "{text}");
        assert!(matches!(vet("InRelease", bad), Err(Refusal::BadUpstream(_))), "{text}");
        let refused = Debian.companions(&resource("InRelease"), None, bad);
        assert!(matches!(refused, Err(Refusal::BadUpstream(_))), "{text}");
    }
    assert!(Release::signed(signed(&good).as_bytes()).is_ok());
    assert!(Release::signed(signed(&good).replace('\n', "\r\n").as_bytes()).is_ok());
    assert!(Release::plain(good.as_bytes()).is_ok());
    assert!(Release::plain(b"<html>").is_err() && Release::plain(b"").is_err());
}

fn resource(name: &str) -> Resource {
    route(&format!("/debian/debian/dists/stable/{name}"), from(&[])).expect("routed")
}

fn vet(name: &str, document: &[u8]) -> Result<Vec<Descriptor>, Refusal> {
    Debian.vet(&resource(name), document, &Gathered::default())
}

#[test]
fn a_release_tells_its_facts_and_only_its_sha256_counts() {
    let entries = [
        (HEX, "main/binary-amd64/Packages.xz"),
        (OTHER, "x y"),
        ("zz", "z"),
        (HEX, "../climbs"),
        (HEX, "a//b"),
    ];
    let text = release(true, SATURDAY, &entries)
        + "SHA512:\n 00 1 later\nValid-Until: Sun, 30 Nov 2025 10:00:00 UTC\n";
    let release = Release::plain(text.as_bytes()).expect("valid");
    assert!(release.has_by_hash());
    assert_eq!(release.date().expect("a date").to_string(), "2025-11-22T10:00:00Z");
    assert_eq!(release.valid_until().expect("a date").to_string(), "2025-11-30T10:00:00Z");
    let paths: Vec<_> = release.entries().map(|entry| (entry.path, entry.size)).collect();
    assert_eq!(paths, [("main/binary-amd64/Packages.xz", 17), ("x", 17)]);
    assert!(release.at("later").is_none());
    for (date, is_some) in [
        ("Sat, 22 Nov 2025 10:00:00 +0000", true),
        // The wrong day of the week.
        ("Mon, 22 Nov 2025 10:00:00 UTC", true),
        ("yesterday", false),
    ] {
        let text = self::release(false, date, &[]);
        assert_eq!(Release::plain(text.as_bytes()).expect("valid").date().is_some(), is_some, "{date}");
    }
}

#[test]
fn a_release_with_an_older_date_than_the_one_that_is_held_is_refused() {
    let (older, newer) = (signed(&release(false, SATURDAY, &[])), signed(&release(false, SUNDAY, &[])));
    let undated = signed(&release(false, "", &[]));
    let companions = |old: &str, new: &str| {
        Debian.companions(&resource("InRelease"), Some(old.as_bytes()), new.as_bytes())
    };
    assert!(matches!(companions(&newer, &older), Err(Refusal::BadUpstream(_))));
    for (old, new) in [(&older, &newer), (&newer, &newer), (&undated, &older), (&newer, &undated)] {
        assert!(companions(old, new).is_ok());
    }
    let read = |text: &'static str| Release::plain(text.as_bytes()).expect("valid");
    assert!(!is_older(&read("Origin: x"), &read("Origin: x")));
}

#[test]
fn a_new_inrelease_brings_the_new_versions_of_what_was_used_and_nothing_else() {
    let old = signed(&release(
        true,
        SATURDAY,
        &[(HEX, "main/binary-amd64/Packages.xz"), (HEX, "main/source/Sources.xz"), (HEX, "gone")],
    ));
    let new = signed(&release(
        true,
        SUNDAY,
        &[(OTHER, "main/binary-amd64/Packages.xz"), (HEX, "main/source/Sources.xz"), (OTHER, "new")],
    ));
    let resource = resource("InRelease");
    assert!(Debian.companions(&resource, None, new.as_bytes()).expect("valid").is_empty());
    let companions = Debian.companions(&resource, Some(old.as_bytes()), new.as_bytes()).expect("valid");
    let [companion] = &companions[..] else { panic!("{companions:?}") };
    let by_hash = "dists/stable/main/binary-amd64/by-hash/SHA256";
    assert_eq!(companion.resource.key.path.as_str(), format!("{by_hash}/{OTHER}"));
    assert_eq!(companion.resource.kind, kind::PACKAGES);
    assert!(companion.resource.expect.is_some() && companion.resource.fallback.is_some());
    let used = companion.only_if.as_ref().map(|key: &RefKey| key.path.as_str().to_owned());
    assert_eq!(used, Some(format!("{by_hash}/{HEX}")));
}

#[test]
fn a_release_and_its_signature_switch_as_a_pair() {
    let text = release(false, SATURDAY, &[]);
    let companions = Debian.companions(&resource("Release"), None, text.as_bytes()).expect("valid");
    let [signature] = &companions[..] else { panic!("{companions:?}") };
    assert!(signature.optional && signature.only_if.is_none() && signature.resource.expect.is_none());
    let asked = route("/debian/debian/dists/stable/Release.gpg", from(&[("dists/stable/Release", &text)]));
    assert_eq!(asked.expect("routed").key, signature.resource.key);
    let hex = Digest::of(text.as_bytes()).hex();
    assert_eq!(signature.resource.key.path.as_str(), format!("dists/stable/Release.gpg/{hex}"));
    assert_eq!(
        route("/debian/debian/dists/stable/Release.gpg", from(&[])),
        Err(Refusal::NotFound),
        "no Release, no signature"
    );
}

#[test]
fn a_verdict_says_until_when_a_release_is_valid_and_who_signed_it() {
    let text = signed(&(release(false, SATURDAY, &[]) + "Valid-Until: Sun, 30 Nov 2025 10:00:00 UTC\n"));
    let verdict = vet("InRelease", text.as_bytes()).expect("accepted").remove(0);
    assert_eq!(verdict.path.as_str(), "dists/stable/InRelease");
    assert_eq!(verdict.facts["validUntil"], "2025-11-30T10:00:00Z");
    assert_eq!((&verdict.facts["verified"], &verdict.facts["suite"]), (&false.into(), &"stable".into()));

    let ring = Bytes::from_static(include_bytes!("../../../fixtures/openpgp/ring.gpg"));
    let keyed = Resource { context: ring, ..resource("InRelease") };
    let vet = |document: &[u8]| Debian.vet(&keyed, document, &Gathered::default());
    let good = include_bytes!("../../../fixtures/openpgp/archive.inrelease");
    let verdict = vet(good).expect("accepted").remove(0);
    assert_eq!(
        (&verdict.facts["verified"], &verdict.facts["signedBy"]),
        (&true.into(), &"567D4F8EF8D7E452".into())
    );
    let Err(Refusal::Untrusted { why }) = vet(include_bytes!("../../../fixtures/openpgp/stranger.inrelease"))
    else {
        panic!("signed by nobody of the ring")
    };
    assert!(why.contains("AEC2DEDBD87826D1"), "{why}");
    assert!(matches!(vet(text.as_bytes()), Err(Refusal::Untrusted { .. })));
}

#[test]
fn with_a_keyring_a_release_needs_its_signature() {
    let ring = Bytes::from_static(include_bytes!("../../../fixtures/openpgp/ring.gpg"));
    let keyed = Resource { context: ring, ..resource("Release") };
    let document = include_bytes!("../../../fixtures/openpgp/message");
    let companion = Debian.companions(&keyed, None, document).expect("valid").remove(0).resource;
    assert_eq!(companion.freshness, Freshness::Immutable);
    let vet = |signature: Option<&'static [u8]>| {
        let mut gathered = Gathered::default();
        if let Some(signature) = signature {
            let body = Bytes::from_static(signature);
            let reference = Ref::new(String::new(), Digest::of(&body), 0, Timestamp::UNIX_EPOCH);
            gathered.add_document(companion.key.clone(), Ok(Gotten { reference, body }));
        }
        Debian.vet(&keyed, document, &gathered)
    };
    assert!(vet(Some(include_bytes!("../../../fixtures/openpgp/sub.sig"))).is_ok());
    assert!(matches!(vet(None), Err(Refusal::Untrusted { .. })));
    let stranger = include_bytes!("../../../fixtures/openpgp/stranger.sig");
    assert!(matches!(vet(Some(stranger)), Err(Refusal::Untrusted { .. })));
}

/// What an index says, in the order in which it says it.
fn named(path: &str, document: &[u8]) -> (Vec<(String, u64)>, bool) {
    let mut named = Vec::new();
    let whole = Debian.catalogue(&path.parse().expect("valid"), document, &mut |item, claim| {
        named.push((item.to_owned(), claim.size.unwrap_or(0)));
    });
    (named, whole)
}

const PACKAGES: &str = "Package: a\nFilename: pool/a_1.deb\nSize: 5\nSHA256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\nDescription: x\n Filename: not-this\n\n\
    Package: b\nSHA256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\nFilename: ./pool//b_1.deb\n\n\
    Package: climbs\nSHA256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\nFilename: ../c.deb\n\n\
    Package: nowhere\nSHA256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\nFilename: ./\n\n\
    Package: unchecked\nFilename: d.deb\n";

#[test]
fn packages_and_sources_name_their_files_in_every_compression() {
    let path = format!("dists/stable/main/binary-amd64/by-hash/SHA256/{HEX}");
    let expected = vec![("pool/a_1.deb".to_owned(), 5), ("pool/b_1.deb".to_owned(), 0)];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(PACKAGES.as_bytes()).expect("memory");
    for (name, document) in [
        ("plain", PACKAGES.as_bytes()),
        ("gz", &gzip.finish().expect("memory")),
        ("xz", include_bytes!("../../../fixtures/debian/Packages.xz")),
        ("bz2", include_bytes!("../../../fixtures/debian/Packages.bz2")),
        ("zst", include_bytes!("../../../fixtures/debian/Packages.zst")),
        ("lz4", include_bytes!("../../../fixtures/debian/Packages.lz4")),
    ] {
        assert_eq!(named(&path, document), (expected.clone(), true), "{name}");
        // In two parts, as compressors that work in parallel write it: here the second has it all again.
        let twice = [document, document].concat();
        assert_eq!(named(&path, &twice), ([expected.clone(), expected.clone()].concat(), true), "{name}");
        if name != "plain" {
            let half = &document[..document.len() / 2];
            assert!(!named(&path, half).1 && !named(&path, &[document, half].concat()).1, "{name}: cut");
        }
    }

    let sources = format!(
        "Package: s\nFiles:\n 00 3 s_1.dsc\nChecksums-Sha256:\n {HEX} 3 s_1.dsc\n {HEX} 4 s_1.tar.xz\n bad\nDirectory: pool/s\n"
    );
    let expected = vec![("pool/s/s_1.dsc".to_owned(), 3), ("pool/s/s_1.tar.xz".to_owned(), 4)];
    assert_eq!(named(&path, sources.as_bytes()), (expected, true));
}

#[test]
fn paths_in_an_index_count_from_the_archives_own_root() {
    let one = format!("Filename: x.deb\nSHA256: {HEX}\n");
    for (dir, expected) in [
        ("dists/stable/main/binary-amd64", &["x.deb"][..]),
        ("ubuntu/dists/stable/main/binary-amd64", &["ubuntu/x.deb"]),
        // A flat repository does not say where its root is.
        ("flat", &["x.deb", "flat/x.deb"]),
    ] {
        let (named, _) = named(&format!("{dir}/by-hash/SHA256/{HEX}"), one.as_bytes());
        let named: Vec<_> = named.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(named, expected, "{dir}");
    }
}

#[test]
fn an_index_that_is_damaged_or_endless_is_left_where_it_ends() {
    let xz = include_bytes!("../../../fixtures/debian/Packages.xz");
    let path = format!("a/by-hash/SHA256/{HEX}");
    let line = vec![b'x'; 5 << 20];
    for bad in [&xz[..xz.len() / 2], &line, b"BZh91AY", b"\x28\xb5\x2f\xfd\0", b"\x04\x22\x4d\x18\0"] {
        assert!(!named(&path, bad).1);
    }
    assert_eq!(named(&path, b"\xff\xfe\n\n: :\n"), (Vec::new(), true));
}

#[test]
fn a_dash_that_anybody_may_put_in_front_of_a_signed_line_hides_nothing() {
    let text = release(true, SATURDAY, &[(HEX, "main/binary-amd64/Packages.xz")]);
    let dashed = text.lines().fold(String::new(), |dashed, line| dashed + "- " + line + "\n");
    let (plain, dashed) = (signed(&text), signed(&dashed));
    let read = |text| Release::signed(text).expect("a Release");
    let (plain, dashed) = (read(plain.as_bytes()), read(dashed.as_bytes()));
    assert!(plain.date().is_some() && plain.entries().count() == 1);
    assert_eq!((dashed.date(), dashed.has_by_hash()), (plain.date(), plain.has_by_hash()));
    assert_eq!(dashed.entries().collect::<Vec<_>>(), plain.entries().collect::<Vec<_>>());
    // A signature that is kept apart is over the bytes as they are.
    let apart = Release::plain(b"- Date: Sat, 22 Nov 2025 10:00:00 UTC\nOrigin: Test\n").expect("a Release");
    assert_eq!(apart.date(), None);
}

#[test]
fn a_release_names_the_indexes_of_its_generation_by_where_they_are_kept() {
    let text = signed(&release(true, SATURDAY, &[(HEX, "main/binary-amd64/Packages.xz")]));
    let expected = vec![(format!("dists/s/main/binary-amd64/by-hash/SHA256/{HEX}"), 17)];
    assert_eq!(named("dists/s/InRelease", text.as_bytes()), (expected, true));
    assert_eq!(named("dists/s/InRelease", b"<html>"), (Vec::new(), false));
    assert_eq!(Debian.catalogued_by(kind::INDEX), Some(kind::RELEASE));
    assert!([kind::RELEASE, kind::PACKAGES].into_iter().all(|kind| Debian.is_catalogue(kind)));
}

#[test]
fn a_catalogue_is_replaced_by_its_next_version() {
    let of = |path: &str| Debian.catalogue_of(&path.parse().expect("valid")).to_owned();
    assert_eq!(of(&format!("dists/s/main/binary-amd64/by-hash/SHA256/{HEX}")), "dists/s/main/binary-amd64");
    assert_eq!(of(&format!("by-hash/SHA256/{HEX}")), "");
    assert_eq!(of("dists/s/InRelease"), "dists/s/InRelease");
}

#[test]
fn a_refusal_is_a_line_of_text() {
    let reply = ask("/debian/x", |head| Debian.refuse(head, &Refusal::NoProxy));
    assert_eq!(
        (reply.status.as_u16(), &reply.body[..]),
        (404, &b"no proxy is configured for this name\n"[..])
    );
}
