//! Releases: what they say, what comes with them, and who signed them.

use super::super::release::{Release, is_older};
use super::*;
use crate::model::{Freshness, RefKey};

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

    let ring = Bytes::from_static(include_bytes!("../../../../fixtures/openpgp/ring.gpg"));
    let keyed = Resource { context: ring, ..resource("InRelease") };
    let vet = |document: &[u8]| Debian.vet(&keyed, document, &Gathered::default());
    let good = include_bytes!("../../../../fixtures/openpgp/archive.inrelease");
    let verdict = vet(good).expect("accepted").remove(0);
    assert_eq!(
        (&verdict.facts["verified"], &verdict.facts["signedBy"]),
        (&true.into(), &"567D4F8EF8D7E452".into())
    );
    let Err(Refusal::Untrusted { why }) =
        vet(include_bytes!("../../../../fixtures/openpgp/stranger.inrelease"))
    else {
        panic!("signed by nobody of the ring")
    };
    assert!(why.contains("AEC2DEDBD87826D1"), "{why}");
    assert!(matches!(vet(text.as_bytes()), Err(Refusal::Untrusted { .. })));
}

#[test]
fn with_a_keyring_a_release_needs_its_signature() {
    let ring = Bytes::from_static(include_bytes!("../../../../fixtures/openpgp/ring.gpg"));
    let keyed = Resource { context: ring, ..resource("Release") };
    let document = include_bytes!("../../../../fixtures/openpgp/message");
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
    assert!(vet(Some(include_bytes!("../../../../fixtures/openpgp/sub.sig"))).is_ok());
    assert!(matches!(vet(None), Err(Refusal::Untrusted { .. })));
    let stranger = include_bytes!("../../../../fixtures/openpgp/stranger.sig");
    assert!(matches!(vet(Some(stranger)), Err(Refusal::Untrusted { .. })));
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
