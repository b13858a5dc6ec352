//! Archives without a signature, with a keyring, and past their time.

use bytes::Bytes;
use http::StatusCode;

use crate::support::{Origin, Repoxy};
use crate::{DISTS, Generation, OURS, PACKAGES, archive};

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_without_any_signature_is_served_too() {
    let origin = Origin::start().await;
    let old = Generation::new(1);
    old.publish_files(&origin);
    origin.file(&format!("{DISTS}/Release"), "text/plain", old.release());
    let repoxy = Repoxy::with(&archive(&origin, ""));
    assert_eq!(repoxy.get(&format!("{OURS}/Release")).await.bytes(), &old.release());
    assert_eq!(repoxy.get(&format!("{OURS}/Release.gpg")).await.status, StatusCode::NOT_FOUND);
    assert_eq!(repoxy.get(&format!("{OURS}/{PACKAGES}")).await.bytes(), &old.packages);
    // Not even a Release: plain files.
    origin.file("/a/flat/Packages", "text/plain", "Package: x\n");
    assert_eq!(&repoxy.get("/debian/d/flat/./Packages").await.bytes()[..], b"Package: x\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_keyring_only_what_it_signed_is_served() {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/openpgp");
    let read = |name: &str| Bytes::from(std::fs::read(format!("{fixtures}/{name}")).expect("a fixture"));
    let origin = Origin::start().await;
    let inrelease = format!("{DISTS}/InRelease");
    origin.file(&inrelease, "text/plain", read("stranger.inrelease"));
    let keyring = format!("ttl = \"0s\"\nkeyring = \"{fixtures}/ring.asc\"");
    let repoxy = Repoxy::with(&archive(&origin, &keyring));
    let refused = repoxy.get(&format!("{OURS}/InRelease")).await;
    assert_eq!(refused.status, StatusCode::BAD_GATEWAY);
    let body = String::from_utf8(refused.bytes().to_vec()).expect("text");
    assert!(body.contains("AEC2DEDBD87826D1, not by one of the keys"), "{body}");
    assert!(repoxy.files("type/debian/proxies/d/cache").is_empty(), "nothing of it is kept");

    origin.file(&inrelease, "text/plain", read("archive.inrelease"));
    assert_eq!(repoxy.get(&format!("{OURS}/InRelease")).await.bytes(), &read("archive.inrelease"));
    let shown = repoxy.run(&["show", "debian/d/meta/dists/stable/InRelease", "--json"]);
    let shown = String::from_utf8(shown.stdout).expect("text");
    assert!(
        shown.contains(r#""signedBy":"567D4F8EF8D7E452""#) && shown.contains(r#""verified":true"#),
        "{shown}"
    );
    origin.file(&inrelease, "text/plain", read("stranger.inrelease"));
    assert_eq!(repoxy.get(&format!("{OURS}/InRelease")).await.bytes(), &read("archive.inrelease"));

    for (name, file) in [("Release", "message"), ("Release.gpg", "sub.sig")] {
        origin.file(&format!("{DISTS}/{name}"), "text/plain", read(file));
    }
    assert_eq!(repoxy.get(&format!("{OURS}/Release")).await.bytes(), &read("message"));
    assert_eq!(repoxy.get(&format!("{OURS}/Release.gpg")).await.bytes(), &read("sub.sig"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_past_its_valid_until_is_served_and_shown_as_lapsed() {
    let origin = Origin::start().await;
    let old = Generation { more: "Valid-Until: Sat, 08 Nov 2025 10:00:00 UTC\n", ..Generation::new(1) };
    old.publish(&origin);
    let mut repoxy = Repoxy::with(&archive(&origin, ""));
    assert_eq!(repoxy.get(&format!("{OURS}/InRelease")).await.bytes(), &old.inrelease());
    // 2025-11-08T10:00:00Z.
    let metric = r#"repoxy_valid_until_seconds{proxy="debian/d",path="dists/stable/InRelease"} 1762596000"#;
    while !String::from_utf8_lossy(repoxy.get("/-/metrics").await.bytes()).contains(metric) {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    repoxy.terminate();
    let verdict = "debian/d/meta/dists/stable/InRelease";
    let run = |arguments: &[&str]| {
        let output = repoxy.run(arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    assert!(run(&["show", verdict]).contains("2025-11-08T10:00:00Z, lapsed"));
    let listed = run(&["ls", "refs", "--type", "debian", "--json"]);
    let line = listed.lines().find(|line| line.contains(verdict)).expect("listed");
    assert!(line.contains(r#""validUntil":"2025-11-08T10:00:00Z""#), "{line}");
    let table = run(&["ls", "refs", "--type", "debian"]);
    assert!(table.lines().any(|line| line.contains(verdict) && line.contains("lapsed")), "{table}");
}
