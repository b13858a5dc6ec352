//! What a path names: its archive, its form, its suite, and no second name for the same.

use super::super::item::{Item, classify, suites};
use super::*;
use crate::model::{Checksum, Source};

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
