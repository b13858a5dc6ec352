//! What a request leads to, as the documents say that govern it.

use super::*;
use crate::model::{Delivery, Freshness, Heed, Source};

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
